#include "keyspace/history_budget.h"

namespace conclave::keyspace {

std::optional<Revision> HistoryBudget::due(Instant now, const Keyspace& keyspace) {
  if (marks_.empty() || now - marks_.back().at >= options_.age_max / kMarks) {
    marks_.push_back({now, keyspace.revision()});
  }
  Revision floor(keyspace.compacted());
  std::optional<Revision> due;
  while (!marks_.empty() && now - marks_.front().at >= options_.age_max) {
    if (marks_.front().revision > floor) due = marks_.front().revision;
    marks_.pop_front();
  }
  // Not while the last compaction is still being carried out: its bytes are counted yet.
  if (!due && keyspace.store().history_bytes() > options_.bytes_max && !keyspace.store().has_garbage()) {
    Revision middle(keyspace.store().middle_revision());
    if (middle > floor) due = middle;
  }
  return due;
}

}  // namespace conclave::keyspace
