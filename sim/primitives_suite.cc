#include "sim/primitives_suite.h"

#include <utility>

#include "sim/node_suite.h"
#include "sim/runner.h"

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Whole servers under every fault, and few who only read and write: the history is theirs too.
RunResult run_primitives(RunContext& context) {
  const bool calm = context.setting("calm", 0) != 0;
  const SwarmParameters parameters = calm ? calm_swarm(context.seed, context.setting("nodes", 3))
                                          : draw_swarm(context.seed, SwarmLimits::everything());
  NodeKnobs knobs = calm ? NodeKnobs() : draw_node_knobs(parameters);
  if (calm) knobs.spare.assign(parameters.nodes, false);
  Random random(parameters.knobs_seed ^ 0x7072696d);
  knobs.clients = 4;
  knobs.replica.reads_pending_max = std::max<size_t>(knobs.replica.reads_pending_max, 64);
  // So many sessions end that at the slowest rates dead ones would hold the lines up for minutes.
  knobs.replica.leases.ends_per_second = std::max<uint64_t>(knobs.replica.leases.ends_per_second, 100);
  knobs.replica.leases.inherited_ends_per_second =
      std::max<uint64_t>(knobs.replica.leases.inherited_ends_per_second, 50);
  knobs.think_mean = milliseconds(80);
  knobs.lease_clients = random.below(3);
  knobs.lock_clients = random.below(5);
  knobs.watchers = random.below(2);
  knobs.session_clients = 3 + random.below(6);
  knobs.sessions_per_client = 1 + random.below(4);
  knobs.elections = 1 + random.below(2);
  knobs.session_ttl_max = random.between(seconds(2), Duration(seconds(8)));
  if (random.chance(1, 4)) knobs.sessions.events_per_entry_max = 1;
  if (random.coin()) knobs.sessions.rechecks_per_turn = 1;
  if (random.coin()) knobs.sessions.handed_over_per_second = 1;
  if (calm || random.chance(1, 8)) knobs.trouble_mean = Duration();
  return run_node_cluster(context, parameters, knobs, {.calm = calm});
}

}  // namespace

void add_primitives_suite() {
  Suite suite{.name = "primitives",
              .description = "sessions, locks and elections, on whole servers and in their clients",
              .run = &run_primitives};
  suite.expected = SwarmLimits::everything().allowed;
  suite.mark_files = {"src/layers/", "src/client/"};
  suite.rare_marks = {"candidate_has_a_key",     "client_claim_lost_while_away",
                      "client_orphan_released",  "session_attached_after_large_entry",
                      "session_operation_again", "session_refused_before"};
  suite.last_seed = 60;
  add_suite(std::move(suite));
}

}  // namespace conclave::sim
