// Swarm: one seed chooses what kind of world a run has. Each run turns a subset of the fault kinds on and draws how
// hard they strike; a world with everything on at once hides what a world with two things on shows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/disk.h"
#include "sim/faults.h"
#include "sim/network.h"

namespace conclave::sim {

// How often the nemesis (nemesis.h) begins something, and how long it lasts.
struct NemesisOptions {
  Duration tick_mean = std::chrono::milliseconds(500);  // between two looks at what to do
  PerFault<uint32_t> per_thousand;                      // chance of each kind at each look
  Duration episode_mean = std::chrono::seconds(2);
  Duration restart_mean = std::chrono::milliseconds(500);  // how long a machine stays down
  int32_t drift_beyond_ppm = 50'000;
};

struct SwarmParameters {
  uint64_t seed = 0;
  size_t nodes = 3;
  FaultSet enabled;
  NetworkOptions network;
  DiskOptions disk;
  NemesisOptions nemesis;
  // Machines that faults which destroy durable data may strike. Bounded regime: a minority at most, so that a good copy
  // of everything is left and liveness can be demanded. Unbounded: all; then only safety can.
  std::vector<bool> damageable;
  bool bounded = true;
  // For the harness's own knobs (batch sizes, queue limits, snapshot intervals): an independent seed.
  uint64_t knobs_seed = 0;
};

struct SwarmLimits {
  size_t nodes_min = 1;
  size_t nodes_max = 7;
  FaultSet allowed;                 // kinds never allowed are never on
  uint32_t unbounded_percent = 10;  // of the runs
  static SwarmLimits everything();
};

[[nodiscard]] SwarmParameters draw_swarm(uint64_t seed, const SwarmLimits& limits);
// A calm world: no faults, short delays.
[[nodiscard]] SwarmParameters calm_swarm(uint64_t seed, size_t nodes);
// One line of a failure's report.
[[nodiscard]] std::string describe(const SwarmParameters& parameters);

}  // namespace conclave::sim
