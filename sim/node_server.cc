#include "sim/node_server.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/assert.h"
#include "etcd/rpc.pb.h"
#include "keyspace/interface.h"
#include "keyspace/internal_command.h"
#include "raft/describe.h"

namespace conclave::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

bool says_all = false;

constexpr Duration kRestartAfter = milliseconds(100);
constexpr Duration kSpaceRetry = milliseconds(100);
constexpr Duration kQuiet = milliseconds(20);
// A turn that leaves work behind takes this long.
constexpr Duration kFullTurn = microseconds(200);
constexpr uint32_t kWatchUnits = 4096;

// The end of the range of all keys that begin with a prefix, whose last byte has a successor.
std::string end_of(const std::string& prefix) {
  std::string end = prefix;
  end.back() = static_cast<char>(end.back() + 1);
  return end;
}

node::StorageOptions storage_options(const NodeKnobs& knobs, size_t node) {
  node::StorageOptions options = knobs.storage;
  options.owner = {.cluster = kNodeCluster, .node = SimNetwork::id_of(node)};
  return options;
}

}  // namespace

NodeServer::NodeServer(World& world, NodeCheck& check, const NodeKnobs& knobs, size_t node, Boot boot)
    : world_(world), check_(check), knobs_(knobs), node_(node), id_(SimNetwork::id_of(node)), boot_(boot) {}

NodeServer::~NodeServer() {
  if (says_all) say("ends: " + describe());
  for (Watch& watch : watches_) watch.sink->on_watch_lost();
}

void NodeServer::set_verbose(bool verbose) {
  says_all = verbose;
}

bool NodeServer::is_verbose() {
  return says_all;
}

void NodeServer::say(const std::string& what) const {
  const int64_t at = (world_.now() - Scheduler::kStart).count() / 1000;
  std::fputs(fmt::format("{:>12} {}/{} {}\n", at, id_, boot_, what).c_str(), stderr);
}

void NodeServer::die() {
  if (dead_) return;
  dead_ = true;
  // When the call that failed is over: what was called before it has happened by then.
  world_.after_disk(node_, [this] { world_.request_crash(node_, CrashMode::kPowerLoss, kRestartAfter); });
}

bool NodeServer::survives(const Error& error) {
  if (says_all) say("the disk: " + error.message);
  if (error.code == ErrorCode::kNoSpace) return true;
  if (error.code == ErrorCode::kForeign) check_.violate(fmt::format("server {}: its own disk is foreign to it", id_));
  die();
  return false;
}

// --- Starting.

void NodeServer::lay_out(World& world, NodeCheck& check, const NodeKnobs& knobs, size_t node,
                         const Membership& membership) {
  SimDisk& disk = world.machine(node).disk;
  // Whoever sets a machine up sees to it that the disk took it.
  const PerFault<uint32_t> rates = disk.per_million();
  disk.per_million() = {};
  auto opened = node::Storage::open(disk, world.machine(node).clock, storage_options(knobs, node));
  ASSERT_MSG(opened.has_value(), "{}", opened.error().message);
  opened->storage->add(
      node::PersistJob{.group = kNodeGroup,
                       .sequence = WriteSequence(1),
                       .batch = node::Storage::bootstrap_batch(kNodeGroup, SimNetwork::id_of(node), membership)});
  std::vector<node::StorageResult> results;
  const Status worked = opened->storage->work(results);
  ASSERT_MSG(worked.has_value(), "{}", worked.error().message);
  disk.per_million() = rates;
  const Recovered state = node::Storage::bootstrap_state(kNodeGroup, SimNetwork::id_of(node), membership);
  check.note_written(SimNetwork::id_of(node).value(), WriteSequence(1), {.vote = state.vote, .last = state.last});
  check.note_durable(SimNetwork::id_of(node).value(), WriteSequence(1));
}

