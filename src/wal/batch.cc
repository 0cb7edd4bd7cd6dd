#include "wal/batch.h"

#include <iterator>

#include "base/assert.h"
#include "wal/record.h"

namespace conclave::wal {

void encode_floors(std::span<const Floor> floors, std::string& out) {
  ByteWriter writer(out);
  writer.varint(floors.size());
  for (const Floor& floor : floors) {
    writer.varint(floor.node.value());
    writer.varint(floor.boot.value());
    writer.varint(floor.incarnation.value());
    writer.varint(floor.term.value());
    writer.varint(floor.last.term.value());
    writer.varint(floor.last.index.value());
  }
}

Result<std::vector<Floor>> decode_floors(ByteView bytes) {
  ByteReader reader(bytes);
  const uint64_t count = reader.varint();
  if (!reader.ok() || count > kFloorsMax) return fail(ErrorCode::kMalformed, "floors: {} of them", count);
  std::vector<Floor> floors;
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    Floor floor;
    floor.node = NodeId(reader.varint());
    floor.boot = Boot(reader.varint());
    floor.incarnation = Incarnation(reader.varint());
    floor.term = Term(reader.varint());
    floor.last.term = Term(reader.varint());
    floor.last.index = LogIndex(reader.varint());
    floors.push_back(floor);
  }
  if (!reader.finished()) return fail(ErrorCode::kMalformed, "floors: cut or bytes left over");
  return floors;
}

Operation& Batch::add(ChangeKind kind, GroupId group) {
  ASSERT(group.is_set());
  // What a change costs in the head, both copies, at most; a membership or floors are added by their callers.
  bytes_ += 64;
  Operation& operation = operations_.emplace_back();
  operation.kind = kind;
  operation.group = group;
  return operation;
}

void Batch::append(GroupId group, const Entry& entry) {
  ASSERT(entry.type != EntryType::kHole);
  ASSERT_CMP(entry.index.value(), >, 0U);
  Operation& operation = add(ChangeKind::kEntries, group);
  operation.type = entry.type;
  operation.index = entry.index;
  operation.term = entry.term;
  operation.payload = entry.payload;
  bytes_ += kRecordHeaderBytes + entry.payload.size();
}

void Batch::fill(GroupId group, const Entry& entry) {
  append(group, entry);
  operations_.back().kind = ChangeKind::kFill;
}

void Batch::truncate(GroupId group, LogIndex from) {
  ASSERT_CMP(from.value(), >, 0U);
  add(ChangeKind::kTruncate, group).index = from;
}

void Batch::vote(GroupId group, const Vote& vote) {
  Operation& operation = add(ChangeKind::kVote, group);
  operation.term = vote.term;
  operation.candidate = vote.candidate.value();
  operation.incarnation = vote.incarnation.value();
  operation.promises = vote.promises;
}

void Batch::snapshot(GroupId group, const SnapshotMark& mark) {
  std::string membership;
  mark.membership.encode(membership);
  Operation& operation = add(ChangeKind::kSnapshot, group);
  operation.index = mark.last.index;
  operation.term = mark.last.term;
  operation.payload = SharedBytes::copy_of(membership);
  bytes_ += 2 * membership.size();
}

void Batch::install(GroupId group, const SnapshotMark& mark) {
  snapshot(group, mark);
  operations_.back().kind = ChangeKind::kInstall;
}

void Batch::release(GroupId group, LogIndex through) {
  add(ChangeKind::kRelease, group).index = through;
}

void Batch::commit(GroupId group, LogIndex index, std::span<const Floor> floors) {
  ASSERT_CMP(floors.size(), <=, kFloorsMax);
  Operation& operation = add(ChangeKind::kCommit, group);
  operation.index = index;
  if (floors.empty()) return;
  std::string encoded;
  encode_floors(floors, encoded);
  operation.payload = SharedBytes::copy_of(encoded);
  bytes_ += 2 * encoded.size();
}

void Batch::absorb(Batch& other) {
  if (other.empty()) return;
  if (empty()) {
    urgency_ = other.urgency_;
  } else if (other.urgency_ == Urgency::kNormal) {
    urgency_ = Urgency::kNormal;
  }
  bytes_ += other.bytes_;
  if (operations_.empty()) {
    operations_.swap(other.operations_);
  } else {
    operations_.insert(operations_.end(), std::make_move_iterator(other.operations_.begin()),
                       std::make_move_iterator(other.operations_.end()));
  }
  other.clear();
}

Batch Batch::part(size_t from, size_t count, size_t bytes) const {
  Batch part;
  const auto begin = operations_.begin() + static_cast<ptrdiff_t>(from);
  part.operations_.assign(begin, begin + static_cast<ptrdiff_t>(count));
  part.bytes_ = bytes;
  part.urgency_ = urgency_;
  return part;
}

void Batch::clear() {
  operations_.clear();
  bytes_ = 0;
  urgency_ = Urgency::kNormal;
}

}  // namespace conclave::wal
