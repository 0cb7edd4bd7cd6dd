// The step: dispatch, durable writes, sending, timers. What messages are refused: check.cc.
#include "raft/raft.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/assert.h"
#include "base/mark.h"

namespace conclave::raft {

Raft::Raft(const Options& options, Recovered&& recovered)
    : options_(options),
      random_(options.seed),
      vote_(recovered.vote),
      snapshot_(recovered.snapshot),
      commit_(std::max(recovered.commit, recovered.snapshot.last.index)),
      certainty_(recovered.certainty),
      start_incarnation_(recovered.vote.incarnation),
      start_term_(recovered.vote.term),
      start_last_(recovered.last) {
  ASSERT(options_.self.is_set());
  ASSERT(options_.group.is_set());
  ASSERT(options_.boot.value() > 0);
  std::vector<Floor> floors = std::move(recovered.floors);
  log_ = Log(std::move(recovered));
  durable_ = log_.last_index();
  commit_ = std::min(commit_, std::max(log_.contiguous_last(), snapshot_.last.index));
  configurations_.push_back({.index = snapshot_.last.index, .membership = snapshot_.membership});
  for (LogIndex at = log_.first_index(); at <= log_.last_index(); ++at) {
    const Entry& entry = log_.entry(at);
    if (entry.type == EntryType::kConfiguration && at > snapshot_.last.index) note_configuration(entry);
  }
  sync_peers();
  for (const Floor& floor : floors) {
    if (Peer* peer = find_peer(floor.node)) note_floor(*peer, floor);
  }
}

void Raft::step(Instant now, const Input& input, Output& output) {
  ASSERT(now >= now_);
  ASSERT(started_ == !std::holds_alternative<Start>(input));
  now_ = now;
  output.clear();
  output_ = &output;
  write_first_ = fill_first_ = fill_last_ = LogIndex();
  const Role role = role_;
  const Term term = vote_.term;
  const NodeId leader = leader_;
  const LogIndex commit = commit_;
  std::visit([this](const auto& in) { on(in); }, input);
  finish();
  output.role_changed = role_ != role || vote_.term != term || leader_ != leader;
  output.commit_changed = commit_ != commit;
  output_ = nullptr;
}

// Slices are taken last: nothing moves the log any more before the next step.
void Raft::finish() {
  if (output_->write) {
    Write& out = *output_->write;
    if (write_first_.value() > 0 && write_first_ <= log_.last_index()) {
      out.entries = log_.slices(write_first_, static_cast<size_t>(log_.last_index() - write_first_) + 1);
    }
    if (fill_first_.value() > 0) {
      out.fills = log_.slices(fill_first_, static_cast<size_t>(fill_last_ - fill_first_) + 1);
    }
    out.commit = commit_;
    pending_.push_back({.sequence = out.sequence, .last = log_.last_index(), .began = now_});
  }
  for (Outgoing& outgoing : output_->messages) {
    if (auto* append = std::get_if<AppendRequest>(&outgoing.message.body)) {
      // Sized when sent; see send_append.
      append->entries = log_.slices(append->prev.index.next(), append->entries.size());
    } else if (auto* pulled = std::get_if<PullReply>(&outgoing.message.body)) {
      pulled->entries = log_.slices(pulled->prev.index.next(), pulled->entries.size());
    }
  }
}

Instant Raft::next_deadline() const {
  Instant deadline = std::min({election_deadline_, hello_deadline_, pull_.retry_at});
  if (role_ == Role::kLeader) {
    deadline = std::min({heartbeat_deadline_, transfer_deadline_, pull_.retry_at});
  }
  for (const ForwardedRead& read : forwarded_reads_) deadline = std::min(deadline, read.deadline);
  return deadline;
}

Status Raft::status() const {
  const bool lost = !has_quorum(membership(), [&](NodeId id, Incarnation incarnation) {
    if (id == options_.self) return vote_.incarnation == incarnation;
    const Peer* peer = find_peer(id);
    // Not heard of: it may be sound.
    return peer->boot.value() == 0 || peer->incarnation == incarnation;
  });
  return {.role = role_,
          .term = vote_.term,
          .leader = leader_,
          .last = log_.last(),
          .commit = commit_,
          .durable = durable_,
          .incarnation = vote_.incarnation,
          .voter = is_voter(),
          .certainty = certainty_,
          .proven = proven_,
          .has_gap = log_.has_gap(),
          .transferring = transfer_to_.is_set(),
          .quorum_lost = !membership().empty() && lost};
}

// ---- Inputs ----

void Raft::on(const Start&) {
  started_ = true;
  if (certainty_ != Certainty::kCertain || vote_.incarnation.value() == 0) {
    take_new_identity(certainty_ == Certainty::kCertain ? Certainty::kEmpty : certainty_);
  }
  // What was promised before the restart is not remembered, only that something was.
  if (vote_.promises) no_vote_until_ = now_ + options_.election_timeout;
  election_deadline_ = now_ + random_.between(Duration::zero(), options_.start_delay_max);
  check_proven();
  send_hellos();
  if (log_.has_gap()) start_repair();
}

void Raft::on(const Tick&) {
  if (!forwarded_reads_.empty()) {
    std::erase_if(forwarded_reads_, [this](const ForwardedRead& read) {
      if (read.deadline > now_) return false;
      output_->reads.push_back({.context = read.context, .refusal = Refusal::kTimedOut});
      return true;
    });
  }
  if (pull_.retry_at <= now_) {
    if (pull_.kind == Pull::Kind::kRepair) {
      start_repair();
    } else {
      // Whom we asked is gone or has nothing for us.
      REACHED(catch_up_abandoned);
      end_pull();
      retry_election_soon();
    }
  }
  if (role_ == Role::kLeader) {
    if (transfer_deadline_ <= now_) {
      // Dissertation 3.10: not done within an election timeout, so the leader goes on.
      REACHED(transfer_abandoned);
      transfer_to_ = NodeId();
      transfer_deadline_ = kNever;
      transfer_sent_ = false;
    }
    if (heartbeat_deadline_ <= now_) {
      const bool reached = has_quorum(membership(), [&](NodeId id, Incarnation incarnation) {
        if (id == options_.self) return true;
        const Peer* peer = find_peer(id);
        return counts_as(*peer, incarnation) && peer->heard_at + options_.election_timeout > now_;
      });
      if (!reached) {
        // Dissertation 6.2: a leader that cannot reach a quorum serves nobody and keeps others from being served.
        REACHED(leader_lost_quorum);
        become_follower(vote_.term, NodeId());
        return;
      }
      heartbeat_deadline_ = now_ + options_.heartbeat_interval;
      hand_over_from_stalled_disk();
      admit_caught_up();
      broadcast_heartbeat();
    }
    return;
  }
  if (hello_deadline_ <= now_) send_hellos();
  if (election_deadline_ <= now_) {
    if (role_ == Role::kPreCandidate && is_stopped_by_log()) {
      start_catch_up();
    } else if (can_campaign()) {
      campaign_pre();
    } else {
      reset_election_deadline();
    }
  }
}

void Raft::on(const Receive& input) {
  const Message& message = input.message;
  if (const Refusal refusal = check(message); refusal != Refusal::kNone) {
    refuse(refusal);
    return;
  }
  const Header& header = message.header;
  note_sender(header);
  std::visit([&](const auto& body) { handle(header, body); }, message.body);
}

void Raft::on(const WriteDone& input) {
  ASSERT_CMP(input.sequence, <=, last_write_);
  while (!pending_.empty() && pending_.front().sequence <= input.sequence) {
    // By the write that carried them, never by (index, term): an acknowledgement of entries since truncated must not
    // make their successors look durable (etcd-io/raft's asynchronous storage writes tell of the case).
    durable_ = pending_.front().last;
    done_write_ = pending_.front().sequence;
    pending_.pop_front();
  }
  if (role_ == Role::kCandidate) tally();
  if (role_ == Role::kLeader) advance_commit();
  if (pull_.kind == Pull::Kind::kAwaitDurable && durable_ >= log_.last_index()) {
    end_pull();
    if (role_ == Role::kFollower && !hears_leader() && can_campaign()) campaign_pre();
  }
}

void Raft::on(const Propose& input) {
  ProposalResult& result = output_->proposal.emplace();
  if (role_ != Role::kLeader) {
    result.refusal = Refusal::kNotLeader;
    return;
  }
  if (transfer_to_.is_set()) {
    result.refusal = Refusal::kTransferring;
    return;
  }
  size_t bytes = 0;
  for (const SharedBytes& command : input.commands) {
    if (command.size() > kEntryBytesMax) {
      result.refusal = Refusal::kTooLarge;
      return;
    }
    bytes += command.size();
  }
  if (uncommitted_bytes_ > 0 && uncommitted_bytes_ + bytes > options_.uncommitted_bytes_max) {
    REACHED(proposal_overload);
    result.refusal = Refusal::kOverloaded;
    return;
  }
  result.term = vote_.term;
  result.first = log_.last_index().next();
  for (const SharedBytes& command : input.commands) append_as_leader(EntryType::kCommand, command);
  if (!input.commands.empty()) broadcast_appends();
}

void Raft::on(const ProposeMembership& input) {
  propose_change(input.target);
}

void Raft::on(const LinkBroken& input) {
  if (Peer* peer = find_peer(input.peer)) {
    peer->link_broken = true;
    if (role_ == Role::kLeader && peer->flow == Peer::Flow::kReplicate) {
      // What was under way is lost: find out from where to go on.
      peer->flow = Peer::Flow::kProbe;
      peer->probe_sent = false;
      peer->next = peer->match.next();
      peer->inflight.clear();
    }
  }
  if (role_ == Role::kLeader || input.peer != leader_ || !leader_.is_set()) return;
  // Most often the leader's process ended. Ask at once; whoever still hears it refuses, so a wrong hint costs one
  // message.
  leader_link_broken_ = true;
  if (can_campaign()) {
    REACHED(campaign_on_broken_link);
    const Instant soon = now_ + random_.between(Duration::zero(), options_.link_broken_delay_max);
    election_deadline_ = std::min(election_deadline_, std::max(soon, promised_until_));
  }
}

void Raft::on(const LinkUp& input) {
  Peer* peer = find_peer(input.peer);
  if (peer == nullptr) return;
  peer->link_broken = false;
  if (role_ == Role::kLeader) {
    peer->probe_sent = false;
    peer->snapshot_waiting = false;
    send_appends(*peer);
  } else if (!proven_ && !peer->hello_answered) {
    send(input.peer, Hello{.last = log_.last()});
  }
}

void Raft::on(const HoleFound& input) {
  log_.mark_hole(input.from, input.to);
  if (!log_.has_gap()) return;
  REACHED(hole_found_at_work);
  // What lies behind the hole is acknowledged no more before it is filled.
  verified_ = std::min(verified_, std::max(log_.contiguous_last(), snapshot_.last.index));
  // A leader serves its log to everybody and may not have holes in it.
  if (role_ != Role::kFollower) become_follower(vote_.term, role_ == Role::kLeader ? NodeId() : leader_);
  start_repair();
}

void Raft::on(const ClockLease& input) {
  clock_lease_ = input.enabled;
}

void Raft::on(const Compact& input) {
  // The driver's own snapshot: of what it applied.
  ASSERT_CMP(input.mark.last.index, <=, commit_);
  ASSERT_CMP(input.keep_from, <=, input.mark.last.index.next());
  if (input.mark.last.index <= snapshot_.last.index) return;
  snapshot_before_ = std::exchange(snapshot_, input.mark);
  LogIndex keep_from = std::max(input.keep_from, log_.first_index());
  if (log_.has_gap() && log_.contiguous_last() < input.mark.last.index) keep_from = input.mark.last.index.next();
  if (keep_from == input.mark.last.index.next()) {
    log_.start_after(input.mark.last);
  } else {
    log_.start_after(log_.position_at(keep_from.prev()));
  }
  // The newest configuration at or before the mark becomes the base.
  while (configurations_.size() > 1 && configurations_[1].index <= snapshot_.last.index) {
    configurations_.erase(configurations_.begin());
  }
  if (configurations_.front().index <= snapshot_.last.index) {
    configurations_.front() = {.index = snapshot_.last.index, .membership = snapshot_.membership};
  }
  Write& out = write();
  out.snapshot = snapshot_;
  out.keep_from = log_.first_index();
}

// ---- Writes ----

Write& Raft::write() {
  if (!output_->write) {
    output_->write.emplace();
    output_->write->sequence = ++last_write_;
  }
  return *output_->write;
}

void Raft::write_vote() {
  write().vote = vote_;
  vote_write_ = last_write_;
}

void Raft::write_log_from(LogIndex first) {
  write();
  write_first_ = write_first_.value() == 0 ? first : std::min(write_first_, first);
}

// What was or will be durable from `index` on is about to be replaced.
void Raft::forget_durable_from(LogIndex index) {
  durable_ = std::min(durable_, index.prev());
  for (size_t i = 0; i < pending_.size(); ++i) pending_[i].last = std::min(pending_[i].last, index.prev());
}

// The newest write that must be durable before the whole log is; zero if it is.
WriteSequence Raft::pending_log_write() const {
  if (output_->write) return last_write_;
  return pending_.empty() ? WriteSequence() : pending_.back().sequence;
}

// ---- Sends ----

void Raft::send(NodeId to, const Body& body, WriteSequence after) {
  // The term and the identity in a header are durable before the header leaves.
  if (vote_write_ > done_write_) after = std::max(after, vote_write_);
  const Peer* peer = find_peer(to);
  output_->messages.push_back({.message = {.header = {.group = options_.group,
                                                      .from = options_.self,
                                                      .to = to,
                                                      .term = vote_.term,
                                                      .boot = options_.boot,
                                                      .to_boot = peer == nullptr ? Boot() : peer->boot,
                                                      .incarnation = vote_.incarnation,
                                                      .proven = proven_},
                                           .body = body},
                               .after = after});
}

// ---- Peers ----

const Membership& Raft::membership_at(LogIndex index) const {
  for (size_t i = configurations_.size(); i-- > 1;) {
    if (configurations_[i].index <= index) return configurations_[i].membership;
  }
  return configurations_.front().membership;
}

Peer* Raft::find_peer(NodeId id) {
  for (Peer& peer : peers_) {
    if (peer.id == id) return &peer;
  }
  return nullptr;
}

const Peer* Raft::find_peer(NodeId id) const {
  return const_cast<Raft*>(this)->find_peer(id);
}

void Raft::sync_peers() {
  // While a change is not committed, whom it removes is still told of it.
  const Configuration& newest = configurations_.back();
  const Membership* leaving = configurations_.size() > 1 && newest.index > commit_
                                  ? &configurations_[configurations_.size() - 2].membership
                                  : nullptr;
  std::erase_if(peers_, [&](const Peer& peer) {
    return !newest.membership.contains(peer.id) && (leaving == nullptr || !leaving->contains(peer.id));
  });
  for (const Member& member : membership().members()) {
    if (member.id == options_.self || find_peer(member.id) != nullptr) continue;
    Peer peer;
    peer.id = member.id;
    peer.floor.node = member.id;
    peer.next = log_.last_index().next();
    peer.heard_at = now_;
    peers_.push_back(std::move(peer));
  }
  std::ranges::sort(peers_, {}, &Peer::id);
  // Another quorum may have answered already; or this server started without knowing whom to ask, and now does.
  if (!started_ || proven_) return;
  check_proven();
  if (!proven_ && hello_deadline_ == kNever && !peers_.empty()) hello_deadline_ = now_;
}

void Raft::note_sender(const Header& header) {
  Peer* peer = find_peer(header.from);
  if (peer == nullptr) return;
  peer->link_broken = false;
  if (header.boot > peer->boot) {
    if (peer->boot.value() != 0) REACHED(peer_rebooted);
    // Another life: nothing the old one acknowledged as this leader's follower is relied on any more, and a link that
    // carried messages of the old one carries no hint about the new one.
    peer->boot = header.boot;
    peer->incarnation = Incarnation();
    peer->proven = false;
    peer->hello_answered = false;
    peer->match = LogIndex();
    peer->flow = Peer::Flow::kProbe;
    peer->probe_sent = false;
    peer->next = log_.last_index().next();
    peer->inflight.clear();
    peer->promised = false;
    peer->snapshot_waiting = false;
    peer->round = ReadId();
    if (header.from == leader_ && role_ == Role::kFollower && header.term == vote_.term) {
      // The leader restarted: a leader of this term it will not be again.
      leader_ = NodeId();
      retry_election_soon();
    }
  }
  // Within one life an identity is only ever replaced by a later one, and once proven stays so: a message that was on
  // its way meanwhile says neither anew.
  if (header.incarnation > peer->incarnation) {
    peer->incarnation = header.incarnation;
    peer->proven = false;
  }
  if (header.incarnation == peer->incarnation) peer->proven = peer->proven || header.proven;
  // The term in a header is durable at its sender, also under an identity it has lost since.
  const Incarnation identity = std::max(header.incarnation, peer->floor.incarnation);
  note_floor(*peer,
             {.node = header.from, .boot = header.boot, .incarnation = identity, .term = header.term, .last = {}});
}

// Keeps the newest of this life and of earlier ones.
void Raft::note_floor(Peer& peer, const Floor& floor) {
  auto raise = [](Floor& known, const Floor& heard) {
    const auto rank = [](const Floor& f) { return std::tuple(f.incarnation, f.term, f.last); };
    if (known.term.value() == 0 || rank(known) < rank(heard)) known = heard;
  };
  if (floor.term.value() == 0) return;
  if (floor.boot > peer.floor.boot) {
    if (peer.floor.term.value() > 0) raise(peer.floor_before, peer.floor);
    peer.floor = floor;
  } else if (floor.boot == peer.floor.boot) {
    raise(peer.floor, floor);
  } else {
    raise(peer.floor_before, floor);
  }
}

std::vector<Floor> Raft::floors() const {
  std::vector<Floor> floors;
  for (const Peer& peer : peers_) {
    if (peer.floor.term.value() > 0) floors.push_back(peer.floor);
    if (peer.floor_before.term.value() > 0) floors.push_back(peer.floor_before);
  }
  return floors;
}

// ---- Names ----

std::string_view to_string(Role role) {
  switch (role) {
    case Role::kFollower:
      return "follower";
    case Role::kPreCandidate:
      return "pre-candidate";
    case Role::kCandidate:
      return "candidate";
    case Role::kLeader:
      return "leader";
  }
  return "unknown";
}

std::string_view to_string(VoteRefusal refusal) {
  switch (refusal) {
    case VoteRefusal::kNone:
      return "none";
    case VoteRefusal::kStaleTerm:
      return "stale term";
    case VoteRefusal::kLeaderAlive:
      return "leader alive";
    case VoteRefusal::kPromised:
      return "promised";
    case VoteRefusal::kAlreadyVoted:
      return "already voted";
    case VoteRefusal::kLogBehind:
      return "log behind";
    case VoteRefusal::kMayNotVote:
      return "may not vote";
  }
  return "unknown";
}

std::string_view to_string(Refusal refusal) {
  switch (refusal) {
    case Refusal::kNone:
      return "none";
    case Refusal::kNotLeader:
      return "not leader";
    case Refusal::kTransferring:
      return "transferring";
    case Refusal::kOverloaded:
      return "overloaded";
    case Refusal::kTooLarge:
      return "too large";
    case Refusal::kChangePending:
      return "change pending";
    case Refusal::kBadMembership:
      return "bad membership";
    case Refusal::kNotCaughtUp:
      return "not caught up";
    case Refusal::kBadTransferee:
      return "bad transferee";
    case Refusal::kLeaderChanged:
      return "leader changed";
    case Refusal::kTimedOut:
      return "timed out";
    case Refusal::kWrongGroup:
      return "wrong group";
    case Refusal::kWrongReceiver:
      return "wrong receiver";
    case Refusal::kFromSelf:
      return "from self";
    case Refusal::kUnknownSender:
      return "unknown sender";
    case Refusal::kStaleBoot:
      return "stale boot";
    case Refusal::kBadNumber:
      return "bad number";
    case Refusal::kBadEntries:
      return "bad entries";
    case Refusal::kBadMembershipEntry:
      return "bad membership entry";
    case Refusal::kSecondLeader:
      return "second leader";
    case Refusal::kConflictsWithCommitted:
      return "conflicts with committed";
    case Refusal::kBeyondLog:
      return "beyond log";
    case Refusal::kUnexpected:
      return "unexpected";
  }
  return "unknown";
}

}  // namespace conclave::raft
