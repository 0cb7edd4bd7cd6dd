#include <array>

#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/descriptor_database.h>
#include <openssl/evp.h>

#include "api/members.h"
#include "api/testing/cluster.h"
#include "base/node_id.h"
#include "conclave/v1/cluster.pb.h"
#include "etcd/health.pb.h"
#include "grpc/reflection_v1.pb.h"
#include "keyspace/snapshot.h"

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
  uint32_t hash_at(uint64_t at, int64_t revision) {
    etcdserverpb::HashKVRequest request;
    request.set_revision(revision);
    const auto call = cluster_.call("/etcdserverpb.Maintenance/HashKV", request, at);
    EXPECT_EQ(call->outcome(), "OK");
    const auto response = call->answer<etcdserverpb::HashKVResponse>();
    EXPECT_TRUE(revision == 0 || response.hash_revision() == revision);
    return response.hash();
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

// A call to any server, and its answer.
template <class Response, class Request>
Response change(Cluster& cluster, const std::string& method, const Request& request, uint64_t at) {
  auto call = cluster.open("/" + method, at);
  call->say(request);
  call->half_close();
  cluster.advance(1s);
  EXPECT_EQ(call->outcome(), "OK") << method;
  return call->answer<Response>();
}

TEST_F(ClusterTest, MembersComeAndGo) {
  const uint64_t at = cluster_.follower();
  etcdserverpb::MemberAddRequest add;
  add.add_peerurls("http://n4:02380");
  const auto added = change<etcdserverpb::MemberAddResponse>(cluster_, "etcdserverpb.Cluster/MemberAdd", add, at);
  const uint64_t id = node_id_of("n4:2380").value();
  EXPECT_EQ(added.member().id(), id);
  EXPECT_EQ(added.member().name(), "");
  EXPECT_TRUE(added.member().islearner()) << "until it has caught up";
  ASSERT_EQ(added.members_size(), 4);
  EXPECT_EQ(cluster_.server(at).replica->raft().membership().find(NodeId(id))->role, MemberRole::kPromotable);
  EXPECT_TRUE(member_record(cluster_.keyspace(at), NodeId(id)));

  etcdserverpb::MemberUpdateRequest update;
  update.set_id(id);
  update.add_peerurls("http://n4:2480");
  const auto updated =
      change<etcdserverpb::MemberUpdateResponse>(cluster_, "etcdserverpb.Cluster/MemberUpdate", update, at);
  EXPECT_EQ(updated.members_size(), 4);
  EXPECT_EQ(member_record(cluster_.keyspace(at), NodeId(id))->peerurls(0), "http://n4:2480");
  auto again = cluster_.open("/etcdserverpb.Cluster/MemberAdd", at);
  again->say(add);
  cluster_.advance(1s);
  EXPECT_EQ(again->outcome(), "9 etcdserver: member ID already exist") << "its id is that of where it was";

  etcdserverpb::MemberRemoveRequest remove;
  remove.set_id(id);
  const auto removed =
      change<etcdserverpb::MemberRemoveResponse>(cluster_, "etcdserverpb.Cluster/MemberRemove", remove, at);
  EXPECT_EQ(removed.members_size(), 3);
  EXPECT_FALSE(member_record(cluster_.keyspace(at), NodeId(id)));
  EXPECT_EQ(cluster_.keyspace().revision(), Revision(1)) << "members are no keys";
}

TEST_F(ClusterTest, AMemberComesWithItsNameAndTakesAnothersPlace) {
  v1::AddMemberRequest add;
  add.set_name("n4");
  add.set_address("n4:2380");
  add.set_learner(true);
  const auto added = change<v1::AddMemberResponse>(cluster_, "conclave.v1.Cluster/AddMember", add, 1);
  EXPECT_EQ(added.cluster_id(), Cluster::kCluster.value());
  EXPECT_EQ(NodeId(added.id()), node_id_of("n4:2380"));
  EXPECT_EQ(member_record(cluster_.keyspace(), NodeId(added.id()))->name(), "n4");
  EXPECT_EQ(cluster_.server().replica->raft().membership().find(NodeId(added.id()))->role, MemberRole::kLearner);

  etcdserverpb::MemberAddRequest second;
  second.add_peerurls("http://n5:2380");
  second.set_islearner(true);
  etcdserverpb::MemberPromoteRequest promote;
  promote.set_id(added.id());
  EXPECT_EQ(outcome("/etcdserverpb.Cluster/MemberPromote", promote, cluster_.leader()),
            "9 etcdserver: can only promote a learner member which is in sync with leader");
  EXPECT_NE(
      http(cluster_, "/metrics", cluster_.leader())
          .body.find("etcd_server_learner_promote_failures{Reason=\"etcdserver: can only promote a learner member "
                     "which is in sync with leader\"} 1\n"),
      std::string::npos);
  auto call = cluster_.open("/etcdserverpb.Cluster/MemberAdd");
  call->say(second);
  cluster_.advance(1s);
  EXPECT_EQ(call->outcome(), "9 etcdserver: too many learner members in cluster");
  EXPECT_FALSE(member_record(cluster_.keyspace(), node_id_of("n5:2380"))) << "withdrawn";

  const uint64_t old = cluster_.follower();
  v1::ReplaceMemberRequest replace;
  replace.set_old_id(old);
  replace.set_name("n" + std::to_string(old));
  replace.set_address("new:2380");
  change<v1::AddMemberResponse>(cluster_, "conclave.v1.Cluster/ReplaceMember", replace, cluster_.leader());
  const Membership& membership = cluster_.server(cluster_.leader()).replica->raft().membership();
  EXPECT_FALSE(membership.contains(NodeId(old)));
  EXPECT_TRUE(membership.contains(node_id_of("new:2380")));
  EXPECT_FALSE(member_record(cluster_.keyspace(cluster_.leader()), NodeId(old)));
}

TEST_F(ClusterTest, NoMemberGoesWhomTheOthersNeed) {
  const uint64_t leader = cluster_.leader();
  const uint64_t away = leader == 3 ? 2 : 3;
  cluster_.server(away).cut_off = true;
  cluster_.advance(3s);
  etcdserverpb::MemberRemoveRequest remove;
  remove.set_id(6 - leader - away);
  EXPECT_EQ(outcome("/etcdserverpb.Cluster/MemberRemove", remove, leader), "14 etcdserver: unhealthy cluster");
  remove.set_id(away);
  const auto removed =
      change<etcdserverpb::MemberRemoveResponse>(cluster_, "etcdserverpb.Cluster/MemberRemove", remove, leader);
  EXPECT_EQ(removed.members_size(), 2);
}

TEST_F(ClusterTest, WhoLeavesAnswersBeforeItGoes) {
  const uint64_t leader = cluster_.leader();
  etcdserverpb::MemberRemoveRequest remove;
  remove.set_id(leader);
  const auto removed =
      change<etcdserverpb::MemberRemoveResponse>(cluster_, "etcdserverpb.Cluster/MemberRemove", remove, leader);
  EXPECT_EQ(removed.members_size(), 2);
}

TEST(PeerUrlTest, OnlyAnAddressIsOne) {
  EXPECT_EQ(address_of_url("http://n1:2380"), "n1:2380");
  EXPECT_EQ(address_of_url("https://127.0.0.1:00080"), "127.0.0.1:80") << "a port has one spelling";
  for (const char* bad : {"", "n1:2380", "http://n1", "http://n1:", "http://n1:x", "http://n1:0", "http://n1:65536",
                          "http://n1:1/", "http://a@n1:1", "http://n1,n2:1", "unix://n1:1"}) {
    EXPECT_EQ(address_of_url(bad), std::nullopt) << bad;
  }
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
  EXPECT_EQ(hash_at(1, 5), hash_at(2, 5));
  EXPECT_NE(hash_at(1, 5), hash_at(1, 6));
  EXPECT_EQ(hash_at(1, 11), *kv_hashes.begin());
  const uint32_t at_ten = hash_at(1, 10);
  etcdserverpb::CompactionRequest compact;
  compact.set_revision(9);
  EXPECT_EQ(outcome("/etcdserverpb.KV/Compact", compact, cluster_.leader()), "OK");
  cluster_.advance(1s);
  EXPECT_EQ(outcome("/etcdserverpb.Maintenance/HashKV", request),
            "11 etcdserver: mvcc: required revision has been compacted");
  EXPECT_EQ(hash_at(3, 10), at_ten) << "compaction changes nothing that can still be read";
}

TEST_F(ClusterTest, ALargeHashIsMadeInSlices) {
  for (int i = 0; i < 3000; ++i) cluster_.put("k" + std::to_string(i), "v");
  cluster_.advance(1s);
  const uint64_t at = cluster_.leader();
  const int64_t revision = cluster_.keyspace(at).revision().value();
  const uint32_t whole = hash_at(at, revision);
  etcdserverpb::HashKVRequest request;
  auto call = cluster_.open("/etcdserverpb.Maintenance/HashKV", at);
  call->say(request);
  auto cancelled = cluster_.open("/etcdserverpb.Maintenance/HashKV", at);
  cancelled->say(request);
  EXPECT_EQ(call->outcome(), "open");
  cancelled->cancel();
  // What comes in between is not in it.
  cluster_.put("k1", "later");
  cluster_.remove("k0", "l");
  cluster_.advance(1s);
  const auto sliced = call->answer<etcdserverpb::HashKVResponse>();
  EXPECT_EQ(sliced.hash_revision(), revision);
  EXPECT_EQ(sliced.hash(), whole);
  EXPECT_NE(hash_at(at, 0), whole);
}

TEST_F(ClusterTest, SnapshotsAreFilesThatClientsCheck) {
  cluster_.grant(600, 7);
  for (int i = 0; i < 100; ++i) cluster_.put("k" + std::to_string(i), std::string(20'000, 'v'), 7);
  cluster_.advance(1s);
  auto call = cluster_.open("/etcdserverpb.Maintenance/Snapshot");
  call->is_slow = true;
  call->say(etcdserverpb::SnapshotRequest());
  call->half_close();
  cluster_.advance(1s);
  EXPECT_EQ(call->outcome(), "open") << "it waits for its reader";
  // Not what is written meanwhile.
  cluster_.put("k1", "later");
  for (int i = 0; i < 100 && !call->ended(); ++i) {
    call->drain();
    cluster_.advance(100ms);
  }
  ASSERT_EQ(call->outcome(), "OK");
  std::string file;
  for (size_t i = 0; i < call->sent.size(); ++i) {
    const auto part = call->answer<etcdserverpb::SnapshotResponse>(i);
    EXPECT_LE(part.blob().size(), 32U << 10);
    EXPECT_EQ(part.version(), "3.6.0");
    file += part.blob();
  }
  ASSERT_EQ(file.size() % 512, 32U);
  uint64_t sent = 0;
  for (size_t i = 0; i + 1 < call->sent.size(); ++i) {
    const auto part = call->answer<etcdserverpb::SnapshotResponse>(i);
    sent += part.blob().size();
    EXPECT_EQ(part.remaining_bytes(), file.size() - 32 - sent);
  }
  const std::string content = file.substr(0, file.size() - 32);
  std::array<unsigned char, 32> hash{};
  ASSERT_EQ(EVP_Digest(content.data(), content.size(), hash.data(), nullptr, EVP_sha256(), nullptr), 1);
  EXPECT_EQ(file.substr(content.size()), std::string(hash.begin(), hash.end()));
  keyspace::Keyspace loaded;
  keyspace::SnapshotLoader loader(loaded);
  ASSERT_TRUE(loader.feed(std::string_view(content).substr(0, content.find_last_not_of('\0') + 1)).has_value());
  ASSERT_TRUE(loader.finish().has_value());
  EXPECT_EQ(loaded.revision(), Revision(101));
  EXPECT_TRUE(loaded.lease(LeaseId(7)).has_value());
}

TEST_F(ClusterTest, SnapshotsAreFewAndEndWithTheirReaders) {
  for (int i = 0; i < 100; ++i) cluster_.put("k" + std::to_string(i), std::string(10'000, 'v'));
  std::vector<std::unique_ptr<testing::FakeCall>> calls;
  for (int i = 0; i < 5; ++i) {
    calls.push_back(cluster_.open("/etcdserverpb.Maintenance/Snapshot"));
    calls.back()->is_slow = true;
    calls.back()->say(etcdserverpb::SnapshotRequest());
  }
  EXPECT_EQ(calls[4]->outcome(), "8 etcdserver: too many requests");
  calls[0]->cancel();
  cluster_.advance(2min);
  for (int i = 1; i < 4; ++i) EXPECT_EQ(calls[i]->outcome(), "14 etcdserver: request timed out");
  auto again = cluster_.open("/etcdserverpb.Maintenance/Snapshot");
  again->say(etcdserverpb::SnapshotRequest());
  cluster_.advance(1s);
  EXPECT_EQ(again->outcome(), "OK");
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
  EXPECT_EQ(http(cluster_, "/readyz?verbose").body,
            "[+]data_corruption ok\n[+]linearizable_read ok\n[+]non_learner ok\n[+]serializable_read ok\nok\n");
  EXPECT_EQ(http(cluster_, "/livez?verbose&exclude=serializable_read").body, "ok\n");
  EXPECT_EQ(http(cluster_, "/livez?verbose").body, "[+]serializable_read ok\nok\n");
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
  EXPECT_EQ(got.body, R"({"health":"false","reason":"RANGE ERROR:etcdserver: request timed out"})");
  EXPECT_EQ(http(cluster_, "/health", leader).body, R"({"health":"false","reason":"RAFT NO LEADER"})");
  EXPECT_EQ(http(cluster_, "/readyz", leader).status, 503);
  EXPECT_EQ(http(cluster_, "/readyz", leader).body,
            "[+]data_corruption ok\n[-]linearizable_read failed: RAFT NO LEADER\n[+]non_learner ok\n"
            "[+]serializable_read ok\n");
  EXPECT_EQ(http(cluster_, "/readyz?exclude=linearizable_read", leader).status, 200);
  EXPECT_EQ(http(cluster_, "/livez", leader).status, 200);
  EXPECT_EQ(http(cluster_, "/health?serializable=true", leader).status, 200);
  EXPECT_EQ(check(leader), HealthCheckResponse::NOT_SERVING);
}

TEST_F(ClusterTest, HealthIsWatched) {
  using grpc::health::v1::HealthCheckRequest;
  using grpc::health::v1::HealthCheckResponse;
  const uint64_t follower = cluster_.follower();
  auto watch = cluster_.open("/grpc.health.v1.Health/Watch", follower);
  watch->say(HealthCheckRequest());
  watch->half_close();
  HealthCheckRequest other;
  other.set_service("other");
  auto unknown = cluster_.open("/grpc.health.v1.Health/Watch", follower);
  unknown->say(other);
  cluster_.advance(1s);
  ASSERT_EQ(watch->sent.size(), 1U);
  EXPECT_EQ(watch->answer<HealthCheckResponse>(0).status(), HealthCheckResponse::SERVING);
  cluster_.server(follower).cut_off = true;
  cluster_.advance(5s);
  ASSERT_EQ(watch->sent.size(), 2U);
  EXPECT_EQ(watch->answer<HealthCheckResponse>(1).status(), HealthCheckResponse::NOT_SERVING);
  cluster_.server(follower).cut_off = false;
  cluster_.advance(5s);
  ASSERT_GE(watch->sent.size(), 3U);
  EXPECT_EQ(watch->answer<HealthCheckResponse>(watch->sent.size() - 1).status(), HealthCheckResponse::SERVING);
  ASSERT_EQ(unknown->sent.size(), 1U);
  EXPECT_EQ(unknown->answer<HealthCheckResponse>().status(), HealthCheckResponse::SERVICE_UNKNOWN);
  EXPECT_EQ(unknown->outcome(), "open");
}

TEST_F(ClusterTest, Reflection) {
  using grpc::reflection::v1::ServerReflectionRequest;
  using grpc::reflection::v1::ServerReflectionResponse;
  for (const std::string version : {"v1", "v1alpha"}) {
    auto call = cluster_.open("/grpc.reflection." + version + ".ServerReflection/ServerReflectionInfo");
    auto ask = [&](const ServerReflectionRequest& request) {
      call->say(request);
      return call->answer<ServerReflectionResponse>(call->sent.size() - 1);
    };
    ServerReflectionRequest request;
    request.set_host("here");
    request.set_list_services("");
    const ServerReflectionResponse list = ask(request);
    EXPECT_EQ(list.valid_host(), "here");
    EXPECT_EQ(list.original_request().SerializeAsString(), request.SerializeAsString());
    std::set<std::string> names;
    for (const auto& service : list.list_services_response().service()) names.insert(service.name());
    EXPECT_EQ(names, (std::set<std::string>{
                         "conclave.v1.Cluster", "conclave.v1.Elections", "conclave.v1.Locks", "conclave.v1.Sessions",
                         "etcdserverpb.Auth", "etcdserverpb.Cluster", "etcdserverpb.KV", "etcdserverpb.Lease",
                         "etcdserverpb.Maintenance", "etcdserverpb.Watch", "grpc.health.v1.Health",
                         "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
                         "v3electionpb.Election", "v3lockpb.Lock"}));
    // Every service is told with all that it needs: a pool can be built of the answer.
    for (const std::string& name : names) {
      request.set_file_containing_symbol(name);
      const ServerReflectionResponse files = ask(request);
      std::map<std::string, google::protobuf::FileDescriptorProto> protos;
      for (const std::string& bytes : files.file_descriptor_response().file_descriptor_proto()) {
        google::protobuf::FileDescriptorProto proto;
        ASSERT_TRUE(proto.ParseFromString(bytes));
        protos[proto.name()] = proto;
      }
      google::protobuf::SimpleDescriptorDatabase database;
      for (const auto& [file, proto] : protos) database.Add(proto);
      google::protobuf::DescriptorPool pool(&database);
      EXPECT_NE(pool.FindServiceByName(name), nullptr) << name;
    }
    request.set_file_by_filename("etcd/kv.proto");
    EXPECT_EQ(ask(request).file_descriptor_response().file_descriptor_proto_size(), 1);
    request.set_file_by_filename("nothing.proto");
    EXPECT_EQ(ask(request).error_response().error_code(), 5);
    request.set_file_containing_symbol("no.Such");
    EXPECT_EQ(ask(request).error_response().error_code(), 5);
    request.set_all_extension_numbers_of_type("mvccpb.Event");
    EXPECT_EQ(ask(request).all_extension_numbers_response().base_type_name(), "mvccpb.Event");
    request.mutable_file_containing_extension();
    EXPECT_EQ(ask(request).error_response().error_code(), 5);
    EXPECT_EQ(ask(ServerReflectionRequest()).error_response().error_code(), 12);
    call->half_close();
    EXPECT_EQ(call->outcome(), "OK");
  }
}

TEST_F(ClusterTest, VersionMetricsAndNothingElse) {
  EXPECT_EQ(http(cluster_, "/version").body, R"({"etcdserver":"3.6.0","etcdcluster":"3.6.0","storage":"3.6.0"})");
  cluster_.put("a", "1");
  cluster_.put("b", "1");
  cluster_.remove("b");
  (void)outcome("/etcdserverpb.KV/Put", etcdserverpb::PutRequest());
  cluster_.advance(1s);
  cluster_.disk = {.live_bytes = 5, .spare_bytes = 6, .full = true, .last_write_seconds = 0.25};
  cluster_.disk.writes[0] = 7;
  cluster_.disk.writes[8] = 2;
  cluster_.disk.writes[DiskMetrics::kBounds] = 1;
  cluster_.disk.write_seconds_sum = 12.5;
  cluster_.network = {
      .connections = 8,
      .connections_max = 9,
      .client = {.accepted = 10, .refused = 11, .evicted = 12, .timeouts = 13, .failures = 14},
      .peer = {.accepted = 15},
      .peers = {{.id = NodeId(31), .connected = true, .breaks = 18, .frames_dropped = 19, .corruptions = 20},
                {.id = NodeId(2)}}};
  cluster_.network.round_trips.push_back({.peer = NodeId(31)});
  for (const auto took : {100us, 101us, 900us, 4000000us}) cluster_.network.round_trips[0].count(took);
  cluster_.process = {
      .cpu_seconds = 0.5, .resident_bytes = 16, .virtual_bytes = 17, .descriptors_max = 21, .descriptors_open = 22};
  const net::HttpResponse metrics = http(cluster_, "/metrics");
  EXPECT_EQ(metrics.status, 200);
  for (const std::string line :
       {"conclave_revision 4",
        "conclave_keys 1",
        "conclave_raft_has_leader 1",
        "# TYPE conclave_raft_term gauge",
        "conclave_requests_total{method=\"etcdserverpb.KV/Put\",code=\"0\"} 2",
        "conclave_requests_total{method=\"etcdserverpb.KV/Put\",code=\"3\"} 1",
        "conclave_writes_pending 0",
        "etcd_server_has_leader 1",
        "etcd_debugging_mvcc_current_revision 4",
        "etcd_server_leader_changes_seen_total 1",
        "etcd_server_version{server_version=\"3.6.0\"} 1",
        "etcd_server_id{server_id=\"1\"} 1",
        "etcd_debugging_mvcc_keys_total 1",
        "etcd_server_proposals_pending 0",
        "grpc_server_started_total{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"} 3",
        ("grpc_server_handled_total{grpc_code=\"InvalidArgument\",grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\","
         "grpc_method=\"Put\"} 1"),
        "conclave_wal_live_bytes 5",
        "conclave_wal_spare_bytes 6",
        "conclave_wal_full 1",
        "conclave_wal_write_seconds{write=\"last\"} 0.25",
        "conclave_wal_write_seconds{write=\"running\"} 0",
        "# TYPE etcd_disk_wal_fsync_duration_seconds histogram",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 7",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.128\"} 7",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.256\"} 9",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 10",
        "etcd_disk_wal_fsync_duration_seconds_sum 12.5",
        "etcd_disk_wal_fsync_duration_seconds_count 10",
        "conclave_connections 8",
        "conclave_connections_max 9",
        "# TYPE conclave_connections_accepted_total counter",
        "conclave_connections_accepted_total{port=\"client\"} 10",
        "conclave_connections_accepted_total{port=\"peer\"} 15",
        "conclave_connections_refused_total{port=\"client\"} 11",
        "conclave_connections_evicted_total{port=\"client\"} 12",
        "conclave_connections_timed_out_total{port=\"client\"} 13",
        "conclave_accept_failures_total{port=\"client\"} 14",
        "process_resident_memory_bytes 16",
        "process_virtual_memory_bytes 17",
        "process_cpu_seconds_total 0.5",
        "process_open_fds 22",
        "os_fd_used 22",
        "process_max_fds 21",
        "os_fd_limit 21",
        "etcd_network_active_peers{Local=\"1\",Remote=\"1f\"} 1",
        "etcd_network_active_peers{Local=\"1\",Remote=\"2\"} 0",
        "etcd_network_disconnected_peers_total{Local=\"1\",Remote=\"1f\"} 18",
        "etcd_network_peer_sent_failures_total{To=\"1f\"} 19",
        "etcd_network_peer_received_failures_total{From=\"1f\"} 20",
        "# TYPE etcd_network_peer_round_trip_time_seconds histogram",
        "etcd_network_peer_round_trip_time_seconds_bucket{To=\"1f\",le=\"0.0001\"} 1",
        "etcd_network_peer_round_trip_time_seconds_bucket{To=\"1f\",le=\"0.0002\"} 2",
        "etcd_network_peer_round_trip_time_seconds_bucket{To=\"1f\",le=\"0.0008\"} 2",
        "etcd_network_peer_round_trip_time_seconds_bucket{To=\"1f\",le=\"0.0016\"} 3",
        "etcd_network_peer_round_trip_time_seconds_bucket{To=\"1f\",le=\"3.2768\"} 3",
        "etcd_network_peer_round_trip_time_seconds_bucket{To=\"1f\",le=\"+Inf\"} 4",
        "etcd_network_peer_round_trip_time_seconds_sum{To=\"1f\"} 4.001101",
        "etcd_network_peer_round_trip_time_seconds_count{To=\"1f\"} 4",
        "etcd_server_learner_promote_successes 0",
        "conclave_watchers 0",
        "conclave_leases 0",
        "conclave_calls_open 0"}) {
    EXPECT_NE(metrics.body.find(line + "\n"), std::string::npos) << line << "\n" << metrics.body;
  }
  EXPECT_EQ(http(cluster_, "/nothing").status, 404);
  EXPECT_EQ(http(cluster_, "/healthz").status, 404);
  EXPECT_EQ(http(cluster_, "/health", 1, "POST").status, 405);
}

}  // namespace
}  // namespace conclave::api
