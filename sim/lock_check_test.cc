// The checker of locks finds what it is there for: each rule is shown something wrong, and something right beside it.
#include "sim/lock_check.h"

#include <gtest/gtest.h>

#include "sim/scheduler.h"

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Leases 10 and 11 claim lock "a" at revisions 5 and 6; what the first does at revision 8 makes the other the oldest.
class LockCheckTest : public testing::Test {
 protected:
  LockCheckTest() {
    put(5, key(10));
    put(6, key(11));
  }
  static std::string key(int64_t lease) { return LockCheck::key_of("a", LeaseId(lease)); }
  void put(int64_t revision, const std::string& name) {
    const size_t slash = name.find('/');
    const LeaseId lease(slash == std::string::npos ? 0 : std::stoll(name.substr(slash + 1), nullptr, 16));
    locks.on_event(revision, {.key = name, .value = std::to_string(revision), .lease = lease, .is_put = true});
  }
  void remove(int64_t revision, const std::string& name) { locks.on_event(revision, {.key = name}); }
  static Instant at(int64_t time_ms) { return Scheduler::kStart + milliseconds(time_ms); }
  static LockCheck::Trust trust(int64_t sent_ms) { return {.sent = at(sent_ms), .ttl = seconds(2)}; }
  [[nodiscard]] bool finds(const std::string& what) const { return check.violation().find(what) != std::string::npos; }

  NodeCheck check{NodeCheck::Options{}};
  LockCheck locks{check, LockCheck::Options{}};
};

TEST_F(LockCheckTest, AKeyIsTheLocksAndTheLeaseInHex) {
  EXPECT_EQ(key(255), "a/ff");
}

TEST_F(LockCheckTest, ARightHandoverIsRight) {
  locks.note_held("a", LeaseId(10), 5, 7, at(100), trust(0));
  locks.note_waiting(LeaseId(11), key(10), 7);
  locks.note_renewed(LeaseId(10), at(600), trust(500));
  EXPECT_EQ(locks.who_waits_in_vain(), "");
  locks.note_let_go(LeaseId(10));
  remove(8, key(10));
  locks.note_deletion(LeaseId(11), 8);
  locks.note_waits_no_more(LeaseId(11));
  locks.note_held("a", LeaseId(11), 6, 8, at(700), trust(500));
  locks.note_missed(key(10), 8);
  EXPECT_EQ(check.violation(), "");
  EXPECT_EQ(locks.held(), 2U);
  EXPECT_EQ(locks.handed_over_by_expiry(), 0U);
}

TEST_F(LockCheckTest, ALeaseThatRanOutHandsOver) {
  locks.note_held("a", LeaseId(10), 5, 7, at(100), trust(0));
  remove(8, key(10));
  locks.on_lease_ended(LeaseId(10), true);
  // The holder trusts for a hundredth more than two seconds.
  locks.note_held("a", LeaseId(11), 6, 8, at(2'020), trust(1'900));
  EXPECT_EQ(check.violation(), "");
  EXPECT_EQ(locks.handed_over_by_expiry(), 1U);
}

TEST_F(LockCheckTest, WhoIsNotTheOldestAndIsToldSoIsFound) {
  locks.note_held("a", LeaseId(11), 6, 7, at(100), trust(0));
  EXPECT_TRUE(finds("a/b with token 6 was told at revision 7 that it holds, and the oldest was 'a/a' of 5"))
      << check.violation();
}

TEST_F(LockCheckTest, WhoIsTheOldestOnlyLaterIsFound) {
  remove(8, key(10));
  locks.note_held("a", LeaseId(11), 6, 7, at(100), trust(0));
  EXPECT_TRUE(finds("that it holds")) << check.violation();
}

TEST_F(LockCheckTest, WhoseClaimIsGoneAndIsToldThatItHoldsIsFound) {
  remove(8, key(10));
  locks.on_lease_ended(LeaseId(10), true);
  locks.note_held("a", LeaseId(10), 5, 8, at(100), trust(0));
  EXPECT_TRUE(finds("that it holds")) << check.violation();
}

TEST_F(LockCheckTest, AnotherTokenThanTheCreateRevisionIsFound) {
  locks.note_held("a", LeaseId(10), 7, 7, at(100), trust(0));
  EXPECT_TRUE(finds("that it holds")) << check.violation();
}

TEST_F(LockCheckTest, TwoThatTrustAtOnceAreFound) {
  locks.note_held("a", LeaseId(10), 5, 7, at(100), trust(0));
  remove(8, key(10));
  locks.note_held("a", LeaseId(11), 6, 8, at(2'019), trust(1'900));
  EXPECT_TRUE(finds("a is held under lease 10 and lease 11 at once")) << check.violation();
}

