// Every graph of connectivity: the 4,096 directed ones on four servers, then the 1,024 undirected ones on five. Seed s
// is graph s - 1 (modulo their number; later seeds go round again with other leaders and logs). A healthy cluster with
// a leader, under load, is made uneven; then the graph is imposed. Where some server reaches a quorum both ways, within
// five election timeouts somebody must lead and then go on leading, in the same term and committing writes, for five
// more.
#include <algorithm>
#include <cstdio>

#include "sim/raft_cluster.h"
#include "sim/raft_suite.h"
#include "sim/runner.h"

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kDirectedGraphs = 4096;
constexpr uint64_t kUndirectedGraphs = 1024;
constexpr int64_t kTimeouts = 5;
constexpr Duration kLookEvery = milliseconds(10);
constexpr Duration kWriteEvery = milliseconds(50);
// A leader that commits writes commits one at least so often.
constexpr Duration kCommitMax = milliseconds(500);
// Its commands are none of the clients'.
constexpr uint32_t kWriter = kRegisterClientsMax - 1;

class GraphRun {
 public:
  GraphRun(World& world, RaftCluster& cluster, Duration election_timeout)
      : world_(world), cluster_(cluster), election_timeout_(election_timeout), leads_(world.size()) {}

  // Time passes; writes are asked of everybody who leads.
  void run_for(Duration time) {
    const Instant end = world_.now() + time;
    while (world_.now() < end) {
      world_.run_for(kLookEvery);
      look();
    }
  }

  // A random server leads, others are behind it.
  bool prepare(Random& random) {
    run_for(seconds(1));
    const size_t wanted = random.below(world_.size());
    for (int attempt = 0; attempt < 40 && cluster_.leader() != wanted; ++attempt) {
      if (const size_t leads = cluster_.leader(); leads != SIZE_MAX) {
        (void)cluster_.server(leads)->transfer(cluster_.id_of(wanted));
      }
      run_for(milliseconds(100));
    }
    if (cluster_.leader() != wanted) return false;
    // Fewer than would take the quorum away, each for a while of its own up to the moment the graph comes.
    size_t behind = random.below((world_.size() - 1) / 2 + 1);
    for (size_t node = (wanted + 1) % world_.size(); behind > 0; node = (node + 1) % world_.size(), --behind) {
      for (size_t other = 0; other < world_.size(); ++other) {
        world_.network().set_open(CutLayer::kCut, other, node, false);
        world_.network().set_open(CutLayer::kCut, node, other, false);
      }
      run_for(random.between(milliseconds(20), Duration(milliseconds(400))));
    }
    return true;
  }

  // True once a leader was stable for long enough.
  bool settles(const Connectivity& graph) {
    world_.network().clear(CutLayer::kCut);
    world_.network().impose(CutLayer::kGraph, graph);
    imposed_ = world_.now();
    for (Lead& lead : leads_) lead.commit = 0;
    while (world_.now() < imposed_ + 2 * kTimeouts * election_timeout_ + kLookEvery) {
      world_.run_for(kLookEvery);
      look();
      for (const Lead& lead : leads_) {
        if (!lead.is_leader) continue;
        const Instant since = std::max(lead.since, imposed_);
        const bool in_time = since <= imposed_ + kTimeouts * election_timeout_;
        const bool lasted = world_.now() >= since + kTimeouts * election_timeout_;
        if (in_time && lasted && lead.commit > 0 && world_.now() - lead.committed_at <= kCommitMax) return true;
      }
    }
    return false;
  }

 private:
  struct Lead {
    bool is_leader = false;
    Term term;
    Instant since{};
    uint64_t commit = 0;  // zero: none since the graph
    Instant committed_at{};
  };

