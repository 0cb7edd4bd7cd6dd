// LockCheck: what must hold of locks that clients take by etcd's recipe (sim/lock_clients.h). It follows the claims in
// the one history and judges what holders and waiters were told: who is told that it holds had the oldest claim at the
// revision of that answer; two never trust one lock at the same moment of real time; tokens grow from holder to holder;
// a claim that a waiter misses, or whose deletion it is shown, is as it was told; no claim outlives its lease; and at
// the end nobody waits for a key that is gone.
//
// A claim on lock N is the key N/LEASE, in hex, under that lease; its create revision is the fencing token. Told what
// happens, it only compares; violations go to NodeCheck, whose run this is.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/time.h"
#include "sim/node_check.h"

namespace conclave::sim {

class LockCheck final : public NodeCheck::Observer {
 public:
  // Hears who takes a lock for its own: others than these clients may want it too.
  class Listener {
   public:
    virtual ~Listener() = default;
    // From now on it trusts the lock; or again, since its lease was renewed.
    virtual void on_trusted(const std::string& lock, LeaseId lease, int64_t token) = 0;
  };
  struct Options {
    // Clocks may drift beyond their bound: then holders may trust too long, and only the history can be judged.
    bool clocks_lie = false;
  };
  // Both outlive the run; `check` is told to tell this.
  LockCheck(NodeCheck& check, const Options& options) : check_(check), options_(options) { check.add_observer(*this); }

  // Where the claims on a lock stand, and the claim of a lease.
  [[nodiscard]] static std::string prefix_of(const std::string& lock) { return lock + "/"; }
  [[nodiscard]] static std::string key_of(const std::string& lock, LeaseId lease);

  // Must outlive the run.
  void set_listener(Listener& listener) { listener_ = &listener; }
  // Who trusts the lock at this moment of real time.
  [[nodiscard]] std::vector<LeaseId> who_trusts(const std::string& lock, Instant now) const;

  // --- The history; keys that are no claims are passed over.
  void on_event(int64_t revision, const NodeCheck::Event& event) override;
  void on_lease_ended(LeaseId lease, bool expired) override;

  // --- What clients were told, and do.
  // Trust in a lease: it stands for `ttl` from `sent`, since the answer to what was sent then has arrived.
  struct Trust {
    Instant sent{};
    Duration ttl{};
  };
  // An answer of `revision` said that the lease's claim, created at `token`, is the oldest; its holder goes to work.
  void note_held(const std::string& lock, LeaseId lease, int64_t token, int64_t revision, Instant now,
                 const Trust& trust);
  // Of a lease that holds nothing it says nothing.
  void note_renewed(LeaseId lease, Instant now, const Trust& trust);
  // From now on it does not count on the lock; before it tells anybody.
  void note_let_go(LeaseId lease);
  // An answer of `revision` said that there is no such claim.
  void note_missed(const std::string& key, int64_t revision);
  // A waiter watches a claim from this revision on, for its deletion.
  void note_waiting(LeaseId waiter, const std::string& key, int64_t from_revision);
  void note_deletion(LeaseId waiter, int64_t revision);
  void note_waits_no_more(LeaseId waiter) { waiting_.erase(waiter); }

  // A waiter whose key is gone and who has not been told, and since when; empty if there is none. While events are
  // under way there may be one; at the end there must not.
  [[nodiscard]] std::string who_waits_in_vain() const;

  [[nodiscard]] uint64_t held() const { return held_; }
  // Of those, after a holder whose lease ran out.
  [[nodiscard]] uint64_t handed_over_by_expiry() const { return handed_over_by_expiry_; }

 private:
  // One life of a claim: it stood from `created` until before `deleted`.
  struct Life {
    int64_t created = 0;
    int64_t deleted = INT64_MAX;
    LeaseId lease;  // as it was put last
  };
  struct Claim {
    int64_t token = 0;  // zero: nobody claims
    std::string key;
  };
  struct Holder {
    LeaseId lease;
    int64_t token = 0;
    Instant trusts_until{};
  };
  struct Lock {
    std::set<std::pair<int64_t, std::string>> claims;  // that stand, by token; of equal tokens by key
    std::map<int64_t, Claim> oldest;                   // from each revision on at which it changed
    std::vector<Holder> holders;                       // that did not let go
    LeaseId holder;                                    // the newest
    int64_t token = 0;                                 // its own
    bool expired = false;                              // its lease ran out
  };
  struct Wait {
    std::string key;
    int64_t from_revision = 0;
  };

  [[nodiscard]] static Instant end_of(const Trust& trust);
  // When the key was deleted first, at this revision or later; INT64_MAX: not yet.
  [[nodiscard]] int64_t deleted_after(const std::string& key, int64_t from_revision) const;
  void check_alone(const std::string& name, const Lock& lock, LeaseId lease, Instant now);

  NodeCheck& check_;
  const Options options_;
  Listener* listener_ = nullptr;
  std::map<std::string, Lock> locks_;
  std::map<std::string, std::vector<Life>> lives_;  // by key
  std::map<LeaseId, Wait> waiting_;
  uint64_t held_ = 0;
  uint64_t handed_over_by_expiry_ = 0;
};

}  // namespace conclave::sim
