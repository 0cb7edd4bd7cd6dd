// What goes into a step and what comes out of it.
//
//     void Raft::step(Instant now, const Input&, Output&);
//
// The driver's duties, all of them:
//  1. Persist `write` (if any) as one atomic-or-torn batch, in the order of sequence numbers, and report WriteDone. A
//  write
//     that fails ends the process.
//  2. Send each message at once if its `after` is zero, or once write `after` is durable. A message kept or delayed
//  must be
//     encoded or copied before the next step: it may point into the log.
//  3. Apply the entries up to `commit` in order (Raft::entry).
//  4. Call step with Tick when next_deadline() has come.
// Messages may be lost, repeated, reordered and delayed at will.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "base/entry.h"
#include "base/time.h"
#include "raft/message.h"

namespace conclave::raft {

// ---- Inputs ----

// First, and once. What recovery found was given to the constructor.
struct Start {};

// A deadline has come, or may have.
struct Tick {};

// From an authenticated peer, otherwise untrusted.
struct Receive {
  const Message& message;
};

// Write `sequence` and all before it are durable.
struct WriteDone {
  WriteSequence sequence;
};

// Commands for the log. Accepted as a whole or refused as a whole.
struct Propose {
  std::span<const SharedBytes> commands;
};

// A change of membership (dissertation 4.3). Voters that are not voters now must come in as kPromotable learners: the
// leader makes them voters by itself once they are caught up, under an incarnation of its choosing.
struct ProposeMembership {
  Membership target;
};

// A linearizable read may be answered from state applied up to the index that ReadReady names for this context. One
// context stands for any number of reads that arrived before it.
struct Read {
  uint64_t context = 0;
  // To be proven by a round even where reads may rest on the leader's clock lease.
  bool by_round = false;
};

// Hand leadership over (dissertation 3.10). `to` zero: to whom is most up to date.
struct Transfer {
  NodeId to;
};

// A hint from the network: the link to the peer's process broke, as when the process ended; or stands (again).
struct LinkBroken {
  NodeId peer;
};
struct LinkUp {
  NodeId peer;
};

// The driver has a durable snapshot at `mark`; entries before `keep_from` are needed no more (of two snapshots kept,
// the log goes back to the older).
struct Compact {
  SnapshotMark mark;
  LogIndex keep_from;
};

// The driver cannot read its snapshot at `mark` any more: damaged, or gone.
struct SnapshotUnreadable {
  SnapshotMark mark;
};

// The driver stored a chunk (Output::chunk) durably: `offset` bytes of the snapshot are there. complete: all of them,
// and the file is whole, checked and durable under its name.
struct ChunkStored {
  NodeId from;
  SnapshotMark mark;
  uint64_t offset = 0;
  bool complete = false;
};

// Entries in [from, to] turned out damaged on this server's disk while it ran.
struct HoleFound {
  LogIndex from;
  LogIndex to;
};

// The cluster's setting for reads on the leader's clock lease, as applied from the log (architecture section 1, rule
// 1).
struct ClockLease {
  bool enabled = false;
};

using Input = std::variant<Start, Tick, Receive, WriteDone, Propose, ProposeMembership, Read, Transfer, LinkBroken,
                           LinkUp, Compact, SnapshotUnreadable, ChunkStored, HoleFound, ClockLease>;

// ---- Outputs ----

enum class Refusal : uint8_t {
  kNone = 0,
  // Of proposals, changes, reads and transfers.
  kNotLeader,      // try the leader, if one is known
  kTransferring,   // leadership is being handed over: known not applied
  kOverloaded,     // too much uncommitted or waiting: known not applied
  kTooLarge,       // an entry above the limit
  kChangePending,  // a change of membership is under way, or the leader has not committed in its term yet
  kBadMembership,  // the target is invalid, or makes a voter out of nothing
  kNotCaughtUp,    // the target names a voter whose log is not there yet
  kBadTransferee,  // not a voter that can be reached
  kLeaderChanged,  // a read waited on a leader that is no more
  kTimedOut,       // a read waited an election timeout
  // Of messages: the message changed nothing.
  kWrongGroup,
  kWrongReceiver,
  kFromSelf,
  kUnknownSender,           // no sender, or one that may not say this
  kStaleBoot,               // from an earlier life of the sender, or for one of the receiver
  kBadNumber,               // a term, index or boot beyond the protocol's bound, or zero where it cannot be
  kBadEntries,              // entries out of order, of a later term than their message, too many, too large, or holes
  kBadMembershipEntry,      // a configuration that cannot be
  kSecondLeader,            // a second leader of one term
  kConflictsWithCommitted,  // contradicts what is committed here
  kBeyondLog,               // acknowledges what was never sent
  kUnexpected,              // an answer to nothing
};
[[nodiscard]] std::string_view to_string(Refusal refusal);

// One durable batch. Applied by the log in this order: truncate and append, fill, snapshot mark, vote, commit and
// floors.
struct Write {
  WriteSequence sequence;
  std::optional<Vote> vote;
  // Entries from entries[0].index on replace everything the log has from there on.
  EntrySlices entries;
  // Content for places that were holes, or are the same already; what lies behind stays.
  EntrySlices fills;
  // The log now begins after this snapshot. With `discard_log` nothing of the old log stays; otherwise entries after
  // the mark do.
  std::optional<SnapshotMark> snapshot;
  bool discard_log = false;
  LogIndex keep_from;  // with snapshot: entries before this index are needed no more
  // This may lag; it need not be durable for anything to be right.
  LogIndex commit;
};

struct Outgoing {
  Message message;
  WriteSequence after;  // zero: now
};

struct ProposalResult {
  Refusal refusal = Refusal::kNone;
  Term term;       // accepted: all entries have this term
  LogIndex first;  // accepted: the index of the first
};

struct ReadResult {
  uint64_t context = 0;
  Refusal refusal = Refusal::kNone;
  LogIndex index;
};

// A snapshot chunk for the driver to store, then answer with ChunkStored.
struct ChunkToStore {
  NodeId from;
  SnapshotMark mark;
  uint64_t offset = 0;
  uint64_t total = 0;
  ByteView bytes;  // of the input message: valid during the step's caller only
};

enum class Role : uint8_t { kFollower, kPreCandidate, kCandidate, kLeader };
[[nodiscard]] std::string_view to_string(Role role);

// Reused from step to step: vectors keep their memory.
struct Output {
  std::optional<Write> write;
  std::vector<Outgoing> messages;
  std::optional<ProposalResult> proposal;  // of the Propose or ProposeMembership of this step
  std::vector<ReadResult> reads;
  std::optional<ChunkToStore> chunk;
  // Load this snapshot (complete on disk) in place of the state, once `write` is durable; commit is its index.
  std::optional<SnapshotMark> install;
  bool role_changed = false;  // role, term or known leader: see Raft::status
  bool commit_changed = false;
  Refusal refused = Refusal::kNone;  // of the message, transfer or other input of this step

  void clear() {
    write.reset();
    messages.clear();
    proposal.reset();
    reads.clear();
    chunk.reset();
    install.reset();
    role_changed = false;
    commit_changed = false;
    refused = Refusal::kNone;
  }
};

}  // namespace conclave::raft
