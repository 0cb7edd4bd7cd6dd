#include "tests/node/cluster.h"

#include <algorithm>

#include "base/assert.h"
#include "etcd/rpc.pb.h"
#include "keyspace/interface.h"
#include "raft/codec.h"
#include "raft/describe.h"

namespace conclave::node {
namespace {

using std::chrono::milliseconds;

constexpr GroupId kGroup{1};
constexpr ClusterId kCluster{7};
// A message takes one.
constexpr Duration kStep = milliseconds(1);
// Longer than a step: there are writes that wait for another to be done.
constexpr Duration kDiskWork = 2 * kStep;
constexpr Duration kQuiet = milliseconds(20);

}  // namespace

// ---- Starting and ending ----

Cluster::Cluster(const ClusterOptions& options) : options_(options) {
  std::vector<NodeId> voters;
  for (uint64_t id = 1; id <= options.voters; ++id) voters.emplace_back(id);
  const Membership membership = Membership::of_voters(voters);
  for (uint64_t id = 1; id <= options.voters + options.spares; ++id) {
    Server& server = servers_[NodeId(id)];
    server.cluster = this;
    server.id = NodeId(id);
    server.disk = std::make_unique<sim::TraceDisk>();
    if (id <= options.voters) lay_out(server, membership);
  }
}

StorageOptions Cluster::storage_options(NodeId id) const {
  StorageOptions options = options_.storage;
  options.owner = {.cluster = kCluster, .node = id};
  return options;
}

void Cluster::lay_out(Server& server, const Membership& membership) {
  auto opened = Storage::open(*server.disk, clock_, storage_options(server.id));
  ASSERT_MSG(opened.has_value(), "{}", opened.error().message);
  opened->storage->add(PersistJob{
      .group = kGroup, .sequence = WriteSequence(1), .batch = Storage::bootstrap_batch(kGroup, server.id, membership)});
  const Status worked = opened->storage->work(server.results);
  ASSERT_MSG(worked.has_value(), "{}", worked.error().message);
  server.results.clear();
  const Recovered state = Storage::bootstrap_state(kGroup, server.id, membership);
  check_.note_written(server.id.value(), WriteSequence(1), {.vote = state.vote, .last = state.last});
  check_.note_durable(server.id.value(), WriteSequence(1));
  server.durable = {.vote = state.vote, .last = state.last, .membership = membership};
}

void Cluster::start(NodeId id) {
  Server& server = servers_.at(id);
  server.boot = server.boot.next();
  hook(server);
  auto opened = Storage::open(*server.disk, clock_, storage_options(id));
  if (server.id == options_.victim && left_) {
    if (opened) opened->storage.reset();  // before its disk
    crash(server);
    return;
  }
  if (opened) {
    begin(server, std::move(*opened));
  } else {
    violate(server, "its disk cannot be opened: " + opened.error().message);
  }
}

void Cluster::begin(Server& server, Storage::Opened opened) {
  FoundReplica found{.recovered = {.group = kGroup}};
  const auto at = opened.replicas.find(kGroup);
  if (at != opened.replicas.end()) {
    found = std::move(at->second);
  } else {
    found.keyspace = std::make_unique<keyspace::Keyspace>();
  }
  check_found(server, opened, found);
  check_.note_found(server.id.value(), found.recovered, false);
  check_.note_begun(server.id.value());
  if (found.keyspace->applied().value() > 0) {
    check_.note_state(server.id.value(), found.keyspace->applied(), found.keyspace->digest());
  }
  if (!violation().empty()) return;
  ReplicaOptions options = options_.replica;
  options.raft.group = kGroup;
  options.raft.self = server.id;
  options.raft.boot = server.boot;
  options.raft.seed = server.id.value() * 100 + server.boot.value();
  if (server.id == NodeId(1)) options.raft.start_delay_max = kStep;
  server.storage = std::move(opened.storage);
  server.replica = std::make_unique<Replica>(options, std::move(found.recovered), std::move(found.keyspace), server);
  server.replica->set_clients(server);
  check_written(server);
  server.wants_idle = true;
  server.worked_at = now_;
  server.disk_busy_until = now_;
  server.replica->start(now_);
  tell_links(server.id, Mail::Kind::kLinkUp);
  turn(server);
}

void Cluster::hook(Server& server) {
  if (server.id != options_.victim) return;
  calls_ = 0;
  server.disk->set_hook([this, &server](std::string_view) {
    if (!counting_ || left_) return;
    ++calls_;
    if (visit_) visit_(*server.disk, calls_);
    if (const auto point = crash_now(*server.disk)) left_ = point->image_of(*server.disk);
  });
}

std::optional<CrashPoint> Cluster::crash_now(const sim::TraceDisk& disk) const {
  if (!plan_) return std::nullopt;
  if (crashes_ == 0) return plan_->first.call == calls_ ? std::optional(plan_->first) : std::nullopt;
  if (crashes_ > 1 || plan_->second_call != calls_) return std::nullopt;
  CrashPoint point{.call = calls_, .kept = std::vector<bool>(disk.unsynced())};
  for (size_t i = 0; i < point.kept.size(); ++i) point.kept[i] = ((plan_->second_kept >> (i % 64)) & 1) != 0;
  return point;
}

// What the process was told by the call that it ends in, and by those after it, never happened.
void Cluster::crash(Server& server) {
  ++crashes_;
  server.replica.reset();
  server.storage.reset();
  server.inbox.clear();
  server.results.clear();
  server.is_replaced = false;
  server.disk = std::make_unique<sim::TraceDisk>(*left_);
  left_.reset();
  restart_at_ = now_ + plan_->down;
  std::erase_if(pending_, [&](const auto& request) { return request.second.at == server.id; });
  tell_links(server.id, Mail::Kind::kLinkBroken);
}

void Cluster::violate(const Server& server, std::string_view what) {
  check_.violate(fmt::format("server {}, boot {}: {}", server.id, server.boot, what));
}

// ---- What a process finds ----

void Cluster::check_found(const Server& server, const Storage::Opened& opened, const FoundReplica& found) {
  const Recovered& recovered = found.recovered;
  if (opened.discarded) violate(server, "a crash made it give up its disk: " + opened.discard_reason);
  if (!opened.recovery.holes.empty()) violate(server, "a crash is taken for damage: a hole");
  if (opened.recovery.unknown_groups) violate(server, "a crash is taken for damage: groups may be missing");
  if (found.keyspace->applied() != recovered.snapshot.last.index) {
    violate(server, fmt::format("the state of {} stands for the snapshot of {}", found.keyspace->applied(),
                                recovered.snapshot.last.index));
  }
  LogIndex next = recovered.entries.empty() ? recovered.last.index.next() : recovered.entries.front().index;
  if (next > recovered.snapshot.last.index.next()) {
    violate(server, fmt::format("between its snapshot of {} and its first entry {} nothing is there",
                                recovered.snapshot.last.index, next));
  }
  for (const Entry& entry : recovered.entries) {
    if (entry.index != next) violate(server, fmt::format("entry {} follows on {}", entry.index, next.prev()));
    ++next;
  }
  const Promises& promised = server.promises;
  if (recovered.vote.term < promised.term || recovered.vote.incarnation < promised.incarnation) {
    violate(server, fmt::format("it spoke of term {} as identity {}, and finds {} and {}", promised.term,
                                promised.incarnation, recovered.vote.term, recovered.vote.incarnation));
  }
  if (recovered.vote.term == promised.term && promised.candidate.is_set() &&
      recovered.vote.candidate != promised.candidate) {
    violate(server, fmt::format("in term {} it voted for {}, and finds that it did for {}", promised.term,
                                promised.candidate, recovered.vote.candidate));
  }
  // A later leader may have taken back what was acknowledged to an earlier one.
  if (recovered.vote.term == promised.match_term && recovered.last.index < promised.match) {
    violate(server, fmt::format("in term {} it acknowledged entries to {}, and finds them to {}", promised.match_term,
                                promised.match, recovered.last.index));
  }
  if (recovered.snapshot.last.index < promised.installed) {
    violate(server, fmt::format("it said that the snapshot of {} is installed, and finds that of {}",
                                promised.installed, recovered.snapshot.last.index));
  }
}

// A configuration is never another than one that was written; NodeCheck says the same of votes and positions.
void Cluster::check_written(Server& server) {
  const raft::Raft& raft = server.replica->raft();
  const Membership& membership = raft.membership();
  const bool is_known = membership == server.durable.membership ||
                        std::ranges::find(server.under_way, membership, &Written::membership) != server.under_way.end();
  if (!is_known) {
    violate(server, fmt::format("it had the configuration {}, and finds {}", server.durable.membership.describe(),
                                membership.describe()));
  }
  const Written found{.vote = raft.vote(), .last = raft.log().last(), .membership = membership};
  if (server.id == options_.victim && crashes_ > 0) {
    const Written& durable = server.durable;
    found_ = {.snapshot = raft.snapshot().last,
              .membership = membership.describe(),
              .had_write_under_way = !server.under_way.empty(),
              .has_write_under_way = found.vote != durable.vote || found.last != durable.last};
  }
  server.durable = found;
  server.under_way.clear();
}

// A message is sent when all it says is durable: of the term and the identity in its header, and of what it grants.
void Cluster::note_promises(Server& server, ByteView frame) {
  if (frame.empty() || frame.front() != static_cast<char>(FrameKind::kConsensus)) return;
  const auto decoded = raft::OwnedMessage::decode(frame.substr(1));
  if (!decoded) return violate(server, "it sends what cannot be decoded");
  const raft::Message& message = decoded->message();
  Promises& promises = server.promises;
  const auto note_term = [&](Term term) {
    if (term <= promises.term) return;
    promises.term = term;
    promises.candidate = NodeId();
  };
  note_term(message.header.term);
  promises.incarnation = std::max(promises.incarnation, message.header.incarnation);
  if (const auto* vote = std::get_if<raft::VoteReply>(&message.body); vote != nullptr && vote->granted && !vote->pre) {
    note_term(vote->campaign_term);
    promises.candidate = message.header.to;
  } else if (const auto* request = std::get_if<raft::VoteRequest>(&message.body); request != nullptr && !request->pre) {
    note_term(request->campaign_term);
    promises.candidate = server.id;
  } else if (const auto* reply = std::get_if<raft::AppendReply>(&message.body); reply != nullptr && reply->ok) {
    if (message.header.term > promises.match_term) promises.match = LogIndex();
    promises.match_term = message.header.term;
    promises.match = std::max(promises.match, reply->match);
  } else if (const auto* snapshot = std::get_if<raft::SnapshotReply>(&message.body);
             snapshot != nullptr && snapshot->installed) {
    promises.installed = std::max(promises.installed, snapshot->last.index);
  }
}

uint64_t Cluster::promises_hash() const {
  const Server& victim = servers_.at(options_.victim);
  const Promises& promises = victim.promises;
  uint64_t hash = operations_.size() - pending_.size() + changes_made_.size();
  for (const uint64_t value :
       {promises.term.value(), promises.incarnation.value(), promises.candidate.value(), promises.match_term.value(),
        promises.match.value(), promises.installed.value(), uint64_t{victim.under_way.size()}}) {
    hash = (hash ^ value) * 0xbf58476d1ce4e5b9ULL;
    hash ^= hash >> 29;
  }
  return hash;
}

// ---- Time ----

bool Cluster::run_until(const std::function<bool()>& holds, Duration most) {
  const Instant end = now_ + most;
  const uint64_t crashes = crashes_;
  while (crashes_ == crashes && violation().empty()) {
    if (holds()) return true;
    if (now_ >= end) return false;
    step();
  }
  return false;
}

void Cluster::run_for(Duration duration) {
  const Instant end = now_ + duration;
  (void)run_until([&] { return now_ >= end; }, duration);
}

void Cluster::step() {
  now_ = is_quiet() ? std::clamp(next_deadline(), now_ + kStep, now_ + milliseconds(100)) : now_ + kStep;
  if (restart_at_ <= now_) {
    restart_at_ = kNever;
    start(options_.victim);
  }
  for (const Mail& mail : std::exchange(mail_, {})) deliver(mail);
  for (auto& [id, server] : servers_) {
    if (server.replica == nullptr) continue;
    take_results(server);
    turn(server);
    work_disk(server);
  }
}

bool Cluster::is_quiet() const {
  return mail_.empty() && std::ranges::none_of(servers_, [](const auto& each) {
           const Server& server = each.second;
           return server.replica != nullptr &&
                  (server.replica->has_work() || server.storage->has_work() || !server.inbox.empty() ||
                   !server.results.empty() || server.has_background);
         });
}

Instant Cluster::next_deadline() const {
  Instant next = restart_at_;
  for (const auto& [id, server] : servers_) {
    if (server.replica == nullptr) continue;
    next = std::min(next, server.replica->next_deadline());
    if (server.wants_idle) next = std::min(next, server.worked_at + kQuiet);
  }
  return next;
}

void Cluster::take_results(Server& server) {
  if (now_ < server.disk_busy_until) return;
  for (StorageResult& result : std::exchange(server.results, {})) {
    if (const auto* persisted = std::get_if<Persisted>(&result)) {
      check_.note_durable(server.id.value(), persisted->sequence);
      while (!server.under_way.empty() && server.under_way.front().sequence <= persisted->sequence) {
        server.durable = server.under_way.front();
        server.under_way.pop_front();
      }
    }
    server.replica->on_storage(now_, std::move(result));
  }
}

void Cluster::turn(Server& server) {
  server.replica->tick(now_);
  server.replica->flush(now_);
  if (std::exchange(server.is_replaced, false)) {
    check_.note_state(server.id.value(), server.replica->applied(), server.replica->keyspace().digest());
  }
  keyspace::Keyspace& keyspace = server.replica->keyspace();
  server.has_background = !keyspace.is_busy() && keyspace.run_background();
}

void Cluster::work_disk(Server& server) {
  if (now_ < server.disk_busy_until) return;
  for (StorageJob& job : std::exchange(server.inbox, {})) server.storage->add(std::move(job));
  Status worked;
  if (server.storage->has_work()) {
    worked = server.storage->work(server.results);
    server.worked_at = now_;
    server.disk_busy_until = now_ + kDiskWork;
    server.wants_idle = true;
  } else if (server.wants_idle && now_ >= server.worked_at + kQuiet) {
    const Result<bool> more = server.storage->idle(true, server.results);
    if (!more) worked = std::unexpected(more.error());
    server.disk_busy_until = now_ + kDiskWork;
    server.wants_idle = more && (*more || server.storage->wants_idle_mark());
  }
  if (server.id == options_.victim && left_) return crash(server);
  if (!worked) violate(server, "its disk failed: " + worked.error().message);
}

// ---- Links ----

bool Cluster::is_linked(NodeId a, NodeId b) const {
  const auto stands = [&](NodeId id) {
    const auto found = servers_.find(id);
    return found != servers_.end() && !found->second.is_cut_off;
  };
  return stands(a) && stands(b);
}

void Cluster::deliver(const Mail& mail) {
  Server& server = servers_.at(mail.to);
  if (server.replica == nullptr) return;
  switch (mail.kind) {
    case Mail::Kind::kFrame:
      if (is_linked(mail.from, mail.to)) server.replica->on_frame(now_, mail.from, mail.frame);
      return;
    case Mail::Kind::kLinkUp:
      server.replica->on_link_up(now_, mail.from);
      return;
    case Mail::Kind::kLinkBroken:
      server.replica->on_link_broken(now_, mail.from);
      return;
  }
}

// To both ends of each link of this server.
void Cluster::tell_links(NodeId id, Mail::Kind kind) {
  for (const auto& [other, server] : servers_) {
    if (other == id || server.replica == nullptr) continue;
    if (kind == Mail::Kind::kLinkUp && !is_linked(id, other)) continue;
    mail_.push_back({.kind = kind, .from = id, .to = other});
    mail_.push_back({.kind = kind, .from = other, .to = id});
  }
}

void Cluster::cut_off(NodeId id) {
  servers_.at(id).is_cut_off = true;
  tell_links(id, Mail::Kind::kLinkBroken);
}

void Cluster::reconnect(NodeId id) {
  servers_.at(id).is_cut_off = false;
  tell_links(id, Mail::Kind::kLinkUp);
}

// ---- Clients ----

Ticket Cluster::ask(NodeId at, sim::NodeOperation operation) {
  operation.called = now_;
  operations_.push_back(std::move(operation));
  pending_.emplace(++last_ticket_, Request{.at = at, .operation = operations_.size() - 1});
  return last_ticket_;
}

void Cluster::put(NodeId at, const std::string& key, const std::string& value) {
  etcdserverpb::PutRequest request;
  request.set_key(key);
  request.set_value(value);
  const Ticket ticket = ask(at, {.kind = sim::NodeOperation::Kind::kPut, .key = key, .value = value});
  servers_.at(at).replica->write(now_, ticket, {.kind = keyspace::CommandKind::kPut}, request.SerializeAsString());
}

void Cluster::get(NodeId at, const std::string& key) {
  const Ticket ticket = ask(at, {.kind = sim::NodeOperation::Kind::kGet, .key = key});
  servers_.at(at).replica->read(now_, ticket);
}

void Cluster::administer(NodeId at, const MemberChange& change) {
  pending_.emplace(++last_ticket_, Request{.at = at, .change = change});
  servers_.at(at).replica->administer(now_, last_ticket_, change);
}

void Cluster::answer(Ticket ticket, sim::NodeOutcome outcome, const std::function<void(sim::NodeOperation&)>& fill) {
  const auto request = pending_.extract(ticket);
  if (request.empty()) return check_.violate(fmt::format("request {} is answered twice", ticket));
  if (request.mapped().operation == SIZE_MAX) {
    if (outcome == sim::NodeOutcome::kDone) changes_made_.push_back(request.mapped().change);
    if (outcome == sim::NodeOutcome::kRefused) ++changes_refused_;
    return;
  }
  sim::NodeOperation& operation = operations_[request.mapped().operation];
  operation.outcome = outcome;
  operation.returned = now_;
  if (fill) fill(operation);
}

void Cluster::Server::on_write_applied(Ticket ticket, const keyspace::Reply& reply) {
  cluster->answer(ticket, sim::NodeOutcome::kDone, [&](sim::NodeOperation& operation) {
    operation.revision = reply.revision.value();
    operation.changed = reply.error == keyspace::ErrorId::kNone;
  });
}
void Cluster::Server::on_write_refused(Ticket ticket, RequestRefusal) {
  cluster->answer(ticket, sim::NodeOutcome::kRefused);
}
void Cluster::Server::on_write_unknown(Ticket ticket) {
  cluster->answer(ticket, sim::NodeOutcome::kUnknown);
}
void Cluster::Server::on_read_ready(Ticket ticket) {
  cluster->answer(ticket, sim::NodeOutcome::kDone, [&](sim::NodeOperation& operation) {
    const keyspace::KeyspaceView view(replica->keyspace());
    operation.revision = view.revision().value();
    if (const auto found = view.get(operation.key)) {
      operation.read = std::string(found->value);
      operation.mod_revision = found->mod.value();
    }
  });
}
void Cluster::Server::on_read_refused(Ticket ticket, RequestRefusal) {
  cluster->answer(ticket, sim::NodeOutcome::kRefused);
}
void Cluster::Server::on_change_done(Ticket ticket) {
  cluster->answer(ticket, sim::NodeOutcome::kDone);
}
void Cluster::Server::on_change_refused(Ticket ticket, ChangeRefusal) {
  cluster->answer(ticket, sim::NodeOutcome::kRefused);
}
void Cluster::Server::on_change_unknown(Ticket ticket) {
  cluster->answer(ticket, sim::NodeOutcome::kUnknown);
}

void Cluster::Server::on_applied(const keyspace::Effects&) {
  keyspace::Keyspace& keyspace = replica->keyspace();
  cluster->check_.note_applied(id.value(), cluster->now_, replica->raft().entry(keyspace.applied()), keyspace);
}

// ---- Replicas ----

void Cluster::Server::store(StorageJob job) {
  if (const auto* persist = std::get_if<PersistJob>(&job)) {
    // From within the constructor nothing is stored.
    const raft::Raft& raft = replica->raft();
    cluster->check_.note_written(id.value(), persist->sequence, {.vote = raft.vote(), .last = raft.log().last()});
    under_way.push_back({.sequence = persist->sequence,
                         .vote = raft.vote(),
                         .last = raft.log().last(),
                         .membership = raft.membership()});
  }
  inbox.push_back(std::move(job));
}

void Cluster::Server::send(NodeId to, env::Lane, std::string frame) {
  cluster->note_promises(*this, frame);
  if (cluster->is_linked(id, to)) cluster->mail_.push_back({.from = id, .to = to, .frame = std::move(frame)});
}

void Cluster::Server::on_diverged(LogIndex index) {
  cluster->violate(*this, fmt::format("its state at {} is not that of the others", index));
}

void Cluster::Server::on_outdated(uint64_t level) {
  cluster->violate(*this, fmt::format("it meets feature level {}", level));
}

// ---- What is seen ----

NodeId Cluster::leader() const {
  const Server* leads = nullptr;
  for (const auto& [id, server] : servers_) {
    if (server.replica == nullptr || server.replica->raft().status().role != raft::Role::kLeader) continue;
    if (leads == nullptr || leads->replica->raft().status().term < server.replica->raft().status().term) {
      leads = &server;
    }
  }
  return leads == nullptr ? NodeId() : leads->id;
}

bool Cluster::is_member(NodeId id) const {
  const NodeId leads = leader();
  return leads.is_set() && replica(leads).raft().membership().contains(id);
}

std::string Cluster::why_not_even() const {
  const NodeId leads = leader();
  if (!leads.is_set()) return "nobody leads";
  const Replica& first = replica(leads);
  const raft::Status leading = first.raft().status();
  const Membership& membership = first.raft().membership();
  if (membership.is_joint()) return "a change of membership is under way: " + membership.describe();
  for (const Member& member : membership.members()) {
    if (member.role == MemberRole::kPromotable) return fmt::format("server {} is not a voter yet", member.id);
    const Server& server = servers_.at(member.id);
    if (server.replica == nullptr) return fmt::format("server {} is down", member.id);
    const raft::Status status = server.replica->raft().status();
    const bool follows = status.leader == leads && status.last == leading.last &&
                         status.durable == leading.last.index && !server.replica->is_installing() &&
                         (status.proven || member.role != MemberRole::kVoter);
    if (!follows || server.replica->applied() != leading.last.index) {
      return fmt::format("server {} is {} applied {}, the leader {}", member.id, raft::describe(status),
                         server.replica->applied(), raft::describe(leading));
    }
    if (server.replica->keyspace().digest() != first.keyspace().digest()) {
      return fmt::format("server {} has another state at {}", member.id, leading.last.index);
    }
    if (server.replica->raft().membership() != membership) {
      return fmt::format("server {} has the configuration {}, the leader {}", member.id,
                         server.replica->raft().membership().describe(), membership.describe());
    }
  }
  return {};
}

std::string Cluster::lost_changes() const {
  const Membership& membership = replica(leader()).raft().membership();
  for (const MemberChange& change : changes_made_) {
    const Member* member = membership.find(change.id);
    bool is_made = member != nullptr;
    if (change.kind == MemberChangeKind::kRemove) is_made = member == nullptr;
    if (change.kind == MemberChangeKind::kPromote) is_made = is_made && member->role == MemberRole::kVoter;
    if (change.kind == MemberChangeKind::kReplace) is_made = is_made && !membership.contains(change.replaced);
    if (!is_made) {
      return fmt::format("a change of server {} was acknowledged, and the configuration is {}", change.id,
                         membership.describe());
    }
  }
  return {};
}

}  // namespace conclave::node
