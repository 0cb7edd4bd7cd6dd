// The checker of observers finds what it is there for: each rule is shown something wrong, and something right beside
// it.
#include "sim/leader_check.h"

#include <gtest/gtest.h>

namespace conclave::sim {
namespace {

constexpr int64_t kObserver = 99;

// Session 10 leads from revision 5 on, has another value from 7 on, and leaves at 8; nobody leads then, until 11 does
// from 10 on; at 12 it leaves, and 12, which stands in line since 11, leads at once.
class LeaderCheckTest : public testing::Test {
 protected:
  LeaderCheckTest() {
    put(5, 10, "a");
    put(7, 10, "b");
    remove(8, 10);
    put(10, 11, "c");
    put(11, 12, "d");
    remove(12, 11);
    leaders.note_observing(kObserver, "e");
  }
  void put(int64_t revision, int64_t session, const std::string& value) {
    claims.on_event(revision, {.key = ClaimHistory::key_of("e", session), .value = value, .is_put = true});
  }
  void remove(int64_t revision, int64_t session) {
    claims.on_event(revision, {.key = ClaimHistory::key_of("e", session)});
  }
  void see(int64_t token, const std::string& value, int64_t revision, bool skipped = false) {
    leaders.note_seen(kObserver,
                      {.name = "e", .token = token, .value = value, .revision = revision, .skipped = skipped});
  }
  [[nodiscard]] bool finds(const std::string& what) const { return check.violation().find(what) != std::string::npos; }

  NodeCheck check{NodeCheck::Options{}};
  ClaimHistory claims;
  LeaderCheck leaders{check, claims};
};

TEST_F(LeaderCheckTest, AllOfItInOrderIsRight) {
  see(5, "a", 5);
  see(5, "b", 7);
  see(0, "", 9);
  see(10, "c", 10);
  EXPECT_EQ(leaders.who_is_behind(), "session 63 has not seen the last of e");
  see(11, "d", 11);
  EXPECT_EQ(check.violation(), "");
  EXPECT_EQ(leaders.who_is_behind(), "");
  EXPECT_EQ(leaders.leaders_seen(), 4U);
  EXPECT_EQ(leaders.vacancies_seen(), 1U);
  EXPECT_EQ(leaders.skips(), 0U);
}

TEST_F(LeaderCheckTest, WhoBeginsLateBeginsAnywhere) {
  see(0, "", 8);
  see(10, "c", 10);
  EXPECT_EQ(check.violation(), "");
}

TEST_F(LeaderCheckTest, AVacancyLeftOutIsFound) {
  see(5, "b", 7);
  see(10, "c", 10);
  EXPECT_TRUE(finds("and 1 before that were left out")) << check.violation();
}

TEST_F(LeaderCheckTest, WhatIsSaidToBeSkippedMayBeLeftOut) {
  see(5, "b", 7);
  see(10, "c", 10, true);
  EXPECT_EQ(check.violation(), "");
  EXPECT_EQ(leaders.skips(), 1U);
}

TEST_F(LeaderCheckTest, WhatComesAgainIsFound) {
  see(5, "b", 7);
  see(5, "b", 7);
  EXPECT_TRUE(finds("which was so before what it was shown last")) << check.violation();
}

TEST_F(LeaderCheckTest, AVacancyThatMayHaveBeenLeftMayComeAgain) {
  see(0, "", 8);
  see(0, "", 9, true);
  EXPECT_EQ(check.violation(), "");
}

TEST_F(LeaderCheckTest, WhatGoesBackIsFound) {
  see(10, "c", 10);
  see(0, "", 9, true);
  EXPECT_TRUE(finds("which was so before what it was shown last")) << check.violation();
}

TEST_F(LeaderCheckTest, AnotherValueThanItHadIsFound) {
  see(5, "b", 5);
  EXPECT_TRUE(finds("e is led with token 5 and 'b' of revision 5, which never was so")) << check.violation();
}

TEST_F(LeaderCheckTest, WhoNeverLedIsFound) {
  put(13, 13, "x");
  see(13, "x", 13);
  EXPECT_TRUE(finds("which never was so")) << check.violation();
}

TEST_F(LeaderCheckTest, AVacancyThatWasNoneIsFound) {
  see(0, "", 12);
  EXPECT_TRUE(finds("e has no leader at revision 12, which never was so")) << check.violation();
}

TEST_F(LeaderCheckTest, WhoDoesNotObserveIsShownNothing) {
  leaders.note_stopped(kObserver, "e");
  EXPECT_EQ(leaders.who_is_behind(), "");
  see(5, "a", 5);
  EXPECT_TRUE(finds("and does not observe it")) << check.violation();
}

TEST_F(LeaderCheckTest, WhoIsGoneIsNotBehind) {
  leaders.note_gone(kObserver);
  EXPECT_EQ(leaders.who_is_behind(), "");
}

}  // namespace
}  // namespace conclave::sim
