#include "wal/head.h"

#include <algorithm>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/membership.h"
#include "wal/record.h"

namespace conclave::wal {
namespace {

constexpr uint32_t kMagic = 0x68776c43;  // "Clwh"
constexpr uint8_t kFormatVersion = 1;
constexpr size_t kSectorsAt = 42;  // of the field `sectors` in an encoding
constexpr uint8_t kBaseFlag = 1;
constexpr uint8_t kFullFlag = 2;
constexpr uint8_t kIdleFlag = 4;

uint64_t bounded(ByteReader& reader) {
  const uint64_t value = reader.varint();
  if (value > kProtocolNumberMax) reader.reject();
  return value;
}

void encode_position(ByteWriter& writer, const Position& position) {
  writer.varint(position.term.value());
  writer.varint(position.index.value());
}

Position decode_position(ByteReader& reader) {
  Position position;
  position.term = Term(bounded(reader));
  position.index = LogIndex(bounded(reader));
  return position;
}

void encode_group(ByteWriter& writer, const GroupState& state, bool base) {
  writer.varint(state.group.value());
  writer.varint(state.vote.term.value());
  writer.varint(state.vote.candidate.value());
  writer.varint(state.vote.incarnation.value());
  writer.fixed<uint8_t>(state.vote.promises ? 1 : 0);
  encode_position(writer, state.mark);
  writer.varint(state.released.value());
  encode_position(writer, state.last);
  writer.varint(state.commit.value());
  const size_t rows_max = base ? kBaseRowsMax : kDirectoryRowsMax;
  const size_t rows = std::min(state.terms.size(), rows_max);
  writer.fixed<uint8_t>(state.terms_cut || rows < state.terms.size() ? 1 : 0);
  writer.varint(rows);
  for (size_t i = state.terms.size() - rows; i < state.terms.size(); ++i) {
    writer.varint(state.terms[i].first.value());
    writer.varint(state.terms[i].term.value());
  }
  writer.fixed<uint8_t>(static_cast<uint8_t>(state.certainty));
  writer.varint(state.doubted.value());
  if (!base) return;
  writer.sized(state.membership);
  writer.sized(state.floors);
}

bool flag(ByteReader& reader) {
  const auto value = reader.fixed<uint8_t>();
  if (value > 1) reader.reject();
  return value == 1;
}

GroupState decode_group(ByteReader& reader, bool base) {
  GroupState state;
  state.group = GroupId(reader.varint());
  if (!state.group.is_set()) reader.reject();
  state.vote.term = Term(bounded(reader));
  state.vote.candidate = NodeId(reader.varint());
  state.vote.incarnation = Incarnation(reader.varint());
  state.vote.promises = flag(reader);
  state.mark = decode_position(reader);
  state.released = LogIndex(bounded(reader));
  state.last = decode_position(reader);
  state.commit = LogIndex(bounded(reader));
  state.terms_cut = flag(reader);
  const uint64_t rows = reader.varint();
  if (rows > kBaseRowsMax) reader.reject();
  for (uint64_t i = 0; i < rows && reader.ok(); ++i) {
    TermRow row;
    row.first = LogIndex(bounded(reader));
    row.term = Term(bounded(reader));
    if (!state.terms.empty() && row.first <= state.terms.back().first) reader.reject();
    state.terms.push_back(row);
  }
  const auto certainty = reader.fixed<uint8_t>();
  if (certainty > static_cast<uint8_t>(Certainty::kRolledBack)) reader.reject();
  state.certainty = static_cast<Certainty>(certainty);
  state.doubted = Incarnation(reader.varint());
  if (base) {
    state.membership.assign(reader.sized());
    state.floors.assign(reader.sized());
  }
  return state;
}

void encode_change(ByteWriter& writer, const Change& change) {
  writer.fixed<uint8_t>(static_cast<uint8_t>(change.kind));
  writer.varint(change.group.value());
  switch (change.kind) {
    case ChangeKind::kEntries:
      writer.varint(change.index.value());
      writer.varint(change.term.value());
      writer.varint(change.count);
      return;
    case ChangeKind::kFill:
      writer.varint(change.index.value());
      writer.varint(change.term.value());
      return;
    case ChangeKind::kTruncate:
    case ChangeKind::kRelease:
      writer.varint(change.index.value());
      return;
    case ChangeKind::kVote:
      writer.varint(change.term.value());
      writer.varint(change.candidate.value());
      writer.varint(change.incarnation.value());
      writer.fixed<uint8_t>(change.promises ? 1 : 0);
      return;
    case ChangeKind::kSnapshot:
    case ChangeKind::kInstall:
    case ChangeKind::kConfiguration:
      writer.varint(change.index.value());
      writer.varint(change.term.value());
      writer.sized(change.bytes);
      return;
    case ChangeKind::kCommit:
      writer.varint(change.index.value());
      writer.sized(change.bytes);
      return;
  }
}

Change decode_change(ByteReader& reader) {
  Change change;
  change.kind = static_cast<ChangeKind>(reader.fixed<uint8_t>());
  change.group = GroupId(reader.varint());
  if (!change.group.is_set()) reader.reject();
  switch (change.kind) {
    case ChangeKind::kEntries:
      change.index = LogIndex(bounded(reader));
      change.term = Term(bounded(reader));
      change.count = bounded(reader);
      if (change.index.value() == 0 || change.count == 0) reader.reject();
      return change;
    case ChangeKind::kFill:
      change.index = LogIndex(bounded(reader));
      change.term = Term(bounded(reader));
      change.count = 1;
      if (change.index.value() == 0) reader.reject();
      return change;
    case ChangeKind::kTruncate:
      change.index = LogIndex(bounded(reader));
      if (change.index.value() == 0) reader.reject();
      return change;
    case ChangeKind::kRelease:
      change.index = LogIndex(bounded(reader));
      return change;
    case ChangeKind::kVote:
      change.term = Term(bounded(reader));
      change.candidate = NodeId(reader.varint());
      change.incarnation = Incarnation(reader.varint());
      change.promises = flag(reader);
      return change;
    case ChangeKind::kSnapshot:
    case ChangeKind::kInstall:
    case ChangeKind::kConfiguration:
      change.index = LogIndex(bounded(reader));
      change.term = Term(bounded(reader));
      change.bytes = reader.sized();
      return change;
    case ChangeKind::kCommit:
      change.index = LogIndex(bounded(reader));
      change.bytes = reader.sized();
      return change;
  }
  reader.reject();
  return change;
}

}  // namespace

void encode_head(const Head& head, std::span<const GroupState* const> directory, uint32_t seed, std::string& out) {
  const size_t begin = out.size();
  ByteWriter writer(out);
  writer.fixed(kMagic);
  writer.fixed(uint32_t{0});  // the length, below
  writer.fixed(kFormatVersion);
  const unsigned flags = (head.base ? kBaseFlag : 0U) | (head.full ? kFullFlag : 0U) | (head.idle ? kIdleFlag : 0U);
  writer.fixed(static_cast<uint8_t>(flags));
  writer.fixed(head.number);
  writer.fixed(head.previous_number);
  writer.fixed(head.sequence);
  writer.fixed(head.slot);
  writer.fixed(head.start_sector);
  writer.fixed(head.sectors);
  writer.fixed(head.body_bytes);
  writer.fixed(head.records);
  writer.varint(directory.size());
  for (const GroupState* state : directory) encode_group(writer, *state, head.base);
  writer.varint(head.changes.size());
  for (const Change& change : head.changes) encode_change(writer, change);
  store_le(out.data() + begin + 4, static_cast<uint32_t>(out.size() - begin + 4));
  writer.fixed(crc32c(ByteView(out).substr(begin), seed));
}

void set_head_sectors(uint32_t sectors, uint32_t seed, std::string& encoded) {
  store_le(encoded.data() + kSectorsAt, sectors);
  const size_t covered = encoded.size() - 4;
  store_le(encoded.data() + covered, crc32c(ByteView(encoded).substr(0, covered), seed));
}

Result<uint32_t> head_bytes(ByteView begin) {
  if (begin.size() < kHeadBytesMin ||
      // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): the size is checked just above
      load_le<uint32_t>(begin.data()) != kMagic) {
    return fail(ErrorCode::kMalformed, "head: none here");
  }
  const auto bytes = load_le<uint32_t>(begin.data() + 4);
  if (bytes < kHeadBytesMin || bytes > kHeadBytesMax) return fail(ErrorCode::kMalformed, "head: of {} bytes", bytes);
  return bytes;
}

Status decode_head(ByteView bytes, uint32_t seed, Head& head) {
  auto claimed = head_bytes(bytes);
  if (!claimed) return std::unexpected(std::move(claimed).error());
  if (*claimed != bytes.size()) return fail(ErrorCode::kMalformed, "head: cut");
  const ByteView covered = bytes.substr(0, bytes.size() - 4);
  if (load_le<uint32_t>(bytes.data() + covered.size()) != crc32c(covered, seed)) {
    return fail(ErrorCode::kMalformed, "head: wrong checksum");
  }
  ByteReader reader(covered.substr(8));
  const auto version = reader.fixed<uint8_t>();
  if (reader.ok() && version != kFormatVersion) return fail(ErrorCode::kVersion, "head of version {}", version);
  const auto flags = reader.fixed<uint8_t>();
  if ((flags & ~(kBaseFlag | kFullFlag | kIdleFlag)) != 0) reader.reject();
  head.base = (flags & kBaseFlag) != 0;
  head.full = (flags & kFullFlag) != 0;
  head.idle = (flags & kIdleFlag) != 0;
  head.number = reader.fixed<uint64_t>();
  head.previous_number = reader.fixed<uint64_t>();
  head.sequence = reader.fixed<uint64_t>();
  head.slot = reader.fixed<uint32_t>();
  head.start_sector = reader.fixed<uint32_t>();
  head.sectors = reader.fixed<uint32_t>();
  head.body_bytes = reader.fixed<uint32_t>();
  head.records = reader.fixed<uint32_t>();
  head.directory.clear();
  head.changes.clear();
  // Counts are not trusted for memory: each element is read before it is kept, and takes bytes that must be present.
  const uint64_t groups = reader.varint();
  for (uint64_t i = 0; i < groups && reader.ok(); ++i) head.directory.push_back(decode_group(reader, head.base));
  const uint64_t changes = reader.varint();
  for (uint64_t i = 0; i < changes && reader.ok(); ++i) head.changes.push_back(decode_change(reader));
  if (head.sectors == 0 || head.sectors % kSectorsPerBlock != 0 || head.start_sector % kSectorsPerBlock != 0 ||
      head.number == 0 || head.number > kBatchNumberMax ||
      uint64_t{head.records} * kRecordHeaderBytes > head.body_bytes ||
      head.body_bytes > uint64_t{head.sectors} * kSectorPayloadBytes) {
    reader.reject();
  }
  // Each entry told of is a record in the body: nobody loops further than there are bytes.
  uint64_t records = 0;
  for (const Change& change : head.changes) {
    if (change.count > head.records) reader.reject();
    records += std::min<uint64_t>(change.count, head.records);
  }
  if (records != head.records) reader.reject();
  if (!reader.finished()) return fail(ErrorCode::kMalformed, "head: a field that cannot be");
  return {};
}

}  // namespace conclave::wal
