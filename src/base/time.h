// Time as a value. The core is told what time it is; nothing in it can ask.
#pragma once

#include <chrono>
#include <cstdint>

namespace conclave {

// A monotonic clock without now(): instants come from env::Clock or from the simulator, and only they make them.
struct MonotonicClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<MonotonicClock, duration>;
  static constexpr bool is_steady = true;
};

using Duration = MonotonicClock::duration;
using Instant = MonotonicClock::time_point;

// Later than any instant that will ever be: "no deadline".
inline constexpr Instant kNever = Instant::max();

[[nodiscard]] constexpr int64_t to_milliseconds(Duration d) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
}

// Nanoseconds since the clock's own zero; for traces and digests.
[[nodiscard]] constexpr int64_t to_nanoseconds(Instant t) {
  return t.time_since_epoch().count();
}

}  // namespace conclave
