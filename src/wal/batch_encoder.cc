#include "wal/batch_encoder.h"

#include <algorithm>

#include "base/assert.h"
#include "wal/record.h"

namespace conclave::wal {
namespace {

constexpr size_t kBodyBytesMax = size_t{1} << 30;

bool is_record(const Operation& operation) {
  return operation.kind == ChangeKind::kEntries || operation.kind == ChangeKind::kFill;
}

}  // namespace

void changes_of(std::span<const Operation> operations, std::vector<Change>& changes) {
  changes.clear();
  for (const Operation& operation : operations) {
    if (operation.kind == ChangeKind::kEntries && !changes.empty()) {
      Change& run = changes.back();
      if (run.kind == ChangeKind::kEntries && run.group == operation.group && run.term == operation.term &&
          run.index + run.count == operation.index && operation.type != EntryType::kConfiguration) {
        ++run.count;
        continue;
      }
    }
    Change& change = changes.emplace_back();
    change.kind = operation.kind;
    change.group = operation.group;
    change.index = operation.index;
    change.term = operation.term;
    change.count = is_record(operation) ? 1 : 0;
    change.candidate = NodeId(operation.candidate);
    change.incarnation = Incarnation(operation.incarnation);
    change.promises = operation.promises;
    if (!is_record(operation)) {
      change.bytes = operation.payload.view();
    } else if (operation.type == EntryType::kConfiguration) {
      // What must never be lost stands three times: in the body and in both copies of the head.
      Change copy = change;
      copy.kind = ChangeKind::kConfiguration;
      copy.bytes = operation.payload.view();
      changes.push_back(copy);
    }
  }
}

Result<size_t> BatchEncoder::measure(Head& head, std::span<const GroupState* const> directory,
                                     std::span<const Operation> operations, uint32_t seed) {
  size_t body = 0;
  uint32_t records = 0;
  for (const Operation& operation : operations) {
    if (!is_record(operation)) continue;
    if (operation.payload.size() > kEntryBytesMax) {
      return fail(ErrorCode::kInvalidArgument, "entry of {} bytes: more than {}", operation.payload.size(),
                  kEntryBytesMax);
    }
    body += kRecordHeaderBytes + operation.payload.size();
    ++records;
  }
  if (body > kBodyBytesMax) return fail(ErrorCode::kInvalidArgument, "batch of {} bytes", body);
  changes_of(operations, head.changes);
  head.body_bytes = static_cast<uint32_t>(body);
  head.records = records;
  head.sectors = 0;
  head_.clear();
  encode_head(head, directory, seed, head_);
  if (head_.size() > kHeadBytesMax)
    return fail(ErrorCode::kInvalidArgument, "batch with a head of {} bytes", head_.size());
  const size_t front = (head_.size() + body + kSectorPayloadBytes - 1) / kSectorPayloadBytes;
  const size_t sectors = front + tail_sectors(head_.size());
  head.sectors = static_cast<uint32_t>((sectors + kSectorsPerBlock - 1) / kSectorsPerBlock * kSectorsPerBlock);
  set_head_sectors(head.sectors, seed, head_);
  return size_t{head.sectors} * kSectorBytes;
}

void BatchEncoder::put(ByteView bytes) {
  size_t within = at_ % kSectorPayloadBytes;
  char* to = buffer_.data() + at_ / kSectorPayloadBytes * kSectorBytes + kPayloadAt + within;
  at_ += bytes.size();
  while (!bytes.empty()) {
    const size_t part = std::min(bytes.size(), kSectorPayloadBytes - within);
    std::memcpy(to, bytes.data(), part);
    bytes.remove_prefix(part);
    to += part + (kSectorBytes - kSectorPayloadBytes);
    within = 0;
  }
}

void BatchEncoder::put_zeros(size_t bytes) {
  while (bytes > 0) {
    const size_t within = at_ % kSectorPayloadBytes;
    const size_t part = std::min(bytes, kSectorPayloadBytes - within);
    std::memset(buffer_.data() + at_ / kSectorPayloadBytes * kSectorBytes + kPayloadAt + within, 0, part);
    at_ += part;
    bytes -= part;
  }
}

void BatchEncoder::mark_record() {
  uint16_t& first = first_records_[at_ / kSectorPayloadBytes];
  if (first == kNoRecord) first = static_cast<uint16_t>(at_ % kSectorPayloadBytes);
}

ByteView BatchEncoder::encode(const Head& head, std::span<const Operation> operations, uint32_t seed) {
  const size_t bytes = size_t{head.sectors} * kSectorBytes;
  buffer_.reserve(bytes);
  first_records_.assign(head.sectors, kNoRecord);
  at_ = 0;
  char trailer[kTrailerBytes];
  store_le(trailer, static_cast<uint32_t>(head_.size()));
  store_le(trailer + 4, kTrailerMagic);

  if (head.idle && head_.size() + kTrailerBytes <= kSectorPayloadBytes) {
    // Nothing but the head: one copy in every sector, so that an idle mark is lost only as a whole.
    for (uint32_t i = 0; i < head.sectors; ++i) {
      put(head_);
      put_zeros(kSectorPayloadBytes - head_.size() - kTrailerBytes);
      put(ByteView(trailer, kTrailerBytes));
    }
  } else {
    put(head_);
    uint32_t ordinal = 0;
    for (const Operation& operation : operations) {
      if (!is_record(operation)) continue;
      const ByteView payload = operation.payload.view();
      const RecordHeader header{.payload_bytes = static_cast<uint32_t>(payload.size()),
                                .payload_checksum = payload_checksum(payload),
                                .group = operation.group,
                                .term = operation.term,
                                .index = operation.index,
                                .ordinal = ordinal++,
                                .type = operation.type,
                                .kind = operation.kind};
      char raw[kRecordHeaderBytes];
      encode_record_header(header, raw);
      mark_record();
      put(ByteView(raw, sizeof(raw)));
      put(payload);
    }
    ASSERT_CMP(at_, ==, head_.size() + head.body_bytes);
    const size_t tail = tail_sectors(head_.size()) * kSectorPayloadBytes;
    const size_t end = size_t{head.sectors} * kSectorPayloadBytes;
    put_zeros(end - tail - at_);
    put(head_);
    put_zeros(end - kTrailerBytes - at_);
    put(ByteView(trailer, kTrailerBytes));
  }
  ASSERT_CMP(at_, ==, size_t{head.sectors} * kSectorPayloadBytes);
  seal_sectors(buffer_.data(), seed, make_stamp(seed, head.number), head.slot, head.start_sector, first_records_);
  return {buffer_.data(), bytes};
}

}  // namespace conclave::wal
