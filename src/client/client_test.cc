// The client's IO and public face, over real connections to servers that do as the test says.
#include "conclave/client.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "client/testing/fake_cluster.h"
#include "client/testing/told.h"
#include "etcd/rpc.pb.h"

namespace conclave::client {
namespace {

using namespace std::chrono_literals;

class ClientTest : public testing::Test {
 protected:
  Session open(SessionOptions options = {}) {
    options.on_state = [this](State state, const std::string&) { states.add(state); };
    options.on_release_wanted = [this](const std::string& name, int64_t, const std::string& note) {
      wanted.add(name + ": " + note);
    };
    auto session = client.open_session(std::move(options));
    EXPECT_TRUE(session) << session.error().message;
    return std::move(*session);
  }
  // Of requests that the cluster got from here on.
  Told<v1::SessionRequest::WhatCase>& asked() {
    cluster.on_request([this](const v1::SessionRequest& request) { requests.add(request.what_case()); });
    return requests;
  }

  Told<State> states;
  Told<std::string> wanted;
  Told<v1::SessionRequest::WhatCase> requests;
  FakeCluster cluster{2};
  Client client = std::move(*Client::open({.endpoints = cluster.endpoints()}));
};

// ---- Sessions ----

TEST_F(ClientTest, ASessionIsOpenedRenewedAndClosed) {
  auto& asked = this->asked();
  {
    const Session session = open({.ttl = 1s});
    EXPECT_EQ(session.state(), State::kSafe);
    EXPECT_GT(session.deadline(), BootClock::now());
    EXPECT_LE(session.deadline(), BootClock::now() + 1s);
    EXPECT_TRUE(asked.wait_for(v1::SessionRequest::kKeepAlive));
    EXPECT_EQ(cluster.sessions(), 1U);
  }
  EXPECT_EQ(cluster.sessions(), 0U) << "the end of its scope closes it";
  EXPECT_TRUE(states.wait_for(State::kClosed));
}

TEST_F(ClientTest, KeepAlivesOfManySessionsGoTogether) {
  std::vector<Session> sessions;
  sessions.reserve(50);
  for (int i = 0; i < 50; ++i) sessions.push_back(open({.ttl = 3s}));
  const auto before = cluster.counts();
  Told<int> messages;
  cluster.on_request([&](const v1::SessionRequest& request) {
    if (request.has_keep_alive()) messages.add(request.keep_alive().sessions_size());
  });
  EXPECT_TRUE(messages.wait([](const std::vector<int>& all) {
    int sum = 0;
    for (const int each : all) sum += each;
    return sum >= 100;
  }));
  EXPECT_GE(std::ranges::max(messages.all()), 5);
  EXPECT_EQ(before.streams, 1U) << "all sessions share a stream";
  cluster.on_request(nullptr);
}

TEST_F(ClientTest, ASilentServerIsLeftBeforeTheSessionIsInJeopardy) {
  const Session session = open({.ttl = 6s});
  cluster.silence_used();
  auto& asked = this->asked();
  EXPECT_TRUE(asked.wait_for(v1::SessionRequest::kAttach)) << "at the other server";
  EXPECT_TRUE(asked.wait([](const auto& all) { return std::ranges::count(all, v1::SessionRequest::kKeepAlive) >= 3; }));
  EXPECT_EQ(session.state(), State::kSafe);
  EXPECT_EQ(std::ranges::count(states.all(), State::kJeopardy), 0);
}

TEST_F(ClientTest, AServerThatRenewsNothingIsLeft) {
  const Session session = open({.ttl = 1s});
  cluster.set_renewing(false);
  EXPECT_TRUE(asked().wait_for(v1::SessionRequest::kAttach));
  cluster.set_renewing(true);
  EXPECT_TRUE(session.wait_safe(kLimit));
}

TEST_F(ClientTest, WithoutAnswersASessionIsInJeopardyAndThenExpired) {
  Session session = open({.ttl = 1s, .jeopardy_max = 300ms});
  auto hold = session.lock("a");
  ASSERT_TRUE(hold);
  EXPECT_TRUE(hold->is_held());
  cluster.set_silent(true);
  EXPECT_TRUE(states.wait_for(State::kJeopardy));
  EXPECT_FALSE(hold->is_held());
  EXPECT_FALSE(hold->stop_token().stop_requested()) << "nothing is decided yet";
  EXPECT_EQ(hold->wait_held(1ms).error().reason, "IN_JEOPARDY");
  EXPECT_TRUE(fires(hold->stop_token()));
  EXPECT_EQ(session.state(), State::kExpired);
  EXPECT_EQ(hold->wait_held(1ms).error().reason, "SESSION_EXPIRED");
  EXPECT_EQ(hold->release(), HeldEnd::kAlreadyLost);
  EXPECT_EQ(session.close().error().kind, ErrorKind::kLost);
  EXPECT_EQ(session.lock("b").error().kind, ErrorKind::kLost);
}

TEST_F(ClientTest, ItStandsFromWhenTheKeepAliveWasSent) {
  const Session session = open({.ttl = 3s});
  Told<BootClock::time_point> heard;
  cluster.on_request([&](const v1::SessionRequest& request) {
    if (request.has_keep_alive()) heard.add(BootClock::now());
  });
  cluster.hold_keep_alives_back();
  EXPECT_TRUE(heard.wait([](const auto& all) { return !all.empty(); }));
  const auto before = session.deadline();
  cluster.answer_keep_alives();
  EXPECT_TRUE(eventually([&] { return session.deadline() > before; }));
  EXPECT_LE(session.deadline(), heard.all().front() + 3s) << "however late the answer comes";
}

// As in a process that was stopped: nothing of the library's has run since, and whoever asks must not be told the past.
TEST_F(ClientTest, WhoAsksIsAnsweredByTheClockAlone) {
  Session session = open({.ttl = 1s});
  auto hold = session.lock("a");
  Told<int> blocked;
  std::promise<void> go_on;
  session.lock("b", {}, [&](std::expected<Hold, Error>) {
    blocked.add(1);
    go_on.get_future().wait();
  });
  EXPECT_TRUE(blocked.wait_for(1));
  EXPECT_TRUE(hold->is_held());
  const auto deadline = session.deadline();
  EXPECT_TRUE(eventually([&] { return BootClock::now() >= deadline; }));
  EXPECT_FALSE(hold->is_held());
  EXPECT_EQ(session.state(), State::kJeopardy);
  go_on.set_value();
  EXPECT_TRUE(hold->wait_held(kLimit)) << "no server has ended it";
}

TEST_F(ClientTest, JeopardyMayEndWell) {
  Session session = open({.ttl = 1s});
  auto stopped = session.lock("stopped", {.stop_in_jeopardy = true});
  auto kept = session.lock("kept");
  cluster.set_silent(true);
  EXPECT_TRUE(fires(stopped->stop_token()));
  EXPECT_FALSE(kept->is_held());
  cluster.set_silent(false);
  EXPECT_TRUE(kept->wait_held(kLimit));
  EXPECT_TRUE(kept->is_held());
  EXPECT_FALSE(kept->stop_token().stop_requested());
  EXPECT_EQ(kept->release(), HeldEnd::kReleased);
}

TEST_F(ClientTest, WhatAResumedSessionLostIsNeverHeldAgain) {
  Session session = open({.ttl = 1s});
  auto hold = session.lock("a");
  cluster.set_silent(true);
  EXPECT_TRUE(states.wait_for(State::kJeopardy));
  cluster.lose("a", v1::Lost::DELETED);  // and nobody hears of it
  cluster.set_silent(false);
  bool held = false;
  EXPECT_TRUE(eventually([&] {
    held = held || hold->is_held();
    return hold->stop_token().stop_requested();
  }));
  EXPECT_FALSE(held);
  EXPECT_TRUE(session.wait_safe(kLimit));
  EXPECT_EQ(hold->release(), HeldEnd::kAlreadyLost);
}

TEST_F(ClientTest, AStreamThatEndsIsFollowedByAnother) {
  Session session = open();
  auto hold = session.lock("a");
  Session other = open();
  auto& asked = this->asked();
  std::thread waiter([&] {
    const auto second = other.lock("a");
    EXPECT_TRUE(second) << second.error().message;
  });
  EXPECT_TRUE(asked.wait_for(v1::SessionRequest::kAcquire));
  cluster.end_streams();
  EXPECT_TRUE(asked.wait_for(v1::SessionRequest::kAttach));
  EXPECT_TRUE(hold->is_held());
  EXPECT_EQ(hold->release(), HeldEnd::kReleased);
  waiter.join();
}

TEST_F(ClientTest, AServerThatHandsASessionOverIsLeftForTheNext) {
  Session session = open();
  Session other = open();
  auto hold = session.lock("a");
  ASSERT_TRUE(hold);
  const std::vector<size_t> before = cluster.streams();
  auto& asked = this->asked();
  cluster.move(session.id());
  EXPECT_TRUE(asked.wait([](const auto& all) { return std::ranges::count(all, v1::SessionRequest::kAttach) == 2; }))
      << "all sessions of the stream go";
  std::vector<size_t> swapped = before;
  std::ranges::reverse(swapped);
  EXPECT_TRUE(eventually([&] { return cluster.streams() == swapped; })) << "at the other server";
  EXPECT_TRUE(hold->is_held());
  EXPECT_EQ(hold->release(), HeldEnd::kReleased);
  EXPECT_EQ(std::ranges::count(states.all(), State::kJeopardy), 0);
}

TEST_F(ClientTest, NoServerIsToldInTime) {
  cluster.set_silent(true);
  auto impatient = Client::open({.endpoints = cluster.endpoints(), .request_timeout = 100ms});
  const auto session = impatient->open_session();
  ASSERT_FALSE(session);
  EXPECT_EQ(session.error().kind, ErrorKind::kNotApplied);
  EXPECT_EQ(session.error().reason, "NO_SERVER");
}

TEST(ClientOptionsTest, WhatIsWrongIsRejected) {
  EXPECT_EQ(Client::open({.endpoints = "nowhere"}).error().kind, ErrorKind::kRejected);
  EXPECT_EQ(Client::open({.endpoints = "a:1", .ca = "/nowhere"}).error().kind, ErrorKind::kRejected);
  EXPECT_EQ(Client::open({.request_timeout = 0ms}).error().kind, ErrorKind::kRejected);
  auto client = Client::open({.endpoints = "127.0.0.1:1"});
  ASSERT_TRUE(client);
  EXPECT_EQ(client->open_session({.ttl = 999ms}).error().reason, "INVALID_TTL");
  EXPECT_EQ(client->open_session({.ttl = 31 * 24h}).error().reason, "INVALID_TTL");
}

// ---- Locks ----

TEST_F(ClientTest, ALockHasATokenAndAGuard) {
  Session session = open();
  auto first = session.lock("a");
  ASSERT_TRUE(first);
  const int64_t token = first->token();
  EXPECT_GT(token, 0);
  EXPECT_EQ(first->name(), "a");
  EXPECT_EQ(first->token("a"), token);
  EXPECT_EQ(first->token("b"), 0);
  EXPECT_EQ(first->guard().key, fmt::format("a/{:x}", session.id()));
  EXPECT_EQ(first->guard().create_revision, token);
  etcdserverpb::Compare compare;
  ASSERT_TRUE(compare.ParseFromString(first->guard().compare()));
  EXPECT_EQ(compare.key(), first->guard().key);
  EXPECT_EQ(compare.target(), etcdserverpb::Compare::CREATE);
  EXPECT_EQ(compare.create_revision(), token);
  EXPECT_EQ(first->release(), HeldEnd::kReleased);
  EXPECT_EQ(first->release(), HeldEnd::kReleased) << "the same answer again";
  EXPECT_FALSE(first->is_held());
  EXPECT_TRUE(first->stop_token().stop_requested());
  const auto second = session.lock("a");
  EXPECT_GT(second->token(), token);
}

TEST_F(ClientTest, SeveralAreHeldTogetherAndLostTogether) {
  Session session = open();
  auto hold = session.lock_all({"a", "b"});
  ASSERT_TRUE(hold);
  EXPECT_EQ(hold->names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(hold->guards().size(), 2U);
  cluster.lose("b", v1::Lost::FORCED);
  EXPECT_TRUE(fires(hold->stop_token()));
  EXPECT_FALSE(hold->is_held());
  EXPECT_EQ(hold->wait_held(1ms).error().reason, "FORCED");
  EXPECT_EQ(hold->release(), HeldEnd::kAlreadyLost);
  EXPECT_EQ(cluster.in_line("a"), 0U) << "what was left of it is released";
}

TEST_F(ClientTest, ATryAndATimeoutLeaveNothing) {
  Session session = open();
  Session other = open();
  const auto hold = session.lock("a");
  const auto tried = other.try_lock("a");
  ASSERT_FALSE(tried);
  EXPECT_EQ(tried.error().kind, ErrorKind::kNotApplied);
  EXPECT_EQ(tried.error().reason, "WOULD_BLOCK");
  const auto waited = other.lock("a", {.timeout = 30ms});
  ASSERT_FALSE(waited);
  EXPECT_EQ(waited.error().kind, ErrorKind::kNotApplied);
  EXPECT_EQ(waited.error().reason, "TIMED_OUT");
  EXPECT_EQ(cluster.in_line("a"), 1U);
}

TEST_F(ClientTest, AWaitIsCancelled) {
  Session session = open();
  Session other = open();
  const auto hold = session.lock("a");
  std::stop_source stop;
  auto& asked = this->asked();
  std::thread canceller([&] {
    EXPECT_TRUE(asked.wait_for(v1::SessionRequest::kAcquire));
    stop.request_stop();
  });
  const auto waited = other.lock("a", {.cancel = stop.get_token()});
  canceller.join();
  ASSERT_FALSE(waited);
  EXPECT_EQ(waited.error().kind, ErrorKind::kCancelled);
  EXPECT_EQ(cluster.in_line("a"), 1U);
  EXPECT_EQ(other.lock("a", {.cancel = stop.get_token()}).error().kind, ErrorKind::kCancelled);
}

TEST_F(ClientTest, AWaitThatCannotBeTakenBackIsUnknown) {
  Session session = open();
  Session other = open();
  const auto hold = session.lock("a");
  auto& asked = this->asked();
  std::thread silencer([&] {
    EXPECT_TRUE(asked.wait_for(v1::SessionRequest::kAcquire));
    cluster.set_silent(true);
  });
  const auto waited = other.lock("a", {.timeout = 200ms});
  silencer.join();
  ASSERT_FALSE(waited);
  EXPECT_EQ(waited.error().kind, ErrorKind::kOutcomeUnknown);
  EXPECT_EQ(waited.error().reason, "TIMED_OUT");
  cluster.set_silent(false);
  EXPECT_TRUE(asked.wait_for(v1::SessionRequest::kCancel));
}

TEST_F(ClientTest, ReentrancyIsCountedOnlyWhereAsked) {
  Session session = open();
  auto outer = session.lock("a", {.reentrant = true});
  auto inner = session.lock("a", {.reentrant = true});
  ASSERT_TRUE(inner);
  EXPECT_EQ(inner->token(), outer->token());
  EXPECT_EQ(inner->release(), HeldEnd::kReleased);
  EXPECT_FALSE(inner->is_held());
  EXPECT_TRUE(outer->is_held());
  EXPECT_EQ(cluster.in_line("a"), 1U);
  EXPECT_EQ(session.lock("a", {.timeout = 20ms}).error().reason, "TIMED_OUT") << "not asked for";
  EXPECT_EQ(outer->release(), HeldEnd::kReleased);
  EXPECT_EQ(cluster.in_line("a"), 0U);
}

TEST_F(ClientTest, TheEndOfAScopeStopsWaitsAndReleases) {
  Session session = open();
  std::vector<std::string> told;
  {
    auto hold = session.lock("a", {.on_end = [&](HeldEnd end) { told.emplace_back(to_string(end)); }});
    hold->run([&](const std::stop_token& stop) {
      EXPECT_TRUE(fires(stop));
      EXPECT_EQ(cluster.in_line("a"), 1U) << "released before the body has ended";
      told.emplace_back("body");
    });
  }
  EXPECT_EQ(told, (std::vector<std::string>{"body", "released"}));
  EXPECT_EQ(cluster.in_line("a"), 0U);
}

TEST_F(ClientTest, ABodyUnderALockSaysHowItEnded) {
  Session session = open();
  const auto well = session.with_lock("a", {}, [](Hold& hold) { EXPECT_TRUE(hold.is_held()); });
  EXPECT_EQ(well, HeldEnd::kReleased);
  const auto lost = session.with_lock("a", {}, [this](Hold& hold) {
    cluster.lose("a", v1::Lost::DELETED);
    EXPECT_TRUE(fires(hold.stop_token()));
  });
  EXPECT_EQ(lost, HeldEnd::kAlreadyLost);
  const auto throwing = [](Hold&) { throw std::runtime_error("from the body"); };
  EXPECT_THROW(EXPECT_FALSE(session.with_lock("a", {}, throwing)), std::runtime_error);
  EXPECT_EQ(cluster.in_line("a"), 0U);
}

TEST_F(ClientTest, AReleaseWithoutAnAnswerIsUnknown) {
  Session session = open();
  auto hold = session.lock("a", {.release_timeout = 50ms});
  cluster.set_silent(true);
  EXPECT_EQ(hold->release(), HeldEnd::kUnknown);
  auto& asked = this->asked();
  cluster.set_silent(false);
  cluster.end_streams();
  EXPECT_TRUE(asked.wait_for(v1::SessionRequest::kRelease)) << "it is asked for again";
}

TEST_F(ClientTest, WhatIsClosedWithTheSessionWasReleased) {
  Session session = open();
  auto hold = session.lock("a");
  EXPECT_TRUE(session.close());
  EXPECT_TRUE(hold->stop_token().stop_requested());
  EXPECT_EQ(hold->wait_held(1ms).error().reason, "SESSION_CLOSED");
  EXPECT_EQ(hold->release(), HeldEnd::kReleased);
}

TEST_F(ClientTest, TheHolderHearsThatSomebodyWantsTheLock) {
  Session session = open();
  const auto hold = session.lock("a");
  cluster.want_release("a", "please");
  EXPECT_TRUE(wanted.wait_for("a: please"));
  EXPECT_TRUE(hold->is_held());
}

TEST_F(ClientTest, CallbacksMayAskForMoreAndNotWait) {
  Session session = open();
  Told<std::string> told;
  session.lock("a", {}, [&](std::expected<Hold, Error> first) {
    told.add(first ? "a" : first.error().message);
    told.add(session.lock("b").error().reason);
    auto kept = std::make_shared<Hold>(std::move(*first));
    session.lock("b", {}, [&told, kept](std::expected<Hold, Error> second) {
      told.add(second ? "b" : second.error().message);
      EXPECT_EQ(second->release(), HeldEnd::kUnknown) << "nobody waits here";
    });
  });
  EXPECT_TRUE(told.wait([](const auto& all) { return all.size() == 3; }));
  EXPECT_EQ(told.all(), (std::vector<std::string>{"a", "ON_CLIENT_THREAD", "b"}));
}

TEST_F(ClientTest, NothingIsHeldAfterTheClient) {
  auto other = Client::open({.endpoints = cluster.endpoints()});
  auto session = other->open_session();
  auto hold = session->lock("a");
  std::thread waiter([&] {
    const auto second = session->lock("a");
    EXPECT_EQ(second.error().reason, "CLIENT_CLOSED");
  });
  EXPECT_TRUE(hold->is_held());
  const std::stop_token stop = hold->stop_token();
  std::optional<Client> ending(std::move(*other));
  ending.reset();
  waiter.join();
  EXPECT_TRUE(stop.stop_requested());
  EXPECT_FALSE(hold->is_held());
  EXPECT_EQ(session->state(), State::kExpired);
  EXPECT_EQ(session->lock("b").error().reason, "CLIENT_CLOSED");
  EXPECT_EQ(hold->release(), HeldEnd::kAlreadyLost);
}

// ---- Guarded transactions ----

TEST_F(ClientTest, AGuardedTransactionSucceedsOnlyWhileHeld) {
  Session session = open();
  auto hold = session.lock("a");
  Kv kv = client.kv();
  const auto written = kv.commit(*hold, {.puts = {{.key = "k", .value = "v"}}});
  ASSERT_TRUE(written) << written.error().message;
  EXPECT_TRUE(written->succeeded);
  const auto false_compare = kv.commit(*hold, {.when = {{.key = "other/1", .create_revision = 7}}});
  ASSERT_TRUE(false_compare);
  EXPECT_FALSE(false_compare->succeeded) << "the guard was true, the caller's own compare was not";
  // The claim is gone, and the holder does not know it yet.
  cluster.set_silent(true);
  cluster.lose("a", v1::Lost::DELETED);
  cluster.set_silent(false);
  const auto refused = kv.commit(*hold, {.puts = {{.key = "k", .value = "w"}}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kLost);
}

TEST_F(ClientTest, AnAnswerAfterTheEndIsNoSuccess) {
  Session session = open();
  auto hold = session.lock("a");
  Told<int> held_back;
  cluster.hold_transactions_back([&] { held_back.add(1); });
  std::thread ender([&] {
    EXPECT_TRUE(held_back.wait_for(1));
    cluster.expire(session.id());
    EXPECT_TRUE(fires(hold->stop_token()));
    cluster.answer_transactions();
  });
  const auto written = client.kv().commit(*hold, {.puts = {{.key = "k", .value = "v"}}});
  ender.join();
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().kind, ErrorKind::kLost);
  EXPECT_EQ(written.error().reason, "APPLIED_THEN_LOST");
  EXPECT_EQ(client.kv().commit(*hold, {}).error().reason, "SESSION_EXPIRED") << "nothing is sent any more";
  EXPECT_EQ(cluster.counts().transactions, 1U);
}

TEST_F(ClientTest, AChangeIsNeverRepeatedOnAGuess) {
  Session session = open();
  auto impatient = Client::open({.endpoints = cluster.endpoints(), .request_timeout = 200ms});
  cluster.hold_transactions_back();
  const auto written = impatient->kv().commit({.puts = {{.key = "k", .value = "v"}}});
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().kind, ErrorKind::kOutcomeUnknown);
  EXPECT_EQ(cluster.counts().transactions, 1U);
  const auto read = impatient->kv().commit({.reads = {"k"}});
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().kind, ErrorKind::kNotApplied);
  cluster.answer_transactions();
}

// ---- Elections ----

TEST_F(ClientTest, ATermIsProclaimedObservedAndResigned) {
  Session session = open();
  Told<std::string> leaders;
  const Observation observation =
      session.observe("e", [&](const Leader& leader) { leaders.add(leader.token == 0 ? "nobody" : leader.value); });
  EXPECT_TRUE(leaders.wait_for("nobody"));
  auto term = session.campaign("e", "first");
  ASSERT_TRUE(term);
  EXPECT_TRUE(term->is_held());
  EXPECT_TRUE(term->proclaim("second"));
  EXPECT_TRUE(leaders.wait_for("second"));
  Told<std::string> later;
  const Observation too = session.observe("e", [&](const Leader& leader) { later.add(leader.value); });
  EXPECT_TRUE(later.wait_for("second")) << "the present one, to who comes later";
  EXPECT_EQ(term->resign(), HeldEnd::kReleased);
  EXPECT_TRUE(leaders.wait([](const auto& all) { return all.size() > 2 && all.back() == "nobody"; }));
}

TEST_F(ClientTest, ATermThatIsTransferredIsNotHeldFromTheAskingOn) {
  Session session = open();
  Session other = open();
  auto term = session.campaign("e", "first");
  Told<bool> held;
  cluster.on_request([&](const v1::SessionRequest& request) {
    if (request.has_transfer()) held.add(term->is_held());
    requests.add(request.what_case());
  });
  const auto refused = term->transfer(other.id());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, "NO_CANDIDATE");
  EXPECT_TRUE(term->is_held()) << "it goes on";
  Told<int64_t> elected;
  std::optional<Term> next;
  other.campaign("e", "second", {}, [&](std::expected<Term, Error> granted) {
    EXPECT_TRUE(granted);
    next.emplace(std::move(*granted));
    elected.add(next->token());
  });
  EXPECT_TRUE(requests.wait_for(v1::SessionRequest::kCampaign));
  EXPECT_TRUE(term->transfer(other.id()));
  EXPECT_TRUE(elected.wait([](const auto& all) { return all.size() == 1; }));
  EXPECT_EQ(held.all(), (std::vector<bool>{false, false}));
  EXPECT_FALSE(term->is_held());
  EXPECT_TRUE(term->stop_token().stop_requested());
  EXPECT_EQ(term->wait_held(1ms).error().reason, "TRANSFERRED");
  EXPECT_EQ(term->resign(), HeldEnd::kReleased);
  EXPECT_TRUE(next->is_held());
}

