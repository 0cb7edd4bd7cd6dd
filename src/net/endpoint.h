// Endpoint: a server's address as people write it, and the TLS that speaks to it. Owns no connection.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "net/tls.h"

namespace conclave::net {

struct Endpoint {
  std::string host;
  uint16_t port = 0;
  std::optional<bool> wants_tls;          // by https:// or http:// before it
  std::shared_ptr<const TlsContext> tls;  // null: plain
  [[nodiscard]] std::string text() const;
};

// "HOST:PORT,HOST:PORT", each with http:// or https:// before it or neither. Loads nothing: `tls` is not set.
[[nodiscard]] Result<std::vector<Endpoint>> parse_endpoints(std::string_view list);
// And loads what is needed for those with https://, and, if a file is given at all, for those without a scheme.
[[nodiscard]] Result<std::vector<Endpoint>> load_endpoints(std::string_view list, const TlsFiles& files);

}  // namespace conclave::net
