// Replication and commitment: dissertation 3.5, 3.6, 10.2; the leader writes to its own disk in parallel (10.2.1).
#include <algorithm>
#include <array>

#include "base/assert.h"
#include "base/mark.h"
#include "raft/raft.h"

namespace conclave::raft {

// ---- Leader ----

LogIndex Raft::append_as_leader(EntryType type, SharedBytes payload) {
  ASSERT(role_ == Role::kLeader);
  const LogIndex index = log_.last_index().next();
  uncommitted_bytes_ += payload.size();
  log_.append({.index = index, .term = vote_.term, .type = type, .payload = std::move(payload)});
  write_log_from(index);
  if (type == EntryType::kConfiguration) note_configuration(log_.entry(index));
  return index;
}

Floors Raft::make_floors() const {
  Floors floors;
  for (const Peer& peer : peers_) {
    if (peer.floor.term.value() > 0 && floors.size < kMembersMax) floors.items[floors.size++] = peer.floor;
  }
  if (floors.size < kMembersMax) {
    floors.items[floors.size++] = {.node = options_.self,
                                   .boot = options_.boot,
                                   .incarnation = vote_.incarnation,
                                   .term = vote_.term,
                                   .last = durable_ >= log_.start().index ? log_.position_at(durable_) : Position()};
  }
  return floors;
}

// One message with `count` entries from peer.next on.
void Raft::send_append(Peer& peer, size_t count) {
  AppendRequest request{
      .prev = log_.position_at(peer.next.prev()),
      .commit = commit_,
      .round = round_,
      .promise = clock_lease_ && !lease_forfeited_ ? options_.election_timeout : Duration::zero(),
      // The size is what counts here: finish() takes the slices, when the log moves no more.
      .entries = log_.slices(peer.next, count),
  };
  // Floors ride on the commit index.
  if (peer.commit_sent < commit_ || count == 0) request.floors = make_floors();
  peer.commit_sent = commit_;
  send(peer.id, request);
}

size_t Raft::window_of(const Peer& peer) const {
  return peer.window == 0 ? options_.inflight_messages_max : peer.window;
}

// By one message for each window that arrived.
void Raft::widen(Peer& peer) const {
  if (peer.window == 0 || peer.acknowledged < peer.window) return;
  peer.acknowledged = 0;
  if (++peer.window >= options_.inflight_messages_max) peer.window = 0;
}

// All that the peer's window allows.
void Raft::send_appends(Peer& peer) {
  if (peer.flow != Peer::Flow::kSnapshot && peer.next <= log_.start().index) {
    REACHED(peer_needs_snapshot);
    peer.flow = Peer::Flow::kSnapshot;
    peer.snapshot = SnapshotMark();
    peer.snapshot_waiting = false;
  }
  switch (peer.flow) {
    case Peer::Flow::kSnapshot:
      send_chunk(peer);
      break;
    case Peer::Flow::kProbe: {
      if (peer.probe_sent) return;
      peer.probe_sent = true;
      send_append(peer, log_.count_within(peer.next, options_.entries_per_message_max, options_.bytes_per_message_max));
      break;
    }
    case Peer::Flow::kReplicate:
      while (peer.next <= log_.last_index() && peer.inflight.size() < window_of(peer)) {
        const size_t count =
            log_.count_within(peer.next, options_.entries_per_message_max, options_.bytes_per_message_max);
        send_append(peer, count);
        peer.next = peer.next + count;
        peer.inflight.push_back(peer.next.prev());
      }
      break;
  }
}

void Raft::broadcast_appends() {
  for (Peer& peer : peers_) send_appends(peer);
}

// To everybody, entries or not: says that the leader lives and begins a round that proves it. Each has a fresh id: an
// answer to an earlier one proves nothing about now (fault N1).
void Raft::broadcast_heartbeat() {
  ++round_;
  round_began_[round_.value() % round_began_.size()] = now_;
  for (Peer& peer : peers_) {
    const size_t before = output_->messages.size();
    if (peer.flow == Peer::Flow::kProbe) peer.probe_sent = false;
    if (peer.flow == Peer::Flow::kSnapshot) {
      if (peer.snapshot_sent_at + options_.election_timeout <= now_) peer.snapshot_waiting = false;
      send_chunk(peer);
      // The heartbeat itself: from the only place the log still knows.
      const LogIndex next = peer.next;
      peer.next = log_.first_index();
      send_append(peer, 0);
      peer.next = next;
      continue;
    }
    send_appends(peer);
    if (output_->messages.size() == before && peer.flow == Peer::Flow::kReplicate) send_append(peer, 0);
    if (output_->messages.size() == before && peer.flow == Peer::Flow::kSnapshot) send_chunk(peer);
  }
}

void Raft::advance_commit() {
  ASSERT(role_ == Role::kLeader);
  // The highest index that a majority of each configuration has durable. This server's own disk is one vote among them,
  // not a precondition.
  const Membership& members = membership();
  auto majority_of = [&](bool before) {
    std::array<LogIndex, kMembersMax> matches{};
    size_t voters = 0;
    for (const Member& member : members.members()) {
      const MemberRole role = before ? member.role_before : member.role;
      if (role != MemberRole::kVoter) continue;
      const Incarnation incarnation = before ? member.incarnation_before : member.incarnation;
      if (member.id == options_.self) {
        matches[voters++] = incarnation == vote_.incarnation ? durable_ : LogIndex();
      } else {
        const Peer* peer = find_peer(member.id);
        matches[voters++] = counts_as(*peer, incarnation) ? peer->match : LogIndex();
      }
    }
    if (voters == 0) return LogIndex();
    std::sort(matches.begin(), matches.begin() + static_cast<ptrdiff_t>(voters), std::greater<>());
    return matches[voters / 2];
  };
  LogIndex index = majority_of(false);
  if (members.is_joint()) index = std::min(index, majority_of(true));
  // Only entries of this term are committed by counting; what lies before them is committed with them (3.6.2).
  if (index <= commit_ || log_.term_at(index) != vote_.term) return;
  set_commit(index);
  on_configuration_committed();
  if (role_ != Role::kLeader) return;
  for (Peer& peer : peers_) {
    send_appends(peer);
    // Followers apply and answer their own clients: they are told at once, not with the next entry.
    if (peer.flow == Peer::Flow::kReplicate && peer.commit_sent < commit_) send_append(peer, 0);
  }
  // Reads that came before this term had committed anything begin their round now (dissertation 6.4, step 1).
  if (!reads_.empty() && reads_.front().round.value() == 0) start_read_round();
  hand_over_if_caught_up();
}

void Raft::set_commit(LogIndex index) {
  ASSERT_CMP(index, >, commit_);
  ASSERT_CMP(index, <=, log_.contiguous_last());
  if (role_ == Role::kLeader) {
    for (LogIndex at = std::max(commit_.next(), term_first_); at <= index; ++at) {
      uncommitted_bytes_ -= log_.entry(at).payload.size();
    }
  }
  commit_ = index;
}

void Raft::handle(const Header& header, const AppendReply& reply) {
  if (header.term > vote_.term) {
    become_follower(header.term, NodeId());
    return;
  }
  if (header.term < vote_.term || role_ != Role::kLeader) return;  // late
  Peer* peer = find_peer(header.from);
  peer->heard_at = now_;
  peer->heard = true;
  if (reply.round > peer->round) peer->round = reply.round;
  if (reply.promised && round_ - reply.round < round_began_.size()) {
    const Instant began = round_began_[reply.round.value() % round_began_.size()];
    if (!peer->promised || began > peer->promised_from) peer->promised_from = began;
    peer->promised = true;
  }
  if (reply.ok) {
    if (reply.match > peer->match) {
      peer->match = reply.match;
      // Below the log's start the term is not known, and nothing is claimed.
      const Position last = reply.match >= log_.start().index ? log_.position_at(reply.match) : Position();
      note_floor(
          *peer,
          {.node = peer->id, .boot = peer->boot, .incarnation = peer->incarnation, .term = vote_.term, .last = last});
    }
    if (peer->flow != Peer::Flow::kReplicate &&
        (peer->flow != Peer::Flow::kSnapshot || peer->match >= log_.start().index)) {
      peer->flow = Peer::Flow::kReplicate;
      peer->inflight.clear();
      peer->next = std::max(peer->next, log_.first_index());
    }
    peer->next = std::max(peer->next, peer->match.next());
    while (!peer->inflight.empty() && peer->inflight.front() <= peer->match) {
      peer->inflight.pop_front();
      ++peer->acknowledged;
    }
    widen(*peer);
    // Both may find this server leader no more.
    advance_commit();
    if (role_ != Role::kLeader) return;
    finish_reads();
    if (peer = find_peer(header.from); peer == nullptr) return;
    send_appends(*peer);
    if (peer->flow == Peer::Flow::kReplicate && peer->commit_sent < commit_) send_append(*peer, 0);
    hand_over_if_caught_up();
    admit_caught_up();
    return;
  }
  finish_reads();
  if (peer->flow == Peer::Flow::kSnapshot) return;
  if (peer->flow == Peer::Flow::kReplicate) {
    // Refused at or below what it acknowledged: an old answer, overtaken.
    if (reply.rejected <= peer->match) return;
    // Something on the way was lost. A queue that cannot hold all that is sent ahead loses some of it each time, and
    // each loss costs the peer a round or two of heartbeats; so less is sent ahead, and more again as it arrives.
    REACHED(window_narrowed);
    peer->window = std::max<size_t>(window_of(*peer) / 2, 1);
    peer->acknowledged = 0;
    peer->flow = Peer::Flow::kProbe;
    peer->inflight.clear();
  } else if (reply.rejected != peer->next.prev()) {
    return;  // of an earlier probe
  }
  // The logs may agree at the hint or before; never go behind what is known to match.
  const Position agree = log_.last_at_or_before(std::min(reply.hint.index, log_.last_index()), reply.hint.term);
  LogIndex next = std::max(agree.index.next(), peer->match.next());
  if (reply.hint.index < log_.start().index) next = std::max(reply.hint.index.next(), peer->match.next());
  peer->next = std::min(next, std::max(peer->next.prev(), peer->match.next()));
  peer->probe_sent = false;
  send_appends(*peer);
}

// ---- Follower ----

void Raft::handle(const Header& header, const AppendRequest& request) {
  if (header.term < vote_.term) {
    // Tells a leader of an earlier term that its time is over.
    send(header.from, AppendReply{.ok = false, .round = request.round, .rejected = request.prev.index, .hint = {}});
    return;
  }
  const bool new_leader = header.term > vote_.term || leader_ != header.from || role_ != Role::kFollower;
  if (new_leader) {
    become_follower(header.term, header.from);
    // A leader is what catching up was for; what was taken so far stays and is checked like anything else.
    if (pull_.kind == Pull::Kind::kCatchUp || pull_.kind == Pull::Kind::kAwaitDurable) end_pull();
  }
  heard_leader_at_ = now_;
  leader_link_broken_ = false;
  reset_election_deadline();
  learn_floors(request.floors);

  AppendReply reply{.round = request.round};
  if (request.promise > Duration::zero() && request.promise <= options_.election_timeout) {
    if (!vote_.promises) {
      // Durable first: after a restart it is remembered that something was promised. send() sees to the order.
      vote_.promises = true;
      write_vote();
    }
    promised_until_ = std::max(promised_until_, now_ + request.promise);
    promised_term_ = vote_.term;
    reply.promised = true;
  }

  // What is committed and no longer comparable here, a leader of this term has too (leader completeness).
  if (!log_.matches(request.prev) && request.prev.index >= log_.start().index) {
    reply.rejected = request.prev.index;
    reply.hint = request.prev.index > log_.contiguous_last()
                     ? log_.position_at(std::max(log_.contiguous_last(), log_.start().index))
                     : log_.last_at_or_before(request.prev.index, request.prev.term);
    send(header.from, reply);
    return;
  }
  merge(request.entries);
  const LogIndex end = request.prev.index + request.entries.size();
  verified_ = std::max(verified_, std::min(end, log_.contiguous_last()));
  const LogIndex commit = std::min(request.commit, verified_);
  if (commit > commit_) {
    set_commit(commit);
    on_configuration_committed();
  }
  reply.ok = true;
  if (request.entries.empty()) {
    // Tells only what is durable now: a heartbeat is answered at once, however slow this disk is.
    if (request.round <= round_answered_) return;  // only brought the commit index
    round_answered_ = request.round;
    reply.match = std::min(verified_, durable_);
    send(header.from, reply);
  } else {
    round_answered_ = std::max(round_answered_, request.round);
    reply.match = verified_;
    send(header.from, reply, pending_log_write());
  }
}

void Raft::merge(const EntrySlices& entries) {
  for (size_t i = 0; i < entries.size(); ++i) {
    const Entry& entry = entries[i];
    if (entry.index <= log_.start().index) continue;
    if (entry.index <= log_.last_index()) {
      const Gap* gap = log_.has_gap() ? &log_.gaps().front() : nullptr;
      const Term here = log_.term_at(entry.index);
      const bool in_gap = gap != nullptr && gap->from == entry.index && entry.index <= gap->to;
      bool conflict = here != entry.term;
      if (in_gap) {
        // A hole's term, where known, decides; so does a known earlier term behind it, since terms never fall.
        conflict = here.value() != 0 && here != entry.term;
        for (LogIndex behind = gap->to.next(); !conflict && behind <= log_.last_index(); ++behind) {
          const Term later = log_.term_at(behind);
          if (later.value() == 0) continue;
          conflict = later < entry.term;
          break;
        }
      }
      if (!conflict) {
        if (in_gap) {
          REACHED(hole_filled);
          forget_durable_from(entry.index);
          const bool same = here.value() != 0;  // (index, term) names one entry, and with it all before
          const bool last_of_gap = gap->from == gap->to;
          log_.fill_first(entry);
          if (same && last_of_gap && entry.index < log_.last_index()) log_.prove_first();
          if (entry.type == EntryType::kConfiguration) note_configuration(log_.entry(entry.index));
          write();
          if (fill_first_.value() == 0) fill_first_ = entry.index;
          fill_last_ = entry.index;
        } else if (gap != nullptr && gap->from == entry.index) {
          // The leader's entry behind the gap is the one here: one log (see log.h).
          REACHED(suffix_behind_hole_proven);
          log_.prove_first();
        }
        continue;
      }
      // What follows never was committed (dissertation 3.5); its configurations never were in force for good (4.1).
      REACHED(suffix_truncated);
      forget_durable_from(entry.index);
      log_.truncate_from(entry.index);
      while (configurations_.size() > 1 && configurations_.back().index >= entry.index) configurations_.pop_back();
      sync_peers();
    }
    log_.append(entry);
    write_log_from(entry.index);
    if (entry.type == EntryType::kConfiguration) note_configuration(entry);
  }
  if (!log_.has_gap() && pull_.kind == Pull::Kind::kRepair) end_pull();
}

void Raft::learn_floors(const Floors& floors) {
  for (const Floor& floor : floors.view()) {
    if (Peer* peer = find_peer(floor.node)) note_floor(*peer, floor);
  }
}

}  // namespace conclave::raft
