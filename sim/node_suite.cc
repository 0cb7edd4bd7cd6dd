#include "sim/node_suite.h"

#include <cstdio>
#include <utility>

#include "sim/node_cluster.h"
#include "sim/raft_knobs.h"
#include "sim/runner.h"

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

}  // namespace

NodeKnobs draw_node_knobs(const SwarmParameters& parameters) {
  Random random(parameters.knobs_seed ^ 0x6e6f6465);
  NodeKnobs knobs;
  knobs.replica.raft = draw_knobs(parameters).options;
  knobs.replica.raft.uncommitted_bytes_max = size_t{512} << random.below(12);
  knobs.replica.raft.bytes_per_message_max = std::max<size_t>(knobs.replica.raft.bytes_per_message_max, 512);
  knobs.replica.request_timeout = random.between(milliseconds(2000), Duration(milliseconds(7000)));
  knobs.replica.forward_retry = random.between(milliseconds(100), Duration(milliseconds(1000)));
  static constexpr uint32_t kEntries[] = {1, 16, 2048};
  knobs.replica.entries_per_turn = kEntries[random.below(3)];
  static constexpr uint64_t kPerDigest[] = {1, 16, 1024};
  knobs.replica.entries_per_digest = kPerDigest[random.below(3)];
  static constexpr uint64_t kLogBytes[] = {2048, 16'384, 131'072};
  knobs.replica.snapshot_log_bytes = kLogBytes[random.below(3)];
  static constexpr size_t kPending[] = {1, 4096, 65'536};
  knobs.replica.snapshot_bytes_pending_max = kPending[random.below(3)];
  knobs.storage.segment_bytes = wal::kSegmentBytesMin << (2 * random.below(3));
  // What is written at once fits into a segment, whoever sent it.
  const size_t batch_bytes = knobs.storage.segment_bytes / 4;
  knobs.replica.batch_bytes_max = std::min(knobs.replica.batch_bytes_max, batch_bytes);
  knobs.replica.raft.bytes_per_message_max = std::min(knobs.replica.raft.bytes_per_message_max, batch_bytes);
  knobs.storage.write_path = random.coin() ? wal::WritePath::kBuffered : wal::WritePath::kDirect;
  static constexpr size_t kChunks[] = {300, 4096, 65'536};
  knobs.storage.chunk_bytes = kChunks[random.below(3)];
  knobs.storage.compress_snapshots = random.coin();
  knobs.clients = random.between(uint64_t{16}, 40);
  // About 170 operations a second if all are answered at once.
  knobs.think_mean = milliseconds(static_cast<int64_t>(knobs.clients) * 6);
  knobs.lease_clients = random.below(8);
  knobs.watchers = 1 + random.below(4);
  knobs.keys = 1 + random.below(32);
  knobs.value_bytes = random.chance(1, 4) ? 200 : 8;
  knobs.operation_timeout = random.between(milliseconds(1000), Duration(milliseconds(8000)));
  knobs.read_percent = random.between(uint64_t{10}, 80);
  knobs.swap_percent = random.below(40);
  knobs.delete_percent = random.below(30);
  if (random.chance(2, 3)) knobs.compact_per_thousand = static_cast<uint32_t>(random.between(uint64_t{10}, 200));
  if (random.coin()) {
    knobs.replica.history.age_max = random.between(milliseconds(2000), Duration(seconds(30)));
    knobs.replica.history.bytes_max = uint64_t{4096} << random.below(8);
  }
  // Queues so small that some fill up.
  static constexpr size_t kPendingMax[] = {2, 8, 65'536, 65'536};
  knobs.replica.writes_pending_max = kPendingMax[random.below(4)];
  knobs.replica.reads_pending_max = kPendingMax[random.below(4)];
  static constexpr uint32_t kReads[] = {1, 16, 2048};
  knobs.replica.reads_per_turn = kReads[random.below(3)];
  // Slow enough that ends are held back, fast enough that they do not pile up.
  if (random.chance(1, 3)) {
    knobs.replica.leases.ends_per_second = random.between(uint64_t{10}, 100);
    knobs.replica.leases.inherited_ends_per_second = random.between(uint64_t{2}, 20);
  }
  knobs.spare = draw_knobs(parameters).spare;
  if (random.coin()) knobs.membership_per_thousand = static_cast<uint32_t>(random.between(uint64_t{10}, 200));
  if (random.chance(2, 3)) knobs.transfer_per_thousand = static_cast<uint32_t>(random.between(uint64_t{10}, 200));
  // Reads may rest on clocks only where these keep their bound.
  if (random.coin() && !parameters.enabled[FaultKind::kDriftBeyondBound]) {
    knobs.clock_lease_per_thousand = static_cast<uint32_t>(random.between(uint64_t{10}, 200));
  }
  // Not where servers come: one with the older build may find the level raised.
  if (knobs.membership_per_thousand == 0) knobs.newer_build_from_boot = 1 + random.below(4);
  knobs.lock_clients = random.below(9);
  knobs.locks = 1 + random.below(3);
  return knobs;
}

namespace {

std::string describe(const NodeKnobs& knobs) {
  return fmt::format(
      " | election={}ms uncommitted={} per-turn={} snapshot={} segment={} chunk={} clients={} leases={} "
      "lock-clients={} locks={} session-clients={}x{}",
      to_milliseconds(knobs.replica.raft.election_timeout), knobs.replica.raft.uncommitted_bytes_max,
      knobs.replica.entries_per_turn, knobs.replica.snapshot_log_bytes, knobs.storage.segment_bytes,
      knobs.storage.chunk_bytes, knobs.clients, knobs.lease_clients, knobs.lock_clients, knobs.locks,
      knobs.session_clients, knobs.sessions_per_client);
}

}  // namespace

RunResult run_node_cluster(RunContext& context, const SwarmParameters& parameters, const NodeKnobs& knobs,
                           const NodeRunOptions& options) {
  RunResult result;
  result.parameters = describe(parameters) + describe(knobs);
  NodeServer::set_verbose(context.verbose);
  World world(parameters, *context.decisions);
  NodeCluster cluster(world, knobs, options.calm, result);
  Nemesis nemesis(world);
  cluster.install();
  cluster.start_clients();
  TwoPhases phases{
      .safety = context.time,
      .liveness_max = std::max<Duration>(seconds(60), 30 * knobs.replica.raft.election_timeout),
      .liveness_extra = [&] { return cluster.catch_up_time(); },
      .violation = [&] { return cluster.check().violation(); },
      .on_healed = [&](const std::vector<bool>& core) { cluster.begin_liveness(core); },
      .excuse = [&] { return cluster.why_not_converged(); },
      .choose_core =
          [&] {
            std::vector<bool> core = cluster.choose_core();
            if (options.heals_all) core.assign(core.size(), true);
            return core;
          },
      .is_over = [&] { return cluster.check().has_silent_loss(); },
  };
  // Where a majority may be destroyed, nothing can be demanded to go on.
  if (parameters.bounded) phases.has_converged = [&] { return cluster.why_not_converged().empty(); };
  run_two_phases(world, nemesis, phases, result);
  result.loaded = std::min(result.simulated, context.time);
  cluster.count(result);
  if (cluster.check().has_silent_loss()) {
    ++result.counts[parameters.bounded ? "runs ended by a loss nobody could see (bounded)"
                                       : "runs ended by a loss nobody could see (unbounded)"];
    return result;
  }
  if (!has_enough_load(result)) ++result.counts["runs with less load than a run should have"];
  if (result.verdict == Verdict::kOk) {
    result.message = cluster.judge_history();
    if (!result.message.empty()) result.verdict = Verdict::kSafety;
  }
  if (context.verbose) {
    for (size_t node = 0; node < world.size(); ++node) {
      NodeServer* server = cluster.server(node);
      std::fputs(((server == nullptr ? fmt::format("machine {} is down", node) : server->describe()) + "\n").c_str(),
                 stderr);
    }
  }
  return result;
}

namespace {

RunResult run_node(RunContext& context) {
  if (context.setting("calm", 0) != 0) {
    // What one would run: for measuring speed.
    const SwarmParameters parameters = calm_swarm(context.seed, context.setting("nodes", 3));
    NodeKnobs knobs;
    knobs.spare.assign(parameters.nodes, false);
    knobs.think_mean = milliseconds(80);
    // The simulated disk writes the zeroes of a new segment in memory, which says nothing about the servers.
    knobs.storage.segment_bytes = uint64_t{1} << 20;
    return run_node_cluster(context, parameters, knobs, {.calm = true});
  }
  const SwarmParameters parameters = draw_swarm(context.seed, SwarmLimits::everything());
  return run_node_cluster(context, parameters, draw_node_knobs(parameters), {});
}

// What damages what was durable, and what makes a server read it again.
FaultSet damage_faults() {
  using enum FaultKind;
  FaultSet faults;
  for (const FaultKind kind :
       {kCorruptSector, kStaleSector, kMisdirectedWrite, kMisdirectedRead, kUnreadableSector, kMissingFile, kLostDisk,
        kRolledBackDisk, kKill, kPowerLoss, kPowerLossAll, kCrashInDiskCall, kUnsyncedLost, kNameLost, kTornWrite}) {
    faults[kind] = true;
  }
  return faults;
}

// The disk of one replica is damaged at random places under load, power fails on one or on all; the others' disks are
// sound. Nothing may be lost, and at the end every server must be whole again by itself.
RunResult run_damage(RunContext& context) {
  SwarmParameters parameters =
      draw_swarm(context.seed, {.nodes_min = 3, .nodes_max = 5, .allowed = damage_faults(), .unbounded_percent = 0});
  const size_t victim = context.seed % parameters.nodes;
  for (size_t node = 0; node < parameters.nodes; ++node) parameters.damageable[node] = node == victim;
  NodeKnobs knobs = draw_node_knobs(parameters);
  knobs.membership_per_thousand = 0;
  knobs.spare.assign(parameters.nodes, false);
  return run_node_cluster(context, parameters, knobs, {.heals_all = true});
}

}  // namespace

void add_node_suite() {
  Suite suite{.name = "node",
              .description = "whole servers below the wire, their clients, crashes and the network",
              .run = &run_node};
  suite.expected = SwarmLimits::everything().allowed;
  suite.mark_files = {"src/node/"};
  suite.rare_marks = {"change_queue_full",
                      "change_passed_by",
                      "leader_disk_full",
                      "leader_disk_full_again",
                      // Of sessions and of long leases, which there are none of here (suite primitives, node_test).
                      "lingering_end_again",
                      "long_lease_renewed",
                      "storage_discarded",
                      "storage_older_snapshot_serves",
                      "storage_transfer_was_bad",
                      "storage_snapshot_without_space"};
  suite.last_seed = 100;
  add_suite(std::move(suite));
  Suite damage{.name = "node-damage",
               .description = "whole servers, of which one has a disk that loses and alters what it held",
               .run = &run_damage};
  damage.expected = damage_faults();
  damage.last_seed = 100;
  add_suite(std::move(damage));
}

}  // namespace conclave::sim
