// Who waits for a claim to become the oldest of its name, and who wants to hear of its end. Looks at each applied
// entry, but only at the ends of keys that somebody waits for: a waiter's own claim, and the claim that owns its name
// now. The end of an owner wakes the one waiter that follows, however many there are; the end of a waiter's own claim
// is that waiter's loss.
//
// Decides nothing that is replicated: what it says follows from the state (architecture section 1, rule 5: once oldest,
// a claim stays oldest until it is deleted). A claim is its key *and* its create revision: put again after it was
// deleted it is another one. Not bounded here: its owner bounds the waiters.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "keyspace/interface.h"

namespace conclave::layers {

class ClaimQueue final : public keyspace::Observer {
 public:
  using WaiterId = uint64_t;
  enum class Outcome : uint8_t {
    kWaiting,
    kGranted,  // it is the oldest
    kLost,     // it does not stand any more
  };
  struct Decision {
    WaiterId waiter = 0;
    Outcome outcome = Outcome::kWaiting;
  };

  // What stands in line for a name.
  enum class Line : uint8_t {
    kAllBelow,       // every key below it, as etcd's recipe has it
    kDirectChildren  // keys directly below: `orders/42` is another name than `orders` (recipe.h, oldest_child)
  };
  // Until when a waiter is told.
  enum class Until : uint8_t {
    kDecided,  // granted or lost, once
    kLost      // granted, once, and then lost
  };

  explicit ClaimQueue(Line line) : line_(line) {}
  ClaimQueue(const ClaimQueue&) = delete;
  ClaimQueue& operator=(const ClaimQueue&) = delete;

  // `key`, created at `create`, is a claim under `prefix` (recipe.h). What it is now; a decision that is to follow
  // does, unless forgotten. `waiter` must not wait already.
  [[nodiscard]] Outcome wait(const keyspace::View& view, WaiterId waiter, const std::string& prefix,
                             const std::string& key, Revision create, Until until = Until::kDecided);
  // Nothing more is said of it. May be unknown.
  void forget(WaiterId waiter);

  void on_applied(const keyspace::View& view, const keyspace::Applied& applied) override;
  // In place of on_applied, when an entry has too many events for a turn or the state was replaced: every waiter is
  // looked at again, some at a time. Entries may be applied between the steps. True when all were.
  void begin_recheck();
  [[nodiscard]] bool recheck(const keyspace::View& view, size_t waiters_max);
  [[nodiscard]] bool is_rechecking() const { return !to_recheck_.empty(); }

  // What was decided since the last call, in order.
  [[nodiscard]] std::vector<Decision> take_decisions() { return std::exchange(decisions_, {}); }
  // Those that wait for their grant, and all.
  [[nodiscard]] size_t waiting() const { return waiting_; }
  [[nodiscard]] size_t waiters() const { return waiters_.size(); }

 private:
  struct Name {
    std::string prefix;
    std::string prefix_end;
    std::string owner;  // the oldest claim's key; its end is looked for
    std::set<std::pair<Revision, WaiterId>> waiters;
  };
  struct Waiter {
    Name* name = nullptr;  // null: granted
    std::string key;
    Revision create;
    Until until = Until::kDecided;
  };
  // Who wants to hear that a key ended.
  struct Interest {
    std::vector<WaiterId> claimants;  // it is theirs
    std::vector<Name*> owned;         // it owns them
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const { return std::hash<std::string_view>()(key); }
  };

  [[nodiscard]] Outcome look(const keyspace::View& view, const Name& name, const std::string& key, Revision create,
                             std::string& owner) const;
  void set_owner(Name& name, std::string owner);
  void remove(WaiterId waiter);
  void leave_line(WaiterId waiter, Waiter& state);
  void decide(WaiterId waiter, Outcome outcome);
  void check_waiter(const keyspace::View& view, WaiterId waiter);
  void check_name(const keyspace::View& view, const std::string& prefix);

  const Line line_;
  size_t waiting_ = 0;
  std::map<std::string, std::unique_ptr<Name>> names_;                          // by prefix; those with waiters
  std::unordered_map<WaiterId, Waiter> waiters_;                                // walked only to be sorted
  std::unordered_map<std::string, Interest, Hash, std::equal_to<>> interests_;  // by key; never walked
  std::vector<Decision> decisions_;
  std::vector<WaiterId> to_recheck_;  // the next at the back
};

}  // namespace conclave::layers