void NodeServer::start() {
  SimDisk& disk = world_.machine(node_).disk;
  auto opened = node::Storage::open(disk, world_.machine(node_).clock, storage_options(knobs_, node_));
  if (!opened) {
    if (survives(opened.error())) die();  // no space to begin with: tried again
    return;
  }
  storage_ = std::move(opened->storage);
  node::FoundReplica found{.recovered = {.group = kNodeGroup}};
  const auto at = opened->replicas.find(kNodeGroup);
  if (at != opened->replicas.end()) {
    found = std::move(at->second);
  } else {
    found.keyspace = std::make_unique<keyspace::Keyspace>();
  }
  if (says_all) {
    const wal::Recovery& recovery = opened->recovery;
    say(fmt::format("starts: {}, term {}, last {}, snapshot {}; {} segments, {} batches{}{}",
                    to_string(found.recovered.certainty), found.recovered.vote.term,
                    raft::describe(found.recovered.last), raft::describe(found.recovered.snapshot.last),
                    recovery.segments, recovery.batches, recovery.created ? ", new" : "",
                    opened->discarded ? ", discarded: " + opened->discard_reason : ""));
    for (const wal::Finding& finding : recovery.findings) {
      say(fmt::format("  segment {} slot {} sectors {}-{}: {}", finding.sequence, finding.slot, finding.from_sector,
                      finding.to_sector, finding.what));
    }
  }
  check_.note_found(id_.value(), found.recovered, disk.was_ever_damaged());
  auto shared = std::make_shared<node::FoundReplica>(std::move(found));
  world_.after_disk(node_, [this, shared] { begin(std::move(*shared)); });
}

void NodeServer::begin(node::FoundReplica found) {
  check_.note_begun(id_.value());
  node::ReplicaOptions options = knobs_.replica;
  options.raft.group = kNodeGroup;
  options.raft.self = id_;
  options.raft.boot = boot_;
  options.feature_level_max = boot_.value() >= knobs_.newer_build_from_boot ? 2 : 1;
  options.raft.seed = world_.decisions().generator("node.seed", id_.value() * 1'000'000 + boot_.value()).next();
  if (found.keyspace->applied().value() > 0) {
    check_.note_state(id_.value(), found.keyspace->applied(), found.keyspace->digest());
  }
  node::ReplicaWorld& world = *this;
  replica_ = std::make_unique<node::Replica>(options, std::move(found.recovered), std::move(found.keyspace), world);
  replica_->set_clients(*this);
  sessions_ = std::make_unique<SessionsHost>(knobs_.sessions, *replica_);
  world_.network().attach(node_, *this, world_.machine(node_).gate);
  replica_->start(now());
  turn();
}

// --- Turns.

void NodeServer::plan_turn(Duration after) {
  if (turn_planned_ || dead_ || replica_ == nullptr) return;
  turn_planned_ = true;
  world_.scheduler().schedule(world_.machine(node_).gate, world_.now() + after, [this] {
    turn_planned_ = false;
    turn();
  });
}

void NodeServer::turn() {
  if (dead_) return;
  replica_->tick(now());
  replica_->flush(now());
  if (replaced_) {
    replaced_ = false;
    check_.note_state(id_.value(), replica_->applied(), replica_->keyspace().digest());
  }
  check_.note_status(id_.value(), replica_->raft().status());
  bool more = sessions_->work(now());
  work_disk();
  send_watches();
  more = replica_->has_work() || more;
  if (!replica_->keyspace().is_busy()) more = replica_->keyspace().run_background() || more;
  if (replica_->keyspace().watches().has_ready()) more = true;
  for (const Watch& watch : watches_) more |= watch.asked;
  if (more) plan_turn(kFullTurn);
  arm();
}

void NodeServer::arm() {
  const Instant deadline = next_deadline();
  if (deadline >= deadline_at_) return;
  world_.cancel(deadline_event_);
  deadline_at_ = deadline;
  deadline_event_ = world_.at_local(node_, std::max(deadline, now()), [this] {
    deadline_at_ = kNever;
    if (now() >= next_deadline()) {
      turn();
    } else {
      arm();
    }
  });
}

