// Each error of etcd's table that can occur here: what brings it about, and its code and exact text. Those that cannot:
//
// - What needs users and roles, which nobody has yet: authentication failed; invalid auth management; revision of auth
//   store is old; root user does not have root role; user name already exists; role name already exists; role is not
//   granted to the user; permission is not granted to the role; permission denied; invalid auth token.
// - invalid client api version, not capable: no version of a client is refused, nothing waits for a version.
// - cluster ID mismatch: members of another cluster are turned away between servers, where no client hears of it.
// - cluster version not found during downgrade: a server does not start without one. cluster has a downgrade job in
//   progress: none ever begins.
// - watch canceled, request canceled: a client that left is told nothing. context deadline exceeded: said without
//   "etcdserver: " by what counts the time, the client or, over HTTP, the call (json_test.cc).
// - corrupt cluster of a server's own accord: one whose state differs ends (node/digest_comparison.h), it does not go
//   on and say so. Where a client raised that alarm: alarms_test.cc.
// - server stopped: calls end with their connection. request timed out, with what it may be due to: one text for all,
//   since this server does not know.
#include <set>

#include <google/protobuf/text_format.h>

#include "api/testing/cluster.h"
#include "base/node_id.h"
#include "conclave/v1/cluster.pb.h"
#include "etcd/election.pb.h"
#include "etcd/lock.pb.h"

