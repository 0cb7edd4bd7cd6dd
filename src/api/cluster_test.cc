#include "api/testing/cluster.h"
#include "api/members.h"
#include "etcd/health.pb.h"

namespace conclave::api {
namespace {

using namespace std::chrono_literals;
using testing::Cluster;

class ClusterTest : public ::testing::Test {
 protected:
  ClusterTest() : cluster_(Cluster::Options{.servers = 3}) { cluster_.elect(); }
  template <class Request>
  std::string outcome(const std::string& path, const Request& request, uint64_t at = 1) {
    return cluster_.call(path, request, at)->outcome();
  }
  static net::HttpResponse http(Cluster& cluster, const std::string& target, uint64_t at = 1,
                                const std::string& method = "GET") {
    net::HttpResponse got{.status = 0};
    int answers = 0;
    cluster.service(at).on_http({.method = method, .target = target}, [&](const net::HttpResponse& response) {
      got = response;
      ++answers;
    });
    cluster.advance(8s);
    EXPECT_EQ(answers, 1) << target;
    return got;
  }
  Cluster cluster_;
};

TEST_F(ClusterTest, EveryServerListsAll) {
  for (uint64_t at = 1; at <= 3; ++at) {
    for (const bool linearizable : {false, true}) {
      etcdserverpb::MemberListRequest request;
      request.set_linearizable(linearizable);
      auto call = cluster_.open("/etcdserverpb.Cluster/MemberList", at);
      call->say(request);
      cluster_.advance(100ms);
      ASSERT_EQ(call->outcome(), "OK");
      const auto response = call->answer<etcdserverpb::MemberListResponse>();
      ASSERT_EQ(response.members_size(), 3);
      for (int i = 0; i < 3; ++i) {
        const std::string name = "n" + std::to_string(i + 1);
        EXPECT_EQ(response.members(i).id(), static_cast<uint64_t>(i + 1));
        EXPECT_EQ(response.members(i).name(), name) << "as each published it";
        EXPECT_EQ(response.members(i).clienturls(0), "http://" + name + ":2379");
        EXPECT_EQ(response.members(i).peerurls(0), "http://" + name + ":2380");
        EXPECT_FALSE(response.members(i).islearner());
      }
    }
  }
  EXPECT_EQ(cluster_.keyspace().revision(), Revision(1)) << "members are no keys";
  EXPECT_NE(cluster_.keyspace(2).record(member_record_key(NodeId(3))), nullptr);
  EXPECT_EQ(member_record_key(NodeId(0xab)), "member/00000000000000ab");
}

TEST_F(ClusterTest, AServerWithoutALeaderPublishesLater) {
  Cluster cluster(Cluster::Options{.servers = 3});
  cluster.server(3).cut_off = true;
  cluster.elect();
  EXPECT_EQ(cluster.keyspace(1).record(member_record_key(NodeId(3))), nullptr);
  EXPECT_NE(cluster.keyspace(1).record(member_record_key(NodeId(2))), nullptr);
  cluster.server(3).cut_off = false;
  cluster.advance(20s);
  EXPECT_NE(cluster.keyspace(1).record(member_record_key(NodeId(3))), nullptr);
}

TEST_F(ClusterTest, MembershipIsNotChangedYet) {
  const std::string text = "12 membership cannot be changed yet: the members are those the cluster began with";
  EXPECT_EQ(outcome("/etcdserverpb.Cluster/MemberAdd", etcdserverpb::MemberAddRequest()), text);
  EXPECT_EQ(outcome("/etcdserverpb.Cluster/MemberRemove", etcdserverpb::MemberRemoveRequest()), text);
  EXPECT_EQ(outcome("/etcdserverpb.Cluster/MemberUpdate", etcdserverpb::MemberUpdateRequest()), text);
  EXPECT_EQ(outcome("/etcdserverpb.Cluster/MemberPromote", etcdserverpb::MemberPromoteRequest()), text);
}

TEST_F(ClusterTest, StatusOfEachServer) {
  cluster_.put("a", std::string(10'000, 'v'));
  cluster_.put("a", "");
  cluster_.advance(1s);
  for (uint64_t at = 1; at <= 3; ++at) {
    const auto status = cluster_.call("/etcdserverpb.Maintenance/Status", etcdserverpb::StatusRequest(), at)
                            ->answer<etcdserverpb::StatusResponse>();
    EXPECT_EQ(status.version(), "3.6.0");
    EXPECT_EQ(status.leader(), cluster_.leader());
    EXPECT_EQ(status.header().member_id(), at);
    EXPECT_EQ(status.raftindex(), status.raftappliedindex());
    EXPECT_GT(status.raftindex(), 4U);
    EXPECT_GT(status.raftterm(), 0U);
    EXPECT_GT(status.dbsize(), 10'000);
    EXPECT_LT(status.dbsizeinuse(), status.dbsize() - 10'000) << "the first value is history";
    EXPECT_EQ(status.errors_size(), 0);
    EXPECT_FALSE(status.islearner());
  }
  const uint64_t follower = cluster_.follower();
  cluster_.server(follower).cut_off = true;
  cluster_.advance(5s);
  const auto alone = cluster_.call("/etcdserverpb.Maintenance/Status", etcdserverpb::StatusRequest(), follower)
                         ->answer<etcdserverpb::StatusResponse>();
  EXPECT_EQ(alone.leader(), 0U);
  ASSERT_EQ(alone.errors_size(), 1);
  EXPECT_EQ(alone.errors(0), "etcdserver: no leader");
}

TEST_F(ClusterTest, HashesAgreeBetweenServers) {
  for (int i = 0; i < 10; ++i) cluster_.put("k" + std::to_string(i % 3), std::to_string(i));
  cluster_.advance(1s);
  std::set<uint32_t> hashes;
  std::set<uint32_t> kv_hashes;
  for (uint64_t at = 1; at <= 3; ++at) {
    hashes.insert(cluster_.call("/etcdserverpb.Maintenance/Hash", etcdserverpb::HashRequest(), at)
                      ->answer<etcdserverpb::HashResponse>()
                      .hash());
    const auto kv = cluster_.call("/etcdserverpb.Maintenance/HashKV", etcdserverpb::HashKVRequest(), at)
                        ->answer<etcdserverpb::HashKVResponse>();
    kv_hashes.insert(kv.hash());
    EXPECT_EQ(kv.hash_revision(), 11);
    EXPECT_EQ(kv.compact_revision(), -1);
  }
  EXPECT_EQ(hashes.size(), 1U);
  EXPECT_EQ(kv_hashes.size(), 1U);
  etcdserverpb::HashKVRequest request;
  request.set_revision(11);
  EXPECT_EQ(outcome("/etcdserverpb.Maintenance/HashKV", request), "OK");
  request.set_revision(12);
  EXPECT_EQ(outcome("/etcdserverpb.Maintenance/HashKV", request),
            "11 etcdserver: mvcc: required revision is a future revision");
  request.set_revision(5);
  EXPECT_EQ(outcome("/etcdserverpb.Maintenance/HashKV", request), "12 only the newest revision can be hashed");
  etcdserverpb::CompactionRequest compact;
  compact.set_revision(9);
  EXPECT_EQ(outcome("/etcdserverpb.KV/Compact", compact, cluster_.leader()), "OK");
  cluster_.advance(1s);
  EXPECT_EQ(outcome("/etcdserverpb.Maintenance/HashKV", request),
            "11 etcdserver: mvcc: required revision has been compacted");
}

TEST_F(ClusterTest, LeadershipMoves) {
  const uint64_t before = cluster_.leader();
  const uint64_t target = cluster_.follower();
  etcdserverpb::MoveLeaderRequest request;
  request.set_targetid(target);
  EXPECT_EQ(outcome("/etcdserverpb.Maintenance/MoveLeader", request, target), "9 etcdserver: not leader");
  auto call = cluster_.open("/etcdserverpb.Maintenance/MoveLeader", before);
  call->say(request);
  cluster_.advance(500ms);
  EXPECT_EQ(call->outcome(), "OK");
  EXPECT_EQ(cluster_.leader(), target);
  EXPECT_EQ(outcome("/etcdserverpb.Maintenance/MoveLeader", request, target), "OK") << "leads already";
  request.set_targetid(99);
  EXPECT_EQ(outcome("/etcdserverpb.Maintenance/MoveLeader", request, target), "9 etcdserver: bad leader transferee");
  // To one that does not answer.
  request.set_targetid(before);
  cluster_.server(before).cut_off = true;
  call = cluster_.open("/etcdserverpb.Maintenance/MoveLeader", target);
  call->say(request);
  cluster_.advance(10s);
  EXPECT_TRUE(call->outcome() == "14 etcdserver: request timed out" ||
              call->outcome() == "9 etcdserver: bad leader transferee")
      << call->outcome();
}

TEST_F(ClusterTest, TheRestOfMaintenance) {
  EXPECT_EQ(outcome("/etcdserverpb.Maintenance/Defragment", etcdserverpb::DefragmentRequest()), "OK");
  etcdserverpb::AlarmRequest alarm;
  auto call = cluster_.call("/etcdserverpb.Maintenance/Alarm", alarm);
  EXPECT_EQ(call->answer<etcdserverpb::AlarmResponse>().alarms_size(), 0);
  alarm.set_action(etcdserverpb::AlarmRequest::DEACTIVATE);
  EXPECT_EQ(outcome("/etcdserverpb.Maintenance/Alarm", alarm), "OK");
  alarm.set_action(etcdserverpb::AlarmRequest::ACTIVATE);
  EXPECT_EQ(outcome("/etcdserverpb.Maintenance/Alarm", alarm), "12 alarms cannot be raised by hand");
  EXPECT_EQ(outcome("/etcdserverpb.Maintenance/Snapshot", etcdserverpb::SnapshotRequest()),
            "12 snapshots in etcd's file format are not offered");
  EXPECT_EQ(outcome("/etcdserverpb.Maintenance/Downgrade", etcdserverpb::DowngradeRequest()),
            "12 there is no version to go down to");
  const auto auth = cluster_.call("/etcdserverpb.Auth/AuthStatus", etcdserverpb::AuthStatusRequest());
  EXPECT_FALSE(auth->answer<etcdserverpb::AuthStatusResponse>().enabled());
  EXPECT_EQ(outcome("/etcdserverpb.Auth/Authenticate", etcdserverpb::AuthenticateRequest()),
            "9 etcdserver: authentication is not enabled");
}

TEST_F(ClusterTest, Health) {
  using grpc::health::v1::HealthCheckRequest;
  using grpc::health::v1::HealthCheckResponse;
  auto check = [&](uint64_t at) {
    return cluster_.call("/grpc.health.v1.Health/Check", HealthCheckRequest(), at)
        ->answer<HealthCheckResponse>()
        .status();
  };
  EXPECT_EQ(check(1), HealthCheckResponse::SERVING);
  HealthCheckRequest other;
  other.set_service("other");
  EXPECT_EQ(outcome("/grpc.health.v1.Health/Check", other), "5 unknown service");
  EXPECT_EQ(http(cluster_, "/health").body, R"({"health":"true","reason":""})");
  EXPECT_EQ(http(cluster_, "/readyz").body, "ok\n");
  // Cut off, and not yet knowing it: the read is what tells.
  const uint64_t leader = cluster_.leader();
  cluster_.server(leader).cut_off = true;
  net::HttpResponse got{.status = 0};
  cluster_.service(leader).on_http({.method = "GET", .target = "/health"},
                                   [&](const net::HttpResponse& response) { got = response; });
  cluster_.advance(100ms);
  EXPECT_EQ(got.status, 0);
  cluster_.advance(9s);
  EXPECT_EQ(got.status, 503);
  EXPECT_EQ(got.body, R"({"health":"false","reason":"etcdserver: request timed out"})");
  EXPECT_EQ(http(cluster_, "/health", leader).body, R"({"health":"false","reason":"RAFT NO LEADER"})");
  EXPECT_EQ(http(cluster_, "/readyz", leader).status, 503);
  EXPECT_EQ(http(cluster_, "/livez", leader).status, 200);
  EXPECT_EQ(http(cluster_, "/health?serializable=true", leader).status, 200);
  EXPECT_EQ(check(leader), HealthCheckResponse::NOT_SERVING);
}

TEST_F(ClusterTest, VersionMetricsAndNothingElse) {
  EXPECT_EQ(http(cluster_, "/version").body, R"({"etcdserver":"3.6.0","etcdcluster":"3.6.0","storage":"3.6.0"})");
  cluster_.put("a", "1");
  cluster_.put("b", "1");
  cluster_.remove("b");
  (void)outcome("/etcdserverpb.KV/Put", etcdserverpb::PutRequest());
  cluster_.advance(1s);
  const net::HttpResponse metrics = http(cluster_, "/metrics");
  EXPECT_EQ(metrics.status, 200);
  for (const std::string line :
       {"conclave_revision 4", "conclave_keys 1", "conclave_raft_has_leader 1", "# TYPE conclave_raft_term gauge",
        "conclave_requests_total{method=\"etcdserverpb.KV/Put\",code=\"0\"} 2",
        "conclave_requests_total{method=\"etcdserverpb.KV/Put\",code=\"3\"} 1", "conclave_writes_pending 0",
        "conclave_watchers 0", "conclave_leases 0", "conclave_calls_open 0"}) {
    EXPECT_NE(metrics.body.find(line + "\n"), std::string::npos) << line << "\n" << metrics.body;
  }
  EXPECT_EQ(http(cluster_, "/nothing").status, 404);
  EXPECT_EQ(http(cluster_, "/healthz").status, 404);
  EXPECT_EQ(http(cluster_, "/health", 1, "POST").status, 405);
}

}  // namespace
}  // namespace conclave::api
