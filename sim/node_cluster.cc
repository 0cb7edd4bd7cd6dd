#include "sim/node_cluster.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "etcd/rpc.pb.h"

namespace conclave::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

// From a client to the server it asks, and back.
// Of a command beside its value: header, key.
constexpr size_t kEntryBytes = 64;
constexpr Duration kClientDelay = microseconds(100);
constexpr Duration kAdministerMean = milliseconds(500);
constexpr Duration kWatchAgain = milliseconds(100);
constexpr Duration kLookAtLeases = milliseconds(50);
// More than a run has.
constexpr size_t kLeasesLookedAt = 1000;
// Of the command that ends all leases of a run.
constexpr size_t kExpireBytesMax = 300;
constexpr int kRefusalsCounted = 6;
// Operations of each client that must be answered after the healing.
constexpr uint64_t kLastOperations = 2;

// As an operator would ask for it. A voter is not made a learner: it leaves.
std::optional<node::MemberChange> change_to(const Membership& current, const Membership& target) {
  NodeId gone;
  for (const Member& member : current.members()) {
    const Member* after = target.find(member.id);
    if (after == nullptr || (member.role == MemberRole::kVoter && after->role != MemberRole::kVoter)) gone = member.id;
  }
  for (const Member& member : target.members()) {
    const Member* before = current.find(member.id);
    if (before == nullptr) {
      if (gone.is_set())
        return node::MemberChange{.kind = node::MemberChangeKind::kReplace, .id = member.id, .replaced = gone};
      const bool promotable = member.role == MemberRole::kPromotable;
      return node::MemberChange{
          .kind = promotable ? node::MemberChangeKind::kAddPromotable : node::MemberChangeKind::kAddLearner,
          .id = member.id};
    }
    if (before->role == MemberRole::kLearner && member.role == MemberRole::kPromotable) {
      return node::MemberChange{.kind = node::MemberChangeKind::kPromote, .id = member.id};
    }
  }
  if (!gone.is_set()) return std::nullopt;
  return node::MemberChange{.kind = node::MemberChangeKind::kRemove, .id = gone};
}

}  // namespace

// Watches all keys from the first revision on, through whatever servers there are.
class NodeCluster::Watcher final : public WatchSink {
 public:
  Watcher(NodeCluster& cluster, size_t number) : cluster_(cluster), name_(std::to_string(number)) {}
  void attach() {
    planned_ = false;
    const size_t node = cluster_.pick_server();
    NodeServer* server = cluster_.server(node);
    if (server == nullptr || server->replica() == nullptr || server->is_dead()) {
      plan();
      return;
    }
    server_ = node;
    attached_ = true;
    // In the middle of a revision: from its beginning, and what was had of it comes again.
    if (place_.events == 0) {
      server->watch(*this, place_.revision + 1);
    } else {
      place_.events = 0;
      server->watch(*this, place_.revision);
    }
  }
  void on_response(const keyspace::WatchResponse& response) override {
    etcdserverpb::WatchResponse decoded;
    if (!decoded.ParseFromString(response.body)) {
      cluster_.check_.violate("a watch response cannot be parsed");
      return;
    }
    if (decoded.canceled() && decoded.compact_revision() > 0) {
      ++cluster_.result_.counts["watches begun again after a compaction"];
      cluster_.check_.note_compacted(name_, place_, decoded.compact_revision());
      // Not from within the server's turn.
      cluster_.world_.scheduler().schedule(cluster_.world_.now(), [this] { move(); });
      return;
    }
    if (decoded.canceled()) {
      cluster_.check_.violate(fmt::format("watcher {} was canceled: {}", name_, decoded.cancel_reason()));
      return;
    }
    for (const mvccpb::Event& event : decoded.events()) {
      cluster_.check_.note_event(name_, place_, event.kv().mod_revision(),
                                 {.key = event.kv().key(),
                                  .value = event.kv().value(),
                                  .lease = LeaseId(event.kv().lease()),
                                  .is_put = event.type() == mvccpb::Event::PUT});
    }
  }
  void on_watch_lost() override {
    attached_ = false;
    plan();
  }
  // To another server, or one of the core.
  void move() {
    if (!attached_) return;
    NodeServer* server = cluster_.server(server_);
    if (server != nullptr) server->unwatch(*this);
    on_watch_lost();
  }
  // The newest revision had.
  [[nodiscard]] int64_t last() const { return place_.revision; }
  [[nodiscard]] size_t server() const { return server_; }

