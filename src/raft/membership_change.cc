// Changes of membership: joint consensus (dissertation 4.3), one at a time, not before the leader has committed an
// entry of its term (the fix of 2015 to chapter 4). Voters are (server, incarnation), so promotion of a learner and
// re-admission of a server that lost what it had promised are the same thing: a new voter comes in, the old one, if
// any, goes out.
#include <algorithm>

#include "base/assert.h"
#include "base/mark.h"
#include "raft/raft.h"

namespace conclave::raft {

bool Raft::may_change_membership() const {
  const Configuration& newest = configurations_.back();
  return commit_ >= term_first_ && newest.index <= commit_ && !newest.membership.is_joint();
}

bool Raft::is_caught_up(const Peer& peer) const {
  return peer.flow == Peer::Flow::kReplicate && peer.heard && peer.heard_at + options_.election_timeout > now_ &&
         peer.match >= commit_.prev() && log_.last_index() - peer.match <= options_.entries_per_message_max;
}

void Raft::propose_change(const Membership& wanted) {
  ProposalResult& result = output_->proposal.emplace();
  if (role_ != Role::kLeader) {
    result.refusal = Refusal::kNotLeader;
    return;
  }
  if (transfer_to_.is_set()) {
    result.refusal = Refusal::kTransferring;
    return;
  }
  if (!may_change_membership()) {
    result.refusal = Refusal::kChangePending;
    return;
  }
  const Membership& current = membership();
  if (wanted.is_joint()) {
    result.refusal = Refusal::kBadMembership;
    return;
  }
  Membership target;
  for (Member member : wanted.members()) {
    const Member* known = current.find(member.id);
    member.incarnation = known == nullptr ? Incarnation() : known->incarnation;
    if (member.role == MemberRole::kVoter && (known == nullptr || known->role != MemberRole::kVoter)) {
      // A learner becomes a voter: only with a log that is there, or the change could cost the quorum (4.2.1).
      const Peer* peer = find_peer(member.id);
      if (known == nullptr || peer == nullptr || !is_caught_up(*peer)) {
        result.refusal = Refusal::kNotCaughtUp;
        return;
      }
      member.incarnation = peer->incarnation;
    }
    target.set(member);
  }
  // All that stood before must fit beside all that is to stand.
  size_t united = target.members().size();
  for (const Member& member : current.members()) united += target.contains(member.id) ? 0 : 1;
  if (!target.invalid_reason().empty() || united > kMembersMax) {
    result.refusal = Refusal::kBadMembership;
    return;
  }
  const Membership joint = current.joint_to(target);
  std::string payload;
  joint.encode(payload);
  result.term = vote_.term;
  result.first = append_as_leader(EntryType::kConfiguration, SharedBytes::copy_of(payload));
  broadcast_appends();
}

// Promotes learners that asked for it and re-admits voters whose server is not that voter any more, one per change.
void Raft::admit_caught_up() {
  if (role_ != Role::kLeader || transfer_to_.is_set() || !may_change_membership()) return;
  const Membership& current = membership();
  for (const Member& member : current.members()) {
    if (member.id == options_.self) continue;
    const Peer* peer = find_peer(member.id);
    const bool promotable = member.role == MemberRole::kPromotable;
    const bool lost =
        member.role == MemberRole::kVoter && peer->boot.value() != 0 && peer->incarnation != member.incarnation;
    if ((!promotable && !lost) || !is_caught_up(*peer)) continue;
    if (lost) REACHED(voter_readmitted);
    if (promotable) REACHED(learner_promoted);
    Membership target = current;
    Member voter = member;
    voter.role = MemberRole::kVoter;
    voter.incarnation = peer->incarnation;
    target.set(voter);
    std::string payload;
    current.joint_to(target).encode(payload);
    append_as_leader(EntryType::kConfiguration, SharedBytes::copy_of(payload));
    broadcast_appends();
    return;
  }
}

// A configuration is in force from the moment it is in the log, committed or not (4.1).
void Raft::note_configuration(const Entry& entry) {
  Result<Membership> decoded = Membership::decode(entry.payload.view());
  // Checked when it came in: from a peer by check(), from disk by the log's checksum.
  ASSERT_MSG(decoded.has_value(), "configuration at index {}: {}", entry.index, decoded.error().message);
  auto at = std::ranges::lower_bound(configurations_, entry.index, {}, &Configuration::index);
  if (at != configurations_.end() && at->index == entry.index) {
    at->membership = *decoded;
  } else {
    configurations_.insert(at, {.index = entry.index, .membership = *decoded});
  }
  sync_peers();
}

void Raft::on_configuration_committed() {
  const Configuration& newest = configurations_.back();
  if (newest.index > commit_) return;
  if (role_ != Role::kLeader) {
    sync_peers();
    return;
  }
  if (newest.membership.is_joint()) {
    // A joint change once committed always ends, under whichever leader.
    std::string payload;
    newest.membership.leave_joint().encode(payload);
    append_as_leader(EntryType::kConfiguration, SharedBytes::copy_of(payload));
    broadcast_appends();
    // Who was waited for may be a voter no more, and if the leader is alone now nobody else's answer will tell.
    finish_reads();
    return;
  }
  bool removed_peer = false;
  for (Peer& peer : peers_) {
    if (newest.membership.contains(peer.id)) continue;
    removed_peer = true;
    // The last it hears: that it is out. Lost, it goes on asking for votes that nobody grants (4.2.3).
    if (peer.flow == Peer::Flow::kReplicate) {
      send_appends(peer);
      // Unless it turned out to need a snapshot first.
      if (peer.flow == Peer::Flow::kReplicate) send_append(peer, 0);
    }
  }
  if (removed_peer) sync_peers();
  if (!is_voter()) {
    // The leader led the change that removed it, and goes (4.2.2). Whoever is most up to date takes over at once.
    REACHED(leader_removed_itself);
    for (Peer& peer : peers_) {
      send_appends(peer);
      if (peer.flow == Peer::Flow::kReplicate && peer.commit_sent < commit_) send_append(peer, 0);
    }
    lease_forfeited_ = true;
    if (const Peer* next = best_transferee()) send(next->id, TimeoutNow{});
    become_follower(vote_.term, NodeId());
  }
}

}  // namespace conclave::raft
