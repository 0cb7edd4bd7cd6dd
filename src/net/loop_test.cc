#include "net/loop.h"

#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "base/random.h"
#include "net/testing/loop_test_base.h"
#include "net/timer_heap.h"

namespace conclave::net {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(TimerHeap, AgreesWithASortedMap) {
  Random random(7);
  TimerHeap heap;
  std::multimap<Instant, uint64_t> model;  // to the id
  std::map<uint64_t, Instant> by_id;
  uint64_t called = 0;
  const auto remove = [&](Instant at, uint64_t id) {
    const auto [begin, end] = model.equal_range(at);
    for (auto it = begin; it != end; ++it) {
      if (it->second == id) {
        model.erase(it);
        break;
      }
    }
    by_id.erase(id);
  };
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t what = random.below(10);
    if (what < 5) {
      const Instant at(milliseconds(random.below(1000)));
      auto id = std::make_shared<uint64_t>();
      *id = heap.add(at, [&called, id] { called = *id; });
      ASSERT_NE(*id, 0U);
      ASSERT_TRUE(by_id.emplace(*id, at).second) << "an id of a timer that stands";
      model.emplace(at, *id);
    } else if (what < 8 && !by_id.empty()) {
      auto it = by_id.lower_bound(random.next() % (by_id.rbegin()->first + 1));
      const auto [id, at] = *it;
      ASSERT_TRUE(heap.cancel(id));
      ASSERT_FALSE(heap.cancel(id)) << "once only";
      remove(at, id);
    } else if (heap.next() != kNever) {
      const Instant at = heap.next();
      ASSERT_EQ(at, model.begin()->first);
      heap.take()();
      ASSERT_EQ(by_id.at(called), at);
      remove(at, called);
    }
    ASSERT_EQ(heap.size(), model.size());
    ASSERT_EQ(heap.next(), model.empty() ? kNever : model.begin()->first);
  }
}

using LoopTurns = LoopTest;

TEST_F(LoopTurns, TimersComeInOrderAndNotBeforeTheirTime) {
  std::vector<int> order;
  const Instant begin = clock.now();
  Instant last{};
  loop.call_at(begin + milliseconds(30), [&] {
    order.push_back(3);
    last = clock.now();
  });
  loop.call_at(begin + milliseconds(10), [&] { order.push_back(1); });
  const TimerId cancelled = loop.call_at(begin + milliseconds(15), [&] { order.push_back(99); });
  loop.call_at(begin + milliseconds(20), [&] { order.push_back(2); });
  loop.cancel(cancelled);
  loop.cancel(0);
  EXPECT_TRUE(run_until([&] { return order.size() == 3; }));
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_GE(last - begin, milliseconds(30));
}

TEST_F(LoopTurns, ATimerMayCancelAnotherAndMakeMore) {
  int calls = 0;
  const Instant at = clock.now() + milliseconds(1);
  TimerId second = 0;
  loop.call_at(at, [&] {
    ++calls;
    loop.cancel(second);
    loop.call_at(loop.now(), [&] { ++calls; });
  });
  second = loop.call_at(at + microseconds(1), [&] { calls += 100; });
  EXPECT_TRUE(run_until([&] { return calls == 2; }));
}

TEST_F(LoopTurns, TurnEndsComeInOrderAfterAllWork) {
  std::vector<std::string> order;
  bool first = true;
  loop.add_turn_end([&](Instant) {
    order.emplace_back("end 1");
    if (std::exchange(first, false)) loop.post([&] { order.emplace_back("from end"); });
  });
  loop.add_turn_end([&](Instant) { order.emplace_back("end 2"); });
  loop.post([&] {
    order.emplace_back("a");
    loop.post([&] { order.emplace_back("later turn"); });
    loop.at_turn_end([&] { order.emplace_back("last"); });
  });
  loop.post([&] { order.emplace_back("b"); });
  EXPECT_TRUE(run_until([&] { return order.size() >= 9; }));
  order.resize(9);
  EXPECT_EQ(order,
            (std::vector<std::string>{"a", "b", "end 1", "end 2", "last", "later turn", "from end", "end 1", "end 2"}));
}

