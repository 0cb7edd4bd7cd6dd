#include "keyspace/validate.h"

#include <map>
#include <optional>
#include <set>
#include <utility>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "etcd/rpc.pb.h"
#include "keyspace/conflicts.h"
#include "keyspace/limits.h"

namespace conclave::keyspace {
namespace {

// The budget of one node, its compares and operations; nested ones get what its largest list leaves.
ErrorId check_node(const Program& program, uint32_t at, uint32_t budget);

ErrorId check_operations(const Program& program, Slice slice, uint32_t budget) {
  for (uint32_t i = slice.begin; i < slice.end; ++i) {
    const Operation& operation = program.operations[i];
    ErrorId error = ErrorId::kNone;
    switch (operation.kind) {
      case OperationKind::kNone:
        return ErrorId::kKeyNotFound;  // etcd's word for an operation that is none
      case OperationKind::kRange:
        error = validate(program.ranges[operation.at]);
        break;
      case OperationKind::kPut:
        error = validate(program.puts[operation.at]);
        break;
      case OperationKind::kDelete:
        error = validate(program.deletes[operation.at]);
        break;
      case OperationKind::kTxn:
        error = check_node(program, operation.at, budget);
        break;
    }
    if (error != ErrorId::kNone) return error;
  }
  return ErrorId::kNone;
}

ErrorId check_node(const Program& program, uint32_t at, uint32_t budget) {
  const TxnNode& node = program.txns[at];
  uint32_t largest = std::max({node.compares.size(), node.success.size(), node.failure.size()});
  if (largest > budget) return ErrorId::kTooManyOperations;
  for (uint32_t i = node.compares.begin; i < node.compares.end; ++i) {
    if (program.compares[i].key.empty()) return ErrorId::kEmptyKey;
  }
  ErrorId error = check_operations(program, node.success, budget - largest);
  if (error != ErrorId::kNone) return error;
  return check_operations(program, node.failure, budget - largest);
}

using Puts = std::set<ByteView>;

// Walks one branch and gathers what it puts and deletes. Nested branches first: their puts are held against this
// level's deletes and those of nested transactions before them; then this level's puts against everything. The two
// branches of one nested transaction exclude each other and may put the same key.
bool gather(const Program& program, Slice slice, Puts& puts, DeletedKeys& deleted) {
  for (uint32_t i = slice.begin; i < slice.end; ++i) {
    const Operation& operation = program.operations[i];
    if (operation.kind != OperationKind::kDelete) continue;
    const DeleteRangeRequest& request = program.deletes[operation.at];
    deleted.add(KeyRange::of(request.key, request.range_end));
  }
  for (uint32_t i = slice.begin; i < slice.end; ++i) {
    const Operation& operation = program.operations[i];
    if (operation.kind != OperationKind::kTxn) continue;
    const TxnNode& node = program.txns[operation.at];
    Puts then_puts;
    Puts else_puts;
    DeletedKeys then_deleted;
    DeletedKeys else_deleted;
    if (!gather(program, node.success, then_puts, then_deleted)) return false;
    if (!gather(program, node.failure, else_puts, else_deleted)) return false;
    for (ByteView key : then_puts) {
      if (deleted.contains(key) || !puts.insert(key).second) return false;
    }
    for (ByteView key : else_puts) {
      if (deleted.contains(key)) return false;
      if (!puts.insert(key).second && !then_puts.contains(key)) return false;
    }
    deleted.add(then_deleted);
    deleted.add(else_deleted);
  }
  for (uint32_t i = slice.begin; i < slice.end; ++i) {
    const Operation& operation = program.operations[i];
    if (operation.kind != OperationKind::kPut) continue;
    ByteView key = program.puts[operation.at].key;
    if (deleted.contains(key) || !puts.insert(key).second) return false;
  }
  return true;
}

bool is_free_of_conflicts(const Program& program, Slice slice) {
  Puts puts;
  DeletedKeys deleted;
  return gather(program, slice, puts, deleted);
}

// Nesting costs protobuf two levels each; its default of 100 would refuse transactions etcd takes.
constexpr int kRecursionLimit = 2 * static_cast<int>(kTxnOperationsMax) + 16;

template <class Message>
bool reencode(ByteView bytes, std::string& storage) {
  google::protobuf::io::ArrayInputStream raw(bytes.data(), static_cast<int>(bytes.size()));
  google::protobuf::io::CodedInputStream stream(&raw);
  stream.SetRecursionLimit(kRecursionLimit);
  Message message;
  if (!message.ParseFromCodedStream(&stream) || !stream.ConsumedEntireMessage()) return false;
  message.DiscardUnknownFields();
  storage.clear();
  return message.SerializeToString(&storage);
}

template <class Message, class Request>
ErrorId normalise_as(ByteView bytes, std::string& storage, ByteView& canonical) {
  if (bytes.size() > kEntryBytesMax) return ErrorId::kRequestTooLarge;
  Request request;
  canonical = bytes;
  ErrorId error = parse_and_validate(bytes, request);
  if (error != ErrorId::kMalformed) return error;
  if (!reencode<Message>(bytes, storage)) return ErrorId::kMalformed;
  canonical = storage;
  Request again;
  return parse_and_validate(canonical, again);
}

}  // namespace

ErrorId validate(const RangeRequest& request) {
  return request.key.empty() ? ErrorId::kEmptyKey : ErrorId::kNone;
}

ErrorId validate(const PutRequest& request) {
  if (request.key.empty()) return ErrorId::kEmptyKey;
  if (request.ignore_value && !request.value.empty()) return ErrorId::kValueProvided;
  if (request.ignore_lease && request.lease != 0) return ErrorId::kLeaseProvided;
  return ErrorId::kNone;
}

ErrorId validate(const DeleteRangeRequest& request) {
  return request.key.empty() ? ErrorId::kEmptyKey : ErrorId::kNone;
}

ErrorId validate(const Program& program) {
  ErrorId error = check_node(program, 0, kTxnOperationsMax);
  if (error != ErrorId::kNone) return error;
  // Most transactions put one key and delete none: nothing can collide.
  if (program.puts.empty() || (program.puts.size() == 1 && program.deletes.empty())) return ErrorId::kNone;
  const TxnNode& root = program.txns[0];
  if (!is_free_of_conflicts(program, root.success)) return ErrorId::kDuplicateKey;
  if (!is_free_of_conflicts(program, root.failure)) return ErrorId::kDuplicateKey;
  return ErrorId::kNone;
}

ErrorId parse_and_validate(ByteView bytes, RangeRequest& out) {
  ErrorId error = parse(bytes, out);
  if (error == ErrorId::kInvalidSortOption && out.key.empty()) return ErrorId::kEmptyKey;
  return error != ErrorId::kNone ? error : validate(out);
}

ErrorId parse_and_validate(ByteView bytes, PutRequest& out) {
  ErrorId error = parse(bytes, out);
  return error != ErrorId::kNone ? error : validate(out);
}

ErrorId parse_and_validate(ByteView bytes, DeleteRangeRequest& out) {
  ErrorId error = parse(bytes, out);
  return error != ErrorId::kNone ? error : validate(out);
}

ErrorId parse_and_validate(ByteView bytes, Program& out) {
  ErrorId error = parse(bytes, out);
  return error != ErrorId::kNone ? error : validate(out);
}

ErrorId parse_and_validate(ByteView bytes, CompactionRequest& out) {
  return parse(bytes, out);
}

ErrorId parse_and_validate(ByteView bytes, LeaseGrantRequest& out) {
  ErrorId error = parse(bytes, out);
  if (error != ErrorId::kNone) return error;
  return out.ttl_seconds > kLeaseTtlSecondsMax ? ErrorId::kLeaseTtlTooLarge : ErrorId::kNone;
}

ErrorId parse_and_validate(ByteView bytes, LeaseRevokeRequest& out) {
  return parse(bytes, out);
}

ErrorId normalise(CommandKind kind, ByteView bytes, std::string& storage, ByteView& canonical) {
  switch (kind) {
    case CommandKind::kPut:
      return normalise_as<etcdserverpb::PutRequest, PutRequest>(bytes, storage, canonical);
    case CommandKind::kDeleteRange:
      return normalise_as<etcdserverpb::DeleteRangeRequest, DeleteRangeRequest>(bytes, storage, canonical);
    case CommandKind::kTxn:
      return normalise_as<etcdserverpb::TxnRequest, Program>(bytes, storage, canonical);
    case CommandKind::kCompact:
      return normalise_as<etcdserverpb::CompactionRequest, CompactionRequest>(bytes, storage, canonical);
    case CommandKind::kLeaseGrant:
      return normalise_as<etcdserverpb::LeaseGrantRequest, LeaseGrantRequest>(bytes, storage, canonical);
    case CommandKind::kLeaseRevoke:
      return normalise_as<etcdserverpb::LeaseRevokeRequest, LeaseRevokeRequest>(bytes, storage, canonical);
    case CommandKind::kLeaseExpire:
    case CommandKind::kSessionOpen:
    case CommandKind::kInternal:
      break;  // ours: never taken from a client's bytes
  }
  return ErrorId::kUnknownCommand;
}

ErrorId normalise_range(ByteView bytes, std::string& storage, ByteView& canonical) {
  return normalise_as<etcdserverpb::RangeRequest, RangeRequest>(bytes, storage, canonical);
}

}  // namespace conclave::keyspace