 private:
  void plan() {
    if (std::exchange(planned_, true)) return;
    cluster_.world_.scheduler().schedule(cluster_.world_.now() + kWatchAgain, [this] { attach(); });
  }
  NodeCluster& cluster_;
  const std::string name_;
  NodeCheck::Place place_;
  size_t server_ = 0;
  bool attached_ = false;
  bool planned_ = false;
};

NodeCluster::NodeCluster(World& world, const NodeKnobs& knobs, bool calm, RunResult& result)
    : world_(world),
      knobs_(knobs),
      result_(result),
      check_({.clocks_lie = world.parameters().enabled[FaultKind::kDriftBeyondBound], .calm = calm}),
      random_(world.decisions().generator("node.cluster")),
      machines_(world.size()),
      locks_(world, *this, check_, knobs_, result),
      sessions_(world, *this, check_, locks_.check(), knobs_, result) {
  world_.set_host(this);
  for (size_t node = 0; node < machines_.size(); ++node) ids_.push_back(SimNetwork::id_of(node));
}

NodeCluster::~NodeCluster() {
  world_.set_host(nullptr);
  machines_.clear();  // before the watchers and waiters they tell
}

void NodeCluster::install() {
  std::vector<NodeId> voters;
  voters.reserve(machines_.size());
  for (size_t node = 0; node < machines_.size(); ++node) {
    if (!knobs_.spare[node]) voters.push_back(ids_[node]);
  }
  const Membership membership = Membership::of_voters(voters);
  for (size_t node = 0; node < machines_.size(); ++node) {
    if (!knobs_.spare[node]) NodeServer::lay_out(world_, check_, knobs_, node, membership);
  }
  world_.run_for(seconds(2));
  world_.start_all();
}

void NodeCluster::on_start(size_t node) {
  MachineState& machine = machines_[node];
  ++machine.boot;
  machine.server = std::make_unique<NodeServer>(world_, check_, knobs_, node, machine.boot);
  machine.server->start();
}

void NodeCluster::note_counters(NodeServer& server) {
  if (server.replica() == nullptr) return;
  const node::ReplicaCounters& counters = server.replica()->counters();
  result_.counts["snapshots taken"] += counters.snapshots_taken;
  result_.counts["snapshots installed"] += counters.snapshots_installed;
  result_.counts["writes forwarded"] += counters.writes_forwarded;
}

void NodeCluster::on_stop(size_t node) {
  if (machines_[node].server == nullptr) return;
  note_counters(*machines_[node].server);
  if (const node::Replica* replica = machines_[node].server->replica()) {
    machines_[node].last_membership = replica->raft().membership();
  }
  machines_[node].server.reset();
  machines_[node].lateness.reset();
}

void NodeCluster::count(RunResult& result) {
  for (MachineState& machine : machines_) {
    if (machine.server != nullptr) note_counters(*machine.server);
  }
  result.counts["entries applied"] = check_.entries_applied();
  result.counts["leases expired"] = check_.leases_expired();
  locks_.count(result);
  sessions_.count(result);
  for (const auto& watcher : watchers_)
    result.counts["revisions watched"] += static_cast<uint64_t>(watcher->last() - 1);
}

size_t NodeCluster::pick_server(size_t except) {
  std::vector<size_t> able;
  for (size_t node = 0; node < machines_.size(); ++node) {
    const bool asked = core_.empty() || core_[node];
    if (asked && node != except && world_.is_running(node) && is_member(node)) able.push_back(node);
  }
  if (!able.empty()) return able[random_.below(able.size())];
  return except != SIZE_MAX ? except : random_.below(machines_.size());
}

bool NodeCluster::is_member(size_t node) {
  const size_t leads = leader();
  return leads == SIZE_MAX || machines_[leads].server->replica()->raft().membership().contains(ids_[node]);
}

