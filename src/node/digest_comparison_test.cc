#include "node/digest_comparison.h"

#include <gtest/gtest.h>

namespace conclave::node {
namespace {

using Verdict = DigestComparison::Verdict;

TEST(DigestComparison, EqualOnesAreNoNews) {
  DigestComparison comparison;
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(8), 5, 3), Verdict::kNone);
  EXPECT_EQ(comparison.note_own(LogIndex(8), 5, 3), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(3), LogIndex(8), 5, 3), Verdict::kNone);
}

TEST(DigestComparison, WhoeverHasAMajorityAgainstItIsTheOddOne) {
  DigestComparison comparison;
  EXPECT_EQ(comparison.note_own(LogIndex(8), 5, 3), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(8), 6, 3), Verdict::kDiffer);
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(8), 6, 3), Verdict::kDiffer);  // said twice by one
  EXPECT_EQ(comparison.note_peer(NodeId(3), LogIndex(8), 6, 3), Verdict::kOdd);
}

TEST(DigestComparison, OthersThatDisagreeAmongThemselvesAreNoMajority) {
  DigestComparison comparison;
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(8), 6, 3), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(3), LogIndex(8), 7, 3), Verdict::kNone);
  EXPECT_EQ(comparison.note_own(LogIndex(8), 5, 3), Verdict::kDiffer);
}

TEST(DigestComparison, OfTwoNobodyCanTell) {
  DigestComparison comparison;
  EXPECT_EQ(comparison.note_own(LogIndex(8), 5, 2), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(8), 6, 2), Verdict::kDiffer);
}

TEST(DigestComparison, OldIndexesAreForgotten) {
  DigestComparison comparison;
  for (uint64_t index = 1; index <= 20; ++index) {
    EXPECT_EQ(comparison.note_own(LogIndex(index), index, 3), Verdict::kNone);
  }
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(1), 7, 3), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(3), LogIndex(1), 7, 3), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(20), 7, 3), Verdict::kDiffer);
  comparison.clear();
  EXPECT_EQ(comparison.note_peer(NodeId(3), LogIndex(20), 7, 3), Verdict::kNone);
}

}  // namespace
}  // namespace conclave::node
