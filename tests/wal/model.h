// What a log should hold, kept by the simplest means: the reference the crash and damage tests compare with. Shares no
// code with wal/.
#pragma once

#include <map>
#include <string>

#include "base/entry.h"
#include "base/random.h"
#include "wal/batch.h"
#include "wal/log.h"

namespace conclave::wal {

struct ModelGroup {
  std::map<uint64_t, Entry> entries;  // by index
  Vote vote;
  SnapshotMark mark;
  LogIndex released;
  Position last;
  LogIndex commit;
  std::vector<Floor> floors;
  friend bool operator==(const ModelGroup&, const ModelGroup&) = default;
};

struct Model {
  std::map<uint64_t, ModelGroup> groups;

  void append(GroupId group, const Entry& entry);
  void truncate(GroupId group, LogIndex from);
  void vote(GroupId group, const Vote& vote) { groups[group.value()].vote = vote; }
  void snapshot(GroupId group, const SnapshotMark& mark) { groups[group.value()].mark = mark; }
  void install(GroupId group, const SnapshotMark& mark);
  void release(GroupId group, LogIndex through);
  void commit(GroupId group, LogIndex index, const std::vector<Floor>& floors);
  friend bool operator==(const Model&, const Model&) = default;
};

// What recovery found, as a model. Holes are entries of type kHole.
[[nodiscard]] Model as_model(const Recovery& recovery);

// The first difference in words; empty if there is none.
[[nodiscard]] std::string difference(const Model& expected, const Model& found);

struct HistoryOptions {
  uint64_t groups = 2;
  size_t payload_max = 200;
  uint64_t operations_max = 4;  // of one batch
};

// Draws plausible histories: what raft would write, all kinds of changes, and applies each to the model.
class History {
 public:
  History(uint64_t seed, HistoryOptions options) : random_(seed), options_(options) {}
  // One batch; the model moves with it.
  void next(Batch& batch, Model& model);

 private:
  void operation(GroupId group, Batch& batch, Model& model);
  SharedBytes payload();
  Random random_;
  HistoryOptions options_;
};

}  // namespace conclave::wal
