// conclave.v1 for people: what there is, who holds and waits, and what ends a claim or a session by decision; that
// nobody writes where only services may.
#include <algorithm>

#include "api/testing/sessions.h"
#include "etcd/election.pb.h"
#include "etcd/lock.pb.h"

namespace conclave::api {
namespace {

using namespace std::chrono_literals;
using testing::Cluster;
using testing::FakeCall;
using testing::SessionStream;
using testing::SingleCalls;

std::string brief(const FakeCall& call) {
  const std::string outcome = call.outcome();
  return outcome.substr(0, outcome.find(':'));
}

class InspectionTest : public ::testing::Test {
 protected:
  InspectionTest() { cluster_.elect(); }
  template <class Answer, class Request>
  Answer ask(const std::string& method, const Request& request) {
    const std::unique_ptr<FakeCall> call = cluster_.call("/conclave.v1." + method, request);
    EXPECT_EQ(call->outcome(), "OK") << method;
    return call->ok() ? call->answer<Answer>() : Answer();
  }
  template <class Request>
  std::string refusal(const std::string& method, const Request& request) {
    return brief(*cluster_.call("/conclave.v1." + method, request));
  }
  v1::LockDescription describe(const std::string& name) {
    v1::DescribeLock request;
    request.set_name(name);
    return ask<v1::LockDescription>("Locks/Describe", request);
  }
  bool stands(const std::string& key) { return cluster_.get(key).count() == 1; }
  std::vector<std::string> locks(const std::string& prefix, const std::string& after = "", uint32_t count = 0,
                                 bool* more = nullptr) {
    v1::ListLocks request;
    request.set_prefix(prefix);
    request.set_after(after);
    request.set_count(count);
    const auto list = ask<v1::LockList>("Locks/List", request);
    if (more != nullptr) *more = list.more();
    std::vector<std::string> names;
    for (const v1::LockDescription& lock : list.locks()) names.push_back(lock.name());
    return names;
  }
  Cluster cluster_;
};

TEST_F(InspectionTest, ALockIsDescribed) {
  EXPECT_FALSE(describe("orders").has_owner());
  SingleCalls first(cluster_, 1);
  SingleCalls second(cluster_, 2);
  ASSERT_EQ(first.open(60'000, "host a"), "OK");
  ASSERT_EQ(second.open(60'000, "host b"), "OK");
  v1::AcquireRequest request;
  request.mutable_acquire()->add_names("orders");
  request.mutable_acquire()->set_note("the nightly run");
  request.mutable_acquire()->set_lock_delay_ms(1500);
  const auto held = first.operate("Locks/Acquire", request);
  const int64_t token = held->answer<v1::LocksHeld>().claims(0).token();
  const auto waiting = second.acquire({"orders"});
  cluster_.grant(60, 0xabc);
  cluster_.put("orders/abc", "", 0xabc);
  cluster_.grant(60, 0xdef);
  cluster_.put("orders/42/def", "", 0xdef);

  const v1::LockDescription lock = describe("orders");
  EXPECT_EQ(lock.name(), "orders");
  EXPECT_EQ(lock.owner().key(), "orders/1");
  EXPECT_EQ(lock.owner().token(), token);
  EXPECT_EQ(lock.owner().lease(), 1);
  EXPECT_EQ(lock.owner().note(), "the nightly run");
  EXPECT_EQ(lock.owner().description(), "host a");
  EXPECT_EQ(lock.owner().lock_delay_ms(), 1500U);
  EXPECT_TRUE(lock.owner().is_session());
  ASSERT_EQ(lock.waiters_size(), 2);
  EXPECT_EQ(lock.waiting(), 2);
  EXPECT_EQ(lock.waiters(0).description(), "host b");
  EXPECT_EQ(lock.waiters(1).key(), "orders/abc");
  EXPECT_FALSE(lock.waiters(1).is_session());
  EXPECT_EQ(describe("orders/42").owner().lease(), 0xdef) << "another lock";

  v1::ValidateLock validate;
  validate.set_name("orders");
  validate.set_token(token);
  EXPECT_TRUE(ask<v1::LockValidity>("Locks/Validate", validate).valid());
  validate.set_token(token + 1);
  EXPECT_FALSE(ask<v1::LockValidity>("Locks/Validate", validate).valid());
  validate.set_name("nothing");
  EXPECT_FALSE(ask<v1::LockValidity>("Locks/Validate", validate).valid());
  validate.set_name("");
  EXPECT_EQ(refusal("Locks/Validate", validate), "3 INVALID_NAME");
  EXPECT_EQ(refusal("Locks/Describe", v1::DescribeLock()), "3 INVALID_NAME");
}

TEST_F(InspectionTest, LocksAreListedInPages) {
  SingleCalls calls(cluster_, 1);
  ASSERT_EQ(calls.open(600'000), "OK");
  const std::vector<std::string> names = {"a", "a!", "a-b", "a/b", "a/b/c", "a0", "b", "ä"};
  for (const std::string& name : names) calls.hold(name);
  calls.campaign("a/election", "v");
  cluster_.put("a/config", "no claim");
  EXPECT_EQ(locks(""), names);
  EXPECT_EQ(locks("a/"), (std::vector<std::string>{"a/b", "a/b/c"}));
  EXPECT_EQ(locks("zzz"), std::vector<std::string>());
  EXPECT_EQ(locks("", "b"), std::vector<std::string>{"ä"});
  for (uint32_t count = 1; count <= names.size() + 1; ++count) {
    std::vector<std::string> all;
    bool more = true;
    while (more && all.size() <= names.size()) {
      const auto page = locks("", all.empty() ? "" : all.back(), count, &more);
      EXPECT_LE(page.size(), count);
      all.insert(all.end(), page.begin(), page.end());
    }
    EXPECT_EQ(all, names) << count;
  }
  v1::ListLocks request;
  request.set_count(1001);
  EXPECT_EQ(refusal("Locks/List", request), "3 INVALID_REQUEST");
  request.set_count(1);
  request.set_prefix(std::string(513, 'p'));
  EXPECT_EQ(refusal("Locks/List", request), "3 INVALID_REQUEST");

  v1::ListElections elections;
  auto list = ask<v1::ElectionList>("Elections/List", elections);
  ASSERT_EQ(list.elections_size(), 1);
  EXPECT_EQ(list.elections(0).name(), "a/election");
  EXPECT_EQ(list.elections(0).leader().value(), "v");
  EXPECT_FALSE(list.more());
}

TEST_F(InspectionTest, ManyLocksAndManyWaiters) {
  cluster_.grant(600, 0xabc);
  for (int i = 0; i < 3000; ++i) cluster_.put("many/" + std::to_string(100'000 + i) + "/abc", "", 0xabc);
  EXPECT_EQ(locks("many/").size(), 100U);
  bool more = false;
  EXPECT_EQ(locks("many/", "", 1000, &more).back(), "many/100999");
  EXPECT_TRUE(more);
  EXPECT_EQ(locks("many/", "many/102989", 1000, &more).size(), 10U);
  EXPECT_FALSE(more);
  cluster_.put("line/abc", "", 0xabc);
  for (int i = 1; i <= 2000; ++i) cluster_.put("line/f" + std::to_string(i), "");
  const auto line = describe("line");
  EXPECT_EQ(line.owner().key(), "line/abc");
  EXPECT_EQ(line.waiters_size(), 100);
  EXPECT_EQ(line.waiting(), 2000);
  EXPECT_EQ(line.waiters(99).key(), "line/f100") << "in order of age";
}

TEST_F(InspectionTest, AnElectionIsDescribed) {
  v1::DescribeElection describe;
  describe.set_name("e");
  auto election = ask<v1::ElectionDescription>("Elections/Describe", describe);
  EXPECT_EQ(election.leader().token(), 0);
  v1::GetLeader leader;
  leader.set_name("e");
  EXPECT_EQ(ask<v1::Leadership>("Elections/Leader", leader).token(), 0);

  SessionStream stream(cluster_);
  const int priorities[] = {0, 1, 7, 7, -3};
  for (int64_t i = 1; i <= 5; ++i) {
    stream.ask(SessionStream::open_request(i, 600'000));
    v1::SessionRequest request;
    request.set_session(i);
    request.set_sequence(1);
    request.mutable_campaign()->set_name("e");
    request.mutable_campaign()->set_value("value " + std::to_string(i));
    request.mutable_campaign()->set_priority(priorities[i - 1]);
    stream.say(request);
    (void)stream.heard();
  }
  election = ask<v1::ElectionDescription>("Elections/Describe", describe);
  EXPECT_EQ(election.leader().value(), "value 1");
  EXPECT_EQ(election.leader().lease(), 1);
  EXPECT_EQ(election.waiting(), 4);
  ASSERT_EQ(election.candidates_size(), 4);
  std::vector<int64_t> order;
  for (const v1::Candidate& candidate : election.candidates()) order.push_back(candidate.session());
  EXPECT_EQ(order, (std::vector<int64_t>{3, 4, 2, 5})) << "as they would be elected";
  EXPECT_EQ(election.candidates(3).priority(), -3);
  EXPECT_EQ(election.candidates(0).value(), "value 3");
  EXPECT_EQ(ask<v1::Leadership>("Elections/Leader", leader).value(), "value 1");
  EXPECT_EQ(refusal("Elections/Leader", v1::GetLeader()), "3 INVALID_NAME");
  EXPECT_EQ(refusal("Elections/Describe", v1::DescribeElection()), "3 INVALID_NAME");

  // One with candidates and nobody elected is an election too.
  v1::ListElections list;
  list.set_prefix("e");
  EXPECT_EQ(ask<v1::ElectionList>("Elections/List", list).elections_size(), 1);
}

TEST_F(InspectionTest, SessionsAreDescribedListedAndKilled) {
  SessionStream stream(cluster_);
  for (int64_t i = 1; i <= 5; ++i) stream.ask(SessionStream::open_request(i * 10, 60'000));
  stream.ask(SessionStream::acquire_request(10, 1, "a"));
  stream.ask(SessionStream::acquire_request(20, 1, "a"));
  cluster_.advance(2s);
  v1::DescribeSession describe;
  describe.set_session(20);
  const auto session = ask<v1::SessionDescription>("Sessions/Describe", describe);
  EXPECT_EQ(session.session(), 20);
  EXPECT_EQ(session.ttl_ms(), 60'000);
  EXPECT_GT(session.remaining_ms(), 50'000);
  EXPECT_LT(session.remaining_ms(), 60'000);
  EXPECT_EQ(session.incarnation(), 1U);
  ASSERT_EQ(session.claims_size(), 1);
  EXPECT_EQ(session.claims(0).name(), "a");
  EXPECT_FALSE(session.claims(0).granted());
  describe.set_session(10);
  EXPECT_TRUE(ask<v1::SessionDescription>("Sessions/Describe", describe).claims(0).granted());
  describe.set_session(11);
  EXPECT_EQ(refusal("Sessions/Describe", describe), "5 SESSION_EXPIRED");
  describe.set_session(-1);
  EXPECT_EQ(refusal("Sessions/Describe", describe), "3 INVALID_REQUEST");

  v1::ListSessions list;
  list.set_count(2);
  list.set_after(20);
  const auto page = ask<v1::SessionList>("Sessions/List", list);
  ASSERT_EQ(page.sessions_size(), 2);
  EXPECT_EQ(page.sessions(0).session(), 30);
  EXPECT_TRUE(page.more());
  list.set_after(30);
  EXPECT_FALSE(ask<v1::SessionList>("Sessions/List", list).more());
  list.set_count(1001);
  EXPECT_EQ(refusal("Sessions/List", list), "3 INVALID_REQUEST");
  list.set_count(0);
  list.set_after(-1);
  EXPECT_EQ(refusal("Sessions/List", list), "3 INVALID_REQUEST");

  v1::KillSession kill;
  kill.set_session(10);
  (void)stream.heard();
  EXPECT_EQ(cluster_.call("/conclave.v1.Sessions/Kill", kill)->outcome(), "OK");
  const auto told = stream.heard();
  const auto ends = [](const v1::SessionResponse& each) {
    return each.session() == 10 && each.ended().reason() == v1::SessionEnded::EXPIRED;
  };
  EXPECT_TRUE(std::ranges::any_of(told, ends));
  EXPECT_TRUE(std::ranges::any_of(told, [](const auto& each) { return each.session() == 20 && each.has_granted(); }));
  EXPECT_EQ(refusal("Sessions/Kill", kill), "5 SESSION_EXPIRED");
  kill.set_session(0);
  EXPECT_EQ(refusal("Sessions/Kill", kill), "3 INVALID_REQUEST");
}

TEST_F(InspectionTest, ManySessionsAndManyClaimsOfOne) {
  SessionStream stream(cluster_);
  for (int64_t i = 1; i <= 2500; ++i) stream.say(SessionStream::open_request(i, 600'000));
  (void)stream.heard();
  v1::ListSessions list;
  auto page = ask<v1::SessionList>("Sessions/List", list);
  EXPECT_EQ(page.sessions_size(), 1000);
  EXPECT_TRUE(page.more());
  list.set_after(2000);
  page = ask<v1::SessionList>("Sessions/List", list);
  EXPECT_EQ(page.sessions_size(), 500);
  EXPECT_FALSE(page.more());
  for (uint64_t i = 1; i <= 1200; ++i) {
    stream.say(SessionStream::acquire_request(7, i, "many/" + std::to_string(i)));
    if (i % 50 == 0) (void)stream.heard();
  }
  v1::DescribeSession describe;
  describe.set_session(7);
  EXPECT_EQ(ask<v1::SessionDescription>("Sessions/Describe", describe).claims_size(), 1000) << "the first";
}

// ---- Asking owners, and forcing them ----

TEST_F(InspectionTest, AnOwnerIsAskedToRelease) {
  v1::RequestReleaseOfLock ask_for;
  ask_for.set_name("a");
  EXPECT_EQ(refusal("Locks/RequestRelease", ask_for), "5 NOT_HELD");
  SessionStream stream(cluster_);
  stream.ask(SessionStream::open_request(1, 60'000));
  const int64_t token = stream.ask(SessionStream::acquire_request(1, 1, "a")).claimed().claims(0).token();
  ask_for.set_note("maintenance at nine");
  EXPECT_EQ(ask<v1::ReleaseWasRequested>("Locks/RequestRelease", ask_for).token(), token);
  const auto told = stream.answer();
  EXPECT_EQ(told.release_requested().name(), "a");
  EXPECT_EQ(told.release_requested().token(), token);
  EXPECT_EQ(told.release_requested().note(), "maintenance at nine");
  ask_for.set_note(std::string(257, 'n'));
  EXPECT_EQ(refusal("Locks/RequestRelease", ask_for), "3 INVALID_REQUEST");
  cluster_.grant(60, 0xabc);
  cluster_.put("recipe/abc", "", 0xabc);
  ask_for.set_note("");
  ask_for.set_name("recipe");
  EXPECT_EQ(refusal("Locks/RequestRelease", ask_for), "9 NOT_A_SESSION");
}

class ForceReleaseTest : public InspectionTest {
 protected:
  ForceReleaseTest() {
    stream_.ask(SessionStream::open_request(1, 5000));
    stream_.ask(SessionStream::open_request(2, 60'000));
    token_ = stream_.ask(SessionStream::acquire_request(1, 1, "a")).claimed().claims(0).token();
    stream_.ask(SessionStream::acquire_request(2, 1, "a"));
  }
  std::unique_ptr<FakeCall> force(bool now) {
    v1::ForceReleaseLock request;
    request.set_name("a");
    request.set_token(token_);
    request.set_reason("it hangs");
    request.set_now(now);
    return cluster_.call("/conclave.v1.Locks/ForceRelease", request);
  }
  void keep() {
    v1::SessionRequest request;
    request.mutable_keep_alive();
    stream_.say(request);
  }
  SessionStream stream_{cluster_};
  int64_t token_ = 0;
};

TEST_F(ForceReleaseTest, AtOnce) {
  const auto forced = force(true);
  ASSERT_EQ(forced->outcome(), "OK");
  EXPECT_TRUE(forced->answer<v1::Released>().held());
  const auto told = stream_.heard();
  const auto lost = std::ranges::find_if(told, [](const auto& each) { return each.has_lost(); });
  ASSERT_NE(lost, told.end());
  EXPECT_EQ(lost->session(), 1);
  EXPECT_EQ(lost->lost().reason(), v1::Lost::FORCED);
  EXPECT_EQ(lost->lost().note(), "it hangs");
  EXPECT_TRUE(std::ranges::any_of(told, [](const auto& each) { return each.session() == 2 && each.has_granted(); }));
  EXPECT_FALSE(force(true)->answer<v1::Released>().held()) << "the token owns nothing any more";
}

TEST_F(ForceReleaseTest, TheOwnerIsAskedFirstAndMayRelease) {
  const auto forced = force(false);
  EXPECT_EQ(forced->outcome(), "open");
  EXPECT_EQ(stream_.answer().release_requested().note(), "it hangs");
  cluster_.advance(2s);
  EXPECT_EQ(forced->outcome(), "open");
  v1::SessionRequest release;
  release.set_session(1);
  release.set_sequence(2);
  release.mutable_release()->set_name("a");
  release.mutable_release()->set_token(token_);
  stream_.say(release);
  cluster_.advance(1s);
  ASSERT_EQ(forced->outcome(), "OK");
  EXPECT_TRUE(forced->answer<v1::Released>().held());
  const auto told = stream_.heard();
  EXPECT_FALSE(std::ranges::any_of(told, [](const auto& each) { return each.has_lost(); }));
}

TEST_F(ForceReleaseTest, AnOwnerThatDoesNothingIsForcedWhenItsTimeIsOver) {
  const auto forced = force(false);
  for (int i = 0; i < 4; ++i) {
    cluster_.advance(1s);
    keep();
  }
  EXPECT_EQ(forced->outcome(), "open");
  EXPECT_TRUE(stands("a/1"));
  cluster_.advance(1100ms);
  ASSERT_EQ(forced->outcome(), "OK");
  EXPECT_TRUE(forced->answer<v1::Released>().held());
  EXPECT_FALSE(stands("a/1"));
  const auto told = stream_.heard();
  EXPECT_TRUE(std::ranges::any_of(told, [](const auto& each) { return each.lost().reason() == v1::Lost::FORCED; }));
}

TEST_F(ForceReleaseTest, ACallThatIsEndedForcesNothing) {
  const auto forced = force(false);
  cluster_.advance(1s);
  forced->cancel();
  for (int i = 0; i < 10; ++i) {
    cluster_.advance(1s);
    keep();
  }
  EXPECT_TRUE(stands("a/1"));
}

TEST_F(ForceReleaseTest, WhatIsWrongWithIt) {
  v1::ForceReleaseLock request;
  request.set_name("a");
  EXPECT_EQ(refusal("Locks/ForceRelease", request), "3 INVALID_REQUEST") << "no token";
  request.set_token(token_);
  request.set_reason(std::string(257, 'r'));
  EXPECT_EQ(refusal("Locks/ForceRelease", request), "3 INVALID_REQUEST");
  request.set_reason("");
  request.set_token(token_ + 1);
  EXPECT_FALSE(ask<v1::Released>("Locks/ForceRelease", request).held());
  EXPECT_TRUE(stands("a/1"));
}

TEST_F(InspectionTest, SomebodyOfTheRecipeIsForcedWithoutBeingAsked) {
  cluster_.grant(5, 0xabc);
  const int64_t token = cluster_.put("recipe/abc", "", 0xabc);
  v1::ForceReleaseLock request;
  request.set_name("recipe");
  request.set_token(token);
  request.set_now(true);
  EXPECT_TRUE(ask<v1::Released>("Locks/ForceRelease", request).held());
  EXPECT_FALSE(stands("recipe/abc"));
  request.set_token(cluster_.put("recipe/0", "on no lease"));
  request.set_now(false);
  EXPECT_TRUE(ask<v1::Released>("Locks/ForceRelease", request).held()) << "it has no time to wait for";
}

// ---- Reserved keys ----

TEST_F(InspectionTest, NobodyWritesBelowTheClustersOwnRoot) {
  const std::string refused = "7 keys below /.conclave/ are written by the services they belong to, and by nobody else";
  const auto put = [this](const std::string& key) {
    etcdserverpb::PutRequest request;
    request.set_key(key);
    return cluster_.call("/etcdserverpb.KV/Put", request)->outcome();
  };
  EXPECT_EQ(put("/.conclave/pool/p/1"), refused);
  EXPECT_EQ(put("/.conclave/"), refused);
  EXPECT_EQ(put("/.conclave"), "OK") << "beside it";
  EXPECT_EQ(put("/.conclave0"), "OK");
  const auto remove = [this](const std::string& key, const std::string& end) {
    etcdserverpb::DeleteRangeRequest request;
    request.set_key(key);
    request.set_range_end(end);
    return cluster_.call("/etcdserverpb.KV/DeleteRange", request)->outcome();
  };
  const std::string everything(1, '\0');
  EXPECT_EQ(remove("/.conclave/pool", "/.conclave/pooz"), refused);
  EXPECT_EQ(remove(everything, everything), "OK") << "while nothing stands there";

  etcdserverpb::TxnRequest txn;
  txn.add_failure()->mutable_request_txn()->add_success()->mutable_request_put()->set_key("/.conclave/x");
  EXPECT_EQ(cluster_.call("/etcdserverpb.KV/Txn", txn)->outcome(), refused) << "whichever way its compares go";
  txn.Clear();
  txn.add_success()->mutable_request_range()->set_key("/.conclave/x");
  txn.add_compare()->set_key("/.conclave/x");
  EXPECT_EQ(cluster_.call("/etcdserverpb.KV/Txn", txn)->outcome(), "OK") << "reads pass";
  EXPECT_EQ(cluster_.get("/.conclave/", "/.conclave0").count(), 0);

  v3lockpb::LockRequest lock;
  lock.set_name("/.conclave");
  EXPECT_EQ(cluster_.call("/v3lockpb.Lock/Lock", lock)->outcome(), refused);
  v3lockpb::UnlockRequest unlock;
  unlock.set_key("/.conclave/x/1");
  EXPECT_EQ(cluster_.call("/v3lockpb.Lock/Unlock", unlock)->outcome(), refused);
  v3electionpb::CampaignRequest campaign;
  campaign.set_name("/.conclave/e");
  EXPECT_EQ(cluster_.call("/v3electionpb.Election/Campaign", campaign)->outcome(), refused);
  v3electionpb::ResignRequest resign;
  resign.mutable_leader()->set_key("/.conclave/e/1");
  EXPECT_EQ(cluster_.call("/v3electionpb.Election/Resign", resign)->outcome(), refused);
  v3electionpb::ProclaimRequest proclaim;
  *proclaim.mutable_leader() = resign.leader();
  EXPECT_EQ(cluster_.call("/v3electionpb.Election/Proclaim", proclaim)->outcome(), refused);
}

}  // namespace
}  // namespace conclave::api
