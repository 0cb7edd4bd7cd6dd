#include "net/certificates.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <memory>
#include <string_view>
#include <utility>

#include "base/assert.h"
#include "net/tls.h"

namespace conclave::net {
namespace {

// 2^128 serial numbers drawn at random do not meet.
constexpr int kSerialBits = 127;
constexpr size_t kNameBytesMax = 64;  // of a common name (X.520)
constexpr size_t kHostBytesMax = 253;
constexpr size_t kHostsMax = 64;

template <class T, void (*free_it)(T*)>
struct Free {
  void operator()(T* owned) const { free_it(owned); }
};
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY, EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Free<X509, X509_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION, X509_EXTENSION_free>>;
using Names = std::unique_ptr<GENERAL_NAMES, Free<GENERAL_NAMES, GENERAL_NAMES_free>>;
using Number = std::unique_ptr<BIGNUM, Free<BIGNUM, BN_free>>;
using Memory = std::unique_ptr<BIO, Free<BIO, BIO_free_all>>;

Error broken(std::string_view what) {
  const unsigned long error = ERR_get_error();
  ERR_clear_error();
  const char* const reason = ERR_reason_error_string(error);
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", what, reason == nullptr ? "cannot be made" : reason)};
}

std::string text_of(const Memory& memory) {
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(memory.get(), &bytes);
  return {bytes, static_cast<size_t>(size)};
}

Result<KeyedCertificate> to_pem(X509* certificate, EVP_PKEY* key) {
  const Memory first(BIO_new(BIO_s_mem()));
  const Memory second(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(first.get(), certificate) != 1 ||
      PEM_write_bio_PKCS8PrivateKey(second.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return std::unexpected(broken("PEM"));
  }
  return KeyedCertificate{.certificate = text_of(first), .key = text_of(second)};
}

bool is_plain(std::string_view text, size_t bytes_max) {
  return !text.empty() && text.size() <= bytes_max &&
         std::ranges::all_of(text, [](char byte) { return byte > ' ' && byte < '\x7f'; });
}

bool add_text(X509* certificate, X509* issuer, int kind, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const Extension extension(X509V3_EXT_conf_nid(nullptr, &context, kind, value));
  return extension && X509_add_ext(certificate, extension.get(), -1) == 1;
}

// Serial number, dates, subject and key: what all certificates have.
Result<Certificate> begin(const std::string& name, Validity validity, EVP_PKEY* key) {
  if (!is_plain(name, kNameBytesMax)) {
    return fail(ErrorCode::kInvalidArgument, "'{}' cannot be a certificate's name: 1 to {} printable ASCII characters",
                name, kNameBytesMax);
  }
  if (validity.from >= validity.until) return fail(ErrorCode::kInvalidArgument, "a certificate that is never valid");
  Certificate certificate(X509_new());
  const Number serial(BN_new());
  X509_NAME* const subject = X509_get_subject_name(certificate.get());
  if (X509_set_version(certificate.get(), X509_VERSION_3) != 1 ||
      BN_rand(serial.get(), kSerialBits, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) != 1 ||
      BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(certificate.get())) == nullptr ||
      ASN1_TIME_set(X509_getm_notBefore(certificate.get()), validity.from) == nullptr ||
      ASN1_TIME_set(X509_getm_notAfter(certificate.get()), validity.until) == nullptr ||
      X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8,
                                 reinterpret_cast<const unsigned char*>(name.data()), static_cast<int>(name.size()), -1,
                                 0) != 1 ||
      X509_set_pubkey(certificate.get(), key) != 1) {
    return std::unexpected(broken(name));
  }
  return certificate;
}

void add_name(GENERAL_NAMES* names, int kind, std::string_view text) {
  ASN1_IA5STRING* const value = ASN1_IA5STRING_new();
  ASN1_STRING_set(value, text.data(), static_cast<int>(text.size()));
  GENERAL_NAME* const name = GENERAL_NAME_new();
  GENERAL_NAME_set0_value(name, kind, value);
  sk_GENERAL_NAME_push(names, name);
}

const char* usages(CertificateUse use) {
  switch (use) {
    case CertificateUse::kServer:
      return "serverAuth";
    case CertificateUse::kPeer:
      return "serverAuth,clientAuth";
    case CertificateUse::kClient:
      return "clientAuth";
  }
  return "";
}

Status add_alternatives(X509* certificate, const CertificateRequest& request) {
  if (request.hosts.size() > kHostsMax) return fail(ErrorCode::kInvalidArgument, "more than {} hosts", kHostsMax);
  const Names names(sk_GENERAL_NAME_new_null());
  for (const std::string& host : request.hosts) {
    if (!is_plain(host, kHostBytesMax)) return fail(ErrorCode::kInvalidArgument, "'{}' cannot be a host", host);
    ASN1_OCTET_STRING* const address = a2i_IPADDRESS(host.c_str());
    if (address == nullptr) {
      add_name(names.get(), GEN_DNS, host);
      continue;
    }
    GENERAL_NAME* const name = GENERAL_NAME_new();
    GENERAL_NAME_set0_value(name, GEN_IPADD, address);
    sk_GENERAL_NAME_push(names.get(), name);
  }
  ERR_clear_error();  // of what is no address
  if (request.use == CertificateUse::kPeer) {
    add_name(names.get(), GEN_URI, fmt::format("{}{}", kMemberUri, request.name));
  }
  if (sk_GENERAL_NAME_num(names.get()) == 0) return {};
  if (X509_add1_ext_i2d(certificate, NID_subject_alt_name, names.get(), 0, X509V3_ADD_DEFAULT) != 1) {
    return std::unexpected(broken("alternative names"));
  }
  return {};
}

}  // namespace

