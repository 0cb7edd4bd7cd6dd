#include "sim/raft_cluster.h"

#include <algorithm>
#include <numeric>

#include "base/assert.h"
#include "base/mark.h"
#include "sim/hostile.h"

namespace conclave::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// From a client to the server it asks, and back.
constexpr Duration kClientDelay = microseconds(100);
constexpr Duration kAdministerMean = milliseconds(500);
constexpr Duration kHostileMean = milliseconds(20);
constexpr size_t kSentMax = 64;
// Refused so often in a row, a client waits no longer still.
constexpr int kRefusalsCounted = 6;
// Operations of each client that must be answered after the healing.
constexpr uint64_t kLastOperations = 2;

}  // namespace

RaftCluster::RaftCluster(World& world, const RaftKnobs& knobs, RunResult& result)
    : world_(world),
      knobs_(knobs),
      result_(result),
      random_(world.decisions().generator("raft.cluster")),
      machines_(world.size()) {
  world_.set_host(this);
  for (size_t node = 0; node < machines_.size(); ++node) machines_[node].id = NodeId(node + 1);
}

// --- Machines.

void RaftCluster::lay_out(size_t node, bool voter) {
  MachineState& machine = machines_[node];
  SimDisk& disk = world_.machine(node).disk;
  Membership membership;
  Vote vote;
  if (voter) {
    std::vector<NodeId> voters;
    for (size_t each = 0; each < machines_.size(); ++each) {
      if (!knobs_.spare[each]) voters.push_back(machines_[each].id);
    }
    membership = Membership::of_voters(voters);
    vote.incarnation = membership.incarnation_of(machine.id);
  }
  // Whoever sets a machine up sees to it that the disk took it.
  const PerFault<uint32_t> rates = disk.per_million();
  disk.per_million() = {};
  const MinimalLogOptions options{
      .group = kRaftGroup, .self = machine.id, .sectors = knobs_.ring_sectors, .runs_max = knobs_.runs_max};
  const Status laid_out = MinimalLog::lay_out(disk, options, vote, membership);
  disk.per_million() = rates;
  // Without space the server lays it out when it starts.
  ASSERT(laid_out || laid_out.error().code == ErrorCode::kNoSpace);
  check_.note_new(machine.id, {.vote = vote, .snapshot = {.membership = membership}, .first = LogIndex(1)});
}

void RaftCluster::install() {
  for (size_t node = 0; node < machines_.size(); ++node) lay_out(node, !knobs_.spare[node]);
  world_.run_for(std::chrono::seconds(1));
  world_.start_all();
}

void RaftCluster::on_start(size_t node) {
  MachineState& machine = machines_[node];
  // Kept apart from the disk: see raft_server.h.
  ++machine.boot;
  check_.note_boot(machine.id, machine.boot);
  machine.server = std::make_unique<RaftServer>(world_, *this, check_, knobs_, node, machine.id, machine.boot);
  machine.server->start();
}

void RaftCluster::on_stop(size_t node) {
  MachineState& machine = machines_[node];
  if (machine.server != nullptr && machine.server->core() != nullptr) {
    machine.last_membership = machine.server->core()->membership();
  }
  machine.server.reset();
}

size_t RaftCluster::leader() const {
  size_t leader = SIZE_MAX;
  Term term;
  for (size_t node = 0; node < machines_.size(); ++node) {
    const RaftServer* server = machines_[node].server.get();
    if (server == nullptr || server->core() == nullptr) continue;
    const raft::Status status = server->core()->status();
    if (status.role == raft::Role::kLeader && status.term >= term) {
      term = status.term;
      leader = node;
    }
  }
  return leader;
}

// --- Clients.

void RaftCluster::start_clients() {
  for (uint32_t id = 0; id < knobs_.clients; ++id) {
    Client& client = clients_.emplace_back();
    client.id = id + 1;  // zero is the administrator
    client.server = pick_server();
  }
  for (uint32_t i = 0; i < clients_.size(); ++i) plan_operation(i, random_.exponential(knobs_.think_mean));
}

