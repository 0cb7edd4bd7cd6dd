#include "sim/clock.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace conclave::sim {
namespace {

TEST(NodeClock, ADeadlineIsNeverEarlyAndNotANanosecondLate) {
  Random random(7);
  for (int round = 0; round < 2000; ++round) {
    Scheduler scheduler;
    const auto drift = static_cast<int32_t>(random.below(100'001)) - 50'000;
    NodeClock clock(scheduler, Instant(Duration(12345)), drift);
    scheduler.run_until(scheduler.now() + Duration(static_cast<int64_t>(random.below(1'000'000'000))));
    const Instant deadline = clock.now() + Duration(static_cast<int64_t>(1 + random.below(10'000'000'000)));
    const Instant at = clock.to_true(deadline);
    ASSERT_GE(clock.to_local(at), deadline) << drift;
    ASSERT_LT(clock.to_local(at - Duration(1)), deadline) << drift;
  }
}

TEST(NodeClock, DriftsFromItsOwnZeroWithoutJumps) {
  Scheduler scheduler;
  NodeClock clock(scheduler, Instant(std::chrono::hours(5)), 10'000);
  scheduler.run_until(scheduler.now() + std::chrono::seconds(100));
  EXPECT_EQ(clock.now(), Instant(std::chrono::hours(5)) + std::chrono::seconds(101));
  clock.set_drift(-10'000);
  EXPECT_EQ(clock.now(), Instant(std::chrono::hours(5)) + std::chrono::seconds(101));
  scheduler.run_until(scheduler.now() + std::chrono::seconds(100));
  EXPECT_EQ(clock.now(), Instant(std::chrono::hours(5)) + std::chrono::seconds(200));
  EXPECT_EQ(clock.to_true(kNever), kNever);
}

TEST(NodeClock, TheWallClockJumpsAloneAndARestartHasANewZero) {
  Scheduler scheduler;
  NodeClock clock(scheduler, Instant(std::chrono::hours(1)), 0);
  const int64_t wall = clock.wall_milliseconds();
  clock.jump_wall(-std::chrono::hours(3));
  EXPECT_EQ(clock.wall_milliseconds(), wall - 3 * 3600 * 1000);
  EXPECT_EQ(clock.now(), Instant(std::chrono::hours(1)));
  clock.restart(Instant(std::chrono::seconds(2)));
  EXPECT_EQ(clock.now(), Instant(std::chrono::seconds(2)));
}

}  // namespace
}  // namespace conclave::sim