Instant NodeServer::next_deadline() const {
  return std::min(replica_->next_deadline(), sessions_->next_deadline());
}

// --- The disk.

void NodeServer::store(node::StorageJob job) {
  if (const auto* persist = std::get_if<node::PersistJob>(&job)) {
    const raft::Raft& raft = replica_->raft();
    check_.note_written(id_.value(), persist->sequence, {.vote = raft.vote(), .last = raft.log().last()});
  }
  inbox_.push_back(std::move(job));
  plan_turn();
}

void NodeServer::work_disk() {
  if (disk_busy_ || dead_) return;
  for (node::StorageJob& job : std::exchange(inbox_, {})) storage_->add(std::move(job));
  if (!storage_->has_work()) {
    plan_idle(kQuiet);
    return;
  }
  std::vector<node::StorageResult> results;
  const Status worked = storage_->work(results);
  ++works_;
  if (!worked) {
    if (!survives(worked.error())) return;
    disk_busy_ = true;
    world_.at_local(node_, now() + kSpaceRetry, [this] {
      disk_busy_ = false;
      work_disk();
    });
  }
  disk_busy_ = disk_busy_ || worked.has_value();
  auto shared = std::make_shared<std::vector<node::StorageResult>>(std::move(results));
  world_.after_disk(node_, [this, shared, done = worked.has_value()] {
    if (done) disk_busy_ = false;
    disk_done(std::move(*shared));
  });
}

void NodeServer::disk_done(std::vector<node::StorageResult> results) {
  if (dead_) return;
  for (node::StorageResult& result : results) {
    if (const auto* persisted = std::get_if<node::Persisted>(&result)) {
      check_.note_durable(id_.value(), persisted->sequence);
    }
    replica_->on_storage(now(), std::move(result));
    sessions_->take_replacement(now());
  }
  work_disk();
  plan_turn();
}

void NodeServer::plan_idle(Duration after) {
  if (idle_planned_) return;
  idle_planned_ = true;
  world_.at_local(node_, now() + after, [this, works = works_] {
    idle_planned_ = false;
    if (dead_ || disk_busy_) return;
    std::vector<node::StorageResult> results;
    const Result<bool> more = storage_->idle(works == works_, results);
    if (!more) {
      (void)survives(more.error());
      return;
    }
    disk_busy_ = true;
    auto shared = std::make_shared<std::vector<node::StorageResult>>(std::move(results));
    world_.after_disk(node_, [this, shared, again = *more] {
      disk_busy_ = false;
      disk_done(std::move(*shared));
      if (again || storage_->wants_idle_mark()) {
        plan_idle(kQuiet);
      } else if (const auto pause = storage_->space_retry()) {
        plan_idle(*pause);
      }
    });
  });
}

// --- The network.

void NodeServer::send(NodeId to, env::Lane lane, std::string frame) {
  world_.network().endpoint(node_).send(to, lane, std::move(frame));
}

void NodeServer::on_diverged(LogIndex index) {
  check_.violate(fmt::format("server {} finds that its state at {} is not that of the others", id_, index));
}

void NodeServer::on_outdated(uint64_t level) {
  check_.violate(fmt::format("server {} meets feature level {}, and never said that it knows it", id_, level));
}

void NodeServer::on_frame(NodeId from, ByteView frame) {
  if (dead_) return;
  replica_->on_frame(now(), from, frame);
  plan_turn();
}

void NodeServer::on_link_up(NodeId peer) {
  if (dead_) return;
  replica_->on_link_up(now(), peer);
  plan_turn();
}

void NodeServer::on_link_broken(NodeId peer) {
  if (dead_) return;
  replica_->on_link_broken(now(), peer);
  plan_turn();
}

// --- Clients.

node::Ticket NodeServer::ask(Request request) {
  requests_.emplace(++last_ticket_, std::move(request));
  plan_turn();
  return last_ticket_;
}

