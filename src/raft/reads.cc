// Linearizable reads without log entries: dissertation 6.4. A read is answered from state that includes everything
// acknowledged before it arrived: the leader notes its commit index and proves, by a round of heartbeats begun after
// the read arrived, that it was still the leader then.
#include <algorithm>

#include "base/assert.h"
#include "base/mark.h"
#include "raft/raft.h"

namespace conclave::raft {

void Raft::on(const Read& input) {
  if (role_ == Role::kLeader) {
    if (!input.by_round && now_ < lease_until() && commit_ >= term_first_) {
      REACHED(read_on_clock_lease);
      output_->reads.push_back({.context = input.context, .index = commit_});
      return;
    }
    add_read({.context = input.context});
    return;
  }
  if (!leader_.is_set()) {
    output_->reads.push_back({.context = input.context, .refusal = Refusal::kNotLeader});
    return;
  }
  if (forwarded_reads_.size() >= options_.reads_pending_max) {
    output_->reads.push_back({.context = input.context, .refusal = Refusal::kOverloaded});
    return;
  }
  // A retry is a new read with a new id: an answer meant for the first must not serve the second (fault N1).
  ++last_read_;
  forwarded_reads_.push_back(
      {.context = input.context, .id = last_read_, .deadline = now_ + options_.election_timeout});
  send(leader_, ReadRequest{.id = last_read_});
}

void Raft::add_read(PendingRead read) {
  if (reads_.size() >= options_.reads_pending_max) {
    REACHED(read_overload);
    if (read.peer.is_set()) {
      send(read.peer, ReadReply{.id = ReadId(read.context), .ok = false});
    } else {
      output_->reads.push_back({.context = read.context, .refusal = Refusal::kOverloaded});
    }
    return;
  }
  const bool running = !reads_.empty() && reads_.front().round.value() != 0;
  reads_.push_back(read);
  if (!running) start_read_round();
}

// One round for all that wait.
void Raft::start_read_round() {
  // Before its term's first commit a leader does not know what is committed.
  if (commit_ < term_first_) return;
  broadcast_heartbeat();
  for (size_t i = 0; i < reads_.size(); ++i) {
    if (reads_[i].round.value() != 0) continue;
    reads_[i].round = round_;
    reads_[i].index = commit_;
  }
  finish_reads();
}

void Raft::finish_reads() {
  while (!reads_.empty()) {
    const PendingRead read = reads_.front();
    if (read.round.value() == 0) {
      start_read_round();
      return;
    }
    const bool confirmed = has_quorum(membership(), [&](NodeId id, Incarnation incarnation) {
      if (id == options_.self) return vote_.incarnation == incarnation;
      const Peer* peer = find_peer(id);
      return counts_as(*peer, incarnation) && peer->round >= read.round;
    });
    if (!confirmed) return;
    reads_.pop_front();
    if (read.peer.is_set()) {
      const Peer* peer = find_peer(read.peer);
      if (peer != nullptr && peer->boot == read.boot) {
        send(read.peer, ReadReply{.id = ReadId(read.context), .ok = true, .index = read.index});
      }
    } else {
      output_->reads.push_back({.context = read.context, .index = read.index});
    }
  }
}

void Raft::fail_reads(Refusal refusal) {
  while (!reads_.empty()) {
    const PendingRead& read = reads_.front();
    if (read.peer.is_set()) {
      send(read.peer, ReadReply{.id = ReadId(read.context), .ok = false});
    } else {
      output_->reads.push_back({.context = read.context, .refusal = refusal});
    }
    reads_.pop_front();
  }
}

void Raft::handle(const Header& header, const ReadRequest& request) {
  const Peer* peer = find_peer(header.from);
  if (role_ != Role::kLeader || peer == nullptr) {
    send(header.from, ReadReply{.id = request.id, .ok = false});
    return;
  }
  if (now_ < lease_until() && commit_ >= term_first_) {
    send(header.from, ReadReply{.id = request.id, .ok = true, .index = commit_});
    return;
  }
  add_read({.peer = header.from, .context = request.id.value(), .boot = header.boot});
}

void Raft::handle(const Header&, const ReadReply& reply) {
  auto found = std::ranges::find(forwarded_reads_, reply.id, &ForwardedRead::id);
  ASSERT(found != forwarded_reads_.end());  // check()
  output_->reads.push_back({.context = found->context,
                            .refusal = reply.ok ? Refusal::kNone : Refusal::kLeaderChanged,
                            .index = reply.index});
  forwarded_reads_.erase(found);
}

// Dissertation 6.4.1. A quorum promised, in answer to rounds begun at their promised_from, not to vote for others for
// an election timeout; the promise began later still, at the answer. Both clocks may be off by the bound, in opposite
// directions.
Instant Raft::lease_until() const {
  if (role_ != Role::kLeader || !clock_lease_ || lease_forfeited_) return Instant::min();
  auto held_at = [&](Instant from) {
    return has_quorum(membership(), [&](NodeId id, Incarnation incarnation) {
      if (id == options_.self) return vote_.incarnation == incarnation;
      const Peer* peer = find_peer(id);
      return counts_as(*peer, incarnation) && peer->promised && peer->promised_from >= from;
    });
  };
  Instant from = Instant::min();
  if (held_at(now_)) from = now_;  // alone
  for (const Peer& peer : peers_) {
    if (peer.promised && peer.promised_from > from && held_at(peer.promised_from)) from = peer.promised_from;
  }
  if (from == Instant::min()) return from;
  const int64_t timeout = options_.election_timeout.count();
  return from + Duration(timeout - timeout / 1'000'000 * 2 * options_.clock_drift_ppm_max);
}

}  // namespace conclave::raft
