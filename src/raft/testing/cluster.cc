#include "raft/testing/cluster.h"

#include <algorithm>

#include "base/assert.h"
#include "raft/describe.h"
#include "raft/invariants.h"

namespace conclave::raft {
namespace {

constexpr GroupId kGroup{7};
// Snapshots in these tests have this many bytes, sent in pieces of four.
constexpr uint64_t kSnapshotBytes = 10;
constexpr uint64_t kChunkBytes = 4;

}  // namespace

Cluster::Cluster(uint64_t count, const Options& defaults) : defaults_(defaults) {
  std::vector<NodeId> ids;
  for (uint64_t id = 1; id <= count; ++id) ids.push_back(NodeId(id));
  first_membership_ = Membership::of_voters(ids);
  for (uint64_t id = 1; id <= count; ++id) {
    Server& server = servers_[id];
    server.id = NodeId(id);
    server.durable = Durable::bootstrap(kGroup, server.id, first_membership_);
    server.boot = Boot(0);
  }
  for (uint64_t id = 1; id <= count; ++id) restart(id);
  deliver_all();
}

Cluster::Server& Cluster::server(uint64_t id) {
  auto found = servers_.find(id);
  ASSERT(found != servers_.end());
  return found->second;
}

void Cluster::add_server(uint64_t id) {
  Server& added = servers_[id];
  added.id = NodeId(id);
  added.durable.group = kGroup;
  added.boot = Boot(0);
  restart(id);
}

void Cluster::crash(uint64_t id) {
  Server& down = server(id);
  down.raft.reset();
  down.writes.clear();
  down.held.clear();
  say(fmt::format("server {} crashed", id));
}

void Cluster::restart(uint64_t id, const std::vector<LogIndex>& holes, bool keep_terms) {
  restart_with(id, server(id).durable.recover(holes, keep_terms));
}

void Cluster::restart_with(uint64_t id, Recovered&& recovered) {
  Server& up = server(id);
  up.writes.clear();
  up.held.clear();
  up.boot = up.boot.next();
  up.options = defaults_;
  up.options.group = kGroup;
  up.options.self = up.id;
  up.options.boot = up.boot;
  up.options.seed = id * 1000 + up.boot.value();
  up.applied = recovered.snapshot.last.index;
  up.raft = std::make_unique<Raft>(up.options, std::move(recovered));
  say(fmt::format("server {} started, boot {}", id, up.boot));
  step(id, Start{});
}

void Cluster::start_disk(uint64_t id) {
  Server& started = server(id);
  started.disk_stopped = false;
  complete_writes(started);
}

const Output& Cluster::step(uint64_t id, const Input& input) {
  Server& stepped = server(id);
  ASSERT(stepped.raft != nullptr);
  const Invariants::State before = Invariants::capture(*stepped.raft);
  stepped.raft->step(now_, input, output_);
  for (const std::string& violation :
       {Invariants::check(*stepped.raft), Invariants::check_step(before, *stepped.raft, output_)}) {
    if (!violation.empty()) violations_.push_back(fmt::format("server {}: {}", id, violation));
  }
  finish_step(stepped);
  return output_;
}

void Cluster::finish_step(Server& stepped) {
  const Status status = stepped.raft->status();
  if (output_.refused != Refusal::kNone) {
    ++refusals_[output_.refused];
    say(fmt::format("  {} refuses: {}", stepped.id, to_string(output_.refused)));
  }
  if (output_.role_changed) say(fmt::format("  {} is {}", stepped.id, describe(status)));
  if (output_.write) {
    say(fmt::format("  {} {}", stepped.id, describe(*output_.write)));
    stepped.writes.emplace_back(*output_.write);
  }
  if (status.role == Role::kLeader) {
    auto [known, first] = leaders_.try_emplace(status.term, stepped.id);
    if (!first && known->second != stepped.id) {
      violations_.push_back(fmt::format("two leaders of term {}: {} and {}", status.term, known->second, stepped.id));
    }
  }
  for (Outgoing& outgoing : output_.messages) {
    if (auto* chunk = std::get_if<SnapshotChunk>(&outgoing.message.body)) {
      // The driver's part: the bytes.
      static const std::string bytes(kSnapshotBytes, 's');
      chunk->total = kSnapshotBytes;
      chunk->bytes = ByteView(bytes).substr(chunk->offset, kChunkBytes);
    }
    if (outgoing.after.value() == 0) {
      send(outgoing.message);
    } else {
      stepped.held.emplace_back(outgoing.after, OwnedMessage::copy_of(outgoing.message));
    }
  }
  for (const ReadResult& read : output_.reads) {
    say(read.refusal == Refusal::kNone
            ? fmt::format("  {} may answer read {} from index {}", stepped.id, read.context, read.index)
            : fmt::format("  {} fails read {}: {}", stepped.id, read.context, to_string(read.refusal)));
    stepped.reads.push_back(read);
  }
  if (output_.install) {
    say(fmt::format("  {} installs snapshot {}", stepped.id, describe(output_.install->last)));
    stepped.applied = output_.install->last.index;
  }
  if (output_.commit_changed) {
    say(fmt::format("  {} commits up to {}", stepped.id, status.commit));
    note_committed(stepped);
  }
}

void Cluster::note_committed(Server& committing) {
  const Raft& raft = *committing.raft;
  for (LogIndex at = std::max(committing.applied.next(), raft.log().first_index()); at <= raft.status().commit; ++at) {
    const Entry& entry = raft.entry(at);
    auto [known, first] = committed_.try_emplace(at, entry);
    if (!first && !(known->second == entry)) {
      violations_.push_back(fmt::format("server {} commits another entry at {}", committing.id, at));
    }
    committing.applied = at;
  }
}

void Cluster::complete_writes(Server& written) {
  while (written.raft != nullptr && !written.disk_stopped && !written.writes.empty()) {
    const OwnedWrite write = std::move(written.writes.front());
    written.writes.pop_front();
    written.durable.apply(write);
    written.durable.floors = written.raft->floors();
    std::vector<OwnedMessage> ready;
    std::erase_if(written.held, [&](auto& held) {
      if (held.first > write.sequence) return false;
      ready.push_back(std::move(held.second));
      return true;
    });
    for (const OwnedMessage& message : ready) send(message.message());
    step(written.id.value(), WriteDone{.sequence = write.sequence});
  }
}

void Cluster::send(const Message& message) {
  if (lose_ && lose_(message)) return;
  if (cut_[{message.header.from.value(), message.header.to.value()}]) return;
  flights_.push_back(OwnedMessage::copy_of(message));
}

bool Cluster::deliver_one(const std::function<bool(const Message&)>& wanted) {
  auto found = std::ranges::find_if(
      flights_, [&](const OwnedMessage& flight) { return wanted == nullptr || wanted(flight.message()); });
  if (found == flights_.end()) return false;
  // Through bytes and back, as a real link carries it.
  std::string bytes;
  encode(found->message(), bytes);
  flights_.erase(found);
  Result<OwnedMessage> message = OwnedMessage::decode(bytes);
  ASSERT_MSG(message.has_value(), "{}", message.error().message);
  const uint64_t to = message->message().header.to.value();
  if (!servers_.contains(to) || !up(to)) return true;
  say(describe(message->message()));
  step(to, Receive{.message = message->message()});
  if (output_.chunk) {
    const ChunkToStore chunk = *output_.chunk;
    uint64_t& have = server(to).partial[chunk.mark.last.index];
    if (chunk.offset == have) have += chunk.bytes.size();
    step(to, ChunkStored{.from = chunk.from, .mark = chunk.mark, .offset = have, .complete = have == chunk.total});
  }
  complete_writes(server(to));
  return true;
}

void Cluster::drop(const std::function<bool(const Message&)>& unwanted) {
  std::erase_if(flights_, [&](const OwnedMessage& flight) { return unwanted(flight.message()); });
}

void Cluster::deliver_all() {
  for (auto& [id, each] : servers_) complete_writes(each);
  // Bounded: a storm that feeds itself is a violation too.
  for (int rounds = 0; deliver_one(); ++rounds) {
    if (rounds > 200'000) {
      violations_.push_back("messages without end");
      flights_.clear();
    }
  }
}

void Cluster::advance(Duration duration) {
  const Instant end = now_ + duration;
  deliver_all();
  while (true) {
    Instant next = kNever;
    uint64_t due = 0;
    for (auto& [id, each] : servers_) {
      if (each.raft == nullptr) continue;
      const Instant deadline = std::max(each.raft->next_deadline(), now_);
      if (deadline < next) {
        next = deadline;
        due = id;
      }
    }
    if (due == 0 || next > end) break;
    now_ = next;
    step(due, Tick{});
    complete_writes(server(due));
    deliver_all();
  }
  now_ = end;
}

void Cluster::fire_deadline(uint64_t id) {
  const Instant deadline = raft(id).next_deadline();
  ASSERT(deadline != kNever);
  now_ = std::max(now_, deadline);
  step(id, Tick{});
  complete_writes(server(id));
}

const Output& Cluster::propose(uint64_t id, std::string_view command) {
  const SharedBytes bytes = SharedBytes::copy_of(command);
  step(id, Propose{.commands = {&bytes, 1}});
  complete_writes(server(id));
  return output_;
}

const Output& Cluster::read(uint64_t id, uint64_t context) {
  return step(id, Read{.context = context});
}

void Cluster::snapshot(uint64_t id, uint64_t keep) {
  Server& taking = server(id);
  const LogIndex at = taking.applied;
  const SnapshotMark mark{.last = raft(id).log().position_at(at), .membership = raft(id).membership_at(at)};
  const LogIndex keep_from = at.value() > keep ? at.next() - keep : LogIndex(1);
  step(id, Compact{.mark = mark, .keep_from = keep_from});
  complete_writes(taking);
}

void Cluster::isolate(uint64_t id) {
  for (const auto& [other, each] : servers_) {
    if (other == id) continue;
    cut(id, other);
    cut(other, id);
  }
}

uint64_t Cluster::leader() {
  uint64_t leader = 0;
  Term term;
  for (auto& [id, each] : servers_) {
    if (each.raft == nullptr) continue;
    const Status status = each.raft->status();
    if (status.role == Role::kLeader && status.term >= term) {
      leader = id;
      term = status.term;
    }
  }
  return leader;
}

void Cluster::elect(uint64_t id) {
  // Everybody is silent long enough to listen to another, then this one speaks first.
  for (int attempt = 0; attempt < 50 && leader() != id; ++attempt) {
    if (const uint64_t old = leader(); old != 0) {
      advance(defaults_.heartbeat_interval);
      step(old, Transfer{.to = NodeId(id)});
      deliver_all();
      if (leader() == id) break;
    }
    now_ += 2 * defaults_.election_timeout;
    step(id, Tick{});
    complete_writes(server(id));
    deliver_all();
  }
  ASSERT(leader() == id);
  deliver_all();
}

uint64_t Cluster::settle(Duration limit) {
  const Instant end = now_ + limit;
  while (now_ < end) {
    advance(defaults_.heartbeat_interval);
    const uint64_t id = leader();
    if (id == 0) continue;
    const Status status = raft(id).status();
    // Has committed in its term: it leads in deed.
    if (status.commit == status.last.index && status.last.term == status.term) return id;
  }
  return 0;
}

std::vector<std::string> Cluster::committed(uint64_t id) {
  std::vector<std::string> commands;
  const LogIndex applied = server(id).applied;
  for (const auto& [index, entry] : committed_) {
    if (index <= applied && entry.type == EntryType::kCommand) commands.emplace_back(entry.payload.view());
  }
  return commands;
}

}  // namespace conclave::raft
