#include "sim/world_suite.h"

#include <algorithm>
#include <memory>
#include <string>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/mark.h"
#include "sim/runner.h"

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kRecordBytes = 64;
constexpr uint64_t kSnapshotEvery = 8;
constexpr size_t kReadBytes = 16384;

// A record says which it is in each of its words: anything else in its place is seen.
std::string record_of(size_t node, uint64_t number) {
  std::string record;
  ByteWriter writer(record);
  for (uint64_t word = 0; word < kRecordBytes / 8; ++word) writer.fixed(number * 1'000'003 + node * 101 + word);
  return record;
}

class WorldCheck;

// Appends a record every few milliseconds, counts it as acknowledged once its write is durable, then pings a peer.
class Appender final : public env::NetworkReceiver {
 public:
  Appender(WorldCheck& check, size_t node);
  void on_frame(NodeId from, ByteView frame) override;
  void on_link_up(NodeId peer) override;
  void on_link_broken(NodeId peer) override;

  // True if the disk could be opened; else the machine is told to die.
  bool recover();
  void schedule_tick();

 private:
  void tick();
  void append();
  void snapshot();
  // False, and the machine ends, if the status means that nothing may follow.
  bool survive(const Status& status);
  void check_heard();

  WorldCheck& check_;
  size_t node_;
  std::unique_ptr<env::DirectoryLock> lock_;
  std::unique_ptr<env::File> log_;
  uint64_t records_ = 0;
  uint64_t snapshot_ = 0;  // written by this process; acknowledged with the append that caused it
  bool writing_ = false;
  Instant last_seen_{};
};

// What was promised, and whether it was kept.
class WorldCheck final : public Host {
 public:
  WorldCheck(World& world, bool acknowledges_early, RunResult& result)
      : world_(world), acknowledges_early_(acknowledges_early), result_(result), machines_(world.size()) {
    world_.set_host(this);
    heard_.assign(world.size() * world.size(), 0);
    last_number_.assign(world.size() * world.size(), 0);
  }
  ~WorldCheck() override { world_.set_host(nullptr); }
  WorldCheck(const WorldCheck&) = delete;
  WorldCheck& operator=(const WorldCheck&) = delete;

  void on_start(size_t node) override {
    machines_[node].appender = std::make_unique<Appender>(*this, node);
    world_.network().attach(node, *machines_[node].appender, world_.machine(node).gate);
    if (machines_[node].appender->recover()) machines_[node].appender->schedule_tick();
  }
  void on_stop(size_t node) override { machines_[node].appender.reset(); }

  void violate(std::string message) {
    if (violation_.empty()) violation_ = std::move(message);
  }
  [[nodiscard]] const std::string& violation() const { return violation_; }

  // Compares what a machine reads at its start with the truth, and with what it had acknowledged.
  void check_recovered(size_t node, uint64_t records, uint64_t snapshot);
  void check_file(size_t node, env::File& file, const std::string& path);

  [[nodiscard]] bool has_converged(const std::vector<bool>& core) const {
    for (size_t node = 0; node < core.size(); ++node) {
      if (!core[node]) continue;
      if (machines_[node].appends_since_heal < 5) return false;
      for (size_t peer = 0; peer < core.size(); ++peer) {
        if (core[peer] && peer != node && heard_[peer * core.size() + node] == 0) return false;
      }
    }
    return true;
  }
  void begin_liveness() {
    for (auto& each : machines_) each.appends_since_heal = 0;
    std::ranges::fill(heard_, 0);
  }

  struct MachineState {
    std::unique_ptr<Appender> appender;
    uint64_t acknowledged = 0;  // records
    uint64_t snapshot = 0;      // newest acknowledged
    uint64_t pings = 0;
    uint64_t appends_since_heal = 0;
  };
  World& world_;
  const bool acknowledges_early_;
  RunResult& result_;
  std::vector<MachineState> machines_;
  std::vector<uint64_t> heard_;        // per (from, to), since the core was healed
  std::vector<uint64_t> last_number_;  // of pings, per (from, to)