bool NodeCluster::is_told(size_t node) {
  const size_t leads = leader();
  if (leads == SIZE_MAX) return true;
  NodeServer* server = machines_[node].server.get();
  const node::Replica* replica = server == nullptr ? nullptr : server->replica();
  return replica != nullptr && is_member(node) && replica->applied() >= machines_[leads].server->replica()->applied();
}

void NodeCluster::call(size_t node, std::function<void(NodeServer&)> what) {
  if (!world_.is_running(node)) return;
  world_.scheduler().schedule(world_.machine(node).gate, world_.now() + kClientDelay,
                              [this, node, what = std::move(what)] { what(*machines_[node].server); });
}

NodeServer::Done NodeCluster::reply_to(std::function<void(const NodeAnswer&)> take) {
  return [this, take = std::move(take)](const NodeAnswer& answer) {
    world_.scheduler().schedule(world_.now() + kClientDelay, [take, answer] { take(answer); });
  };
}

// --- Clients that write and read.

void NodeCluster::start_clients() {
  clients_.resize(knobs_.clients);
  for (size_t i = 0; i < clients_.size(); ++i) {
    clients_[i].server = pick_server();
    plan_operation(i, random_.exponential(knobs_.think_mean));
  }
  holders_.resize(knobs_.lease_clients);
  for (size_t i = 0; i < holders_.size(); ++i) plan_holder(i, random_.exponential(milliseconds(500)));
  for (size_t i = 0; i < knobs_.watchers; ++i) {
    watchers_.push_back(std::make_unique<Watcher>(*this, i));
    watchers_.back()->attach();
  }
  locks_.start();
  sessions_.start();
  look_at_leases();
  administer();
}

void NodeCluster::plan_operation(size_t client, Duration after) {
  world_.scheduler().schedule(world_.now() + after, [this, client] { begin_operation(client); });
}

void NodeCluster::begin_operation(size_t at) {
  Client& client = clients_[at];
  if (!core_.empty() && client.done_since_heal >= kLastOperations) return;
  if (!world_.is_running(client.server) || (!core_.empty() && !core_[client.server])) client.server = pick_server();
  using Kind = NodeOperation::Kind;
  NodeOperation operation{.key = fmt::format("key{}", random_.below(knobs_.keys)), .called = world_.now()};
  if (!random_.chance(knobs_.read_percent, 100)) {
    const uint64_t draw = random_.below(100);
    operation.kind = draw < knobs_.swap_percent                           ? Kind::kSwap
                     : draw < knobs_.swap_percent + knobs_.delete_percent ? Kind::kDelete
                                                                          : Kind::kPut;
  }
  if (operation.kind == Kind::kSwap) operation.expected = client.seen[operation.key];
  if (operation.kind == Kind::kPut || operation.kind == Kind::kSwap) {
    operation.value = fmt::format("{}", ++values_);
    operation.value.resize(std::max(operation.value.size(), knobs_.value_bytes), ' ');
  }
  client.operation = operations_.size();
  operations_.push_back(operation);
  ++result_.operations_attempted;
  auto done =
      reply_to([this, at, index = client.operation](const NodeAnswer& answer) { take_answer(at, index, answer); });
  call(client.server, [operation, done](NodeServer& server) {
    switch (operation.kind) {
      case NodeOperation::Kind::kGet:
        server.get(operation.key, done);
        return;
      case NodeOperation::Kind::kPut:
        server.put(operation.key, operation.value, LeaseId(), done);
        return;
      case NodeOperation::Kind::kSwap:
        server.swap(operation.key, operation.expected, operation.value, done);
        return;
      case NodeOperation::Kind::kDelete:
        server.erase(operation.key, done);
        return;
    }
  });
  world_.scheduler().schedule(world_.now() + knobs_.operation_timeout, [this, at, index = client.operation] {
    if (clients_[at].operation != index) return;
    clients_[at].server = pick_server(clients_[at].server);
    end_operation(at, NodeOutcome::kUnknown, random_.between(milliseconds(1), Duration(milliseconds(50))));
  });
}

