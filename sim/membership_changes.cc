#include "sim/membership_changes.h"

#include <algorithm>
#include <numeric>

namespace conclave::sim {
namespace {

bool may_become(const Membership& target, const SwarmParameters& parameters) {
  if (!parameters.bounded) return true;
  for (const bool promoted : {false, true}) {
    size_t voters = 0;
    size_t damageable = 0;
    for (const Member& member : target.members()) {
      if (member.role != MemberRole::kVoter && !(promoted && member.role == MemberRole::kPromotable)) continue;
      ++voters;
      damageable += parameters.damageable[machine_of(member.id)] ? 1 : 0;
    }
    if (voters == 0 || damageable > (voters - 1) / 2) return false;
  }
  return true;
}

}  // namespace

std::optional<Membership> draw_membership_change(const Membership& current, std::span<const NodeId> ids,
                                                 const SwarmParameters& parameters, Random& random) {
  Membership target = current;
  if (target.is_joint()) return std::nullopt;
  const NodeId id = ids[random.below(ids.size())];
  const bool has_promotable = std::ranges::any_of(
      target.members(), [](const Member& member) { return member.role == MemberRole::kPromotable; });
  const Member* known = target.find(id);
  if (known == nullptr) {
    const bool promotable = !has_promotable && random.chance(3, 4);
    target.set({.id = id, .role = promotable ? MemberRole::kPromotable : MemberRole::kLearner});
    // A replacement: one comes, one goes.
    if (promotable && random.chance(1, 4)) {
      const auto members = target.members();
      const NodeId other = members[random.below(members.size())].id;
      if (other != id) target.remove(other);
    }
  } else {
    Member member = *known;
    const uint64_t choice = random.below(4);
    if (choice < 2 && member.role == MemberRole::kVoter) {
      target.remove(id);
    } else if (choice == 0) {
      target.remove(id);
    } else if (member.role == MemberRole::kLearner && !has_promotable) {
      member.role = MemberRole::kPromotable;
      target.set(member);
    } else {
      member.role = MemberRole::kLearner;
      target.set(member);
    }
  }
  if (!may_become(target, parameters)) return std::nullopt;
  return target;
}

std::vector<bool> choose_core_of(std::span<const Membership> configurations, std::span<const NodeId> ids,
                                 const SwarmParameters& parameters, Random& random) {
  std::vector<size_t> order(ids.size());
  std::iota(order.begin(), order.end(), size_t{0});
  random.shuffle(std::span<size_t>(order));
  // Sound machines first.
  std::vector<size_t> damageable;
  std::erase_if(order, [&](size_t node) {
    if (!parameters.damageable[node]) return false;
    damageable.push_back(node);
    return true;
  });
  const size_t sound = order.size();
  order.insert(order.end(), damageable.begin(), damageable.end());
  std::vector<bool> core(ids.size(), false);
  const auto is_quorum = [&](const Membership& membership) {
    for (const bool before : {false, true}) {
      size_t voters = 0;
      size_t inside = 0;
      for (const Member& member : membership.members()) {
        if ((before ? member.role_before : member.role) != MemberRole::kVoter) continue;
        const size_t node = machine_of(member.id);
        ++voters;
        inside += core[node] && ids[node] == member.id && !parameters.damageable[node] ? 1 : 0;
      }
      if (voters > 0 && inside <= voters / 2) return false;
    }
    return true;
  };
  size_t taken = 0;
  while (taken < sound && !std::ranges::all_of(configurations, is_quorum)) core[order[taken++]] = true;
  if (taken == 0) core[order[taken++]] = true;
  for (; taken < order.size(); ++taken) core[order[taken]] = random.coin();
  return core;
}

}  // namespace conclave::sim
