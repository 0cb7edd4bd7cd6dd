// conclave.v1 as clients use it: the stream, single calls, what sessions and observers are told, and each error by its
// code and reason; hostile clients.
#include "api/testing/sessions.h"

#include <algorithm>

#include "api/limits.h"

namespace conclave::api {
namespace {

using namespace std::chrono_literals;
using testing::Cluster;
using testing::FakeCall;
using testing::secret_of;
using testing::SessionStream;
using testing::SingleCalls;

// "9 TAKEN_OVER" of "9 TAKEN_OVER: ...".
std::string brief(const FakeCall& call) {
  const std::string outcome = call.outcome();
  if (call.status && !call.ok()) {
    EXPECT_TRUE(outcome.starts_with(std::to_string(call.status->code) + " " + call.status->reason + ": ")) << outcome;
    EXPECT_FALSE(call.status->reason.empty()) << outcome;
  }
  return outcome.substr(0, outcome.find(':'));
}

std::string metrics_of(Service& service) {
  std::string text;
  service.on_http({.method = "GET", .target = "/metrics"},
                  [&text](const net::HttpResponse& response) { text = response.body; });
  return text;
}

class SessionsTest : public ::testing::Test {
 protected:
  SessionsTest() { cluster_.elect(); }
  bool stands(const std::string& key) { return cluster_.get(key).count() == 1; }
  std::string metrics() { return metrics_of(cluster_.service()); }
  bool metric_is(const std::string& line) {
    const std::string text = metrics();
    const bool found = text.find("\nconclave_" + line + "\n") != std::string::npos;
    EXPECT_TRUE(found) << line << "\n" << text.substr(std::min(text.size(), text.find("conclave_session")), 2000);
    return found;
  }
  Cluster cluster_;
};

// ---- Single calls ----

TEST_F(SessionsTest, ASessionIsOpenedKeptAndClosed) {
  v1::OpenSession open;
  open.set_session(7);
  open.set_secret(secret_of(7));
  open.set_ttl_ms(5000);
  const auto opened = cluster_.call("/conclave.v1.Sessions/Open", open);
  ASSERT_EQ(opened->outcome(), "OK");
  const auto answer = opened->answer<v1::SessionResponse>();
  EXPECT_EQ(answer.session(), 7);
  EXPECT_EQ(answer.opened().ttl_ms(), 5000);
  EXPECT_GT(answer.place().index(), 0U);
  EXPECT_EQ(cluster_.call("/conclave.v1.Sessions/Open", open)->outcome(), "OK") << "repeated as it was";
  open.set_secret("some other client's");
  EXPECT_EQ(brief(*cluster_.call("/conclave.v1.Sessions/Open", open)), "6 SESSION_EXISTS");

  SingleCalls calls(cluster_, 7);
  v1::KeepSession keep;
  *keep.mutable_identity() = calls.identity();
  for (int i = 0; i < 4; ++i) {
    cluster_.advance(4s);
    const auto kept = cluster_.call("/conclave.v1.Sessions/KeepAlive", keep);
    ASSERT_EQ(kept->outcome(), "OK");
    EXPECT_TRUE(kept->answer<v1::SessionResponse>().has_kept());
  }
  calls.hold("orders");
  EXPECT_TRUE(stands("orders/7"));
  const auto closed = cluster_.call("/conclave.v1.Sessions/Close", calls.identity());
  ASSERT_EQ(closed->outcome(), "OK");
  EXPECT_TRUE(closed->answer<v1::SessionResponse>().has_closed());
  EXPECT_FALSE(stands("orders/7")) << "with all it owned";
  EXPECT_EQ(brief(*cluster_.call("/conclave.v1.Sessions/Close", calls.identity())), "5 SESSION_EXPIRED");
  EXPECT_EQ(brief(*cluster_.call("/conclave.v1.Sessions/KeepAlive", keep)), "5 SESSION_EXPIRED");
  EXPECT_EQ(brief(*calls.acquire({"orders"})), "5 SESSION_EXPIRED");
}

TEST_F(SessionsTest, WhatIsNotKeptExpires) {
  SingleCalls calls(cluster_, 7);
  ASSERT_EQ(calls.open(2000), "OK");
  calls.hold("orders");
  cluster_.advance(3s);
  EXPECT_FALSE(stands("orders/7"));
  EXPECT_EQ(brief(*calls.release("orders", 2)), "5 SESSION_EXPIRED");
}

TEST_F(SessionsTest, BadSessionsAreRefusedBeforeAnythingIsProposed) {
  const uint64_t applied = cluster_.keyspace().applied().value();
  v1::OpenSession open;
  EXPECT_EQ(brief(*cluster_.call("/conclave.v1.Sessions/Open", open)), "3 INVALID_REQUEST") << "no number";
  open.set_session(-5);
  EXPECT_EQ(brief(*cluster_.call("/conclave.v1.Sessions/Open", open)), "3 INVALID_REQUEST");
  open.set_session(5);
  open.set_secret("too short");
  open.set_ttl_ms(10'000);
  EXPECT_EQ(brief(*cluster_.call("/conclave.v1.Sessions/Open", open)), "3 INVALID_REQUEST");
  open.set_secret(secret_of(5));
  for (const int64_t ttl : {int64_t{-1}, int64_t{0}, int64_t{999}, int64_t{2'592'000'001}, INT64_MAX}) {
    open.set_ttl_ms(ttl);
    EXPECT_EQ(brief(*cluster_.call("/conclave.v1.Sessions/Open", open)), "3 INVALID_TTL") << ttl;
  }
  open.set_ttl_ms(10'000);
  open.set_description(std::string(257, 'd'));
  EXPECT_EQ(brief(*cluster_.call("/conclave.v1.Sessions/Open", open)), "3 INVALID_REQUEST");
  const auto malformed = cluster_.open("/conclave.v1.Sessions/Open");
  malformed->say(std::string("\xff\xff\xff"));
  EXPECT_EQ(brief(*malformed), "3 INVALID_REQUEST");
  for (const char* name : {"/conclave.v1.Locks/Acquire", "/conclave.v1.Sessions/Close", "/conclave.v1.Locks/List"}) {
    const auto bytes = cluster_.open(name);
    bytes->say(std::string("\x0a\xff\xff\xff\xff\x7f"));
    EXPECT_EQ(brief(*bytes), "3 INVALID_REQUEST") << name;
  }
  EXPECT_EQ(cluster_.keyspace().applied().value(), applied);
}

TEST_F(SessionsTest, SecretsAndIncarnations) {
  SingleCalls calls(cluster_, 7);
  ASSERT_EQ(calls.open(), "OK");
  v1::SessionIdentity identity = calls.identity();
  identity.set_secret("not the secret at all");
  EXPECT_EQ(brief(*cluster_.call("/conclave.v1.Sessions/Close", identity)), "16 WRONG_SECRET");
  identity.set_secret(std::string(100'000, 's'));
  EXPECT_NE(brief(*cluster_.call("/conclave.v1.Sessions/Close", identity)), "OK");
  identity = calls.identity();
  identity.set_incarnation(0);
  EXPECT_EQ(brief(*cluster_.call("/conclave.v1.Sessions/Close", identity)), "3 INVALID_REQUEST");
  identity = calls.identity();
  identity.set_session(8);
  EXPECT_EQ(brief(*cluster_.call("/conclave.v1.Sessions/Close", identity)), "5 SESSION_EXPIRED");

  // Another incarnation did something: those before it do nothing any more.
  v1::AcquireRequest request;
  *request.mutable_identity() = calls.identity();
  request.mutable_identity()->set_incarnation(2);
  request.mutable_identity()->set_sequence(1);
  request.mutable_acquire()->add_names("a");
  ASSERT_EQ(cluster_.call("/conclave.v1.Locks/Acquire", request)->outcome(), "OK");
  calls.set_sequence(1);
  EXPECT_EQ(brief(*calls.acquire({"b"})), "9 TAKEN_OVER");
  EXPECT_FALSE(stands("b/7"));
}

TEST_F(SessionsTest, LocksAreHeldInOrder) {
  SingleCalls first(cluster_, 1);
  SingleCalls second(cluster_, 2);
  SingleCalls third(cluster_, 0x33);
  for (SingleCalls* calls : {&first, &second, &third}) ASSERT_EQ(calls->open(), "OK");
  const int64_t token = first.hold("orders");
  const auto waiting = second.acquire({"orders"});
  const auto behind = third.acquire({"orders"});
  EXPECT_EQ(waiting->outcome(), "open");
  EXPECT_TRUE(metric_is("claims_waiting 2"));
  EXPECT_TRUE(metric_is("sessions_attached 2"));
  EXPECT_TRUE(metric_is("session_streams 2"));
  auto released = first.release("orders", token);
  ASSERT_EQ(released->outcome(), "OK");
  EXPECT_TRUE(released->answer<v1::Released>().held());
  ASSERT_EQ(waiting->outcome(), "OK");
  const auto held = waiting->answer<v1::LocksHeld>();
  ASSERT_EQ(held.claims_size(), 1);
  EXPECT_EQ(held.claims(0).name(), "orders");
  EXPECT_TRUE(held.claims(0).granted());
  EXPECT_GT(held.claims(0).token(), token);
  EXPECT_EQ(behind->outcome(), "open");
  released = first.release("orders", token);
  ASSERT_EQ(released->outcome(), "OK");
  EXPECT_FALSE(released->answer<v1::Released>().held()) << "it was over before";
  // Its owner's end is the next one's beginning.
  ASSERT_EQ(cluster_.call("/conclave.v1.Sessions/Close", second.identity())->outcome(), "OK");
  EXPECT_EQ(behind->outcome(), "OK");
  EXPECT_TRUE(metric_is("session_operations_total{operation=\"acquire\",outcome=\"OK\"} 3"));
  EXPECT_TRUE(metric_is("session_operations_total{operation=\"release\",outcome=\"OK\"} 2"));
  EXPECT_TRUE(metric_is("session_operations_total{operation=\"open\",outcome=\"OK\"} 3"));
  EXPECT_TRUE(metric_is("session_streams 0"));
}

TEST_F(SessionsTest, ARepeatedCallIsOneOperation) {
  SingleCalls calls(cluster_, 7);
  ASSERT_EQ(calls.open(), "OK");
  const int64_t token = calls.hold("orders");
  calls.set_sequence(0);
  EXPECT_EQ(calls.hold("orders"), token);
  EXPECT_EQ(brief(*calls.acquire({"orders"})), "6 ALREADY_HELD") << "another operation";
}

TEST_F(SessionsTest, WhatBlocksIsSaidAndLeavesNothing) {
  SingleCalls owner(cluster_, 1);
  SingleCalls other(cluster_, 2);
  ASSERT_EQ(owner.open(), "OK");
  ASSERT_EQ(other.open(), "OK");
  const int64_t token = owner.hold("a");
  EXPECT_EQ(brief(*other.acquire({"a"}, true)), "10 WOULD_BLOCK");
  EXPECT_FALSE(stands("a/2"));
  EXPECT_EQ(other.acquire({"free"}, true)->outcome(), "OK");
  const auto limited = other.acquire({"a"}, false, 500);
  EXPECT_EQ(limited->outcome(), "open");
  EXPECT_TRUE(stands("a/2"));
  cluster_.advance(1s);
  EXPECT_EQ(brief(*limited), "10 WOULD_BLOCK");
  EXPECT_FALSE(stands("a/2"));
  EXPECT_EQ(brief(*other.acquire({"b", "c"})), "9 HOLDS_OTHERS");
  EXPECT_EQ(brief(*other.acquire({})), "3 INVALID_REQUEST");
  EXPECT_EQ(brief(*other.acquire({"b", "b"})), "3 INVALID_REQUEST");
  EXPECT_EQ(brief(*other.acquire({""})), "3 INVALID_NAME");
  EXPECT_EQ(brief(*other.acquire({"/.conclave/pool/p"})), "3 INVALID_NAME");
  EXPECT_EQ(brief(*other.acquire({std::string(513, 'n')})), "3 INVALID_NAME");
  EXPECT_EQ(brief(*other.acquire(std::vector<std::string>(129, "n"))), "3 INVALID_REQUEST");
  EXPECT_EQ(other.release("a", token)->answer<v1::Released>().held(), false) << "another's";
  EXPECT_TRUE(stands("a/1"));
}

TEST_F(SessionsTest, SeveralLocksAreHeldTogether) {
  SingleCalls owner(cluster_, 1);
  SingleCalls other(cluster_, 2);
  ASSERT_EQ(owner.open(), "OK");
  ASSERT_EQ(other.open(), "OK");
  const int64_t b = owner.hold("b");
  const auto all = other.acquire({"c", "b", "a"});
  EXPECT_EQ(all->outcome(), "open");
  EXPECT_EQ(owner.release("b", b)->outcome(), "OK");
  ASSERT_EQ(all->outcome(), "OK");
  const auto held = all->answer<v1::LocksHeld>();
  ASSERT_EQ(held.claims_size(), 3);
  EXPECT_EQ(held.claims(0).name(), "c");
  EXPECT_EQ(held.claims(2).name(), "a");
  for (const auto& claim : held.claims()) {
    EXPECT_TRUE(claim.granted());
    EXPECT_EQ(claim.token(), held.claims(0).token()) << "one revision";
  }
}

TEST_F(SessionsTest, ACallThatItsClientEndsIsWithdrawn) {
  SingleCalls owner(cluster_, 1);
  SingleCalls other(cluster_, 2);
  ASSERT_EQ(owner.open(), "OK");
  ASSERT_EQ(other.open(), "OK");
  const int64_t token = owner.hold("a");
  auto waiting = other.acquire({"a"});
  EXPECT_TRUE(stands("a/2"));
  waiting->cancel();
  cluster_.settle();
  EXPECT_FALSE(stands("a/2"));
  // Ended while its command was on its way.
  v1::AcquireRequest request;
  *request.mutable_identity() = other.identity();
  request.mutable_identity()->set_sequence(20);
  request.mutable_acquire()->add_names("b");
  {
    const auto call = cluster_.open("/conclave.v1.Locks/Acquire");
    call->say(request);
    call->cancel();
  }
  cluster_.settle();
  EXPECT_TRUE(stands("b/2")) << "granted at once: its client may have asked again elsewhere";
  EXPECT_EQ(cluster_.call("/conclave.v1.Locks/Acquire", request)->answer<v1::LocksHeld>().claims_size(), 1);
  // Of an election the candidacy.
  const auto led = owner.campaign("e", "one");
  ASSERT_EQ(led->outcome(), "OK");
  other.set_sequence(30);
  waiting = other.campaign("e", "two");
  EXPECT_EQ(waiting->outcome(), "open");
  waiting->cancel();
  cluster_.settle();
  v1::ResignRequest resign;
  resign.mutable_resign()->set_name("e");
  resign.mutable_resign()->set_token(led->answer<v1::Elected>().token());
  EXPECT_EQ(owner.operate("Elections/Resign", resign)->outcome(), "OK");
  EXPECT_EQ(cluster_.get("e/", "e0").count(), 0) << "nobody is elected who is gone";
  EXPECT_EQ(owner.release("a", token)->outcome(), "OK");
}

TEST_F(SessionsTest, AClaimThatIsDeletedWhileItWaits) {
  SingleCalls owner(cluster_, 1);
  SingleCalls other(cluster_, 2);
  ASSERT_EQ(owner.open(), "OK");
  ASSERT_EQ(other.open(), "OK");
  owner.hold("a");
  const auto waiting = other.acquire({"a", "b"});
  EXPECT_EQ(waiting->outcome(), "open");
  cluster_.remove("a/2");
  EXPECT_EQ(brief(*waiting), "5 CLAIM_LOST");
  cluster_.settle();
  EXPECT_FALSE(stands("b/2")) << "nothing is left of the others";
}

TEST_F(SessionsTest, Elections) {
  SingleCalls first(cluster_, 1);
  SingleCalls second(cluster_, 2);
  SingleCalls third(cluster_, 3);
  for (SingleCalls* calls : {&first, &second, &third}) ASSERT_EQ(calls->open(), "OK");
  v1::ObserveElection observe;
  observe.set_name("e");
  const auto observer = cluster_.call("/conclave.v1.Elections/Observe", observe);
  ASSERT_EQ(observer->outcome(), "open");
  ASSERT_EQ(observer->sent.size(), 1U);
  EXPECT_EQ(observer->answer<v1::Leadership>(0).token(), 0) << "a vacancy";

  const auto led = first.campaign("e", "one");
  ASSERT_EQ(led->outcome(), "OK");
  const int64_t token = led->answer<v1::Elected>().token();
  EXPECT_GT(token, 0);
  EXPECT_EQ(brief(*first.campaign("e", "again")), "6 ALREADY_HELD");
  const auto low = second.campaign("e", "two");
  const auto high = third.campaign("e", "three", 5);
  EXPECT_EQ(high->outcome(), "open");

  v1::ProclaimRequest proclaim;
  proclaim.mutable_proclaim()->set_name("e");
  proclaim.mutable_proclaim()->set_token(token);
  proclaim.mutable_proclaim()->set_value("one, still");
  const auto proclaimed = first.operate("Elections/Proclaim", proclaim);
  ASSERT_EQ(proclaimed->outcome(), "OK");
  EXPECT_GT(proclaimed->answer<v1::Proclaimed>().revision(), token);
  proclaim.mutable_proclaim()->set_token(token + 100);
  EXPECT_EQ(brief(*first.operate("Elections/Proclaim", proclaim)), "9 NOT_OWNER");

  v1::TransferRequest transfer;
  transfer.mutable_transfer()->set_name("e");
  transfer.mutable_transfer()->set_token(token);
  transfer.mutable_transfer()->set_to(99);
  EXPECT_EQ(brief(*first.operate("Elections/Transfer", transfer)), "5 NO_CANDIDATE");
  transfer.mutable_transfer()->set_to(2);
  const auto transferred = first.operate("Elections/Transfer", transfer);
  ASSERT_EQ(transferred->outcome(), "OK");
  EXPECT_TRUE(transferred->answer<v1::TermEnded>().held());
  ASSERT_EQ(low->outcome(), "OK") << "though the other has the higher priority";
  EXPECT_EQ(high->outcome(), "open");

  v1::ResignRequest resign;
  resign.mutable_resign()->set_name("e");
  resign.mutable_resign()->set_token(low->answer<v1::Elected>().token());
  EXPECT_TRUE(second.operate("Elections/Resign", resign)->answer<v1::TermEnded>().held());
  EXPECT_FALSE(second.operate("Elections/Resign", resign)->answer<v1::TermEnded>().held()) << "it was over before";
  ASSERT_EQ(high->outcome(), "OK");
  // Somebody of the recipe stands in line: nobody can be passed the term over its head.
  cluster_.grant(60, 0xabc);
  cluster_.put("e/abc", "recipe", 0xabc);
  transfer.mutable_transfer()->set_token(high->answer<v1::Elected>().token());
  transfer.mutable_transfer()->set_to(1);
  const auto again = first.campaign("e", "one");
  EXPECT_EQ(brief(*third.operate("Elections/Transfer", transfer)), "9 FOREIGN_WAITERS");

  std::vector<std::string> values;
  for (size_t i = 1; i < observer->sent.size(); ++i) values.push_back(observer->answer<v1::Leadership>(i).value());
  EXPECT_EQ(values, (std::vector<std::string>{"one", "one, still", "two", "three"}));
}

TEST_F(SessionsTest, ObservingBadNames) {
  v1::ObserveElection observe;
  EXPECT_EQ(brief(*cluster_.call("/conclave.v1.Elections/Observe", observe)), "3 INVALID_NAME");
  const auto nothing = cluster_.open("/conclave.v1.Elections/Observe");
  nothing->half_close();
  EXPECT_EQ(nothing->status->code, 12U);
}

TEST_F(SessionsTest, EventsOfASession) {
  SingleCalls owner(cluster_, 1);
  SingleCalls other(cluster_, 2);
  ASSERT_EQ(owner.open(), "OK");
  ASSERT_EQ(other.open(), "OK");
  const int64_t token = owner.hold("a");
  const auto events = cluster_.call("/conclave.v1.Sessions/Events", owner.identity());
  ASSERT_EQ(events->sent.size(), 1U) << events->outcome();
  const auto attached = events->answer<v1::SessionResponse>(0).attached();
  ASSERT_EQ(attached.claims_size(), 1);
  EXPECT_EQ(attached.claims(0).name(), "a");
  EXPECT_EQ(attached.claims(0).token(), token);
  EXPECT_TRUE(attached.claims(0).granted());

  v1::RequestReleaseOfLock ask;
  ask.set_name("a");
  ask.set_note("please");
  EXPECT_EQ(cluster_.call("/conclave.v1.Locks/RequestRelease", ask)->answer<v1::ReleaseWasRequested>().token(), token);
  ASSERT_EQ(events->sent.size(), 2U);
  EXPECT_EQ(events->answer<v1::SessionResponse>(1).release_requested().note(), "please");
  cluster_.remove("a/1");
  ASSERT_EQ(events->sent.size(), 3U);
  EXPECT_EQ(events->answer<v1::SessionResponse>(2).lost().reason(), v1::Lost::DELETED);
  EXPECT_EQ(owner.acquire({"b"})->outcome(), "OK") << "single calls of the same incarnation go on beside it";
  cluster_.advance(20s);
  ASSERT_TRUE(events->ok());
  EXPECT_EQ(events->answer<v1::SessionResponse>(events->sent.size() - 1).ended().reason(), v1::SessionEnded::EXPIRED);

  v1::SessionIdentity nobody = owner.identity();
  EXPECT_EQ(brief(*cluster_.call("/conclave.v1.Sessions/Events", nobody)), "5 SESSION_EXPIRED");
}

// ---- The stream ----

TEST_F(SessionsTest, OneStreamDoesEverything) {
  SessionStream stream(cluster_);
  EXPECT_TRUE(stream.ask(SessionStream::open_request(1)).has_opened());
  EXPECT_TRUE(stream.ask(SessionStream::open_request(2)).has_opened());
  auto answer = stream.ask(SessionStream::acquire_request(1, 1, "a"));
  EXPECT_EQ(answer.sequence(), 1U);
  ASSERT_EQ(answer.claimed().claims_size(), 1);
  EXPECT_TRUE(answer.claimed().claims(0).granted());
  const int64_t token = answer.claimed().claims(0).token();
  answer = stream.ask(SessionStream::acquire_request(2, 1, "a"));
  EXPECT_EQ(answer.session(), 2);
  EXPECT_FALSE(answer.claimed().claims(0).granted());
  EXPECT_TRUE(metric_is("claims_waiting 1"));
  EXPECT_TRUE(metric_is("sessions_attached 2"));

  v1::SessionRequest request;
  request.set_session(1);
  request.set_sequence(2);
  request.mutable_release()->set_name("a");
  request.mutable_release()->set_token(token);
  stream.say(request);
  const auto all = stream.heard();
  ASSERT_EQ(all.size(), 2U);
  const auto is_grant = [](const v1::SessionResponse& each) { return each.has_granted() && each.session() == 2; };
  EXPECT_EQ(std::ranges::count_if(all, is_grant), 1);

  request.Clear();
  request.mutable_keep_alive()->set_id(77);
  answer = stream.ask(request);
  EXPECT_EQ(answer.kept().id(), 77U);
  EXPECT_EQ(answer.kept().gone_size() + answer.kept().failed_size(), 0);

  request.Clear();
  request.set_session(1);
  request.mutable_close();
  stream.say(request);
  EXPECT_TRUE(std::ranges::any_of(stream.heard(), [](const v1::SessionResponse& each) { return each.has_closed(); }));
  answer = stream.ask(SessionStream::acquire_request(1, 3, "b"));
  EXPECT_EQ(answer.error().reason(), "NOT_ATTACHED");
  EXPECT_EQ(answer.error().code(), 9U);
  EXPECT_EQ(answer.sequence(), 3U);
  answer = stream.ask(v1::SessionRequest());
  EXPECT_EQ(answer.error().reason(), "INVALID_REQUEST");
  EXPECT_TRUE(metric_is("session_operations_total{operation=\"acquire\",outcome=\"NOT_ATTACHED\"} 1"));
}

TEST_F(SessionsTest, ASessionGoesOnWithAnotherStream) {
  SessionStream before(cluster_);
  before.ask(SessionStream::open_request(1));
  before.ask(SessionStream::acquire_request(1, 1, "a"));
  SessionStream after(cluster_);
  const auto attached = after.ask(SessionStream::attach_request(1, 2));
  ASSERT_EQ(attached.attached().claims_size(), 1);
  EXPECT_TRUE(attached.attached().claims(0).granted());
  EXPECT_EQ(before.answer().ended().reason(), v1::SessionEnded::TAKEN_OVER);
  v1::SessionRequest stale = SessionStream::attach_request(1, 1);
  EXPECT_EQ(before.ask(stale).error().reason(), "TAKEN_OVER");
  stale = SessionStream::attach_request(1, 3);
  stale.mutable_attach()->mutable_place()->set_index(1'000'000);
  EXPECT_EQ(before.ask(stale).error().reason(), "PLACE_UNKNOWN");
  // A stream that ends takes nothing with it.
  after.call().cancel();
  cluster_.settle();
  EXPECT_TRUE(stands("a/1"));
}

TEST_F(SessionsTest, AStreamWhoseClientIsDoneEndsOnceAllIsAnswered) {
  SessionStream stream(cluster_);
  stream.say(SessionStream::open_request(1));
  v1::SessionRequest keep;
  keep.mutable_keep_alive()->set_id(1);
  stream.say(keep);
  stream.call().half_close();
  EXPECT_FALSE(stream.call().ended());
  cluster_.settle();
  EXPECT_TRUE(stream.call().ok());
  EXPECT_EQ(stream.call().sent.size(), 2U);
  SessionStream silent(cluster_);
  silent.call().half_close();
  EXPECT_TRUE(silent.call().ok());
}

TEST_F(SessionsTest, WhatAnEndedSessionAskedHasNoAnswer) {
  SessionStream stream(cluster_);
  stream.ask(SessionStream::open_request(1));
  stream.ask(SessionStream::open_request(2));
  cluster_.server().disk_stopped = true;
  stream.say(SessionStream::acquire_request(1, 1, "a"));
  v1::SessionRequest detach;
  detach.set_session(1);
  detach.mutable_detach();
  stream.say(detach);
  EXPECT_TRUE(stream.heard().empty());
  EXPECT_TRUE(metric_is("session_operations_total{operation=\"acquire\",outcome=\"UNANSWERED\"} 1"));
  cluster_.server().disk_stopped = false;
  stream.call().half_close();
  EXPECT_TRUE(stream.call().ok()) << "nothing is waited for";
  cluster_.settle();
  EXPECT_TRUE(stands("a/1")) << "what is under way still happens";
}

TEST_F(SessionsTest, AnotherStateTakesThePlace) {
  SessionStream stream(cluster_);
  stream.ask(SessionStream::open_request(1));
  SingleCalls owner(cluster_, 2);
  ASSERT_EQ(owner.open(), "OK");
  owner.hold("a");
  SingleCalls other(cluster_, 3);
  ASSERT_EQ(other.open(), "OK");
  const auto waiting = other.acquire({"a"});
  cluster_.service().on_state_replaced();
  EXPECT_TRUE(cluster_.service().has_work()) << "its streams are to be told in a turn that comes at once";
  EXPECT_EQ(stream.answer().ended().reason(), v1::SessionEnded::MOVED);
  EXPECT_EQ(brief(*waiting), "14 UNKNOWN_OUTCOME");
  EXPECT_TRUE(stands("a/3")) << "asked again under its sequence it finds its claim";
  EXPECT_TRUE(stream.ask(SessionStream::attach_request(1, 2)).has_attached());
}

TEST(Sessions, AServerThatLagsHandsThemOver) {
  Cluster cluster({.servers = 3});
  const uint64_t leader = cluster.elect();
  const uint64_t at = cluster.follower();
  SessionStream stream(cluster, at);
  stream.ask(SessionStream::open_request(1));
  stream.ask(SessionStream::open_request(2));
  SingleCalls owner(cluster, 3, leader);
  ASSERT_EQ(owner.open(), "OK");
  owner.hold("a");
  SingleCalls other(cluster, 4, at);
  ASSERT_EQ(other.open(), "OK");
  const auto waiting = other.acquire({"a"});
  // Its leader says that it is far ahead.
  const Term term = cluster.server(at).replica->raft().status().term;
  cluster.server(at).replica->on_frame(
      cluster.clock.instant, NodeId(leader),
      encode(node::AppliedUpTo{.group = Cluster::kGroup, .term = term, .index = LogIndex(1'000'000)}));
  cluster.advance(900ms);
  EXPECT_TRUE(stream.heard().empty());
  EXPECT_NE(metrics_of(cluster.service(at)).find("\nconclave_raft_is_lagging 0\n"), std::string::npos);
  cluster.advance(1s);
  const std::vector<v1::SessionResponse> heard = stream.heard();
  ASSERT_EQ(heard.size(), 2U);
  for (const v1::SessionResponse& each : heard) EXPECT_EQ(each.ended().reason(), v1::SessionEnded::MOVED);
  EXPECT_EQ(brief(*waiting), "14 UNKNOWN_OUTCOME");
  const std::string metrics = metrics_of(cluster.service(at));
  EXPECT_NE(metrics.find("\nconclave_raft_is_lagging 1\n"), std::string::npos);
  EXPECT_NE(metrics.find("\nconclave_sessions_handed_over_total 3\n"), std::string::npos);
  // Elsewhere, or here if there is nowhere else.
  SessionStream elsewhere(cluster, leader);
  EXPECT_TRUE(elsewhere.ask(SessionStream::attach_request(1, 2)).has_attached());
  EXPECT_TRUE(stream.ask(SessionStream::attach_request(2, 2)).has_attached());
  cluster.advance(1s);
  EXPECT_TRUE(stream.heard().empty());
}

TEST(Sessions, WithoutAQuorum) {
  Cluster cluster({.servers = 3});
  const uint64_t leader = cluster.elect();
  const uint64_t at = cluster.follower();
  SingleCalls calls(cluster, 7, at);
  ASSERT_EQ(calls.open(60'000), "OK");
  for (uint64_t id = 1; id <= 3; ++id) cluster.server(id).cut_off = id != at;
  cluster.advance(3s);
  // Known not done, and of what went to a leader that is gone: not known.
  v1::GetLeader question;
  question.set_name("e");
  const auto read = cluster.call("/conclave.v1.Elections/Leader", question, at);
  const auto lock = calls.acquire({"a"});
  cluster.advance(20s);
  EXPECT_EQ(brief(*read), "14 NO_QUORUM");
  EXPECT_EQ(brief(*lock), "14 NO_QUORUM");
  EXPECT_NE(leader, at);
}

TEST(Sessions, AFollowerServesThemAndALearnerDoesNot) {
  Cluster cluster({.servers = 4, .has_learner = true});
  cluster.elect();
  SingleCalls calls(cluster, 7, cluster.follower());
  ASSERT_EQ(calls.open(), "OK");
  EXPECT_GT(calls.hold("a"), 0);
  SingleCalls elsewhere(cluster, 8, cluster.leader());
  ASSERT_EQ(elsewhere.open(), "OK");
  const auto waiting = elsewhere.acquire({"a"});
  EXPECT_EQ(waiting->outcome(), "open");
  const auto candidate = calls.campaign("e", "v");
  EXPECT_EQ(candidate->outcome(), "OK") << "elected by the server that leads";
  SingleCalls learner(cluster, 9, 4);
  EXPECT_EQ(learner.open(), "9 etcdserver: rpc not supported for learner");
}

TEST(Sessions, TheQuota) {
  Cluster cluster;
  cluster.elect();
  SingleCalls calls(cluster, 7);
  ASSERT_EQ(calls.open(60'000), "OK");
  const int64_t token = calls.hold("a");
  etcdserverpb::AlarmRequest alarm;
  alarm.set_action(etcdserverpb::AlarmRequest::ACTIVATE);
  alarm.set_memberid(1);
  alarm.set_alarm(etcdserverpb::NOSPACE);
  ASSERT_EQ(cluster.call("/etcdserverpb.Maintenance/Alarm", alarm)->outcome(), "OK");
  EXPECT_EQ(brief(*calls.acquire({"b"})), "8 NO_SPACE");
  EXPECT_EQ(brief(*calls.campaign("e", "v")), "8 NO_SPACE");
  SingleCalls other(cluster, 8);
  EXPECT_TRUE(other.open().starts_with("8 NO_SPACE: ")) << other.open();
  EXPECT_TRUE(calls.release("a", token)->answer<v1::Released>().held()) << "what gives back always passes";
}

TEST(Sessions, Overload) {
  Cluster::Options options;
  options.replica.writes_pending_max = 2;
  Cluster cluster(options);
  cluster.elect();
  SingleCalls calls(cluster, 7);
  ASSERT_EQ(calls.open(60'000), "OK");
  cluster.server().disk_stopped = true;
  const auto first = calls.acquire({"a"});
  const auto second = calls.acquire({"b"});
  const auto refused = calls.acquire({"c"});
  EXPECT_EQ(second->outcome(), "open");
  EXPECT_EQ(brief(*refused), "8 OVERLOADED");
  EXPECT_GE(refused->status->retry_after, net::kRetryAfter / 2);
}

// ---- Hostile clients ----

TEST_F(SessionsTest, AClientThatDoesNotReadIsEnded) {
  SessionStream stream(cluster_);
  stream.ask(SessionStream::open_request(1));
  stream.call().is_slow = true;
  v1::SessionRequest request = SessionStream::acquire_request(1, 1, "");
  request.mutable_acquire()->set_note(std::string(100, 'n'));
  // Refused, each with an answer, until answers wait; then requests do.
  size_t said = 0;
  while (!stream.call().ended() && said < 2 * kSessionRequestsWaitingMax) {
    stream.say(request);
    ++said;
  }
  cluster_.settle();
  EXPECT_EQ(brief(stream.call()), "8 OVERLOADED");
  EXPECT_LT(stream.call().sent.size(), 10'000U) << "no more are answered than wait to be read";
  EXPECT_TRUE(metric_is("session_held_bytes 0"));
}

TEST_F(SessionsTest, WhoReadsAgainIsServedOn) {
  SessionStream stream(cluster_);
  stream.ask(SessionStream::open_request(1));
  stream.call().is_slow = true;
  const v1::SessionRequest request = SessionStream::acquire_request(1, 1, "");
  for (int i = 0; i < 20'000; ++i) stream.say(request);
  const size_t answered = stream.heard().size();
  EXPECT_LT(answered, 20'000U);
  size_t all = answered;
  for (int i = 0; i < 100 && all < 20'000; ++i) {
    stream.call().drain();
    all += stream.heard().size();
  }
  EXPECT_EQ(all, 20'000U);
}

TEST_F(SessionsTest, ManyStreamsThatSayNothingAndReadNothing) {
  std::vector<std::unique_ptr<FakeCall>> streams;
  for (int64_t i = 1; i <= 10'000; ++i) {
    streams.push_back(cluster_.open("/conclave.v1.Sessions/Session"));
    streams.back()->is_slow = true;
    streams.back()->say(SessionStream::open_request(i, 600'000));
  }
  cluster_.settle();
  EXPECT_TRUE(metric_is("sessions_attached 10000"));
  EXPECT_TRUE(metric_is("session_streams 10000"));
  SingleCalls calls(cluster_, 20'000);
  ASSERT_EQ(calls.open(), "OK");
  EXPECT_GT(calls.hold("a"), 0);
  streams.clear();
  cluster_.settle();
  EXPECT_TRUE(metric_is("sessions_attached 0"));
}

TEST_F(SessionsTest, GarbageOnAStream) {
  SessionStream stream(cluster_);
  stream.call().say(std::string("\xff\x00\x17", 3));
  EXPECT_EQ(brief(stream.call()), "3 INVALID_REQUEST");
  SessionStream odd(cluster_);
  odd.ask(SessionStream::open_request(1));
  for (const uint64_t sequence : {uint64_t{0}, UINT64_MAX, uint64_t{1} << 63}) {
    EXPECT_EQ(odd.ask(SessionStream::acquire_request(1, sequence, "a")).error().reason(), "INVALID_REQUEST")
        << sequence;
  }
  v1::SessionRequest observe;
  observe.set_session(INT64_MIN);
  observe.mutable_observe()->set_name("e");
  EXPECT_EQ(odd.ask(observe).error().reason(), "INVALID_REQUEST");
}

// A proxy's sessions come back all at once: attached a thousand at a time, and all of them.
TEST_F(SessionsTest, ManySessionsAreAttachedAtOnce) {
  constexpr int64_t kSessions = 5000;
  SessionStream before(cluster_);
  for (int64_t i = 1; i <= kSessions; ++i) before.say(SessionStream::open_request(i, 600'000));
  EXPECT_EQ(before.heard().size(), static_cast<size_t>(kSessions));
  SessionStream after(cluster_);
  for (int64_t i = 1; i <= kSessions; ++i) after.say(SessionStream::attach_request(i, 2));
  const auto all = after.heard();
  EXPECT_EQ(std::ranges::count_if(all, [](const v1::SessionResponse& each) { return each.has_attached(); }), kSessions);
}

}  // namespace
}  // namespace conclave::api
