// Frames between the replicas of one group beside consensus messages: proposals and keep-alives on their way to the
// leader, and what comes back. Version 1; docs/internals/formats/peer.md. Bounded decoders; what decodes is
// well-formed, no more.
#pragma once

#include <cstdint>
#include <string>
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

using Frame = std::variant<Forward, ForwardReply, KeepAlive, KeepAliveReply, StateDigest>;

// In one frame; more go with the next.
inline constexpr size_t kForwardCommandsMax = 1024;
inline constexpr size_t kKeepAliveLeasesMax = 65'536;

[[nodiscard]] std::string encode(const Frame& frame);
// kMalformed with the reason. Views point into `bytes`. Not for kConsensus.
[[nodiscard]] Result<Frame> decode_frame(ByteView bytes);

}  // namespace conclave::node