TEST_F(ClientTest, ACampaignTimesOut) {
  Session session = open();
  Session other = open();
  const auto term = session.campaign("e", "first");
  const auto late = other.campaign("e", "second", {.timeout = 30ms});
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().kind, ErrorKind::kNotApplied);
  EXPECT_EQ(late.error().reason, "TIMED_OUT");
  EXPECT_EQ(cluster.in_line("e"), 1U);
}

TEST_F(ClientTest, ACallbackMayEndItsSession) {
  auto owner = std::make_unique<std::optional<Session>>(open());
  Told<int> told;
  (*owner)->campaign("e", "me", {}, [&](std::expected<Term, Error> term) {
    EXPECT_TRUE(term);
    owner->reset();
    told.add(1);
  });
  EXPECT_TRUE(told.wait_for(1));
  EXPECT_TRUE(states.wait_for(State::kClosed));
}

TEST_F(ClientTest, TheLoopOfAnElectionOutlivesItsSession) {
  int terms = 0;
  int64_t session = 0;
  const auto ended = client.elect("e", "me", {.session = {.ttl = 2s}}, [&](Term& term) {
    const int64_t now = std::stoll(term.guard().key.substr(2), nullptr, 16);
    ++terms;
    if (terms == 1) {
      session = now;
      return Next::kCampaignAgain;
    }
    if (terms == 2) {
      EXPECT_EQ(now, session) << "a session that stands is used again";
      cluster.expire(now);
      EXPECT_TRUE(fires(term.stop_token()));
      return Next::kCampaignAgain;
    }
    EXPECT_NE(now, session);
    return Next::kEnd;
  });
  EXPECT_TRUE(ended);
  EXPECT_EQ(terms, 3);
  EXPECT_EQ(cluster.sessions(), 0U);
}

TEST_F(ClientTest, TheLoopOfAnElectionIsStopped) {
  Session session = open();
  const auto term = session.campaign("e", "somebody else");
  std::stop_source stop;
  auto& asked = this->asked();
  std::thread stopper([&] {
    EXPECT_TRUE(asked.wait_for(v1::SessionRequest::kCampaign));
    stop.request_stop();
  });
  const auto ended = client.elect("e", "me", {.stop = stop.get_token()}, [](Term&) { return Next::kEnd; });
  stopper.join();
  EXPECT_EQ(ended.error().kind, ErrorKind::kCancelled);
  EXPECT_EQ(cluster.in_line("e"), 1U);
}

}  // namespace
}  // namespace conclave::client
