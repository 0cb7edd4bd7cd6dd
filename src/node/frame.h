// Frames between the replicas of one group beside consensus messages: proposals, keep-alives and changes of membership
// on their way to the leader, and what comes back. Version 1; docs/internals/formats/peer.md. Bounded decoders; what
// decodes is well-formed, no more.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/types.h"

namespace conclave::node {

// In front of each frame. 1 is a consensus message (raft/codec.h), whole.
enum class FrameKind : uint8_t {
  kConsensus = 1,
  kForward = 2,
  kForwardReply = 3,
  kKeepAlive = 4,
  kKeepAliveReply = 5,
  kStateDigest = 6,
  kChange = 7,
  kChangeReply = 8,
  kFeatureQuery = 9,
  kFeatures = 10,
  kAppliedUpTo = 11,
};

// Commands for the leader of this term, numbered by the sender from 1 in each term. A leader takes only its own term's,
// in order, each number once (architecture section 1, rule 4); what it takes may still be lost with its term.
struct Forward {
  GroupId group;
  Term term;
  Boot boot;           // of the sender
  uint64_t first = 0;  // number of the first; the others follow
  std::vector<ByteView> commands;
};

// Sent when something was not taken.
struct ForwardReply {
  GroupId group;
  Term term;
  Boot boot;          // of the server answered
  uint64_t next = 0;  // the number the leader waits for: what is below was taken or refused, what is not was lost
  // Refused for overload or want of space, known not applied: the leader has passed over these numbers and will not
  // take them again.
  uint64_t refused_first = 0;
  uint64_t refused_count = 0;
  bool no_space = false;  // refused for want of space on the leader's disk
};

struct KeepAlive {
  GroupId group;
  Term term;
  Boot boot;
  uint64_t id = 0;     // fresh for each frame of the sender's boot
  bool renews = true;  // otherwise it only asks for the time left
  std::vector<LeaseId> leases;
};

struct KeepAliveReply {
  GroupId group;
  Boot boot;  // of the server answered
  uint64_t id = 0;
  bool ok = false;              // otherwise: not the leader, or not proven to be
  std::vector<int64_t> ttl_ms;  // per lease as asked, or what is left of it; zero: gone
};

// The sender's state after the entry at `index` (keyspace/keyspace.h).
struct StateDigest {
  GroupId group;
  LogIndex index;
  uint64_t digest = 0;
};

// What an operator asks of the membership. The numbers are wire format.
enum class MemberChangeKind : uint8_t {
  kAddLearner = 1,     // stays a learner
  kAddPromotable = 2,  // becomes a voter by itself once caught up
  kRemove = 3,
  kPromote = 4,  // a learner whose log is there
  kReplace = 5,  // one leaves, and one that is promotable comes, in one change
};
struct MemberChange {
  MemberChangeKind kind = MemberChangeKind::kAddLearner;
  NodeId id;
  NodeId replaced;  // of kReplace: who leaves; else not set
  friend bool operator==(const MemberChange&, const MemberChange&) = default;
};

// Why a change was not made: known not done, now or later. The numbers are wire format.
enum class ChangeRefusal : uint8_t {
  kNone = 0,
  kNoLeader = 1,    // none was known within the request's time, or who was asked leads no more
  kOverloaded = 2,  // too many wait
  kAlreadyMember = 3,
  kNotMember = 4,
  kNotLearner = 5,    // to be promoted, but a voter
  kNotCaughtUp = 6,   // to be promoted, but its log is not there yet
  kLastVoter = 7,     // nobody would be left to decide anything
  kTooFewActive = 8,  // fewer voters than a quorum would be left of those that answer
  kTooManyMembers = 9,
  kTooManyLearners = 10,
  kChangePending = 11,  // another one was under way for all of the request's time
};
[[nodiscard]] std::string_view to_string(ChangeRefusal refusal);

// A change for the leader of this term. A sender has one under way at a time in a term; sent again under its id.
struct ChangeRequest {
  GroupId group;
  Term term;
  Boot boot;        // of the sender
  uint64_t id = 0;  // fresh and ascending in the sender's boot
  MemberChange change;
};

struct ChangeReply {
  GroupId group;
  Boot boot;  // of the server answered
  uint64_t id = 0;
  ChangeRefusal refusal = ChangeRefusal::kNone;  // none: done, and applied at the leader
};

// Asked by the leader of this term: what the receiver's build knows (features.h).
struct FeatureQuery {
  GroupId group;
  Term term;
};
struct Features {
  GroupId group;
  Term term;           // of the query
  uint64_t level = 0;  // the highest it knows
};

// Told by the leader of this term, now and then (follower_lag.h): what it has applied.
struct AppliedUpTo {
  GroupId group;
  Term term;
  LogIndex index;
};

using Frame = std::variant<Forward, ForwardReply, KeepAlive, KeepAliveReply, StateDigest, ChangeRequest, ChangeReply,
                           FeatureQuery, Features, AppliedUpTo>;

// In one frame; more go with the next.
inline constexpr size_t kForwardCommandsMax = 1024;
inline constexpr size_t kKeepAliveLeasesMax = 65'536;

[[nodiscard]] std::string encode(const Frame& frame);
// kMalformed with the reason. Views point into `bytes`. Not for kConsensus.
[[nodiscard]] Result<Frame> decode_frame(ByteView bytes);

}  // namespace conclave::node
