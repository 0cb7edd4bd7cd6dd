// Whether a follower lags: it has not applied what its leader had applied a second ago (architecture section 1, rule
// 5). Its leader tells what it has applied twice a second; owns what was told of late.
#pragma once

#include <deque>

#include "base/time.h"
#include "base/types.h"

namespace conclave::node {

inline constexpr Duration kLagAfter = std::chrono::seconds(1);
inline constexpr Duration kAppliedToldEvery = std::chrono::milliseconds(500);

class FollowerLag {
 public:
  // By the leader of `term`, and arrived now: it had applied that before.
  void note(Instant now, Term term, LogIndex leader_applied);
  // False where nothing is known of the leader of `term`: nobody is known to be further.
  [[nodiscard]] bool is_lagging(Instant now, Term term, LogIndex applied) const;

 private:
  struct Told {
    Instant at;
    LogIndex index;
  };
  Term term_;
  std::deque<Told> told_;  // ascending; only the first may be older than kLagAfter at the last note()
};

}  // namespace conclave::node