size_t RaftCluster::pick_server() {
  for (int attempt = 0; attempt < 8; ++attempt) {
    const size_t node = random_.below(machines_.size());
    if (!core_.empty() && !core_[node]) continue;
    if (world_.is_running(node)) return node;
  }
  return random_.below(machines_.size());
}

void RaftCluster::plan_operation(uint32_t client, Duration after) {
  world_.scheduler().schedule(world_.now() + after, [this, client] { begin_operation(client); });
}

void RaftCluster::begin_operation(uint32_t at) {
  Client& client = clients_[at];
  if (!core_.empty() && client.done_since_heal >= kLastOperations) return;
  if (!world_.is_running(client.server) || (!core_.empty() && !core_[client.server])) client.server = pick_server();
  Operation operation;
  operation.called = world_.now();
  Command& command = operation.command;
  command.client = client.id;
  command.sequence = ++client.sequence;
  command.place = static_cast<uint8_t>(random_.below(kRegisters));
  operation.is_read = random_.chance(knobs_.read_percent, 100);
  if (!operation.is_read) {
    command.kind = static_cast<CommandKind>(1 + random_.below(3));
    command.value = ++values_;
    if (command.kind == CommandKind::kCompareAndSet) command.expected = client.seen[command.place];
  }
  client.operation = operations_.size();
  operations_.push_back(operation);
  ++result_.operations_attempted;
  if (world_.is_running(client.server)) {
    world_.scheduler().schedule(world_.machine(client.server).gate, world_.now() + kClientDelay,
                                [this, node = client.server, index = client.operation] {
                                  const Operation& asked = operations_[index];
                                  RaftServer& server = *machines_[node].server;
                                  if (asked.is_read) {
                                    server.read(asked.command.client, asked.command.sequence, asked.command.place);
                                  } else {
                                    server.write(asked.command);
                                  }
                                });
  }
  world_.scheduler().schedule(world_.now() + knobs_.operation_timeout, [this, at, index = client.operation] {
    if (clients_[at].operation != index) return;
    end_operation(clients_[at], Outcome::kUnknown, random_.between(milliseconds(1), Duration(milliseconds(50))));
    clients_[at].server = pick_server();
  });
}

void RaftCluster::end_operation(Client& client, Outcome outcome, Duration pause) {
  Operation& operation = operations_[client.operation];
  operation.outcome = outcome;
  operation.returned = world_.now();
  client.operation = SIZE_MAX;
  plan_operation(client.id - 1, pause);
}

void RaftCluster::on_reply(const ClientReply& reply) {
  world_.scheduler().schedule(world_.now() + kClientDelay, [this, reply] { take_reply(reply); });
}

void RaftCluster::take_reply(const ClientReply& reply) {
  if (reply.client == 0 || reply.client > clients_.size()) return;
  Client& client = clients_[reply.client - 1];
  // A late answer, or a copy of one.
  if (client.operation == SIZE_MAX || client.sequence != reply.sequence) return;
  Operation& operation = operations_[client.operation];
  if (reply.kind != ClientReply::Kind::kDone) {
    const Outcome outcome = reply.kind == ClientReply::Kind::kRefused ? Outcome::kRefused : Outcome::kUnknown;
    client.server = pick_server();
    // Nobody leads, or not for long: asking again at once would only be refused again.
    client.refusals = std::min(client.refusals + 1, kRefusalsCounted);
    end_operation(client, outcome, random_.between(milliseconds(50), Duration(milliseconds(250 * client.refusals))));
    return;
  }
  operation.index = reply.index;
  operation.result = reply.result;
  operation.value = reply.value;
  const Command& command = operation.command;
  client.seen[command.place] = operation.is_read ? reply.value : command.value;
  ++result_.operations_acknowledged;
  ++client.done_since_heal;
  client.refusals = 0;
  end_operation(client, Outcome::kDone, random_.exponential(knobs_.think_mean));
}

// --- The administrator.

void RaftCluster::start_administration() {
  administered_ = true;
  administer();
  if (knobs_.hostile) act_hostile();
}

