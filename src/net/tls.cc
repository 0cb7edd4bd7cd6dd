#include "net/tls.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>
#include <utility>

#include "base/assert.h"

namespace conclave::net {
namespace {

// Enough for an intermediate CA or two; a longer chain only costs whoever has to check it.
constexpr int kChainMax = 4;
constexpr size_t kRecordBytes = size_t{16} << 10;
// What OpenSSL negotiates for 1.2: forward secrecy and an authenticated cipher. 1.3 has no others.
constexpr const char* kCiphers12 =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

// The first reason of OpenSSL's queue, which is emptied.
std::string take_reason() {
  const unsigned long error = ERR_get_error();
  ERR_clear_error();
  const char* const reason = error == 0 ? nullptr : ERR_reason_error_string(error);
  return reason == nullptr ? "unknown reason" : reason;
}

Status check_key_file(const std::string& path) {
  struct stat found{};
  if (::stat(path.c_str(), &found) != 0) {
    return fail(ErrorCode::kInvalidArgument, "key {}: {}", path, std::generic_category().message(errno));
  }
  if ((found.st_mode & S_IROTH) != 0) {
    return fail(ErrorCode::kInvalidArgument, "key {}: everybody may read it; chmod 600 it first", path);
  }
  return {};
}

Status use_certificate(ssl_ctx_st* native, const TlsFiles& files) {
  RETURN_IF_ERROR(check_key_file(files.key));
  ERR_clear_error();
  if (SSL_CTX_use_certificate_chain_file(native, files.certificate.c_str()) != 1) {
    return fail(ErrorCode::kInvalidArgument, "certificate {}: {}", files.certificate, take_reason());
  }
  // Checks that it is the certificate's.
  if (SSL_CTX_use_PrivateKey_file(native, files.key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return fail(ErrorCode::kInvalidArgument, "key {}: {}", files.key, take_reason());
  }
  return {};
}

Status use_ca(ssl_ctx_st* native, const std::string& path, bool names_to_clients) {
  ERR_clear_error();
  if (SSL_CTX_load_verify_file(native, path.c_str()) != 1) {
    return fail(ErrorCode::kInvalidArgument, "CA {}: {}", path, take_reason());
  }
  if (names_to_clients) SSL_CTX_set_client_CA_list(native, SSL_load_client_CA_file(path.c_str()));
  return {};
}

std::string encode_protocols(const std::vector<std::string>& protocols) {
  std::string encoded;
  for (const std::string& protocol : protocols) {
    encoded.push_back(static_cast<char>(protocol.size()));
    encoded.append(protocol);
  }
  return encoded;
}

const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

int choose_protocol(SSL*, const unsigned char** chosen, unsigned char* chosen_size, const unsigned char* offered,
                    unsigned offered_size, void* own) {
  const auto& protocols = *static_cast<const std::string*>(own);
  unsigned char* found = nullptr;
  const int result = SSL_select_next_proto(&found, chosen_size, bytes_of(protocols),
                                           static_cast<unsigned>(protocols.size()), offered, offered_size);
  *chosen = found;
  return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

bool is_address(const std::string& host) {
  in6_addr ignored{};
  return ::inet_pton(AF_INET, host.c_str(), &ignored) == 1 || ::inet_pton(AF_INET6, host.c_str(), &ignored) == 1;
}

std::string_view text_of(const ASN1_STRING* text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)), static_cast<size_t>(ASN1_STRING_length(text))};
}

}  // namespace

// ---- Context ----

