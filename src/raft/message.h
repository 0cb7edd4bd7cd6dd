// What replicas of one group say to each other. A message is a fact about its sender at the moment it was sent: header
// fields are durable at the sender before the message leaves (the vote of that term, the identity), so that whoever
// hears of a term or an identity may rely on it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>

#include "base/entry.h"
#include "base/time.h"
#include "base/types.h"

namespace conclave::raft {

struct Header {
  GroupId group;
  NodeId from;
  NodeId to;
  Term term;  // the sender's current term
  Boot boot;  // the sender's
  // The boot of the receiver that this answers; zero if the sender does not know it. An answer to an earlier life of
  // the receiver is refused.
  Boot to_boot;
  // The identity under which the sender votes and acknowledges. It counts where a configuration names it.
  Incarnation incarnation;
  // A quorum confirmed to the sender, in this boot, that nothing it had acknowledged is missing. Until then it follows
  // and tells what it has, and counts for nothing.
  bool proven = false;
  friend bool operator==(const Header&, const Header&) = default;
};

// Entries where they lie: in the log's ring (two pieces) or in a decoder's buffer (one). Valid until the next step.
class EntrySlices {
 public:
  EntrySlices() = default;
  EntrySlices(std::span<const Entry> entries) : first_(entries) {}               // NOLINT(google-explicit-constructor)
  EntrySlices(std::pair<std::span<const Entry>, std::span<const Entry>> pieces)  // NOLINT(google-explicit-constructor)
      : first_(pieces.first), second_(pieces.second) {}
  [[nodiscard]] size_t size() const { return first_.size() + second_.size(); }
  [[nodiscard]] bool empty() const { return size() == 0; }
  [[nodiscard]] const Entry& operator[](size_t i) const {
    return i < first_.size() ? first_[i] : second_[i - first_.size()];
  }
  friend bool operator==(const EntrySlices& a, const EntrySlices& b) {
    if (a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); ++i) {
      if (!(a[i] == b[i])) return false;
    }
    return true;
  }

 private:
  std::span<const Entry> first_;
  std::span<const Entry> second_;
};

// Floors, at most one per member.
struct Floors {
  std::array<Floor, kMembersMax> items;
  uint32_t size = 0;
  [[nodiscard]] std::span<const Floor> view() const { return {items.data(), size}; }
  friend bool operator==(const Floors& a, const Floors& b) {
    if (a.size != b.size) return false;
    for (uint32_t i = 0; i < a.size; ++i) {
      if (!(a.items[i] == b.items[i])) return false;
    }
    return true;
  }
};

// Sent to every member at start, on a new link, and until a quorum answered: where I stand. A server votes for nobody
// before a quorum told it what they know it to have acknowledged (architecture section 5, "Who may vote").
struct Hello {
  Position last;        // logical last position
  bool answer = false;  // asks nothing; sent in reply
  Floor floor;          // in an answer: what the sender knows the receiver had durable
  friend bool operator==(const Hello&, const Hello&) = default;
};

// Dissertation 3.4, 9.6. A pre-vote asks whether a real request would be granted and changes nothing at the receiver.
struct VoteRequest {
  bool pre = false;
  // The old leader handed over: its followers need not wait for its silence (dissertation 4.2.3).
  bool transfer = false;
  Term campaign_term;
  Position last;
  friend bool operator==(const VoteRequest&, const VoteRequest&) = default;
};

enum class VoteRefusal : uint8_t {
  kNone = 0,
  kStaleTerm = 1,     // the receiver has seen a later term
  kLeaderAlive = 2,   // the receiver hears its leader
  kPromised = 3,      // the receiver promised a leader not to vote for a while
  kAlreadyVoted = 4,  // for another candidate of this term
  kLogBehind = 5,     // the candidate's log lacks what the receiver's may hold
  kMayNotVote = 6,    // the receiver lost something it had promised, or has not yet proven that it did not
};
[[nodiscard]] std::string_view to_string(VoteRefusal refusal);

struct VoteReply {
  bool pre = false;
  Term campaign_term;
  bool granted = false;
  VoteRefusal refusal = VoteRefusal::kNone;
  Position last;  // the receiver's logical last position
  friend bool operator==(const VoteReply&, const VoteReply&) = default;
};

// Dissertation 3.5; with no entries a heartbeat. The entries follow `prev` directly.
struct AppendRequest {
  Position prev;
  LogIndex commit;
  ReadId round;  // echoed in the answer: proves leadership at the time the round began (dissertation 6.4)
  // Not zero: asks for a promise not to vote for others for so long from the answer on (clock-lease reads).
  Duration promise{};
  EntrySlices entries;
  Floors floors;
  friend bool operator==(const AppendRequest&, const AppendRequest&) = default;
};

struct AppendReply {
  bool ok = false;
  bool promised = false;  // the promise asked for is given, counted from sending this
  ReadId round;
  LogIndex match;     // ok: the log equals the leader's up to here, durable
  LogIndex rejected;  // not ok: the prev.index refused
  Position hint;      // not ok: the last place at which the log may equal the leader's
  friend bool operator==(const AppendReply&, const AppendReply&) = default;
};

// A piece of the newest snapshot, from the leader or in answer to a PullRequest. The bytes are the driver's affair;
// consensus knows which snapshot and how far.
struct SnapshotChunk {
  uint64_t pull = 0;  // the request's id; zero: from the leader
  SnapshotMark mark;
  LogIndex commit;
  uint64_t offset = 0;
  uint64_t total = 0;  // filled by the driver when it reads the bytes
  ByteView bytes;      // filled by the driver when it sends
  friend bool operator==(const SnapshotChunk&, const SnapshotChunk&) = default;
};

struct SnapshotReply {
  uint64_t pull = 0;    // as in the chunk
  Position last;        // of the snapshot meant
  uint64_t offset = 0;  // bytes of it stored so far: where to go on, also after a restart of either side
  bool installed = false;
  friend bool operator==(const SnapshotReply&, const SnapshotReply&) = default;
};

// Read-index for a follower (dissertation 6.4).
struct ReadRequest {
  ReadId id;  // fresh for every request of the sender's boot
  friend bool operator==(const ReadRequest&, const ReadRequest&) = default;
};

struct ReadReply {
  ReadId id;
  bool ok = false;
  LogIndex index;
  friend bool operator==(const ReadReply&, const ReadReply&) = default;
};

// Campaign now (dissertation 3.10).
struct TimeoutNow {
  friend bool operator==(const TimeoutNow&, const TimeoutNow&) = default;
};

// Asks any member for entries (or the snapshot that stands for them), either to fill a hole (proof is the known place
// behind it: a log that has it has the same prefix) or to catch up before campaigning (no proof; the answer's last
// position must be ahead).
struct PullRequest {
  uint64_t id = 0;  // fresh for every request of the sender's boot
  Position prev;    // the place before the first entry wanted
  Position proof;   // zero: catch up
  friend bool operator==(const PullRequest&, const PullRequest&) = default;
};

struct PullReply {
  uint64_t id = 0;
  bool ok = false;
  Position prev;  // as asked; not ok: the last place at which the logs may agree
  Position last;  // the sender's last position that it has without a hole before it
  EntrySlices entries;
  friend bool operator==(const PullReply&, const PullReply&) = default;
};

using Body = std::variant<Hello, VoteRequest, VoteReply, AppendRequest, AppendReply, SnapshotChunk, SnapshotReply,
                          ReadRequest, ReadReply, TimeoutNow, PullRequest, PullReply>;

struct Message {
  Header header;
  Body body;
  friend bool operator==(const Message&, const Message&) = default;
};

}  // namespace conclave::raft
