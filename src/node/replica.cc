#include "node/replica.h"

#include <algorithm>
#include <functional>
#include <span>
#include <utility>

#include "base/assert.h"
#include "base/mark.h"
#include "raft/codec.h"

namespace conclave::node {
namespace {

// One frame of forwarded commands holds about this much: more gains nothing, less delays nothing.
constexpr size_t kForwardBytes = size_t{1} << 20;
// Reads and keep-alives that found no leader, or lost it, try again after this.
constexpr Duration kRoundRetry = std::chrono::milliseconds(50);
// Requests past their time are looked for this often.
constexpr Duration kRequestCheck = std::chrono::milliseconds(100);
// A commit mark costs some bytes in the log and saves applying again after a restart: a few times a second is enough.
constexpr Duration kCommitMark = std::chrono::milliseconds(100);
// History grows for minutes before it is due.
constexpr Duration kHistoryCheck = std::chrono::seconds(1);
// After a snapshot for which there was no space.
constexpr Duration kSnapshotRetry = std::chrono::seconds(5);
// Chunks of snapshots being read for peers: one each under way, and some that were asked for again.
constexpr size_t kChunksPendingMax = 16;
// Leases of a new leader are walked in pieces of this many.
constexpr size_t kLeasesPerStep = 4096;

size_t place_of(WriteLane lane) {
  return static_cast<size_t>(lane);
}

// A limit of a queue for one lane: see ReplicaOptions::writes_pending_max.
size_t limit_of(size_t limit, WriteLane lane) {
  return lane == WriteLane::kRelease ? limit + limit / 4 : limit;
}

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

WriteLane lane_of(keyspace::CommandKind kind) {
  switch (kind) {
    case keyspace::CommandKind::kDeleteRange:
    case keyspace::CommandKind::kCompact:
    case keyspace::CommandKind::kLeaseRevoke:
    case keyspace::CommandKind::kLeaseExpire:
      return WriteLane::kRelease;
    default:
      return WriteLane::kWrite;
  }
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
  flush_round(now);
  flush_writes(now);
  compact_history(now);
  // Alone in its cluster a leader commits in the very turn.
  apply_committed(now);
  look_again(now);
  release_reads();
  begin_snapshot(now);
  read_snapshot();
}

Instant Replica::next_deadline() const {
  Instant deadline = std::min({raft_.next_deadline(), forward_retry_at_, retry_rounds_at_, next_change_deadline()});
  if (keeps_leases()) {
    deadline = std::min(deadline, expiry_armed_ ? Instant::min() : lease_clock_.next_deadline());
  }
  if (leads()) deadline = std::min(deadline, history_checked_at_ + kHistoryCheck);
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
    if (leads() && disk_full_) world_.store(UseReserveJob{.group = options_.raft.group});
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
    if (entry.term == undone_term_) undone_bytes_ -= std::min(undone_bytes_, entry.payload.size());
    const keyspace::Effects& effects = keyspace_->effects();
    if (lease_clock_.is_leading()) {
      for (const LeaseId id : effects.leases_ended) lease_clock_.end(id);
      for (const LeaseId id : effects.leases_started) {
        if (const auto lease = keyspace_->lease(id)) lease_clock_.start(id, lease->ttl_ms, now);
      }
    }
    resolve(keyspace_->reply());
    clients_->on_applied(effects);
  }
  if (!changes_.empty()) follow_changes(entry);
  if (entry.index.value() % options_.entries_per_digest == 0) tell_digest();
  // Rule 2: a new leader acknowledges nothing and expires nothing before it has applied its own first entry.
  if (leads() && applied_term_ == raft_.status().term && !lease_clock_.is_leading()) lead_leases(now);
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
  for (const keyspace::LeaseInfo& lease : leases) lease_clock_.inherit(lease.id, lease.ttl_ms, now);
  if (leases.size() == kLeasesPerStep) {
    lease_walk_ = leases.back().id;
  } else {
    lease_walk_.reset();
    retry_rounds_at_ = std::min(retry_rounds_at_, now);
  }
}

void Replica::follow_leases() {
  lease_clock_.stop();
  lease_walk_.reset();
  expiry_armed_ = false;
}

void Replica::resolve(const keyspace::Reply& reply) {
  if (reply.header.origin != options_.raft.self || reply.header.boot != options_.raft.boot) return;
  const auto found = writes_.find(reply.header.request);
  if (found == writes_.end()) return;
  const Ticket ticket = found->second.ticket;
  forget(found);
  if (ticket != 0) clients_->on_write_applied(ticket, reply);
}

// The first entry of a later term is applied: what was proposed in an earlier one and not met before it never will be,
// since all entries of a term precede those of the next (rule 4). It was never applied, so it may be proposed again.
void Replica::on_term_passed(Term term) {
  std::array<std::vector<uint64_t>, kWriteLanes> again;
  for (auto at = writes_.begin(); at != writes_.end();) {
    PendingWrite& write = at->second;
    if (write.term.value() == 0 || write.term >= term) {
      ++at;
      continue;
    }
    if (write.number != 0 && forward_term_ == write.term) forwarded_.erase(write.number);
    if (write.ticket == 0) {
      // Its client was told that the outcome is unknown, and is gone.
      forget(at++);
      continue;
    }
    REACHED(proposal_passed_by);
    write.term = Term();
    write.number = 0;
    again[place_of(write.lane)].push_back(at->first);
    ++at;
  }
  for (size_t lane = 0; lane < kWriteLanes; ++lane) {
    if (again[lane].empty()) continue;
    again[lane].insert(again[lane].end(), waiting_[lane].begin(), waiting_[lane].end());
    std::ranges::sort(again[lane]);
    waiting_[lane].assign(again[lane].begin(), again[lane].end());
  }
}

void Replica::forget(std::map<uint64_t, PendingWrite>::iterator write) {
  if (write->second.number != 0 && write->second.term == forward_term_) forwarded_.erase(write->second.number);
  write_bytes_ -= write->second.command.size();
  writes_.erase(write);
}

// ---- Writes ----

void Replica::write(Instant now, Ticket ticket, keyspace::CommandHeader header, ByteView body) {
  ASSERT(ticket != 0);
  header.origin = options_.raft.self;
  header.boot = options_.raft.boot;
  header.request = last_request_ + 1;
  SharedBytes command = keyspace::encode_command(header, body);
  if (command.size() > kEntryBytesMax) {
    clients_->on_write_refused(ticket, RequestRefusal::kTooLarge);
    return;
  }
  const WriteLane lane = lane_of(header.kind);
  if (writes_.size() >= limit_of(options_.writes_pending_max, lane) ||
      write_bytes_ + command.size() > limit_of(options_.write_bytes_pending_max, lane)) {
    REACHED(write_queue_full);
    clients_->on_write_refused(ticket, RequestRefusal::kOverloaded);
    return;
  }
  ++last_request_;
  write_bytes_ += command.size();
  writes_.emplace(
      last_request_,
      PendingWrite{
          .ticket = ticket, .command = std::move(command), .deadline = now + options_.request_timeout, .lane = lane});
  waiting_[place_of(lane)].push_back(last_request_);
  dirty_ = true;
}

void Replica::flush_writes(Instant now) {
  const raft::Status status = raft_.status();
  if (forward_retry_at_ <= now) {
    forward_retry_at_ = kNever;
    if (!forwarded_.empty() && status.leader.is_set() && !leads() && forward_term_ == status.term) {
      REACHED(forward_sent_again);
      resend(now, forwarded_.begin()->first);
    }
  }
  for (const WriteLane lane : {WriteLane::kRelease, WriteLane::kWrite}) {
    if (waiting_[place_of(lane)].empty()) continue;
    if (leads()) {
      propose(now, lane);
    } else if (raft_.status().leader.is_set()) {
      forward(now, lane);
    }
  }
}

std::optional<RequestRefusal> Replica::refusal_of(WriteLane lane, size_t bytes) const {
  const bool release = lane == WriteLane::kRelease;
  if (disk_full_ && !release) return RequestRefusal::kNoSpace;
  const size_t undone = undone_term_ == raft_.status().term ? undone_bytes_ : 0;
  const size_t limit = options_.raft.uncommitted_bytes_max;
  if (undone > 0 && undone + bytes > (release ? limit : limit / 4 * 3)) return RequestRefusal::kOverloaded;
  return std::nullopt;
}

void Replica::note_proposed(size_t bytes) {
  const Term term = raft_.status().term;
  if (undone_term_ != term) undone_bytes_ = 0;
  undone_term_ = term;
  undone_bytes_ += bytes;
}

void Replica::refuse_waiting(WriteLane lane, size_t count, RequestRefusal refusal) {
  // Taken out first: clients may write again from within the answer.
  std::deque<uint64_t>& waiting = waiting_[place_of(lane)];
  const auto end = waiting.begin() + static_cast<ptrdiff_t>(count);
  const std::vector<uint64_t> refused(waiting.begin(), end);
  waiting.erase(waiting.begin(), end);
  for (const uint64_t request : refused) {
    const auto found = writes_.find(request);
    const Ticket ticket = found->second.ticket;
    forget(found);
    clients_->on_write_refused(ticket, refusal);
  }
}

void Replica::propose(Instant now, WriteLane lane) {
  std::deque<uint64_t>& waiting = waiting_[place_of(lane)];
  const size_t looked_at = std::min<size_t>(waiting.size(), options_.entries_per_turn);
  std::vector<SharedBytes> commands;
  commands.reserve(looked_at);
  size_t bytes = 0;
  std::optional<RequestRefusal> refusal;
  while (commands.size() < looked_at) {
    const SharedBytes& command = writes_.at(waiting[commands.size()]).command;
    refusal = refusal_of(lane, bytes + command.size());
    if (refusal) break;
    bytes += command.size();
    commands.push_back(command);
  }
  if (!commands.empty()) {
    step(now, raft::Propose{.commands = commands});
    const raft::ProposalResult result = *output_.proposal;
    if (result.refusal == raft::Refusal::kOverloaded) {
      refuse_waiting(lane, looked_at, RequestRefusal::kOverloaded);
      return;
    }
    // Handing over: they wait for the next leader.
    if (result.refusal != raft::Refusal::kNone) return;
    note_proposed(bytes);
    for (size_t i = 0; i < commands.size(); ++i) writes_.at(waiting[i]).term = result.term;
    counters_.writes_proposed += commands.size();
    waiting.erase(waiting.begin(), waiting.begin() + static_cast<ptrdiff_t>(commands.size()));
  }
  if (refusal) refuse_waiting(lane, looked_at - commands.size(), *refusal);
  // The rest with the next turn, at once.
  if (!waiting.empty()) dirty_ = true;
}

void Replica::forward(Instant now, WriteLane lane) {
  const Term term = raft_.status().term;
  if (forward_term_ != term) {
    forward_term_ = term;
    forward_next_ = 1;
    forwarded_.clear();
  }
  const uint64_t first = forward_next_;
  std::deque<uint64_t>& waiting = waiting_[place_of(lane)];
  for (const uint64_t request : waiting) {
    PendingWrite& write = writes_.at(request);
    write.term = term;
    write.number = forward_next_++;
    forwarded_.emplace(write.number, request);
  }
  counters_.writes_forwarded += waiting.size();
  waiting.clear();
  resend(now, first);
}

// Sends everything not met from this number on. One frame holds one lane: the leader takes or refuses it as a whole.
void Replica::resend(Instant now, uint64_t from) {
  std::vector<ByteView> commands;
  uint64_t first = 0;
  size_t bytes = 0;
  WriteLane lane = WriteLane::kWrite;
  auto send = [&] {
    if (!commands.empty()) send_forward(first, commands);
    commands.clear();
    bytes = 0;
  };
  for (auto at = forwarded_.lower_bound(from); at != forwarded_.end(); ++at) {
    const PendingWrite& write = writes_.at(at->second);
    const ByteView command = write.command.view();
    const bool follows = !commands.empty() && at->first == first + commands.size() && write.lane == lane;
    if (!follows || commands.size() >= kForwardCommandsMax || bytes + command.size() > kForwardBytes) {
      send();
      first = at->first;
      lane = write.lane;
    }
    commands.push_back(command);
    bytes += command.size();
  }
  send();
  if (forward_retry_at_ == kNever && !forwarded_.empty()) forward_retry_at_ = now + options_.forward_retry;
}

void Replica::send_forward(uint64_t first, const std::vector<ByteView>& commands) {
  world_.send(raft_.status().leader, env::Lane::kForward,
              encode(Forward{.group = options_.raft.group,
                             .term = forward_term_,
                             .boot = options_.raft.boot,
                             .first = first,
                             .commands = commands}));
}

void Replica::on(Instant now, NodeId from, const Forward& frame) {
  const raft::Status status = raft_.status();
  // Of another term, or to a server that leads no more: the sender will see by itself what became of it.
  if (!leads() || frame.term != status.term) return;
  if (sources_term_ != status.term) {
    sources_.clear();
    sources_term_ = status.term;
  }
  if (!raft_.membership().contains(from)) {
    ++counters_.frames_refused;
    return;
  }
  ForwardSource& source = sources_[from];
  if (frame.boot < source.boot) return;
  if (frame.boot > source.boot) source = {.boot = frame.boot};
  ForwardReply reply{.group = options_.raft.group, .term = status.term, .boot = frame.boot, .next = source.next};
  if (frame.first > source.next) {
    REACHED(forward_gap);
    world_.send(from, env::Lane::kForward, encode(reply));
    return;
  }
  const uint64_t skip = source.next - frame.first;
  if (skip >= frame.commands.size()) {
    // All taken before: its sender need not send it again.
    world_.send(from, env::Lane::kForward, encode(reply));
    return;
  }
  std::vector<SharedBytes> commands;
  commands.reserve(frame.commands.size() - skip);
  size_t bytes = 0;
  WriteLane lane = WriteLane::kRelease;
  for (size_t i = skip; i < frame.commands.size(); ++i) {
    keyspace::Command command;
    const bool good = frame.commands[i].size() <= kEntryBytesMax &&
                      keyspace::decode_command(frame.commands[i], command) && command.header.origin == from &&
                      command.header.boot == frame.boot;
    if (!good) {
      ++counters_.frames_refused;
      return;
    }
    if (lane_of(command.header.kind) != WriteLane::kRelease) lane = WriteLane::kWrite;
    bytes += frame.commands[i].size();
    commands.push_back(SharedBytes::copy_of(frame.commands[i]));
  }
  std::optional<RequestRefusal> refused = refusal_of(lane, bytes);
  raft::Refusal refusal = raft::Refusal::kOverloaded;
  if (!refused) {
    step(now, raft::Propose{.commands = commands});
    refusal = output_.proposal->refusal;
  }
  if (refusal == raft::Refusal::kNone) {
    note_proposed(bytes);
    source.next += commands.size();
  } else if (refusal == raft::Refusal::kOverloaded) {
    // Passed over for good: a copy of this frame that comes later must not be taken after its sender was told no.
    REACHED(forward_refused);
    reply.refused_first = source.next;
    reply.refused_count = commands.size();
    reply.no_space = refused == RequestRefusal::kNoSpace;
    source.next += commands.size();
    reply.next = source.next;
    world_.send(from, env::Lane::kForward, encode(reply));
  }
  // Otherwise it is handing over: the next leader will be asked.
}

void Replica::on(Instant now, NodeId, const ForwardReply& frame) {
  if (frame.boot != options_.raft.boot || frame.term != forward_term_) return;
  for (auto at = forwarded_.lower_bound(frame.refused_first);
       at != forwarded_.end() && at->first - frame.refused_first < frame.refused_count;) {
    const auto write = writes_.find((at++)->second);
    const Ticket ticket = write->second.ticket;
    forget(write);
    if (ticket == 0) continue;
    clients_->on_write_refused(ticket, frame.no_space ? RequestRefusal::kNoSpace : RequestRefusal::kOverloaded);
  }
  // Taken there, and nobody waits for them here any more.
  for (auto at = forwarded_.begin(); at != forwarded_.end() && at->first < frame.next;) {
    const auto write = writes_.find((at++)->second);
    if (write->second.ticket == 0) forget(write);
  }
  // What the leader waits for was lost on the way.
  if (forwarded_.contains(frame.next) && raft_.status().leader.is_set() && !leads() &&
      raft_.status().term == forward_term_) {
    resend(now, frame.next);
  }
}

// ---- Reads and keep-alives ----

void Replica::read(Instant now, Ticket ticket) {
  if (reads_pending_ >= options_.reads_pending_max) {
    REACHED(read_queue_full);
    clients_->on_read_refused(ticket, RequestRefusal::kOverloaded);
    return;
  }
  ++reads_pending_;
  dirty_ = true;
  new_reads_.push_back({.ticket = ticket, .deadline = now + options_.request_timeout});
}

void Replica::ask_of_lease(Instant now, Ticket ticket, LeaseId lease, bool renews) {
  if (keep_alives_pending_ >= options_.keep_alives_pending_max) {
    clients_->on_keep_alive_refused(ticket, RequestRefusal::kOverloaded);
    return;
  }
  ++keep_alives_pending_;
  dirty_ = true;
  new_keep_alives_.push_back(
      {.ticket = ticket, .lease = lease, .renews = renews, .deadline = now + options_.request_timeout});
}

// The TTL, or what is left of it; zero if the lease is gone or its end already proposed.
int64_t Replica::time_of(Instant now, LeaseId lease, bool renews) {
  const auto info = keyspace_->lease(lease);
  if (!info) return 0;
  if (renews) return lease_clock_.renew(lease, info->ttl_ms, now) ? info->ttl_ms : 0;
  const auto left = lease_clock_.remaining_ms(lease, now);
  // Due, and held back by the rate: it is there. The clock runs a little longer than was granted.
  return left ? std::clamp<int64_t>(*left, 1, info->ttl_ms) : 0;
}

// One round of consensus confirms all reads and keep-alives that came in one turn; a keep-alive moves its deadline now
// and is acknowledged when the round has proven that this server led when it came.
void Replica::flush_round(Instant now) {
  retry_rounds(now);
  if (new_reads_.empty() && new_keep_alives_.empty() && new_remote_.empty()) return;
  const bool leading = leads();
  const bool reachable = leading || raft_.status().leader.is_set();
  Round round;
  if (keeps_leases()) {
    round.keep_alives = std::exchange(new_keep_alives_, {});
    round.remote = std::exchange(new_remote_, {});
    round.ttl_ms.reserve(round.keep_alives.size());
    for (const WaitingKeepAlive& waiting : round.keep_alives) {
      round.ttl_ms.push_back(time_of(now, waiting.lease, waiting.renews));
    }
  } else if (reachable && !leading) {
    forward_keep_alives(now);
  }
  // Whoever sent them will ask again.
  new_remote_.clear();
  if (reachable) round.reads = std::exchange(new_reads_, {});
  // Without a leader; or this one has not applied its first entry yet.
  failed_reads_.insert(failed_reads_.end(), new_reads_.begin(), new_reads_.end());
  failed_keep_alives_.insert(failed_keep_alives_.end(), new_keep_alives_.begin(), new_keep_alives_.end());
  if (!new_reads_.empty() || !new_keep_alives_.empty()) {
    retry_rounds_at_ = std::min(retry_rounds_at_, now + kRoundRetry);
    new_reads_.clear();
    new_keep_alives_.clear();
  }
  if (round.reads.empty() && round.keep_alives.empty() && round.remote.empty()) return;
  const uint64_t context = ++last_round_;
  rounds_.emplace(context, std::move(round));
  step(now, raft::Read{.context = context});
}

void Replica::retry_rounds(Instant now) {
  if (retry_rounds_at_ > now) return;
  retry_rounds_at_ = kNever;
  new_reads_.insert(new_reads_.end(), failed_reads_.begin(), failed_reads_.end());
  new_keep_alives_.insert(new_keep_alives_.end(), failed_keep_alives_.begin(), failed_keep_alives_.end());
  failed_reads_.clear();
  failed_keep_alives_.clear();
}

void Replica::forward_keep_alives(Instant now) {
  const raft::Status status = raft_.status();
  while (!new_keep_alives_.empty()) {
    const bool renews = new_keep_alives_.front().renews;
    const auto same = std::ranges::find(new_keep_alives_, !renews, &WaitingKeepAlive::renews);
    const size_t count = std::min(static_cast<size_t>(same - new_keep_alives_.begin()), kKeepAliveLeasesMax);
    KeepAlive frame{.group = options_.raft.group,
                    .term = status.term,
                    .boot = options_.raft.boot,
                    .id = ++last_keep_alive_frame_,
                    .renews = renews};
    ForwardedKeepAlives waiting{.term = status.term, .deadline = now + options_.forward_retry};
    frame.leases.reserve(count);
    for (size_t i = 0; i < count; ++i) frame.leases.push_back(new_keep_alives_[i].lease);
    const auto end = new_keep_alives_.begin() + static_cast<ptrdiff_t>(count);
    waiting.keep_alives.assign(new_keep_alives_.begin(), end);
    new_keep_alives_.erase(new_keep_alives_.begin(), end);
    world_.send(status.leader, env::Lane::kForward, encode(frame));
    forwarded_keep_alives_.emplace(frame.id, std::move(waiting));
  }
}

void Replica::on(Instant now, NodeId from, const KeepAlive& frame) {
  if (!leads() || frame.term != raft_.status().term || !keeps_leases() || !raft_.membership().contains(from)) {
    world_.send(from, env::Lane::kForward,
                encode(KeepAliveReply{.group = options_.raft.group, .boot = frame.boot, .id = frame.id}));
    return;
  }
  RemoteKeepAlives remote{
      .from = from, .boot = frame.boot, .id = frame.id, .renews = frame.renews, .leases = frame.leases};
  remote.ttl_ms.reserve(frame.leases.size());
  for (const LeaseId lease : frame.leases) remote.ttl_ms.push_back(time_of(now, lease, frame.renews));
  new_remote_.push_back(std::move(remote));
}

void Replica::on(Instant now, NodeId, const KeepAliveReply& frame) {
  const auto found = forwarded_keep_alives_.find(frame.id);
  if (frame.boot != options_.raft.boot || found == forwarded_keep_alives_.end()) return;
  std::vector<WaitingKeepAlive> waiting = std::move(found->second.keep_alives);
  forwarded_keep_alives_.erase(found);
  if (!frame.ok || frame.ttl_ms.size() != waiting.size()) {
    failed_keep_alives_.insert(failed_keep_alives_.end(), waiting.begin(), waiting.end());
    retry_rounds_at_ = std::min(retry_rounds_at_, now + kRoundRetry);
    return;
  }
  for (size_t i = 0; i < waiting.size(); ++i) {
    --keep_alives_pending_;
    clients_->on_kept_alive(waiting[i].ticket, frame.ttl_ms[i]);
  }
}

void Replica::on_round(Instant now, const raft::ReadResult& result) {
  auto node = rounds_.extract(result.context);
  if (node.empty()) return;
  Round& round = node.mapped();
  if (result.refusal != raft::Refusal::kNone) {
    // The leader changed or did not answer: asked again, with a round begun later still.
    for (const RemoteKeepAlives& remote : round.remote) answer_remote(remote, false);
    failed_reads_.insert(failed_reads_.end(), round.reads.begin(), round.reads.end());
    failed_keep_alives_.insert(failed_keep_alives_.end(), round.keep_alives.begin(), round.keep_alives.end());
    retry_rounds_at_ = std::min(retry_rounds_at_, now + kRoundRetry);
    return;
  }
  for (const WaitingRead& waiting : round.reads) confirmed_reads_.emplace(result.index, waiting);
  UnknownLeases unknown{.term = raft_.status().term};
  for (size_t i = 0; i < round.keep_alives.size(); ++i) {
    if (round.ttl_ms[i] == 0) {
      unknown.keep_alives.push_back(round.keep_alives[i]);
      continue;
    }
    --keep_alives_pending_;
    clients_->on_kept_alive(round.keep_alives[i].ticket, round.ttl_ms[i]);
  }
  for (RemoteKeepAlives& remote : round.remote) {
    if (std::ranges::find(remote.ttl_ms, 0) != remote.ttl_ms.end()) {
      unknown.remote.push_back(std::move(remote));
    } else {
      answer_remote(remote, true);
    }
  }
  if (unknown.keep_alives.empty() && unknown.remote.empty()) return;
  unknown_leases_.emplace(result.index, std::move(unknown));
}

void Replica::answer_remote(const RemoteKeepAlives& remote, bool ok) {
  KeepAliveReply reply{.group = options_.raft.group, .boot = remote.boot, .id = remote.id, .ok = ok};
  if (ok) reply.ttl_ms = remote.ttl_ms;
  world_.send(remote.from, env::Lane::kForward, encode(reply));
}

// Another server may have answered the grant of a lease before it was applied here: what the round proved is applied
// now, and with it every grant answered before the keep-alive came.
void Replica::look_again(Instant now) {
  while (!unknown_leases_.empty() && unknown_leases_.begin()->first <= applied_) {
    UnknownLeases unknown = std::move(unknown_leases_.begin()->second);
    unknown_leases_.erase(unknown_leases_.begin());
    if (!keeps_leases() || raft_.status().term != unknown.term) {
      for (const RemoteKeepAlives& remote : unknown.remote) answer_remote(remote, false);
      failed_keep_alives_.insert(failed_keep_alives_.end(), unknown.keep_alives.begin(), unknown.keep_alives.end());
      retry_rounds_at_ = std::min(retry_rounds_at_, now + kRoundRetry);
      continue;
    }
    for (RemoteKeepAlives& remote : unknown.remote) {
      for (size_t i = 0; i < remote.ttl_ms.size(); ++i) {
        if (remote.ttl_ms[i] == 0) remote.ttl_ms[i] = time_of(now, remote.leases[i], remote.renews);
      }
      answer_remote(remote, true);
    }
    for (const WaitingKeepAlive& waiting : unknown.keep_alives) {
      const int64_t ttl_ms = time_of(now, waiting.lease, waiting.renews);
      if (ttl_ms > 0) REACHED(keep_alive_overtook_its_grant);
      --keep_alives_pending_;
      clients_->on_kept_alive(waiting.ticket, ttl_ms);
    }
  }
}

void Replica::release_reads() {
  // In the middle of a large command the state is the one before it.
  for (uint32_t count = 0; !confirmed_reads_.empty() && confirmed_reads_.begin()->first <= applied_; ++count) {
    if (count == options_.reads_per_turn) {
      dirty_ = true;  // the rest with the next turn, at once
      return;
    }
    const WaitingRead waiting = confirmed_reads_.begin()->second;
    confirmed_reads_.erase(confirmed_reads_.begin());
    --reads_pending_;
    clients_->on_read_ready(waiting.ticket);
  }
}

// ---- Leases ----

void Replica::expire_leases(Instant now) {
  if (!keeps_leases() || lease_clock_.next_deadline() > now) return;
  if (!expiry_armed_) {
    // What has arrived already is taken in first: a keep-alive may be among it (rule 2).
    expiry_armed_ = true;
    return;
  }
  expiry_armed_ = false;
  due_.clear();
  lease_clock_.take_due(now, keyspace::kExpireLeasesMax, due_);
  if (due_.empty()) return;
  std::string body;
  keyspace::encode_expire(due_, body);
  const SharedBytes command =
      keyspace::encode_command({.kind = keyspace::CommandKind::kLeaseExpire, .term = raft_.status().term}, body);
  step(now, raft::Propose{.commands = {&command, 1}});
  if (output_.proposal->refusal != raft::Refusal::kNone) {
    lease_clock_.give_back(due_);
  } else {
    note_proposed(command.size());
    counters_.leases_expired += due_.size();
  }
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
  note_proposed(command.size());
  ++counters_.compactions_proposed;
}

// ---- Snapshots ----

void Replica::begin_snapshot(Instant now) {
  if (taking_ || install_ || keyspace_->is_busy() || now < snapshot_not_before_) return;
  if (!retake_snapshot_ && applied_bytes_ < std::max(options_.snapshot_log_bytes, snapshot_file_bytes_ / 2)) return;
  // A server that does not know its members yet cannot say in a snapshot who they are.
  const Membership& membership = raft_.membership_at(applied_);
  if (membership.empty()) return;
  const SnapshotMark mark{.last = {.term = applied_term_, .index = applied_}, .membership = membership};
  applied_bytes_ = 0;
  retake_snapshot_ = false;
  taking_.emplace(Taking{.mark = mark, .reader = std::make_unique<keyspace::SnapshotReader>(*keyspace_)});
  world_.store(SnapshotBeginJob{.group = options_.raft.group, .mark = mark});
}

// A slice per turn, and no more than the disk keeps up with.
void Replica::read_snapshot() {
  if (!taking_ || taking_->reader == nullptr || taking_->pending >= options_.snapshot_bytes_pending_max) return;
  SnapshotContentJob job{.group = options_.raft.group};
  job.last = taking_->reader->read(job.content);
  taking_->pending += job.content.size();
  if (job.last) taking_->reader.reset();
  world_.store(std::move(job));
}

void Replica::on(Instant, const SnapshotContentTaken& result) {
  if (taking_) taking_->pending -= std::min(taking_->pending, result.bytes);
}

void Replica::on(Instant now, const SnapshotStored& result) {
  taking_.reset();
  ++counters_.snapshots_taken;
  snapshot_file_bytes_ = result.file_bytes;
  // Older than what was installed from a peer meanwhile, it is of no use.
  if (result.mark.last.index <= raft_.snapshot().last.index) return;
  step(now, raft::Compact{.mark = result.mark, .keep_from = result.keep_from});
}

void Replica::on(Instant now, const SnapshotNotStored&) {
  taking_.reset();
  snapshot_not_before_ = now + kSnapshotRetry;
  // Due again at once when it may be.
  applied_bytes_ = std::max(options_.snapshot_log_bytes, snapshot_file_bytes_ / 2);
}

// The core says which bytes; the disk has them.
void Replica::send_chunk(const raft::Message& message) {
  if (chunks_.size() >= kChunksPendingMax) return;  // asked again after a while
  const auto& chunk = std::get<raft::SnapshotChunk>(message.body);
  chunks_.emplace(++last_chunk_, message);
  world_.store(
      ChunkReadJob{.group = options_.raft.group, .mark = chunk.mark, .offset = chunk.offset, .message = last_chunk_});
}

void Replica::on(Instant now, ChunkRead& result) {
  const auto node = chunks_.extract(result.message);
  if (!result.found && result.mark.last == raft_.snapshot().last && now >= retaken_at_ + kSnapshotRetry) {
    // Its own file is damaged or gone: whoever needs it, and asks again, gets a new one.
    REACHED(snapshot_taken_again);
    retake_snapshot_ = true;
    retaken_at_ = now;
  }
  if (node.empty() || !result.found) return;
  raft::Message message = node.mapped();
  auto& chunk = std::get<raft::SnapshotChunk>(message.body);
  chunk.bytes = result.bytes;
  chunk.total = result.total;
  std::string frame(1, static_cast<char>(FrameKind::kConsensus));
  raft::encode(message, frame);
  world_.send(message.header.to, env::Lane::kBulk, std::move(frame));
}

void Replica::store_chunk(const raft::ChunkToStore& chunk) {
  world_.store(ChunkStoreJob{.group = options_.raft.group,
                             .from = chunk.from,
                             .mark = chunk.mark,
                             .offset = chunk.offset,
                             .total = chunk.total,
                             .bytes = std::string(chunk.bytes)});
}

void Replica::on(Instant now, const ChunkStored& result) {
  step(now, raft::ChunkStored{
                .from = result.from, .mark = result.mark, .offset = result.offset, .complete = result.complete});
}

// A later state takes the place of this one. Writes that were under way may be part of it: who waits for them cannot be
// told. Their numbers stay, since the leader takes them in order.
void Replica::on(Instant now, StateLoaded& result) {
  if (!install_ || install_->mark.last != result.mark.last) return;  // a later one follows
  REACHED(state_replaced);
  install_.reset();
  ++counters_.snapshots_installed;
  if (taking_) {
    world_.store(SnapshotAbandonJob{.group = options_.raft.group});
    taking_.reset();
  }
  std::vector<Ticket> unknown;
  for (auto& [request, write] : writes_) {
    if (write.term.value() == 0 || write.ticket == 0) continue;
    unknown.push_back(std::exchange(write.ticket, 0));
  }
  clients_->on_state_replaced();
  keyspace_ = std::move(result.keyspace);
  keyspace_->set_answers({.origin = options_.raft.self, .boot = options_.raft.boot});
  applied_ = result.mark.last.index;
  applied_bytes_ = 0;
  applying_ = false;
  for (const Ticket ticket : unknown) clients_->on_write_unknown(ticket);
  abandon_changes();
  if (result.mark.last.term > applied_term_) {
    applied_term_ = result.mark.last.term;
    on_term_passed(applied_term_);
  }
  // It may have become the leader while the state was being loaded.
  if (leads() && applied_term_ == raft_.status().term && !lease_clock_.is_leading()) lead_leases(now);
}

// A full disk is an expected state (fault D9). Its server leads no longer than it must: whoever takes over may have
// space. Where nobody does, releases go on out of the reserve.
void Replica::on(Instant now, const SpaceChanged& result) {
  disk_full_ = result.full;
  if (!disk_full_ || !leads()) return;
  REACHED(leader_disk_full);
  world_.store(UseReserveJob{.group = options_.raft.group});
  step(now, raft::Transfer{});
}

// ---- Comparing states ----

void Replica::tell_digest() {
  const StateDigest state{.group = options_.raft.group, .index = applied_, .digest = keyspace_->digest()};
  const std::string frame = encode(state);
  for (const Member& member : raft_.membership().members()) {
    if (member.id != options_.raft.self) world_.send(member.id, env::Lane::kForward, frame);
  }
  take_verdict(digests_.note_own(state.index, state.digest, raft_.membership()), state.index);
}

void Replica::on(Instant, NodeId from, const StateDigest& frame) {
  if (!raft_.membership().contains(from)) return;
  take_verdict(digests_.note_peer(from, frame.index, frame.digest, raft_.membership()), frame.index);
}

void Replica::take_verdict(DigestComparison::Verdict verdict, LogIndex index) {
  if (verdict == DigestComparison::Verdict::kNone) return;
  ++counters_.digests_different;
  if (verdict == DigestComparison::Verdict::kOdd) world_.on_diverged(index);
}

// ---- Time ----

void Replica::expire_requests(Instant now) {
  if (now < requests_checked_at_ + kRequestCheck) return;
  requests_checked_at_ = now;
  // Requests have one timeout, so their order is that of their deadlines.
  for (auto at = writes_.begin(); at != writes_.end() && at->second.deadline <= now;) {
    const auto write = at++;
    if (write->second.ticket == 0) continue;
    const Ticket ticket = std::exchange(write->second.ticket, 0);
    if (write->second.term.value() == 0) {
      std::deque<uint64_t>& waiting = waiting_[place_of(write->second.lane)];
      const auto place = std::ranges::lower_bound(waiting, write->first);
      ASSERT(place != waiting.end() && *place == write->first);
      waiting.erase(place);
      forget(write);
      clients_->on_write_refused(ticket, RequestRefusal::kNoLeader);
    } else {
      // Its number still belongs to the order in which the leader takes things: it stays until it is met or passed by.
      REACHED(write_outcome_unknown);
      clients_->on_write_unknown(ticket);
    }
  }
  // Taken out first: who is refused may ask again at once.
  std::vector<Ticket> late_reads;
  std::vector<Ticket> late_keep_alives;
  const auto take_late = [now](auto& all, std::vector<Ticket>& late, auto&& waiting_of) {
    std::erase_if(all, [&](const auto& element) {
      if (waiting_of(element).deadline > now) return false;
      late.push_back(waiting_of(element).ticket);
      return true;
    });
  };
  take_late(new_reads_, late_reads, std::identity{});
  take_late(failed_reads_, late_reads, std::identity{});
  take_late(confirmed_reads_, late_reads, [](const auto& confirmed) -> const WaitingRead& { return confirmed.second; });
  take_late(new_keep_alives_, late_keep_alives, std::identity{});
  take_late(failed_keep_alives_, late_keep_alives, std::identity{});
  for (auto& [index, unknown] : unknown_leases_) take_late(unknown.keep_alives, late_keep_alives, std::identity{});
  reads_pending_ -= late_reads.size();
  keep_alives_pending_ -= late_keep_alives.size();
  for (const Ticket ticket : late_reads) clients_->on_read_refused(ticket, RequestRefusal::kTimedOut);
  for (const Ticket ticket : late_keep_alives) clients_->on_keep_alive_refused(ticket, RequestRefusal::kTimedOut);
  // Frames whose answer was lost are asked again.
  for (auto at = forwarded_keep_alives_.begin(); at != forwarded_keep_alives_.end();) {
    if (at->second.deadline > now && at->second.term == raft_.status().term) {
      ++at;
      continue;
    }
    std::vector<WaitingKeepAlive>& waiting = at->second.keep_alives;
    new_keep_alives_.insert(new_keep_alives_.end(), waiting.begin(), waiting.end());
    at = forwarded_keep_alives_.erase(at);
  }
}

}  // namespace conclave::node