Result<std::shared_ptr<const TlsContext>> TlsContext::load(TlsRole role, const TlsFiles& files,
                                                           const std::vector<std::string>& protocols) {
  if (files.certificate.empty() != files.key.empty()) {
    return fail(ErrorCode::kInvalidArgument, "a certificate and its key go together");
  }
  if (role != TlsRole::kClient && files.certificate.empty()) {
    return fail(ErrorCode::kInvalidArgument, "TLS needs a certificate and its key");
  }
  if (role == TlsRole::kPeer && files.ca.empty()) {
    return fail(ErrorCode::kInvalidArgument, "TLS between servers needs the CA of their certificates");
  }
  std::shared_ptr<TlsContext> context(new TlsContext);
  context->protocols_ = encode_protocols(protocols);
  ssl_ctx_st* const native = context->native_ = SSL_CTX_new(TLS_method());
  ASSERT(native != nullptr);
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_options(
      native, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_num_tickets(native, 0);
  SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
  // Buffers are given back while nothing is in them: most connections are idle.
  SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_verify_depth(native, kChainMax);
  // A key with a passphrase is refused; asking the terminal would hang a server.
  SSL_CTX_set_default_passwd_cb(native, [](char*, int, int, void*) { return 0; });
  if (SSL_CTX_set_cipher_list(native, kCiphers12) != 1) {
    return fail(ErrorCode::kInvalidArgument, "this OpenSSL has none of our ciphers");
  }
  if (!files.certificate.empty()) RETURN_IF_ERROR(use_certificate(native, files));
  if (!files.ca.empty()) {
    RETURN_IF_ERROR(use_ca(native, files.ca, role != TlsRole::kClient));
  } else if (role == TlsRole::kClient) {
    SSL_CTX_set_default_verify_paths(native);
  }
  const bool verifies = role != TlsRole::kServer || !files.ca.empty();
  SSL_CTX_set_verify(native, verifies ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_NONE, nullptr);
  if (!context->protocols_.empty()) {
    SSL_CTX_set_alpn_protos(native, bytes_of(context->protocols_), static_cast<unsigned>(context->protocols_.size()));
    SSL_CTX_set_alpn_select_cb(native, choose_protocol, &context->protocols_);
  }
  return context;
}

TlsContext::~TlsContext() {
  SSL_CTX_free(native_);
}

// ---- Session ----

// The BIO through which OpenSSL reads what receive() was given and writes to what the caller wants it in: no buffer of
// its own, where OpenSSL's memory BIO keeps one per connection and never shrinks it.
struct TlsSession::Wire {
  static int read(BIO* bio, char* into, int size) {
    auto& session = *static_cast<TlsSession*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    if (session.in_.empty()) {
      BIO_set_retry_read(bio);
      return -1;
    }
    const size_t count = std::min(static_cast<size_t>(size), session.in_.size());
    std::memcpy(into, session.in_.data(), count);
    session.in_.remove_prefix(count);
    return static_cast<int>(count);
  }
  static int write(BIO* bio, const char* from, int size) {
    auto& session = *static_cast<TlsSession*>(BIO_get_data(bio));
    ASSERT(session.out_ != nullptr);
    session.out_->append(from, static_cast<size_t>(size));
    return size;
  }
  static long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  static BIO_METHOD* method() {
    static BIO_METHOD* const kMethod = [] {
      BIO_METHOD* const made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "conclave wire");
      BIO_meth_set_read(made, read);
      BIO_meth_set_write(made, write);
      BIO_meth_set_ctrl(made, control);
      return made;
    }();
    return kMethod;
  }
};

TlsSession::TlsSession(std::shared_ptr<const TlsContext> context) : context_(std::move(context)) {
  native_ = SSL_new(context_->native_);
  BIO* const wire = BIO_new(Wire::method());
  ASSERT(native_ != nullptr && wire != nullptr);
  BIO_set_data(wire, this);
  BIO_set_init(wire, 1);
  SSL_set_bio(native_, wire, wire);
}

TlsSession::~TlsSession() {
  SSL_free(native_);
}

std::unique_ptr<TlsSession> TlsSession::accept(std::shared_ptr<const TlsContext> context) {
  std::unique_ptr<TlsSession> session(new TlsSession(std::move(context)));
  SSL_set_accept_state(session->native_);
  return session;
}

