#include "cli/wakeups.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>

#include "base/assert.h"

namespace conclave::cli {
namespace {

sigset_t watched_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCHLD, SIGWINCH, SIGCONT}) {
    sigaddset(&set, number);
  }
  return set;
}

}  // namespace

Wakeups::Wakeups() {
  const sigset_t watched = watched_signals();
  sigset_t blocked = watched;
  sigaddset(&blocked, SIGTTOU);  // the terminal is given to the command, and taken back
  sigaddset(&blocked, SIGPIPE);
  sigprocmask(SIG_BLOCK, &blocked, nullptr);  // NOLINT(concurrency-mt-unsafe): before any other thread
  signals_ = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
  timer_ = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
  news_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  ASSERT(signals_ >= 0 && timer_ >= 0 && news_ >= 0);
}

Wakeups::~Wakeups() {
  close(signals_);
  close(timer_);
  close(news_);
}

void Wakeups::notify() const {
  const uint64_t one = 1;
  (void)!write(news_, &one, sizeof(one));
}

Wakeup Wakeups::wait(Instant until, bool with_input) const {
  itimerspec when = {};
  if (until != kNever) {
    const int64_t nanoseconds = std::max<int64_t>(to_nanoseconds(until), 1);  // zero would mean never
    when.it_value = {.tv_sec = nanoseconds / 1'000'000'000, .tv_nsec = nanoseconds % 1'000'000'000};
  }
  timerfd_settime(timer_, TFD_TIMER_ABSTIME, &when, nullptr);
  pollfd waits[] = {{.fd = signals_, .events = POLLIN, .revents = 0},
                    {.fd = timer_, .events = POLLIN, .revents = 0},
                    {.fd = news_, .events = POLLIN, .revents = 0},
                    {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0}};
  Wakeup wakeup;
  if (poll(waits, with_input ? 4 : 3, -1) <= 0) return wakeup;
  uint64_t count = 0;
  if (waits[2].revents != 0) (void)!read(news_, &count, sizeof(count));
  signalfd_siginfo taken;
  if (waits[0].revents != 0 && read(signals_, &taken, sizeof(taken)) == static_cast<ssize_t>(sizeof(taken))) {
    wakeup.signal = static_cast<int>(taken.ssi_signo);
  }
  if (with_input && waits[3].revents != 0) {
    char dropped[4096];
    wakeup.input_ended = read(STDIN_FILENO, dropped, sizeof(dropped)) <= 0;
  }
  return wakeup;
}

bool is_ending_signal(int signal) {
  return signal == SIGTERM || signal == SIGINT || signal == SIGHUP || signal == SIGQUIT;
}

}  // namespace conclave::cli
