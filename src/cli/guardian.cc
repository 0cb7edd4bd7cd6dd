#include "cli/guardian.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "env/posix/clock.h"

namespace conclave::cli {
namespace {

void set_timer(int timer, Instant at) {
  itimerspec when = {};
  if (at != kNever) {
    const int64_t nanoseconds = std::max<int64_t>(to_nanoseconds(at), 1);  // zero would mean never
    when.it_value = {.tv_sec = nanoseconds / 1'000'000'000, .tv_nsec = nanoseconds % 1'000'000'000};
  }
  timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, nullptr);
}

// The guardian's life. Ends with the pipe.
[[noreturn]] void guard(int pipe, int timer) {
  env::PosixClock clock;
  GuardianOrder order;
  while (true) {
    set_timer(timer, std::min(order.terminate_at, order.kill_at));
    pollfd waits[] = {{.fd = pipe, .events = POLLIN, .revents = 0}, {.fd = timer, .events = POLLIN, .revents = 0}};
    if (poll(waits, 2, -1) < 0 && errno != EINTR) _exit(1);
    if ((waits[0].revents & (POLLIN | POLLHUP)) != 0) {
      GuardianOrder next;
      const ssize_t size = read(pipe, &next, sizeof(next));
      if (size == static_cast<ssize_t>(sizeof(next))) {
        order = next;
        continue;
      }
      // The process beside is gone and has not said that all is done.
      if (order.group > 0) kill(-order.group, SIGKILL);
      _exit(0);
    }
    const Instant now = clock.now();
    if (order.group > 0 && now >= order.kill_at) {
      kill(-order.group, SIGKILL);
      order.kill_at = order.terminate_at = kNever;
    } else if (order.group > 0 && now >= order.terminate_at) {
      kill(-order.group, SIGTERM);
      order.terminate_at = kNever;
    }
  }
}

}  // namespace

Result<Guardian> Guardian::start() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return fail(ErrorCode::kIo, "no pipe: {}", std::generic_category().message(errno));
  const pid_t pid = fork();
  if (pid < 0) {
    close(ends[0]);
    close(ends[1]);
    return fail(ErrorCode::kIo, "no process can be started: {}", std::generic_category().message(errno));
  }
  if (pid == 0) {
    // Out of reach of what the terminal sends to the group, and holding nobody's files open.
    setsid();
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, nullptr);  // NOLINT(concurrency-mt-unsafe): the only thread of the new process
    constexpr int kPipe = 0;
    constexpr int kTimer = 1;
    const int timer = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK);
    const int pipe_high = fcntl(ends[0], F_DUPFD, 10);
    const int timer_high = fcntl(timer, F_DUPFD, 10);
    if (dup2(pipe_high, kPipe) < 0 || dup2(timer_high, kTimer) < 0) _exit(1);
    syscall(SYS_close_range, 2, ~0U, 0);
    guard(kPipe, kTimer);
  }
  close(ends[0]);
  return Guardian(pid, ends[1]);
}

Guardian::Guardian(Guardian&& other) noexcept : pid_(other.pid_), pipe_(std::exchange(other.pipe_, -1)) {}

Guardian::~Guardian() {
  if (pipe_ < 0) return;
  order({});
  close(pipe_);
  waitpid(pid_, nullptr, 0);
}

void Guardian::order(const GuardianOrder& order) const {
  (void)!write(pipe_, &order, sizeof(order));  // smaller than PIPE_BUF: whole or not at all
}

}  // namespace conclave::cli
