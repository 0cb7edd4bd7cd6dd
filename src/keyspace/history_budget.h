// When history is due for compaction: a policy for the leader, which proposes what it says. On by default. Told the
// time, never asks; holds nothing that is replicated.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "base/time.h"
#include "base/types.h"
#include "keyspace/keyspace.h"

namespace conclave::keyspace {

class HistoryBudget {
 public:
  struct Options {
    // An hour lets any watcher that was cut off for a coffee break resume; etcd's users commonly set the same.
    Duration age_max = std::chrono::minutes(60);
    // About a million replaced values of 200 bytes.
    uint64_t bytes_max = uint64_t{256} << 20;
  };
  HistoryBudget() : HistoryBudget(Options{}) {}
  explicit HistoryBudget(Options options) : options_(options) {}

  // Called now and then (a second or so apart) on the leader. The revision a compaction should be proposed at, if any.
  [[nodiscard]] std::optional<Revision> due(Instant now, const Keyspace& keyspace);

 private:
  struct Mark {
    Instant at;
    Revision revision;
  };
  static constexpr int kMarks = 32;  // so the age is met within a thirty-second part

  Options options_;
  std::deque<Mark> marks_;
};

}  // namespace conclave::keyspace
