// The requests of etcd's API that enter the log, as views into their own bytes. Owns the strict parser (canonical bytes
// only, no unknown field, no unknown enum value) and the meaning of (key, range_end); never owns the bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "keyspace/errors.h"

namespace conclave::keyspace {

// The keys a request names: one, those in [begin, end), or all from begin on.
struct KeyRange {
  enum class Kind : uint8_t { kPoint, kInterval, kFrom };
  ByteView begin;
  ByteView end;  // of kInterval only
  Kind kind = Kind::kPoint;

  // As etcd spells it: no range_end is one key, "\0" is everything from `key`.
  [[nodiscard]] static KeyRange of(ByteView key, ByteView range_end);
  [[nodiscard]] bool contains(ByteView key) const {
    if (kind == Kind::kPoint) return key == begin;
    return key >= begin && (kind == Kind::kFrom || key < end);
  }
  // Whether `key` lies behind all of the range.
  [[nodiscard]] bool is_before(ByteView key) const {
    if (kind == Kind::kPoint) return key > begin;
    return kind == Kind::kInterval && key >= end;
  }
  [[nodiscard]] bool is_point() const { return kind == Kind::kPoint; }
};

enum class SortOrder : uint8_t { kNone = 0, kAscend = 1, kDescend = 2 };
enum class SortTarget : uint8_t { kKey = 0, kVersion = 1, kCreate = 2, kMod = 3, kValue = 4 };

struct RangeRequest {
  ByteView key;
  ByteView range_end;
  int64_t limit = 0;
  int64_t revision = 0;
  int64_t min_mod_revision = 0;
  int64_t max_mod_revision = 0;
  int64_t min_create_revision = 0;
  int64_t max_create_revision = 0;
  SortOrder sort_order = SortOrder::kNone;
  SortTarget sort_target = SortTarget::kKey;
  bool serializable = false;
  bool keys_only = false;
  bool count_only = false;
};

struct PutRequest {
  ByteView key;
  ByteView value;
  int64_t lease = 0;
  bool prev_kv = false;
  bool ignore_value = false;
  bool ignore_lease = false;
};

struct DeleteRangeRequest {
  ByteView key;
  ByteView range_end;
  bool prev_kv = false;
};

enum class CompareResult : uint8_t { kEqual = 0, kGreater = 1, kLess = 2, kNotEqual = 3 };
enum class CompareTarget : uint8_t { kVersion = 0, kCreate = 1, kMod = 2, kValue = 3, kLease = 4 };

struct Compare {
  CompareResult result = CompareResult::kEqual;
  CompareTarget target = CompareTarget::kVersion;
  // What of the oneof was given; a target that does not match it compares with zero or nothing, as etcd does.
  CompareTarget given = CompareTarget::kVersion;
  ByteView key;
  ByteView range_end;
  int64_t number = 0;
  ByteView value;

  [[nodiscard]] int64_t expected_number() const { return given == target ? number : 0; }
  [[nodiscard]] ByteView expected_value() const { return given == target ? value : ByteView(); }
};

enum class OperationKind : uint8_t { kNone, kRange, kPut, kDelete, kTxn };

// One operation of a transaction: `at` indexes the vector of its kind in Program.
struct Operation {
  OperationKind kind = OperationKind::kNone;
  uint32_t at = 0;
};

struct Slice {
  uint32_t begin = 0;
  uint32_t end = 0;
  [[nodiscard]] uint32_t size() const { return end - begin; }
};

struct TxnNode {
  ByteView bytes;
  uint32_t depth = 0;
  Slice compares;
  Slice success;
  Slice failure;
};

// A transaction taken apart, breadth first: txns[0] is the outermost, each node's compares and operations lie together.
// Reused between commands so that parsing allocates nothing at rest.
struct Program {
  std::vector<Compare> compares;
  std::vector<Operation> operations;
  std::vector<RangeRequest> ranges;
  std::vector<PutRequest> puts;
  std::vector<DeleteRangeRequest> deletes;
  std::vector<TxnNode> txns;
  void clear();
};

// kMalformed here also means "not canonical": protobuf may still read it. An enum value this version does not know is
// kInvalidSortOption in a range, kUnknownEnum in a compare.
[[nodiscard]] ErrorId parse(ByteView bytes, RangeRequest& out);
[[nodiscard]] ErrorId parse(ByteView bytes, PutRequest& out);
[[nodiscard]] ErrorId parse(ByteView bytes, DeleteRangeRequest& out);
[[nodiscard]] ErrorId parse(ByteView bytes, Compare& out);
// kTooManyOperations if nested deeper than any transaction within the budget can be, or larger in all than
// kTxnTotalMax.
[[nodiscard]] ErrorId parse(ByteView bytes, Program& out);

struct CompactionRequest {
  int64_t revision = 0;
  bool physical = false;
};
[[nodiscard]] ErrorId parse(ByteView bytes, CompactionRequest& out);

struct LeaseGrantRequest {
  int64_t ttl_seconds = 0;
  int64_t id = 0;
};
[[nodiscard]] ErrorId parse(ByteView bytes, LeaseGrantRequest& out);

struct LeaseRevokeRequest {
  int64_t id = 0;
};
[[nodiscard]] ErrorId parse(ByteView bytes, LeaseRevokeRequest& out);

}  // namespace conclave::keyspace
