#include "env/posix/clock.h"

#include <ctime>

#include "base/assert.h"

namespace conclave::env {
namespace {

std::chrono::nanoseconds read_clock(clockid_t id) {
  timespec time{};
  const int failed = clock_gettime(id, &time);
  ASSERT(failed == 0);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

}  // namespace

Instant PosixClock::now() {
  return Instant(read_clock(CLOCK_BOOTTIME));
}

int64_t PosixClock::wall_milliseconds() {
  return to_milliseconds(read_clock(CLOCK_REALTIME));
}

}  // namespace conclave::env
