// What is checked before a request may enter the log, from its bytes alone: etcd's refusals in etcd's order, unknown
// enum values, and canonical form. Pure; used by the API before proposing, and again at apply (cheaply: the bytes are
// then canonical). Never looks at state; refusals that need it are made at apply.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "keyspace/command.h"
#include "keyspace/errors.h"
#include "keyspace/requests.h"

namespace conclave::keyspace {

[[nodiscard]] ErrorId validate(const RangeRequest& request);
[[nodiscard]] ErrorId validate(const PutRequest& request);
[[nodiscard]] ErrorId validate(const DeleteRangeRequest& request);
[[nodiscard]] ErrorId validate(const Program& program);

// Parses as strictly as the log demands and validates. The error a client would see, or none.
[[nodiscard]] ErrorId parse_and_validate(ByteView bytes, RangeRequest& out);
[[nodiscard]] ErrorId parse_and_validate(ByteView bytes, PutRequest& out);
[[nodiscard]] ErrorId parse_and_validate(ByteView bytes, DeleteRangeRequest& out);
[[nodiscard]] ErrorId parse_and_validate(ByteView bytes, Program& out);
[[nodiscard]] ErrorId parse_and_validate(ByteView bytes, CompactionRequest& out);
// kLeaseTtlTooLarge; a TTL that is too small is raised by whoever proposes, not refused.
[[nodiscard]] ErrorId parse_and_validate(ByteView bytes, LeaseGrantRequest& out);
[[nodiscard]] ErrorId parse_and_validate(ByteView bytes, LeaseRevokeRequest& out);

// Readies a client's request of one of etcd's kinds for the log. On success `canonical` is a view of either `bytes`
// (almost always) or `storage` (re-encoded: unknown fields stripped, odd spellings made plain). kMalformed if protobuf
// cannot read it.
[[nodiscard]] ErrorId normalise(CommandKind kind, ByteView bytes, std::string& storage, ByteView& canonical);
// The same for reads, which are never logged but answered by the same rules.
[[nodiscard]] ErrorId normalise_range(ByteView bytes, std::string& storage, ByteView& canonical);

}  // namespace conclave::keyspace