void RaftCluster::administer() {
  if (!administered_) return;
  const auto wants = [this](uint32_t per_thousand) { return random_.chance(per_thousand, 1000); };
  const bool transfers = wants(knobs_.transfer_per_thousand);
  const bool changes = wants(knobs_.membership_per_thousand);
  const bool renews = wants(knobs_.renew_per_thousand);
  const bool sets = wants(knobs_.clock_lease_per_thousand);
  const bool damages = wants(knobs_.hole_per_thousand);
  const size_t leads = leader();
  // Asked of the leader, frozen or not: an answer is not waited for.
  if (leads != SIZE_MAX && !world_.machine(leads).gate.is_frozen()) {
    RaftServer& server = *machines_[leads].server;
    if (transfers) {
      const NodeId to = random_.coin() ? NodeId() : machines_[random_.below(machines_.size())].id;
      if (server.transfer(to) == raft::Refusal::kNone) ++result_.counts["transfers begun"];
    }
    if (changes) change_membership(server);
    if (renews) renew_machine(server);
    if (damages && !server.is_dead()) damage_entry(server);
    if (sets) {
      lease_used_ = true;
      server.write({.client = 0,
                    .sequence = ++lease_sequence_,
                    .kind = CommandKind::kClockLease,
                    .value = random_.chance(2, 3) ? uint64_t{1} : 0});
    }
  }
  world_.scheduler().schedule(world_.now() + random_.exponential(kAdministerMean), [this] { administer(); });
}

void RaftCluster::change_membership(RaftServer& leader) {
  const auto target = draw_membership_change(leader.core()->membership(), current_ids(), world_.parameters(), random_);
  if (!target) return;
  const raft::Refusal refusal = leader.change_membership(*target);
  ++result_.counts[refusal == raft::Refusal::kNone ? "membership changes begun" : "membership changes refused"];
}

std::vector<NodeId> RaftCluster::current_ids() const {
  std::vector<NodeId> ids;
  ids.reserve(machines_.size());
  for (const MachineState& machine : machines_) ids.push_back(machine.id);
  return ids;
}

// A machine that is in no configuration any more is set up anew: an empty disk, another id.
void RaftCluster::renew_machine(RaftServer& leader) {
  const size_t node = random_.below(machines_.size());
  MachineState& machine = machines_[node];
  const raft::Raft& core = *leader.core();
  if (core.membership().is_joint() || core.membership().contains(machine.id) ||
      core.membership_at(core.status().commit).contains(machine.id) || !world_.machine(node).may_start) {
    return;
  }
  for (const MachineState& each : machines_) {
    if (each.server != nullptr && each.server->core() != nullptr && each.id != machine.id &&
        each.server->core()->membership().contains(machine.id)) {
      return;
    }
  }
  world_.crash(node, CrashMode::kPowerLoss);
  world_.machine(node).disk.replace();
  world_.machine(node).disk.restart();
  machine.id = NodeId(machine.id.value() + kIdStride);
  machine.last_membership = {};
  lay_out(node, false);
  world_.start(node);
  ++result_.counts["machines renewed"];
}

// A record goes bad on one of the machines whose disk may be struck, and is found; at times just when it is to lead.
void RaftCluster::damage_entry(RaftServer& leader) {
  const size_t node = random_.below(machines_.size());
  RaftServer* server = machines_[node].server.get();
  if (!world_.parameters().damageable[node] || server == nullptr || world_.machine(node).gate.is_frozen()) return;
  if (random_.coin()) (void)leader.transfer(machines_[node].id);
  if (random_.chance(1, 16)) {
    if (server->suffer_loss_of_directory(random_)) world_.decisions().count(FaultKind::kCorruptSector, 2);
    return;
  }
  const uint64_t count = random_.coin() ? 1 : 1 + random_.below(knobs_.snapshot_every_of(node));
  const bool at_work = random_.coin();
  if (server->suffer_holes(count, at_work, random_)) world_.decisions().count(FaultKind::kCorruptSector);
}

// --- A hostile peer.

