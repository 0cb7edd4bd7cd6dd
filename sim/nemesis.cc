#include "sim/nemesis.h"

#include <algorithm>
#include <numeric>

#include "base/assert.h"

namespace conclave::sim {
namespace {

// Destroying faults that strike by call have rates of their own; here they strike at rest.
constexpr FaultKind kStrikes[] = {
    FaultKind::kLinkClogged,
    FaultKind::kSwizzle,
    FaultKind::kLinkCut,
    FaultKind::kLinkFlapping,
    FaultKind::kLinkHalfOpen,
    FaultKind::kPartition,
    FaultKind::kPartitionPartial,
    FaultKind::kPartitionBridge,
    FaultKind::kPartitionRing,
    FaultKind::kIsolation,
    FaultKind::kKill,
    FaultKind::kPowerLoss,
    FaultKind::kPowerLossAll,
    FaultKind::kCrashInDiskCall,
    FaultKind::kFreeze,
    FaultKind::kDrift,
    FaultKind::kDriftBeyondBound,
    FaultKind::kWallJump,
    FaultKind::kCorruptSector,
    FaultKind::kStaleSector,
    FaultKind::kUnreadableSector,
    FaultKind::kNoSpace,
    FaultKind::kSlowDisk,
    FaultKind::kHungDisk,
    FaultKind::kMissingFile,
    FaultKind::kLostDisk,
    FaultKind::kRolledBackDisk,
};

// Moments kept of each disk.
constexpr size_t kImagesMax = 4;

}  // namespace

Nemesis::Nemesis(World& world) : world_(world), images_(world.size()) {
  Decisions& decisions = world.decisions();
  for (FaultKind kind : kStrikes) {
    streams_[static_cast<size_t>(kind)] = decisions.stream(kind, fmt::format("nemesis.{}", to_string(kind)));
  }
  time_ = decisions.stream(FaultKind::kCount, "nemesis.time");
}

void Nemesis::start() {
  running_ = true;
  tick();
}

void Nemesis::stop() {
  running_ = false;
  world_.decisions().stop();
}

void Nemesis::tick() {
  if (!running_) return;
  for (FaultKind kind : kStrikes) {
    if (!fires(kind)) continue;
    if (!strike(kind, world_.decisions().detail(streams_[static_cast<size_t>(kind)]))) {
      world_.decisions().had_no_effect(kind);
    }
  }
  take_image();
  const Duration pause = world_.decisions().exponential(time_, world_.parameters().nemesis.tick_mean);
  world_.scheduler().schedule(world_.now() + pause, [this] { tick(); });
}

bool Nemesis::fires(FaultKind kind) {
  const Decisions::Stream stream = streams_[static_cast<size_t>(kind)];
  return world_.decisions().decide(stream, world_.parameters().nemesis.per_thousand[kind], 1000);
}

bool Nemesis::strike(FaultKind kind, Random detail) {
  const Duration lasting = detail.exponential(world_.parameters().nemesis.episode_mean);
  world_.digest().add(0xfa00 + static_cast<uint64_t>(kind));
  if (kind <= FaultKind::kIsolation) {
    return strike_network(kind, detail, lasting);
  }
  if (kind <= FaultKind::kWallJump) return strike_process(kind, detail, lasting);
  return strike_disk(kind, detail, lasting);
}

// Now and then, of one machine that may be rolled back later.
void Nemesis::take_image() {
  Decisions& decisions = world_.decisions();
  if (!decisions.is_enabled(FaultKind::kRolledBackDisk) || decisions.choose(time_, 8) != 0) return;
  const size_t node = decisions.choose(time_, world_.size());
  const size_t place = decisions.choose(time_, kImagesMax);
  if (!world_.parameters().damageable[node]) return;
  std::vector<DiskImage>& images = images_[node];
  if (images.size() < kImagesMax) {
    images.push_back(world_.machine(node).disk.durable_image());
  } else {
    images[place] = world_.machine(node).disk.durable_image();
  }
}

bool Nemesis::strike_network(FaultKind kind, Random& detail, Duration lasting) {
  SimNetwork& network = world_.network();
  Scheduler& scheduler = world_.scheduler();
  if (network.size() < 2) return false;
  const Instant until = world_.now() + lasting;
  const size_t from = detail.below(network.size());
  const size_t to = (from + 1 + detail.below(network.size() - 1)) % network.size();
  switch (kind) {
    case FaultKind::kLinkClogged:
      network.clog(from, to, until);
      return true;
    case FaultKind::kSwizzle: {
      const size_t links = 1 + detail.below(network.size() * (network.size() - 1));
      network.swizzle(links, lasting / 2, lasting, detail);
      return true;
    }
    case FaultKind::kLinkCut:
      network.set_open(CutLayer::kCut, from, to, false);
      scheduler.schedule(until, [this, from, to] {
        if (running_) world_.network().set_open(CutLayer::kCut, from, to, true);
      });
      return true;
    case FaultKind::kLinkFlapping:
      network.flap(from, to, lasting / 8 + std::chrono::milliseconds(1), until, detail.fork());
      return true;
    case FaultKind::kLinkHalfOpen:
      network.set_half_open(from, to, true);
      scheduler.schedule(until, [this, from, to] {
        if (running_) world_.network().set_half_open(from, to, false);
      });
      return true;
    default: {
      network.impose(CutLayer::kPartition, make_partition(kind, network.size(), detail));
      scheduler.schedule(until, [this, epoch = ++epoch_] {
        if (running_ && epoch == epoch_) world_.network().clear(CutLayer::kPartition);
      });
      return true;
    }
  }
}

bool Nemesis::crash(size_t node, CrashMode mode, Duration down) {
  if (!world_.is_running(node)) return false;
  world_.crash(node, mode);
  const uint64_t life = world_.machine(node).gate.life();
  world_.scheduler().schedule(world_.now() + down, [this, node, life] {
    if (running_ && !world_.is_running(node) && world_.machine(node).gate.life() == life) world_.start(node);
  });
  return true;
}

bool Nemesis::strike_process(FaultKind kind, Random& detail, Duration lasting) {
  const size_t node = detail.below(world_.size());
  Machine& machine = world_.machine(node);
  const NemesisOptions& options = world_.parameters().nemesis;
  const Duration down = detail.exponential(options.restart_mean);
  switch (kind) {
    case FaultKind::kKill:
      return crash(node, CrashMode::kProcessKilled, down);
    case FaultKind::kPowerLoss:
      return crash(node, CrashMode::kPowerLoss, down);
    case FaultKind::kPowerLossAll:
      for (size_t each = 0; each < world_.size(); ++each) {
        crash(each, CrashMode::kPowerLoss, detail.exponential(options.restart_mean));
      }
      return true;
    case FaultKind::kCrashInDiskCall:
      if (!world_.is_running(node)) return false;
      machine.disk.crash_after(detail.below(8));
      return true;
    case FaultKind::kFreeze: {
      if (!world_.is_running(node)) return false;
      world_.freeze(node);
      const uint64_t life = machine.gate.life();
      world_.scheduler().schedule(world_.now() + lasting, [this, node, life] {
        if (running_ && world_.machine(node).gate.life() == life) world_.thaw(node);
      });
      return true;
    }
    case FaultKind::kDrift:
    case FaultKind::kDriftBeyondBound: {
      const bool beyond = kind == FaultKind::kDriftBeyondBound;
      // Half the bound for each machine: two of them part by no more than the bound.
      const int32_t most = beyond ? options.drift_beyond_ppm : kDriftBoundPpm / 2;
      const auto drift = static_cast<int32_t>(detail.below(2 * static_cast<uint64_t>(most) + 1)) - most;
      machine.clock.set_drift(drift);
      return true;
    }
    case FaultKind::kWallJump:
      machine.clock.jump_wall(std::chrono::hours(static_cast<int64_t>(detail.below(49)) - 24));
      return true;
    default:
      UNREACHABLE();
  }
}

bool Nemesis::pick_damageable(Random& random, size_t& node) const {
  std::vector<size_t> nodes;
  for (size_t i = 0; i < world_.size(); ++i) {
    if (world_.parameters().damageable[i]) nodes.push_back(i);
  }
  if (nodes.empty()) return false;
  node = nodes[random.below(nodes.size())];
  return true;
}

bool Nemesis::strike_disk(FaultKind kind, Random& detail, Duration lasting) {
  size_t node = detail.below(world_.size());
  const Instant until = world_.now() + lasting;
  if (destroys_durable_data(kind) && !pick_damageable(detail, node)) return false;
  Machine& machine = world_.machine(node);
  const Duration down = detail.exponential(world_.parameters().nemesis.restart_mean);
  switch (kind) {
    case FaultKind::kSlowDisk:
      machine.disk.slow_until(until, 2 + detail.below(100));
      return true;
    case FaultKind::kHungDisk:
      machine.disk.hang_until(until);
      return true;
    case FaultKind::kNoSpace: {
      const uint64_t capacity = world_.parameters().disk.capacity_bytes;
      machine.disk.set_capacity(machine.disk.used_bytes() + detail.below(4096));
      world_.scheduler().schedule(until, [this, node, capacity] {
        if (running_) world_.machine(node).disk.set_capacity(capacity);
      });
      return true;
    }
    case FaultKind::kCorruptSector:
    case FaultKind::kStaleSector:
    case FaultKind::kUnreadableSector:
      return machine.disk.damage_random(kind, 1 + detail.below(4), detail) > 0;
    case FaultKind::kMissingFile: {
      // A name disappears while nobody looks: the machine is down, then starts without it.
      crash(node, CrashMode::kPowerLoss, down);
      const std::vector<std::string> paths = machine.disk.durable_image().paths();
      return !paths.empty() && machine.disk.lose_file(paths[detail.below(paths.size())]);
    }
    case FaultKind::kLostDisk:
      crash(node, CrashMode::kPowerLoss, down);
      machine.disk.lose_all();
      return true;
    case FaultKind::kRolledBackDisk: {
      const std::vector<DiskImage>& images = images_[node];
      if (images.empty()) return false;
      crash(node, CrashMode::kPowerLoss, down);
      return machine.disk.roll_back(images[detail.below(images.size())]);
    }
    default:
      UNREACHABLE();
  }
}

std::vector<bool> Nemesis::heal_core() {
  const size_t size = world_.size();
  Random random = world_.decisions().generator("nemesis.core");
  std::vector<size_t> order(size);
  std::iota(order.begin(), order.end(), size_t{0});
  random.shuffle(std::span<size_t>(order));
  // Stable by hand: std::stable_partition takes a buffer whose size the library chooses.
  std::vector<size_t> damageable;
  std::erase_if(order, [&](size_t node) {
    if (!world_.parameters().damageable[node]) return false;
    damageable.push_back(node);
    return true;
  });
  order.insert(order.end(), damageable.begin(), damageable.end());
  const size_t majority = size / 2 + 1;
  const size_t count = majority + random.below(size - majority + 1);
  std::vector<bool> core(size, false);
  for (size_t i = 0; i < count; ++i) core[order[i]] = true;
  heal(core);
  return core;
}

void Nemesis::heal_all() {
  heal(std::vector<bool>(world_.size(), true));
}

void Nemesis::heal(const std::vector<bool>& core) {
  stop();
  world_.network().heal(core);
  for (size_t node = 0; node < world_.size(); ++node) {
    if (!core[node]) continue;
    Machine& machine = world_.machine(node);
    machine.disk.heal_episodes();
    machine.disk.set_capacity(world_.parameters().disk.capacity_bytes);
    machine.clock.set_drift(0);
    world_.thaw(node);
    // A call that hangs for long would hold its process longer than any bound: the machine is started anew.
    const bool hangs = machine.disk.elapsed() > std::chrono::seconds(1);
    if (world_.is_running(node) && hangs) world_.crash(node, CrashMode::kPowerLoss);
    if (!world_.is_running(node)) world_.start(node);
  }
}

}  // namespace conclave::sim