std::unique_ptr<TlsSession> TlsSession::connect(std::shared_ptr<const TlsContext> context, const std::string& host) {
  std::unique_ptr<TlsSession> session(new TlsSession(std::move(context)));
  SSL_set_connect_state(session->native_);
  if (host.empty()) return session;
  bool is_checked = false;
  if (is_address(host)) {
    is_checked = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session->native_), host.c_str()) == 1;
  } else {
    is_checked = SSL_set1_host(session->native_, host.c_str()) == 1 &&
                 SSL_set_tlsext_host_name(session->native_, host.c_str()) == 1;
  }
  if (!is_checked) {
    session->phase_ = Phase::kFailed;
    session->failure_ = fmt::format("'{}' cannot be a server's name", host);
  }
  return session;
}

void TlsSession::note_failure(int result) {
  const int kind = SSL_get_error(native_, result);
  if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) return;
  if (kind == SSL_ERROR_ZERO_RETURN) {
    phase_ = Phase::kEnded;
    return;
  }
  phase_ = Phase::kFailed;
  const long verdict = SSL_get_verify_result(native_);
  const unsigned long error = ERR_peek_error();
  if (verdict != X509_V_OK && ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
    failure_ = fmt::format("the other side's certificate is refused: {}", X509_verify_cert_error_string(verdict));
  } else if (ERR_GET_REASON(error) == SSL_R_WRONG_VERSION_NUMBER || ERR_GET_REASON(error) == SSL_R_HTTP_REQUEST) {
    failure_ = "the other side does not speak TLS";
  } else {
    failure_ = take_reason();
  }
  ERR_clear_error();
}

void TlsSession::receive(ByteView wire, std::string& plain, std::string& wire_out) {
  in_ = wire;
  out_ = &wire_out;
  ERR_clear_error();
  if (phase_ == Phase::kHandshake) {
    const int result = SSL_do_handshake(native_);
    if (result == 1) {
      phase_ = Phase::kOpen;
    } else {
      note_failure(result);
    }
  }
  while (phase_ == Phase::kOpen) {
    const size_t before = plain.size();
    size_t got = 0;
    int result = 0;
    plain.resize_and_overwrite(before + kRecordBytes, [&](char* bytes, size_t) {
      result = SSL_read_ex(native_, bytes + before, kRecordBytes, &got);
      return before + (result == 1 ? got : 0);
    });
    if (result == 1) continue;
    note_failure(result);
    break;
  }
  in_ = {};
  out_ = nullptr;
}

bool TlsSession::send(ByteView plain, std::string& wire_out) {
  if (phase_ != Phase::kOpen) return false;
  if (plain.empty()) return true;
  out_ = &wire_out;
  ERR_clear_error();
  size_t written = 0;
  const int result = SSL_write_ex(native_, plain.data(), plain.size(), &written);
  if (result != 1) {
    note_failure(result);
    phase_ = Phase::kFailed;
  }
  out_ = nullptr;
  return result == 1;
}

void TlsSession::end(std::string& wire_out) {
  if (phase_ != Phase::kOpen && phase_ != Phase::kEnded) return;
  out_ = &wire_out;
  ERR_clear_error();
  (void)SSL_shutdown(native_);
  ERR_clear_error();
  out_ = nullptr;
}

std::string TlsSession::protocol() const {
  const unsigned char* chosen = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(native_, &chosen, &size);
  return {reinterpret_cast<const char*>(chosen), size};
}

bool TlsSession::names_member(std::string_view name) const {
  const X509* const certificate = SSL_get0_peer_certificate(native_);
  if (certificate == nullptr || name.empty()) return false;
  const std::unique_ptr<GENERAL_NAMES, decltype(&GENERAL_NAMES_free)> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)),
      GENERAL_NAMES_free);
  if (!names) return false;
  bool has_uri = false;
  bool has_dns = false;
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* const one = sk_GENERAL_NAME_value(names.get(), i);
    if (one->type == GEN_DNS) has_dns = has_dns || text_of(one->d.dNSName) == name;
    if (one->type != GEN_URI) continue;
    const std::string_view uri = text_of(one->d.uniformResourceIdentifier);
    if (!uri.starts_with(kMemberUri)) continue;
    has_uri = true;
    if (uri.substr(kMemberUri.size()) == name) return true;
  }
  return !has_uri && has_dns;
}

}  // namespace conclave::net
