#include "wal/record.h"

#include "base/crc32c.h"
#include "base/limits.h"

namespace conclave::wal {

uint32_t payload_checksum(ByteView payload) {
  return crc32c(payload);
}

void encode_record_header(const RecordHeader& header, char* out) {
  store_le(out, header.payload_bytes);
  store_le(out + 4, header.payload_checksum);
  store_le(out + 8, header.group.value());
  store_le(out + 16, header.term.value());
  store_le(out + 24, header.index.value());
  store_le(out + 32, header.ordinal);
  store_le(out + 36, static_cast<uint8_t>(header.type));
  store_le(out + 37, static_cast<uint8_t>(header.kind));
  store_le(out + 38, uint16_t{0});
}

Result<RecordHeader> decode_record_header(ByteView bytes) {
  if (bytes.size() < kRecordHeaderBytes) return fail(ErrorCode::kMalformed, "record: cut");
  const char* at = bytes.data();
  RecordHeader header{
      .payload_bytes = load_le<uint32_t>(at),
      .payload_checksum = load_le<uint32_t>(at + 4),
      .group = GroupId(load_le<uint64_t>(at + 8)),
      .term = Term(load_le<uint64_t>(at + 16)),
      .index = LogIndex(load_le<uint64_t>(at + 24)),
      .ordinal = load_le<uint32_t>(at + 32),
  };
  const auto type = load_le<uint8_t>(at + 36);
  const auto kind = load_le<uint8_t>(at + 37);
  const bool known_type =
      type >= static_cast<uint8_t>(EntryType::kNoop) && type <= static_cast<uint8_t>(EntryType::kConfiguration);
  const bool known_kind =
      kind == static_cast<uint8_t>(ChangeKind::kEntries) || kind == static_cast<uint8_t>(ChangeKind::kFill);
  if (!known_type || !known_kind || load_le<uint16_t>(at + 38) != 0 || header.payload_bytes > kEntryBytesMax ||
      header.index.value() == 0 || header.index.value() > kProtocolNumberMax ||
      header.term.value() > kProtocolNumberMax || !header.group.is_set()) {
    return fail(ErrorCode::kMalformed, "record: a field that cannot be");
  }
  header.type = static_cast<EntryType>(type);
  header.kind = static_cast<ChangeKind>(kind);
  return header;
}

}  // namespace conclave::wal