 private:
  std::string violation_;
};

void WorldCheck::check_file(size_t node, env::File& file, const std::string& path) {
  SimDisk& disk = world_.machine(node).disk;
  const Result<uint64_t> size = file.size();
  if (!size) return;
  std::string got;
  std::string truth;
  for (uint64_t offset = 0; offset < *size; offset += kReadBytes) {
    got.resize(std::min<uint64_t>(kReadBytes, *size - offset));
    truth.resize(got.size());
    const uint64_t misdirected = world_.decisions().counters()[FaultKind::kMisdirectedRead];
    const Status status = file.read(offset, std::span<char>(got));
    if (!disk.truth(path, offset, std::span<char>(truth))) violate(fmt::format("node {}: {} has no truth", node, path));
    const bool damaged = disk.is_damaged(path, offset, got.size());
    if (!status) {
      if (status.error().code == ErrorCode::kCrashed) return;
      if (!damaged)
        violate(fmt::format("node {}: {} at {} unreadable, the atlas knows of nothing", node, path, offset));
      REACHED(sim_world_read_damage);
    } else if (world_.decisions().counters()[FaultKind::kMisdirectedRead] == misdirected && (got == truth) == damaged) {
      violate(fmt::format("node {}: {} at {} reads {}, the atlas says {}", node, path, offset,
                          got == truth ? "well" : "wrong", damaged ? "damaged" : "sound"));
    }
  }
}

void WorldCheck::check_recovered(size_t node, uint64_t records, uint64_t snapshot) {
  SimDisk& disk = world_.machine(node).disk;
  MachineState& machine = machines_[node];
  const bool log_missing = disk.is_damaged("log", 0, UINT64_MAX / 2) && records == 0;
  const bool snapshot_damaged = disk.is_damaged("snapshot", 0, UINT64_MAX / 2);
  const bool whole = disk.whole_disk_fault() != WholeDiskFault::kNone;
  if (records < machine.acknowledged) {
    if (!log_missing && !whole) {
      violate(fmt::format("node {}: {} records acknowledged, {} left, and no fault that may lose them", node,
                          machine.acknowledged, records));
    }
    machine.acknowledged = records;
  }
  if (snapshot < machine.snapshot) {
    if (!snapshot_damaged && !whole && disk.per_million()[FaultKind::kMisdirectedRead] == 0) {
      violate(fmt::format("node {}: snapshot {} acknowledged, {} found, and no fault that may lose it", node,
                          machine.snapshot, snapshot));
    }
    machine.snapshot = snapshot;
  }
}

Appender::Appender(WorldCheck& check, size_t node) : check_(check), node_(node) {}

bool Appender::survive(const Status& status) {
  if (status) return true;
  if (status.error().code == ErrorCode::kNoSpace) return true;
  // After a failed write or sync the cache may lie: only a new start of the machine tells what is on the platter.
  check_.world_.request_crash(node_, CrashMode::kPowerLoss, milliseconds(100));
  return false;
}

