// The log as consensus sees it: the entries since the oldest snapshot kept, in memory, with the places whose content
// was lost on disk marked as gaps. It knows nothing of what is durable or committed; Raft does.
//
// A gap is a range of indexes whose content is not known here though this server acknowledged it. It may be empty
// (to + 1 == from): then nothing is missing, but that the entries on its two sides belong to one log is not proven.
// That happens when a leader filled a gap and its log was not yet compared with what lies behind. The case:
//   1. Leader of term 2 appends 5 and 6; this server acknowledges both, then loses 5 on disk.
//   2. Leader of term 3, elected without this server, has another 5 (term 1 or 3) and sends it: the gap is filled.
//   3. A later leader of term 4 whose log is that of term 2 probes with prev = (term 2, index 6). Without the mark this
//      server would accept: its 6 is right, its 5 is not, and Log Matching (dissertation 3.5) is broken.
// So nothing at or behind a gap is matched with, acknowledged or served; only an entry from the leader at the first
// place behind proves or refutes the suffix. Truncating the suffix instead would forget acknowledged entries without
// proof of conflict; this server's vote would then elect leaders that lack them.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "base/entry.h"
#include "base/ring.h"
#include "raft/message.h"

namespace conclave::raft {

struct Gap {
  LogIndex from;
  LogIndex to;  // >= from - 1
  friend bool operator==(const Gap&, const Gap&) = default;
};

class Log {
 public:
  Log() = default;
  // The entries of `recovered` above what its snapshot makes unneeded. ASSERTs the order recovery promises.
  explicit Log(Recovered&& recovered);

  // The place before the first entry held; its term is known.
  [[nodiscard]] Position start() const { return start_; }
  [[nodiscard]] LogIndex first_index() const { return start_.index.next(); }
  // Logical last position: what this server votes by, gaps included (architecture section 5).
  [[nodiscard]] Position last() const;
  [[nodiscard]] LogIndex last_index() const { return start_.index + entries_.size(); }
  // The last index before the first gap.
  [[nodiscard]] LogIndex contiguous_last() const { return gaps_.empty() ? last_index() : gaps_.front().from.prev(); }
  [[nodiscard]] bool has_gap() const { return !gaps_.empty(); }
  [[nodiscard]] const std::vector<Gap>& gaps() const { return gaps_; }

  // Of start().index up to last_index(); zero where a hole's term is not known.
  [[nodiscard]] Term term_at(LogIndex index) const;
  [[nodiscard]] Position position_at(LogIndex index) const { return {.term = term_at(index), .index = index}; }
  [[nodiscard]] const Entry& entry(LogIndex index) const;
  // True if the log has this very place, without a gap before it.
  [[nodiscard]] bool matches(Position place) const;
  // The largest index <= `at`, within [start, contiguous_last], whose term is <= `term`: where two logs that differ at
  // a later place of term `term` may still agree (dissertation 3.5, last paragraphs; here by term, not one by one).
  [[nodiscard]] Position last_at_or_before(LogIndex at, Term term) const;
  [[nodiscard]] EntrySlices slices(LogIndex from, size_t count) const;
  // How many entries from `from` fit both bounds; at least one if there is one. Stops before a gap.
  [[nodiscard]] size_t count_within(LogIndex from, size_t entries_max, size_t bytes_max) const;

  // The first place at or behind the first gap's begin whose term is known: a log that has it has the same prefix (Log
  // Matching). There is one always: the term of the logical last place is known.
  [[nodiscard]] Position proof_of_first_gap() const;

  // At last_index() + 1, of a term not before the last.
  void append(Entry entry);
  // Drops everything from `index` on, gaps too. index > start.
  void truncate_from(LogIndex index);
  // Gives content to the first index of the first gap, which must not be empty.
  void fill_first(Entry entry);
  // The suffix behind the first gap, which must be empty, belongs to this log.
  void prove_first();
  // What follows start() is not proven to belong behind it: an empty gap at first_index(), if there is an entry.
  void doubt_first();
  // Turns [from, to], clipped to the entries held, into holes whose terms stay known.
  void mark_hole(LogIndex from, LogIndex to);

  // Drops entries up to and including `place`, which the log has or which is behind its end (then the log is empty and
  // begins there).
  void start_after(Position place);

 private:
  [[nodiscard]] size_t slot(LogIndex index) const { return static_cast<size_t>(index - first_index()); }

  Position start_;
  Ring<Entry> entries_;
  std::vector<Gap> gaps_;  // ascending, apart from each other
};

}  // namespace conclave::raft
