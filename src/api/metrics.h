// Numbers for /metrics: the API's own counters, which one thread writes and reads, and what the disk's thread tells.
#pragma once

#include <array>
#include <cstdint>

#include "api/methods.h"
#include "net/port_counts.h"

namespace conclave::api {

struct Metrics {
  static constexpr size_t kCodes = 17;  // of gRPC
  std::array<std::array<uint64_t, kCodes>, kMethodCount> requests{};
  std::array<uint64_t, kMethodCount> started{};
  uint64_t leader_changes = 0;  // seen here
  uint64_t writes_failed = 0;   // refused, or of unknown outcome
  uint64_t health_successes = 0;
  uint64_t health_failures = 0;
  uint64_t calls_cancelled = 0;
  uint64_t calls_open = 0;
  uint64_t snapshots_open = 0;  // streams of a snapshot

  void count(Method method, uint32_t code) {
    if (code >= kCodes) code = 2;  // UNKNOWN
    ++requests[static_cast<size_t>(method)][code];
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

// Of the ports this server listens on, at the moment of asking.
struct NetworkMetrics {
  uint64_t connections = 0;  // of clients, now
  uint64_t connections_max = 0;
  net::PortCounts client;
  net::PortCounts peer;
};

}  // namespace conclave::api
