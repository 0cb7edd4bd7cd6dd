#include "layers/command_builder.h"

#include "keyspace/internal_command.h"
#include "keyspace/requests.h"
#include "keyspace/wire.h"

namespace conclave::layers {
namespace {

using keyspace::append_bytes_field;
using keyspace::append_int64_field;
using keyspace::Guard;
using keyspace::InternalOperation;

// Field numbers of etcdserverpb.Compare.
constexpr uint32_t kResult = 1;
constexpr uint32_t kTarget = 2;
constexpr uint32_t kKey = 3;
constexpr uint32_t kCreateRevision = 5;
constexpr uint32_t kRangeEnd = 64;

std::string compare_create(ByteView key, keyspace::CompareResult result, Revision create, ByteView range_end = {}) {
  std::string compare;
  append_int64_field(compare, kResult, static_cast<int64_t>(result));
  append_int64_field(compare, kTarget, static_cast<int64_t>(keyspace::CompareTarget::kCreate));
  append_bytes_field(compare, kKey, key);
  append_int64_field(compare, kCreateRevision, create.value());
  append_bytes_field(compare, kRangeEnd, range_end);
  return compare;
}

}  // namespace

void CommandBuilder::guard(uint8_t kind, ByteView key, uint64_t number) {
  ByteWriter writer(guards_);
  writer.fixed(kind);
  writer.sized(key);
  writer.varint(number);
  ++guard_count_;
}

CommandBuilder& CommandBuilder::if_created(ByteView key, Revision create) {
  guard(static_cast<uint8_t>(Guard::Kind::kCompare), compare_create(key, keyspace::CompareResult::kEqual, create), 0);
  return *this;
}
CommandBuilder& CommandBuilder::if_none_created_after(ByteView prefix, ByteView prefix_end, Revision revision) {
  guard(static_cast<uint8_t>(Guard::Kind::kCompare),
        compare_create(prefix, keyspace::CompareResult::kLess, revision.next(), prefix_end), 0);
  return *this;
}
CommandBuilder& CommandBuilder::if_record_at(ByteView key, LogIndex index) {
  guard(static_cast<uint8_t>(Guard::Kind::kRecordAt), key, index.value());
  return *this;
}
CommandBuilder& CommandBuilder::if_lease(LeaseId lease) {
  guard(static_cast<uint8_t>(Guard::Kind::kLease), {}, static_cast<uint64_t>(lease.value()));
  return *this;
}
CommandBuilder& CommandBuilder::if_no_lease(LeaseId lease) {
  guard(static_cast<uint8_t>(Guard::Kind::kNoLease), {}, static_cast<uint64_t>(lease.value()));
  return *this;
}

void CommandBuilder::operate(const Operation& operation) {
  ByteWriter writer(operations_);
  writer.fixed(operation.kind);
  writer.fixed(static_cast<uint8_t>(operation.ignore_value ? 1 : 0));
  writer.sized(operation.key);
  writer.sized({});
  writer.sized(operation.value);
  writer.varint(static_cast<uint64_t>(operation.lease.value()));
  writer.varint(static_cast<uint64_t>(operation.milliseconds));
  ++operation_count_;
}

CommandBuilder& CommandBuilder::put(ByteView key, ByteView value, LeaseId lease) {
  operate({.kind = static_cast<uint8_t>(InternalOperation::Kind::kPut), .key = key, .value = value, .lease = lease});
  return *this;
}
CommandBuilder& CommandBuilder::move(ByteView key, LeaseId lease) {
  operate(
      {.kind = static_cast<uint8_t>(InternalOperation::Kind::kPut), .ignore_value = true, .key = key, .lease = lease});
  return *this;
}
CommandBuilder& CommandBuilder::erase(ByteView key) {
  operate({.kind = static_cast<uint8_t>(InternalOperation::Kind::kDelete), .key = key});
  return *this;
}
CommandBuilder& CommandBuilder::put_record(ByteView key, ByteView value, LeaseId lease) {
  operate(
      {.kind = static_cast<uint8_t>(InternalOperation::Kind::kRecordPut), .key = key, .value = value, .lease = lease});
  return *this;
}
CommandBuilder& CommandBuilder::erase_record(ByteView key) {
  operate({.kind = static_cast<uint8_t>(InternalOperation::Kind::kRecordDelete), .key = key});
  return *this;
}
CommandBuilder& CommandBuilder::grant(LeaseId lease, int64_t ttl_ms) {
  operate({.kind = static_cast<uint8_t>(InternalOperation::Kind::kLeaseGrant), .lease = lease, .milliseconds = ttl_ms});
  return *this;
}
CommandBuilder& CommandBuilder::revoke(LeaseId lease) {
  operate({.kind = static_cast<uint8_t>(InternalOperation::Kind::kLeaseRevoke), .lease = lease});
  return *this;
}

std::string CommandBuilder::build() const {
  std::string out;
  ByteWriter writer(out);
  writer.varint(guard_count_);
  writer.raw(guards_);
  writer.varint(operation_count_);
  writer.raw(operations_);
  return out;
}

}  // namespace conclave::layers