void NodeServer::answer(node::Ticket ticket, const NodeAnswer& answer) {
  const auto request = requests_.extract(ticket);
  if (request.empty()) {
    check_.violate(fmt::format("server {}: request {} was answered twice", id_, ticket));
    return;
  }
  request.mapped().done(answer);
}

void NodeServer::write(const keyspace::CommandHeader& header, const std::string& body, Done done, Request::Kind kind) {
  if (dead_ || replica_ == nullptr) return;
  const node::Ticket ticket = ask({.kind = kind, .done = std::move(done)});
  replica_->write(now(), ticket, header, body);
}

void NodeServer::put(const std::string& key, const std::string& value, LeaseId lease, Done done) {
  etcdserverpb::PutRequest request;
  request.set_key(key);
  request.set_value(value);
  request.set_lease(lease.value());
  write({.kind = keyspace::CommandKind::kPut}, request.SerializeAsString(), std::move(done));
}

void NodeServer::swap(const std::string& key, int64_t expected, const std::string& value, Done done) {
  etcdserverpb::TxnRequest request;
  etcdserverpb::Compare& compare = *request.add_compare();
  compare.set_target(etcdserverpb::Compare::MOD);
  compare.set_key(key);
  compare.set_mod_revision(expected);
  etcdserverpb::PutRequest& put = *request.add_success()->mutable_request_put();
  put.set_key(key);
  put.set_value(value);
  request.add_failure()->mutable_request_range()->set_key(key);
  write({.kind = keyspace::CommandKind::kTxn}, request.SerializeAsString(), std::move(done), Request::Kind::kSwap);
}

void NodeServer::claim(const std::string& prefix, const std::string& key, const std::string& value, LeaseId lease,
                       Done done) {
  etcdserverpb::TxnRequest request;
  etcdserverpb::Compare& compare = *request.add_compare();
  compare.set_target(etcdserverpb::Compare::CREATE);
  compare.set_key(key);
  compare.set_create_revision(0);
  etcdserverpb::PutRequest& put = *request.add_success()->mutable_request_put();
  put.set_key(key);
  put.set_value(value);
  put.set_lease(lease.value());
  request.add_failure()->mutable_request_range()->set_key(key);
  etcdserverpb::RangeRequest oldest;
  oldest.set_key(prefix);
  oldest.set_range_end(end_of(prefix));
  oldest.set_limit(1);
  oldest.set_sort_order(etcdserverpb::RangeRequest::ASCEND);
  oldest.set_sort_target(etcdserverpb::RangeRequest::CREATE);
  *request.add_success()->mutable_request_range() = oldest;
  *request.add_failure()->mutable_request_range() = oldest;
  write({.kind = keyspace::CommandKind::kTxn}, request.SerializeAsString(), std::move(done), Request::Kind::kClaim);
}

void NodeServer::look(const std::string& prefix, const std::string& key, Done done) {
  if (dead_ || replica_ == nullptr) return;
  replica_->read(now(), ask({.kind = Request::Kind::kLook, .key = key, .prefix = prefix, .done = std::move(done)}));
}

void NodeServer::erase(const std::string& key, Done done) {
  etcdserverpb::DeleteRangeRequest request;
  request.set_key(key);
  write({.kind = keyspace::CommandKind::kDeleteRange}, request.SerializeAsString(), std::move(done),
        Request::Kind::kDelete);
}

void NodeServer::compact(int64_t revision, Done done) {
  etcdserverpb::CompactionRequest request;
  request.set_revision(revision);
  write({.kind = keyspace::CommandKind::kCompact}, request.SerializeAsString(), std::move(done));
}

void NodeServer::set_clock_lease_reads(bool on) {
  keyspace::InternalCommand command;
  command.operations.push_back({.kind = keyspace::InternalOperation::Kind::kRecordPut,
                                .key = node::kClockLeaseReadsRecord,
                                .value = on ? node::kSettingOn : node::kSettingOff});
  std::string body;
  keyspace::encode(command, body);
  write({.kind = keyspace::CommandKind::kInternal}, body, [](const NodeAnswer&) {});
}

