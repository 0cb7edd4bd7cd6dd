// What a run of the raft suite draws for itself from the seed of its knobs: timeouts, sizes, who begins as a voter, how
// much the clients ask.
#pragma once

#include <string>
#include <vector>

#include "raft/options.h"
#include "sim/swarm.h"

namespace conclave::sim {

struct RaftKnobs {
  raft::Options options;  // group, self, boot and seed are set for each start
  size_t voters = 3;      // of the first configuration: machines that are not spare
  std::vector<bool> spare;
  size_t runs_max = 16;
  uint64_t ring_sectors = 4096;
  uint64_t snapshot_every = 100;  // entries applied
  // One machine in three takes them so much more rarely, and its log is longer than the others'.
  uint64_t snapshot_every_rarely = 100;
  size_t rarely_from = 0;
  [[nodiscard]] uint64_t snapshot_every_of(size_t node) const {
    return (node + rarely_from) % 3 == 0 ? snapshot_every_rarely : snapshot_every;
  }
  uint64_t chunk_bytes = 1024;
  uint64_t clients = 8;
  Duration think_mean = std::chrono::milliseconds(60);
  Duration operation_timeout = std::chrono::seconds(1);
  uint64_t read_percent = 40;
  Duration scrub_every = std::chrono::seconds(1);
  // Of what the harness does to the cluster on top of the nemesis; out of a thousand at each look, twice a second.
  uint32_t transfer_per_thousand = 0;
  uint32_t membership_per_thousand = 0;
  uint32_t renew_per_thousand = 0;
  uint32_t clock_lease_per_thousand = 0;
  uint32_t hole_per_thousand = 0;
  bool hostile = false;
};

[[nodiscard]] RaftKnobs draw_knobs(const SwarmParameters& parameters);
[[nodiscard]] std::string describe(const RaftKnobs& knobs);

}  // namespace conclave::sim
