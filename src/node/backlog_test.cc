#include "node/backlog.h"

#include <gtest/gtest.h>

namespace conclave::node {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Instant kStart{seconds(1000)};
constexpr Term kTerm{3};

TEST(Backlog, TheOldestThatWaitsTellsItsAge) {
  Backlog backlog;
  EXPECT_EQ(backlog.age(kStart, kTerm), Duration::zero());
  backlog.note_proposed(kStart, kTerm, LogIndex(10), 100);
  backlog.note_proposed(kStart + seconds(1), kTerm, LogIndex(12), 50);
  EXPECT_EQ(backlog.bytes(kTerm), 150U);
  EXPECT_EQ(backlog.age(kStart + seconds(3), kTerm), seconds(3));
  backlog.note_applied(kTerm, LogIndex(9), 60);
  EXPECT_EQ(backlog.age(kStart + seconds(3), kTerm), seconds(3)) << "the tenth waits";
  backlog.note_applied(kTerm, LogIndex(10), 40);
  EXPECT_EQ(backlog.age(kStart + seconds(3), kTerm), seconds(2));
  EXPECT_EQ(backlog.bytes(kTerm), 50U);
  backlog.note_applied(kTerm, LogIndex(12), 50);
  EXPECT_EQ(backlog.age(kStart + seconds(3), kTerm), Duration::zero());
  EXPECT_EQ(backlog.bytes(kTerm), 0U);
}

TEST(Backlog, OneThatIsNeverEmptyIsAsOldAsWhatWaits) {
  Backlog backlog;
  for (uint64_t i = 0; i < 10'000; ++i) {
    const Instant now = kStart + milliseconds(i);
    backlog.note_proposed(now, kTerm, LogIndex(100 + i), 1);
    if (i < 50) continue;
    backlog.note_applied(kTerm, LogIndex(50 + i), 1);
    EXPECT_GE(backlog.age(now, kTerm), milliseconds(49));
    EXPECT_LE(backlog.age(now, kTerm), milliseconds(49) + Backlog::kGrain);
  }
}

TEST(Backlog, AnEarlierTermCountsNoMore) {
  Backlog backlog;
  backlog.note_proposed(kStart, kTerm, LogIndex(10), 100);
  EXPECT_EQ(backlog.bytes(Term(4)), 0U);
  EXPECT_EQ(backlog.age(kStart + seconds(1), Term(4)), Duration::zero());
  backlog.note_proposed(kStart + seconds(2), Term(4), LogIndex(7), 30);
  backlog.note_applied(kTerm, LogIndex(6), 100);
  EXPECT_EQ(backlog.bytes(Term(4)), 30U);
  EXPECT_EQ(backlog.age(kStart + seconds(5), Term(4)), seconds(3));
}

}  // namespace
}  // namespace conclave::node
