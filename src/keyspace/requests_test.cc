// Bytes: the strict parsers against protobuf, normalisation, the command's header, the bounds of decoders.
#include "keyspace/requests.h"

#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <google/protobuf/unknown_field_set.h>

#include "base/random.h"
#include "etcd/rpc.pb.h"
#include "keyspace/command.h"
#include "keyspace/internal_command.h"
#include "keyspace/limits.h"
#include "keyspace/validate.h"
#include "keyspace/wire.h"

namespace conclave::keyspace {
namespace {

ErrorId normalised(CommandKind kind, const std::string& bytes, std::string* out = nullptr) {
  std::string storage;
  ByteView canonical;
  ErrorId error = normalise(kind, bytes, storage, canonical);
  if (out != nullptr) *out = std::string(canonical);
  return error;
}

TEST(Normalise, CanonicalBytesGoUnchanged) {
  etcdserverpb::PutRequest request;
  request.set_key("k");
  request.set_value("v");
  request.set_lease(-5);
  std::string bytes = request.SerializeAsString();
  std::string storage;
  ByteView canonical;
  ASSERT_EQ(normalise(CommandKind::kPut, bytes, storage, canonical), ErrorId::kNone);
  EXPECT_EQ(canonical.data(), bytes.data());
}

TEST(Normalise, UnknownFieldsAreStripped) {
  etcdserverpb::PutRequest request;
  request.set_key("k");
  std::string bytes = request.SerializeAsString() + "\x98\x06\x01";  // field 99
  std::string out;
  ASSERT_EQ(normalised(CommandKind::kPut, bytes, &out), ErrorId::kNone);
  EXPECT_EQ(out, request.SerializeAsString());
  etcdserverpb::TxnRequest txn;
  *txn.add_success()->mutable_request_put() = request;
  std::string inner = txn.success(0).SerializeAsString() + "\x98\x06\x01";
  std::string raw;
  append_message_field(raw, 2, inner);
  ASSERT_EQ(normalised(CommandKind::kTxn, raw, &out), ErrorId::kNone);
  EXPECT_EQ(out, txn.SerializeAsString());
}

TEST(Normalise, LastOneWinsAsInProtobuf) {
  etcdserverpb::PutRequest request;
  request.set_key("first");
  std::string bytes = request.SerializeAsString();
  request.set_key("second");
  bytes += request.SerializeAsString();
  std::string out;
  ASSERT_EQ(normalised(CommandKind::kPut, bytes, &out), ErrorId::kNone);
  EXPECT_EQ(out, request.SerializeAsString());
}

TEST(Normalise, RefusesUnknownEnumsAndGarbage) {
  etcdserverpb::TxnRequest txn;
  txn.add_compare()->set_key("k");
  txn.mutable_compare(0)->set_target(static_cast<etcdserverpb::Compare::CompareTarget>(9));
  EXPECT_EQ(normalised(CommandKind::kTxn, txn.SerializeAsString()), ErrorId::kUnknownEnum);
  EXPECT_EQ(normalised(CommandKind::kPut, "\x0a\xff"), ErrorId::kMalformed);
  EXPECT_EQ(normalised(CommandKind::kInternal, ""), ErrorId::kUnknownCommand);
  etcdserverpb::LeaseGrantRequest grant;
  grant.set_ttl(9'000'000'001);
  EXPECT_EQ(normalised(CommandKind::kLeaseGrant, grant.SerializeAsString()), ErrorId::kLeaseTtlTooLarge);
  std::string storage;
  ByteView canonical;
  etcdserverpb::RangeRequest range;
  range.set_sort_order(static_cast<etcdserverpb::RangeRequest::SortOrder>(5));
  EXPECT_EQ(normalise_range(range.SerializeAsString(), storage, canonical), ErrorId::kEmptyKey);
  range.set_key("k");
  EXPECT_EQ(normalise_range(range.SerializeAsString(), storage, canonical), ErrorId::kInvalidSortOption);
}

TEST(Validate, TheBudgetOfATransaction) {
  etcdserverpb::TxnRequest txn;
  for (int i = 0; i < 128; ++i) txn.add_success()->mutable_request_put()->set_key(fmt::format("{}", i));
  EXPECT_EQ(normalised(CommandKind::kTxn, txn.SerializeAsString()), ErrorId::kNone);
  txn.add_success()->mutable_request_put()->set_key("one more");
  EXPECT_EQ(normalised(CommandKind::kTxn, txn.SerializeAsString()), ErrorId::kTooManyOperations);
  // Each level takes what its largest list needs from the one below.
  txn.Clear();
  etcdserverpb::TxnRequest* inner = &txn;
  for (int i = 0; i < 127; ++i) inner = inner->add_success()->mutable_request_txn();
  inner->add_success()->mutable_request_put()->set_key("k");
  EXPECT_EQ(normalised(CommandKind::kTxn, txn.SerializeAsString()), ErrorId::kNone);
  inner->mutable_success(0)->mutable_request_txn()->add_success()->mutable_request_put()->set_key("k");
  EXPECT_EQ(normalised(CommandKind::kTxn, txn.SerializeAsString()), ErrorId::kTooManyOperations);
  // Nesting must not multiply without bound.
  txn.Clear();
  for (int i = 0; i < 64; ++i) {
    auto* child = txn.add_success()->mutable_request_txn();
    for (int j = 0; j < 64; ++j) {
      auto* grandchild = child->add_success();
      for (int k = 0; k < 3; ++k) grandchild->mutable_request_delete_range()->set_key("k");
    }
  }
  EXPECT_EQ(normalised(CommandKind::kTxn, txn.SerializeAsString()), ErrorId::kNone);
  for (int i = 0; i < 64; ++i) {
    auto* child = txn.add_failure()->mutable_request_txn();
    for (int j = 0; j < 64; ++j) child->add_success()->mutable_request_delete_range()->set_key("k");
  }
  EXPECT_EQ(normalised(CommandKind::kTxn, txn.SerializeAsString()), ErrorId::kTooManyOperations);
}

TEST(Validate, DuplicateKeys) {
  auto put = [](etcdserverpb::RequestOp* op, const char* key) { op->mutable_request_put()->set_key(key); };
  auto remove = [](etcdserverpb::RequestOp* op, const char* key, const char* end) {
    op->mutable_request_delete_range()->set_key(key);
    op->mutable_request_delete_range()->set_range_end(end);
  };
  auto verdict = [](const etcdserverpb::TxnRequest& txn) {
    return normalised(CommandKind::kTxn, txn.SerializeAsString());
  };
  etcdserverpb::TxnRequest txn;
  put(txn.add_success(), "a");
  put(txn.add_failure(), "a");
  EXPECT_EQ(verdict(txn), ErrorId::kNone);
  put(txn.add_success(), "a");
  EXPECT_EQ(verdict(txn), ErrorId::kDuplicateKey);
  txn.Clear();
  put(txn.add_success(), "b");
  remove(txn.add_success(), "a", "c");
  EXPECT_EQ(verdict(txn), ErrorId::kDuplicateKey);
  txn.Clear();
  remove(txn.add_success(), "a", "c");
  remove(txn.add_success(), "b", "d");
  put(txn.add_success(), "d");
  EXPECT_EQ(verdict(txn), ErrorId::kNone);
  // Both branches of one nested transaction may put a key; two nested ones may not.
  txn.Clear();
  put(txn.add_success()->mutable_request_txn()->add_success(), "a");
  put(txn.mutable_success(0)->mutable_request_txn()->add_failure(), "a");
  EXPECT_EQ(verdict(txn), ErrorId::kNone);
  put(txn.add_success()->mutable_request_txn()->add_failure(), "a");
  EXPECT_EQ(verdict(txn), ErrorId::kDuplicateKey);
}

TEST(Command, HeaderRoundTrip) {
  CommandHeader header{.kind = CommandKind::kLeaseGrant,
                       .origin = NodeId(3),
                       .boot = Boot(4),
                       .request = 5,
                       .session = SessionId(6),
                       .incarnation = 7,
                       .sequence = 8,
                       .term = Term(9),
                       .lease = LeaseId(-10),
                       .ttl_ms = 11};
  SharedBytes bytes = encode_command(header, "body");
  Command decoded;
  ASSERT_TRUE(decode_command(bytes.view(), decoded));
  EXPECT_EQ(decoded.header, header);
  EXPECT_EQ(decoded.body, "body");
  for (size_t size = 0; size < bytes.size() - 4; ++size) {
    EXPECT_FALSE(decode_command(bytes.view().substr(0, size), decoded)) << size;
  }
  std::string other(bytes.view());
  other[0] = 2;  // a version of the future
  EXPECT_FALSE(decode_command(other, decoded));
  other[0] = 1;
  other[2] = 16;  // a flag of the future
  EXPECT_FALSE(decode_command(other, decoded));
}

TEST(Command, InternalBounds) {
  InternalCommand command;
  for (size_t i = 0; i <= kInternalRecordOperationsMax; ++i) {
    command.operations.push_back({.kind = InternalOperation::Kind::kRecordPut, .key = "k"});
  }
  std::string bytes;
  encode(command, bytes);
  InternalCommand decoded;
  EXPECT_EQ(decode(bytes, decoded), ErrorId::kTooManyOperations);
  command.operations.pop_back();
  bytes.clear();
  encode(command, bytes);
  EXPECT_EQ(decode(bytes, decoded), ErrorId::kNone);
  EXPECT_EQ(decoded.operations.size(), kInternalRecordOperationsMax);
  for (size_t size = 0; size < 200; ++size) EXPECT_NE(decode(ByteView(bytes).substr(0, size), decoded), ErrorId::kNone);
}

// Random bytes and damaged messages: whatever the strict parser takes, protobuf reads the same.
TEST(Requests, StrictParserAgreesWithProtobuf) {
  Random random(11);
  uint64_t taken = 0;
  for (int i = 0; i < 200'000; ++i) {
    etcdserverpb::RangeRequest message;
    message.set_key(std::string(random.below(4), 'k'));
    if (random.coin()) message.set_range_end("z");
    if (random.coin()) message.set_limit(static_cast<int64_t>(random.next()));
    if (random.coin()) message.set_sort_target(static_cast<etcdserverpb::RangeRequest::SortTarget>(random.below(6)));
    if (random.coin()) message.set_count_only(true);
    if (random.coin()) message.set_max_create_revision(static_cast<int64_t>(random.below(100)) - 50);
    std::string bytes = message.SerializeAsString();
    if (random.coin() && !bytes.empty()) bytes[random.below(bytes.size())] = static_cast<char>(random.below(256));
    RangeRequest parsed;
    if (parse(bytes, parsed) != ErrorId::kNone) continue;
    ++taken;
    etcdserverpb::RangeRequest read;
    ASSERT_TRUE(read.ParseFromString(bytes));
    ASSERT_TRUE(read.GetReflection()->GetUnknownFields(read).empty());
    ASSERT_EQ(parsed.key, read.key());
    ASSERT_EQ(parsed.range_end, read.range_end());
    ASSERT_EQ(parsed.limit, read.limit());
    ASSERT_EQ(parsed.revision, read.revision());
    ASSERT_EQ(static_cast<int>(parsed.sort_order), read.sort_order());
    ASSERT_EQ(static_cast<int>(parsed.sort_target), read.sort_target());
    ASSERT_EQ(parsed.count_only, read.count_only());
    ASSERT_EQ(parsed.keys_only, read.keys_only());
    ASSERT_EQ(parsed.serializable, read.serializable());
    ASSERT_EQ(parsed.min_mod_revision, read.min_mod_revision());
    ASSERT_EQ(parsed.max_mod_revision, read.max_mod_revision());
    ASSERT_EQ(parsed.min_create_revision, read.min_create_revision());
    ASSERT_EQ(parsed.max_create_revision, read.max_create_revision());
  }
  EXPECT_GT(taken, 80'000u);
}

}  // namespace
}  // namespace conclave::keyspace