void NodeServer::grant(LeaseId lease, Duration ttl, Done done) {
  etcdserverpb::LeaseGrantRequest request;
  request.set_id(lease.value());
  request.set_ttl(to_milliseconds(ttl) / 1000);
  write({.kind = keyspace::CommandKind::kLeaseGrant, .lease = lease, .ttl_ms = to_milliseconds(ttl)},
        request.SerializeAsString(), std::move(done));
}

void NodeServer::revoke(LeaseId lease, Done done) {
  etcdserverpb::LeaseRevokeRequest request;
  request.set_id(lease.value());
  write({.kind = keyspace::CommandKind::kLeaseRevoke}, request.SerializeAsString(), std::move(done));
}

void NodeServer::get(const std::string& key, Done done) {
  if (dead_ || replica_ == nullptr) return;
  replica_->read(now(), ask({.kind = Request::Kind::kRead, .key = key, .done = std::move(done)}));
}

void NodeServer::keep_alive(LeaseId lease, Done done) {
  if (dead_ || replica_ == nullptr) return;
  replica_->keep_alive(now(), ask({.kind = Request::Kind::kKeepAlive, .done = std::move(done)}), lease);
}

void NodeServer::inspect(std::function<void(const keyspace::View&)> look) {
  if (dead_ || replica_ == nullptr) return;
  replica_->read(now(),
                 ask({.kind = Request::Kind::kInspect, .inspects = std::move(look), .done = [](const NodeAnswer&) {}}));
}

void NodeServer::transfer() {
  if (dead_ || replica_ == nullptr) return;
  (void)replica_->transfer(now(), NodeId());
  plan_turn();
}

void NodeServer::administer(const node::MemberChange& change, Done done) {
  if (dead_ || replica_ == nullptr) return;
  replica_->administer(now(), ask({.kind = Request::Kind::kChange, .done = std::move(done)}), change);
}

void NodeServer::on_write_applied(node::Ticket ticket, const keyspace::Reply& reply) {
  if (SessionsHost::is_own(ticket)) {
    sessions_->on_written(now(), ticket, reply);
    return;
  }
  NodeAnswer done{.outcome = NodeOutcome::kDone, .revision = reply.revision.value(), .error = reply.error};
  const auto request = requests_.find(ticket);
  const Request::Kind kind = request == requests_.end() ? Request::Kind::kWrite : request->second.kind;
  if (reply.error != keyspace::ErrorId::kNone || kind == Request::Kind::kWrite) {
    done.changed = reply.error == keyspace::ErrorId::kNone;
  } else if (kind == Request::Kind::kDelete) {
    etcdserverpb::DeleteRangeResponse response;
    if (!response.ParseFromString(reply.body)) check_.violate("the answer to a delete cannot be parsed");
    done.changed = response.deleted() == 1;
  } else {
    read_transaction(kind, reply.body, done);
  }
  answer(ticket, done);
}

void NodeServer::read_transaction(Request::Kind kind, const std::string& body, NodeAnswer& answer) {
  etcdserverpb::TxnResponse response;
  const bool claims = kind == Request::Kind::kClaim;
  if (!response.ParseFromString(body) || response.responses_size() != (claims ? 2 : 1)) {
    check_.violate("the answer to a transaction cannot be parsed");
    return;
  }
  answer.changed = response.succeeded();
  const auto& first = response.responses(0).response_range();
  if (!claims) {
    if (answer.changed || first.kvs_size() != 1) return;
    answer.value = first.kvs(0).value();
    answer.mod_revision = first.kvs(0).mod_revision();
    return;
  }
  const auto& oldest = response.responses(1).response_range();
  if (oldest.kvs_size() != 1 || (!answer.changed && first.kvs_size() != 1)) {
    check_.violate("the answer to a claim names no claims");
    return;
  }
  answer.lock.own = answer.changed ? answer.revision : first.kvs(0).create_revision();
  answer.lock.oldest = oldest.kvs(0).create_revision();
}

