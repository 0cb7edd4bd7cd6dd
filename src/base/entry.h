// What raft and wal share: entries, positions, the vote, and what the log on disk hands to consensus at start.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/membership.h"
#include "base/types.h"

namespace conclave {

// Stored in records and sent to peers: numbers are format, never renumbered.
enum class EntryType : uint8_t {
  kHole = 0,           // the entry was acknowledged and its content is lost here; its term may be known. Never sent.
  kNoop = 1,           // a leader's first entry of its term
  kCommand = 2,        // for the state machine
  kConfiguration = 3,  // payload is an encoded Membership
};

[[nodiscard]] std::string_view to_string(EntryType type);

struct Entry {
  LogIndex index;
  Term term;  // of a hole: zero if not known
  EntryType type = EntryType::kNoop;
  SharedBytes payload;
  friend bool operator==(const Entry&, const Entry&) = default;
};

// A place in the log as elections compare it: the later term wins, then the longer log (dissertation 3.6.1).
struct Position {
  Term term;
  LogIndex index;
  friend auto operator<=>(const Position&, const Position&) = default;
};

// What a server must never forget: the newest term it has seen, whom it voted for in it, and under which identity it
// votes. Incarnation zero: it lost something it had promised and may not vote until the leader re-admits it.
struct Vote {
  Term term;
  NodeId candidate;
  Incarnation incarnation;
  // This server has promised leaders not to vote for others for a while (clock-lease reads): after a restart it votes
  // for nobody for one such period. Durable before the first promise is given.
  bool promises = false;
  friend bool operator==(const Vote&, const Vote&) = default;
};

// What one server is known to have had durable: in this life, under this identity, this term and, in it, the log up to
// this position. Spread to all members with the commit index, so that a server whose disk was rolled back is told by
// any peer that is alive (fault D13).
struct Floor {
  NodeId node;
  Boot boot;
  Incarnation incarnation;
  Term term;
  Position last;
  friend bool operator==(const Floor&, const Floor&) = default;
};

// The newest snapshot: the state after applying `last`, and the membership in force there.
struct SnapshotMark {
  Position last;
  Membership membership;
  friend bool operator==(const SnapshotMark&, const SnapshotMark&) = default;
};

// Why a server may not vote with what it found on its disk.
enum class Certainty : uint8_t {
  kCertain,
  kLastUncertain,  // the last acknowledged batch cannot be told from damage
  kVoteUncertain,  // no good copy of the newest vote
  kEmpty,          // nothing there, though this server has lived before or joins an old cluster
  kRolledBack,     // behind what a peer knows this server acknowledged
};
[[nodiscard]] std::string_view to_string(Certainty certainty);

// What recovery found, for one group. entries are contiguous from snapshot.last.index + 1 or earlier to last.index;
// places whose content is lost are entries of type kHole. last is the logical last position, holes included.
struct Recovered {
  GroupId group;
  Certainty certainty = Certainty::kEmpty;
  Vote vote;
  SnapshotMark snapshot;
  std::vector<Entry> entries;
  Position last;
  LogIndex commit;            // a commit mark that was durable; may lag
  std::vector<Floor> floors;  // of the peers, as of that mark
};

}  // namespace conclave