TEST_F(LoopTurns, PostsFromOtherThreadsAllArriveInTheirOrder) {
  constexpr int kEach = 20'000;
  std::vector<int> seen(4, 0);
  size_t total = 0;
  uint64_t turns = 0;
  loop.add_turn_end([&](Instant) { ++turns; });
  std::vector<std::thread> threads;
  threads.reserve(seen.size());
  for (size_t t = 0; t < seen.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        loop.post([&, t, i] {
          EXPECT_EQ(seen[t], i);
          ++seen[t];
          ++total;
        });
      }
    });
  }
  EXPECT_TRUE(run_until([&] { return total == seen.size() * kEach; }));
  for (auto& thread : threads) thread.join();
  EXPECT_LE(turns, total + 2);
}

TEST_F(LoopTurns, AnIdleLoopSleeps) {
  uint64_t turns = 0;
  loop.add_turn_end([&](Instant) { ++turns; });
  loop.call_at(clock.now() + seconds(100), [] {});
  timespec before{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
  run_for(milliseconds(300));
  timespec after{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
  // The turn that starts it, and the one of the limit, which may be rung a little early once.
  EXPECT_LE(turns, 4U);
  EXPECT_LT((after.tv_sec - before.tv_sec) * 1'000'000'000 + after.tv_nsec - before.tv_nsec, 30'000'000);
}

TEST(Loop, SleepsNoLongerThanItsDeadline) {
  env::PosixClock clock;
  Loop loop(clock);
  Instant deadline = clock.now() + milliseconds(20);
  int turns = 0;
  loop.set_deadline([&] { return deadline; });
  Instant woke{};
  loop.add_turn_end([&](Instant now) {
    ++turns;
    if (now < deadline) return;
    woke = now;
    deadline = kNever;
    loop.stop();
  });
  loop.run();
  EXPECT_GE(woke.time_since_epoch().count(), 0);
  EXPECT_LE(turns, 4);
  EXPECT_EQ(loop.now(), woke);
}

TEST(Loop, ADeadlineThatIsPastMakesTheNextTurnComeAtOnce) {
  env::PosixClock clock;
  Loop loop(clock);
  loop.set_deadline([&] { return Instant(); });
  int turns = 0;
  loop.add_turn_end([&](Instant) {
    if (++turns == 1000) loop.stop();
  });
  const Instant begin = clock.now();
  loop.run();
  EXPECT_LT(clock.now() - begin, seconds(5));
}

TEST(Loop, StopFromAnotherThreadWakesIt) {
  env::PosixClock clock;
  Loop loop(clock);
  for (int i = 0; i < 200; ++i) {
    std::thread other([&] { loop.stop(); });
    loop.run();
    other.join();
  }
}

// Calls at leisure of 100 us each, for ever, by a clock that they put forward; the part that they got of so much time.
// `busy`: others ask all the while, 50 us each.
struct Leisure : LoopTest {
  double part(bool busy, seconds time) {
    Duration used{};
    std::function<void()> work = [&] {
      clock.shift += microseconds(100);
      used += microseconds(100);
      loop.at_leisure([&work] { work(); });
    };
    loop.at_leisure([&work] { work(); });
    std::function<void()> ask = [&] {
      clock.shift += microseconds(50);
      if (busy) loop.post([&ask] { ask(); });
    };
    loop.post([&ask] { ask(); });
    const Instant begin = clock.now();
    EXPECT_TRUE(run_until([&] { return clock.now() >= begin + time; }, 2 * time));
    return std::chrono::duration<double>(used) / std::chrono::duration<double>(clock.now() - begin);
  }
};

TEST_F(Leisure, HasAQuarterWhileOthersAsk) {
  EXPECT_NEAR(part(true, seconds(10)), 0.25, 0.05);
}

TEST_F(Leisure, HasAllOfItOtherwise) {
  EXPECT_GT(part(false, seconds(10)), 0.8);
}

TEST_F(Leisure, KeepsItsOrder) {
  std::vector<int> order;
  for (int i = 0; i < 5; ++i) loop.at_leisure([&order, i] { order.push_back(i); });
  EXPECT_TRUE(run_until([&] { return order.size() == 5; }));
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
}

}  // namespace
}  // namespace conclave::net