void NodeServer::on_write_refused(node::Ticket ticket, node::RequestRefusal refusal) {
  if (SessionsHost::is_own(ticket)) {
    sessions_->on_write_refused(now(), ticket, refusal);
    return;
  }
  answer(ticket, {.outcome = NodeOutcome::kRefused});
}
void NodeServer::on_write_unknown(node::Ticket ticket) {
  if (SessionsHost::is_own(ticket)) {
    sessions_->on_write_unknown(now(), ticket);
    return;
  }
  answer(ticket, {.outcome = NodeOutcome::kUnknown});
}
void NodeServer::on_read_refused(node::Ticket ticket, node::RequestRefusal refusal) {
  if (SessionsHost::is_own(ticket)) {
    sessions_->on_read_refused(now(), ticket, refusal);
    return;
  }
  answer(ticket, {.outcome = NodeOutcome::kRefused});
}
void NodeServer::on_keep_alive_refused(node::Ticket ticket, node::RequestRefusal refusal) {
  if (SessionsHost::is_own(ticket)) {
    sessions_->on_keep_alive_refused(now(), ticket, refusal);
    return;
  }
  answer(ticket, {.outcome = NodeOutcome::kRefused});
}
void NodeServer::on_kept_alive(node::Ticket ticket, int64_t ttl_ms) {
  if (SessionsHost::is_own(ticket)) {
    sessions_->on_kept_alive(now(), ticket, ttl_ms);
    return;
  }
  answer(ticket, {.outcome = NodeOutcome::kDone, .ttl_ms = ttl_ms});
}

void NodeServer::on_change_done(node::Ticket ticket) {
  answer(ticket, {.outcome = NodeOutcome::kDone});
}
void NodeServer::on_change_refused(node::Ticket ticket, node::ChangeRefusal) {
  answer(ticket, {.outcome = NodeOutcome::kRefused});
}
void NodeServer::on_change_unknown(node::Ticket ticket) {
  answer(ticket, {.outcome = NodeOutcome::kUnknown});
}

void NodeServer::on_read_ready(node::Ticket ticket) {
  if (SessionsHost::is_own(ticket)) {
    sessions_->on_read(now(), ticket);
    return;
  }
  const auto request = requests_.find(ticket);
  const keyspace::KeyspaceView view(replica_->keyspace());
  NodeAnswer read{.outcome = NodeOutcome::kDone, .revision = view.revision().value()};
  if (request != requests_.end()) {
    if (request->second.kind == Request::Kind::kLook) {
      read.lock = view_of(request->second);
    } else if (request->second.kind == Request::Kind::kInspect) {
      if (!replica_->keyspace().is_busy()) request->second.inspects(view);
    } else if (const auto found = view.get(request->second.key)) {
      read.value = std::string(found->value);
      read.mod_revision = found->mod.value();
    }
  }
  answer(ticket, read);
}

LockView NodeServer::view_of(const Request& request) {
  LockView view{.own = first_of({.key = request.key, .limit = 1}).first};
  const std::string end = end_of(request.prefix);
  keyspace::RangeRequest claims{.key = request.prefix,
                                .range_end = end,
                                .limit = 1,
                                .sort_order = keyspace::SortOrder::kAscend,
                                .sort_target = keyspace::SortTarget::kCreate};
  view.oldest = first_of(claims).first;
  if (view.own == 0) return view;
  claims.sort_order = keyspace::SortOrder::kDescend;
  claims.max_create_revision = view.own - 1;
  view.predecessor = first_of(claims).second;
  return view;
}

