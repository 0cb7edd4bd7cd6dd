// LockClients: clients of the node suite that take locks by etcd's recipe, as clientv3/concurrency and v3lock do: claim
// in one transaction, wait for the deletion of the claim before the own one by a watch, look again, hold, let go; all
// under a lease that is kept alive, or sometimes not. What they are told is judged by LockCheck.
//
// A client trusts its lease by its own word only: for its time, from when it sent what was answered last. A waiter that
// stopped renewing waits on all the same, and must not be granted anything.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "sim/lock_check.h"
#include "sim/node_server.h"
#include "sim/runner.h"

namespace conclave::sim {

class NodeCluster;

class LockClients {
 public:
  // `cluster` carries what is asked; all of them outlive this.
  LockClients(World& world, NodeCluster& cluster, NodeCheck& check, const NodeKnobs& knobs, RunResult& result);
  ~LockClients();
  LockClients(const LockClients&) = delete;
  LockClients& operator=(const LockClients&) = delete;

  void start();
  // From now on nobody begins anew: who holds lets go, who waits gets the lock or learns that its lease ended.
  void begin_liveness();
  // To other servers: those who watch through one that has left, or that is told nothing any more.
  void move_strays();
  [[nodiscard]] std::string why_not_done() const;
  void count(RunResult& result) const;
  [[nodiscard]] LockCheck& check() { return locks_; }

 private:
  class Client;

  World& world_;
  NodeCluster& cluster_;
  NodeCheck& check_;
  const NodeKnobs& knobs_;
  RunResult& result_;
  LockCheck locks_;
  Random random_;
  bool closing_ = false;
  std::vector<std::unique_ptr<Client>> clients_;
};

}  // namespace conclave::sim
