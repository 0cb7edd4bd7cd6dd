// What one server has on its disk, as a value: for tests of the core alone. Applies writes the way step.h says a log
// must.
#pragma once

#include <map>
#include <vector>

#include "base/entry.h"
#include "raft/step.h"

namespace conclave::raft {

// A write with the memory it points into, for as long as the disk takes.
struct OwnedWrite {
  explicit OwnedWrite(const Write& write);
  WriteSequence sequence;
  std::optional<Vote> vote;
  std::vector<Entry> entries;
  std::vector<Entry> fills;
  std::optional<SnapshotMark> snapshot;
  bool discard_log = false;
  LogIndex keep_from;
  LogIndex commit;
};

struct Durable {
  GroupId group;
  Vote vote;
  SnapshotMark snapshot;
  std::map<LogIndex, Entry> entries;
  LogIndex commit;
  std::vector<Floor> floors;

  // A new cluster's first state: these voters, this server one of them or none.
  static Durable bootstrap(GroupId group, NodeId self, const Membership& membership);
  void apply(const OwnedWrite& write);
  // What a log would report. `holes` lose their content; `keep_terms` says whether their terms are still known.
  [[nodiscard]] Recovered recover(const std::vector<LogIndex>& holes = {}, bool keep_terms = false) const;
};

}  // namespace conclave::raft