bool Appender::recover() {
  SimDisk& disk = check_.world_.machine(node_).disk;
  auto lock = disk.lock();
  if (!lock) {
    check_.violate(fmt::format("node {}: the lock outlived its process", node_));
    return false;
  }
  lock_ = std::move(*lock);
  uint64_t snapshot = 0;
  if (auto file = disk.open("snapshot", {})) {
    check_.check_file(node_, **file, "snapshot");
    char raw[8];
    // A name in place before its bytes are durable would be a file without content.
    if (disk.true_size("snapshot").value_or(0) < sizeof(raw)) {
      check_.violate(fmt::format("node {}: the snapshot was renamed after its sync, but is empty", node_));
    }
    if ((*file)->read(0, raw)) snapshot = load_le<uint64_t>(raw);
    // Damage shows as a wrong number; the truth is what the check is about.
    if (disk.truth("snapshot", 0, raw) && !disk.is_damaged("snapshot", 0, 8)) snapshot = load_le<uint64_t>(raw);
  }
  auto log = disk.open("log", {.mode = env::OpenMode::kWrite});
  if (log) {
    log_ = std::move(*log);
    check_.check_file(node_, *log_, "log");
    records_ = disk.true_size("log").value_or(0) / kRecordBytes;
    check_.check_recovered(node_, records_, snapshot);
  } else if (log.error().code == ErrorCode::kNotFound) {
    check_.check_recovered(node_, 0, snapshot);
    auto made = disk.open("log", {.mode = env::OpenMode::kCreate});
    if (!made) return survive(std::unexpected(made.error()));
    log_ = std::move(*made);
  } else {
    return survive(std::unexpected(log.error()));
  }
  // What an earlier process left in the cache only, and its name, are made durable before anything is built on them.
  if (!survive(log_->resize(records_ * kRecordBytes)) || !survive(log_->sync()) || !survive(disk.sync_directory(""))) {
    return false;
  }
  const Status removed = disk.remove("snapshot.new");
  return removed || removed.error().code == ErrorCode::kNotFound || survive(removed);
}

void Appender::schedule_tick() {
  World& world = check_.world_;
  const Instant local = world.machine(node_).clock.now();
  if (local < last_seen_) check_.violate(fmt::format("node {}: its clock went back", node_));
  last_seen_ = local;
  world.at_local(node_, local + milliseconds(10), [this] { tick(); });
}

void Appender::check_heard() {
  const Gate& gate = check_.world_.machine(node_).gate;
  if (gate.is_frozen() || !gate.is_open())
    check_.violate(fmt::format("node {}: heard something while frozen or dead", node_));
}

void Appender::tick() {
  check_heard();
  World& world = check_.world_;
  if (!writing_) append();
  if (!world.is_running(node_)) return;
  if (world.size() > 1) {
    auto& machine = check_.machines_[node_];
    const size_t to = (node_ + 1 + machine.pings % (world.size() - 1)) % world.size();
    std::string frame;
    ByteWriter writer(frame);
    writer.fixed(uint64_t{++machine.pings});
    writer.fixed(~machine.pings);
    ++check_.result_.operations_attempted;
    world.network().endpoint(node_).send(SimNetwork::id_of(to), env::Lane::kConsensus, std::move(frame));
  }
  schedule_tick();
}

void Appender::append() {
  World& world = check_.world_;
  ++check_.result_.operations_attempted;
  const std::string record = record_of(node_, records_);
  if (check_.acknowledges_early_) {
    if (!survive(log_->write(records_ * kRecordBytes, record))) return;
    check_.machines_[node_].acknowledged = ++records_;
    ++check_.result_.operations_acknowledged;
    return;
  }
  const Status status = log_->write_durable(records_ * kRecordBytes, record);
  if (!survive(status)) return;
  if (!status) return;  // no space: tried again
  ++records_;
  if (records_ % kSnapshotEvery == 0) snapshot();
  writing_ = true;
  world.after_disk(node_, [this] {
    check_heard();
    writing_ = false;
    auto& machine = check_.machines_[node_];
    machine.acknowledged = records_;
    // Not the greater of both: after its log was lost a machine counts from the start again.
    if (snapshot_ > 0) machine.snapshot = snapshot_;
    ++machine.appends_since_heal;
    ++check_.result_.operations_acknowledged;
  });
}

