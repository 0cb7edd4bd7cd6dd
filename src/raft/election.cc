// Elections: dissertation 3.4, 4.2.3, 6.2, 9.6, 10; handing over: 3.10.
#include <algorithm>

#include "base/assert.h"
#include "base/mark.h"
#include "raft/raft.h"

namespace conclave::raft {

void Raft::reset_election_deadline() {
  election_deadline_ =
      now_ + options_.election_timeout + random_.between(Duration::zero(), options_.election_timeout - Duration(1));
}

// After an election that nobody can win any more, or when more was learned about who can: not a whole timeout later. A
// quarter spreads two candidates who just collided.
void Raft::retry_election_soon() {
  election_deadline_ = now_ + random_.between(Duration::zero(), options_.election_timeout / 4);
}

// The leader spoke within an election timeout, and nothing says that it ended.
bool Raft::hears_leader() const {
  if (role_ == Role::kLeader) return true;
  return leader_.is_set() && !leader_link_broken_ && now_ < heard_leader_at_ + options_.election_timeout;
}

bool Raft::can_campaign() const {
  return role_ != Role::kLeader && proven_ && is_voter() && !log_.has_gap() && now_ >= no_vote_until_ &&
         now_ >= promised_until_ && pull_.kind != Pull::Kind::kCatchUp && pull_.kind != Pull::Kind::kAwaitDurable;
}

// To a follower of `leader` (zero: none known) in `term`, which is not before the current one.
void Raft::become_follower(Term term, NodeId leader) {
  ASSERT_CMP(term, >=, vote_.term);
  const bool new_term = term > vote_.term;
  if (role_ == Role::kLeader) leave_leadership();
  if (new_term) {
    vote_.term = term;
    vote_.candidate = NodeId();
    write_vote();
  }
  if (new_term || leader_ != leader) {
    verified_ = LogIndex();
    round_answered_ = ReadId();
    leader_link_broken_ = false;
    for (const ForwardedRead& read : forwarded_reads_) {
      output_->reads.push_back({.context = read.context, .refusal = Refusal::kLeaderChanged});
    }
    forwarded_reads_.clear();
  }
  if (role_ != Role::kFollower || new_term || leader_ != leader) reset_election_deadline();
  role_ = Role::kFollower;
  leader_ = leader;
  campaign_term_ = Term();
}

void Raft::leave_leadership() {
  fail_reads(Refusal::kLeaderChanged);
  transfer_to_ = NodeId();
  transfer_deadline_ = kNever;
  transfer_sent_ = false;
  heartbeat_deadline_ = kNever;
}

void Raft::campaign_pre() {
  ASSERT(can_campaign());
  role_ = Role::kPreCandidate;
  leader_ = NodeId();
  leader_link_broken_ = false;
  campaign_term_ = vote_.term.next();
  campaign_transfer_ = false;
  for (Peer& peer : peers_) peer.campaign = Peer::Campaign::kSilent;
  for (const ForwardedRead& read : forwarded_reads_) {
    output_->reads.push_back({.context = read.context, .refusal = Refusal::kLeaderChanged});
  }
  forwarded_reads_.clear();
  reset_election_deadline();
  pull_.target = {};
  pull_.peer = NodeId();
  for (const Peer& peer : peers_) {
    send(peer.id, VoteRequest{.pre = true, .campaign_term = campaign_term_, .last = log_.last()});
  }
  tally();
}

void Raft::campaign(bool transfer) {
  role_ = Role::kCandidate;
  leader_ = NodeId();
  campaign_transfer_ = transfer;
  vote_.term = vote_.term.next();
  vote_.candidate = options_.self;
  campaign_term_ = vote_.term;
  verified_ = LogIndex();
  round_answered_ = ReadId();
  write_vote();
  for (Peer& peer : peers_) peer.campaign = Peer::Campaign::kSilent;
  reset_election_deadline();
  for (const Peer& peer : peers_) {
    send(peer.id,
         VoteRequest{.pre = false, .transfer = transfer, .campaign_term = campaign_term_, .last = log_.last()});
  }
  tally();
}

// A quorum of those whose answer counts(peer) accepts, this server among them.
template <class Counts>
bool Raft::has_campaign_quorum(Counts&& counts) const {
  return has_quorum(membership(), [&](NodeId id, Incarnation incarnation) {
    if (id == options_.self) return vote_.incarnation == incarnation;
    const Peer* peer = find_peer(id);
    return counts_as(*peer, incarnation) && counts(*peer);
  });
}

// A quorum answered, and would have granted but for the log.
bool Raft::is_stopped_by_log() const {
  return pull_.peer.is_set() && has_campaign_quorum([](const Peer& peer) {
           return peer.campaign == Peer::Campaign::kGranted || peer.campaign == Peer::Campaign::kBehind;
         });
}

void Raft::tally() {
  const bool pre = role_ == Role::kPreCandidate;
  if (!pre && role_ != Role::kCandidate) return;
  if (has_campaign_quorum([](const Peer& peer) { return peer.campaign == Peer::Campaign::kGranted; })) {
    if (pre) {
      campaign(false);
    } else if (done_write_ >= vote_write_) {
      // A candidate's vote for itself is a vote: it counts once durable (dissertation 3.4, 11.7.3).
      become_leader();
    }
    return;
  }
  const bool possible = has_campaign_quorum([](const Peer& peer) {
    return peer.campaign == Peer::Campaign::kGranted || (peer.campaign == Peer::Campaign::kSilent && !peer.link_broken);
  });
  if (pre) {
    if (!is_stopped_by_log()) return;
    // Take from a neighbour what is missing; but first wait for those who may yet grant: a log that is ahead may be one
    // that nobody can have (holes), and its server's vote not needed.
    if (possible) {
      election_deadline_ = std::min(election_deadline_, now_ + 2 * options_.heartbeat_interval);
    } else {
      start_catch_up();
    }
    return;
  }
  if (!possible) {
    // Split, or refused: all have answered who can.
    REACHED(election_split);
    role_ = Role::kFollower;
    retry_election_soon();
  }
}

void Raft::become_leader() {
  ASSERT(role_ == Role::kCandidate);
  ASSERT(is_voter());
  ASSERT(!log_.has_gap());
  role_ = Role::kLeader;
  leader_ = options_.self;
  election_deadline_ = kNever;
  end_pull();
  for (Peer& peer : peers_) {
    peer.flow = Peer::Flow::kProbe;
    peer.probe_sent = false;
    peer.match = LogIndex();
    peer.next = log_.last_index().next();
    peer.inflight.clear();
    peer.window = 0;
    peer.heard_at = now_;
    peer.heard = false;
    peer.round = ReadId();
    peer.promised = false;
    peer.commit_sent = LogIndex();
    peer.snapshot_waiting = false;
  }
  heartbeat_deadline_ = now_ + options_.heartbeat_interval;
  round_ = ReadId();
  transfer_to_ = NodeId();
  transfer_deadline_ = kNever;
  transfer_sent_ = false;
  lease_forfeited_ = false;
  handover_not_before_ = campaign_transfer_ ? now_ + options_.disk_handover_interval : now_;
  uncommitted_bytes_ = 0;
  // The first entry of the term: only with it may what earlier terms left be counted as committed (dissertation 3.6.2).
  term_first_ = append_as_leader(EntryType::kNoop, {});
  broadcast_heartbeat();
}

void Raft::handle(const Header& header, const VoteRequest& request) {
  auto refuse_with = [&](VoteRefusal refusal) {
    send(header.from, VoteReply{.pre = request.pre,
                                .campaign_term = request.campaign_term,
                                .granted = false,
                                .refusal = refusal,
                                .last = log_.last()});
  };
  if (request.campaign_term < vote_.term || (request.pre && request.campaign_term == vote_.term)) {
    refuse_with(VoteRefusal::kStaleTerm);
    return;
  }
  // The old leader of the term before gave up its lease and asked for this (dissertation 3.10, 6.4.1).
  const bool by_leave = request.transfer && request.campaign_term == vote_.term.next();
  if (hears_leader() && !by_leave && request.campaign_term > vote_.term) {
    // Dissertation 4.2.3: a server that hears its leader is not drawn into a later term.
    refuse_with(VoteRefusal::kLeaderAlive);
    return;
  }
  if (now_ < no_vote_until_ || (now_ < promised_until_ && !(by_leave && promised_term_ == vote_.term))) {
    // A promise holds whatever a broken link may hint at.
    REACHED(vote_refused_by_promise);
    refuse_with(VoteRefusal::kPromised);
    return;
  }
  if (!request.pre && request.campaign_term > vote_.term) become_follower(request.campaign_term, NodeId());
  if (!proven_) {
    refuse_with(VoteRefusal::kMayNotVote);
    return;
  }
  if (!request.pre && vote_.candidate.is_set() && vote_.candidate != header.from) {
    refuse_with(VoteRefusal::kAlreadyVoted);
    return;
  }
  if (request.last < log_.last()) {
    refuse_with(VoteRefusal::kLogBehind);
    return;
  }
  if (!request.pre) {
    if (leader_.is_set()) {
      // The term has its leader: it was elected with this server's vote or without; there is nothing left to grant.
      refuse_with(VoteRefusal::kLeaderAlive);
      return;
    }
    if (vote_.candidate != header.from) {
      vote_.candidate = header.from;
      write_vote();
    }
    reset_election_deadline();
    if (role_ != Role::kFollower) become_follower(vote_.term, NodeId());
  }
  send(header.from,
       VoteReply{.pre = request.pre, .campaign_term = request.campaign_term, .granted = true, .last = log_.last()});
}

void Raft::handle(const Header& header, const VoteReply& reply) {
  if (header.term > vote_.term) {
    // Asked in too old a term: the next question will be in this one.
    become_follower(header.term, NodeId());
    retry_election_soon();
    return;
  }
  const bool mine = (role_ == Role::kPreCandidate && reply.pre) || (role_ == Role::kCandidate && !reply.pre);
  if (!mine || reply.campaign_term != campaign_term_) return;  // late: that campaign is over
  Peer* peer = find_peer(header.from);
  if (peer == nullptr) return;
  if (reply.granted) {
    peer->campaign = Peer::Campaign::kGranted;
  } else if (reply.refusal == VoteRefusal::kLogBehind && log_.last() < reply.last) {
    peer->campaign = Peer::Campaign::kBehind;
    // Of several neighbours ahead, the one furthest ahead is asked: its log satisfies the others too.
    if (pull_.target < reply.last) {
      pull_.target = reply.last;
      pull_.peer = header.from;
    }
  } else {
    peer->campaign = Peer::Campaign::kRefused;
  }
  tally();
}

void Raft::handle(const Header& header, const TimeoutNow&) {
  become_follower(header.term, header.from);
  if (!proven_ || !is_voter() || log_.has_gap()) {
    REACHED(handover_not_taken);
    return;
  }
  // The leader gave up its lease before it asked, so what was promised to it does not bind.
  end_pull();
  campaign(true);
}

// ---- Handing over ----

void Raft::on(const Transfer& input) {
  if (role_ != Role::kLeader) {
    refuse(Refusal::kNotLeader);
    return;
  }
  const Peer* target = input.to.is_set() ? find_peer(input.to) : best_transferee();
  if (target == nullptr || !(target->proven && membership().is_voter(target->id, target->incarnation)) ||
      target->heard_at + options_.election_timeout <= now_ || !target->heard) {
    refuse(Refusal::kBadTransferee);
    return;
  }
  transfer_to_ = target->id;
  transfer_deadline_ = now_ + options_.election_timeout;
  transfer_sent_ = false;
  hand_over_if_caught_up();
}

const Peer* Raft::best_transferee() const {
  const Peer* best = nullptr;
  for (const Peer& peer : peers_) {
    if (!peer.proven || !membership().is_voter(peer.id, peer.incarnation) || !peer.heard) continue;
    if (peer.heard_at + options_.election_timeout <= now_) continue;
    if (best == nullptr || peer.match > best->match) best = &peer;
  }
  return best;
}

void Raft::hand_over_if_caught_up() {
  if (!transfer_to_.is_set() || transfer_sent_) return;
  const Peer* target = find_peer(transfer_to_);
  if (target == nullptr) {
    transfer_to_ = NodeId();
    transfer_deadline_ = kNever;
    return;
  }
  if (target->match != log_.last_index()) return;
  // From here on the other may be leader at any time, now or much later: never a read on this clock again.
  lease_forfeited_ = true;
  transfer_sent_ = true;
  send(target->id, TimeoutNow{});
}

// A leader whose own disk hangs, while those of a quorum do not, is the wrong leader (fault D11).
void Raft::hand_over_from_stalled_disk() {
  if (pending_.empty() || transfer_to_.is_set() || now_ < handover_not_before_) return;
  const Pending& oldest = pending_.front();
  if (oldest.last < term_first_ || oldest.began + options_.disk_stall_min > now_) return;
  const bool others = has_quorum(membership(), [&](NodeId id, Incarnation incarnation) {
    if (id == options_.self) return false;
    const Peer* peer = find_peer(id);
    return counts_as(*peer, incarnation) && peer->match >= oldest.last;
  });
  if (!others) return;
  const Peer* target = best_transferee();
  if (target == nullptr) return;
  REACHED(handover_from_stalled_disk);
  handover_not_before_ = now_ + options_.disk_handover_interval;
  transfer_to_ = target->id;
  transfer_deadline_ = now_ + options_.election_timeout;
  transfer_sent_ = false;
  hand_over_if_caught_up();
}

}  // namespace conclave::raft
