// When leases end: the leader's clock over the leases of the keyspace. Not replicated; a new leader starts it anew with
// every lease's full remaining time. Owns deadlines, never leases; decides nothing: what is due is proposed by the
// replica as a command that carries the leader's term (architecture section 1, rules 2 and 6).
//
// Never early: a holder trusts its lease for the TTL from when it sent its last acknowledged keep-alive; that arrived
// later, and the TTL is stretched by 2.1 % for two clocks that are each off by 1 %. Late by the round and the rate.
#pragma once

#include <cstdint>
#include <optional>
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
    // Of those whose time began with this leader, since they all began at once (fault L3).
    uint64_t inherited_ends_per_second = 20'000;
  };

  explicit LeaseClock(const Options& options) : options_(options) {}

  // From now on this server leads and has applied its term's first entry; start() follows for every lease there is.
  void lead(Instant now);
  // It leads no more: nothing is due.
  void stop();
  [[nodiscard]] bool is_leading() const { return leading_; }

  // The lease was granted with this much time to go; once more, it counts anew.
  void start(LeaseId id, int64_t remaining_ms, Instant now) { start(id, remaining_ms, now, false); }
  // It stood before this server led.
  void inherit(LeaseId id, int64_t remaining_ms, Instant now) { start(id, remaining_ms, now, true); }
  void end(LeaseId id);

  // A keep-alive arrived: the whole TTL from now. False if there is no such lease, or its end is already proposed: then
  // it must not be acknowledged.
  [[nodiscard]] bool renew(LeaseId id, int64_t ttl_ms, Instant now);

  // Appends up to `count_max` leases that are due and within the rate; they are taken as proposed.
  void take_due(Instant now, size_t count_max, std::vector<LeaseId>& due);
  // The proposal came to nothing: they are due again, and used nothing of the rate. What take_due() just gave.
  void give_back(const std::vector<LeaseId>& leases);

  // When take_due() may have something.
  [[nodiscard]] Instant next_deadline() const;
  [[nodiscard]] size_t size() const { return leases_.size(); }
  // Of them, those whose end is not proposed.
  [[nodiscard]] size_t waiting() const { return heap_.size(); }
  // Time to go, at least zero; nothing if unknown or proposed.
  [[nodiscard]] std::optional<int64_t> remaining_ms(LeaseId id, Instant now) const;

 private:
  struct State {
    LeaseId id;
    Instant deadline;
    uint32_t place = kNoPlace;  // in heap_; none once its end is proposed
    bool inherited = false;     // and not renewed since
  };
  struct Due {
    Instant at;  // its deadline, or an earlier one: a renewal moves only the state, which is found out when it comes up
    State* state;
  };
  // So many ends a second, and a tenth of that at once: expiries come in rounds, not one by one.
  struct Allowance {
    uint64_t per_second = 0;
    uint64_t thousandths = 0;  // of an end, allowed now
    Instant refilled_at{};
    void refill(Instant now);
    [[nodiscard]] bool has_one() const;
    void take_one();
    void give_one();
    [[nodiscard]] Instant next(Instant at) const;
  };
  static constexpr uint32_t kNoPlace = UINT32_MAX;

  [[nodiscard]] static Instant stretched(int64_t ttl_ms, Instant from);
  [[nodiscard]] static bool is_before(const Due& a, const Due& b);
  void start(LeaseId id, int64_t remaining_ms, Instant now, bool inherited);
  void push(State& state);
  void remove(State& state);
  void put(size_t place, Due due);
  void sift_up(size_t place, Due due);
  void sift_down(size_t place, Due due);

  Options options_;
  bool leading_ = false;
  // By id; never walked. Its nodes stay where they are, so the heap points to them.
  std::unordered_map<LeaseId, State> leases_;
  // Earliest first; ties by id, so that every run ends leases in the same order. One place per lease that is not
  // proposed: what was granted and revoked leaves nothing behind.
  std::vector<Due> heap_;
  Allowance all_;
  Allowance inherited_;
};

}  // namespace conclave::node
