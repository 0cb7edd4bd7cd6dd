// Client URLs: where clients are told to reach this server, in its member's record. Clients that ask for the members
// (etcd's Sync) dial what stands there, so it must be what can be dialled from elsewhere: what --client-advertise says,
// else the address listened on; where that is a wildcard, a guess that the log tells.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace conclave::server {

inline constexpr size_t kClientUrlsMax = 16;

// "0.0.0.0", "::": every address of the machine, and so none to be dialled.
[[nodiscard]] bool is_wildcard(std::string_view host);

// An address of this machine to itself, without brackets, or "localhost".
[[nodiscard]] bool is_loopback(std::string_view host);

// "http://HOST:PORT,https://HOST:PORT", at most kClientUrlsMax; nothing of an empty text. kInvalidArgument with what is
// wrong.
[[nodiscard]] Result<std::vector<std::string>> parse_client_urls(std::string_view text);

struct ClientUrl {
  std::string url;
  bool is_guessed = false;
};
struct ListeningAddress {
  bool is_tls = false;
  std::string_view host;
  uint16_t port = 0;
  std::string_view peer_host;     // where the other servers reach this one
  std::string_view machine_name;  // may be empty
};
// What is published where nobody says. Of a wildcard: the host of the peers' address where that is one of the network,
// since what servers reach clients may reach; else the machine's name.
[[nodiscard]] ClientUrl default_client_url(const ListeningAddress& address);

}  // namespace conclave::server
