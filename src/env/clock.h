#pragma once

#include <cstdint>

#include "base/time.h"

namespace conclave::env {

// Where instants come from. Any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic, and counting while the machine is suspended: a server that slept must see that its leases ran out.
  [[nodiscard]] virtual Instant now() = 0;
  // Milliseconds since 1970, for people and log lines only: it jumps, and nothing may be decided by it.
  [[nodiscard]] virtual int64_t wall_milliseconds() = 0;
};

}  // namespace conclave::env
