#include "sim/raft_knobs.h"

#include <algorithm>

#include "base/random.h"

namespace conclave::sim {

using std::chrono::milliseconds;

RaftKnobs draw_knobs(const SwarmParameters& parameters) {
  Random random(parameters.knobs_seed);
  RaftKnobs knobs;
  raft::Options& options = knobs.options;
  // A heartbeat's way there and back fits between two of them, and several fit into an election timeout: what anybody
  // would configure. Shorter ones only churn.
  static constexpr Duration kHeartbeats[] = {milliseconds(20), milliseconds(50), milliseconds(100), milliseconds(200)};
  options.heartbeat_interval =
      std::max(kHeartbeats[random.below(4)], 3 * (parameters.network.delay_min + parameters.network.delay_mean));
  options.election_timeout = options.heartbeat_interval * static_cast<int64_t>(random.between(uint64_t{5}, 12));
  options.start_delay_max = random.between(milliseconds(1), Duration(milliseconds(200)));
  options.link_broken_delay_max = random.between(milliseconds(1), Duration(milliseconds(100)));
  static constexpr size_t kEntries[] = {1, 2, 8, 64};
  options.entries_per_message_max = kEntries[random.below(4)];
  static constexpr size_t kBytes[] = {1, 64, 4096, 262144};
  options.bytes_per_message_max = kBytes[random.below(4)];
  options.inflight_messages_max = size_t{1} << random.below(6);
  // A few hundred commands at most, so that the ring holds them; at the least a few, so that some are refused.
  options.uncommitted_bytes_max = size_t{256} << random.below(6);
  // But 400 entries a second can be under way, or the clients would wait behind a queue for the whole run.
  constexpr size_t kCommandBytes = 32;
  const size_t per_message =
      std::min(options.entries_per_message_max, std::max<size_t>(1, options.bytes_per_message_max / kCommandBytes));
  const Duration round = 2 * (parameters.network.delay_min + parameters.network.delay_mean) + parameters.disk.sync_mean;
  const auto under_way = static_cast<size_t>(to_milliseconds(round * 4) / 10) + 1;
  while (options.inflight_messages_max * per_message < under_way) options.inflight_messages_max *= 2;
  options.reads_pending_max = random.chance(1, 4) ? 2 : 256;
  options.disk_stall_min = random.between(milliseconds(50), Duration(milliseconds(1000)));
  options.disk_handover_interval = random.between(milliseconds(500), Duration(milliseconds(10000)));

  knobs.spare.assign(parameters.nodes, false);
  knobs.voters = parameters.nodes;
  if (parameters.nodes >= 3 && random.coin()) {
    // Spares come last in the choice of who may be damaged: those who may stay a minority of the voters.
    const size_t spares = 1 + random.below(parameters.nodes >= 5 ? 2 : 1);
    std::vector<size_t> order;
    for (size_t node = 0; node < parameters.nodes; ++node) {
      if (parameters.damageable[node]) order.push_back(node);
    }
    for (size_t node = 0; node < parameters.nodes; ++node) {
      if (!parameters.damageable[node]) order.push_back(node);
    }
    for (size_t i = 0; i < spares && i < order.size(); ++i) knobs.spare[order[i]] = true;
    knobs.voters = parameters.nodes - spares;
  }
  static constexpr size_t kRuns[] = {1, 2, 16};
  knobs.runs_max = kRuns[random.below(3)];
  static constexpr uint64_t kSnapshots[] = {10, 30, 100, 300};
  knobs.snapshot_every = kSnapshots[random.below(4)];
  // Two of them fit into the quarter of the ring that may be live.
  knobs.snapshot_every_rarely = std::min<uint64_t>(300, knobs.snapshot_every * (1 + random.below(8)));
  knobs.rarely_from = random.below(3);
  static constexpr uint64_t kChunks[] = {37, 200, 512, 4096};
  knobs.chunk_bytes = kChunks[random.below(4)];
  knobs.clients = random.between(uint64_t{16}, 50);
  // About 170 operations a second if all are answered at once.
  knobs.think_mean = milliseconds(static_cast<int64_t>(knobs.clients) * 6);
  knobs.operation_timeout =
      std::max<Duration>(random.between(milliseconds(500), Duration(milliseconds(3000))), 2 * options.election_timeout);
  knobs.read_percent = random.between(uint64_t{10}, 80);
  knobs.scrub_every = random.between(milliseconds(200), Duration(milliseconds(3000)));
  if (random.chance(2, 3)) knobs.transfer_per_thousand = static_cast<uint32_t>(random.between(uint64_t{10}, 200));
  if (random.chance(2, 3)) knobs.membership_per_thousand = static_cast<uint32_t>(random.between(uint64_t{20}, 300));
  if (random.coin()) knobs.renew_per_thousand = static_cast<uint32_t>(random.between(uint64_t{10}, 60));
  if (random.coin()) knobs.clock_lease_per_thousand = static_cast<uint32_t>(random.between(uint64_t{10}, 100));
  if (parameters.enabled[FaultKind::kCorruptSector] && random.coin()) {
    knobs.hole_per_thousand = static_cast<uint32_t>(random.between(uint64_t{20}, 200));
  }
  return knobs;
}

std::string describe(const RaftKnobs& knobs) {
  const raft::Options& options = knobs.options;
  return fmt::format(
      " | voters={} heartbeat={}ms election={}ms entries={} bytes={} inflight={} uncommitted={} snapshot={} chunk={} "
      "clients={} reads={}% transfer={} membership={} renew={} lease={}",
      knobs.voters, to_milliseconds(options.heartbeat_interval), to_milliseconds(options.election_timeout),
      options.entries_per_message_max, options.bytes_per_message_max, options.inflight_messages_max,
      options.uncommitted_bytes_max, knobs.snapshot_every, knobs.chunk_bytes, knobs.clients, knobs.read_percent,
      knobs.transfer_per_thousand, knobs.membership_per_thousand, knobs.renew_per_thousand,
      knobs.clock_lease_per_thousand);
}

}  // namespace conclave::sim
