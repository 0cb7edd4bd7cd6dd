// SessionOperator: somebody who looks after a cluster in which sessions are: ends their claims by decision, at once or
// after asking, asks for releases, kills sessions. Each by a call of its own at some server, as inspection serves it,
// that may end anywhere on its way. What it asks for and is told goes to PrimitivesCheck.
#pragma once

#include <functional>
#include <string>

#include "base/random.h"
#include "layers/owned_claim.h"
#include "sim/session_owner.h"

namespace conclave::sim {

class SessionOperator {
 public:
  SessionOperator(SessionScene& scene, Random random) : scene_(scene), random_(random) {}
  SessionOperator(const SessionOperator&) = delete;
  SessionOperator& operator=(const SessionOperator&) = delete;

  // Something, at random.
  void act(SessionOwner& owner);

 private:
  struct Force {
    std::string name;
    int64_t token = 0;
    std::string reason;
    bool now = false;
    bool is_given_up = false;  // its call ends before the owner's time is over
  };

  void kill(int64_t session);
  void request(const std::string& name);
  void force_release(Force force);
  void look_at_owner(const Force& force, NodeServer& server, size_t node, const keyspace::View& view);
  void wait(const Force& force, size_t node, const layers::OwnedClaim& claim, Duration time);
  void write_force(const Force& force, NodeServer& server, const layers::OwnedClaim& claim);
  // Each once.
  [[nodiscard]] std::string next_note();

  SessionScene& scene_;
  Random random_;
  uint64_t notes_ = 0;
};

}  // namespace conclave::sim
