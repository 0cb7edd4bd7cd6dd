// Batch: what the caller wants durable, in order, for any number of groups. Collected while the last write runs, made
// durable by one Log::write, then cleared and used again.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/entry.h"
#include "base/error.h"
#include "base/types.h"

namespace conclave::wal {

// What a record or a change in a batch's head says. Stored: numbers are format, never renumbered.
enum class ChangeKind : uint8_t {
  kEntries = 1,        // entries at index.. of one term; what the group had from there on is gone
  kFill = 2,           // one entry where a hole is; what stands behind it stays
  kTruncate = 3,       // entries from index on are gone
  kVote = 4,           // the group's vote
  kSnapshot = 5,       // a snapshot of our own state stands at (term, index); entries stay
  kInstall = 6,        // a snapshot from elsewhere replaced the log: no entry before it stays, the log ends there
  kRelease = 7,        // entries at or below index are not needed any more
  kCommit = 8,         // committed up to index; and floors
  kConfiguration = 9,  // the second and third copy of a configuration entry that is also a record
};

// Of one group; more are refused when decoding. Twice the members: old incarnations may linger.
inline constexpr size_t kFloorsMax = 2 * kMembersMax;

void encode_floors(std::span<const Floor> floors, std::string& out);
[[nodiscard]] Result<std::vector<Floor>> decode_floors(ByteView bytes);

// A batch of urgent kind may take the space kept in reserve: votes, truncations, releases, commit marks, and entries
// whose effect is to free something.
enum class Urgency : uint8_t { kNormal, kUrgent };

// One step. Plain: a batch of thousands costs one vector.
struct Operation {
  ChangeKind kind = ChangeKind::kEntries;
  EntryType type = EntryType::kNoop;
  GroupId group;
  LogIndex index;
  Term term;
  uint64_t candidate = 0;    // of a vote
  uint64_t incarnation = 0;  // of a vote
  bool promises = false;     // of a vote
  SharedBytes payload;       // of an entry; the encoded membership of a snapshot; the encoded floors of a commit
};

// Order is kept within a group. Limits: Log::write refuses a batch that fits in no segment.
class Batch {
 public:
  // An entry at its index: everything the group had at or above it is gone. Not a hole.
  void append(GroupId group, const Entry& entry);
  // The content of a hole: what stands behind it stays.
  void fill(GroupId group, const Entry& entry);
  // Entries at `from` and above are gone, without a new one.
  void truncate(GroupId group, LogIndex from);
  void vote(GroupId group, const Vote& vote);
  // The group's newest snapshot is durable in its own file. Entries stay until released.
  void snapshot(GroupId group, const SnapshotMark& mark);
  // A snapshot from a peer is durable in its own file and replaces the log: entries before and after it are gone.
  void install(GroupId group, const SnapshotMark& mark);
  // Entries at or below `through` will not be asked for: they are covered by the older of the two snapshots kept.
  void release(GroupId group, LogIndex through);
  // Committed at least up to here; floors as known now (empty: as before). At most kFloorsMax.
  void commit(GroupId group, LogIndex index, std::span<const Floor> floors);

  void set_urgency(Urgency urgency) { urgency_ = urgency; }
  [[nodiscard]] Urgency urgency() const { return urgency_; }
  [[nodiscard]] std::span<const Operation> operations() const { return operations_; }
  [[nodiscard]] bool empty() const { return operations_.empty(); }
  // About what it takes in the log, without padding: to stop collecting at a limit.
  [[nodiscard]] size_t bytes() const { return bytes_; }
  // Appends all of `other`, which is left empty. Urgent only if both are.
  void absorb(Batch& other);
  // A batch of its operations from..from + count.
  [[nodiscard]] Batch part(size_t from, size_t count, size_t bytes) const;
  void clear();

 private:
  Operation& add(ChangeKind kind, GroupId group);
  std::vector<Operation> operations_;
  size_t bytes_ = 0;
  Urgency urgency_ = Urgency::kNormal;
};

}  // namespace conclave::wal
