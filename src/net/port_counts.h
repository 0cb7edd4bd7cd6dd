// What became of the connections that came to a listening port, and what went over them. A process's counts, from its
// start.
#pragma once

#include <cstdint>

namespace conclave::net {

struct PortCounts {
  uint64_t accepted = 0;  // all that were taken in
  uint64_t refused = 0;   // closed at once: as many as there may be, and nobody silent among them
  uint64_t evicted = 0;   // silent, closed for a new one
  uint64_t timeouts = 0;  // closed for what they did not say in time
  uint64_t failures = 0;  // TcpListener::failures()
  // Under TLS: of what it carries. What peers are sent is counted by link.
  uint64_t bytes_received = 0;
  uint64_t bytes_sent = 0;
};

}  // namespace conclave::net
