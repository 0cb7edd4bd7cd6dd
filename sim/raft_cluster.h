// RaftCluster: the servers and clients of one run of the raft suites, around one world: starts and ends servers with
// their machines, drives the clients, does what an administrator does (transfers, changes of membership, settings, new
// machines in place of old), and knows when everything pending is done.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "sim/membership_changes.h"
#include "sim/raft_check.h"
#include "sim/raft_history.h"
#include "sim/raft_knobs.h"
#include "sim/raft_server.h"
#include "sim/runner.h"
#include "sim/world.h"

namespace conclave::sim {

class RaftCluster final : public Host, public RaftHost {
 public:
  RaftCluster(World& world, const RaftKnobs& knobs, RunResult& result);
  ~RaftCluster() override { world_.set_host(nullptr); }
  RaftCluster(const RaftCluster&) = delete;
  RaftCluster& operator=(const RaftCluster&) = delete;

  // Lays out every disk, waits until that is durable, starts every machine. Simulated time passes.
  void install();
  void start_clients();
  // Transfers, changes, settings; until stop_administration().
  void start_administration();
  void stop_administration() { administered_ = false; }

  // --- Host.
  void on_start(size_t node) override;
  void on_stop(size_t node) override;
  // --- RaftHost.
  void on_reply(const ClientReply& reply) override;
  [[nodiscard]] NodeId id_of(size_t node) const override { return machines_[node].id; }
  void on_sent(size_t from, size_t to, ByteView frame) override;
  void on_refused() override { ++result_.counts["messages refused"]; }

  [[nodiscard]] RaftCheck& check() { return check_; }
  [[nodiscard]] RaftServer* server(size_t node) { return machines_[node].server.get(); }
  // The machine of the leader of the highest term among those that run; SIZE_MAX: none.
  [[nodiscard]] size_t leader() const;
  // Of every configuration that may be in force, a quorum; and others at random.
  [[nodiscard]] std::vector<bool> choose_core();
  // From now on the clients ask only these, a few times more, then rest.
  void begin_liveness(const std::vector<bool>& core);
  [[nodiscard]] bool has_converged() const { return why_not_converged().empty(); }
  [[nodiscard]] std::string why_not_converged() const;
  // Of the whole history; at the end.
  [[nodiscard]] std::string judge_history() const;

 private:
  struct MachineState {
    NodeId id;
    Boot boot;
    std::unique_ptr<RaftServer> server;
    Membership last_membership;  // as its server had it when it ended
  };
  struct Client {
    uint32_t id = 0;
    uint64_t sequence = 0;
    size_t server = 0;
    size_t operation = SIZE_MAX;  // under way
    uint64_t done_since_heal = 0;
    int refusals = 0;  // in a row
    uint64_t seen[kRegisters] = {};
  };

  void lay_out(size_t node, bool voter);
  void plan_operation(uint32_t client, Duration after);
  void begin_operation(uint32_t client);
  void end_operation(Client& client, Outcome outcome, Duration pause);
  void take_reply(const ClientReply& reply);
  [[nodiscard]] size_t pick_server();

  void administer();
  void change_membership(RaftServer& leader);
  [[nodiscard]] std::vector<NodeId> current_ids() const;
  void renew_machine(RaftServer& leader);
  void damage_entry(RaftServer& leader);
  void act_hostile();

  World& world_;
  const RaftKnobs knobs_;
  RunResult& result_;
  RaftCheck check_;
  Random random_;
  std::vector<MachineState> machines_;
  std::vector<Client> clients_;
  std::vector<Operation> operations_;
  std::vector<bool> core_;  // empty before the healing
  uint64_t values_ = 0;
  bool administered_ = false;
  bool lease_used_ = false;
  uint64_t lease_sequence_ = 0;
  struct Sent {
    size_t from;
    size_t to;
    std::string frame;
  };
  std::deque<Sent> sent_;  // some of the newest
};

}  // namespace conclave::sim