void NodeCluster::take_answer(size_t at, size_t index, const NodeAnswer& answer) {
  Client& client = clients_[at];
  NodeOperation& operation = operations_[index];
  const bool late = client.operation != index;
  // A late answer is an answer all the same; only its client has gone on.
  if (operation.outcome == NodeOutcome::kUnknown && answer.outcome != NodeOutcome::kUnknown) {
    operation.outcome = answer.outcome;
    operation.returned = world_.now();
    operation.revision = answer.revision;
    operation.changed = answer.changed;
    operation.read = answer.value;
    operation.mod_revision = answer.mod_revision;
    if (answer.error != keyspace::ErrorId::kNone) {
      check_.violate(fmt::format("an operation was refused: {}", keyspace::error_text(answer.error)));
    }
    if (operation.outcome == NodeOutcome::kDone) {
      const bool gone = operation.kind == NodeOperation::Kind::kDelete;
      client.seen[operation.key] = gone ? 0 : operation.changed ? operation.revision : operation.mod_revision;
    }
  }
  if (late) return;
  if (answer.outcome != NodeOutcome::kDone) {
    client.server = pick_server(client.server);
    client.refusals = std::min(client.refusals + 1, kRefusalsCounted);
    end_operation(at, answer.outcome, random_.between(milliseconds(50), Duration(milliseconds(250 * client.refusals))));
    return;
  }
  ++result_.operations_acknowledged;
  ++client.done_since_heal;
  client.refusals = 0;
  end_operation(at, NodeOutcome::kDone, random_.exponential(knobs_.think_mean));
}

void NodeCluster::end_operation(size_t at, NodeOutcome outcome, Duration pause) {
  Client& client = clients_[at];
  NodeOperation& operation = operations_[client.operation];
  operation.outcome = outcome;
  client.operation = SIZE_MAX;
  plan_operation(at, pause);
}

// --- Holders of leases.

void NodeCluster::plan_holder(size_t holder, Duration after) {
  world_.scheduler().schedule(world_.now() + after, [this, holder] { act_holder(holder); });
}

void NodeCluster::act_holder(size_t at) {
  Holder& holder = holders_[at];
  if (!core_.empty()) return;  // all are let go
  holder.server = pick_server();
  holder.sent = world_.now();
  auto done = reply_to([this, at, asked = ++holder.asked, grants = !holder.lease.is_set()](const NodeAnswer& answer) {
    take_lease_answer(at, asked, grants, answer);
  });
  // No answer: asked again, for as long as the lease may live; then another one.
  const uint64_t asked = holder.asked;
  if (!holder.lease.is_set()) {
    holder = {.lease = next_lease(),
              .ttl = seconds(1 + static_cast<int64_t>(random_.below(4))),
              .sent = holder.sent,
              .asked = asked,
              .renewals_left = static_cast<int>(random_.below(30)),
              .server = holder.server};
    call(holder.server,
         [lease = holder.lease, ttl = holder.ttl, done](NodeServer& server) { server.grant(lease, ttl, done); });
  } else if (holder.renewals_left > 0) {
    --holder.renewals_left;
    check_.note_asked(holder.lease, holder.sent, holder.ttl);
    call(holder.server, [lease = holder.lease, done](NodeServer& server) { server.keep_alive(lease, done); });
  } else {
    if (random_.coin()) {
      call(holder.server, [lease = holder.lease, done](NodeServer& server) { server.revoke(lease, done); });
    }
    holder.lease = LeaseId();
    plan_holder(at, random_.exponential(milliseconds(1000)));
    return;
  }
  plan_holder(at, holder.ttl / 3);
}