void RaftCluster::on_sent(size_t from, size_t to, ByteView frame) {
  if (!knobs_.hostile || frame.empty() || frame.front() != 0) return;
  if (sent_.size() >= kSentMax) sent_.pop_front();
  sent_.push_back({.from = from, .to = to, .frame = std::string(frame)});
}

void RaftCluster::act_hostile() {
  if (!administered_) return;
  if (!sent_.empty()) {
    const Sent& learnt = sent_[random_.below(sent_.size())];
    const Result<raft::OwnedMessage> decoded = raft::OwnedMessage::decode(ByteView(learnt.frame).substr(1));
    ASSERT(decoded.has_value());
    raft::Message message = decoded->message();
    std::vector<Entry> changed;
    make_hostile(message, changed, random_);
    std::string frame(1, '\0');
    raft::encode(message, frame);
    ++result_.counts["hostile messages"];
    world_.network().endpoint(learnt.from).send(SimNetwork::id_of(learnt.to), env::Lane::kConsensus, std::move(frame));
  }
  world_.scheduler().schedule(world_.now() + random_.exponential(kHostileMean), [this] { act_hostile(); });
}

// --- The end.

std::vector<bool> RaftCluster::choose_core() {
  stop_administration();
  std::vector<Membership> configurations;
  for (const MachineState& machine : machines_) {
    const raft::Raft* core = machine.server == nullptr ? nullptr : machine.server->core();
    configurations.push_back(core != nullptr ? core->membership() : machine.last_membership);
  }
  return choose_core_of(configurations, current_ids(), world_.parameters(), random_);
}

void RaftCluster::begin_liveness(const std::vector<bool>& core) {
  core_ = core;
  for (Client& client : clients_) client.done_since_heal = 0;
}

std::string RaftCluster::why_not_converged() const {
  const size_t leads = leader();
  if (leads == SIZE_MAX) return "no leader";
  for (const Client& client : clients_) {
    if (client.done_since_heal < kLastOperations || client.operation != SIZE_MAX) {
      return fmt::format("client {} has {} answers", client.id, client.done_since_heal);
    }
  }
  const RaftServer& leader = *machines_[leads].server;
  const Membership& membership = leader.core()->membership();
  if (membership.is_joint()) return "a change of membership is under way";
  // A leader outside the core that a quorum follows may not be reached by all of the core, and no leader that they do
  // reach comes in its place: then as many as a quorum needs must be even.
  const bool inside = core_.empty() || core_[leads];
  size_t even = 0;
  size_t voters = 0;
  for (const Member& member : membership.members()) voters += member.role == MemberRole::kVoter ? 1 : 0;
  for (size_t node = 0; node < machines_.size(); ++node) {
    if (inside && !core_.empty() && !core_[node]) continue;
    const MachineState& machine = machines_[node];
    const Member* member = membership.find(machine.id);
    if (member == nullptr) continue;
    if (machine.server == nullptr || machine.server->core() == nullptr) {
      if (inside) return fmt::format("{} is down", machine.id);
      continue;
    }
    const raft::Status status = machine.server->core()->status();
    const bool same = machine.server->machine().applied() == leader.machine().applied() &&
                      leader.machine().applied() == leader.core()->log().last_index() &&
                      machine.server->machine().digest() == leader.machine().digest();
    const bool counts = member->role != MemberRole::kVoter || status.incarnation == member->incarnation;
    const bool waits = member->role == MemberRole::kPromotable;
    if (same && counts && !waits && !status.has_gap) {
      even += member->role == MemberRole::kVoter ? 1 : 0;
    } else if (inside) {
      return machine.server->describe();
    }
  }
  return inside || even > voters / 2 ? std::string() : fmt::format("{} of {} voters are even", even, voters);
}

std::string RaftCluster::judge_history() const {
  // With a clock beyond what was promised, reads on a lease may be old.
  const bool clocks_lie = lease_used_ && world_.parameters().enabled[FaultKind::kDriftBeyondBound];
  return judge(operations_, check_.committed(), {.real_time_reads = !clocks_lie});
}

}  // namespace conclave::sim
