// A server that comes back, and one that needs what it has not: hello and floors, holes, catching up before
// campaigning, snapshots. Architecture sections 4 and 5; the arguments for why it is safe: docs/internals/raft.md.
#include <algorithm>

#include "base/assert.h"
#include "base/mark.h"
#include "raft/raft.h"

namespace conclave::raft {

// ---- Hello ----

void Raft::send_hellos() {
  hello_deadline_ = kNever;
  for (const Peer& peer : peers_) {
    if (!peer.hello_answered) send(peer.id, Hello{.last = log_.last()});
  }
  if (!proven_ && !peers_.empty()) {
    hello_deadline_ = now_ + options_.heartbeat_interval;
  }
}

// What this server promised it may have forgotten, so it goes on as another voter that never promised anything: the
// same server under a new incarnation, its boot. No configuration names that yet, so it counts nowhere, until the
// leader finds it caught up and puts it in the old one's place by a joint change. The old identity never acts again.
// That boots never repeat for one server, whatever happens to its disk, is the driver's duty.
void Raft::take_new_identity(Certainty certainty) {
  REACHED(new_identity);
  certainty_ = certainty;
  vote_.incarnation = Incarnation(options_.boot.value());
  write_vote();
  if (role_ != Role::kFollower) become_follower(vote_.term, NodeId());
  check_proven();
}

void Raft::check_proven() {
  if (proven_) return;
  // An identity taken in this boot has nothing to remember.
  proven_ = vote_.incarnation.value() == options_.boot.value() || has_quorum(membership(), [&](NodeId id, Incarnation) {
              return id == options_.self || find_peer(id)->hello_answered;
            });
  if (!proven_) return;
  hello_deadline_ = kNever;
  if (role_ == Role::kFollower && !hears_leader()) {
    election_deadline_ =
        std::min(election_deadline_, now_ + random_.between(Duration::zero(), options_.start_delay_max));
  }
}

void Raft::handle(const Header& header, const Hello& hello) {
  Peer* peer = find_peer(header.from);
  if (!hello.answer) {
    Hello answer{.last = log_.last(), .answer = true};
    // What is known of its lives before this one.
    if (peer != nullptr) answer.floor = peer->floor.boot < header.boot ? peer->floor : peer->floor_before;
    send(header.from, answer);
    if (role_ == Role::kLeader && peer != nullptr) send_appends(*peer);
    return;
  }
  // A server that lost everything knows nobody's boot, and nothing of this one: its answer says who it is now, no more.
  if (header.to_boot != options_.boot) return;
  const Floor& floor = hello.floor;
  if (floor.node == options_.self && vote_.incarnation == start_incarnation_) {
    const bool behind = floor.incarnation > start_incarnation_ ||
                        (floor.incarnation == start_incarnation_ &&
                         (floor.term > start_term_ || (floor.term == start_term_ && start_last_ < floor.last)));
    if (behind) {
      // The directory is from before something this server promised (fault D13).
      REACHED(rolled_back_detected);
      take_new_identity(Certainty::kRolledBack);
      return;
    }
  }
  peer->hello_answered = true;
  check_proven();
}

// ---- Pulling: holes, and catching up ----

void Raft::send_pull() {
  pull_.id = ++last_pull_;
  pull_.retry_at = now_ + 2 * options_.heartbeat_interval;
  send(pull_.peer, PullRequest{.id = pull_.id, .prev = pull_.prev, .proof = pull_.proof});
}

void Raft::end_pull() {
  pull_ = Pull();
}

// Asks one member after another for what the first gap lacks. A log that has the place behind the gap has the same
// prefix (Log Matching), so any member may serve, leader or not.
void Raft::start_repair() {
  end_pull();
  if (!log_.has_gap() || peers_.empty()) return;
  pull_.kind = Pull::Kind::kRepair;
  pull_.prev = log_.position_at(log_.contiguous_last());
  pull_.proof = log_.proof_of_first_gap();
  pull_.peer = peers_[next_repair_peer_++ % peers_.size()].id;
  send_pull();
}

// The pre-vote reached a quorum, and the log of pull_.peer is ahead. Its last entry has a term not above its own, which
// is not above this server's by now: an entry of this server that would be dropped for those cannot have been
// committed, nor can it be any more, since whoever might still count this server's acknowledgement of it would need
// others that have not moved to a later term, and the quorum that elected the leader of that last entry has.
void Raft::start_catch_up() {
  REACHED(catch_up_started);
  ASSERT(pull_.peer.is_set());
  ASSERT_CMP(pull_.target.term, <=, vote_.term);
  role_ = Role::kFollower;
  campaign_term_ = Term();
  reset_election_deadline();
  pull_.kind = Pull::Kind::kCatchUp;
  pull_.prev = log_.last();
  pull_.proof = Position();
  pull_.attempts = 0;
  send_pull();
}

void Raft::handle(const Header& header, const PullRequest& request) {
  PullReply reply{.id = request.id, .last = log_.position_at(std::max(log_.contiguous_last(), log_.start().index))};
  const bool repair = request.proof.index.value() != 0;
  if (request.prev.index < log_.start().index) {
    // The log no longer goes back so far; the snapshot does. It is of committed entries: no proof is needed.
    send_pulled_chunk(header, request.id, snapshot_, 0);
    return;
  }
  if (repair && !log_.matches(request.proof)) {
    // Nothing at all is known of the logs' agreement.
    reply.prev = Position();
    send(header.from, reply);
    return;
  }
  if (!log_.matches(request.prev)) {
    reply.prev = log_.last_at_or_before(request.prev.index, request.prev.term);
    send(header.from, reply);
    return;
  }
  reply.ok = true;
  reply.prev = request.prev;
  size_t count =
      log_.count_within(request.prev.index.next(), options_.entries_per_message_max, options_.bytes_per_message_max);
  if (repair && request.proof.index > request.prev.index) {
    count = std::min(count, static_cast<size_t>(request.proof.index - request.prev.index));
  }
  reply.entries = log_.slices(request.prev.index.next(), count);
  send(header.from, reply);
}

void Raft::handle(const Header& header, const PullReply& reply) {
  if (pull_.kind == Pull::Kind::kRepair) {
    if (!reply.ok || reply.entries.empty()) {
      // The next member; once all were asked, again after a while.
      const uint32_t asked = pull_.attempts + 1;
      if (asked < peers_.size()) {
        start_repair();
        pull_.attempts = asked;
      }
      return;
    }
    if (!log_.matches(reply.prev)) {
      start_repair();  // the log has changed since
      return;
    }
    merge(reply.entries);
    if (log_.has_gap()) {
      REACHED(repair_goes_on);
      --next_repair_peer_;  // the same member has more
      start_repair();
    } else {
      REACHED(repaired_by_peer);
      end_pull();
    }
    return;
  }
  if (header.term > vote_.term) become_follower(header.term, NodeId());
  if (!reply.ok) {
    const Position prev = log_.last_at_or_before(reply.prev.index, reply.prev.term);
    const bool progress =
        prev.index < pull_.prev.index && prev.index >= commit_ && reply.prev.index >= log_.start().index;
    if (!progress || ++pull_.attempts > kMembersMax * 16) {
      end_pull();
      reset_election_deadline();
      return;
    }
    pull_.prev = prev;
    send_pull();
    return;
  }
  if (!log_.matches(reply.prev) || !(log_.last() < reply.last) || reply.entries.empty()) {
    // No longer ahead, or what is ahead is a hole there.
    end_pull();
    retry_election_soon();
    return;
  }
  merge(reply.entries);
  go_on_pulling();
}

// Catching up, one step done.
void Raft::go_on_pulling() {
  if (log_.last() < pull_.target) {
    pull_.prev = log_.last();
    pull_.attempts = 0;
    send_pull();
    return;
  }
  REACHED(caught_up);
  // Durable before it campaigns with it.
  pull_.kind = Pull::Kind::kAwaitDurable;
  pull_.retry_at = kNever;
  if (durable_ >= log_.last_index()) {
    end_pull();
    if (can_campaign()) campaign_pre();
  }
}

// ---- Snapshots ----

// One chunk under way at a time: bulk, which must not delay what commits. Where a newer snapshot was taken meanwhile,
// the transfer goes on with the older one as long as it is kept, or it might never end.
void Raft::send_chunk(Peer& peer) {
  if (peer.snapshot_waiting) return;
  const bool kept = peer.snapshot.last == snapshot_.last || peer.snapshot.last == snapshot_before_.last;
  if (peer.snapshot.last.index.value() == 0 || !kept || peer.snapshot.last.index < log_.start().index) {
    peer.snapshot = snapshot_;
    peer.snapshot_offset = 0;
  }
  peer.snapshot_waiting = true;
  peer.snapshot_sent_at = now_;
  send(peer.id, SnapshotChunk{.mark = peer.snapshot, .commit = commit_, .offset = peer.snapshot_offset});
}

void Raft::send_pulled_chunk(const Header& header, uint64_t pull, const SnapshotMark& mark, uint64_t offset) {
  if (mark.last.index.value() == 0) return;
  send(header.from, SnapshotChunk{.pull = pull, .mark = mark, .commit = commit_, .offset = offset});
}

void Raft::handle(const Header& header, const SnapshotChunk& chunk) {
  if (chunk.pull != 0) {
    // The terms of a log do not exceed its server's term.
    if (header.term > vote_.term) become_follower(header.term, NodeId());
    pull_.retry_at = now_ + options_.election_timeout;
    output_->chunk = ChunkToStore{
        .from = header.from, .mark = chunk.mark, .offset = chunk.offset, .total = chunk.total, .bytes = chunk.bytes};
    return;
  }
  if (header.term < vote_.term) {
    send(header.from, AppendReply{.ok = false});
    return;
  }
  if (header.term > vote_.term || leader_ != header.from || role_ != Role::kFollower) {
    become_follower(header.term, header.from);
    if (pull_.kind == Pull::Kind::kCatchUp || pull_.kind == Pull::Kind::kAwaitDurable) end_pull();
  }
  heard_leader_at_ = now_;
  leader_link_broken_ = false;
  reset_election_deadline();
  if (chunk.mark.last.index <= commit_) {
    send(header.from, SnapshotReply{.last = chunk.mark.last, .offset = chunk.total, .installed = true},
         pending_log_write());
    return;
  }
  if (pull_.kind == Pull::Kind::kRepair) {
    // The leader's snapshot covers the hole too, and there is room for one that is being received: that of whom was
    // asked would begin anew with each chunk of this one, and this one with each of that. Asked again when the leader's
    // comes no more.
    REACHED(repair_gives_way_to_leader);
    pull_ = {.kind = Pull::Kind::kRepair, .retry_at = now_ + options_.election_timeout};
  }
  output_->chunk = ChunkToStore{
      .from = header.from, .mark = chunk.mark, .offset = chunk.offset, .total = chunk.total, .bytes = chunk.bytes};
}

// The newest is the driver's to take again. Of the older nothing more comes: whoever was sent it begins the newest.
void Raft::on(const SnapshotUnreadable& input) {
  if (input.mark.last != snapshot_before_.last) return;
  REACHED(older_snapshot_given_up);
  snapshot_before_ = SnapshotMark();
  if (role_ != Role::kLeader) return;
  for (Peer& peer : peers_) {
    if (peer.flow != Peer::Flow::kSnapshot || peer.snapshot.last != input.mark.last) continue;
    peer.snapshot_waiting = false;
    send_chunk(peer);
  }
}

void Raft::on(const ChunkStored& input) {
  if (input.complete) install(input.mark);
  const bool installed = input.mark.last.index <= commit_;
  const bool pulled = pull_.peer == input.from && leader_ != input.from &&
                      (pull_.kind == Pull::Kind::kRepair || pull_.kind == Pull::Kind::kCatchUp);
  if (!pulled) {
    send(input.from, SnapshotReply{.last = input.mark.last, .offset = input.offset, .installed = installed},
         installed ? pending_log_write() : WriteSequence());
    return;
  }
  if (!installed) {
    pull_.retry_at = now_ + options_.election_timeout;
    send(input.from, SnapshotReply{.pull = pull_.id, .last = input.mark.last, .offset = input.offset});
  } else if (pull_.kind == Pull::Kind::kRepair) {
    REACHED(repaired_by_snapshot);
    start_repair();
  } else {
    REACHED(caught_up_by_snapshot);
    go_on_pulling();
  }
}

void Raft::install(const SnapshotMark& mark) {
  const LogIndex index = mark.last.index;
  if (index <= commit_ || role_ == Role::kLeader) return;
  REACHED(snapshot_installed);
  // What follows the snapshot stays if it is of the same log; if that is not known, it stays unproven (log.h).
  const bool inside = index > log_.start().index && index < log_.last_index();
  const Term here = inside ? log_.term_at(index) : Term();
  const bool keep = inside && (here == mark.last.term || here.value() == 0);
  Write& out = write();
  if (keep) {
    log_.start_after(mark.last);
    if (here.value() == 0) {
      REACHED(snapshot_ends_in_hole);
      log_.doubt_first();
    }
    while (configurations_.size() > 1 && configurations_[1].index <= index)
      configurations_.erase(configurations_.begin());
    configurations_.front() = {.index = index, .membership = mark.membership};
    if (configurations_.size() > 1 && configurations_[1].index <= index)
      configurations_.erase(configurations_.begin() + 1);
  } else {
    forget_durable_from(log_.first_index());
    if (log_.last_index() > log_.start().index) log_.truncate_from(log_.first_index());
    log_.start_after(mark.last);
    configurations_.clear();
    configurations_.push_back({.index = index, .membership = mark.membership});
    verified_ = index;  // what was verified beyond it went with the log
    out.discard_log = true;
  }
  snapshot_before_ = SnapshotMark();
  snapshot_ = mark;
  out.snapshot = mark;
  out.keep_from = log_.first_index();
  commit_ = index;
  verified_ = std::max(verified_, index);
  sync_peers();
  output_->install = mark;
}

void Raft::handle(const Header& header, const SnapshotReply& reply) {
  if (reply.pull != 0) {
    const bool older = reply.last == snapshot_before_.last;
    const bool known = older || reply.last == snapshot_.last;
    send_pulled_chunk(header, reply.pull, older ? snapshot_before_ : snapshot_, known ? reply.offset : 0);
    return;
  }
  Peer* peer = find_peer(header.from);
  if (header.term > vote_.term) {
    become_follower(header.term, NodeId());
    return;
  }
  peer->heard_at = now_;
  peer->heard = true;
  peer->snapshot_waiting = false;
  if (reply.installed) {
    peer->match = std::max(peer->match, reply.last.index);
    peer->next = peer->match.next();
    peer->flow = Peer::Flow::kProbe;
    peer->probe_sent = false;
    peer->snapshot = SnapshotMark();
    advance_commit();
    if (role_ != Role::kLeader) return;
    if (peer = find_peer(header.from); peer != nullptr) send_appends(*peer);
    return;
  }
  peer->snapshot_offset = reply.offset;
  send_chunk(*peer);
}

}  // namespace conclave::raft