void NodeCluster::take_lease_answer(size_t at, uint64_t asked, bool grants, const NodeAnswer& answer) {
  Holder& holder = holders_[at];
  if (holder.asked != asked || !holder.lease.is_set() || answer.outcome != NodeOutcome::kDone) return;
  if (grants) {
    if (answer.error != keyspace::ErrorId::kNone) return;
    check_.note_asked(holder.lease, world_.now(), holder.ttl);
    // What a lease is for. It may have ended meanwhile.
    call(holder.server, [lease = holder.lease, value = next_value()](NodeServer& server) {
      server.put(NodeCheck::leased_key(lease), value, lease, [](const NodeAnswer&) {});
    });
  } else if (answer.ttl_ms == 0) {
    check_.note_gone(holder.lease, world_.now());
    holder.lease = LeaseId();  // gone
    return;
  } else if (answer.ttl_ms != to_milliseconds(holder.ttl)) {
    check_.violate(fmt::format("lease {} was granted for {} ms and kept alive for {}", holder.lease,
                               to_milliseconds(holder.ttl), answer.ttl_ms));
  }
  check_.note_trusted(holder.lease, holder.sent, holder.ttl);
}

void NodeCluster::look_at_leases() {
  // A timer set by a clock that changes its pace without bound comes as late as it may.
  if (world_.parameters().enabled[FaultKind::kDriftBeyondBound]) return;
  for (size_t node = 0; node < machines_.size(); ++node) look_at_leases_of(node);
  world_.scheduler().schedule(world_.now() + kLookAtLeases, [this] { look_at_leases(); });
}

void NodeCluster::look_at_leases_of(size_t node) {
  MachineState& machine = machines_[node];
  node::Replica* replica = machine.server == nullptr ? nullptr : machine.server->replica();
  if (replica == nullptr || machine.server->is_dead() || !replica->lease_clock().is_leading()) {
    machine.lateness.reset();
    return;
  }
  const raft::Status status = replica->raft().status();
  if (!machine.lateness || machine.leads_in != status.term) {
    machine.lateness.emplace(knobs_.replica.leases);
    machine.leads_in = status.term;
  }
  const Instant now = world_.machine(node).clock.now();
  LeaseLateness::Look look{.now = now};
  for (const keyspace::LeaseInfo& lease : replica->keyspace().leases(LeaseId(INT64_MIN), kLeasesLookedAt)) {
    look.leases.push_back(
        {.id = lease.id, .ttl_ms = lease.ttl_ms, .remaining_ms = replica->lease_clock().remaining_ms(lease.id, now)});
  }
  // What is proposed and not agreed, as far as consensus takes it; the end of all leases is small beside it.
  size_t bytes = kExpireBytesMax;
  for (LogIndex index = status.commit.next(); index <= status.last.index; index = index.next()) {
    bytes += replica->raft().entry(index).payload.size();
  }
  look.able = !world_.machine(node).gate.is_frozen() && !status.transferring && !replica->keyspace().is_busy() &&
              bytes <= knobs_.replica.raft.uncommitted_bytes_max;
  const std::string wrong = machine.lateness->look(look);
  if (!wrong.empty()) check_.violate(fmt::format("server {}: {}", ids_[node], wrong));
}

// --- The administrator.

void NodeCluster::administer() {
  if (!core_.empty()) return;
  if (random_.chance(knobs_.transfer_per_thousand, 1000)) {
    for (size_t node = 0; node < machines_.size(); ++node) {
      NodeServer* server = machines_[node].server.get();
      if (server == nullptr || server->replica() == nullptr || world_.machine(node).gate.is_frozen()) continue;
      if (server->replica()->raft().status().role == raft::Role::kLeader) {
        server->transfer();
        ++result_.counts["transfers asked"];
      }
    }
  }
  if (random_.chance(knobs_.membership_per_thousand, 1000)) {
    const size_t leads = leader();
    if (leads != SIZE_MAX && world_.now() >= next_change_at_) change_membership(leads);
  }
  if (random_.chance(knobs_.clock_lease_per_thousand, 1000)) {
    const bool on = random_.chance(2, 3);
    ++result_.counts[on ? "clock leases switched on" : "clock leases switched off"];
    call(pick_server(), [on](NodeServer& server) { server.set_clock_lease_reads(on); });
  }
  if (random_.chance(knobs_.compact_per_thousand, 1000)) {
    // At what some client has seen, or what nobody wrote yet, which is refused.
    const Client& client = clients_[random_.below(clients_.size())];
    int64_t revision = 0;
    for (const auto& [key, seen] : client.seen) revision = std::max(revision, seen);
    revision += random_.chance(1, 16) ? 1000 : 0;
    ++result_.counts["compactions asked"];
    call(pick_server(), [revision](NodeServer& server) { server.compact(revision, [](const NodeAnswer&) {}); });
  }
  if (random_.chance(1, 8) && !watchers_.empty()) watchers_[random_.below(watchers_.size())]->move();
  world_.scheduler().schedule(world_.now() + random_.exponential(kAdministerMean), [this] { administer(); });
}

