#include "server/client_urls.h"

#include <algorithm>

#include <fmt/format.h>

#include "api/members.h"

namespace conclave::server {
namespace {

// An IPv6 address stands in brackets in a URL.
std::string in_url(std::string_view host) {
  const bool is_bare = host.find(':') != std::string_view::npos && !host.starts_with('[');
  return is_bare ? fmt::format("[{}]", host) : std::string(host);
}

std::string_view without_brackets(std::string_view host) {
  return host.starts_with('[') && host.ends_with(']') ? host.substr(1, host.size() - 2) : host;
}

}  // namespace

bool is_loopback(std::string_view host) {
  // A name may begin as an address does.
  const bool is_address = host.find_first_not_of("0123456789.") == std::string_view::npos;
  return host == "localhost" || host == "::1" || (is_address && host.starts_with("127."));
}

bool is_wildcard(std::string_view host) {
  return host.empty() || host == "0.0.0.0" || host == "::" || host == "[::]" || host == "*";
}

Result<std::vector<std::string>> parse_client_urls(std::string_view text) {
  std::vector<std::string> urls;
  while (!text.empty()) {
    const std::string_view url = text.substr(0, text.find(','));
    text.remove_prefix(std::min(url.size() + 1, text.size()));
    const auto address = api::address_of_url(url);
    if (!address) {
      return fail(ErrorCode::kInvalidArgument, "--client-advertise: '{}' is not http://HOST:PORT or https://HOST:PORT",
                  url);
    }
    if (is_wildcard(address->substr(0, address->rfind(':')))) {
      return fail(ErrorCode::kInvalidArgument,
                  "--client-advertise: '{}' names no machine that a client could dial; say a name or an address of it",
                  url);
    }
    if (std::ranges::find(urls, url) != urls.end()) {
      return fail(ErrorCode::kInvalidArgument, "--client-advertise: '{}' is there twice", url);
    }
    urls.emplace_back(url);
  }
  if (urls.size() > kClientUrlsMax) {
    return fail(ErrorCode::kInvalidArgument, "--client-advertise: {} URLs are more than the {} there may be",
                urls.size(), kClientUrlsMax);
  }
  return urls;
}

ClientUrl default_client_url(const ListeningAddress& address) {
  const auto url = [&](std::string_view host) {
    return fmt::format("{}://{}:{}", address.is_tls ? "https" : "http", in_url(host), address.port);
  };
  if (!is_wildcard(address.host)) return {.url = url(address.host)};
  const bool peers_reach_it = !is_wildcard(address.peer_host) && !is_loopback(without_brackets(address.peer_host));
  if (peers_reach_it) return {.url = url(address.peer_host), .is_guessed = true};
  return {.url = url(address.machine_name.empty() ? "127.0.0.1" : address.machine_name), .is_guessed = true};
}

}  // namespace conclave::server