TEST_F(LockCheckTest, ARenewalWhileAnotherHoldsIsFound) {
  locks.note_held("a", LeaseId(10), 5, 7, at(100), trust(0));
  remove(8, key(10));
  locks.note_held("a", LeaseId(11), 6, 8, at(2'500), trust(2'400));
  EXPECT_EQ(check.violation(), "");
  locks.note_renewed(LeaseId(10), at(2'600), trust(1'000));
  EXPECT_TRUE(finds("at once")) << check.violation();
}

TEST_F(LockCheckTest, TwoLocksMayBeHeldAtOnce) {
  put(7, LockCheck::key_of("b", LeaseId(11)));
  locks.note_held("a", LeaseId(10), 5, 7, at(100), trust(0));
  locks.note_held("b", LeaseId(11), 7, 7, at(100), trust(0));
  EXPECT_EQ(check.violation(), "");
}

TEST_F(LockCheckTest, ATokenThatDoesNotGrowIsFound) {
  locks.note_held("a", LeaseId(10), 5, 7, at(100), trust(0));
  locks.note_let_go(LeaseId(10));
  remove(8, key(10));
  locks.note_held("a", LeaseId(11), 6, 8, at(200), trust(0));
  locks.note_let_go(LeaseId(11));
  locks.note_held("a", LeaseId(10), 5, 7, at(300), trust(0));
  EXPECT_TRUE(finds("a was given with token 5 after token 6")) << check.violation();
}

TEST_F(LockCheckTest, WhereClocksLieOnlyTheHistoryIsJudged) {
  NodeCheck lied_to{NodeCheck::Options{.clocks_lie = true}};
  LockCheck lenient{lied_to, {.clocks_lie = true}};
  lenient.on_event(5, {.key = key(10), .value = "5", .is_put = true});
  lenient.on_event(6, {.key = key(11), .value = "6", .is_put = true});
  lenient.note_held("a", LeaseId(10), 5, 7, at(100), trust(0));
  lenient.on_event(8, {.key = key(10)});
  lenient.note_held("a", LeaseId(11), 6, 8, at(200), trust(0));
  lenient.note_held("a", LeaseId(10), 5, 7, at(300), trust(0));
  EXPECT_EQ(lied_to.violation(), "");
  lenient.note_held("a", LeaseId(10), 5, 8, at(300), trust(0));
  EXPECT_NE(lied_to.violation().find("that it holds"), std::string::npos);
}

TEST_F(LockCheckTest, WhoWaitsForAKeyThatIsGoneIsFound) {
  locks.note_waiting(LeaseId(11), key(10), 7);
  remove(8, key(10));
  EXPECT_EQ(locks.who_waits_in_vain(), "lease 11 waits for a/a, which is gone since revision 8");
  locks.note_waits_no_more(LeaseId(11));
  EXPECT_EQ(locks.who_waits_in_vain(), "");
}

TEST_F(LockCheckTest, WhoWaitsForALaterLifeOfAKeyDoesNotWaitInVain) {
  remove(8, key(10));
  put(9, key(10));
  locks.note_waiting(LeaseId(11), key(10), 9);
  EXPECT_EQ(locks.who_waits_in_vain(), "");
}

TEST_F(LockCheckTest, ADeletionThatDidNotHappenIsFound) {
  locks.note_waiting(LeaseId(11), key(10), 7);
  locks.note_deletion(LeaseId(11), 8);
  EXPECT_TRUE(finds("was told that it was deleted at 8, and it was at 0")) << check.violation();
}

TEST_F(LockCheckTest, ADeletionThatWasPassedOverIsFound) {
  locks.note_waiting(LeaseId(11), key(10), 7);
  remove(8, key(10));
  put(9, key(10));
  remove(12, key(10));
  locks.note_deletion(LeaseId(11), 12);
  EXPECT_TRUE(finds("was told that it was deleted at 12, and it was at 8")) << check.violation();
}

TEST_F(LockCheckTest, AClaimThatIsMissedAndStoodIsFound) {
  locks.note_missed(key(10), 4);
  EXPECT_EQ(check.violation(), "");
  locks.note_missed(key(10), 7);
  EXPECT_TRUE(finds("a/a was not found at revision 7, and stood since 5")) << check.violation();
}

TEST_F(LockCheckTest, AClaimThatOutlivesItsLeaseIsFound) {
  locks.on_lease_ended(LeaseId(10), false);
  EXPECT_TRUE(finds("lease 10 ended and left its claim on a behind")) << check.violation();
}

TEST_F(LockCheckTest, KeysThatAreNoClaimsArePassedOver) {
  put(7, "key1");
  remove(8, "key1");
  locks.note_held("a", LeaseId(10), 5, 8, at(100), trust(0));
  EXPECT_EQ(check.violation(), "");
}

}  // namespace
}  // namespace conclave::sim
