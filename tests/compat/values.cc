#include "tests/compat/values.h"

#include <array>

#include <gtest/gtest.h>

#include "etcd/rpc.pb.h"
#include "keyspace/internal_command.h"
#include "keyspace/limits.h"

namespace conclave::compat {
namespace {

using keyspace::CommandHeader;
using keyspace::CommandKind;
using keyspace::Guard;
using keyspace::InternalCommand;
using keyspace::InternalOperation;

std::string put(std::string_view key, std::string_view value, int64_t lease = 0) {
  etcdserverpb::PutRequest request;
  request.set_key(std::string(key));
  request.set_value(std::string(value));
  request.set_lease(lease);
  return request.SerializeAsString();
}

std::string grant(int64_t lease, int64_t ttl_seconds) {
  etcdserverpb::LeaseGrantRequest request;
  request.set_id(lease);
  request.set_ttl(ttl_seconds);
  return request.SerializeAsString();
}

// A greeting that is there is replaced, one that is not is left alone.
std::string txn() {
  etcdserverpb::TxnRequest request;
  auto& compare = *request.add_compare();
  compare.set_result(etcdserverpb::Compare::GREATER);
  compare.set_target(etcdserverpb::Compare::VERSION);
  compare.set_key("greeting");
  compare.set_version(0);
  auto& put = *request.add_success()->mutable_request_put();
  put.set_key("greeting");
  put.set_value("hello again");
  request.add_failure()->mutable_request_range()->set_key("greeting");
  return request.SerializeAsString();
}

std::string session_open() {
  const std::string secret(keyspace::kSecretHashBytes, '\x5a');
  std::string body;
  keyspace::encode(
      {.session = SessionId(5), .lease = LeaseId(9), .ttl_ms = 3'600'000, .secret_hash = secret, .description = "five"},
      body);
  return body;
}

// Every guard, every operation.
std::string internal() {
  etcdserverpb::Compare compare;
  compare.set_result(etcdserverpb::Compare::EQUAL);
  compare.set_target(etcdserverpb::Compare::VALUE);
  compare.set_key("greeting");
  compare.set_value("hello again");
  const std::string compared = compare.SerializeAsString();
  InternalCommand command;
  command.guards = {{.kind = Guard::Kind::kCompare, .key = compared},
                    {.kind = Guard::Kind::kRecordAt, .key = "setting/golden", .number = 0},
                    {.kind = Guard::Kind::kLease, .number = 7},
                    {.kind = Guard::Kind::kNoLease, .number = 11},
                    {.kind = Guard::Kind::kSession, .number = 5}};
  using Kind = InternalOperation::Kind;
  command.operations = {
      {.kind = Kind::kLeaseGrant, .lease = LeaseId(11), .milliseconds = 60'000},
      {.kind = Kind::kLeaseGrant, .lease = LeaseId(13), .milliseconds = 60'000},
      {.kind = Kind::kPut, .key = "internal", .value = "written", .lease = LeaseId(11)},
      {.kind = Kind::kPut, .ignore_value = true, .key = "greeting"},
      {.kind = Kind::kDelete, .key = "gone/", .range_end = "gone0"},
      {.kind = Kind::kRecordPut, .key = "setting/golden", .value = "one"},
      {.kind = Kind::kRecordPut, .key = "setting/leased", .value = "two", .lease = LeaseId(11)},
      {.kind = Kind::kRecordDelete, .key = "setting/none"},
      {.kind = Kind::kLeaseRevoke, .lease = LeaseId(15)},
  };
  std::string body;
  keyspace::encode(command, body);
  return body;
}

std::string expire(const std::vector<LeaseId>& leases) {
  std::string body;
  keyspace::encode_expire(leases, body);
  return body;
}

}  // namespace

std::vector<WrittenCommand> written_commands() {
  const NodeId server(0x8000000000000003);
  const Boot boot(1'764'115'200'000);
  uint64_t request = 126;
  const auto asked = [&](CommandKind kind) {
    return CommandHeader{.kind = kind, .origin = server, .boot = boot, .request = ++request};
  };
  const auto granted = [&](int64_t lease, int64_t ttl_ms) {
    CommandHeader header = asked(CommandKind::kLeaseGrant);
    header.lease = LeaseId(lease);
    header.ttl_ms = ttl_ms;
    return header;
  };
  const auto in_session = [&](CommandKind kind, uint64_t sequence) {
    CommandHeader header = asked(kind);
    header.session = SessionId(5);
    header.incarnation = 2;
    header.sequence = sequence;
    return header;
  };
  CommandHeader decided{.kind = CommandKind::kLeaseExpire};
  decided.term = kTerm;
  etcdserverpb::DeleteRangeRequest removed;
  removed.set_key("gone");
  etcdserverpb::CompactionRequest compacted;
  compacted.set_revision(3);
  etcdserverpb::LeaseRevokeRequest revoked;
  revoked.set_id(11);
  return {
      {"put", asked(CommandKind::kPut), put("greeting", "hello")},
      {"put_alone", {.kind = CommandKind::kPut}, put("gone", "soon")},
      {"put_of_many", asked(CommandKind::kPut), put("gone/1", std::string(300, 'x'))},
      {"lease_grant", granted(7, 3'600'000), grant(7, 3600)},
      {"lease_grant_negative", granted(-15, 7'200'000), grant(-15, 7200)},
      {"lease_grant_of_other", granted(15, 3'600'000), grant(15, 3600)},
      {"put_leased", asked(CommandKind::kPut), put("session/a", "leased", 7)},
      {"txn", asked(CommandKind::kTxn), txn()},
      {"session_open", asked(CommandKind::kSessionOpen), session_open()},
      {"put_in_session", in_session(CommandKind::kPut, 1), put("session/b", "in it", 9)},
      {"internal", in_session(CommandKind::kInternal, 2), internal()},
      {"delete_range", asked(CommandKind::kDeleteRange), removed.SerializeAsString()},
      {"compact", asked(CommandKind::kCompact), compacted.SerializeAsString()},
      {"lease_expire", decided, expire({LeaseId(13), LeaseId(-99)})},
      {"lease_revoke", asked(CommandKind::kLeaseRevoke), revoked.SerializeAsString()},
      {"put_last", asked(CommandKind::kPut), put("last", "the newest")},
  };
}

void apply_commands(keyspace::Keyspace& keyspace, size_t begin, size_t end) {
  const std::vector<WrittenCommand> commands = written_commands();
  for (size_t i = begin; i < end; ++i) {
    bool done = keyspace.apply(kFirstCommand + i, kTerm, commands[i].bytes());
    while (!done) done = keyspace.run_slice();
    EXPECT_EQ(keyspace.reply().error, keyspace::ErrorId::kNone) << commands[i].name;
  }
}

Membership three_voters() {
  const std::array ids = {NodeId(1), NodeId(2), NodeId(3)};
  return Membership::of_voters(ids);
}

Membership joint_membership() {
  Membership membership;
  membership.set_joint(true);
  const std::array members = {
      Member{.id = NodeId(1),
             .role = MemberRole::kVoter,
             .incarnation = Incarnation(1),
             .role_before = MemberRole::kVoter,
             .incarnation_before = Incarnation(1)},
      Member{.id = NodeId(2),
             .role = MemberRole::kVoter,
             .incarnation = Incarnation(1'764'115'200'000),
             .role_before = MemberRole::kVoter,
             .incarnation_before = Incarnation(1)},
      Member{.id = NodeId(300), .role_before = MemberRole::kVoter, .incarnation_before = Incarnation(1)},
      Member{.id = NodeId(0x8000000000000003), .role = MemberRole::kLearner},
      Member{.id = NodeId(0xffffffffffffffff), .role = MemberRole::kPromotable, .role_before = MemberRole::kPromotable},
  };
  for (const Member& member : members) EXPECT_TRUE(membership.set(member));
  EXPECT_EQ(membership.invalid_reason(), "");
  return membership;
}

}  // namespace conclave::compat
