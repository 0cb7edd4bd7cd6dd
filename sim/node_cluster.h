// NodeCluster: the servers and clients of one run of the node suite: starts and ends servers with their machines,
// drives clients that write and read, holders of leases, and watchers of everything, and carries what those ask who
// take locks (sim/lock_clients.h); looks whether leaders end leases in time; knows when all that is pending is done.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sim/lease_lateness.h"
#include "sim/lock_clients.h"
#include "sim/membership_changes.h"
#include "sim/node_check.h"
#include "sim/node_server.h"
#include "sim/runner.h"
#include "sim/session_clients.h"
#include "sim/world.h"

namespace conclave::sim {

class NodeCluster final : public Host {
 public:
  // `calm`: there are no faults.
  NodeCluster(World& world, const NodeKnobs& knobs, bool calm, RunResult& result);
  ~NodeCluster() override;
  NodeCluster(const NodeCluster&) = delete;
  NodeCluster& operator=(const NodeCluster&) = delete;

  // Lays out every disk, waits until that is durable, starts every machine. Simulated time passes.
  void install();
  void start_clients();

  // --- Host.
  void on_start(size_t node) override;
  void on_stop(size_t node) override;

  [[nodiscard]] NodeCheck& check() { return check_; }
  // Of every configuration that may be in force, a quorum; and others at random. The administrator rests from now on.
  [[nodiscard]] std::vector<bool> choose_core();
  [[nodiscard]] NodeServer* server(size_t node) { return machines_[node].server.get(); }
  // From now on clients ask only these, a few times more, then rest; leases are let go.
  void begin_liveness(const std::vector<bool>& core);
  // What it may take to send a whole state, chunk after chunk, and then all that one server's log has and another's
  // not.
  [[nodiscard]] Duration catch_up_time();
  [[nodiscard]] std::string why_not_converged();
  [[nodiscard]] std::string judge_history() const { return check_.judge(operations_); }
  // Sums counters of servers that end or have ended.
  void count(RunResult& result);

  // --- For its clients.
  // A member that runs, of the core once there is one; another than that, which did not help, if there is another.
  [[nodiscard]] size_t pick_server(size_t except = SIZE_MAX);
  // On the server, after the way there; nothing if it does not run.
  void call(size_t node, std::function<void(NodeServer&)> what);
  // On the client, after the way back.
  NodeServer::Done reply_to(std::function<void(const NodeAnswer&)> take);
  // Each once in a run.
  [[nodiscard]] std::string next_value() { return fmt::format("{}", ++values_); }
  [[nodiscard]] LeaseId next_lease() { return LeaseId(++leases_); }
  // Whether this server has what the leader has, as far as there is one.
  [[nodiscard]] bool is_told(size_t node);

 private:
  struct MachineState {
    Boot boot;
    std::unique_ptr<NodeServer> server;
    Membership last_membership;  // as its server had it when it ended
    // While its server leads, and in which term.
    std::optional<LeaseLateness> lateness;
    Term leads_in;
  };
  struct Client {
    size_t server = 0;
    size_t operation = SIZE_MAX;  // under way
    uint64_t done_since_heal = 0;
    int refusals = 0;                     // in a row
    std::map<std::string, int64_t> seen;  // newest revision of each key, as far as it knows
  };
  // Grants a lease, keeps it alive for a while, then lets it end or revokes it; and again.
  struct Holder {
    LeaseId lease;  // zero: none
    Duration ttl{};
    Instant sent{};      // of the request under way
    uint64_t asked = 0;  // requests so far: an answer to an older one is late
    int renewals_left = 0;
    size_t server = 0;
  };
  class Watcher;

  void plan_operation(size_t client, Duration after);
  void begin_operation(size_t client);
  void take_answer(size_t client, size_t operation, const NodeAnswer& answer);
  void end_operation(size_t client, NodeOutcome outcome, Duration pause);
  void plan_holder(size_t holder, Duration after);
  void act_holder(size_t holder);
  void move_strays();
  void take_lease_answer(size_t holder, uint64_t asked, bool grants, const NodeAnswer& answer);
  void administer();
  void change_membership(size_t leads);
  void judge_change(size_t answered, const node::MemberChange& change);
  // False for one that the leader does not know as a member.
  [[nodiscard]] bool is_member(size_t node);
  // The machine of the leader of the highest term; SIZE_MAX: none.
  [[nodiscard]] size_t leader();
  void look_at_leases();
  void look_at_leases_of(size_t node);
  void note_counters(NodeServer& server);

  World& world_;
  const NodeKnobs knobs_;
  RunResult& result_;
  NodeCheck check_;
  Random random_;
  std::vector<MachineState> machines_;
  std::vector<NodeId> ids_;  // of the machines
  std::vector<Client> clients_;
  std::vector<Holder> holders_;
  std::vector<std::unique_ptr<Watcher>> watchers_;
  std::vector<NodeOperation> operations_;
  LockClients locks_;
  SessionClients sessions_;
  std::vector<bool> core_;  // empty before the healing
  // A change that was asked for may still be made until then, should its answer not come.
  Instant next_change_at_{};
  uint64_t values_ = 0;
  int64_t leases_ = 0;
};

}  // namespace conclave::sim
