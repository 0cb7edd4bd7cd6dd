// The clock that a holder's bounds are on. It goes on while the machine sleeps: a process that slept past its bound
// sees so when it wakes.
#pragma once

#include <chrono>

namespace conclave::client {

// CLOCK_BOOTTIME, as a clock of the standard library.
struct BootClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock, duration>;
  static constexpr bool is_steady = true;
  [[nodiscard]] static time_point now() noexcept;
};

}  // namespace conclave::client
