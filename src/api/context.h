// What all calls of one service share: the replica and who waits for which of its tickets, who works on in slices, who
// is called at a time, and the head of every response. Owns no call; each takes itself out of here before it ends.
//
// All on the loop's thread, within one turn: calls come from net, answers from within the replica's flush(), then
// turn_end(). Of the replica only write(), read(), read_at_least(), keep_alive(), administer() and what is const are
// used, and transfer() from turn_end().
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "api/alarms.h"
#include "api/limits.h"
#include "api/metrics.h"
#include "api/options.h"
#include "api/stream_pump.h"
#include "base/random.h"
#include "env/clock.h"
#include "keyspace/internal_command.h"
#include "keyspace/keyspace.h"
#include "net/grpc.h"
#include "node/replica.h"

namespace conclave::api {

// Hears what became of its tickets: each is answered once, possibly before the function that asked returns.
class Waiter {
 public:
  virtual ~Waiter() = default;
  // The keyspace is as it is right after the entry.
  virtual void on_applied(node::Ticket ticket, const keyspace::Reply& reply);
  // The keyspace includes everything acknowledged before the read was asked for, or the revision it named.
  virtual void on_ready(node::Ticket ticket);
  virtual void on_kept_alive(node::Ticket ticket, int64_t ttl_ms);
  // The change of membership is made.
  virtual void on_change_done(node::Ticket ticket);
  // Not done; or, of a write or a change that timed out (kTimeout), not known.
  virtual void on_refused(node::Ticket ticket, keyspace::ErrorId error) = 0;
};

// Work that goes on in slices: at the ends of turns, and once it has used a fair amount (kPromptUnits), when there is
// time for it.
class Job {
 public:
  virtual ~Job() = default;
  // True: done, and not called again. `units` is reduced by the work.
  virtual bool run(uint32_t& units) = 0;
  // Whether it may come to wait for time: not if others wait for it.
  [[nodiscard]] virtual bool may_wait() const { return true; }

 private:
  friend class Context;
  std::list<Job*>* among_ = nullptr;  // null: not started
  std::list<Job*>::iterator place_;
  uint32_t used_ = 0;  // up to kPromptUnits
};

// Called at a time, at the end of a turn.
class Timed {
 public:
  virtual ~Timed() = default;
  virtual void on_time(Instant now) = 0;

 private:
  friend class Context;
  std::optional<std::pair<Instant, uint64_t>> timer_;
};

// Those who hear of something, in the order they began to. One of them may leave while it is told.
template <class Listener>
class Listeners {
 public:
  void add(Listener& listener) {
    listener.place_ = ++last_;
    all_.emplace(last_, &listener);
  }
  // May not be among them.
  void remove(Listener& listener) { all_.erase(std::exchange(listener.place_, 0)); }
  template <class Tell>
  void tell(Tell tell) {
    for (auto at = all_.begin(); at != all_.end();) {
      const uint64_t place = at->first;
      tell(*at->second);
      at = all_.upper_bound(place);
    }
  }

 private:
  std::map<uint64_t, Listener*> all_;
  uint64_t last_ = 0;
};

// Hears of changes of leader, role and term.
class RoleListener {
 public:
  virtual ~RoleListener() = default;
  virtual void on_role_changed() = 0;

 private:
  friend class Listeners<RoleListener>;
  uint64_t place_ = 0;
};

// Refers to the keyspace between turns, and must let go of it before the call returns: another takes its place.
class StateUser {
 public:
  virtual ~StateUser() = default;
  virtual void on_state_replaced() = 0;

 private:
  friend class Listeners<StateUser>;
  uint64_t place_ = 0;
};

class Context {
 public:
  Context(ServiceOptions options, node::Replica& replica, env::Clock& clock);
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  [[nodiscard]] const ServiceOptions& options() const { return options_; }
  [[nodiscard]] Instant now() { return clock_.now(); }
  [[nodiscard]] const node::Replica& replica() const { return replica_; }
  [[nodiscard]] node::Replica& operated_replica() { return replica_; }
  [[nodiscard]] keyspace::Keyspace& keyspace() { return replica_.keyspace(); }
  [[nodiscard]] const raft::Status& role() const { return role_; }
  [[nodiscard]] bool has_leader() const { return role_.leader.is_set(); }
  // A member that does not vote, and answers little (etcd's rule).
  [[nodiscard]] bool is_learner() const {
    const Member* own = replica_.raft().membership().find(options_.self);
    return own != nullptr && (own->role == MemberRole::kLearner || own->role == MemberRole::kPromotable);
  }
  [[nodiscard]] bool is_leader() const { return role_.leader == options_.self && has_leader(); }
  [[nodiscard]] Metrics& metrics() { return metrics_; }
  [[nodiscard]] StreamPump& streams() { return streams_; }
  [[nodiscard]] Alarms& alarms() { return alarms_; }
  [[nodiscard]] const Alarms& alarms() const { return alarms_; }

