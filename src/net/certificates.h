// Certificates for a cluster: a CA, and what it issues. EC keys on P-256, PEM. Owns no file and no clock.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"

namespace conclave::net {

struct KeyedCertificate {
  std::string certificate;  // PEM
  std::string key;          // PEM, PKCS #8, no passphrase
};

// Seconds since 1970.
struct Validity {
  int64_t from = 0;
  int64_t until = 0;
};

enum class CertificateUse : uint8_t {
  kServer,  // to clients
  kPeer,    // between servers, both ways; the name is the member's
  kClient,
};

struct CertificateRequest {
  std::string name;
  CertificateUse use = CertificateUse::kServer;
  std::vector<std::string> hosts;  // DNS names and addresses that it is good for
  Validity validity;
};

[[nodiscard]] Result<KeyedCertificate> make_authority(const std::string& name, Validity validity);
// kInvalidArgument: a name or host that cannot be in a certificate, or an authority that cannot be read or is none.
[[nodiscard]] Result<KeyedCertificate> issue_certificate(const KeyedCertificate& authority,
                                                         const CertificateRequest& request);

}  // namespace conclave::net
