// Writes of clients: in line, proposed or forwarded to the leader, followed until they are met in the log or known
// never to be (architecture section 1, rule 4).
#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "base/mark.h"
#include "node/replica.h"

namespace conclave::node {
namespace {

// One frame of forwarded commands holds about this much: more gains nothing, less delays nothing.
constexpr size_t kForwardBytes = size_t{1} << 20;

size_t place_of(WriteLane lane) {
  return static_cast<size_t>(lane);
}

// A limit of a queue for one lane: see ReplicaOptions::writes_pending_max.
size_t limit_of(size_t limit, WriteLane lane) {
  return lane == WriteLane::kRelease ? limit + limit / 4 : limit;
}

}  // namespace

WriteLane lane_of(keyspace::CommandKind kind, ByteView body) {
  switch (kind) {
    case keyspace::CommandKind::kInternal:
      return keyspace::adds_nothing(body) ? WriteLane::kRelease : WriteLane::kWrite;
    case keyspace::CommandKind::kDeleteRange:
    case keyspace::CommandKind::kCompact:
    case keyspace::CommandKind::kLeaseRevoke:
    case keyspace::CommandKind::kLeaseExpire:
      return WriteLane::kRelease;
    default:
      return WriteLane::kWrite;
  }
}

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
  const WriteLane lane = lane_of(header.kind, body);
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
    if (!forwarded_.empty() && !leads() && forward_term_ == status.term) {
      if (status.leader.is_set()) {
        REACHED(forward_sent_again);
        resend(now, forwarded_.begin()->first);
      } else {
        // It may be heard of again in the same term, and new writes, which would show it the gap, may find no place.
        forward_retry_at_ = now + options_.forward_retry;
      }
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

std::optional<RequestRefusal> Replica::refusal_of(Instant now, WriteLane lane, size_t bytes) const {
  const bool release = lane == WriteLane::kRelease;
  if (disk_full_ && !release) return RequestRefusal::kNoSpace;
  const Term term = raft_.status().term;
  const size_t undone = backlog_.bytes(term);
  const size_t limit = options_.raft.uncommitted_bytes_max;
  if (undone > 0 && undone + bytes > (release ? limit : limit / 4 * 3)) return RequestRefusal::kOverloaded;
  if (backlog_.age(now, term) > (release ? options_.request_timeout : options_.request_timeout / 2)) {
    REACHED(backlog_too_old);
    return RequestRefusal::kOverloaded;
  }
  return std::nullopt;
}

void Replica::note_proposed(Instant now, size_t bytes) {
  const raft::Status status = raft_.status();
  backlog_.note_proposed(now, status.term, status.last.index, bytes);
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

// As many of those that wait as a turn takes, in batches that the log can write.
void Replica::propose(Instant now, WriteLane lane) {
  const std::deque<uint64_t>& waiting = waiting_[place_of(lane)];
  size_t left = std::min<size_t>(waiting.size(), options_.entries_per_turn);
  while (left > 0) {
    const std::optional<size_t> taken = propose_batch(now, lane, left);
    // Handing over: they wait for the next leader.
    if (!taken) return;
    left -= *taken;
  }
  // The rest with the next turn, at once.
  if (!waiting.empty()) dirty_ = true;
}

// Of the first `count` that wait, how many are done with, proposed or refused; at least one. Nothing: none is.
std::optional<size_t> Replica::propose_batch(Instant now, WriteLane lane, size_t count) {
  std::deque<uint64_t>& waiting = waiting_[place_of(lane)];
  std::vector<SharedBytes> commands;
  size_t bytes = 0;
  std::optional<RequestRefusal> refusal;
  while (commands.size() < count) {
    const SharedBytes& command = writes_.at(waiting[commands.size()]).command;
    if (!commands.empty() && bytes + command.size() > options_.batch_bytes_max) break;
    refusal = refusal_of(now, lane, bytes + command.size());
    if (refusal) break;
    bytes += command.size();
    commands.push_back(command);
  }
  if (!commands.empty()) {
    step(now, raft::Propose{.commands = commands});
    const raft::ProposalResult result = *output_.proposal;
    if (result.refusal == raft::Refusal::kOverloaded) {
      refuse_waiting(lane, count, RequestRefusal::kOverloaded);
      return count;
    }
    if (result.refusal != raft::Refusal::kNone) return std::nullopt;
    note_proposed(now, bytes);
    for (size_t i = 0; i < commands.size(); ++i) writes_.at(waiting[i]).term = result.term;
    counters_.writes_proposed += commands.size();
    waiting.erase(waiting.begin(), waiting.begin() + static_cast<ptrdiff_t>(commands.size()));
  }
  if (!refusal) return commands.size();
  refuse_waiting(lane, count - commands.size(), *refusal);
  return count;
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
    if (lane_of(command.header.kind, command.body) != WriteLane::kRelease) lane = WriteLane::kWrite;
    commands.push_back(SharedBytes::copy_of(frame.commands[i]));
  }
  for (size_t at = 0; at < commands.size();) {
    size_t bytes = commands[at].size();
    size_t end = at + 1;
    while (end < commands.size() && bytes + commands[end].size() <= options_.batch_bytes_max) {
      bytes += commands[end++].size();
    }
    const std::optional<RequestRefusal> refused = refusal_of(now, lane, bytes);
    raft::Refusal refusal = raft::Refusal::kOverloaded;
    if (!refused) {
      step(now, raft::Propose{.commands = std::span(commands).subspan(at, end - at)});
      refusal = output_.proposal->refusal;
    }
    if (refusal == raft::Refusal::kNone) {
      note_proposed(now, bytes);
      source.next += end - at;
      at = end;
      continue;
    }
    if (refusal == raft::Refusal::kOverloaded) {
      // Passed over for good: a copy of this frame that comes later must not be taken after its sender was told no.
      REACHED(forward_refused);
      reply.refused_first = source.next;
      reply.refused_count = commands.size() - at;
      reply.no_space = refused == RequestRefusal::kNoSpace;
      source.next += reply.refused_count;
      reply.next = source.next;
      world_.send(from, env::Lane::kForward, encode(reply));
    }
    // Otherwise it is handing over: the next leader will be asked.
    return;
  }
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

void Replica::expire_writes(Instant now) {
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
}

}  // namespace conclave::node