// Drawn for the configuration as the leader has it, asked of any server. One at a time: made later than drawn, a change
// could leave those whose disk may be destroyed in a majority.
void NodeCluster::change_membership(size_t leads) {
  const Membership& current = machines_[leads].server->replica()->raft().membership();
  const auto target = draw_membership_change(current, ids_, world_.parameters(), random_);
  if (!target) return;
  const auto change = change_to(current, *target);
  if (!change) return;
  const size_t node = pick_server();
  ++result_.counts["membership changes asked"];
  next_change_at_ = world_.now() + 3 * knobs_.replica.request_timeout;
  auto done = reply_to([this, node, change = *change](const NodeAnswer& answer) {
    if (answer.outcome == NodeOutcome::kUnknown) {
      ++result_.counts["membership changes unknown"];
      return;
    }
    next_change_at_ = world_.now();
    const bool made = answer.outcome == NodeOutcome::kDone;
    ++result_.counts[made ? "membership changes made" : "membership changes refused"];
    if (made) judge_change(node, change);
  });
  call(node, [change = *change, done](NodeServer& server) { server.administer(change, done); });
}

// What a server answered as done stands in the configuration of whoever leads in its term or a later one: no other
// change was asked for since.
void NodeCluster::judge_change(size_t answered, const node::MemberChange& change) {
  const auto raft_of = [this](size_t node) -> const raft::Raft* {
    NodeServer* server = machines_[node].server.get();
    return server == nullptr || server->replica() == nullptr ? nullptr : &server->replica()->raft();
  };
  const size_t leads = leader();
  if (leads == SIZE_MAX || raft_of(answered) == nullptr) return;
  if (raft_of(leads)->status().term < raft_of(answered)->status().term) return;
  const Membership& membership = machines_[leads].server->replica()->raft().membership();
  const bool leaves = change.kind == node::MemberChangeKind::kRemove;
  const Member* member = membership.find(change.id);
  const bool stands = member != nullptr && member->role != MemberRole::kNone;
  if (stands == leaves) {
    check_.violate(
        fmt::format("a change of {} was answered as made, and the leader has {}", change.id, membership.describe()));
  }
}

// --- The end.

std::vector<bool> NodeCluster::choose_core() {
  std::vector<Membership> configurations;
  for (const MachineState& machine : machines_) {
    const node::Replica* replica = machine.server == nullptr ? nullptr : machine.server->replica();
    configurations.push_back(replica != nullptr ? replica->raft().membership() : machine.last_membership);
  }
  return choose_core_of(configurations, ids_, world_.parameters(), random_);
}

void NodeCluster::begin_liveness(const std::vector<bool>& core) {
  core_ = core;
  for (Client& client : clients_) {
    client.done_since_heal = 0;
    client.refusals = 0;
  }
  for (const auto& watcher : watchers_) watcher->move();
  locks_.begin_liveness();
  sessions_.begin_liveness();
  move_strays();
}

// A server that has left is told nothing any more, and one outside the core may not be: whoever watches through it goes
// elsewhere.
void NodeCluster::move_strays() {
  for (const auto& watcher : watchers_) {
    if (!is_member(watcher->server()) || !core_[watcher->server()]) watcher->move();
  }
  locks_.move_strays();
  sessions_.move_strays();
  world_.scheduler().schedule(world_.now() + seconds(1), [this] { move_strays(); });
}