  // ---- Tickets: issued first, so that an answer from within the asking finds who waits ----
  [[nodiscard]] node::Ticket issue(Waiter& waiter);
  // Whatever the answer will be, nobody waits for it. A write may still happen.
  void forget(node::Ticket ticket);
  // Who waits for it, and no longer does; null if forgotten.
  [[nodiscard]] Waiter* redeem(node::Ticket ticket);
  void write(node::Ticket ticket, const keyspace::CommandHeader& header, ByteView body) {
    replica_.write(now(), ticket, header, body);
  }
  // What is not etcd's: system records, and what is done in one entry with them.
  void write(node::Ticket ticket, const keyspace::InternalCommand& command);
  void read(node::Ticket ticket) { replica_.read(now(), ticket); }
  void read_at_least(node::Ticket ticket, Revision revision) { replica_.read_at_least(now(), ticket, revision); }
  void keep_alive(node::Ticket ticket, LeaseId lease) { replica_.keep_alive(now(), ticket, lease); }
  void lease_time(node::Ticket ticket, LeaseId lease) { replica_.lease_time(now(), ticket, lease); }
  void administer(node::Ticket ticket, const node::MemberChange& change) { replica_.administer(now(), ticket, change); }
  [[nodiscard]] size_t tickets_out() const { return slots_.size() - free_slots_.size(); }

  // ---- Responses: field 1, the header, then `body` ----
  [[nodiscard]] std::string response(Revision revision, ByteView body = {}) const;
  [[nodiscard]] std::string response() { return response(keyspace().revision()); }
  void append_header(Revision revision, std::string& out) const;

  // ---- Leases ----
  [[nodiscard]] LeaseId choose_lease();
  // What etcd raises a TTL to: one and a half election timeouts, in whole seconds.
  [[nodiscard]] int64_t ttl_seconds_min() const;

  // ---- Overload ----
  // When to ask again, for a call refused as one too many: around net::kRetryAfter, each at its own time, since those
  // refused together would be too many together again.
  [[nodiscard]] Duration retry_after() { return random_.between(net::kRetryAfter / 2, 3 * net::kRetryAfter / 2); }

  // ---- Work and time ----
  // Of answers to ranges being put together, of all calls.
  [[nodiscard]] size_t& range_bytes() { return range_bytes_; }
  // For reads begun at once: what this turn has left.
  [[nodiscard]] uint32_t& read_units() { return read_units_; }
  void start_job(Job& job);
  void stop_job(Job& job);
  // One time for each; an earlier one is replaced.
  void set_timer(Timed& timed, Instant at);
  void stop_timer(Timed& timed);
  [[nodiscard]] Listeners<RoleListener>& role_listeners() { return role_listeners_; }
  [[nodiscard]] Listeners<StateUser>& state_users() { return state_users_; }
  // What was asked of the replica within turn_end() goes out with the next turn, which is to come at once.
  void request_turn() { turn_requested_ = true; }
  // Without a leader since then; kNever with one.
  [[nodiscard]] Instant leaderless_since() const { return leaderless_since_; }

  void on_role_changed(const raft::Status& status);
  void on_state_replaced();
  void turn_end(Instant now);
  [[nodiscard]] Instant next_deadline() const;
  [[nodiscard]] bool has_work() const {
    return turn_requested_ || !jobs_.empty() || background_ || streams_.has_work();
  }
  // Work to be done when there is time, a piece of it each time.
  [[nodiscard]] bool has_leisure_work() const { return !leisure_jobs_.empty(); }
  void work_at_leisure();

 private:
  struct Slot {
    Waiter* waiter = nullptr;
    uint32_t generation = 1;
  };
  void run_jobs();
  // The first of them, and then it is the last. What it used.
  uint32_t run_next(std::list<Job*>& among, uint32_t units);

  ServiceOptions options_;
  node::Replica& replica_;
  env::Clock& clock_;
  Random random_;
  raft::Status role_;
  Instant leaderless_since_ = kNever;
  NodeId last_leader_;
  std::string header_head_;  // cluster and member, encoded
  Metrics metrics_;
  StreamPump streams_;
  Alarms alarms_;

  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;

  size_t range_bytes_ = 0;
  uint32_t read_units_ = kReadUnitsPerTurn;
  bool background_ = false;
  bool turn_requested_ = false;
  std::list<Job*> jobs_;
  std::list<Job*> leisure_jobs_;  // have used kPromptUnits
  std::map<std::pair<Instant, uint64_t>, Timed*> timers_;
  Listeners<RoleListener> role_listeners_;
  Listeners<StateUser> state_users_;
  uint64_t serial_ = 0;
};

}  // namespace conclave::api
