#include "node/follower_lag.h"

#include <gtest/gtest.h>

namespace conclave::node {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Instant kStart{seconds(1000)};
constexpr Term kTerm{3};

TEST(FollowerLag, ItLagsASecondAfterItsLeader) {
  FollowerLag lag;
  EXPECT_FALSE(lag.is_lagging(kStart, kTerm, LogIndex(0))) << "nothing is known";
  lag.note(kStart, kTerm, LogIndex(10));
  EXPECT_FALSE(lag.is_lagging(kStart + milliseconds(999), kTerm, LogIndex(9)));
  EXPECT_TRUE(lag.is_lagging(kStart + seconds(1), kTerm, LogIndex(9)));
  EXPECT_FALSE(lag.is_lagging(kStart + seconds(1), kTerm, LogIndex(10)));
  EXPECT_TRUE(lag.is_lagging(kStart + seconds(60), kTerm, LogIndex(9))) << "though nothing more was told";
}

TEST(FollowerLag, OnlyWhatIsASecondOldCounts) {
  FollowerLag lag;
  for (int i = 0; i < 100; ++i) {
    const Instant now = kStart + kAppliedToldEvery * i;
    lag.note(now, kTerm, LogIndex(static_cast<uint64_t>(i) * 1000));
    // It has what the leader had applied at the last telling but one.
    const uint64_t second_ago = i < 2 ? 0 : static_cast<uint64_t>(i - 2) * 1000;
    EXPECT_FALSE(lag.is_lagging(now, kTerm, LogIndex(second_ago)));
    if (second_ago > 0) {
      EXPECT_TRUE(lag.is_lagging(now, kTerm, LogIndex(second_ago - 1)));
    }
  }
}

TEST(FollowerLag, AnIdleLeaderAndOneThatTellsTooMuch) {
  FollowerLag lag;
  lag.note(kStart, kTerm, LogIndex(10));
  // The same again is not news, and does not put off what was told first.
  lag.note(kStart + milliseconds(500), kTerm, LogIndex(10));
  EXPECT_TRUE(lag.is_lagging(kStart + seconds(1), kTerm, LogIndex(9)));
  for (uint64_t i = 1; i <= 1000; ++i) lag.note(kStart + seconds(1) + milliseconds(i), kTerm, LogIndex(10 + i));
  EXPECT_TRUE(lag.is_lagging(kStart + seconds(3), kTerm, LogIndex(100)));
}

TEST(FollowerLag, AnotherTermsLeaderIsAnother) {
  FollowerLag lag;
  lag.note(kStart, kTerm, LogIndex(10));
  EXPECT_FALSE(lag.is_lagging(kStart + seconds(2), kTerm.next(), LogIndex(5)));
  lag.note(kStart + seconds(2), kTerm.next(), LogIndex(8));
  EXPECT_FALSE(lag.is_lagging(kStart + seconds(2), kTerm.next(), LogIndex(5)));
  EXPECT_TRUE(lag.is_lagging(kStart + seconds(3), kTerm.next(), LogIndex(7)));
  EXPECT_FALSE(lag.is_lagging(kStart + seconds(3), kTerm, LogIndex(5)));
}

}  // namespace
}  // namespace conclave::node
