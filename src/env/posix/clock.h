#pragma once

#include "env/clock.h"

namespace conclave::env {

// CLOCK_BOOTTIME: monotonic, counts suspend.
class PosixClock final : public Clock {
 public:
  [[nodiscard]] Instant now() override;
  [[nodiscard]] int64_t wall_milliseconds() override;
};

}  // namespace conclave::env
