// Numbers for /metrics: the API's own counters, which one thread writes and reads, and what the disk's thread tells.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <numeric>
#include <vector>

#include "api/methods.h"
#include "base/time.h"
#include "base/types.h"
#include "keyspace/errors.h"
#include "net/peer_links.h"
#include "net/port_counts.h"
#include "net/server.h"

namespace conclave::api {

struct Metrics {
  static constexpr size_t kCodes = 17;  // of gRPC
  // How long calls took, as gRPC's exporters have it by default; the last took longer. Powers of two would not do:
  // alerts interpolate within these.
  static constexpr Duration kHandlingBounds[] = {
      std::chrono::milliseconds(5),   std::chrono::milliseconds(10),   std::chrono::milliseconds(25),
      std::chrono::milliseconds(50),  std::chrono::milliseconds(100),  std::chrono::milliseconds(250),
      std::chrono::milliseconds(500), std::chrono::milliseconds(1000), std::chrono::milliseconds(2500),
      std::chrono::seconds(5),        std::chrono::seconds(10)};
  struct Handling {
    std::array<uint64_t, std::size(kHandlingBounds) + 1> calls{};
    Duration sum{};
  };
  std::array<std::array<uint64_t, kCodes>, kMethodCount> requests{};
  std::array<uint64_t, kMethodCount> started{};
  std::array<Handling, kMethodCount> handling{};  // of calls that this server ended
  uint64_t leader_changes = 0;                    // seen here
  uint64_t writes_failed = 0;                     // refused, or of unknown outcome
  uint64_t health_successes = 0;
  uint64_t health_failures = 0;
  uint64_t calls_cancelled = 0;
  uint64_t calls_open = 0;
  uint64_t unary_calls_open = 0;  // of these: such as end by themselves
  uint64_t snapshots_open = 0;    // streams of a snapshot
  // Learners promoted as clients asked of this server while it led, and those that were not.
  uint64_t promotions = 0;
  std::map<keyspace::ErrorId, uint64_t> promotions_refused;

  void count(Method method, uint32_t code, Duration took) {
    if (code >= kCodes) code = 2;  // UNKNOWN
    ++requests[static_cast<size_t>(method)][code];
    Handling& handled = handling[static_cast<size_t>(method)];
    size_t bucket = 0;
    while (bucket < std::size(kHandlingBounds) && took > kHandlingBounds[bucket]) ++bucket;
    ++handled.calls[bucket];
    handled.sum += took;
  }
};

// Of the log and its disk, at the moment of asking.
struct DiskMetrics {
  // Writes, each with its sync, by how long they took: up to 1 ms, 2 ms, and so on doubled; the last took longer.
  static constexpr size_t kBounds = 14;
  uint64_t live_bytes = 0;
  uint64_t spare_bytes = 0;
  bool full = false;
  double last_write_seconds = 0;
  double running_write_seconds = 0;  // zero if none is under way
  std::array<uint64_t, kBounds + 1> writes{};
  double write_seconds_sum = 0;
};

// How long a word takes to a peer and back: up to 0.1 ms, 0.2 ms, and so on doubled; the last took longer. The bounds
// are those of etcd's histogram.
struct RoundTripMetrics {
  static constexpr size_t kBounds = 16;
  static constexpr Duration kFirstBound = std::chrono::microseconds(100);
  NodeId peer;
  std::array<uint64_t, kBounds + 1> counts{};
  Duration sum{};

  void count(Duration took) {
    size_t bucket = 0;
    while (bucket < kBounds && took > kFirstBound * (int64_t{1} << bucket)) ++bucket;
    ++counts[bucket];
    sum += took;
  }
  [[nodiscard]] uint64_t count() const { return std::accumulate(counts.begin(), counts.end(), uint64_t{0}); }
};

// Of the ports this server listens on, at the moment of asking.
struct NetworkMetrics {
  uint64_t connections = 0;  // of clients, now
  uint64_t connections_max = 0;
  net::PortCounts client;
  net::PortCounts peer;
  net::TlsCounts tls;  // of the client port
  std::vector<net::PeerLinkState> peers;
  std::vector<RoundTripMetrics> round_trips;
};

// Of the process, at the moment of asking.
struct ProcessMetrics {
  double cpu_seconds = 0;
  uint64_t resident_bytes = 0;
  uint64_t virtual_bytes = 0;
  int64_t start_seconds = 0;  // of the wall clock
  uint64_t descriptors_max = 0;
  uint64_t descriptors_open = 0;
  uint64_t log_lines_dropped = 0;
};

}  // namespace conclave::api