  void look() {
    const bool writes = world_.now() >= write_at_;
    if (writes) write_at_ = world_.now() + kWriteEvery;
    for (size_t node = 0; node < world_.size(); ++node) {
      RaftServer& server = *cluster_.server(node);
      if (server.core() == nullptr) continue;
      Lead& lead = leads_[node];
      const raft::Status status = server.core()->status();
      const bool is_leader = status.role == raft::Role::kLeader;
      if (!is_leader || !lead.is_leader || lead.term != status.term) {
        lead = {.is_leader = is_leader, .term = status.term, .since = world_.now()};
        last_commit_[node] = status.commit;
      }
      if (!is_leader) continue;
      if (status.commit != last_commit_[node]) {
        last_commit_[node] = status.commit;
        lead.commit = status.commit.value();
        lead.committed_at = world_.now();
      }
      if (writes) server.write({.client = kWriter, .sequence = ++sequence_, .value = sequence_});
    }
  }

  World& world_;
  RaftCluster& cluster_;
  Duration election_timeout_;
  std::vector<Lead> leads_;
  std::array<LogIndex, 8> last_commit_{};
  Instant imposed_{};
  Instant write_at_{};
  uint64_t sequence_ = 0;
};

RunResult run(RunContext& context) {
  RunResult result;
  const uint64_t number = (context.seed - 1) % (kDirectedGraphs + kUndirectedGraphs);
  const bool directed = number < kDirectedGraphs;
  const uint64_t bits = directed ? number : number - kDirectedGraphs;
  const size_t size = directed ? 4 : 5;
  const Connectivity graph = directed ? Connectivity::directed(size, bits) : Connectivity::undirected(size, bits);
  SwarmParameters parameters = calm_swarm(context.seed, size);
  RaftKnobs knobs;
  knobs.spare.assign(size, false);
  knobs.voters = size;
  knobs.clients = 3;
  knobs.think_mean = milliseconds(100);
  knobs.ring_sectors = 2048;
  const std::string name = fmt::format("{} graph {:#x} on {}", directed ? "directed" : "undirected", bits, size);
  result.parameters = name;
  RaftServer::set_verbose(context.verbose);
  World world(parameters, *context.decisions);
  RaftCluster cluster(world, knobs, result);
  const Instant began = world.now();
  cluster.install();
  cluster.start_clients();
  GraphRun graph_run(world, cluster, knobs.options.election_timeout);
  Random random = context.decisions->generator("graphs");
  const bool prepared = graph_run.prepare(random);
  const size_t leads = cluster.leader();
  ++result.counts["graphs"];
  if (!prepared) {
    result.verdict = Verdict::kLiveness;
    result.message = "no leader to begin with";
  } else if (graph.has_quorum_centre() || context.setting("demand-always", 0) != 0) {
    ++result.counts["graphs that leave a server connected to a quorum both ways"];
    if (graph_run.settles(graph)) {
      ++result.counts["of these, with a stable leader in five election timeouts"];
    } else {
      result.verdict = Verdict::kLiveness;
      result.message = fmt::format("{}: no stable leader; machine {} led before", name, leads);
    }
  } else {
    // Nobody can lead for long; nobody may do harm either.
    world.network().clear(CutLayer::kCut);
    world.network().impose(CutLayer::kGraph, graph);
    graph_run.run_for(2 * knobs.options.election_timeout);
  }
  if (cluster.check().violation().empty() && result.verdict == Verdict::kOk) {
    result.message = cluster.judge_history();
  } else if (!cluster.check().violation().empty()) {
    result.message = cluster.check().violation();
  }
  if (!result.message.empty() && result.verdict == Verdict::kOk) result.verdict = Verdict::kSafety;
  result.digest = world.digest().value();
  result.simulated = world.now() - began;
  result.events = world.scheduler().events_run();
  return result;
}

}  // namespace

void add_raft_graphs_suite() {
  add_suite({.name = "raft-graphs",
             .description = "a leader in every graph that allows one: seed s is graph s - 1",
             .run = &run,
             .last_seed = kDirectedGraphs + kUndirectedGraphs});
}

}  // namespace conclave::sim
