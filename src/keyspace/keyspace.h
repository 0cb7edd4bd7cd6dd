// The replicated state machine: etcd's keys, revisions, transactions and leases, and beside them sessions and system
// records. Pure: the same commands give the same state, replies and digests on every replica; no clock, no thread, no
// IO.
//
// Life: empty, or loaded by SnapshotLoader; then apply() once per log entry in order. A command too large for one turn
// is applied in slices: until it is published, reads, lease look-ups and snapshots see the state before. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "keyspace/errors.h"
#include "keyspace/execution.h"
#include "keyspace/limits.h"
#include "keyspace/requests.h"
#include "keyspace/store.h"
#include "keyspace/tables.h"
#include "keyspace/watch_hub.h"

namespace conclave::keyspace {

struct LeaseInfo {
  LeaseId id;
  int64_t ttl_ms = 0;
  SessionId session;
};

class Keyspace {
 public:
  Keyspace();
  Keyspace(const Keyspace&) = delete;
  Keyspace& operator=(const Keyspace&) = delete;

  // For a replica, which answers those who asked it; without, every command has an answer. Not while busy.
  void set_answers(const AnswerOptions& options);
  // Applies the command of the log's entry `index`. True: done, reply() and effects() stand until the next. False:
  // large; run_slice() until it says true, and no other command before. `index` must be above the last.
  [[nodiscard]] bool apply(LogIndex index, Term term, const SharedBytes& command, uint32_t units = kSliceUnits);
  [[nodiscard]] bool run_slice(uint32_t units = kSliceUnits);
  [[nodiscard]] bool is_busy() const { return !execution_.is_done(); }
  // An entry that is no command.
  void skip(LogIndex index);
  [[nodiscard]] Reply& reply() { return execution_.reply(); }
  [[nodiscard]] const Effects& effects() const { return execution_.effects(); }

  // The last entry whose command is done.
  [[nodiscard]] LogIndex applied() const { return applied_; }
  [[nodiscard]] Revision revision() const { return Revision(store_.visible()); }
  // Reads below it are refused; -1 before the first compaction.
  [[nodiscard]] int64_t compacted() const { return store_.floor(); }

  // A whole range at once: for requests known to be small and for tests. Larger ones: RangeRead over store().
  [[nodiscard]] ErrorId range(const RangeRequest& request, std::string& body);
  [[nodiscard]] Store& store() { return store_; }
  [[nodiscard]] const Store& store() const { return store_; }

  // Leases as everybody sees them.
  [[nodiscard]] std::optional<LeaseInfo> lease(LeaseId id) const;
  // Up to `count` leases above `after` (below all: LeaseId(INT64_MIN)), in order of id.
  [[nodiscard]] std::vector<LeaseInfo> leases(LeaseId after, size_t count) const;
  // Up to `count` keys attached to a lease, in order, from `from` on.
  [[nodiscard]] std::vector<std::string> lease_keys(LeaseId id, ByteView from, size_t count) const;
  [[nodiscard]] const Session* session(SessionId id) const { return tables_.visible_session(id); }
  [[nodiscard]] const Record* record(ByteView key) const { return tables_.visible_record(key); }
  [[nodiscard]] Tables& tables() { return tables_; }
  [[nodiscard]] const Tables& tables() const { return tables_; }

  [[nodiscard]] WatchHub& watches() { return hub_; }

  // For a state that goes on as a new cluster's: from now on all revisions are above `by` more than the newest, so that
  // no token or revision the old cluster may have given out, known here or not, is given out again; what was before is
  // compacted. Not while busy.
  void continue_above(int64_t by);

  // What compaction and ended leases leave behind, and watchers that are behind. False if there was nothing to do.
  bool run_background(uint32_t units = kSliceUnits);

  // Equal on all replicas at equal applied index. Not while busy.
  [[nodiscard]] uint64_t digest() const;

 private:
  friend class SnapshotLoader;
  Store store_;
  Tables tables_;
  WatchHub hub_;
  Execution execution_;
  LogIndex applied_;
  LogIndex applying_;
};

}  // namespace conclave::keyspace
