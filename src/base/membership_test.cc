#include "base/membership.h"

#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace conclave {
namespace {

Membership three() {
  const std::vector<NodeId> ids{NodeId(1), NodeId(2), NodeId(3)};
  return Membership::of_voters(ids);
}

TEST(Membership, JointChangeKeepsBothSides) {
  Membership target = three();
  target.remove(NodeId(3));
  target.set({.id = NodeId(4), .role = MemberRole::kVoter, .incarnation = Incarnation(1)});
  const Membership joint = three().joint_to(target);
  EXPECT_EQ(joint.invalid_reason(), "");
  EXPECT_EQ(joint.describe(), "(1 2 3)->(1 2 4)");
  EXPECT_TRUE(joint.is_voter(NodeId(3), Incarnation(1)));
  EXPECT_TRUE(joint.is_voter(NodeId(4), Incarnation(1)));
  EXPECT_EQ(joint.leave_joint(), target);
}

TEST(Membership, ReadmissionIsAChangeOfVoter) {
  Membership target = three();
  target.set({.id = NodeId(3), .role = MemberRole::kVoter, .incarnation = Incarnation(2)});
  const Membership joint = three().joint_to(target);
  EXPECT_EQ(joint.describe(), "(1 2 3)->(1 2 3/2)");
  EXPECT_TRUE(joint.is_voter(NodeId(3), Incarnation(1)));
  EXPECT_TRUE(joint.is_voter(NodeId(3), Incarnation(2)));
  EXPECT_FALSE(joint.leave_joint().is_voter(NodeId(3), Incarnation(1)));
  EXPECT_FALSE(joint.is_voter(NodeId(3), Incarnation(0)));
  EXPECT_EQ(joint.incarnation_of(NodeId(3)), Incarnation(2));
}

TEST(Membership, EncodingRoundTrips) {
  Membership target = three();
  target.set({.id = NodeId(9), .role = MemberRole::kPromotable});
  for (const Membership& membership : {three(), target, three().joint_to(target)}) {
    std::string bytes;
    membership.encode(bytes);
    auto decoded = Membership::decode(bytes);
    ASSERT_TRUE(decoded) << decoded.error().message;
    EXPECT_EQ(*decoded, membership);
    for (size_t cut = 0; cut < bytes.size(); ++cut) EXPECT_FALSE(Membership::decode(ByteView(bytes).substr(0, cut)));
    EXPECT_FALSE(Membership::decode(bytes + "x"));
  }
}

// Whatever is accepted is a valid configuration and encodes to the very bytes it came from.
TEST(Membership, RandomBytesNeverMakeAnInvalidOne) {
  Random random(7);
  std::string good;
  three().joint_to(three()).encode(good);
  size_t accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = good;
    for (uint64_t i = random.below(3); i-- > 0;) bytes[random.below(bytes.size())] = static_cast<char>(random.below(6));
    auto decoded = Membership::decode(bytes);
    if (!decoded) continue;
    ++accepted;
    EXPECT_EQ(decoded->invalid_reason(), "");
    std::string again;
    decoded->encode(again);
    EXPECT_EQ(again, bytes);
  }
  EXPECT_GT(accepted, 0U);
}

TEST(Membership, HoldsItsLimit) {
  Membership membership;
  for (uint64_t i = 1; i <= kMembersMax; ++i)
    EXPECT_TRUE(membership.set({.id = NodeId(i), .role = MemberRole::kLearner}));
  EXPECT_FALSE(membership.set({.id = NodeId(99), .role = MemberRole::kLearner}));
  EXPECT_TRUE(membership.set({.id = NodeId(1), .role = MemberRole::kVoter, .incarnation = Incarnation(1)}));
  EXPECT_EQ(membership.invalid_reason(), "");
}

}  // namespace
}  // namespace conclave
