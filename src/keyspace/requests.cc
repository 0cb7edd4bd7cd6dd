#include "keyspace/requests.h"

#include "keyspace/limits.h"
#include "keyspace/wire.h"

namespace conclave::keyspace {
namespace {

// Fields in ascending order, each once unless `repeatable`: what canonical bytes look like.
class FieldOrder {
 public:
  bool accept(uint32_t field, bool repeatable = false) {
    bool fine = field > last_ || (repeatable && field == last_);
    last_ = field;
    return fine;
  }

 private:
  uint32_t last_ = 0;
};

// An enum value of `count` known ones; sets `unknown` instead of failing, so that a malformed rest is still found
// first.
template <class Enum>
Enum read_enum(WireReader& reader, uint64_t count, bool& unknown) {
  uint64_t value = reader.varint();
  if (value >= count) {
    unknown = true;
    return Enum{};
  }
  return static_cast<Enum>(value);
}

ErrorId verdict(const WireReader& reader, bool unknown_enum, ErrorId unknown = ErrorId::kUnknownEnum) {
  if (!reader.ok()) return ErrorId::kMalformed;
  return unknown_enum ? unknown : ErrorId::kNone;
}

// An error that says only that a value is unknown: the rest is still parsed, since malformed bytes come first.
bool is_unknown_value(ErrorId error) {
  return error == ErrorId::kUnknownEnum || error == ErrorId::kInvalidSortOption;
}

ErrorId parse_node(uint32_t at, Program& out);

}  // namespace

KeyRange KeyRange::of(ByteView key, ByteView range_end) {
  if (range_end.empty()) return {key, {}, Kind::kPoint};
  if (range_end == ByteView("\0", 1)) return {key, {}, Kind::kFrom};
  return {key, range_end, Kind::kInterval};
}

void Program::clear() {
  compares.clear();
  operations.clear();
  ranges.clear();
  puts.clear();
  deletes.clear();
  txns.clear();
}

ErrorId parse(ByteView bytes, RangeRequest& out) {
  WireReader reader(bytes);
  FieldOrder order;
  bool unknown_enum = false;
  while (reader.next()) {
    if (!order.accept(reader.field())) return ErrorId::kMalformed;
    switch (reader.field()) {
      case 1:
        out.key = reader.bytes();
        break;
      case 2:
        out.range_end = reader.bytes();
        break;
      case 3:
        out.limit = reader.int64();
        break;
      case 4:
        out.revision = reader.int64();
        break;
      case 5:
        out.sort_order = read_enum<SortOrder>(reader, 3, unknown_enum);
        break;
      case 6:
        out.sort_target = read_enum<SortTarget>(reader, 5, unknown_enum);
        break;
      case 7:
        out.serializable = reader.boolean();
        break;
      case 8:
        out.keys_only = reader.boolean();
        break;
      case 9:
        out.count_only = reader.boolean();
        break;
      case 10:
        out.min_mod_revision = reader.int64();
        break;
      case 11:
        out.max_mod_revision = reader.int64();
        break;
      case 12:
        out.min_create_revision = reader.int64();
        break;
      case 13:
        out.max_create_revision = reader.int64();
        break;
      default:
        return ErrorId::kMalformed;
    }
  }
  return verdict(reader, unknown_enum, ErrorId::kInvalidSortOption);
}

ErrorId parse(ByteView bytes, PutRequest& out) {
  WireReader reader(bytes);
  FieldOrder order;
  while (reader.next()) {
    if (!order.accept(reader.field())) return ErrorId::kMalformed;
    switch (reader.field()) {
      case 1:
        out.key = reader.bytes();
        break;
      case 2:
        out.value = reader.bytes();
        break;
      case 3:
        out.lease = reader.int64();
        break;
      case 4:
        out.prev_kv = reader.boolean();
        break;
      case 5:
        out.ignore_value = reader.boolean();
        break;
      case 6:
        out.ignore_lease = reader.boolean();
        break;
      default:
        return ErrorId::kMalformed;
    }
  }
  return verdict(reader, false);
}

ErrorId parse(ByteView bytes, DeleteRangeRequest& out) {
  WireReader reader(bytes);
  FieldOrder order;
  while (reader.next()) {
    if (!order.accept(reader.field())) return ErrorId::kMalformed;
    switch (reader.field()) {
      case 1:
        out.key = reader.bytes();
        break;
      case 2:
        out.range_end = reader.bytes();
        break;
      case 3:
        out.prev_kv = reader.boolean();
        break;
      default:
        return ErrorId::kMalformed;
    }
  }
  return verdict(reader, false);
}

ErrorId parse(ByteView bytes, Compare& out) {
  WireReader reader(bytes);
  FieldOrder order;
  bool unknown_enum = false;
  uint32_t given = 0;
  while (reader.next()) {
    if (!order.accept(reader.field())) return ErrorId::kMalformed;
    switch (reader.field()) {
      case 1:
        out.result = read_enum<CompareResult>(reader, 4, unknown_enum);
        break;
      case 2:
        out.target = read_enum<CompareTarget>(reader, 5, unknown_enum);
        break;
      case 3:
        out.key = reader.bytes();
        break;
      case 4:
      case 5:
      case 6:
      case 7:
      case 8:
        if (given != 0) return ErrorId::kMalformed;
        given = reader.field();
        out.given = static_cast<CompareTarget>(given - 4);
        if (given == 7) {
          out.value = reader.bytes();
        } else {
          out.number = reader.int64();
        }
        break;
      case 64:
        out.range_end = reader.bytes();
        break;
      default:
        return ErrorId::kMalformed;
    }
  }
  return verdict(reader, unknown_enum);
}

ErrorId parse(ByteView bytes, Program& out) {
  out.clear();
  out.txns.push_back({.bytes = bytes});
  ErrorId unknown = ErrorId::kNone;
  // Breadth first: nested nodes are appended while this walks.
  for (uint32_t at = 0; at < out.txns.size(); ++at) {
    if (out.txns[at].depth > kTxnOperationsMax) return ErrorId::kTooManyOperations;
    if (out.operations.size() + out.compares.size() > kTxnTotalMax) return ErrorId::kTooManyOperations;
    ErrorId error = parse_node(at, out);
    if (is_unknown_value(error)) {
      if (unknown != ErrorId::kUnknownEnum) unknown = error;
    } else if (error != ErrorId::kNone) {
      return error;
    }
  }
  if (out.operations.size() + out.compares.size() > kTxnTotalMax) return ErrorId::kTooManyOperations;
  return unknown;
}

namespace {

// One RequestOp: at most one of its four fields.
ErrorId parse_operation(ByteView bytes, uint32_t depth, Program& out) {
  WireReader reader(bytes);
  Operation operation;
  ErrorId error = ErrorId::kNone;
  if (reader.next()) {
    uint32_t field = reader.field();
    ByteView body = reader.bytes();
    if (!reader.ok() || reader.next() || !reader.ok()) return ErrorId::kMalformed;
    switch (field) {
      case 1:
        operation = {OperationKind::kRange, static_cast<uint32_t>(out.ranges.size())};
        error = parse(body, out.ranges.emplace_back());
        break;
      case 2:
        operation = {OperationKind::kPut, static_cast<uint32_t>(out.puts.size())};
        error = parse(body, out.puts.emplace_back());
        break;
      case 3:
        operation = {OperationKind::kDelete, static_cast<uint32_t>(out.deletes.size())};
        error = parse(body, out.deletes.emplace_back());
        break;
      case 4:
        operation = {OperationKind::kTxn, static_cast<uint32_t>(out.txns.size())};
        out.txns.push_back({.bytes = body, .depth = depth + 1});
        break;
      default:
        return ErrorId::kMalformed;
    }
  }
  if (!reader.ok()) return ErrorId::kMalformed;
  out.operations.push_back(operation);
  return error;
}

ErrorId parse_node(uint32_t at, Program& out) {
  ByteView bytes = out.txns[at].bytes;
  uint32_t depth = out.txns[at].depth;
  Slice compares{static_cast<uint32_t>(out.compares.size()), static_cast<uint32_t>(out.compares.size())};
  uint32_t operations = static_cast<uint32_t>(out.operations.size());
  Slice success{operations, operations};
  Slice failure{operations, operations};
  WireReader reader(bytes);
  FieldOrder order;
  ErrorId unknown = ErrorId::kNone;
  while (reader.next()) {
    if (!order.accept(reader.field(), /*repeatable=*/true)) return ErrorId::kMalformed;
    ByteView body = reader.bytes();
    if (!reader.ok()) return ErrorId::kMalformed;
    ErrorId error = ErrorId::kNone;
    switch (reader.field()) {
      case 1:
        error = parse(body, out.compares.emplace_back());
        ++compares.end;
        break;
      case 2:
        error = parse_operation(body, depth, out);
        ++success.end;
        failure = {success.end, success.end};
        break;
      case 3:
        error = parse_operation(body, depth, out);
        ++failure.end;
        break;
      default:
        return ErrorId::kMalformed;
    }
    if (is_unknown_value(error)) {
      if (unknown != ErrorId::kUnknownEnum) unknown = error;
    } else if (error != ErrorId::kNone) {
      return error;
    }
  }
  out.txns[at].compares = compares;
  out.txns[at].success = success;
  out.txns[at].failure = failure;
  return reader.ok() ? unknown : ErrorId::kMalformed;
}

}  // namespace

ErrorId parse(ByteView bytes, CompactionRequest& out) {
  WireReader reader(bytes);
  FieldOrder order;
  while (reader.next()) {
    if (!order.accept(reader.field())) return ErrorId::kMalformed;
    switch (reader.field()) {
      case 1:
        out.revision = reader.int64();
        break;
      case 2:
        out.physical = reader.boolean();
        break;
      default:
        return ErrorId::kMalformed;
    }
  }
  return verdict(reader, false);
}

ErrorId parse(ByteView bytes, LeaseGrantRequest& out) {
  WireReader reader(bytes);
  FieldOrder order;
  while (reader.next()) {
    if (!order.accept(reader.field())) return ErrorId::kMalformed;
    switch (reader.field()) {
      case 1:
        out.ttl_seconds = reader.int64();
        break;
      case 2:
        out.id = reader.int64();
        break;
      default:
        return ErrorId::kMalformed;
    }
  }
  return verdict(reader, false);
}

ErrorId parse(ByteView bytes, LeaseRevokeRequest& out) {
  WireReader reader(bytes);
  FieldOrder order;
  while (reader.next()) {
    if (!order.accept(reader.field()) || reader.field() != 1) return ErrorId::kMalformed;
    out.id = reader.int64();
  }
  return verdict(reader, false);
}

}  // namespace conclave::keyspace
