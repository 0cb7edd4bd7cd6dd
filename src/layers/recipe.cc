#include "layers/recipe.h"

#include <fmt/format.h>

#include "keyspace/wire.h"

namespace conclave::layers {
namespace {

using keyspace::append_bool_field;
using keyspace::append_bytes_field;
using keyspace::append_int64_field;
using keyspace::append_message_field;

// Field numbers of etcdserverpb.TxnRequest, RequestOp and Compare.
constexpr uint32_t kCompareField = 1;
constexpr uint32_t kSuccessField = 2;
constexpr uint32_t kFailureField = 3;
constexpr uint32_t kPutOp = 2;
constexpr uint32_t kDeleteOp = 3;
constexpr uint32_t kTxnOp = 4;

void append_compare_create(std::string& out, ByteView key, Revision create) {
  std::string compare;
  append_int64_field(compare, 2, static_cast<int64_t>(keyspace::CompareTarget::kCreate));
  append_bytes_field(compare, 3, key);
  append_int64_field(compare, 5, create.value());
  append_message_field(out, kCompareField, compare);
}

void append_compare_value(std::string& out, ByteView key, ByteView value) {
  std::string compare;
  append_int64_field(compare, 2, static_cast<int64_t>(keyspace::CompareTarget::kValue));
  append_bytes_field(compare, 3, key);
  // Present even when empty: it is a choice of a oneof.
  append_message_field(compare, 7, value);
  append_message_field(out, kCompareField, compare);
}

void append_operation(std::string& out, uint32_t branch, uint32_t kind, ByteView request) {
  std::string operation;
  append_message_field(operation, kind, request);
  append_message_field(out, branch, operation);
}

std::string put_request(ByteView key, ByteView value, LeaseId lease) {
  std::string put;
  append_bytes_field(put, 1, key);
  append_bytes_field(put, 2, value);
  append_int64_field(put, 3, lease.value());
  return put;
}

}  // namespace

std::string claim_prefix(ByteView name) {
  std::string prefix(name);
  prefix.push_back('/');
  return prefix;
}

std::string claim_key(ByteView name, LeaseId lease) {
  return fmt::format("{}/{:x}", name, lease.value());
}

std::string claim_prefix_end(ByteView prefix) {
  std::string end(prefix);
  // A claim prefix ends in '/', which has a successor.
  end.back() = static_cast<char>(end.back() + 1);
  return end;
}

keyspace::RangeRequest oldest_claim(ByteView prefix, ByteView prefix_end) {
  return {.key = prefix,
          .range_end = prefix_end,
          .limit = 1,
          .sort_order = keyspace::SortOrder::kAscend,
          .sort_target = keyspace::SortTarget::kCreate};
}

bool is_child(ByteView prefix, ByteView key) {
  return key.size() > prefix.size() && key.starts_with(prefix) && key.find('/', prefix.size()) == ByteView::npos;
}

ByteView name_of(ByteView key) {
  const size_t slash = key.rfind('/');
  return slash == ByteView::npos ? ByteView() : key.substr(0, slash);
}

std::optional<keyspace::KeyValue> oldest_child(const keyspace::View& view, ByteView prefix, ByteView prefix_end) {
  const keyspace::KeyRange range = keyspace::KeyRange::of(prefix, prefix_end);
  // Nearly always the oldest of all is one. Otherwise so many of the oldest are looked at, then more.
  for (size_t count = 1;; count *= 16) {
    const std::vector<keyspace::KeyValue> oldest = view.oldest_of(range, count);
    for (const keyspace::KeyValue& key : oldest) {
      if (is_child(prefix, key.key)) return key;
    }
    if (oldest.size() < count) return std::nullopt;
    if (count >= kElderBelowMax) return oldest.front();
  }
}

std::string encode_claim(ByteView key, ByteView value, LeaseId lease) {
  std::string txn;
  append_compare_create(txn, key, Revision());
  append_operation(txn, kSuccessField, kPutOp, put_request(key, value, lease));
  return txn;
}

std::string encode_campaign(ByteView key, ByteView value, LeaseId lease) {
  std::string other;
  append_compare_value(other, key, value);
  append_operation(other, kFailureField, kPutOp, put_request(key, value, lease));
  std::string txn = encode_claim(key, value, lease);
  append_operation(txn, kFailureField, kTxnOp, other);
  return txn;
}

std::string encode_proclaim(ByteView key, Revision create, ByteView value, LeaseId lease) {
  std::string put = put_request(key, value, lease);
  append_bool_field(put, 6, !lease.is_set());
  std::string txn;
  append_compare_create(txn, key, create);
  append_operation(txn, kSuccessField, kPutOp, put);
  return txn;
}

std::string encode_release(ByteView key, Revision create) {
  std::string remove;
  append_bytes_field(remove, 1, key);
  std::string txn;
  append_compare_create(txn, key, create);
  append_operation(txn, kSuccessField, kDeleteOp, remove);
  return txn;
}

}  // namespace conclave::layers
