#include "node/digest_comparison.h"

#include <vector>

#include <gtest/gtest.h>

namespace conclave::node {
namespace {

using Verdict = DigestComparison::Verdict;

// Servers 1 to `voters`, of which this is 1.
Membership of(uint64_t voters) {
  std::vector<NodeId> ids;
  for (uint64_t id = 1; id <= voters; ++id) ids.emplace_back(id);
  return Membership::of_voters(ids);
}

TEST(DigestComparison, EqualOnesAreNoNews) {
  DigestComparison comparison;
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(8), 5, of(3)), Verdict::kNone);
  EXPECT_EQ(comparison.note_own(LogIndex(8), 5, of(3)), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(3), LogIndex(8), 5, of(3)), Verdict::kNone);
}

TEST(DigestComparison, WhoeverHasAMajorityAgainstItIsTheOddOne) {
  DigestComparison comparison;
  EXPECT_EQ(comparison.note_own(LogIndex(8), 5, of(3)), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(8), 6, of(3)), Verdict::kDiffer);
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(8), 6, of(3)), Verdict::kDiffer);  // said twice by one
  EXPECT_EQ(comparison.note_peer(NodeId(3), LogIndex(8), 6, of(3)), Verdict::kOdd);
}

TEST(DigestComparison, OthersThatDisagreeAmongThemselvesAreNoMajority) {
  DigestComparison comparison;
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(8), 6, of(3)), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(3), LogIndex(8), 7, of(3)), Verdict::kNone);
  EXPECT_EQ(comparison.note_own(LogIndex(8), 5, of(3)), Verdict::kDiffer);
}

TEST(DigestComparison, OfTwoNobodyCanTell) {
  DigestComparison comparison;
  EXPECT_EQ(comparison.note_own(LogIndex(8), 5, of(2)), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(8), 6, of(2)), Verdict::kDiffer);
}

TEST(DigestComparison, LearnersAndWhoHasLeftHaveNoSay) {
  Membership membership = of(3);
  ASSERT_TRUE(membership.set({.id = NodeId(4), .role = MemberRole::kLearner}));
  DigestComparison comparison;
  EXPECT_EQ(comparison.note_own(LogIndex(8), 5, membership), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(4), LogIndex(8), 6, membership), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(9), LogIndex(8), 6, membership), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(8), 6, membership), Verdict::kDiffer);
  EXPECT_EQ(comparison.note_peer(NodeId(3), LogIndex(8), 6, membership), Verdict::kOdd);
}

TEST(DigestComparison, OldIndexesAreForgotten) {
  DigestComparison comparison;
  for (uint64_t index = 1; index <= 20; ++index) {
    EXPECT_EQ(comparison.note_own(LogIndex(index), index, of(3)), Verdict::kNone);
  }
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(1), 7, of(3)), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(3), LogIndex(1), 7, of(3)), Verdict::kNone);
  EXPECT_EQ(comparison.note_peer(NodeId(2), LogIndex(20), 7, of(3)), Verdict::kDiffer);
  comparison.clear();
  EXPECT_EQ(comparison.note_peer(NodeId(3), LogIndex(20), 7, of(3)), Verdict::kNone);
}

}  // namespace
}  // namespace conclave::node
