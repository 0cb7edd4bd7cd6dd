#include "api/limits.h"
#include "api/testing/cluster.h"

namespace conclave::api {
namespace {

using namespace std::chrono_literals;
using testing::Cluster;

class LeaseTest : public ::testing::Test {
 protected:
  LeaseTest() { cluster_.elect(); }
  etcdserverpb::LeaseTimeToLiveResponse time_to_live(int64_t id, bool keys = false, uint64_t at = 1) {
    return time_to_live(cluster_, id, keys, at);
  }
  static etcdserverpb::LeaseTimeToLiveResponse time_to_live(Cluster& cluster, int64_t id, bool keys, uint64_t at) {
    etcdserverpb::LeaseTimeToLiveRequest request;
    request.set_id(id);
    request.set_keys(keys);
    const auto call = cluster.call("/etcdserverpb.Lease/LeaseTimeToLive", request, at);
    EXPECT_EQ(call->outcome(), "OK");
    return call->answer<etcdserverpb::LeaseTimeToLiveResponse>();
  }
  static void keep_alive(testing::FakeCall& stream, int64_t id) {
    etcdserverpb::LeaseKeepAliveRequest request;
    request.set_id(id);
    stream.say(request);
  }
  Cluster cluster_;
};

TEST_F(LeaseTest, GrantChoosesWhatItIsNotGiven) {
  etcdserverpb::LeaseGrantRequest request;
  request.set_ttl(-5);
  auto call = cluster_.call("/etcdserverpb.Lease/LeaseGrant", request);
  auto response = call->answer<etcdserverpb::LeaseGrantResponse>();
  EXPECT_EQ(response.ttl(), 2) << "raised to one and a half election timeouts";
  EXPECT_GT(response.id(), 0);
  request.set_ttl(60);
  request.set_id(500);
  response = cluster_.call("/etcdserverpb.Lease/LeaseGrant", request)->answer<etcdserverpb::LeaseGrantResponse>();
  EXPECT_EQ(response.id(), 500);
  EXPECT_EQ(response.ttl(), 60);
  EXPECT_EQ(response.header().revision(), 1);
  EXPECT_EQ(cluster_.call("/etcdserverpb.Lease/LeaseGrant", request)->outcome(), "9 etcdserver: lease already exists");
  request.set_ttl(9'000'000'001);
  request.set_id(501);
  EXPECT_EQ(cluster_.call("/etcdserverpb.Lease/LeaseGrant", request)->outcome(), "11 etcdserver: too large lease TTL");
  EXPECT_NE(cluster_.grant(60), cluster_.grant(60));
}

TEST_F(LeaseTest, RevokeEndsItsKeys) {
  const int64_t lease = cluster_.grant(60);
  cluster_.put("a", "1", lease);
  cluster_.put("b", "1", lease);
  const int64_t before = cluster_.keyspace().revision().value();
  cluster_.revoke(lease);
  EXPECT_EQ(cluster_.get("a", "c").count(), 0);
  EXPECT_EQ(cluster_.keyspace().revision().value(), before + 1) << "in one revision";
  etcdserverpb::LeaseRevokeRequest request;
  request.set_id(lease);
  EXPECT_EQ(cluster_.call("/etcdserverpb.Lease/LeaseRevoke", request)->outcome(),
            "5 etcdserver: requested lease not found");
}

TEST_F(LeaseTest, TimeToLiveAndTheListOfLeases) {
  const int64_t lease = cluster_.grant(60);
  cluster_.put("b", "1", lease);
  cluster_.put("a", "1", lease);
  cluster_.advance(10s);
  const auto response = time_to_live(lease, true);
  EXPECT_EQ(response.id(), lease);
  EXPECT_EQ(response.grantedttl(), 60);
  EXPECT_GE(response.ttl(), 49);
  EXPECT_LE(response.ttl(), 51);
  ASSERT_EQ(response.keys_size(), 2);
  EXPECT_EQ(response.keys(0), "a");
  EXPECT_EQ(time_to_live(lease).keys_size(), 0);
  const auto unknown = time_to_live(12345, true);
  EXPECT_EQ(unknown.ttl(), -1);
  EXPECT_EQ(unknown.grantedttl(), 0);
  EXPECT_EQ(unknown.id(), 12345);
  const int64_t second = cluster_.grant(60);
  const auto list = cluster_.call("/etcdserverpb.Lease/LeaseLeases", etcdserverpb::LeaseLeasesRequest())
                        ->answer<etcdserverpb::LeaseLeasesResponse>();
  ASSERT_EQ(list.leases_size(), 2);
  EXPECT_EQ(std::min(list.leases(0).id(), list.leases(1).id()), std::min(lease, second));
}

// Answers that are not read wait here up to a bound; then the stream ends.
TEST_F(LeaseTest, KeepAlivesThatAreNotReadAreBounded) {
  const int64_t lease = cluster_.grant(60);
  auto stream = cluster_.open("/etcdserverpb.Lease/LeaseKeepAlive");
  stream->is_slow = true;
  etcdserverpb::LeaseKeepAliveRequest request;
  request.set_id(lease);
  size_t asked = 0;
  while (!stream->ended() && asked < 200'000) {
    for (int i = 0; i < 1'000; ++i, ++asked) stream->say(request);
    cluster_.settle();
  }
  EXPECT_EQ(stream->outcome(), "8 etcdserver: too many requests");
  EXPECT_LT(stream->queued_bytes(), kStreamBytesQueuedMax + 1'000);
  // Read again in time, all are answered.
  auto other = cluster_.open("/etcdserverpb.Lease/LeaseKeepAlive");
  other->is_slow = true;
  for (int i = 0; i < 20'000; ++i) other->say(request);
  cluster_.settle();
  size_t sent = other->sent.size();
  EXPECT_LT(sent, 20'000U);
  for (int i = 0; i < 100 && sent < 20'000; ++i) {
    other->drain();
    cluster_.settle();
    sent = other->sent.size();
  }
  EXPECT_EQ(sent, 20'000U);
}

TEST_F(LeaseTest, LongListsComeInSlices) {
  const int64_t lease = cluster_.grant(600, 1);
  for (int64_t i = 2; i <= 3'000; ++i) {
    auto grant = cluster_.open("/etcdserverpb.Lease/LeaseGrant");
    etcdserverpb::LeaseGrantRequest request;
    request.set_id(i);
    request.set_ttl(600);
    grant->say(request);
    auto put = cluster_.open("/etcdserverpb.KV/Put");
    etcdserverpb::PutRequest key;
    key.set_key("key" + std::to_string(10'000 + i));
    key.set_lease(lease);
    put->say(key);
  }
  cluster_.settle();
  const auto list = cluster_.call("/etcdserverpb.Lease/LeaseLeases", etcdserverpb::LeaseLeasesRequest())
                        ->answer<etcdserverpb::LeaseLeasesResponse>();
  ASSERT_EQ(list.leases_size(), 3'000);
  for (int i = 0; i < 3'000; ++i) ASSERT_EQ(list.leases(i).id(), i + 1);
  const auto response = time_to_live(lease, true);
  ASSERT_EQ(response.keys_size(), 2'999);
  for (int i = 0; i < 2'999; ++i) ASSERT_EQ(response.keys(i), "key" + std::to_string(10'002 + i));
}

TEST_F(LeaseTest, KeepAliveAnswersInTheOrderAsked) {
  const int64_t lease = cluster_.grant(5);
  auto stream = cluster_.open("/etcdserverpb.Lease/LeaseKeepAlive");
  keep_alive(*stream, lease);
  keep_alive(*stream, 777);
  keep_alive(*stream, lease);
  cluster_.settle();
  ASSERT_EQ(stream->sent.size(), 3U);
  EXPECT_EQ(stream->answer<etcdserverpb::LeaseKeepAliveResponse>(0).ttl(), 5);
  EXPECT_EQ(stream->answer<etcdserverpb::LeaseKeepAliveResponse>(1).ttl(), 0) << "unknown: no error";
  EXPECT_EQ(stream->answer<etcdserverpb::LeaseKeepAliveResponse>(1).id(), 777);
  EXPECT_EQ(stream->answer<etcdserverpb::LeaseKeepAliveResponse>(2).ttl(), 5);
  EXPECT_GT(stream->answer<etcdserverpb::LeaseKeepAliveResponse>(0).header().revision(), 0);
  for (int i = 0; i < 4; ++i) {
    cluster_.advance(4s);
    keep_alive(*stream, lease);
    cluster_.settle();
    EXPECT_EQ(stream->answer<etcdserverpb::LeaseKeepAliveResponse>(3 + i).ttl(), 5);
  }
  cluster_.advance(6s);
  keep_alive(*stream, lease);
  cluster_.settle();
  EXPECT_EQ(stream->answer<etcdserverpb::LeaseKeepAliveResponse>(7).ttl(), 0) << "expired";
  keep_alive(*stream, lease);
  stream->half_close();
  EXPECT_FALSE(stream->ended()) << "one answer is missing";
  cluster_.settle();
  EXPECT_EQ(stream->sent.size(), 9U);
  EXPECT_EQ(stream->outcome(), "OK");
  stream = cluster_.open("/etcdserverpb.Lease/LeaseKeepAlive");
  stream->half_close();
  EXPECT_EQ(stream->outcome(), "OK");
}

TEST_F(LeaseTest, KeepAliveRefusedEndsTheStream) {
  Cluster::Options options;
  options.replica.keep_alives_pending_max = 2;
  Cluster small(options);
  small.elect();
  auto stream = small.open("/etcdserverpb.Lease/LeaseKeepAlive");
  for (int i = 0; i < 3; ++i) keep_alive(*stream, 1);
  EXPECT_EQ(stream->outcome(), "8 etcdserver: too many requests");
  small.settle();
  auto cancelled = small.open("/etcdserverpb.Lease/LeaseKeepAlive");
  keep_alive(*cancelled, 1);
  cancelled->cancel();
  small.settle();
  EXPECT_TRUE(cancelled->sent.empty());
  auto garbage = small.open("/etcdserverpb.Lease/LeaseKeepAlive");
  garbage->say(std::string("\x08"));
  EXPECT_EQ(garbage->outcome(), "3 MALFORMED_REQUEST");
}

TEST_F(LeaseTest, StreamsThatRequireALeaderEndWithoutOne) {
  Cluster three(Cluster::Options{.servers = 3});
  const uint64_t follower = three.elect() == 1 ? 2 : 1;
  auto patient = three.open("/etcdserverpb.Lease/LeaseKeepAlive", follower);
  auto stream = three.open("/etcdserverpb.Lease/LeaseKeepAlive", follower, {{"hasleader", "true"}});
  auto watch = three.open("/etcdserverpb.Watch/Watch", follower, {{"hasleader", "true"}});
  three.server(follower).cut_off = true;
  three.advance(2s);
  EXPECT_FALSE(stream->ended());
  three.advance(4s);
  EXPECT_EQ(stream->outcome(), "14 etcdserver: no leader");
  EXPECT_EQ(watch->outcome(), "14 etcdserver: no leader");
  EXPECT_FALSE(patient->ended());
  auto late = three.open("/etcdserverpb.Lease/LeaseKeepAlive", follower, {{"hasleader", "true"}});
  three.settle();
  EXPECT_EQ(late->outcome(), "14 etcdserver: no leader");
  // A short absence ends nothing, and refuses nothing: clients open their streams anew in the middle of an election.
  three.server(follower).cut_off = false;
  three.advance(5s);
  stream = three.open("/etcdserverpb.Lease/LeaseKeepAlive", follower, {{"hasleader", "true"}});
  three.server(follower).cut_off = true;
  three.advance(3s);
  ASSERT_FALSE(three.server(follower).replica->raft().status().leader.is_set());
  auto amid = three.open("/etcdserverpb.Watch/Watch", follower, {{"hasleader", "true"}});
  three.settle();
  EXPECT_EQ(amid->outcome(), "open");
  three.server(follower).cut_off = false;
  three.advance(10s);
  EXPECT_EQ(stream->outcome(), "open");
  EXPECT_EQ(amid->outcome(), "open");
}

// Its clock is with the leader, whom any server asks.
TEST_F(LeaseTest, AFollowerKnowsTheTimeLeft) {
  Cluster three(Cluster::Options{.servers = 3});
  three.elect();
  const int64_t lease = three.grant(60);
  three.advance(20s);
  for (const uint64_t at : {three.leader(), three.follower()}) {
    const auto response = time_to_live(three, lease, false, at);
    EXPECT_GE(response.ttl(), 39) << at;
    EXPECT_LE(response.ttl(), 41) << at;
    EXPECT_EQ(response.grantedttl(), 60);
  }
  EXPECT_EQ(time_to_live(three, 99, false, three.follower()).ttl(), -1);
}

}  // namespace
}  // namespace conclave::api
