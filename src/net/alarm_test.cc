#include "net/alarm.h"

#include <gtest/gtest.h>

#include "net/testing/loop_test_base.h"

namespace conclave::net {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

class AlarmTest : public LoopTest {
 protected:
  int rings = 0;
  Alarm alarm{loop, [this] { ++rings; }};
};

TEST_F(AlarmTest, RingsOnceForEachTimeItIsSet) {
  alarm.set(clock.now() + milliseconds(5));
  EXPECT_TRUE(run_until([&] { return rings == 1; }));
  alarm.set(clock.now() - hours(1));
  EXPECT_TRUE(run_until([&] { return rings == 2; })) << "what is over already rings at once";
}

TEST_F(AlarmTest, WhatIsSetLaterCounts) {
  const Instant begin = clock.now();
  alarm.set(begin + hours(1));
  alarm.set(begin + milliseconds(5));
  EXPECT_TRUE(run_until([&] { return rings == 1; }));
  EXPECT_GE(clock.now(), begin + milliseconds(5));
}

TEST_F(AlarmTest, IsSilentWhenTakenBackOrGone) {
  int others = 0;
  alarm.set(clock.now());
  alarm.set(kNever);
  {
    Alarm gone(loop, [&] { others += 100; });
    gone.set(clock.now());
  }
  Alarm last(loop, [&] { ++others; });
  last.set(clock.now() + milliseconds(5));
  EXPECT_TRUE(run_until([&] { return others > 0; }));
  EXPECT_EQ(others, 1);
  EXPECT_EQ(rings, 0);
}

}  // namespace
}  // namespace conclave::net
