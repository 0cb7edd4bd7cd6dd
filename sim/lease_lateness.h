// LeaseLateness: whether one leader ends leases in time (architecture section 1, rule 2): late by at most a tenth of a
// second or a twentieth of the lease's time, and by what the rate of ends holds back. One for each time that a server
// leads; looked at from outside every so often, never asked by the product.
//
// Judged by when the leader proposes the end, on its own clock and against its own deadline: how long its proposal
// takes to be agreed is the network's and the disks' affair. The deadline itself is held against the time it may be
// given at most. What a leader could not do is not counted: while its machine stood still, or its consensus took no
// proposal.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "base/types.h"
#include "node/lease_clock.h"

namespace conclave::sim {

// How late the end of a lease may come by itself.
[[nodiscard]] Duration lateness_max(Duration ttl);

class LeaseLateness {
 public:
  struct Lease {
    LeaseId id;
    int64_t ttl_ms = 0;
    std::optional<int64_t> remaining_ms;  // nothing: its end is proposed, or the leader has no time for it yet
  };
  struct Look {
    Instant now;       // of the leader's machine
    bool able = true;  // it runs, and may propose
    std::vector<Lease> leases;
  };

  explicit LeaseLateness(const node::LeaseClock::Options& options) : options_(options) {}

  // What is wrong, or empty. Looks are in order of time.
  [[nodiscard]] std::string look(const Look& look);

 private:
  struct State {
    Instant deadline = kNever;  // at the latest, as far as looks have shown
    bool due = false;
    size_t before = 0;  // leases due when this one came to be, itself included
  };

  node::LeaseClock::Options options_;
  Instant able_since_{};
  std::map<LeaseId, State> leases_;
};

}  // namespace conclave::sim
