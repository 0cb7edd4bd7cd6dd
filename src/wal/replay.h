// Replay: rebuilds every group from what the scans of the segments report, and knows what is lost.
//
// After a gap (batches of which nothing can be read) the directory of a later batch tells where each group stood. Which
// of the entries read before the gap are still part of the log is settled by the log matching property
// (dissertation 3.5): two logs that agree in the term at an index agree in everything before it. So the newest index at
// which both terms are equal divides what is kept from what is a hole.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/entry.h"
#include "wal/entry_index.h"
#include "wal/group_state.h"
#include "wal/segment_scan.h"

namespace conclave::wal {

// A hole as it can be asked for from a peer.
struct Hole {
  GroupId group;
  LogIndex index;
  Term term;  // zero if not known
  // Of the lost payload, if its record's header was readable: what fills the hole must have these.
  std::optional<uint32_t> payload_checksum;
  EntryType type = EntryType::kHole;
  friend bool operator==(const Hole&, const Hole&) = default;
};

// One thing recovery found wrong, for people.
struct Finding {
  uint64_t sequence = 0;
  uint32_t slot = 0;
  uint32_t from_sector = 0;
  uint32_t to_sector = 0;
  std::string what;
};

// What a later segment's start must remember of an uncertain end before it (manifest.h).
struct Doubt {
  GroupId group;
  Certainty certainty = Certainty::kCertain;
  Incarnation doubted;
  friend bool operator==(const Doubt&, const Doubt&) = default;
};

struct ReplayedGroup {
  GroupState state;
  EntryIndex index;
  // Contiguous; the first one's index is `start`. Empty: start is where the next will stand.
  std::vector<Entry> entries;
  LogIndex start;
  std::map<LogIndex, Hole> holes;
  bool in_gap = false;  // a gap lies behind the last that is known of it
};

class Replay final : public ScanVisitor {
 public:
  // Before each scan. `doubts` and `all_uncertain` are what the manifest remembers at this segment's start.
  void begin_segment(const SegmentPlan& plan, std::span<const Doubt> doubts, bool all_uncertain);
  void on_batch(const Head& head, BatchBody& body, BatchVerdict verdict) override;
  void on_gap(uint32_t from_sector, uint32_t to_sector) override;
  // After the scan of the newest segment. `manifest_lost`: the directory is older than what is on the disk.
  void finish(const ScanResult& newest, bool manifest_lost);

  // kMalformed if what the disk says cannot be: among it more entries lost than the lost bytes could have held. That
  // bounds what is listed of them by what is on the disk, whatever numbers a head tells.
  [[nodiscard]] const Status& status() const { return status_; }
  [[nodiscard]] std::map<GroupId, ReplayedGroup>& groups() { return groups_; }
  [[nodiscard]] std::vector<Finding>& findings() { return findings_; }
  // Groups may have existed of which nothing is known.
  [[nodiscard]] bool unknown_groups() const { return unknown_groups_; }
  [[nodiscard]] uint64_t batches() const { return batches_; }
  [[nodiscard]] uint64_t records() const { return records_; }
  // The newest batch seen; zero if none.
  [[nodiscard]] uint64_t last_number() const { return last_number_; }
  [[nodiscard]] std::span<const GroupId> last_touched() const { return last_touched_; }

 private:
  ReplayedGroup& group(GroupId id);
  void reconcile(const GroupState& told, bool base);
  void apply(const Change& change);
  void take_records(const Change& change, BatchBody& body, uint32_t& ordinal, const BatchPlace& place);
  void drop_from(ReplayedGroup& group, LogIndex from);
  void put(ReplayedGroup& group, Entry entry, const std::optional<Hole>& hole);
  void add_holes(ReplayedGroup& group, LogIndex from, LogIndex to);
  void list_holes(ReplayedGroup& group, LogIndex from, LogIndex to);
  [[nodiscard]] bool pay_for_holes(LogIndex from, LogIndex to);
  void note(uint32_t from_sector, uint32_t to_sector, std::string what);

  std::map<GroupId, ReplayedGroup> groups_;
  SegmentPlan plan_;
  std::vector<Finding> findings_;
  std::string scratch_;
  std::vector<GroupId> last_touched_;
  bool unknown_groups_ = false;
  uint64_t batches_ = 0;
  uint64_t records_ = 0;
  uint64_t last_number_ = 0;
  // Bytes of batches that cannot be read, less what the holes told so far took; where the first of them lies.
  uint64_t lost_bytes_ = 0;
  uint64_t lost_sequence_ = 0;
  Status status_;
};

// A good snapshot, in a file of its own.
struct GoodSnapshot {
  GroupId group;
  Position last;
};

// What raft is given of one group. Leaves the group without its entries. Holes at or below the newest of these
// snapshots that the log has passed (GroupState::has_passed) are none: the entries handed over begin behind them.
[[nodiscard]] Recovered hand_over(ReplayedGroup& group, std::span<const GoodSnapshot> snapshots);

}  // namespace conclave::wal
