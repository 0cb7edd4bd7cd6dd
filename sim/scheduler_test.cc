#include "sim/scheduler.h"

#include <memory>
#include <string>

#include <gtest/gtest.h>

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;

TEST(Scheduler, RunsByTimeThenByOrderOfScheduling) {
  Scheduler scheduler;
  EXPECT_EQ(scheduler.now(), Scheduler::kStart);
  std::string trace;
  const Instant at = scheduler.now() + milliseconds(10);
  scheduler.schedule(at + milliseconds(1), [&] { trace += 'd'; });
  scheduler.schedule(at, [&] { trace += 'a'; });
  scheduler.schedule(at, [&] {
    trace += 'b';
    scheduler.schedule(scheduler.now() - milliseconds(5), [&] { trace += 'c'; });  // the past is now
  });
  scheduler.run_until(at);
  EXPECT_EQ(trace, "abc");
  EXPECT_EQ(scheduler.now(), at);
  scheduler.run_until(at + milliseconds(5));
  EXPECT_EQ(trace, "abcd");
  EXPECT_EQ(scheduler.pending(), 0U);
  EXPECT_EQ(scheduler.events_run(), 4U);
}

TEST(Scheduler, CancelledEventsNeverRunAndOldHandlesAreHarmless) {
  Scheduler scheduler;
  int ran = 0;
  const EventHandle handle = scheduler.schedule(scheduler.now() + milliseconds(1), [&] { ++ran; });
  EXPECT_TRUE(scheduler.cancel(handle));
  EXPECT_FALSE(scheduler.cancel(handle));
  scheduler.run_until(scheduler.now() + milliseconds(2));
  EXPECT_EQ(ran, 0);
  const EventHandle later = scheduler.schedule(scheduler.now(), [&] { ++ran; });  // takes the same slot
  EXPECT_FALSE(scheduler.cancel(handle));
  scheduler.run_until(scheduler.now());
  EXPECT_EQ(ran, 1);
  EXPECT_FALSE(scheduler.cancel(later));
  EXPECT_FALSE(scheduler.cancel(scheduler.schedule(kNever, [&] { ++ran; })));
}

TEST(Scheduler, ManyCancelledEventsAreSweptWithoutChangingOrder) {
  Scheduler scheduler;
  std::vector<int> order;
  for (int i = 0; i < 10'000; ++i) {
    const EventHandle handle =
        scheduler.schedule(scheduler.now() + milliseconds(i % 7), [&order, i] { order.push_back(i); });
    if (i % 10 != 0) scheduler.cancel(handle);
  }
  EXPECT_EQ(scheduler.pending(), 1000U);
  scheduler.run_until(scheduler.now() + milliseconds(10));
  ASSERT_EQ(order.size(), 1000U);
  for (size_t i = 1; i < order.size(); ++i) {
    const bool in_order =
        order[i - 1] % 7 < order[i] % 7 || (order[i - 1] % 7 == order[i] % 7 && order[i - 1] < order[i]);
    ASSERT_TRUE(in_order) << i;
  }
}

TEST(Gate, EventsWaitWhileFrozenAndKeepTheirOrder) {
  Scheduler scheduler;
  Gate gate(scheduler);
  gate.open();
  std::string trace;
  scheduler.schedule(gate, scheduler.now() + milliseconds(1), [&] { trace += 'a'; });
  const EventHandle cancelled = scheduler.schedule(gate, scheduler.now() + milliseconds(2), [&] { trace += 'x'; });
  scheduler.schedule(gate, scheduler.now() + milliseconds(3), [&] { trace += 'b'; });
  gate.freeze();
  scheduler.run_until(scheduler.now() + milliseconds(5));
  EXPECT_EQ(trace, "");
  EXPECT_EQ(gate.waiting(), 3U);
  EXPECT_TRUE(scheduler.cancel(cancelled));
  gate.thaw();
  scheduler.schedule(gate, scheduler.now(), [&] { trace += 'c'; });
  scheduler.run_until(scheduler.now());
  EXPECT_EQ(trace, "abc");
}

TEST(Gate, EventsOfAnEndedLifeAreDropped) {
  Scheduler scheduler;
  Gate gate(scheduler);
  gate.open();
  std::string trace;
  scheduler.schedule(gate, scheduler.now() + milliseconds(1), [&] { trace += 'a'; });
  scheduler.schedule(gate, scheduler.now() + milliseconds(9), [&] { trace += 'b'; });
  gate.freeze();
  scheduler.run_until(scheduler.now() + milliseconds(2));
  gate.close();
  gate.open();
  scheduler.schedule(gate, scheduler.now() + milliseconds(1), [&] { trace += 'c'; });
  scheduler.run_until(scheduler.now() + milliseconds(20));
  EXPECT_EQ(trace, "c");
  EXPECT_EQ(scheduler.pending(), 0U);
}

TEST(Callback, OwnsWhatItCapturesSmallAndLarge) {
  auto counted = std::make_shared<int>(0);
  {
    Callback small([counted] { ++*counted; });
    struct Large {
      char bytes[200] = {};
    };
    Callback large([counted, large = Large{}] { *counted += 1 + large.bytes[7]; });
    Callback moved = std::move(large);
    small();
    moved();
    EXPECT_EQ(counted.use_count(), 3);
    EXPECT_FALSE(static_cast<bool>(large));  // NOLINT(bugprone-use-after-move): that is what is asked
  }
  EXPECT_EQ(*counted, 2);
  EXPECT_EQ(counted.use_count(), 1);
}

}  // namespace
}  // namespace conclave::sim
