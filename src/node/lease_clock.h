// When leases end: the leader's clock over the leases of the keyspace. Not replicated; a new leader starts it anew with
// every lease's full remaining time. Owns deadlines, never leases; decides nothing: what is due is proposed by the
// replica as a command that carries the leader's term (architecture section 1, rules 2 and 6).
//
// Never early: a holder trusts its lease for the TTL from when it sent its last acknowledged keep-alive; that arrived
// later, and the TTL is stretched by 2.1 % for two clocks that are each off by 1 %. Late by the round and the rate.
#pragma once

#include <cstdint>
#include <optional>
#include <queue>
#include <unordered_map>
#include <vector>

#include "base/time.h"
#include "base/types.h"

namespace conclave::node {

class LeaseClock {
 public:
  struct Options {
    // Leases ended a second: more would crowd out everything else (fault O4).
    uint64_t ends_per_second = 100'000;
    // After a change of leader, when all that ended meanwhile is due at once (fault L3).
    uint64_t ends_per_second_after_change = 20'000;
    Duration after_change = std::chrono::seconds(30);
  };

  explicit LeaseClock(const Options& options) : options_(options) {}

  // From now on this server leads and has applied its term's first entry; start() follows for every lease there is.
  void lead(Instant now);
  // It leads no more: nothing is due.
  void stop();
  [[nodiscard]] bool is_leading() const { return leading_; }

  // The lease was granted, checkpointed or inherited with this much time to go.
  void start(LeaseId id, int64_t remaining_ms, Instant now);
  void end(LeaseId id) { leases_.erase(id); }

  // A keep-alive arrived: the whole TTL from now. False if there is no such lease, or its end is already proposed: then
  // it must not be acknowledged.
  [[nodiscard]] bool renew(LeaseId id, int64_t ttl_ms, Instant now);

  // Appends up to `count_max` leases that are due and within the rate; they are taken as proposed.
  void take_due(Instant now, size_t count_max, std::vector<LeaseId>& due);
  // The proposal came to nothing: they are due again.
  void give_back(const std::vector<LeaseId>& leases);

  // When take_due() may have something.
  [[nodiscard]] Instant next_deadline() const;
  [[nodiscard]] size_t size() const { return leases_.size(); }
  // Time to go, at least zero; nothing if unknown or proposed.
  [[nodiscard]] std::optional<int64_t> remaining_ms(LeaseId id, Instant now) const;

 private:
  struct State {
    Instant deadline;
    bool proposed = false;
  };
  struct Due {
    Instant at;
    LeaseId id;
    // Earliest first; ties by id, so that every run ends leases in the same order.
    bool operator<(const Due& other) const { return at != other.at ? at > other.at : id > other.id; }
  };
  [[nodiscard]] static Instant stretched(int64_t ttl_ms, Instant from);
  void refill(Instant now);

  Options options_;
  bool leading_ = false;
  Instant led_since_{};
  // By id; never walked.
  std::unordered_map<LeaseId, State> leases_;
  // One entry per lease or more: a renewal moves only the state, and the entry finds that out when it comes up.
  std::priority_queue<Due> queue_;
  Instant refilled_at_{};
  uint64_t allowance_ = 0;  // ends allowed now, in thousandths
};

}  // namespace conclave::node
