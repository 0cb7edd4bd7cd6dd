// The suites of the whole node: simulate node, simulate node-damage; and a run of such a cluster, for suites that let
// other clients at it.
#pragma once

#include "sim/node_server.h"
#include "sim/runner.h"
#include "sim/swarm.h"

namespace conclave::sim {

void add_node_suite();

struct NodeRunOptions {
  bool heals_all = false;  // not only a core
  bool calm = false;       // no faults
};
[[nodiscard]] NodeKnobs draw_node_knobs(const SwarmParameters& parameters);
[[nodiscard]] RunResult run_node_cluster(RunContext& context, const SwarmParameters& parameters, const NodeKnobs& knobs,
                                         const NodeRunOptions& options);

}  // namespace conclave::sim
