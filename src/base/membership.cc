#include "base/membership.h"

#include <algorithm>

#include "base/assert.h"

namespace conclave {
namespace {

constexpr uint8_t kFormatVersion = 1;

bool counts_as_voter(MemberRole role) {
  return role == MemberRole::kVoter;
}

}  // namespace

std::string_view to_string(MemberRole role) {
  switch (role) {
    case MemberRole::kNone:
      return "none";
    case MemberRole::kVoter:
      return "voter";
    case MemberRole::kLearner:
      return "learner";
    case MemberRole::kPromotable:
      return "promotable learner";
  }
  return "unknown";
}

Membership Membership::of_voters(std::span<const NodeId> ids) {
  Membership membership;
  for (NodeId id : ids) {
    const bool fits = membership.set({.id = id, .role = MemberRole::kVoter, .incarnation = Incarnation(1)});
    ASSERT(fits);
  }
  return membership;
}

const Member* Membership::find(NodeId id) const {
  for (const Member& member : members()) {
    if (member.id == id) return &member;
  }
  return nullptr;
}

bool Membership::is_voter(NodeId id, Incarnation incarnation) const {
  const Member* member = find(id);
  if (member == nullptr || incarnation.value() == 0) return false;
  return (counts_as_voter(member->role) && member->incarnation == incarnation) ||
         (joint_ && counts_as_voter(member->role_before) && member->incarnation_before == incarnation);
}

Incarnation Membership::incarnation_of(NodeId id) const {
  const Member* member = find(id);
  return member == nullptr ? Incarnation() : std::max(member->incarnation, member->incarnation_before);
}

bool Membership::set(const Member& member) {
  auto* const begin = members_.data();
  auto* const end = begin + size_;
  auto* at = std::lower_bound(begin, end, member, [](const Member& a, const Member& b) { return a.id < b.id; });
  if (at != end && at->id == member.id) {
    *at = member;
    return true;
  }
  if (size_ == kMembersMax) return false;
  std::move_backward(at, end, end + 1);
  *at = member;
  ++size_;
  return true;
}

void Membership::remove(NodeId id) {
  auto* const begin = members_.data();
  auto* const end = begin + size_;
  auto* const kept = std::remove_if(begin, end, [&](const Member& member) { return member.id == id; });
  std::fill(kept, end, Member{});
  size_ = static_cast<uint32_t>(kept - begin);
}

Membership Membership::joint_to(const Membership& target) const {
  ASSERT(!joint_ && !target.joint_);
  Membership joint = target;
  joint.joint_ = true;
  for (const Member& before : members()) {
    const Member* after = target.find(before.id);
    Member member = after != nullptr ? *after : Member{.id = before.id};
    member.role_before = before.role;
    member.incarnation_before = before.incarnation;
    const bool fits = joint.set(member);
    ASSERT(fits);
  }
  return joint;
}

Membership Membership::leave_joint() const {
  Membership target;
  for (Member member : members()) {
    if (member.role == MemberRole::kNone) continue;
    member.role_before = MemberRole::kNone;
    member.incarnation_before = Incarnation();
    target.set(member);
  }
  return target;
}

std::string_view Membership::invalid_reason() const {
  size_t voters = 0;
  size_t voters_before = 0;
  for (size_t i = 0; i < size_; ++i) {
    const Member& member = members_[i];
    if (!member.id.is_set()) return "member without an id";
    if (i > 0 && !(members_[i - 1].id < member.id)) return "members out of order";
    if (!joint_ && (member.role_before != MemberRole::kNone || member.incarnation_before.value() != 0)) {
      return "leftovers of a joint change";
    }
    if (member.role == MemberRole::kNone && member.role_before == MemberRole::kNone) return "member without a role";
    if (member.role == MemberRole::kVoter && member.incarnation.value() == 0) return "voter without an incarnation";
    if (member.role_before == MemberRole::kVoter && member.incarnation_before.value() == 0)
      return "voter without an incarnation";
    voters += member.role == MemberRole::kVoter ? 1 : 0;
    voters_before += member.role_before == MemberRole::kVoter ? 1 : 0;
  }
  if (voters == 0) return "no voter";
  if (joint_ && voters_before == 0) return "no voter before";
  return {};
}

void Membership::encode(std::string& out) const {
  ByteWriter writer(out);
  writer.fixed<uint8_t>(kFormatVersion);
  writer.fixed<uint8_t>(joint_ ? 1 : 0);
  writer.varint(size_);
  for (const Member& member : members()) {
    writer.varint(member.id.value());
    writer.fixed<uint8_t>(static_cast<uint8_t>(member.role));
    writer.varint(member.incarnation.value());
    if (joint_) {
      writer.fixed<uint8_t>(static_cast<uint8_t>(member.role_before));
      writer.varint(member.incarnation_before.value());
    }
  }
}

Result<Membership> Membership::decode(ByteView bytes) {
  ByteReader reader(bytes);
  const auto version = reader.fixed<uint8_t>();
  if (reader.ok() && version != kFormatVersion) return fail(ErrorCode::kVersion, "membership of version {}", version);
  const auto joint = reader.fixed<uint8_t>();
  const uint64_t size = reader.varint();
  if (!reader.ok() || joint > 1 || size > kMembersMax) return fail(ErrorCode::kMalformed, "membership: bad header");
  Membership membership;
  membership.joint_ = joint == 1;
  for (uint64_t i = 0; i < size; ++i) {
    Member member;
    member.id = NodeId(reader.varint());
    const auto role = reader.fixed<uint8_t>();
    member.incarnation = Incarnation(reader.varint());
    uint8_t role_before = 0;
    if (membership.joint_) {
      role_before = reader.fixed<uint8_t>();
      member.incarnation_before = Incarnation(reader.varint());
    }
    if (!reader.ok() || role > 3 || role_before > 3) return fail(ErrorCode::kMalformed, "membership: bad member");
    member.role = static_cast<MemberRole>(role);
    member.role_before = static_cast<MemberRole>(role_before);
    // Appended as they come: the order is checked below, so that each membership has one encoding.
    membership.members_[membership.size_++] = member;
  }
  if (!reader.finished()) return fail(ErrorCode::kMalformed, "membership: bytes left over");
  if (auto reason = membership.invalid_reason(); !reason.empty()) {
    return fail(ErrorCode::kMalformed, "membership: {}", reason);
  }
  return membership;
}

std::string Membership::describe() const {
  std::string before;
  std::string after;
  std::string learners;
  auto add = [](std::string& list, NodeId id, Incarnation incarnation) {
    if (!list.empty()) list += ' ';
    list += fmt::format("{}", id);
    if (incarnation > Incarnation(1)) list += fmt::format("/{}", incarnation);
  };
  for (const Member& member : members()) {
    if (member.role_before == MemberRole::kVoter) add(before, member.id, member.incarnation_before);
    if (member.role == MemberRole::kVoter) add(after, member.id, member.incarnation);
    if (member.role == MemberRole::kLearner || member.role == MemberRole::kPromotable)
      add(learners, member.id, Incarnation());
  }
  std::string text = joint_ ? fmt::format("({})->({})", before, after) : after;
  if (!learners.empty()) text += " learners " + learners;
  return text;
}

bool operator==(const Membership& a, const Membership& b) {
  return a.joint_ == b.joint_ && std::ranges::equal(a.members(), b.members());
}

}  // namespace conclave
