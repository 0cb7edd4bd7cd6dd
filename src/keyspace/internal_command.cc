#include "keyspace/internal_command.h"

#include <set>

#include "keyspace/conflicts.h"
#include "keyspace/limits.h"

namespace conclave::keyspace {
namespace {

uint64_t bits(LeaseId lease) {
  return static_cast<uint64_t>(lease.value());
}
LeaseId lease_of(uint64_t raw) {
  return LeaseId(static_cast<int64_t>(raw));
}

// Milliseconds between 0 and the largest TTL; a fault otherwise.
int64_t read_milliseconds(ByteReader& reader) {
  uint64_t value = reader.varint();
  if (value > static_cast<uint64_t>(kLeaseTtlMsMax)) reader.reject();
  return static_cast<int64_t>(value);
}

LeaseId read_lease(ByteReader& reader) {
  LeaseId lease = lease_of(reader.varint());
  if (!lease.is_set()) reader.reject();
  return lease;
}

}  // namespace

void encode(const SessionOpen& open, std::string& out) {
  ByteWriter writer(out);
  writer.varint(open.session.value());
  writer.varint(bits(open.lease));
  writer.varint(static_cast<uint64_t>(open.ttl_ms));
  writer.raw(open.secret_hash);
  writer.sized(open.description);
}

bool decode(ByteView bytes, SessionOpen& out) {
  ByteReader reader(bytes);
  out.session = SessionId(reader.varint());
  out.lease = read_lease(reader);
  out.ttl_ms = read_milliseconds(reader);
  out.secret_hash = reader.raw(kSecretHashBytes);
  out.description = reader.sized();
  return reader.finished() && out.session.is_set() && out.description.size() <= kSessionDescriptionBytesMax;
}

void encode_expire(const std::vector<LeaseId>& leases, std::string& out) {
  ByteWriter writer(out);
  writer.varint(leases.size());
  for (LeaseId lease : leases) writer.varint(bits(lease));
}

bool decode_expire(ByteView bytes, std::vector<LeaseId>& out) {
  out.clear();
  ByteReader reader(bytes);
  uint64_t count = reader.varint();
  if (count > kExpireLeasesMax) return false;
  for (uint64_t i = 0; i < count && reader.ok(); ++i) out.push_back(read_lease(reader));
  return reader.finished();
}

void encode(const InternalCommand& command, std::string& out) {
  ByteWriter writer(out);
  writer.varint(command.guards.size());
  for (const Guard& guard : command.guards) {
    writer.fixed(static_cast<uint8_t>(guard.kind));
    writer.sized(guard.key);
    writer.varint(guard.number);
  }
  writer.varint(command.operations.size());
  for (const InternalOperation& operation : command.operations) {
    writer.fixed(static_cast<uint8_t>(operation.kind));
    writer.fixed(static_cast<uint8_t>(operation.ignore_value ? 1 : 0));
    writer.sized(operation.key);
    writer.sized(operation.range_end);
    writer.sized(operation.value);
    writer.varint(bits(operation.lease));
    writer.varint(static_cast<uint64_t>(operation.milliseconds));
  }
}

bool adds_nothing(ByteView bytes) {
  ByteReader reader(bytes);
  for (uint64_t guards = reader.varint(); guards > 0 && reader.ok(); --guards) {
    (void)reader.fixed<uint8_t>();
    (void)reader.sized();
    (void)reader.varint();
  }
  for (uint64_t operations = reader.varint(); operations > 0 && reader.ok(); --operations) {
    const auto kind = static_cast<InternalOperation::Kind>(reader.fixed<uint8_t>());
    if (kind != InternalOperation::Kind::kDelete && kind != InternalOperation::Kind::kRecordDelete &&
        kind != InternalOperation::Kind::kLeaseRevoke) {
      return false;
    }
    (void)reader.fixed<uint8_t>();
    (void)reader.sized();
    (void)reader.sized();
    (void)reader.sized();
    (void)reader.varint();
    (void)reader.varint();
  }
  return reader.finished();
}

ErrorId decode(ByteView bytes, InternalCommand& out) {
  out.clear();
  ByteReader reader(bytes);
  uint64_t guards = reader.varint();
  if (guards > kInternalGuardsMax) return ErrorId::kTooManyOperations;
  for (uint64_t i = 0; i < guards && reader.ok(); ++i) {
    Guard guard;
    uint8_t kind = reader.fixed<uint8_t>();
    guard.key = reader.sized();
    guard.number = reader.varint();
    if (kind < 1 || kind > static_cast<uint8_t>(Guard::Kind::kSession)) reader.reject();
    if (!reader.ok()) return ErrorId::kMalformed;
    guard.kind = static_cast<Guard::Kind>(kind);
    if (guard.kind == Guard::Kind::kCompare) {
      ErrorId error = parse(guard.key, guard.compare);
      if (error != ErrorId::kNone) return error;
      if (guard.compare.key.empty()) return ErrorId::kEmptyKey;
    }
    out.guards.push_back(guard);
  }
  uint64_t operations = reader.varint();
  if (operations > kInternalOperationsMax) return ErrorId::kTooManyOperations;
  size_t record_operations = 0;
  DeletedKeys deleted;
  std::set<ByteView> puts;
  for (uint64_t i = 0; i < operations && reader.ok(); ++i) {
    InternalOperation operation;
    uint8_t kind = reader.fixed<uint8_t>();
    uint8_t ignore_value = reader.fixed<uint8_t>();
    operation.ignore_value = ignore_value == 1;
    operation.key = reader.sized();
    operation.range_end = reader.sized();
    operation.value = reader.sized();
    operation.lease = lease_of(reader.varint());
    operation.milliseconds = read_milliseconds(reader);
    if (kind < 1 || kind > static_cast<uint8_t>(InternalOperation::Kind::kLeaseRevoke) || ignore_value > 1) {
      reader.reject();
    }
    if (!reader.ok()) return ErrorId::kMalformed;
    operation.kind = static_cast<InternalOperation::Kind>(kind);
    switch (operation.kind) {
      case InternalOperation::Kind::kPut:
        if (operation.key.empty()) return ErrorId::kEmptyKey;
        if (operation.ignore_value && !operation.value.empty()) return ErrorId::kValueProvided;
        if (!puts.insert(operation.key).second) return ErrorId::kDuplicateKey;
        break;
      case InternalOperation::Kind::kDelete:
        if (operation.key.empty()) return ErrorId::kEmptyKey;
        deleted.add(KeyRange::of(operation.key, operation.range_end));
        break;
      case InternalOperation::Kind::kRecordPut:
      case InternalOperation::Kind::kRecordDelete:
        if (operation.key.empty()) return ErrorId::kEmptyKey;
        if (operation.key.size() > kRecordKeyBytesMax) return ErrorId::kMalformed;
        if (++record_operations > kInternalRecordOperationsMax) return ErrorId::kTooManyOperations;
        break;
      case InternalOperation::Kind::kLeaseGrant:
      case InternalOperation::Kind::kLeaseRevoke:
        if (!operation.lease.is_set()) return ErrorId::kMalformed;
        break;
    }
    out.operations.push_back(operation);
  }
  if (!reader.finished()) return ErrorId::kMalformed;
  for (ByteView key : puts) {
    if (deleted.contains(key)) return ErrorId::kDuplicateKey;
  }
  return ErrorId::kNone;
}

}  // namespace conclave::keyspace
