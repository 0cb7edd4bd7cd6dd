#include "sim/raft_suite.h"

#include <cstdio>

#include "sim/raft_cluster.h"
#include "sim/runner.h"

namespace conclave::sim {
namespace {

using std::chrono::seconds;

RunResult run(RunContext& context, bool hostile) {
  RunResult result;
  SwarmLimits limits = SwarmLimits::everything();
  SwarmParameters parameters = draw_swarm(context.seed, limits);
  if (hostile) parameters.bounded = true;
  if (context.setting("calm", 0) != 0) parameters = calm_swarm(context.seed, context.setting("nodes", 3));
  RaftKnobs knobs = draw_knobs(parameters);
  if (context.setting("calm", 0) != 0) {
    // What one would run: for measuring speed.
    knobs = RaftKnobs();
    knobs.spare.assign(parameters.nodes, false);
    knobs.voters = parameters.nodes;
    knobs.think_mean = std::chrono::milliseconds(80);
  }
  knobs.hostile = hostile;
  RaftServer::set_verbose(context.verbose);
  result.parameters = describe(parameters) + describe(knobs);
  World world(parameters, *context.decisions);
  RaftCluster cluster(world, knobs, result);
  Nemesis nemesis(world);
  cluster.install();
  cluster.start_clients();
  cluster.start_administration();
  TwoPhases phases{.safety = context.time,
                   .liveness_max = std::max<Duration>(seconds(30), 30 * knobs.options.election_timeout),
                   .violation = [&] { return cluster.check().violation(); },
                   .on_healed = [&](const std::vector<bool>& core) { cluster.begin_liveness(core); },
                   .excuse = [&] { return cluster.why_not_converged(); },
                   .choose_core = [&] { return cluster.choose_core(); },
                   .is_over = [&] { return cluster.check().has_silent_loss(); }};
  if (parameters.bounded && !hostile) phases.has_converged = [&] { return cluster.has_converged(); };
  run_two_phases(world, nemesis, phases, result);
  result.loaded = std::min(result.simulated, context.time);
  if (hostile) return result;
  result.counts["leaders elected"] = cluster.check().leaders_elected();
  result.counts["entries committed"] = cluster.check().committed().size();
  if (!has_enough_load(result)) ++result.counts["runs with less load than a run should have"];
  if (cluster.check().has_silent_loss()) {
    ++result.counts[parameters.bounded ? "runs ended by a loss nobody could see (bounded)"
                                       : "runs ended by a loss nobody could see (unbounded)"];
  }
  if (result.verdict == Verdict::kOk) {
    result.message = cluster.judge_history();
    if (!result.message.empty()) result.verdict = Verdict::kSafety;
  }
  if (context.verbose) {
    for (size_t node = 0; node < world.size(); ++node) {
      RaftServer* server = cluster.server(node);
      const std::string text = server == nullptr ? fmt::format("machine {} is down", node) : server->describe();
      std::fputs((text + "\n").c_str(), stderr);
    }
  }
  return result;
}

RunResult run_raft(RunContext& context) {
  return run(context, false);
}
RunResult run_hostile(RunContext& context) {
  return run(context, true);
}

}  // namespace

void add_raft_suites() {
  Suite raft{.name = "raft", .description = "the consensus core, its clients and every fault", .run = &run_raft};
  raft.expected = SwarmLimits::everything().allowed;
  raft.mark_files = {"src/raft/", "sim/minimal_log", "sim/snapshot_store", "sim/raft_"};
  // These take faults that coincide.
  raft.rare_marks = {"snapshot_ends_in_hole",
                     "sim_raft_silent_loss_believed",
                     "sim_log_uncertain",
                     "sim_snapshot_transfer_damaged",
                     "sim_raft_members_not_known_yet",
                     "handover_not_taken",
                     "caught_up_by_snapshot",
                     "repaired_by_snapshot",
                     "handover_from_stalled_disk",
                     "sim_raft_damaged_snapshot_asked_for",
                     "older_snapshot_given_up"};
  add_suite(std::move(raft));
  add_suite({.name = "raft-hostile", .description = "the core beside a peer that lies", .run = &run_hostile});
}

}  // namespace conclave::sim
