// What an administrator of a simulated cluster does to its membership, and which machines a run must heal so that every
// configuration that may be in force has its quorum. Shared by the suites that change membership.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/membership.h"
#include "base/random.h"
#include "sim/swarm.h"

namespace conclave::sim {

// The machine an id belongs to: ids of one machine differ by multiples of this.
inline constexpr uint64_t kIdStride = 100;
[[nodiscard]] inline size_t machine_of(NodeId id) {
  return static_cast<size_t>((id.value() - 1) % kIdStride);
}

// A change of `current`, by the id each machine has now: one joins, leaves, is promoted, demoted, or takes another's
// place. Nothing if it may not be asked for: in the bounded regime those whose disk may be destroyed stay a minority of
// the voters, with the learners that may be promoted and without them.
[[nodiscard]] std::optional<Membership> draw_membership_change(const Membership& current, std::span<const NodeId> ids,
                                                               const SwarmParameters& parameters, Random& random);

// Machines with a quorum of each of these configurations, of machines that no destroying fault may strike; and others
// at random. A damaged machine counts again only once a quorum took it in.
[[nodiscard]] std::vector<bool> choose_core_of(std::span<const Membership> configurations, std::span<const NodeId> ids,
                                               const SwarmParameters& parameters, Random& random);

}  // namespace conclave::sim
