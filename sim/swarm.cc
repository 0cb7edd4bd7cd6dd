#include "sim/swarm.h"

#include <numeric>

#include "base/random.h"

namespace conclave::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

// Frames or calls out of a million: the most a run draws.
uint32_t rate_max(FaultKind kind) {
  switch (kind) {
    case FaultKind::kMessageLost:
      return 200'000;
    case FaultKind::kMessageDelayed:
      // Each holds up its lane for seconds: a tenth of a per cent of a busy link's frames and it hardly ever moves.
      return 500;
    case FaultKind::kMessageReplayed:
      return 100'000;
    case FaultKind::kMessageReordered:
      return 200'000;
    case FaultKind::kMessageCorrupted:
      return 20'000;
    case FaultKind::kLinkBreakHidden:
      return 300'000;
    case FaultKind::kTornWrite:
      return 1'000'000;
    case FaultKind::kCorruptSector:
      return 5'000;
    case FaultKind::kStaleSector:
      return 1'000;
    case FaultKind::kMisdirectedWrite:
      return 1'000;
    case FaultKind::kMisdirectedRead:
      return 20'000;
    case FaultKind::kUnreadableSector:
      return 5'000;
    case FaultKind::kWriteError:
      return 2'000;
    case FaultKind::kSyncError:
      return 2'000;
    case FaultKind::kLyingSync:
      return 20'000;
    default:
      return 0;
  }
}

// Looks of the nemesis out of a thousand.
uint32_t nemesis_max(FaultKind kind) {
  switch (kind) {
    case FaultKind::kLinkClogged:
    case FaultKind::kLinkCut:
    case FaultKind::kLinkFlapping:
    case FaultKind::kLinkHalfOpen:
      return 100;
    case FaultKind::kSwizzle:
    case FaultKind::kPartition:
    case FaultKind::kPartitionPartial:
    case FaultKind::kPartitionBridge:
    case FaultKind::kPartitionRing:
    case FaultKind::kIsolation:
      return 60;
    case FaultKind::kKill:
    case FaultKind::kPowerLoss:
    case FaultKind::kCrashInDiskCall:
    case FaultKind::kFreeze:
      return 80;
    case FaultKind::kPowerLossAll:
      return 20;
    case FaultKind::kDrift:
    case FaultKind::kDriftBeyondBound:
    case FaultKind::kWallJump:
      return 60;
    case FaultKind::kNoSpace:
    case FaultKind::kSlowDisk:
    case FaultKind::kHungDisk:
      return 50;
    case FaultKind::kCorruptSector:
    case FaultKind::kStaleSector:
    case FaultKind::kUnreadableSector:
      return 50;
    case FaultKind::kMissingFile:
    case FaultKind::kLostDisk:
    case FaultKind::kRolledBackDisk:
      return 30;
    default:
      return 0;
  }
}

}  // namespace

SwarmLimits SwarmLimits::everything() {
  SwarmLimits limits;
  for (size_t i = 0; i < kFaultKinds; ++i) limits.allowed[static_cast<FaultKind>(i)] = true;
  return limits;
}

SwarmParameters calm_swarm(uint64_t seed, size_t nodes) {
  SwarmParameters parameters;
  parameters.seed = seed;
  parameters.nodes = nodes;
  parameters.damageable.assign(nodes, false);
  parameters.knobs_seed = Random(seed).next();
  return parameters;
}

