#include "node/lease_clock.h"

#include <gtest/gtest.h>

namespace conclave::node {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

class LeaseClockTest : public testing::Test {
 protected:
  std::vector<LeaseId> due(size_t count_max = 1'000'000) {
    std::vector<LeaseId> leases;
    clock.take_due(now, count_max, leases);
    return leases;
  }
  // Ends all of them as fast as the clock lets; how long that took.
  Duration end_all(size_t leases) {
    const Instant begin = now;
    size_t ended = 0;
    while (ended < leases) {
      now = std::max(now + microseconds(1), clock.next_deadline());
      ended += due().size();
    }
    EXPECT_EQ(ended, leases);
    return now - begin;
  }
  LeaseClock clock{LeaseClock::Options{}};
  Instant now{seconds(1000)};
};

TEST_F(LeaseClockTest, ALeaseLastsItsTtlAndTwoPercentMore) {
  clock.lead(now);
  clock.start(LeaseId(1), 10'000, now);
  const Instant begin = now;
  now = begin + milliseconds(10'209);
  EXPECT_TRUE(due().empty());
  now = begin + milliseconds(10'210);
  EXPECT_EQ(due(), std::vector<LeaseId>{LeaseId(1)});
  EXPECT_TRUE(due().empty()) << "proposed once";
}

TEST_F(LeaseClockTest, AKeepAliveMovesTheDeadlineAndNeverBack) {
  clock.lead(now);
  clock.start(LeaseId(1), 10'000, now);
  now += seconds(9);
  EXPECT_TRUE(clock.renew(LeaseId(1), 10'000, now));
  EXPECT_TRUE(clock.renew(LeaseId(1), 2'000, now));
  now += seconds(10);
  EXPECT_TRUE(due().empty());
  now += seconds(1);
  EXPECT_EQ(due().size(), 1U);
}

TEST_F(LeaseClockTest, NoKeepAliveIsAcknowledgedOnceTheEndIsProposed) {
  clock.lead(now);
  clock.start(LeaseId(1), 2'000, now);
  now += seconds(3);
  const std::vector<LeaseId> proposed = due();
  ASSERT_EQ(proposed.size(), 1U);
  EXPECT_FALSE(clock.renew(LeaseId(1), 2'000, now));
  EXPECT_FALSE(clock.remaining_ms(LeaseId(1), now));
  clock.give_back(proposed);
  EXPECT_TRUE(clock.renew(LeaseId(1), 2'000, now));
  EXPECT_TRUE(due().empty());
}

// Otherwise a leader that hands over in vain would end leases late when it goes on.
TEST_F(LeaseClockTest, WhatIsGivenBackUsedNothingOfTheRate) {
  clock = LeaseClock({.ends_per_second = 10, .inherited_ends_per_second = 1});
  clock.lead(now);
  clock.inherit(LeaseId(1), 1'000, now);
  now += seconds(2);
  for (int i = 0; i < 5; ++i) {
    const std::vector<LeaseId> proposed = due();
    ASSERT_EQ(proposed, std::vector<LeaseId>{LeaseId(1)}) << i;
    clock.give_back(proposed);
  }
  EXPECT_EQ(due().size(), 1U);
  clock.start(LeaseId(2), 0, now);
  EXPECT_TRUE(due().empty()) << "nor is anything won by it";
}

TEST_F(LeaseClockTest, OnlyALeaderEndsLeases) {
  clock.start(LeaseId(1), 1, now);
  now += seconds(60);
  EXPECT_TRUE(due().empty());
  EXPECT_FALSE(clock.renew(LeaseId(1), 1, now));
  clock.lead(now);
  clock.start(LeaseId(1), 1'000, now);
  clock.stop();
  now += seconds(60);
  EXPECT_TRUE(due().empty());
  EXPECT_EQ(clock.next_deadline(), kNever);
}

TEST_F(LeaseClockTest, ManyEndAtABoundedRate) {
  clock.lead(now);
  constexpr size_t kLeases = 250'000;
  for (size_t i = 1; i <= kLeases; ++i) clock.start(LeaseId(static_cast<int64_t>(i)), 1'000, now);
  now += seconds(2);
  // 100,000 a second, a tenth of that at once.
  const Duration took = end_all(kLeases);
  EXPECT_GE(took, milliseconds(2'300));
  EXPECT_LE(took, milliseconds(2'600));
}

TEST_F(LeaseClockTest, WhatANewLeaderInheritedEndsSlowerHoweverLongItsTime) {
  clock.lead(now);
  constexpr size_t kLeases = 50'000;
  for (size_t i = 1; i <= kLeases; ++i) clock.inherit(LeaseId(static_cast<int64_t>(i)), 3'600'000, now);
  now += seconds(3'700);
  // 20,000 a second.
  const Duration took = end_all(kLeases);
  EXPECT_GE(took, milliseconds(2'300));
  EXPECT_LE(took, milliseconds(2'600));
}

TEST_F(LeaseClockTest, OnceRenewedALeaseIsNotInheritedAnyMore) {
  clock.lead(now);
  constexpr size_t kLeases = 50'000;
  for (size_t i = 1; i <= kLeases; ++i) {
    clock.inherit(LeaseId(static_cast<int64_t>(i)), 10'000, now);
    EXPECT_TRUE(clock.renew(LeaseId(static_cast<int64_t>(i)), 10'000, now));
  }
  now += seconds(20);
  EXPECT_LE(end_all(kLeases), milliseconds(600));
}

// A client that grants and revokes long leases in a loop must not grow the leader.
TEST_F(LeaseClockTest, WhatEndedLeavesNothingBehindAndTheOrderStands) {
  clock.lead(now);
  constexpr int64_t kLeases = 1'000;
  // Deadlines in an order that is neither that of the ids nor its reverse.
  for (int64_t i = 0; i < kLeases; ++i) clock.start(LeaseId(i), 1'000 + (i * 389) % kLeases, now);
  for (int64_t i = 0; i < kLeases; i += 2) clock.end(LeaseId(i));
  EXPECT_EQ(clock.size(), static_cast<size_t>(kLeases / 2));
  EXPECT_EQ(clock.waiting(), clock.size());
  int64_t last = 0;
  size_t ended = 0;
  while (clock.next_deadline() != kNever) {
    now = std::max(now + microseconds(1), clock.next_deadline());
    for (const LeaseId id : due()) {
      EXPECT_EQ(id.value() % 2, 1);
      const int64_t ttl = 1'000 + (id.value() * 389) % kLeases;
      EXPECT_GE(ttl, last);
      last = ttl;
      ++ended;
      clock.end(id);
    }
  }
  EXPECT_EQ(ended, static_cast<size_t>(kLeases / 2));
  EXPECT_EQ(clock.size(), 0U);
}

TEST_F(LeaseClockTest, TheLongestTtlDoesNotOverflow) {
  clock.lead(now);
  clock.start(LeaseId(1), 9'000'000'000'000, now);
  EXPECT_TRUE(clock.renew(LeaseId(1), 9'000'000'000'000, now));
  now += std::chrono::hours(24 * 365 * 10);
  EXPECT_TRUE(due().empty());
}

}  // namespace
}  // namespace conclave::node