std::pair<int64_t, std::string> NodeServer::first_of(const keyspace::RangeRequest& range) {
  std::string body;
  etcdserverpb::RangeResponse response;
  const keyspace::ErrorId error = replica_->keyspace().range(range, body);
  if (error != keyspace::ErrorId::kNone || !response.ParseFromString(body)) {
    check_.violate(fmt::format("a look at a lock was refused: {}", keyspace::error_text(error)));
    return {};
  }
  if (response.kvs_size() == 0) return {};
  return {response.kvs(0).create_revision(), response.kvs(0).key()};
}

void NodeServer::on_applied(const keyspace::Effects&) {
  keyspace::Keyspace& keyspace = replica_->keyspace();
  check_.note_applied(id_.value(), world_.now(), replica_->raft().entry(keyspace.applied()), keyspace);
  sessions_->on_applied(now());
}

// --- Sessions.

layers::StreamId NodeServer::open_sessions(std::shared_ptr<SessionSink> sink) {
  if (dead_ || sessions_ == nullptr) return 0;
  return sessions_->open(std::move(sink));
}

void NodeServer::ask_sessions(layers::StreamId stream, const v1::SessionRequest& request) {
  if (dead_ || sessions_ == nullptr) return;
  sessions_->request(now(), stream, request);
  plan_turn();
}

void NodeServer::introduce_sessions(layers::StreamId stream, const v1::SessionIdentity& identity) {
  if (dead_ || sessions_ == nullptr) return;
  sessions_->introduce(now(), stream, identity);
  plan_turn();
}

void NodeServer::withdraw_sessions(layers::StreamId stream, SessionId session, uint64_t sequence) {
  if (dead_ || sessions_ == nullptr) return;
  sessions_->withdraw(now(), stream, session, sequence);
  plan_turn();
}

void NodeServer::close_sessions(layers::StreamId stream) {
  if (dead_ || sessions_ == nullptr) return;
  sessions_->close(stream);
  plan_turn();
}

// --- Watches.

void NodeServer::watch(WatchSink& sink, int64_t from_revision) {
  watch(sink, {.key = ByteView("\0", 1), .range_end = ByteView("\0", 1), .start_revision = from_revision});
}

void NodeServer::watch_key(WatchSink& sink, const std::string& key, int64_t from_revision) {
  watch(sink, {.key = key, .start_revision = from_revision});
}

void NodeServer::watch(WatchSink& sink, const keyspace::WatchCreate& create) {
  if (dead_ || replica_ == nullptr) {
    sink.on_watch_lost();
    return;
  }
  Watch& watch = watches_.emplace_back(
      Watch{.sink = &sink, .stream = std::make_unique<keyspace::WatchStream>(replica_->keyspace().watches())});
  watch.stream->create(create);
  plan_turn();
}

void NodeServer::unwatch(WatchSink& sink) {
  std::erase_if(watches_, [&](const Watch& watch) { return watch.sink == &sink; });
}

void NodeServer::on_state_replaced() {
  replaced_ = true;
  sessions_->on_state_replaced();
  for (Watch& watch : std::exchange(watches_, {})) {
    watch.stream.reset();
    watch.sink->on_watch_lost();
  }
}

void NodeServer::send_watches() {
  // As the product's streams: asked when new, when named, and again if there was more than one turn sends.
  for (const keyspace::WatchStream* named : replica_->keyspace().watches().take_ready()) {
    for (Watch& watch : watches_)
      if (watch.stream.get() == named) watch.asked = true;
  }
  for (Watch& watch : watches_) {
    if (!watch.asked) continue;
    uint32_t units = kWatchUnits;
    keyspace::WatchResponse response;
    while (watch.stream->next(units, response)) {
      watch.sink->on_response(response);
      response = {};
    }
    watch.asked = units == 0 && watch.stream->has_more();
  }
}

std::string NodeServer::describe() const {
  if (replica_ == nullptr) return fmt::format("{}: starting", id_);
  return fmt::format("{}: {} applied {} revision {}{}", id_, raft::describe(replica_->raft().status()),
                     replica_->applied(), replica_->keyspace().revision(),
                     replica_->is_installing() ? " installing" : "");
}

}  // namespace conclave::sim
