// What the log knows of one group besides its entries: kept by the writer, rebuilt by recovery, written whole at the
// start of each segment (the base) and in short in each batch's head (the directory). One set of rules moves it, so
// that writer and recovery cannot differ.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/entry.h"
#include "base/types.h"
#include "wal/batch.h"

namespace conclave::wal {

// Entries from `first` on have `term`, up to the next row.
struct TermRow {
  LogIndex first;
  Term term;
  friend bool operator==(const TermRow&, const TermRow&) = default;
};

// Rows a head's directory carries: the newest. Terms change rarely, so there are seldom more than two; each takes some
// four bytes. Should more change within one gap, what lies below the rows and above the commit mark counts as lost
// (replay.h).
inline constexpr size_t kDirectoryRowsMax = 16;
// Rows a base carries.
inline constexpr size_t kBaseRowsMax = 64;

// A change as a batch's head tells it, operations of a batch alike but without payloads.
struct Change {
  ChangeKind kind = ChangeKind::kEntries;
  GroupId group;
  LogIndex index;      // first entry; the index of the others
  Term term;           // of entries, vote, snapshot, configuration
  uint64_t count = 0;  // of entries
  NodeId candidate;
  Incarnation incarnation;
  bool promises = false;
  ByteView bytes;  // encoded membership, floors, or a configuration entry's payload
};

struct GroupState {
  GroupId group;
  Vote vote;
  Position mark;      // the newest snapshot
  LogIndex released;  // entries at or below are not kept
  Position last;      // logical: holes included
  LogIndex commit;
  std::vector<TermRow> terms;  // ascending; the first row may begin before `released`
  bool terms_cut = false;      // older rows were left out
  Certainty certainty = Certainty::kCertain;
  Incarnation doubted;  // the newest incarnation when certainty was lost; a vote under a later one restores it
  // Encoded. Empty where not known or not told: a directory has neither.
  std::string membership;  // at the mark
  std::string floors;

  // Moves by one change. kFill and kConfiguration move nothing.
  void apply(const Change& change);
  // The term at `index` as the rows tell it; zero if they do not.
  [[nodiscard]] Term term_at(LogIndex index) const;
  // A snapshot taken at this position is one of this log's past: of what is committed here, or of the same term at its
  // index, by log matching. Another one, received and not installed, is of a log that is still to take this one's
  // place: (1) a leader's suffix to (2, 100) was never committed; (2) it receives the snapshot (5, 90); (3) it ends
  // before the install is written. Begun from that snapshot, the entries of term 2 behind it would count as following
  // it.
  [[nodiscard]] bool has_passed(const Position& snapshot) const;
  // Takes away certainty, once.
  void doubt(Certainty why);
  // Drops rows that no index above `released` needs.
  void forget_old_terms();

 private:
  void truncate(LogIndex from);
  void extend(LogIndex first, uint64_t count, Term term);
};

}  // namespace conclave::wal
