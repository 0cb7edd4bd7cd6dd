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
  constexpr size_t kLeases = 50'000;
  for (size_t i = 1; i <= kLeases; ++i) clock.start(LeaseId(static_cast<int64_t>(i)), 1'000, now);
  now += seconds(2);
  // Just after a change of leader: 20,000 a second, a tenth of that at once.
  size_t ended = due().size();
  EXPECT_LE(ended, 2'000U);
  const Instant begin = now;
  while (ended < kLeases) {
    now = std::max(now + microseconds(1), clock.next_deadline());
    ended += due().size();
  }
  const Duration took = now - begin;
  EXPECT_GE(took, milliseconds(2'300));
  EXPECT_LE(took, milliseconds(2'600));
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
