// SessionClients: the clients of sessions of one run (sim/session_process.h), their operator
// (sim/session_operator.h), and who deletes claims and revokes sessions by hand. What clients do and are told is judged
// by PrimitivesCheck.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "sim/node_server.h"
#include "sim/primitives_check.h"
#include "sim/runner.h"
#include "sim/session_operator.h"
#include "sim/session_process.h"

namespace conclave::sim {

class NodeCluster;

class SessionClients {
 public:
  // `cluster` carries what is asked; all of them outlive this.
  SessionClients(World& world, NodeCluster& cluster, NodeCheck& check, LockCheck& recipes, const NodeKnobs& knobs,
                 RunResult& result);
  ~SessionClients();
  SessionClients(const SessionClients&) = delete;
  SessionClients& operator=(const SessionClients&) = delete;

  void start();
  // From now on nothing disturbs them. What they wait for must come; each session gets one lock more; then all close.
  void begin_liveness();
  // To other servers: those whose server has left, or is told nothing any more.
  void move_strays();
  [[nodiscard]] std::string why_not_done() const;
  void count(RunResult& result) const;

 private:
  class Story;

  // One that is not over; null: there is none.
  [[nodiscard]] SessionOwner* draw_owner();
  void meddle();
  void operate();
  void close_if_idle();

  PrimitivesCheck primitives_;
  SessionScene scene_;
  std::unique_ptr<Story> story_;  // of a verbose run
  std::vector<std::unique_ptr<SessionProcess>> processes_;
  SessionOperator operator_;
};

}  // namespace conclave::sim
