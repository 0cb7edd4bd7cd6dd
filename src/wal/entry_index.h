// EntryIndex: where each entry of one group stands on the disk: which batch of which segment. Runs of entries of one
// batch are one row, so that it costs little however long the log is.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>

#include "base/types.h"

namespace conclave::wal {

struct BatchPlace {
  uint64_t sequence = 0;  // of the segment's use
  uint32_t start_sector = 0;
  uint32_t sectors = 0;  // none: lost, in this use or a later one
  friend bool operator==(const BatchPlace&, const BatchPlace&) = default;
};

class EntryIndex {
 public:
  // Entries first..first+count-1 stand there; what was known at `first` and above is forgotten.
  void append(LogIndex first, uint64_t count, const BatchPlace& place);
  // One entry stands there too, instead of where it stood.
  void fill(LogIndex index, const BatchPlace& place);
  void truncate(LogIndex from);
  // Forgets entries at or below.
  void release(LogIndex through);
  void clear();
  // Takes over what `behind` knows, all of it behind what is known here.
  void join(EntryIndex&& behind);
  [[nodiscard]] std::optional<BatchPlace> find(LogIndex index) const;
  // The oldest segment use that still holds an entry; nothing if none does.
  [[nodiscard]] std::optional<uint64_t> oldest_sequence() const;

 private:
  struct Run {
    LogIndex first;
    uint64_t count = 0;
    BatchPlace place;
  };
  std::deque<Run> runs_;  // ascending, without overlap
  std::map<LogIndex, BatchPlace> fills_;
};

}  // namespace conclave::wal