size_t NodeCluster::leader() {
  size_t leader = SIZE_MAX;
  Term term;
  for (size_t node = 0; node < machines_.size(); ++node) {
    NodeServer* server = machines_[node].server.get();
    if (server == nullptr || server->replica() == nullptr) continue;
    const raft::Status status = server->replica()->raft().status();
    if (status.role == raft::Role::kLeader && status.term >= term) {
      term = status.term;
      leader = node;
    }
  }
  return leader;
}

Duration NodeCluster::catch_up_time() {
  size_t bytes = 0;
  LogIndex least(UINT64_MAX);
  LogIndex most;
  for (const MachineState& machine : machines_) {
    const node::Replica* replica = machine.server == nullptr ? nullptr : machine.server->replica();
    if (replica == nullptr) continue;
    bytes = std::max(bytes, replica->keyspace().store().used_bytes());
    least = std::min(least, replica->raft().status().last.index);
    most = std::max(most, replica->raft().status().last.index);
  }
  const NetworkOptions& network = world_.parameters().network;
  const raft::Options& raft = knobs_.replica.raft;
  const Duration round_trip = 2 * (network.delay_min + network.delay_mean) + world_.parameters().disk.sync_mean;
  const size_t chunks = bytes / knobs_.storage.chunk_bytes;
  // Half a queue of messages under way.
  const size_t messages = std::clamp<size_t>(network.queue_frames_max / 2, 1, raft.inflight_messages_max);
  const size_t in_message = std::clamp<size_t>(raft.bytes_per_message_max / (knobs_.value_bytes + kEntryBytes), 1,
                                               raft.entries_per_message_max);
  const size_t entries = most > least ? static_cast<size_t>(most - least) : 0;
  // Once more for what is sent in vain: an older state, a chunk asked for again, what a queue could not hold.
  return 2 * round_trip * static_cast<int64_t>(chunks + entries / (messages * in_message));
}

std::string NodeCluster::why_not_converged() {
  for (size_t i = 0; i < clients_.size(); ++i) {
    if (clients_[i].done_since_heal < kLastOperations || clients_[i].operation != SIZE_MAX) {
      return fmt::format("client {} has {} answers", i, clients_[i].done_since_heal);
    }
  }
  if (std::string why = locks_.why_not_done(); !why.empty()) return why;
  if (std::string why = sessions_.why_not_done(); !why.empty()) return why;
  const size_t leads = leader();
  if (leads == SIZE_MAX) return "no leader";
  NodeServer& first = *machines_[leads].server;
  node::Replica& leading = *first.replica();
  const Membership& membership = leading.raft().membership();
  if (membership.is_joint()) return "a change of membership is under way";
  if (leading.applied() != leading.raft().status().last.index) return first.describe();
  if (!leading.keyspace().leases(LeaseId(INT64_MIN), 1).empty()) return first.describe() + ": a lease has not ended";
  // A leader outside the core that a quorum follows may not be reached by all of the core, and no leader that they do
  // reach comes in its place: then as many as a quorum needs must be even.
  const bool inside = core_.empty() || core_[leads];
  size_t even = 0;
  size_t voters = 0;
  for (size_t node = 0; node < machines_.size(); ++node) {
    const Member* member = membership.find(ids_[node]);
    if (member == nullptr) continue;
    const bool votes = member->role == MemberRole::kVoter;
    voters += votes ? 1 : 0;
    if (inside && !core_.empty() && !core_[node]) continue;
    NodeServer* server = machines_[node].server.get();
    if (server == nullptr || server->replica() == nullptr) {
      if (inside) return fmt::format("machine {} is down", node);
      continue;
    }
    node::Replica& replica = *server->replica();
    if (replica.applied() == leading.applied() && replica.keyspace().digest() == leading.keyspace().digest()) {
      even += votes ? 1 : 0;
    } else if (inside) {
      return server->describe() + " differs from " + first.describe();
    }
  }
  if (!inside) return even > voters / 2 ? "" : fmt::format("{} of {} are even", even, voters);
  for (const auto& watcher : watchers_) {
    if (watcher->last() < leading.keyspace().revision().value()) {
      return fmt::format("a watcher has seen revision {} of {}", watcher->last(), leading.keyspace().revision());
    }
  }
  return {};
}

}  // namespace conclave::sim