// Written beside, synced, renamed, and the directory synced: the way every file is replaced.
void Appender::snapshot() {
  SimDisk& disk = check_.world_.machine(node_).disk;
  char raw[8];
  store_le(raw, records_);
  auto file = disk.open("snapshot.new", {.mode = env::OpenMode::kCreate});
  const auto step = [this](const Status& status) {
    // Without space for it the next one is due later; the mark is not moved back, so this machine ends too.
    if (!status) check_.world_.request_crash(node_, CrashMode::kPowerLoss, milliseconds(100));
    return status.has_value();
  };
  if (!file) {
    (void)step(std::unexpected(file.error()));
    return;
  }
  if (!step((*file)->write(0, ByteView(raw, sizeof(raw)))) || !step((*file)->sync()) ||
      !step(disk.rename("snapshot.new", "snapshot"))) {
    return;
  }
  if (step(disk.sync_directory(""))) snapshot_ = records_;
}

void Appender::on_frame(NodeId from_id, ByteView frame) {
  check_heard();
  World& world = check_.world_;
  const size_t from = SimNetwork::index_of(from_id);
  // A frame that came while this machine was frozen waited here, whatever became of the link since.
  if (!world.parameters().enabled[FaultKind::kFreeze] && !world.network().is_open(from, node_)) {
    check_.violate(fmt::format("node {}: heard {} over a closed link", node_, from));
  }
  ByteReader reader(frame);
  const auto number = reader.fixed<uint64_t>();
  if (reader.fixed<uint64_t>() != ~number || !reader.ok()) {
    check_.violate(fmt::format("node {}: a frame changed in flight was delivered", node_));
  }
  const size_t pair = from * world.size() + node_;
  const FaultSet& enabled = world.parameters().enabled;
  const bool ordered = !enabled[FaultKind::kMessageReordered] && !enabled[FaultKind::kMessageReplayed];
  if (reader.finished()) {  // a ping; an echo has one byte more
    if (ordered && number <= check_.last_number_[pair]) {
      check_.violate(fmt::format("node {}: frame {} of {} after {}", node_, number, from, check_.last_number_[pair]));
    }
    check_.last_number_[pair] = number;
    std::string echo(frame);
    echo += 'e';
    world.network().endpoint(node_).send(from_id, env::Lane::kForward, std::move(echo));
    return;
  }
  ++check_.result_.operations_acknowledged;
  ++check_.heard_[pair];
}

void Appender::on_link_up(NodeId peer) {
  check_heard();
  if (!check_.world_.is_running(SimNetwork::index_of(peer))) REACHED(sim_world_link_up_to_the_dead);
}

void Appender::on_link_broken(NodeId) {
  check_heard();
}

RunResult run(RunContext& context, bool acknowledges_early) {
  RunResult result;
  SwarmLimits limits = SwarmLimits::everything();
  SwarmParameters parameters = draw_swarm(context.seed, limits);
  if (acknowledges_early) {
    parameters.enabled[FaultKind::kPowerLoss] = true;
    parameters.nemesis.per_thousand[FaultKind::kPowerLoss] = 500;
  }
  if (context.setting("calm", 0) != 0) {
    parameters = calm_swarm(context.seed, context.setting("nodes", 3));
  }
  result.parameters = describe(parameters);
  World world(parameters, *context.decisions);
  WorldCheck check(world, acknowledges_early, result);
  Nemesis nemesis(world);
  world.start_all();
  std::vector<bool> core;
  run_two_phases(world, nemesis,
                 {.safety = context.time,
                  .violation = [&] { return check.violation(); },
                  .on_healed =
                      [&](const std::vector<bool>& healed) {
                        core = healed;
                        check.begin_liveness();
                      },
                  .has_converged = [&] { return acknowledges_early || check.has_converged(core); }},
                 result);
  return result;
}

RunResult run_world(RunContext& context) {
  return run(context, false);
}
RunResult run_canary(RunContext& context) {
  return run(context, true);
}

}  // namespace

void add_world_suites() {
  Suite world{.name = "world", .description = "the simulated world holds its promises", .run = &run_world};
  world.expected = SwarmLimits::everything().allowed;
  world.mark_files = {"sim/disk", "sim/world"};
  add_suite(std::move(world));
  add_suite({.name = "canary", .description = "acknowledges before its sync: must fail", .run = &run_canary});
}

}  // namespace conclave::sim
