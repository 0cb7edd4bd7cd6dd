#include "node/replica.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/interface.h"
#include "layers/command_builder.h"
#include "layers/session_end.h"
#include "raft/codec.h"

namespace conclave::node {
namespace {

// Requests past their time are looked for this often.
constexpr Duration kRequestCheck = std::chrono::milliseconds(100);
// A commit mark costs some bytes in the log and saves applying again after a restart: a few times a second is enough.
constexpr Duration kCommitMark = std::chrono::milliseconds(100);
// History grows for minutes before it is due.
constexpr Duration kHistoryCheck = std::chrono::seconds(1);
// Election timeouts from the first try of a leader without space to hand over to the second; doubled so many times.
constexpr int kHandOverAfter = 10;
constexpr int kHandOverDoublings = 7;
// Ends of leases that consensus did not take are proposed again after this: while it hands over, it takes none.
constexpr Duration kExpiryRetry = std::chrono::milliseconds(10);
// Ends of sessions with delayed locks in one turn, each some ten microseconds; and when the next are looked at.
constexpr size_t kLingeringEndsPerTurn = 64;
constexpr Duration kLingeringRetry = std::chrono::milliseconds(1);
// Of long leases, written in one turn: more are written with the next ones.
constexpr size_t kCheckpointsPerTurn = 64;
// Leases of a new leader are walked in pieces of this many.
constexpr size_t kLeasesPerStep = 4096;

}  // namespace

std::string_view to_string(RequestRefusal refusal) {
  switch (refusal) {
    case RequestRefusal::kNoLeader:
      return "no leader";
    case RequestRefusal::kOverloaded:
      return "overloaded";
    case RequestRefusal::kTooLarge:
      return "too large";
    case RequestRefusal::kNoSpace:
      return "no space";
    case RequestRefusal::kTimedOut:
      return "timed out";
  }
  return "unknown";
}

bool is_from_leader(ByteView frame) {
  if (frame.empty() || frame.front() != static_cast<char>(FrameKind::kConsensus)) return false;
  const Result<raft::OwnedMessage> message = raft::OwnedMessage::decode(frame.substr(1));
  if (!message) return false;
  const raft::Body& body = message->message().body;
  if (const auto* chunk = std::get_if<raft::SnapshotChunk>(&body)) return chunk->pull == 0;
  return std::holds_alternative<raft::AppendRequest>(body);
}

Replica::Replica(const ReplicaOptions& options, Recovered&& recovered, std::unique_ptr<keyspace::Keyspace> keyspace,
                 ReplicaWorld& world)
    : options_(options),
      world_(world),
      keyspace_(std::move(keyspace)),
      raft_(options.raft, std::move(recovered)),
      lease_clock_(options.leases),
      applied_(keyspace_->applied()),
      history_(options.history) {
  ASSERT_CMP(applied_, ==, raft_.snapshot().last.index);
  keyspace_->set_answers({.origin = options_.raft.self, .boot = options_.raft.boot});
  applied_term_ = raft_.snapshot().last.term;
}

// ---- The world ----

void Replica::start(Instant now) {
  step(now, raft::Start{});
  take_settings(now);
}

void Replica::on_frame(Instant now, NodeId from, ByteView frame) {
  if (!frame.empty() && frame.front() == static_cast<char>(FrameKind::kConsensus)) {
    const Result<raft::OwnedMessage> message = raft::OwnedMessage::decode(frame.substr(1));
    if (!message || message->message().header.from != from) {
      ++counters_.frames_refused;
      return;
    }
    step(now, raft::Receive{.message = message->message()});
    if (output_.refused != raft::Refusal::kNone) ++counters_.messages_refused[output_.refused];
    return;
  }
  const Result<Frame> decoded = decode_frame(frame);
  if (!decoded) {
    ++counters_.frames_refused;
    return;
  }
  std::visit(
      [&](const auto& body) {
        if (body.group != options_.raft.group) {
          ++counters_.frames_refused;
          return;
        }
        on(now, from, body);
      },
      *decoded);
}

void Replica::on_link_up(Instant now, NodeId peer) {
  step(now, raft::LinkUp{.peer = peer});
}

void Replica::on_link_broken(Instant now, NodeId peer) {
  step(now, raft::LinkBroken{.peer = peer});
}

void Replica::on_storage(Instant now, StorageResult result) {
  std::visit([&](auto& body) { on(now, body); }, result);
}

void Replica::on(Instant now, const Persisted& result) {
  while (!held_.empty() && held_.front().after <= result.sequence) {
    Held& held = held_.front();
    world_.send(held.to, held.lane, std::move(held.frame));
    held_.pop_front();
  }
  step(now, raft::WriteDone{.sequence = result.sequence});
  if (install_ && !install_->loading && install_->after <= result.sequence) {
    install_->loading = true;
    world_.store(LoadJob{.group = options_.raft.group, .mark = install_->mark});
  }
}

void Replica::tick(Instant now) {
  if (raft_.next_deadline() <= now) step(now, raft::Tick{});
}

void Replica::flush(Instant now) {
  dirty_ = false;
  expire_requests(now);
  apply_committed(now);
  if (lease_walk_) walk_leases(now);
  // In the order of the lanes: leases, reads, what gives back, then all else.
  flush_changes(now);
  expire_leases(now);
  checkpoint_leases(now);
  flush_round(now);
  flush_writes(now);
  compact_history(now);
  raise_feature_level(now);
  tell_applied(now);
  hand_over(now);
  // Alone in its cluster a leader commits in the very turn.
  apply_committed(now);
  look_again(now);
  release_reads();
  begin_snapshot(now);
  read_snapshot();
}

Instant Replica::next_deadline() const {
  Instant deadline = std::min(
      {raft_.next_deadline(), forward_retry_at_, retry_rounds_at_, next_change_deadline(), next_features_deadline()});
  if (keeps_leases()) {
    const Instant due = expiry_armed_ ? Instant::min() : lease_clock_.next_deadline();
    deadline = std::min(deadline, std::max(due, expiry_not_before_));
    deadline = std::min(deadline, lease_checkpoints_.next_deadline());
  }
  if (leads()) deadline = std::min(deadline, history_checked_at_ + kHistoryCheck);
  if (tells_applied()) deadline = std::min(deadline, applied_told_at_ + kAppliedToldEvery);
  if (disk_full_ && leads()) deadline = std::min(deadline, hand_over_at_);
  if (!writes_.empty() || reads_pending_ + keep_alives_pending_ > 0) {
    deadline = std::min(deadline, requests_checked_at_ + kRequestCheck);
  }
  return deadline;
}

bool Replica::has_work() const {
  if (dirty_ || lease_walk_) return true;
  if (taking_ && taking_->reader != nullptr && taking_->pending < options_.snapshot_bytes_pending_max) return true;
  return !install_ && (applying_ || applied_ < raft_.status().commit);
}

// ---- Consensus ----

void Replica::step(Instant now, const raft::Input& input) {
  raft_.step(now, input, output_);
  take_output(now);
}

void Replica::take_output(Instant now) {
  if (output_.write) {
    world_.store(PersistJob{
        .group = options_.raft.group, .sequence = output_.write->sequence, .batch = batch_of(*output_.write, now)});
  }
  if (output_.install) {
    // What was read of the state before it, and the reading of it, are of no use any more.
    install_ = {.mark = *output_.install, .after = output_.write->sequence};
  }
  if (output_.chunk) store_chunk(*output_.chunk);
  for (const raft::Outgoing& outgoing : output_.messages) {
    if (std::holds_alternative<raft::SnapshotChunk>(outgoing.message.body)) {
      send_chunk(outgoing.message);
      continue;
    }
    std::string frame(1, static_cast<char>(FrameKind::kConsensus));
    raft::encode(outgoing.message, frame);
    const bool bulk = std::holds_alternative<raft::PullReply>(outgoing.message.body);
    const env::Lane lane = bulk ? env::Lane::kBulk : env::Lane::kConsensus;
    const NodeId to = outgoing.message.header.to;
    if (outgoing.after.value() == 0) {
      world_.send(to, lane, std::move(frame));
    } else {
      // Waits only for writes not yet done; those come in order, so this is nearly always the end.
      auto at = held_.end();
      while (at != held_.begin() && std::prev(at)->after > outgoing.after) --at;
      held_.insert(at, {.after = outgoing.after, .to = to, .lane = lane, .frame = std::move(frame)});
    }
  }
  for (const raft::ReadResult& read : output_.reads) on_round(now, read);
  if (output_.role_changed) {
    if (!leads()) follow_leases();
    if (leads() && disk_full_) {
      world_.store(UseReserveJob{.group = options_.raft.group});
      plan_hand_over(now);
      handed_to_ = options_.raft.self;
    }
    // Reads and keep-alives that wait for a leader may go now.
    if (raft_.status().leader.is_set() && retry_rounds_at_ != kNever) retry_rounds_at_ = now;
    clients_->on_role_changed(raft_.status());
  }
}

wal::Batch Replica::batch_of(const raft::Write& write, Instant now) {
  const GroupId group = options_.raft.group;
  wal::Batch batch;
  bool has_configuration = false;
  for (size_t i = 0; i < write.entries.size(); ++i) {
    batch.append(group, write.entries[i]);
    has_configuration |= write.entries[i].type == EntryType::kConfiguration;
  }
  for (size_t i = 0; i < write.fills.size(); ++i) batch.fill(group, write.fills[i]);
  if (write.snapshot) {
    if (write.discard_log) {
      batch.install(group, *write.snapshot);
    } else {
      batch.snapshot(group, *write.snapshot);
      batch.release(group, write.keep_from.prev());
    }
  }
  if (write.vote) batch.vote(group, *write.vote);
  // With a configuration stands what was committed before it: its members' addresses, to be applied at a start.
  const bool mark_now = write.snapshot || has_configuration;
  if (write.commit > commit_written_ && (now >= commit_written_at_ + kCommitMark || mark_now)) {
    std::vector<Floor> floors = raft_.floors();
    if (floors.size() > wal::kFloorsMax) floors.resize(wal::kFloorsMax);
    batch.commit(group, write.commit, floors);
    commit_written_ = write.commit;
    commit_written_at_ = now;
  }
  // What moves no data may use the space kept in reserve; and what a leader takes while its disk is full, which is
  // releases only.
  if ((write.entries.empty() && write.fills.empty()) || (disk_full_ && leads())) {
    batch.set_urgency(wal::Urgency::kUrgent);
  }
  return batch;
}

raft::Refusal Replica::transfer(Instant now, NodeId to) {
  step(now, raft::Transfer{.to = to});
  return output_.refused;
}

// ---- Applying ----

void Replica::apply_committed(Instant now) {
  // A later state is on its way, and the log may not lead to it.
  if (install_) return;
  const LogIndex commit = raft_.status().commit;
  for (uint32_t count = 0; applied_ < commit && count < options_.entries_per_turn; ++count) {
    const Entry& entry = raft_.entry(applied_.next());
    if (entry.type == EntryType::kCommand) {
      const bool done = applying_ ? keyspace_->run_slice() : keyspace_->apply(entry.index, entry.term, entry.payload);
      applying_ = !done;
      // A large command goes on with the next turn: heartbeats, votes and keep-alives must not wait for it.
      if (!done) return;
    } else {
      keyspace_->skip(entry.index);
    }
    finish_entry(now, entry);
  }
}

void Replica::finish_entry(Instant now, const Entry& entry) {
  applied_ = entry.index;
  applied_bytes_ += entry.payload.size();
  ++counters_.entries_applied;
  if (entry.term > applied_term_) {
    applied_term_ = entry.term;
    on_term_passed(entry.term);
  }
  if (entry.type == EntryType::kCommand) {
    backlog_.note_applied(entry.term, entry.index, entry.payload.size());
    const keyspace::Effects& effects = keyspace_->effects();
    if (lease_clock_.is_leading()) {
      for (const LeaseId id : effects.leases_ended) {
        lease_clock_.end(id);
        lease_checkpoints_.end(id);
      }
      for (const keyspace::RecordChange& change : effects.records) {
        if (const auto lease = lease_of_remaining(change.key)) lease_checkpoints_.note_applied(*lease);
      }
      for (const LeaseId id : effects.leases_started) {
        const auto lease = keyspace_->lease(id);
        if (!lease) continue;
        lease_clock_.start(id, lease->ttl_ms, now);
        lease_checkpoints_.start(id, lease->ttl_ms, now);
      }
      const keyspace::Reply& reply = keyspace_->reply();
      if (reply.error == keyspace::ErrorId::kGuardFailed && reply.header.lease.is_set()) {
        REACHED(lingering_end_again);
        lease_clock_.give_back({reply.header.lease});
      }
    }
    const bool has_records = !effects.records.empty();
    resolve(keyspace_->reply());
    clients_->on_applied(effects);
    if (has_records) take_settings(now);
  }
  if (!changes_.empty()) follow_changes(entry);
  if (entry.index.value() % options_.entries_per_digest == 0) tell_digest();
  // Rule 2: a new leader acknowledges nothing and expires nothing before it has applied its own first entry.
  if (leads() && applied_term_ == raft_.status().term && !lease_clock_.is_leading()) lead_leases(now);
}

// As they are in the state applied.
void Replica::take_settings(Instant now) {
  const std::optional<uint64_t> level = node::feature_level(*keyspace_);
  feature_level_ = std::max(feature_level_, level.value_or(0));
  if (!level || *level > options_.feature_level_max) world_.on_outdated(level.value_or(0));
  const bool clock_lease = clock_lease_reads(*keyspace_);
  if (clock_lease == clock_lease_reads_) return;
  clock_lease_reads_ = clock_lease;
  step(now, raft::ClockLease{.enabled = clock_lease});
}

void Replica::lead_leases(Instant now) {
  lease_clock_.lead(now);
  lease_walk_ = LeaseId(INT64_MIN);
}

// A slice per turn. Leases granted meanwhile are started when they are applied; one that is met twice gets its full
// time twice, which is never early.
void Replica::walk_leases(Instant now) {
  // In the middle of a large command they are shown as before it, which would bring ended ones back.
  if (keyspace_->is_busy()) return;
  const std::vector<keyspace::LeaseInfo> leases = keyspace_->leases(*lease_walk_, kLeasesPerStep);
  for (const keyspace::LeaseInfo& lease : leases) {
    int64_t remaining_ms = lease.ttl_ms;
    if (lease.ttl_ms > kCheckpointTtlMsAbove) {
      const keyspace::Record* record = keyspace_->record(remaining_record_key(lease.id));
      const auto kept = record == nullptr ? std::nullopt : decode_remaining(record->value);
      if (kept) remaining_ms = std::min(remaining_ms, *kept);
    }
    lease_clock_.inherit(lease.id, remaining_ms, now);
    lease_checkpoints_.start(lease.id, lease.ttl_ms, now);
  }
  if (leases.size() == kLeasesPerStep) {
    lease_walk_ = leases.back().id;
  } else {
    lease_walk_.reset();
    retry_rounds_at_ = std::min(retry_rounds_at_, now);
  }
}

void Replica::follow_leases() {
  lease_clock_.stop();
  lease_checkpoints_.stop();
  lease_walk_.reset();
  expiry_armed_ = false;
}

// ---- Leases ----

void Replica::expire_leases(Instant now) {
  if (!keeps_leases() || std::max(lease_clock_.next_deadline(), expiry_not_before_) > now) return;
  if (!expiry_armed_) {
    // What has arrived already is taken in first: a keep-alive may be among it (rule 2).
    expiry_armed_ = true;
    return;
  }
  expiry_armed_ = false;
  due_.clear();
  lease_clock_.take_due(now, keyspace::kExpireLeasesMax, due_);
  end_lingering(now, due_);
  if (due_.empty()) return;
  std::string body;
  keyspace::encode_expire(due_, body);
  if (propose_end(now, {.kind = keyspace::CommandKind::kLeaseExpire, .term = raft_.status().term}, body)) {
    counters_.leases_expired += due_.size();
  } else {
    lease_clock_.give_back(due_);
  }
}

bool Replica::propose_end(Instant now, const keyspace::CommandHeader& header, ByteView body) {
  const SharedBytes command = keyspace::encode_command(header, body);
  step(now, raft::Propose{.commands = {&command, 1}});
  if (output_.proposal->refusal != raft::Refusal::kNone) {
    REACHED(lease_ends_not_taken);
    expiry_not_before_ = now + kExpiryRetry;
    return false;
  }
  note_proposed(now, command.size());
  return true;
}

// Sessions whose locks have a delay end by a command each (layers/session_end.h); they are taken out of `due`. The
// command names the lease, so that the clock counts on should its guards fail.
void Replica::end_lingering(Instant now, std::vector<LeaseId>& due) {
  const keyspace::KeyspaceView view(*keyspace_);
  std::vector<LeaseId> later;
  size_t ended = 0;
  std::erase_if(due, [&](LeaseId lease) {
    if (!layers::may_linger(view, lease)) return false;
    // Keys are not looked at in the middle of a large command.
    if (keyspace_->is_busy() || ended == kLingeringEndsPerTurn) {
      later.push_back(lease);
      return true;
    }
    const std::optional<std::string> body = layers::encode_lingering_end(view, lease);
    if (!body) return false;
    const keyspace::CommandHeader header{
        .kind = keyspace::CommandKind::kInternal, .term = raft_.status().term, .lease = lease};
    if (propose_end(now, header, *body)) {
      ++ended;
      ++counters_.leases_expired;
    } else {
      later.push_back(lease);
    }
    return true;
  });
  if (later.empty()) return;
  lease_clock_.give_back(later);
  expiry_not_before_ = std::max(expiry_not_before_, now + kLingeringRetry);
}

// What is left of long leases, written down for a leader after this one.
void Replica::checkpoint_leases(Instant now) {
  if (!keeps_leases() || lease_checkpoints_.next_deadline() > now) return;
  for (const LeaseId lease : lease_checkpoints_.take_due(now, kCheckpointsPerTurn)) {
    // One that is due is about to end.
    const auto remaining_ms = lease_clock_.remaining_ms(lease, now);
    if (remaining_ms) (void)propose_remaining(now, lease, remaining_ms);
  }
}

bool Replica::propose_remaining(Instant now, LeaseId lease, std::optional<int64_t> remaining_ms) {
  layers::CommandBuilder command;
  const std::string key = remaining_record_key(lease);
  command.if_lease(lease);
  if (remaining_ms) {
    command.put_record(key, encode_remaining(*remaining_ms), lease);
  } else {
    command.erase_record(key);
  }
  const SharedBytes bytes = keyspace::encode_command(
      {.kind = keyspace::CommandKind::kInternal, .term = raft_.status().term}, command.build());
  step(now, raft::Propose{.commands = {&bytes, 1}});
  if (output_.proposal->refusal != raft::Refusal::kNone) return false;
  note_proposed(now, bytes.size());
  lease_checkpoints_.note_proposed(lease);
  return true;
}

// ---- History ----

// A decision of the leader: its command carries the term (architecture section 1, rule 6).
void Replica::compact_history(Instant now) {
  const Term term = raft_.status().term;
  if (!leads() || now < history_checked_at_ + kHistoryCheck) return;
  history_checked_at_ = now;
  if (applied_term_ != term || keyspace_->is_busy()) return;
  const std::optional<Revision> revision = history_.due(now, *keyspace_);
  if (!revision) return;
  REACHED(history_compacted);
  std::string body;
  ByteWriter writer(body);
  writer.fixed<uint8_t>(0x08);  // CompactionRequest.revision
  writer.varint(static_cast<uint64_t>(revision->value()));
  const SharedBytes command = keyspace::encode_command({.kind = keyspace::CommandKind::kCompact, .term = term}, body);
  step(now, raft::Propose{.commands = {&command, 1}});
  if (output_.proposal->refusal != raft::Refusal::kNone) return;  // due again with the next mark
  note_proposed(now, command.size());
  ++counters_.compactions_proposed;
}

// ---- Space ----

// A full disk is an expected state (fault D9). Its server leads no longer than it must: whoever takes over may have
// space. Where nobody does, releases go on out of the reserve.
void Replica::on(Instant now, const SpaceChanged& result) {
  disk_full_ = result.full;
  if (!disk_full_) hand_overs_ = 0;
  if (!disk_full_ || !leads()) return;
  REACHED(leader_disk_full);
  world_.store(UseReserveJob{.group = options_.raft.group});
  plan_hand_over(now);
  handed_to_ = options_.raft.self;
  step(now, raft::Transfer{});
}

void Replica::plan_hand_over(Instant now) {
  hand_over_at_ =
      now + kHandOverAfter * (1 << std::min(hand_overs_, kHandOverDoublings)) * options_.raft.election_timeout;
  ++hand_overs_;
}

// Again and again: whom it was handed to may not have been there, or have no space either, and the cluster takes no
// writes meanwhile. One voter after the other, so that among several without space the one that has some is found. Ever
// more rarely, counted over all terms while the disk is full: where nobody has space, each that leads does the same,
// and with each new leader leases begin anew, whose ends are what makes space.
void Replica::hand_over(Instant now) {
  if (!disk_full_ || !leads() || now < hand_over_at_) return;
  REACHED(leader_disk_full_again);
  plan_hand_over(now);
  std::vector<NodeId> others;  // in order of their ids, beginning behind the last
  for (const Member& member : raft_.membership().members()) {
    if (member.role == MemberRole::kVoter && member.id != options_.raft.self) others.push_back(member.id);
  }
  std::rotate(others.begin(), std::upper_bound(others.begin(), others.end(), handed_to_), others.end());
  for (const NodeId other : others) {
    if (transfer(now, other) != raft::Refusal::kNone) continue;  // it was not heard of
    handed_to_ = other;
    return;
  }
}

// ---- Comparing states ----

void Replica::tell_digest() {
  const StateDigest state{.group = options_.raft.group, .index = applied_, .digest = keyspace_->digest()};
  send_to_others(env::Lane::kForward, encode(state));
  take_verdict(digests_.note_own(state.index, state.digest, raft_.membership()), state.index);
}

void Replica::on(Instant, NodeId from, const StateDigest& frame) {
  if (!raft_.membership().contains(from)) return;
  take_verdict(digests_.note_peer(from, frame.index, frame.digest, raft_.membership()), frame.index);
}

void Replica::send_to_others(env::Lane lane, const std::string& frame) {
  for (const Member& member : raft_.membership().members()) {
    if (member.id != options_.raft.self) world_.send(member.id, lane, frame);
  }
}

void Replica::take_verdict(DigestComparison::Verdict verdict, LogIndex index) {
  if (verdict == DigestComparison::Verdict::kNone) return;
  ++counters_.digests_different;
  if (verdict == DigestComparison::Verdict::kOdd) world_.on_diverged(index);
}

// ---- Lag ----

bool Replica::is_lagging(Instant now) const {
  const raft::Status status = raft_.status();
  return !leads() && status.leader.is_set() && lag_.is_lagging(now, status.term, applied_);
}

// Before all that is under way to whom it tells: what waits in a full link is what the other has not applied.
void Replica::tell_applied(Instant now) {
  if (!tells_applied() || now < applied_told_at_ + kAppliedToldEvery) return;
  applied_told_at_ = now;
  send_to_others(env::Lane::kConsensus,
                 encode(AppliedUpTo{.group = options_.raft.group, .term = raft_.status().term, .index = applied_}));
}

void Replica::on(Instant now, NodeId from, const AppliedUpTo& frame) {
  if (frame.term != raft_.status().term || from != raft_.status().leader) return;
  lag_.note(now, frame.term, frame.index);
}

// ---- Time ----

void Replica::expire_requests(Instant now) {
  if (now < requests_checked_at_ + kRequestCheck) return;
  requests_checked_at_ = now;
  expire_writes(now);
  expire_rounds(now);
}

}  // namespace conclave::node
