// SessionOwner: one session of a simulated process (sim/session_process.h), and what its owner does with it at random:
// acquires and releases locks, tries, waits, gives up, campaigns, proclaims, resigns, hands over, observes, closes, and
// lets go when it is asked to.
// What it does and is told goes to PrimitivesCheck. Gone with the process, or when the session is over.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "base/random.h"
#include "client/session_core.h"
#include "sim/node_server.h"
#include "sim/primitives_check.h"
#include "sim/runner.h"

namespace conclave::sim {

class NodeCluster;
class SessionOwner;

// What all of a run's owners and processes share.
struct SessionScene {
  World& world;
  NodeCluster& cluster;
  const NodeKnobs& knobs;
  RunResult& result;
  PrimitivesCheck& primitives;
  Random random;
  bool closing = false;  // nobody begins anew
  // Who campaigns, by name and by the number it had at first.
  std::map<std::pair<std::string, int64_t>, const SessionOwner*> candidates;

  // Names shared with clients of the recipe, one below another, and some of their own.
  [[nodiscard]] std::string draw_lock();
  [[nodiscard]] std::string draw_election();
  // To stderr, of a verbose run.
  void say(const std::string& what) const;
};

class SessionOwner final : public PrimitivesCheck::Mind {
 public:
  // Its process.
  class Process {
   public:
    virtual ~Process() = default;
    [[nodiscard]] virtual Instant now() = 0;
    // Once the process runs; what came of it goes out.
    virtual void step(const std::function<void()>& what) = 0;
  };

  SessionOwner(SessionScene& scene, Process& process, Random random);
  ~SessionOwner() override;
  SessionOwner(const SessionOwner&) = delete;
  SessionOwner& operator=(const SessionOwner&) = delete;

  // --- PrimitivesCheck::Mind
  [[nodiscard]] bool is_safe() const override { return core_.is_safe(process_.now()); }
  [[nodiscard]] bool holds(const std::string& name, int64_t token) const override { return core_.holds(name, token); }

  [[nodiscard]] client::SessionCore& core() { return core_; }
  // As its client knows it: until it is opened, another with each asking.
  [[nodiscard]] int64_t id() const { return id_; }
  // After whatever may have asked again.
  void follow_id();
  void take(const client::SessionEvent& event);
  // Nothing new; what is held is let go, what is waited for is waited for, and one lock more is taken.
  void begin_liveness();
  void close();

  [[nodiscard]] bool is_over() const;
  // Over, and no server is to be told of it any more.
  [[nodiscard]] bool is_done() const;
  // While closing: it has had its last lock.
  [[nodiscard]] bool is_idle() const { return operations_.empty() && held_.empty() && had_last_; }
  [[nodiscard]] std::optional<client::HeldClaim> draw_held();
  [[nodiscard]] std::string describe() const;

 private:
  using Wish = PrimitivesCheck::Wish;
  struct Held {
    int64_t token = 0;
    bool leads = false;
  };

  void plan(Duration after, std::function<void()> step);
  void note(uint64_t operation, Wish wish);
  void act();
  void begin_something();
  void acquire();
  void acquire_many();
  void acquire_last();
  void campaign();
  void cancel_one();
  void observe_one();
  void proclaim_one();
  void hold(const std::string& name, const Held& held);
  void let_go(const std::string& name, int64_t token);
  void heed(const client::ReleaseWanted& wanted);
  void hand_over(const std::string& name, int64_t token);
  void on_ended(const client::OperationEnded& ended);

  SessionScene& scene_;
  Process& process_;
  Random random_;
  client::SessionCore core_;
  int64_t id_;
  std::shared_ptr<bool> lives_ = std::make_shared<bool>(true);
  std::map<uint64_t, Wish> operations_;
  std::map<std::string, Held> held_;
  std::set<std::string> observed_;
  bool had_last_ = false;
  std::optional<Instant> over_at_;  // true time
};

}  // namespace conclave::sim
