#include "api/testing/cluster.h"
#include "etcd/election.pb.h"
#include "etcd/lock.pb.h"

namespace conclave::api {
namespace {

using namespace std::chrono_literals;
using testing::Cluster;
using testing::FakeCall;

class LockTest : public ::testing::Test {
 protected:
  LockTest() { cluster_.elect(); }
  std::unique_ptr<FakeCall> lock(const std::string& name, int64_t lease) { return lock(cluster_, name, lease, 1); }
  static std::unique_ptr<FakeCall> lock(Cluster& cluster, const std::string& name, int64_t lease, uint64_t at) {
    v3lockpb::LockRequest request;
    request.set_name(name);
    request.set_lease(lease);
    return cluster.call("/v3lockpb.Lock/Lock", request, at);
  }
  void unlock(const std::string& key) {
    v3lockpb::UnlockRequest request;
    request.set_key(key);
    EXPECT_EQ(cluster_.call("/v3lockpb.Lock/Unlock", request)->outcome(), "OK");
  }
  static std::string key_of(const FakeCall& call) { return call.answer<v3lockpb::LockResponse>().key(); }
  int64_t create_revision(const std::string& key) { return cluster_.get(key).kvs(0).create_revision(); }
  Cluster cluster_;
};

TEST_F(LockTest, AFreeLockIsGrantedAtOnce) {
  const int64_t lease = cluster_.grant(60, 0x1f);
  const auto call = lock("orders", lease);
  ASSERT_EQ(call->outcome(), "OK");
  EXPECT_EQ(key_of(*call), "orders/1f");
  EXPECT_EQ(call->answer<v3lockpb::LockResponse>().header().revision(), 2);
  const auto claim = cluster_.get("orders/1f");
  EXPECT_EQ(claim.kvs(0).lease(), lease);
  EXPECT_EQ(claim.kvs(0).value(), "");
  // Again by the same lease: it is the owner.
  EXPECT_EQ(key_of(*lock("orders", lease)), "orders/1f");
  EXPECT_EQ(cluster_.get("orders/", "orders0").count(), 1);
  unlock("orders/1f");
  EXPECT_EQ(cluster_.get("orders/1f").count(), 0);
}

TEST_F(LockTest, WaitersAreServedInOrderAndTokensGrow) {
  std::vector<std::unique_ptr<FakeCall>> calls;
  std::vector<std::string> keys;
  for (int64_t i = 1; i <= 20; ++i) {
    // Ids that do not grow with the order of claims.
    const int64_t lease = cluster_.grant(60, 1'000 - i * 7);
    calls.push_back(lock("a", lease));
  }
  int64_t token = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    for (size_t later = i + 1; later < calls.size(); ++later) ASSERT_EQ(calls[later]->outcome(), "open");
    ASSERT_EQ(calls[i]->outcome(), "OK");
    const std::string key = key_of(*calls[i]);
    const int64_t next = create_revision(key);
    EXPECT_GT(next, token);
    token = next;
    unlock(key);
  }
  EXPECT_EQ(cluster_.get("a/", "a0").count(), 0);
}

TEST_F(LockTest, AnEtcdClientsRecipeAndTheServiceExcludeEachOther) {
  const int64_t recipe = cluster_.grant(60);
  cluster_.put("a/feed", "", recipe);
  const auto call = lock("a", cluster_.grant(60));
  EXPECT_EQ(call->outcome(), "open");
  cluster_.revoke(recipe);
  EXPECT_EQ(call->outcome(), "OK");
}

TEST_F(LockTest, ErrorsHaveEtcdsTexts) {
  EXPECT_EQ(lock("a", 12345)->outcome(), "5 etcdserver: requested lease not found");
  EXPECT_EQ(cluster_.call("/v3lockpb.Lock/Unlock", v3lockpb::UnlockRequest())->outcome(),
            "3 etcdserver: key is not provided");
  EXPECT_EQ(lock(std::string(kRequestBytesMax, 'n'), cluster_.grant(60))->outcome(),
            "3 etcdserver: request is too large");
  const auto garbage = cluster_.call("/v3lockpb.Lock/Lock", std::string("\x0a\x7f"));
  EXPECT_EQ(garbage->outcome(), "3 MALFORMED_REQUEST");
  // The lease of a waiter ends.
  const int64_t lease = cluster_.grant(60);
  (void)lock("a", cluster_.grant(60));
  const auto waiter = lock("a", lease);
  EXPECT_EQ(waiter->outcome(), "open");
  cluster_.revoke(lease);
  EXPECT_EQ(waiter->outcome(), "2 mutex: session is expired");
}

TEST_F(LockTest, WithoutALeaseOneIsMade) {
  const auto call = lock("a", 0);
  ASSERT_EQ(call->outcome(), "OK");
  const int64_t lease = cluster_.get(key_of(*call)).kvs(0).lease();
  etcdserverpb::LeaseTimeToLiveRequest request;
  request.set_id(lease);
  const auto response =
      cluster_.call("/etcdserverpb.Lease/LeaseTimeToLive", request)->answer<etcdserverpb::LeaseTimeToLiveResponse>();
  EXPECT_EQ(response.grantedttl(), 60);
  EXPECT_EQ(lock("", 0)->outcome(), "OK") << "an empty name is a name";
  cluster_.advance(62s);
  EXPECT_EQ(cluster_.get("a/", "a0").count(), 0) << "nobody keeps it alive";
}

TEST_F(LockTest, AWaiterThatGoesAwayLeavesNothing) {
  const int64_t first = cluster_.grant(60);
  const int64_t second = cluster_.grant(60);
  const auto owner = lock("a", first);
  const auto waiter = lock("a", second);
  EXPECT_EQ(cluster_.get("a/", "a0").count(), 2);
  waiter->cancel();
  cluster_.settle();
  EXPECT_EQ(cluster_.get("a/", "a0").count(), 1);
  // Cancelled before its claim was applied.
  v3lockpb::LockRequest request;
  request.set_name("a");
  request.set_lease(second);
  auto hasty = cluster_.open("/v3lockpb.Lock/Lock");
  hasty->say(request);
  hasty->cancel();
  cluster_.settle();
  EXPECT_EQ(cluster_.get("a/", "a0").count(), 1);
  // Cancelled while it asks again for what it has: that stays.
  request.set_lease(first);
  hasty = cluster_.open("/v3lockpb.Lock/Lock");
  hasty->say(request);
  hasty->cancel();
  cluster_.settle();
  EXPECT_EQ(cluster_.get(key_of(*owner)).count(), 1);
}

TEST_F(LockTest, CleaningUpIsAskedAgainUntilItIsDone) {
  Cluster three(Cluster::Options{.servers = 3});
  three.elect();
  const uint64_t follower = three.follower();
  const int64_t first = three.grant(600);
  const int64_t second = three.grant(600);
  (void)lock(three, "a", first, follower);
  three.advance(100ms);
  const auto waiter = lock(three, "a", second, follower);
  three.advance(100ms);
  ASSERT_EQ(three.get("a/", "a0", follower).count(), 2);
  three.server(follower).cut_off = true;
  three.advance(5s);
  waiter->cancel();
  three.advance(20s);
  EXPECT_EQ(three.get("a/", "a0", three.leader()).count(), 2) << "nobody heard it";
  three.server(follower).cut_off = false;
  three.advance(15s);
  EXPECT_EQ(three.get("a/", "a0", three.leader()).count(), 1);
}

TEST_F(LockTest, WaitingThroughALargeDelete) {
  const auto owner = lock("a", cluster_.grant(60, 0x10));
  const auto lost = lock("a", cluster_.grant(60, 0x11));
  const auto first = lock("a", cluster_.grant(60, 0x20));
  const auto second = lock("a", cluster_.grant(60, 0x30));
  // More events in one entry than are walked one by one.
  static_assert(kClaimEventsMax < 60 * 100);
  etcdserverpb::TxnRequest txn;
  for (int batch = 0; batch < 60; ++batch) {
    txn.Clear();
    for (int i = 0; i < 100; ++i) {
      txn.add_success()->mutable_request_put()->set_key("Z" + std::to_string(batch) + "." + std::to_string(i));
    }
    ASSERT_EQ(cluster_.call("/etcdserverpb.KV/Txn", txn)->outcome(), "OK");
  }
  cluster_.remove("Z", "a/12");
  EXPECT_EQ(cluster_.get("Z", "[").count(), 0);
  EXPECT_EQ(lost->outcome(), "2 mutex: session is expired");
  EXPECT_EQ(first->outcome(), "OK");
  EXPECT_EQ(second->outcome(), "open");
}

TEST_F(LockTest, AReplacedStateIsLookedAtAgain) {
  const auto owner = lock("a", cluster_.grant(60));
  const auto waiter = lock("a", cluster_.grant(60));
  cluster_.service().on_state_replaced();
  cluster_.settle();
  EXPECT_EQ(waiter->outcome(), "open");
  unlock(key_of(*owner));
  EXPECT_EQ(waiter->outcome(), "OK");
}

// ---- Elections ----

class ElectionTest : public LockTest {
 protected:
  std::unique_ptr<FakeCall> campaign(const std::string& name, int64_t lease, const std::string& value) {
    v3electionpb::CampaignRequest request;
    request.set_name(name);
    request.set_lease(lease);
    request.set_value(value);
    return cluster_.call("/v3electionpb.Election/Campaign", request);
  }
  std::unique_ptr<FakeCall> leader(const std::string& name) {
    v3electionpb::LeaderRequest request;
    request.set_name(name);
    return cluster_.call("/v3electionpb.Election/Leader", request);
  }
  std::unique_ptr<FakeCall> observe(const std::string& name) {
    v3electionpb::LeaderRequest request;
    request.set_name(name);
    return cluster_.call("/v3electionpb.Election/Observe", request);
  }
  std::string proclaim(const v3electionpb::LeaderKey& leader, const std::string& value) {
    v3electionpb::ProclaimRequest request;
    *request.mutable_leader() = leader;
    request.set_value(value);
    return cluster_.call("/v3electionpb.Election/Proclaim", request)->outcome();
  }
  std::string resign(const v3electionpb::LeaderKey& leader) {
    v3electionpb::ResignRequest request;
    *request.mutable_leader() = leader;
    return cluster_.call("/v3electionpb.Election/Resign", request)->outcome();
  }
  static v3electionpb::LeaderKey key_of(const FakeCall& call) {
    return call.answer<v3electionpb::CampaignResponse>().leader();
  }
  static std::string values(const FakeCall& stream) {
    std::string text;
    for (size_t i = 0; i < stream.sent.size(); ++i) {
      if (i > 0) text += " ";
      text += stream.answer<v3electionpb::LeaderResponse>(i).kv().value();
    }
    return text;
  }
};

TEST_F(ElectionTest, CampaignProclaimResign) {
  EXPECT_EQ(leader("e")->outcome(), "2 election: no leader");
  const int64_t lease = cluster_.grant(60, 0xab);
  const auto won = campaign("e", lease, "one");
  ASSERT_EQ(won->outcome(), "OK");
  const v3electionpb::LeaderKey key = key_of(*won);
  EXPECT_EQ(key.name(), "e");
  EXPECT_EQ(key.key(), "e/ab");
  EXPECT_EQ(key.rev(), create_revision("e/ab"));
  EXPECT_EQ(key.lease(), lease);
  auto seen = leader("e")->answer<v3electionpb::LeaderResponse>();
  EXPECT_EQ(seen.kv().value(), "one");
  EXPECT_EQ(seen.kv().key(), "e/ab");
  EXPECT_GT(seen.header().revision(), 0);
  EXPECT_EQ(proclaim(key, "two"), "OK");
  EXPECT_EQ(leader("e")->answer<v3electionpb::LeaderResponse>().kv().value(), "two");
  EXPECT_EQ(leader("e")->answer<v3electionpb::LeaderResponse>().kv().lease(), lease);
  // By the same lease with another value: still the leader, with that.
  EXPECT_EQ(key_of(*campaign("e", lease, "three")).rev(), key.rev());
  EXPECT_EQ(leader("e")->answer<v3electionpb::LeaderResponse>().kv().value(), "three");
  EXPECT_EQ(resign(key), "OK");
  EXPECT_EQ(leader("e")->outcome(), "2 election: no leader");
  EXPECT_EQ(proclaim(key, "four"), "2 election: not leader");
  EXPECT_EQ(resign(key), "OK") << "nothing to resign";
}

TEST_F(ElectionTest, CandidatesFollowInOrder) {
  const auto first = campaign("e", cluster_.grant(60), "one");
  const int64_t lost_lease = cluster_.grant(60);
  const auto lost = campaign("e", lost_lease, "lost");
  const auto second = campaign("e", cluster_.grant(60), "two");
  EXPECT_EQ(second->outcome(), "open");
  cluster_.revoke(lost_lease);
  EXPECT_EQ(lost->outcome(), "5 etcdserver: requested lease not found");
  const auto cancelled = campaign("e", cluster_.grant(60), "cancelled");
  cancelled->cancel();
  cluster_.settle();
  EXPECT_EQ(cluster_.get("e/", "e0").count(), 2);
  EXPECT_EQ(resign(key_of(*first)), "OK");
  ASSERT_EQ(second->outcome(), "OK");
  EXPECT_GT(key_of(*second).rev(), key_of(*first).rev());
}

TEST_F(ElectionTest, ErrorsHaveEtcdsTexts) {
  EXPECT_EQ(cluster_.call("/v3electionpb.Election/Proclaim", v3electionpb::ProclaimRequest())->outcome(),
            "2 \"leader\" field must be provided");
  EXPECT_EQ(cluster_.call("/v3electionpb.Election/Resign", v3electionpb::ResignRequest())->outcome(),
            "2 \"leader\" field must be provided");
  EXPECT_EQ(campaign("e", 999, "v")->outcome(), "5 etcdserver: requested lease not found");
  EXPECT_EQ(proclaim(v3electionpb::LeaderKey(), "v"), "3 etcdserver: key is not provided");
  v3electionpb::LeaderKey stranger;
  stranger.set_key("e/1");
  stranger.set_rev(5);
  stranger.set_lease(77);
  EXPECT_EQ(proclaim(stranger, "v"), "2 election: not leader");
  // A candidate whose key is deleted by hand has lost, its lease stands.
  (void)campaign("e", cluster_.grant(60), "one");
  const auto second = campaign("e", cluster_.grant(60, 0x77), "two");
  cluster_.remove("e/77");
  EXPECT_EQ(second->outcome(), "2 election: not leader");
}

TEST_F(ElectionTest, ObserveSeesLeadersAndWhatTheyProclaim) {
  auto early = observe("e");
  EXPECT_EQ(early->sent.size(), 0U);
  const auto first = campaign("e", cluster_.grant(60), "one");
  const auto second = campaign("e", cluster_.grant(60), "two");
  EXPECT_EQ(values(*early), "one");
  EXPECT_EQ(proclaim(key_of(*first), "one'"), "OK");
  auto late = observe("e");
  EXPECT_EQ(resign(key_of(*first)), "OK");
  EXPECT_EQ(values(*early), "one one' two");
  EXPECT_EQ(values(*late), "one' two");
  EXPECT_EQ(resign(key_of(*second)), "OK");
  const auto third = campaign("e", cluster_.grant(60), "three");
  EXPECT_EQ(values(*early), "one one' two three");
  EXPECT_EQ(proclaim(key_of(*third), "four"), "OK");
  EXPECT_EQ(values(*late), "one' two three four");
  int64_t revision = 0;
  for (size_t i = 0; i < early->sent.size(); ++i) {
    const auto response = early->answer<v3electionpb::LeaderResponse>(i);
    EXPECT_GE(response.header().revision(), revision);
    EXPECT_GE(response.header().revision(), response.kv().mod_revision());
    revision = response.header().revision();
  }
  early->cancel();
  late->cancel();
  EXPECT_EQ(cluster_.keyspace().watches().synced(), 0U);
  auto replaced = observe("e");
  cluster_.service().on_state_replaced();
  EXPECT_EQ(replaced->outcome(), "14 etcdserver: leader changed");
  auto empty = cluster_.open("/v3electionpb.Election/Observe");
  empty->half_close();
  EXPECT_EQ(empty->outcome(), "12 the call ended without a request");
}

TEST_F(ElectionTest, AnObserverThatDoesNotReadCostsABoundAndSeesTheEnd) {
  const auto first = campaign("e", cluster_.grant(600), "one");
  auto stream = observe("e");
  stream->is_slow = true;
  const std::string value(2'000, 'v');
  for (int i = 0; i < 2'000; ++i) ASSERT_EQ(proclaim(key_of(*first), value), "OK");
  EXPECT_LT(stream->queued_bytes(), size_t{1} << 20);
  ASSERT_EQ(proclaim(key_of(*first), "end"), "OK");
  for (int i = 0; i < 100; ++i) {
    stream->drain();
    cluster_.settle();
  }
  EXPECT_EQ(stream->answer<v3electionpb::LeaderResponse>(stream->sent.size() - 1).kv().value(), "end");
  // Behind history: what it missed is gone, what is now is not.
  for (int i = 0; i < 2'000; ++i) ASSERT_EQ(proclaim(key_of(*first), value), "OK");
  ASSERT_EQ(proclaim(key_of(*first), "now"), "OK");
  etcdserverpb::CompactionRequest compact;
  compact.set_revision(cluster_.keyspace().revision().value());
  ASSERT_EQ(cluster_.call("/etcdserverpb.KV/Compact", compact)->outcome(), "OK");
  for (int i = 0; i < 100; ++i) {
    stream->drain();
    cluster_.settle();
  }
  EXPECT_EQ(stream->outcome(), "open");
  EXPECT_EQ(stream->answer<v3electionpb::LeaderResponse>(stream->sent.size() - 1).kv().value(), "now");
}

}  // namespace
}  // namespace conclave::api
