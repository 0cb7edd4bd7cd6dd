// A command as it lies in the log: a small versioned header of ours, then the body. For etcd's requests the body is the
// client's own bytes, unchanged. Everything a replica must not choose for itself (ids, TTLs) was chosen before and
// stands in the header. Never renumber: entries outlive versions.
//
//   u8 version = 1, u8 kind, u8 flags, then what the flags announce, each a varint:
//     origin: node, boot, request | session: id, incarnation, sequence | term | lease: id as two's complement, ttl ms
//   then the body up to the end.
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/types.h"

namespace conclave::keyspace {

enum class CommandKind : uint8_t {
  kPut = 1,          // etcdserverpb.PutRequest
  kDeleteRange = 2,  // etcdserverpb.DeleteRangeRequest
  kTxn = 3,          // etcdserverpb.TxnRequest
  kCompact = 4,      // etcdserverpb.CompactionRequest
  kLeaseGrant = 5,   // etcdserverpb.LeaseGrantRequest; the header's lease and TTL decide
  kLeaseRevoke = 6,  // etcdserverpb.LeaseRevokeRequest
  kLeaseExpire = 7,  // internal_command.h: many leases, each ended in a revision of its own
  // 8 is reserved: no version gave it a meaning that lasted.
  kSessionOpen = 9,  // internal_command.h
  kInternal = 10,    // internal_command.h
};

struct CommandHeader {
  CommandKind kind = CommandKind::kPut;
  // Who waits for the answer: the server, its life, its number for the request. Apply hands it back and reads no
  // meaning.
  NodeId origin;
  Boot boot;
  uint64_t request = 0;
  // Zero: not part of a session, applied whenever it comes.
  SessionId session;
  uint64_t incarnation = 0;
  uint64_t sequence = 0;
  // Set on a decision of a leader's layer: no effect unless the entry has this term.
  Term term;
  // Of kLeaseGrant: chosen by the proposer, never by apply.
  LeaseId lease;
  int64_t ttl_ms = 0;
  friend bool operator==(const CommandHeader&, const CommandHeader&) = default;
};

struct Command {
  CommandHeader header;
  ByteView body;
};

void encode_header(const CommandHeader& header, std::string& out);
[[nodiscard]] SharedBytes encode_command(const CommandHeader& header, ByteView body);
// False if the bytes are no command of a version known here. `out.body` is a view into `bytes`.
[[nodiscard]] bool decode_command(ByteView bytes, Command& out);

}  // namespace conclave::keyspace
