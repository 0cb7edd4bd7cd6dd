#include "net/endpoint.h"

#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "net/client.h"

namespace conclave::net {
namespace {

Result<Endpoint> parse_endpoint(std::string_view text) {
  std::string_view rest = text;
  std::optional<bool> wants_tls;
  if (rest.starts_with("https://")) {
    wants_tls = true;
    rest.remove_prefix(8);
  } else if (rest.starts_with("http://")) {
    wants_tls = false;
    rest.remove_prefix(7);
  }
  const size_t colon = rest.rfind(':');
  unsigned port = 0;
  if (colon != std::string_view::npos && colon > 0) {
    const std::string_view digits = rest.substr(colon + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (error != std::errc() || end != digits.data() + digits.size() || port > 65535) port = 0;
  }
  if (port == 0) return fail(ErrorCode::kInvalidArgument, "endpoint '{}' is not HOST:PORT", text);
  std::string_view host = rest.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return Endpoint{.host = std::string(host), .port = static_cast<uint16_t>(port), .wants_tls = wants_tls};
}

}  // namespace

std::string Endpoint::text() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

Result<std::vector<Endpoint>> parse_endpoints(std::string_view list) {
  std::vector<Endpoint> endpoints;
  while (true) {
    const size_t comma = list.find(',');
    ASSIGN_OR_RETURN(Endpoint endpoint, parse_endpoint(list.substr(0, comma)));
    endpoints.push_back(std::move(endpoint));
    if (comma == std::string_view::npos) return endpoints;
    list.remove_prefix(comma + 1);
  }
}

Result<std::vector<Endpoint>> load_endpoints(std::string_view list, const TlsFiles& files) {
  ASSIGN_OR_RETURN(std::vector<Endpoint> endpoints, parse_endpoints(list));
  const bool by_default = files != TlsFiles();
  std::shared_ptr<const TlsContext> tls;
  for (Endpoint& endpoint : endpoints) {
    if (!endpoint.wants_tls.value_or(by_default)) continue;
    if (!tls) {
      ASSIGN_OR_RETURN(tls, TlsContext::load(TlsRole::kClient, files, {std::string(kChannelProtocol)}));
    }
    endpoint.tls = tls;
  }
  return endpoints;
}

}  // namespace conclave::net
