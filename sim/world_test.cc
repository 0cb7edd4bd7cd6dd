#include "sim/world.h"

#include <gtest/gtest.h>

#include "sim/runner.h"
#include "sim/world_suite.h"

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Silent final : env::NetworkReceiver {
  void on_frame(NodeId, ByteView) override { ++frames; }
  void on_link_up(NodeId) override {}
  void on_link_broken(NodeId) override {}
  int frames = 0;
};

struct TraceHost final : Host {
  explicit TraceHost(World& hosted) : world(hosted), receivers(hosted.size()) { world.set_host(this); }
  void on_start(size_t node) override {
    trace += fmt::format("+{} ", node);
    world.network().attach(node, receivers[node], world.machine(node).gate);
  }
  void on_stop(size_t node) override { trace += fmt::format("-{} ", node); }
  World& world;
  std::vector<Silent> receivers;
  std::string trace;
};

TEST(World, StartsCrashesAndStartsAgain) {
  Decisions decisions(1);
  World world(calm_swarm(1, 3), decisions);
  TraceHost host(world);
  world.start_all();
  int ticks = 0;
  world.at_local(1, world.machine(1).clock.now() + milliseconds(10), [&] { ++ticks; });
  world.request_crash(1, CrashMode::kPowerLoss, milliseconds(50));
  EXPECT_TRUE(world.is_running(1));
  world.run_for(milliseconds(40));
  EXPECT_FALSE(world.is_running(1));
  world.run_for(milliseconds(40));
  EXPECT_TRUE(world.is_running(1));
  EXPECT_EQ(ticks, 0);
  EXPECT_EQ(host.trace, "+0 +1 +2 -1 +1 ");
  world.crash(0, CrashMode::kProcessKilled);
  world.crash(0, CrashMode::kProcessKilled);
  EXPECT_EQ(host.trace, "+0 +1 +2 -1 +1 -0 ");
}

TEST(World, LocalDeadlinesAndDiskCompletionsWaitForAFrozenNode) {
  Decisions decisions(1);
  World world(calm_swarm(1, 1), decisions);
  TraceHost host(world);
  world.start_all();
  world.machine(0).clock.set_drift(5000);
  const Instant deadline = world.machine(0).clock.now() + seconds(1);
  std::string trace;
  world.at_local(0, deadline, [&] {
    EXPECT_GE(world.machine(0).clock.now(), deadline);
    trace += "deadline ";
  });
  auto file = world.machine(0).disk.open("f", {.mode = env::OpenMode::kCreate});
  ASSERT_TRUE(file && (*file)->write_durable(0, "x"));
  world.after_disk(0, [&] { trace += "disk "; });
  world.freeze(0);
  world.run_for(seconds(2));
  EXPECT_EQ(trace, "");
  world.thaw(0);
  world.run_for(Duration(0));
  EXPECT_EQ(trace, "disk deadline ");
}

TEST(Nemesis, HealingMendsTheCoreAndLeavesTheRest) {
  Decisions decisions(5);
  SwarmParameters parameters = calm_swarm(5, 5);
  for (FaultKind kind : {FaultKind::kPowerLossAll, FaultKind::kFreeze, FaultKind::kPartition, FaultKind::kLinkCut,
                         FaultKind::kHungDisk, FaultKind::kNoSpace}) {
    parameters.enabled[kind] = true;
    parameters.nemesis.per_thousand[kind] = 500;
  }
  parameters.nemesis.episode_mean = seconds(100);
  parameters.nemesis.restart_mean = seconds(100);
  World world(parameters, decisions);
  TraceHost host(world);
  world.start_all();
  Nemesis nemesis(world);
  nemesis.start();
  world.run_for(seconds(20));
  EXPECT_GT(world.network().connectivity().closed_count(), 0U);
  const std::vector<bool> core = nemesis.heal_core();
  size_t members = 0;
  for (size_t node = 0; node < 5; ++node) {
    if (!core[node]) continue;
    ++members;
    EXPECT_TRUE(world.is_running(node));
    EXPECT_FALSE(world.machine(node).gate.is_frozen());
    EXPECT_GT(world.machine(node).disk.free_bytes().value(), 1'000'000U);
    for (size_t peer = 0; peer < 5; ++peer) {
      EXPECT_TRUE(!core[peer] || world.network().is_open(node, peer));
    }
  }
  EXPECT_GE(members, 3U);
  const size_t fired = decisions.fired_count();
  world.run_for(seconds(300));
  EXPECT_EQ(decisions.fired_count(), fired);
  nemesis.heal_all();
  EXPECT_EQ(world.network().connectivity().closed_count(), 0U);
  for (size_t node = 0; node < 5; ++node) EXPECT_TRUE(world.is_running(node));
}

// The suites are registered once for the whole binary.
const Suite& suite(std::string_view name) {
  if (find_suite(name) == nullptr) add_world_suites();
  return *find_suite(name);
}

TEST(WorldSuite, HoldsItsPromisesAndRunsTheSameTwice) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    const RunContext context{.seed = seed, .time = seconds(20)};
    const RunResult first = run_seed(suite("world"), context);
    EXPECT_EQ(first.verdict, Verdict::kOk) << "seed " << seed << ": " << first.message;
    EXPECT_GT(first.operations_acknowledged, 0U);
    const RunResult second = run_seed(suite("world"), context);
    EXPECT_EQ(first.digest, second.digest) << seed;
    EXPECT_EQ(first.faults, second.faults) << seed;
  }
}

TEST(WorldSuite, KeepingAllDecisionsIsTheSameRun) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const RunContext context{.seed = seed, .time = seconds(10)};
    Replay replay{.mode = ReplayMode::kKeepOnly};
    const RunResult first = run_seed(suite("world"), context, nullptr, &replay.decisions);
    EXPECT_EQ(run_seed(suite("world"), context, &replay).digest, first.digest) << seed;
    replay.decisions.clear();
    const RunResult calm = run_seed(suite("world"), context, &replay);
    EXPECT_EQ(calm.decisions_fired, 0U);
    EXPECT_EQ(calm.verdict, Verdict::kOk);
  }
}

TEST(WorldSuite, TheCanaryIsCaughtAndShrinksToOneDecision) {
  const RunContext context{.seed = 1, .time = seconds(10)};
  Replay replay{.mode = ReplayMode::kKeepOnly};
  const RunResult failed = run_seed(suite("canary"), context, nullptr, &replay.decisions);
  ASSERT_EQ(failed.verdict, Verdict::kSafety);
  EXPECT_NE(failed.message.find("acknowledged"), std::string::npos) << failed.message;
  replay.decisions = shrink(replay.decisions, [&](const std::vector<Decision>& kept) {
    Replay trial = replay;
    trial.decisions = kept;
    return run_seed(suite("canary"), context, &trial).verdict == Verdict::kSafety;
  });
  EXPECT_EQ(replay.decisions.size(), 1U);
}

}  // namespace
}  // namespace conclave::sim