namespace conclave::api {
namespace {

using namespace std::chrono_literals;
using testing::Cluster;

struct Row {
  std::string method;   // in etcdserverpb, or whole
  std::string request;  // in protobuf's text format
  std::string outcome;
};

std::string repeat(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

// A request of its method's type.
std::string encode(const std::string& path, const std::string& text) {
  std::string name = path.substr(1);
  std::ranges::replace(name, '/', '.');
  const auto* method = google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(name);
  EXPECT_NE(method, nullptr) << name;
  const std::unique_ptr<google::protobuf::Message> message(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(method->input_type())->New());
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, message.get())) << text;
  return message->SerializeAsString();
}

// Keys a and b at revisions 2, 3 and 4, compacted at 3; lease 7.
class ErrorsTest : public ::testing::Test {
 protected:
  ErrorsTest() {
    cluster_.elect();
    cluster_.put("a", "1");
    cluster_.put("a", "2");
    cluster_.put("b", "1");
    cluster_.grant(600, 7);
    EXPECT_EQ(outcome("KV/Compact", "revision: 3"), "OK");
  }
  std::string outcome(const std::string& method, const std::string& request) {
    const std::string path = method.front() == '/' ? method : "/etcdserverpb." + method;
    auto call = cluster_.open(path);
    call->say(encode(path, request));
    call->half_close();
    cluster_.advance(3s);
    return call->outcome();
  }
  Cluster cluster_;
};

TEST_F(ErrorsTest, EachOfTheTable) {
  const std::string put = "request_put { key: 'k' }";
  const std::vector<Row> rows = {
      // InvalidArgument.
      {"KV/Put", "", "3 etcdserver: key is not provided"},
      {"KV/Range", "", "3 etcdserver: key is not provided"},
      {"KV/DeleteRange", "range_end: 'x'", "3 etcdserver: key is not provided"},
      {"KV/Txn", "compare { }", "3 etcdserver: key is not provided"},
      {"KV/Txn", "failure { request_txn { success { request_range { } } } }", "3 etcdserver: key is not provided"},
      {"/v3lockpb.Lock/Unlock", "", "3 etcdserver: key is not provided"},
      {"KV/Put", "key: 'none' ignore_value: true", "3 etcdserver: key not found"},
      {"KV/Put", "key: 'none' ignore_lease: true", "3 etcdserver: key not found"},
      {"KV/Txn", "success { }", "3 etcdserver: key not found"},
      {"KV/Put", "key: 'a' value: 'x' ignore_value: true", "3 etcdserver: value is provided"},
      {"KV/Put", "key: 'a' lease: 7 ignore_lease: true", "3 etcdserver: lease is provided"},
      {"KV/Txn", repeat("success { request_range { key: 'a' } }", 129),
       "3 etcdserver: too many operations in txn request"},
      {"KV/Txn", repeat("compare { key: 'a' }", 129), "3 etcdserver: too many operations in txn request"},
      {"KV/Txn", "success { " + put + " } success { " + put + " }", "3 etcdserver: duplicate key given in txn request"},
      {"KV/Txn", "success { " + put + " } success { request_delete_range { key: 'a' range_end: 'z' } }",
       "3 etcdserver: duplicate key given in txn request"},
      {"KV/Range", "key: 'a' sort_order: 9", "3 etcdserver: invalid sort option"},
      {"KV/Range", "key: 'a' sort_target: 9", "3 etcdserver: invalid sort option"},
      {"KV/Put", "key: 'a' value: '" + std::string(1'600'000, 'v') + "'", "3 etcdserver: request is too large"},
      {"Auth/UserAdd", "", "3 etcdserver: user name is empty"},
      {"Auth/RoleAdd", "", "3 etcdserver: role name is empty"},
      {"Auth/RoleGrantPermission", "name: 'r'", "3 etcdserver: permission not given"},
      {"Cluster/MemberAdd", "", "3 etcdserver: given member URLs are invalid"},
      {"Cluster/MemberAdd", "peerURLs: 'n4:2380'", "3 etcdserver: given member URLs are invalid"},
      {"Cluster/MemberAdd", "peerURLs: 'http://n4'", "3 etcdserver: given member URLs are invalid"},
      {"Cluster/MemberAdd", "peerURLs: 'http://:2380'", "3 etcdserver: given member URLs are invalid"},
      {"Cluster/MemberAdd", "peerURLs: 'http://n4:2380/'", "3 etcdserver: given member URLs are invalid"},
      {"Cluster/MemberAdd", "peerURLs: 'http://n4:70000'", "3 etcdserver: given member URLs are invalid"},
      {"Cluster/MemberAdd", repeat("peerURLs: 'http://n4:2380' ", 17), "3 etcdserver: given member URLs are invalid"},
      {"Cluster/MemberUpdate", "ID: 1", "3 etcdserver: given member URLs are invalid"},
      {"/conclave.v1.Cluster/AddMember", "name: 'n4' address: 'n4'", "3 etcdserver: given member URLs are invalid"},
      {"/conclave.v1.Cluster/AddMember", "name: 'n 4' address: 'n4:2380'", "3 not a name that a server can have"},
      {"Maintenance/Downgrade", "version: ''", "3 etcdserver: wrong downgrade target version format"},
      {"Maintenance/Downgrade", "version: '3.'", "3 etcdserver: wrong downgrade target version format"},
      {"Maintenance/Downgrade", "version: '3.5.0.1'", "3 etcdserver: wrong downgrade target version format"},
      {"Maintenance/Downgrade", "version: '3.4.0'", "3 etcdserver: invalid downgrade target version"},
      {"Maintenance/Downgrade", "action: ENABLE version: '2.5'", "3 etcdserver: invalid downgrade target version"},
      {"Maintenance/Downgrade", "version: '3.5'", "OK"},
      {"Maintenance/Downgrade", "action: ENABLE version: '3.5'", "12 there is no version to go down to"},
      // OutOfRange.
      {"KV/Range", "key: 'a' revision: 2", "11 etcdserver: mvcc: required revision has been compacted"},
      {"KV/Compact", "revision: 3", "11 etcdserver: mvcc: required revision has been compacted"},
      {"KV/Txn", "success { request_range { key: 'a' revision: 2 } }",
       "11 etcdserver: mvcc: required revision has been compacted"},
      {"Maintenance/HashKV", "revision: 2", "11 etcdserver: mvcc: required revision has been compacted"},
      {"KV/Range", "key: 'a' revision: 99", "11 etcdserver: mvcc: required revision is a future revision"},
      {"KV/Compact", "revision: 99", "11 etcdserver: mvcc: required revision is a future revision"},
      {"KV/Txn", "success { request_range { key: 'a' revision: 99 } }",
       "11 etcdserver: mvcc: required revision is a future revision"},
      {"Maintenance/HashKV", "revision: 99", "11 etcdserver: mvcc: required revision is a future revision"},
      {"Lease/LeaseGrant", "TTL: 9000000001", "11 etcdserver: too large lease TTL"},
      // NotFound.
      {"KV/Put", "key: 'a' lease: 99", "5 etcdserver: requested lease not found"},
      {"Lease/LeaseRevoke", "ID: 99", "5 etcdserver: requested lease not found"},
      {"/v3electionpb.Election/Campaign", "name: 'e' lease: 99", "5 etcdserver: requested lease not found"},
      {"Cluster/MemberRemove", "ID: 99", "5 etcdserver: member not found"},
      {"Cluster/MemberRemove", "", "5 etcdserver: member not found"},
      {"Cluster/MemberPromote", "ID: 99", "5 etcdserver: member not found"},
      {"Cluster/MemberUpdate", "ID: 99 peerURLs: 'http://n9:1'", "5 etcdserver: member not found"},
      {"Cluster/MemberUpdate", "ID: 99", "5 etcdserver: member not found"},
      {"/conclave.v1.Cluster/ReplaceMember", "old_id: 99 name: 'n4' address: 'n4:2380'",
       "5 etcdserver: member not found"},
      {"/conclave.v1.Cluster/ReplaceMember", "name: 'n4' address: 'n4:2380'", "5 etcdserver: member not found"},
      // FailedPrecondition.
      {"Cluster/MemberAdd", "peerURLs: 'http://n4:2380' peerURLs: 'http://n1:2380'",
       "9 etcdserver: Peer URLs already exists"},
      {"/conclave.v1.Cluster/AddMember", "name: 'n1' address: 'n4:2380'", "9 etcdserver: member ID already exist"},
      {"Cluster/MemberPromote", "ID: 1", "9 etcdserver: can only promote a learner member"},
      {"Cluster/MemberRemove", "ID: 1", "9 etcdserver: re-configuration failed due to not enough started members"},
      {"/conclave.v1.Cluster/ReplaceMember", "old_id: 1 name: 'n4' address: 'n4:2380'",
       "9 etcdserver: re-configuration failed due to not enough started members"},
      {"Lease/LeaseGrant", "TTL: 10 ID: 7", "9 etcdserver: lease already exists"},
      {"Maintenance/MoveLeader", "targetID: 99", "9 etcdserver: bad leader transferee"},
      {"Maintenance/Downgrade", "action: CANCEL", "9 etcdserver: no inflight downgrade job"},
      {"Auth/AuthEnable", "", "9 etcdserver: root user does not exist"},
      {"Auth/Authenticate", "name: 'u' password: 'p'", "9 etcdserver: authentication is not enabled"},
      {"Auth/UserAdd", "name: 'u' password: 'p'", "9 etcdserver: authentication is not enabled"},
      {"Auth/RoleAdd", "name: 'r'", "9 etcdserver: authentication is not enabled"},
      {"Auth/UserGet", "name: 'u'", "9 etcdserver: user name not found"},
      {"Auth/UserDelete", "name: 'u'", "9 etcdserver: user name not found"},
      {"Auth/UserChangePassword", "name: 'u'", "9 etcdserver: user name not found"},
      {"Auth/UserGrantRole", "user: 'u' role: 'r'", "9 etcdserver: user name not found"},
      {"Auth/UserRevokeRole", "name: 'u' role: 'r'", "9 etcdserver: user name not found"},
      {"Auth/RoleGet", "role: 'r'", "9 etcdserver: role name not found"},
      {"Auth/RoleDelete", "role: 'r'", "9 etcdserver: role name not found"},
      {"Auth/RoleGrantPermission", "name: 'r' perm { }", "9 etcdserver: role name not found"},
      {"Auth/RoleRevokePermission", "role: 'r'", "9 etcdserver: role name not found"},
      {"Auth/AuthStatus", "", "OK"},
      {"Auth/AuthDisable", "", "OK"},
      {"Auth/UserList", "", "OK"},
      {"Auth/RoleList", "", "OK"},
      // Outside etcd's own table, and what its clients match.
      {"/v3lockpb.Lock/Lock", "name: 'l' lease: 99", "5 etcdserver: requested lease not found"},
      {"/v3electionpb.Election/Leader", "name: 'nobody'", "2 election: no leader"},
      {"/v3electionpb.Election/Proclaim", "leader { name: 'e' key: 'e/1' rev: 1 lease: 7 }", "2 election: not leader"},
      {"/v3electionpb.Election/Proclaim", "", "2 \"leader\" field must be provided"},
      {"/v3electionpb.Election/Resign", "", "2 \"leader\" field must be provided"},
  };
  const Revision before = cluster_.keyspace().revision();
  for (const Row& row : rows) {
    EXPECT_EQ(outcome(row.method, row.request), row.outcome) << row.method << " " << row.request.substr(0, 200);
  }
  EXPECT_EQ(cluster_.keyspace().revision(), before) << "what was refused did nothing";
  EXPECT_EQ(cluster_.keyspace().tables().records().size(), 1U)
      << "nor is there a record of who did not become a member";
}

TEST_F(ErrorsTest, OfALearner) {
  Cluster two(Cluster::Options{.servers = 2, .has_learner = true});
  two.elect();
  two.put("a", "1");
  two.advance(500ms);
  auto outcome_at = [&](const std::string& path, const std::string& request) {
    auto call = two.open(path, 2);
    call->say(encode(path, request));
    call->half_close();
    two.advance(3s);
    return call->outcome();
  };
  const std::string unsupported = "9 etcdserver: rpc not supported for learner";
  EXPECT_EQ(outcome_at("/etcdserverpb.KV/Range", "key: 'a' serializable: true"), "OK");
  EXPECT_EQ(outcome_at("/etcdserverpb.KV/Range", "key: 'a'"), unsupported);
  EXPECT_EQ(outcome_at("/etcdserverpb.KV/Put", "key: 'a'"), unsupported);
  EXPECT_EQ(outcome_at("/etcdserverpb.Watch/Watch", "create_request { key: 'a' }"), unsupported);
  EXPECT_EQ(outcome_at("/etcdserverpb.Cluster/MemberList", ""), unsupported);
  EXPECT_EQ(outcome_at("/etcdserverpb.Maintenance/Status", ""), "OK");
}

TEST_F(ErrorsTest, WithoutALeader) {
  Cluster three(Cluster::Options{.servers = 3});
  three.elect();
  const uint64_t follower = three.follower();
  auto outcome_at = [&](const std::string& path, const std::string& request, bool hasleader) {
    std::map<std::string, std::string> headers;
    if (hasleader) headers["hasleader"] = "true";
    auto call = three.open(path, follower, headers);
    call->say(encode(path, request));
    three.advance(10s);
    return call->outcome();
  };
  EXPECT_EQ(outcome_at("/etcdserverpb.Maintenance/MoveLeader", "targetID: 1", false), "9 etcdserver: not leader");
  three.server(follower).cut_off = true;
  three.advance(5s);
  EXPECT_EQ(outcome_at("/etcdserverpb.KV/Put", "key: 'a'", true), "14 etcdserver: no leader");
  EXPECT_EQ(outcome_at("/etcdserverpb.Watch/Watch", "create_request { key: 'a' }", true), "14 etcdserver: no leader");
  EXPECT_EQ(outcome_at("/etcdserverpb.KV/Put", "key: 'a'", false), "14 etcdserver: no leader");
  // A leader that does not know yet that it is alone cannot tell what becomes of a write.
  const uint64_t leader = three.leader();
  three.server(leader).cut_off = true;
  auto call = three.open("/etcdserverpb.KV/Put", leader);
  call->say(encode("/etcdserverpb.KV/Put", "key: 'a'"));
  three.advance(10s);
  EXPECT_EQ(call->outcome(), "14 etcdserver: request timed out");
}

TEST_F(ErrorsTest, OfMembersThatAreNotReady) {
  Cluster three(Cluster::Options{.servers = 3});
  const uint64_t leader = three.elect();
  auto outcome_at_leader = [&](const std::string& path, const std::string& request) {
    auto call = three.open(path, leader);
    call->say(encode(path, request));
    call->half_close();
    three.advance(3s);
    return call->outcome();
  };
  EXPECT_EQ(outcome_at_leader("/conclave.v1.Cluster/AddMember", "name: 'n4' address: 'n4:2380' learner: true"), "OK");
  EXPECT_EQ(
      outcome_at_leader("/etcdserverpb.Cluster/MemberPromote", "ID: " + std::to_string(node_id_of("n4:2380").value())),
      "9 etcdserver: can only promote a learner member which is in sync with leader");
  EXPECT_EQ(outcome_at_leader("/etcdserverpb.Cluster/MemberAdd", "peerURLs: 'http://n5:2380' isLearner: true"),
            "9 etcdserver: too many learner members in cluster");
  const uint64_t away = leader == 3 ? 2 : 3;
  three.server(away).cut_off = true;
  three.advance(3s);
  EXPECT_EQ(outcome_at_leader("/etcdserverpb.Cluster/MemberRemove", "ID: " + std::to_string(6 - leader - away)),
            "14 etcdserver: unhealthy cluster");
}

TEST_F(ErrorsTest, OfAFullDisk) {
  cluster_.server().replica->on_storage(cluster_.clock.instant,
                                        node::SpaceChanged{.group = Cluster::kGroup, .full = true});
  EXPECT_EQ(outcome("KV/Put", "key: 'a'"), "8 etcdserver: mvcc: database space exceeded");
  EXPECT_EQ(outcome("KV/Range", "key: 'a'"), "OK");
  cluster_.server().replica->on_storage(cluster_.clock.instant,
                                        node::SpaceChanged{.group = Cluster::kGroup, .full = false});
  EXPECT_EQ(outcome("KV/Put", "key: 'a'"), "OK");
}

TEST_F(ErrorsTest, OfAStateThatIsReplaced) {
  const std::string path = "/etcdserverpb.Watch/Watch";
  auto watch = cluster_.open(path);
  watch->say(encode(path, "create_request { key: 'a' }"));
  cluster_.settle();
  cluster_.service().on_state_replaced();
  EXPECT_EQ(watch->outcome(), "14 etcdserver: leader changed");
}

// What refuses a watcher, or ends it, stands in its answers: the stream goes on.
TEST_F(ErrorsTest, OfAWatcher) {
  const std::string path = "/etcdserverpb.Watch/Watch";
  auto watch = cluster_.open(path);
  auto answer_to = [&](const std::string& create) {
    watch->sent.clear();
    watch->say(encode(path, "create_request { " + create + " }"));
    cluster_.settle();
    return watch->answer<etcdserverpb::WatchResponse>(watch->sent.size() - 1);
  };
  EXPECT_FALSE(answer_to("key: 'a' watch_id: 7").canceled());
  for (const auto& [create, reason] : std::vector<std::pair<std::string, std::string>>{
           {"key: 'a' watch_id: 7", "mvcc: duplicate watch ID provided on the WatchStream"},
           {"key: 'b' range_end: 'a'", "mvcc: watcher range is empty"},
           {"key: 'a' start_revision: -1", "mvcc: required revision has been compacted"},
       }) {
    const auto refused = answer_to(create);
    EXPECT_TRUE(refused.created() && refused.canceled()) << create;
    EXPECT_EQ(refused.watch_id(), -1) << create;
    EXPECT_EQ(refused.cancel_reason(), reason) << create;
  }
  const auto ended = answer_to("key: 'a' start_revision: 2");
  EXPECT_TRUE(ended.canceled());
  EXPECT_EQ(ended.compact_revision(), 3);
  EXPECT_EQ(ended.cancel_reason(), "");
  EXPECT_FALSE(watch->ended());
}

TEST_F(ErrorsTest, TooManyRequests) {
  Cluster::Options options;
  options.replica.writes_pending_max = 2;
  Cluster cluster(options);
  cluster.elect();
  cluster.server().disk_stopped = true;
  std::vector<std::unique_ptr<testing::FakeCall>> calls;
  for (int i = 0; i < 3; ++i) {
    calls.push_back(cluster.open("/etcdserverpb.KV/Put"));
    calls.back()->say(encode("/etcdserverpb.KV/Put", "key: 'a'"));
  }
  EXPECT_EQ(calls[2]->outcome(), "8 etcdserver: too many requests");
  EXPECT_FALSE(calls[0]->ended());
  EXPECT_GE(calls[2]->status->retry_after, net::kRetryAfter / 2);
  EXPECT_LE(calls[2]->status->retry_after, 3 * net::kRetryAfter / 2);
  // Those refused together are not sent back together.
  std::set<Duration> hints;
  for (int i = 0; i < 10; ++i) {
    auto call = cluster.open("/etcdserverpb.KV/Put");
    call->say(encode("/etcdserverpb.KV/Put", "key: 'a'"));
    hints.insert(call->status->retry_after);
  }
  EXPECT_GT(hints.size(), 5U);
}

// What does not pass by waiting says nothing of it.
TEST_F(ErrorsTest, OnlyOverloadHintsWhenToAskAgain) {
  Cluster cluster;
  cluster.elect();
  const auto refused = [&](const std::string& path, const std::string& text) {
    auto call = cluster.open(path);
    call->say(encode(path, text));
    cluster.settle();
    EXPECT_TRUE(call->ended() && !call->ok()) << path;
    return call->status->retry_after;
  };
  EXPECT_EQ(refused("/etcdserverpb.KV/Put", ""), Duration::zero());
  EXPECT_EQ(refused("/etcdserverpb.Lease/LeaseRevoke", "ID: 7"), Duration::zero());
}

}  // namespace
}  // namespace conclave::api