Result<KeyedCertificate> make_authority(const std::string& name, Validity validity) {
  ERR_clear_error();
  const Key key(EVP_EC_gen("P-256"));
  if (!key) return std::unexpected(broken("key"));
  ASSIGN_OR_RETURN(const Certificate certificate, begin(name, validity, key.get()));
  X509* const own = certificate.get();
  // It issues no further CA.
  if (X509_set_issuer_name(own, X509_get_subject_name(own)) != 1 ||
      !add_text(own, own, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
      !add_text(own, own, NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !add_text(own, own, NID_subject_key_identifier, "hash") || X509_sign(own, key.get(), EVP_sha256()) == 0) {
    return std::unexpected(broken(name));
  }
  return to_pem(own, key.get());
}

Result<KeyedCertificate> issue_certificate(const KeyedCertificate& authority, const CertificateRequest& request) {
  ERR_clear_error();
  const Memory issuer_pem(
      BIO_new_mem_buf(authority.certificate.data(), static_cast<int>(authority.certificate.size())));
  const Memory issuer_key_pem(BIO_new_mem_buf(authority.key.data(), static_cast<int>(authority.key.size())));
  // An empty passphrase where OpenSSL would ask the terminal.
  char no_passphrase[] = "";
  const Certificate issuer(PEM_read_bio_X509(issuer_pem.get(), nullptr, nullptr, no_passphrase));
  if (!issuer) return std::unexpected(broken("the CA's certificate"));
  const Key issuer_key(PEM_read_bio_PrivateKey(issuer_key_pem.get(), nullptr, nullptr, no_passphrase));
  if (!issuer_key) return std::unexpected(broken("the CA's key"));
  if (X509_check_ca(issuer.get()) != 1) {
    return fail(ErrorCode::kInvalidArgument, "the certificate to issue with is not a CA's");
  }
  if (X509_check_private_key(issuer.get(), issuer_key.get()) != 1) {
    return fail(ErrorCode::kInvalidArgument, "the CA's key is not of its certificate");
  }
  const Key key(EVP_EC_gen("P-256"));
  if (!key) return std::unexpected(broken("key"));
  ASSIGN_OR_RETURN(const Certificate certificate, begin(request.name, request.validity, key.get()));
  X509* const own = certificate.get();
  RETURN_IF_ERROR(add_alternatives(own, request));
  if (X509_set_issuer_name(own, X509_get_subject_name(issuer.get())) != 1 ||
      !add_text(own, issuer.get(), NID_basic_constraints, "critical,CA:FALSE") ||
      !add_text(own, issuer.get(), NID_key_usage, "critical,digitalSignature") ||
      !add_text(own, issuer.get(), NID_ext_key_usage, usages(request.use)) ||
      !add_text(own, issuer.get(), NID_subject_key_identifier, "hash") ||
      !add_text(own, issuer.get(), NID_authority_key_identifier, "keyid:always") ||
      X509_sign(own, issuer_key.get(), EVP_sha256()) == 0) {
    return std::unexpected(broken(request.name));
  }
  return to_pem(own, key.get());
}

}  // namespace conclave::net
