// Who takes part in one group, and under which identity. A voter is (server, incarnation): a server that lost what it
// had promised comes back as another voter, by a joint change, and its old identity never acts again. So re-admission
// needs no rule of its own beyond joint consensus (dissertation 4.3).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/types.h"

namespace conclave {

enum class MemberRole : uint8_t {
  kNone = 0,        // not a member of this configuration
  kVoter = 1,       // counts in every quorum
  kLearner = 2,     // receives the log, counts nowhere
  kPromotable = 3,  // a learner whose add asked that it become a voter once caught up
};
[[nodiscard]] std::string_view to_string(MemberRole role);

struct Member {
  NodeId id;
  MemberRole role = MemberRole::kNone;  // in the newest configuration
  Incarnation incarnation;
  // In the configuration being left, while the change is joint; otherwise none and zero.
  MemberRole role_before = MemberRole::kNone;
  Incarnation incarnation_before;
  friend bool operator==(const Member&, const Member&) = default;
};

// One configuration, or two while a joint change is under way. A value without heap: at most kMembersMax members,
// sorted by id. Made valid by decode() and by the functions here; an invalid one never reaches raft.
class Membership {
 public:
  Membership() = default;
  // Of these voters, each at incarnation 1: how a cluster begins.
  static Membership of_voters(std::span<const NodeId> ids);

  [[nodiscard]] std::span<const Member> members() const { return {members_.data(), size_}; }
  [[nodiscard]] bool is_joint() const { return joint_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] const Member* find(NodeId id) const;
  [[nodiscard]] bool contains(NodeId id) const { return find(id) != nullptr; }
  // A voter in either configuration, under this incarnation.
  [[nodiscard]] bool is_voter(NodeId id, Incarnation incarnation) const;
  // The highest incarnation the server has in either configuration; zero if it is no member.
  [[nodiscard]] Incarnation incarnation_of(NodeId id) const;

  // Adds or replaces by id, keeping the order. False if full.
  bool set(const Member& member);
  void remove(NodeId id);
  void set_joint(bool joint) { joint_ = joint; }

  // The joint configuration that leads from this one (which must not be joint) to `target` (not joint either).
  [[nodiscard]] Membership joint_to(const Membership& target) const;
  // The configuration a joint one leads to: what stands before is dropped, members without a role too.
  [[nodiscard]] Membership leave_joint() const;

  // Why this cannot be a configuration, or empty: no voter in one of the two, a voter without incarnation, leftovers of
  // a joint change outside one.
  [[nodiscard]] std::string_view invalid_reason() const;

  // Version 1 of the format, documented in docs/internals/formats/membership.md.
  void encode(std::string& out) const;
  [[nodiscard]] static Result<Membership> decode(ByteView bytes);

  // "1 2 3", "(1 2 3)->(1 2 4) learners 5"; for traces and logs.
  [[nodiscard]] std::string describe() const;

  friend bool operator==(const Membership& a, const Membership& b);

 private:
  std::array<Member, kMembersMax> members_{};
  uint32_t size_ = 0;
  bool joint_ = false;
};

}  // namespace conclave
