// The record: one entry in the body of a batch. Its header is known apart from its payload, so that an entry whose
// payload rotted is still known by term, index, type and payload checksum, and can be asked for by them. Format:
// docs/internals/formats/log.md, "Record".
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/entry.h"
#include "base/error.h"
#include "base/types.h"
#include "wal/batch.h"

namespace conclave::wal {

inline constexpr size_t kRecordHeaderBytes = 40;

// Without a checksum of its own: it is read from sectors whose checksums hold, place and owner included, and compared
// with what the batch's head says of it. A third sum would cost a quarter of what a small record costs.
struct RecordHeader {
  uint32_t payload_bytes = 0;
  uint32_t payload_checksum = 0;  // of the payload alone: a peer's copy of the entry has the same
  GroupId group;
  Term term;
  LogIndex index;
  uint32_t ordinal = 0;  // which record of its batch, from 0
  EntryType type = EntryType::kNoop;
  ChangeKind kind = ChangeKind::kEntries;  // kEntries or kFill
  friend bool operator==(const RecordHeader&, const RecordHeader&) = default;
};

[[nodiscard]] uint32_t payload_checksum(ByteView payload);

void encode_record_header(const RecordHeader& header, char* out);
// kMalformed if it cannot be one.
[[nodiscard]] Result<RecordHeader> decode_record_header(ByteView bytes);

}  // namespace conclave::wal
