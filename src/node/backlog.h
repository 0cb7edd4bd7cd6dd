// What a leader has proposed in its term and not applied: its bytes, and since when the oldest of it waits. Both are
// bounded. Where a link or a disk carries little, few bytes are a long time, and what is queued behind them is asked
// for again before it is done: such a queue never drains by itself.
#pragma once

#include <cstddef>
#include <deque>

#include "base/time.h"
#include "base/types.h"

namespace conclave::node {

class Backlog {
 public:
  // Up to `last`. What an earlier term left counts no more.
  void note_proposed(Instant now, Term term, LogIndex last, size_t bytes);
  void note_applied(Term term, LogIndex index, size_t bytes);

  [[nodiscard]] size_t bytes(Term term) const { return term == term_ ? bytes_ : 0; }
  // How long the oldest has waited, kGrain more at most; nothing where nothing waits.
  [[nodiscard]] Duration age(Instant now, Term term) const;

  static constexpr Duration kGrain = std::chrono::milliseconds(10);

 private:
  struct Proposed {
    Instant at;  // the first of them
    LogIndex last;
  };
  Term term_;
  size_t bytes_ = 0;
  std::deque<Proposed> proposed_;  // ascending, a grain apart
};

}  // namespace conclave::node
