#include "net/alarm.h"

#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>

#include "base/assert.h"

namespace conclave::net {

// Outlives the alarm while a wait is under way.
struct Alarm::Descriptor : std::enable_shared_from_this<Descriptor> {
  Descriptor(Loop& of, std::function<void()> call)
      : loop(of),
        ring(std::move(call)),
        timer(of.context(), timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK)) {
    ASSERT(timer.native_handle() >= 0);
  }

  void wait() {
    timer.async_wait(
        asio::posix::stream_descriptor::wait_read, [at = shared_from_this()](const asio::error_code& error) {
          if (error || !at->timer.is_open()) return;
          at->loop.enter();
          uint64_t times = 0;
          // Nothing to read: it was set anew meanwhile.
          const bool rang = ::read(at->timer.native_handle(), &times, sizeof(times)) == ssize_t{sizeof(times)};
          at->wait();
          if (rang) at->ring();
        });
  }

  Loop& loop;
  const std::function<void()> ring;
  asio::posix::stream_descriptor timer;
};

Alarm::Alarm(Loop& loop, std::function<void()> ring)
    : descriptor_(std::make_shared<Descriptor>(loop, std::move(ring))) {
  descriptor_->wait();
}

Alarm::~Alarm() {
  asio::error_code ignored;
  descriptor_->timer.close(ignored);
}

void Alarm::set(Instant at) {
  if (at == at_) return;
  at_ = at;
  itimerspec when = {};
  if (at != kNever) {
    const int64_t nanoseconds = std::max<int64_t>(to_nanoseconds(at), 1);  // zero would mean never
    when.it_value = {.tv_sec = nanoseconds / 1'000'000'000, .tv_nsec = nanoseconds % 1'000'000'000};
  }
  const int failed = timerfd_settime(descriptor_->timer.native_handle(), TFD_TIMER_ABSTIME, &when, nullptr);
  ASSERT(failed == 0);
}

}  // namespace conclave::net