SwarmParameters draw_swarm(uint64_t seed, const SwarmLimits& limits) {
  Random random(seed ^ 0x5377'6172'6d00'0000ULL);
  // Five and three most often: what people run.
  static constexpr uint32_t kSizeWeights[] = {0, 1, 1, 5, 2, 5, 1, 2};
  uint32_t weights[8] = {};
  for (size_t n = limits.nodes_min; n <= limits.nodes_max && n < 8; ++n) weights[n] = kSizeWeights[n];
  SwarmParameters parameters = calm_swarm(seed, random.weighted(weights));
  parameters.knobs_seed = random.next();
  parameters.bounded = !random.chance(limits.unbounded_percent, 100);

  // A third of the runs has few kinds on, a third half of them, a third most.
  static constexpr uint64_t kOnPercent[] = {15, 50, 80};
  const uint64_t on_percent = kOnPercent[random.below(3)];
  for (size_t i = 0; i < kFaultKinds; ++i) {
    const auto kind = static_cast<FaultKind>(i);
    const bool on = random.chance(on_percent, 100) && limits.allowed[kind];
    const uint32_t percent = static_cast<uint32_t>(1 + random.below(100));
    parameters.enabled[kind] = on;
    if (!on) continue;
    // The square makes low rates as likely as high ones.
    const uint32_t scale = percent * percent;
    parameters.network.per_million[kind] = parameters.disk.per_million[kind] =
        rate_max(kind) == 0 ? 0 : 1 + rate_max(kind) / 10'000 * scale + rate_max(kind) % 10'000 * scale / 10'000;
    parameters.nemesis.per_thousand[kind] = nemesis_max(kind) == 0 ? 0 : 1 + nemesis_max(kind) * percent / 100;
  }

  static constexpr Duration kDelays[] = {microseconds(100), milliseconds(1), milliseconds(5), milliseconds(30)};
  parameters.network.delay_min = kDelays[random.below(3)] / 4;
  parameters.network.delay_mean = kDelays[random.below(4)];
  parameters.network.long_delay_max = random.between(milliseconds(100), seconds(10));
  parameters.network.replay_delay_max = random.between(milliseconds(100), seconds(20));
  parameters.network.replay_across_lives = random.coin();
  static constexpr size_t kQueues[] = {16, 64, 256, 1024};
  parameters.network.queue_frames_max =
      parameters.enabled[FaultKind::kQueueFull] ? kQueues[random.below(2)] : kQueues[2 + random.below(2)];
  parameters.network.connect_delay_max = random.between(milliseconds(1), milliseconds(500));
  parameters.network.break_delay_max = random.between(milliseconds(1), seconds(5));

  parameters.disk.sync_mean = random.between(microseconds(50), milliseconds(10));
  parameters.disk.write_mean = random.between(microseconds(5), microseconds(50));

  parameters.nemesis.tick_mean = random.between(milliseconds(200), seconds(2));
  parameters.nemesis.episode_mean = random.between(milliseconds(200), seconds(5));
  parameters.nemesis.restart_mean = random.between(milliseconds(50), seconds(2));

  std::vector<size_t> order(parameters.nodes);
  std::iota(order.begin(), order.end(), size_t{0});
  random.shuffle(std::span<size_t>(order));
  const size_t damageable = parameters.bounded ? (parameters.nodes - 1) / 2 : parameters.nodes;
  for (size_t i = 0; i < damageable; ++i) parameters.damageable[order[i]] = true;
  return parameters;
}

std::string describe(const SwarmParameters& parameters) {
  std::string text = fmt::format(
      "nodes={} regime={} delay={}us+{}us sync={}us tick={}ms episode={}ms restart={}ms queue={} damageable=",
      parameters.nodes, parameters.bounded ? "bounded" : "unbounded", parameters.network.delay_min.count() / 1000,
      parameters.network.delay_mean.count() / 1000, parameters.disk.sync_mean.count() / 1000,
      to_milliseconds(parameters.nemesis.tick_mean), to_milliseconds(parameters.nemesis.episode_mean),
      to_milliseconds(parameters.nemesis.restart_mean), parameters.network.queue_frames_max);
  for (bool damageable : parameters.damageable) text += damageable ? '1' : '0';
  for (size_t i = 0; i < kFaultKinds; ++i) {
    const auto kind = static_cast<FaultKind>(i);
    if (!parameters.enabled[kind]) continue;
    text += fmt::format(" {}", to_string(kind));
    if (parameters.network.per_million[kind] > 0) text += fmt::format("={}ppm", parameters.network.per_million[kind]);
    if (parameters.nemesis.per_thousand[kind] > 0)
      text += fmt::format("~{}/1000", parameters.nemesis.per_thousand[kind]);
  }
  return text;
}

}  // namespace conclave::sim
