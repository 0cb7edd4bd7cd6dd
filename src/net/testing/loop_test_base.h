// For the tests of net: a loop that runs in the test's thread until something has come true, with a limit in time.
#pragma once

#include <gtest/gtest.h>

#include <functional>

#include "env/posix/clock.h"
#include "net/loop.h"

namespace conclave::net {

// A clock that a test can put forward.
class ShiftedClock final : public env::Clock {
 public:
  [[nodiscard]] Instant now() override { return real_.now() + shift; }
  [[nodiscard]] int64_t wall_milliseconds() override { return real_.wall_milliseconds(); }
  Duration shift{};

 private:
  env::PosixClock real_;
};

class LoopTest : public testing::Test {
 protected:
  LoopTest() {
    // Asked after all turn ends.
    loop.set_deadline([this] {
      if (until_ && until_()) loop.stop();
      return kNever;
    });
  }

  // False: the limit passed first.
  [[nodiscard]] bool run_until(std::function<bool()> condition, Duration limit = std::chrono::seconds(20)) {
    bool late = false;
    const TimerId timer = loop.call_at(clock.now() + limit, [&] {
      late = true;
      loop.stop();
    });
    until_ = std::move(condition);
    loop.post([] {});
    loop.run();
    until_ = nullptr;
    loop.cancel(timer);
    return !late;
  }
  // Timers that are due by then ring.
  void pass(Duration time) {
    clock.shift += time;
    (void)run_until([] { return true; });
  }
  void run_for(Duration time) {
    (void)run_until([] { return false; }, time);
  }

  ShiftedClock clock;
  Loop loop{clock};

 private:
  std::function<bool()> until_;
};

}  // namespace conclave::net
