// Counters of the API, for /metrics. Plain numbers: one thread writes and reads them.
#pragma once

#include <array>
#include <cstdint>

#include "api/methods.h"

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

}  // namespace conclave::api
