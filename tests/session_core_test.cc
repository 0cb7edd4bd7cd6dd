#include "client/session_core.h"

#include <gtest/gtest.h>

#include "layers/claim_record.h"
#include "layers/command_builder.h"
#include "layers/owned_claim.h"
#include "layers/testing/session_world.h"

namespace conclave::client {
namespace {

using layers::StreamId;
using layers::TestWorld;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kTtl = seconds(9);

// One client, and the server's own sessions at the other end of a stream that may break.
class SessionCoreTest : public testing::Test {
 protected:
  SessionCoreTest() { world_.sessions().set_leading(Term(1)); }

  struct Peer {
    explicit Peer(int64_t id, Instant now)
        : core({.id = id, .secret = "0123456789abcdef", .ttl = kTtl, .description = "test"}, now) {}
    SessionCore core;
    StreamId stream = 0;
  };
  void connect(Peer& peer) {
    peer.stream = world_.sessions().open_stream();
    peer.core.on_connected(world_.now);
  }
  void disconnect(Peer& peer) {
    world_.sent.erase(peer.stream);
    world_.sessions().close_stream(peer.stream);
    peer.stream = 0;
    peer.core.on_disconnected(world_.now);
  }
  // What the client wants to say arrives.
  void deliver(Peer& peer) {
    for (const v1::SessionRequest& request : peer.core.take_requests()) {
      sent_.push_back(request);
      if (peer.stream != 0) world_.sessions().request(world_.now, peer.stream, request);
    }
  }
  void hear(Peer& peer) {
    for (const v1::SessionResponse& response : std::exchange(world_.sent[peer.stream], {})) {
      peer.core.on_response(world_.now, response);
    }
  }
  // Until nothing moves.
  void settle(std::initializer_list<Peer*> peers) {
    for (int round = 0; round < 10; ++round) {
      for (Peer* peer : peers) deliver(*peer);
      world_.settle();
      for (Peer* peer : peers) {
        if (peer->stream != 0) hear(*peer);
      }
    }
  }
  void settle() { settle({&one_}); }
  void pass(Duration time, std::initializer_list<Peer*> peers) {
    world_.now += time;
    for (Peer* peer : peers) peer->core.tick(world_.now);
    world_.sessions().tick(world_.now);
  }
  // "safe; done 1 orders@2; lost orders@2"
  static std::string told(Peer& peer) {
    std::string out;
    for (const SessionEvent& event : peer.core.take_events()) {
      if (!out.empty()) out += "; ";
      if (const auto* state = std::get_if<StateChanged>(&event)) {
        out += fmt::format("{}{}{}", to_string(state->state), state->reason.empty() ? "" : " ", state->reason);
      } else if (const auto* ended = std::get_if<OperationEnded>(&event)) {
        out += fmt::format("{} {}", ended->operation, to_string(ended->outcome));
        if (!ended->reason.empty()) out += " " + ended->reason;
        for (const HeldClaim& claim : ended->claims) out += fmt::format(" {}@{}", claim.name, claim.token);
        if (ended->was_held) out += " held";
      } else if (const auto* lost = std::get_if<ClaimLost>(&event)) {
        out += fmt::format("lost {}@{} {}", lost->name, lost->token, v1::Lost::Reason_Name(lost->reason));
      } else if (const auto* wanted = std::get_if<ReleaseWanted>(&event)) {
        out += fmt::format("wanted {}@{} {}", wanted->name, wanted->token, wanted->note);
      } else {
        const auto& seen = std::get<LeaderSeen>(event);
        out += fmt::format("leads {}@{} {}{}", seen.name, seen.token, seen.value, seen.skipped ? " skipped" : "");
        if (!seen.is_new) out += " as before";
        if (seen.candidates) out += fmt::format(", {} wait", seen.candidates->waiting());
      }
    }
    return out;
  }
  std::string told() { return told(one_); }
  void open(Peer& peer) {
    connect(peer);
    settle({&peer});
    EXPECT_EQ(told(peer), "safe");
  }
  void keep_alive(Peer& peer) {
    const Instant sent = world_.now;
    peer.core.on_keep_alive_sent(sent);
    peer.core.on_kept(world_.now, sent, SessionCore::Kept::kRenewed);
  }
  int64_t create_of(const std::string& key) {
    const auto value = world_.view().get(key);
    return value ? value->create.value() : 0;
  }
  OperationId acquire(Peer& peer, const std::string& name, Duration timeout = {}) {
    return peer.core.acquire(world_.now, {.names = {name}, .timeout = timeout});
  }

  TestWorld world_;
  Peer one_{1, world_.now};
  Peer two_{2, world_.now};
  std::vector<v1::SessionRequest> sent_;
};

TEST_F(SessionCoreTest, LocksAndLetsGo) {
  open(one_);
  open(two_);
  EXPECT_EQ(acquire(one_, "orders"), 1U);
  settle({&one_, &two_});
  (void)acquire(two_, "orders");
  settle({&one_, &two_});
  EXPECT_EQ(told(one_), "1 done orders@2");
  EXPECT_TRUE(one_.core.holds("orders", 2));
  EXPECT_EQ(told(two_), "");
  (void)one_.core.release(world_.now, "orders", 2);
  EXPECT_FALSE(one_.core.holds("orders", 2));  // at once, before anybody knows
  settle({&one_, &two_});
  EXPECT_EQ(told(one_), "2 done held");
  EXPECT_EQ(told(two_), "1 done orders@3");
}

// The session is believed for its time from when the keep-alive was sent, not from when the answer came.
TEST_F(SessionCoreTest, TrustCountsFromTheSending) {
  connect(one_);
  deliver(one_);
  const Instant asked = world_.now;
  world_.settle();
  world_.now += seconds(2);
  hear(one_);
  EXPECT_EQ(one_.core.safe_until(), asked + kTtl);
  EXPECT_EQ(one_.core.keep_alive_at(), asked + kTtl / 3);
  const Instant sent = world_.now;
  one_.core.on_keep_alive_sent(sent);
  EXPECT_EQ(one_.core.keep_alive_at(), sent + kTtl / 3);
  world_.now += seconds(5);
  one_.core.on_kept(world_.now, sent, SessionCore::Kept::kRenewed);
  EXPECT_EQ(one_.core.safe_until(), sent + kTtl);
}

// 1. It is asked to be opened, and the answer is lost. 2. It asks again, elsewhere: for another number, since the first
// asking may be done at any time. 3. What that opened is nobody's, and ends by itself.
TEST_F(SessionCoreTest, AnOpeningAskedAgainIsOfAnotherSession) {
  connect(one_);
  (void)acquire(one_, "before");
  deliver(one_);
  world_.settle();
  EXPECT_EQ(one_.core.id(), 1);
  disconnect(one_);
  world_.now += seconds(4);
  connect(one_);
  settle();
  EXPECT_NE(one_.core.id(), 1);
  EXPECT_GT(one_.core.id(), 0);
  EXPECT_EQ(one_.core.safe_until(), world_.now + kTtl);
  EXPECT_EQ(told(), "safe; 1 done before@2");
  EXPECT_TRUE(world_.view().session(SessionId(static_cast<uint64_t>(one_.core.id()))));
  // Opened, it stays that one.
  const int64_t id = one_.core.id();
  disconnect(one_);
  connect(one_);
  settle();
  EXPECT_EQ(one_.core.id(), id);
}

TEST_F(SessionCoreTest, JeopardyThenSafeAgainThenTheEnd) {
  open(one_);
  (void)acquire(one_, "orders");
  settle();
  (void)told();
  EXPECT_EQ(one_.core.next_deadline(), one_.core.safe_until());
  EXPECT_FALSE(one_.core.is_safe(world_.now + kTtl));  // before anybody ticks
  pass(kTtl, {&one_});
  EXPECT_EQ(told(), "jeopardy");
  EXPECT_TRUE(one_.core.holds("orders", 2));
  keep_alive(one_);
  EXPECT_EQ(told(), "safe");
  pass(kTtl, {&one_});
  one_.core.on_kept(world_.now, world_.now, SessionCore::Kept::kGone);
  EXPECT_EQ(told(), "jeopardy; expired SESSION_EXPIRED");
  EXPECT_FALSE(one_.core.holds("orders", 2));
  EXPECT_EQ(acquire(one_, "more"), 2U);
  EXPECT_EQ(told(), "2 lost SESSION_EXPIRED");
}

TEST_F(SessionCoreTest, JeopardyForTooLongIsTheEnd) {
  open(one_);
  (void)acquire(one_, "orders");
  disconnect(one_);
  pass(kTtl, {&one_});
  pass(seconds(45), {&one_});
  EXPECT_EQ(told(), "jeopardy; expired JEOPARDY; 1 lost JEOPARDY");
}

// The answer to an acquire is lost with the stream. It is asked again on the next, under the same sequence, and stands
// in line once.
TEST_F(SessionCoreTest, AnUnansweredOperationIsAskedAgain) {
  open(one_);
  (void)acquire(one_, "orders");
  deliver(one_);
  world_.settle();
  disconnect(one_);
  EXPECT_EQ(create_of("orders/1"), 2);
  sent_.clear();
  connect(one_);
  settle();
  EXPECT_EQ(told(), "1 done orders@2");
  ASSERT_EQ(sent_.size(), 2U);
  EXPECT_EQ(sent_[0].attach().incarnation(), 2U);
  EXPECT_EQ(sent_[1].sequence(), 1U);
  EXPECT_TRUE(sent_[1].again());
}

TEST_F(SessionCoreTest, WhoStandsInLineIsTakenUpElsewhere) {
  open(one_);
  open(two_);
  (void)acquire(one_, "orders");
  settle({&one_, &two_});
  (void)acquire(two_, "orders");
  settle({&one_, &two_});
  (void)told(one_);
  disconnect(two_);
  (void)one_.core.release(world_.now, "orders", 2);
  settle({&one_});
  connect(two_);
  settle({&one_, &two_});
  EXPECT_EQ(told(two_), "1 done orders@3");
}

TEST_F(SessionCoreTest, WhatWasLostWhileAwayIsTold) {
  open(one_);
  open(two_);
  (void)acquire(one_, "a");
  settle({&one_});
  (void)acquire(two_, "a");
  settle({&two_});
  (void)told(one_);
  disconnect(one_);
  disconnect(two_);
  world_.erase("a/1");
  world_.erase("a/2");
  connect(one_);
  connect(two_);
  settle({&one_, &two_});
  EXPECT_EQ(told(one_), "lost a@2 DELETED");
  EXPECT_EQ(told(two_), "1 lost CLAIM_LOST");
  // The names are free again.
  (void)acquire(one_, "a");
  settle({&one_});
  EXPECT_EQ(told(one_), "2 done a@6");
}

TEST_F(SessionCoreTest, AnUnknownOutcomeIsAskedAgainUnderAHigherIncarnation) {
  open(one_);
  (void)acquire(one_, "orders");
  deliver(one_);
  world_.delay_write();
  settle();
  EXPECT_EQ(told(), "1 done orders@2");
  world_.apply_late();  // of an older incarnation
  EXPECT_EQ(create_of("orders/1"), 2);
  EXPECT_EQ(sent_[2].attach().incarnation(), 2U);
}

TEST_F(SessionCoreTest, WhatIsNotDoneForNowIsAskedLater) {
  open(one_);
  world_.refuses_writes = true;
  (void)acquire(one_, "orders");
  settle();
  EXPECT_EQ(told(), "");
  world_.refuses_writes = false;
  settle();
  EXPECT_EQ(create_of("orders/1"), 0);
  EXPECT_EQ(one_.core.next_deadline(), world_.now + milliseconds(200));
  pass(milliseconds(200), {&one_});
  settle();
  EXPECT_EQ(told(), "1 done orders@2");
}

TEST_F(SessionCoreTest, CancelAndTimeLimitTakeBack) {
  open(one_);
  open(two_);
  (void)acquire(one_, "orders");
  settle({&one_});
  const OperationId waits = acquire(two_, "orders");
  settle({&two_});
  two_.core.cancel(world_.now, waits);
  two_.core.cancel(world_.now, waits);
  settle({&two_});
  EXPECT_EQ(told(two_), "1 cancelled CANCELLED");
  EXPECT_EQ(create_of("orders/2"), 0);
  (void)acquire(two_, "orders", seconds(1));
  settle({&two_});
  pass(seconds(1), {&one_, &two_});
  settle({&two_});
  EXPECT_EQ(told(two_), "3 not applied TIMED_OUT");
  EXPECT_EQ(create_of("orders/2"), 0);
}

// Cut off, it is told at its own bound that nobody knows; and what may stand is taken back afterwards.
TEST_F(SessionCoreTest, ATimeLimitWhileCutOff) {
  open(one_);
  (void)acquire(one_, "orders", seconds(1));
  deliver(one_);
  world_.settle();
  disconnect(one_);
  (void)acquire(one_, "never", seconds(1));
  pass(seconds(1), {&one_});
  EXPECT_EQ(told(), "2 not applied TIMED_OUT");
  pass(seconds(2), {&one_});
  EXPECT_EQ(told(), "1 outcome unknown TIMED_OUT");
  connect(one_);
  settle();
  EXPECT_EQ(create_of("orders/1"), 0);
  EXPECT_EQ(told(), "");
  (void)acquire(one_, "orders");
  settle();
  EXPECT_EQ(told(), "4 done orders@4");
}

TEST_F(SessionCoreTest, ANameIsAskedForOnceAtATime) {
  open(one_);
  const OperationId first = acquire(one_, "orders");
  const OperationId second = acquire(one_, "orders");
  const OperationId tries = one_.core.acquire(world_.now, {.names = {"orders"}, .try_once = true});
  settle();
  EXPECT_EQ(told(), fmt::format("{} rejected WOULD_BLOCK; {} done orders@2", tries, first));
  (void)one_.core.release(world_.now, "orders", 2);
  settle();
  EXPECT_EQ(told(), fmt::format("4 done held; {} done orders@4", second));
}

TEST_F(SessionCoreTest, SeveralNamesAreGrantedTogetherOrLostTogether) {
  open(one_);
  open(two_);
  (void)acquire(two_, "b");
  settle({&two_});
  (void)one_.core.acquire(world_.now, {.names = {"a", "b"}});
  settle({&one_, &two_});
  EXPECT_EQ(told(one_), "");
  EXPECT_FALSE(one_.core.holds("a", 3));
  world_.erase("b/1");
  settle({&one_});
  EXPECT_EQ(told(one_), "1 lost CLAIM_LOST");
  EXPECT_EQ(create_of("a/1"), 0);
}

TEST_F(SessionCoreTest, NoSequenceIsSentWhileTheOneAWindowBeforeIsUnanswered) {
  open(one_);
  sent_.clear();
  for (int i = 0; i < 100; ++i) (void)acquire(one_, fmt::format("n{}", i));
  deliver(one_);
  EXPECT_EQ(sent_.size(), 64U);
  settle();
  EXPECT_EQ(sent_.size(), 100U);
}

TEST_F(SessionCoreTest, ElectionsEndToEnd) {
  open(one_);
  open(two_);
  one_.core.observe(world_.now, "boss");
  (void)one_.core.campaign(world_.now, "boss", "a", 0);
  settle({&one_, &two_});
  EXPECT_EQ(told(one_), "1 done boss@2; leads boss@2 a");
  (void)two_.core.campaign(world_.now, "boss", "b", 0);
  settle({&one_, &two_});
  (void)one_.core.transfer(world_.now, "boss", 2, 9);
  EXPECT_FALSE(one_.core.holds("boss", 2));
  settle({&one_, &two_});
  EXPECT_EQ(told(one_), "2 rejected NO_CANDIDATE");
  EXPECT_TRUE(one_.core.holds("boss", 2));  // it leads on
  (void)one_.core.proclaim(world_.now, "boss", 2, "c");
  settle({&one_, &two_});
  EXPECT_EQ(told(one_), "3 done held; leads boss@2 c");
  (void)one_.core.transfer(world_.now, "boss", 2, 2);
  settle({&one_, &two_});
  EXPECT_EQ(told(one_), "4 done held; leads boss@4 b");
  EXPECT_EQ(told(two_), "1 done boss@4");
  disconnect(one_);
  (void)two_.core.resign(world_.now, "boss", 4);
  settle({&two_});
  connect(one_);
  settle({&one_});
  EXPECT_EQ(told(one_), "leads boss@0  skipped");
}

TEST_F(SessionCoreTest, CandidatesAreToldBesideTheLeaderThatWasTold) {
  open(one_);
  open(two_);
  one_.core.observe(world_.now, "boss", true);
  (void)one_.core.campaign(world_.now, "boss", "a", 0);
  settle();
  EXPECT_EQ(told(one_), "1 done boss@2; leads boss@2 a, 0 wait");
  (void)two_.core.campaign(world_.now, "boss", "b", 0);
  settle({&one_, &two_});
  pass(milliseconds(100), {&one_, &two_});
  settle({&one_, &two_});
  EXPECT_EQ(told(one_), "leads boss@2 a as before, 1 wait");
  disconnect(one_);
  connect(one_);
  settle();
  EXPECT_EQ(told(one_), "leads boss@2 a as before, 1 wait") << "with them after a break, too";
  one_.core.observe(world_.now, "boss", false);
  settle();
  EXPECT_EQ(told(one_), "");
}

// 1. Its term is ended by decision while it is away. 2. It asks for a transfer, which is refused when it is back.
// Before that it was told why; and the list of what it owns, which follows, does not say it again.
TEST_F(SessionCoreTest, WhatWasForcedWhileItWasGivenUpIsToldAsForced) {
  open(one_);
  (void)one_.core.campaign(world_.now, "boss", "a", 0);
  settle();
  EXPECT_EQ(told(), "1 done boss@2");
  disconnect(one_);
  const auto claim = layers::owned_claim_of(world_.view(), "boss");
  ASSERT_TRUE(claim);
  world_.apply({.kind = keyspace::CommandKind::kInternal}, layers::encode_forced_release(*claim, "enough"));
  (void)one_.core.transfer(world_.now, "boss", 2, 9);
  connect(one_);
  settle();
  EXPECT_EQ(told(), "2 rejected NOT_OWNER; lost boss@2 FORCED");
}

// 1. It stops observing, and begins again at once; what was pushed before is under way. 2. That is of the earlier
// observation: taken for the beginning of the new one, what happened between would be missed without a word.
TEST_F(SessionCoreTest, WhatWasPushedToAnEarlierObservationIsNotTold) {
  open(one_);
  open(two_);
  one_.core.observe(world_.now, "boss");
  settle();
  EXPECT_EQ(told(), "leads boss@0 ");
  (void)two_.core.campaign(world_.now, "boss", "a", 0);
  settle({&two_});  // the push waits on the way to the first
  one_.core.stop_observing(world_.now, "boss");
  one_.core.observe(world_.now, "boss");
  hear(one_);
  EXPECT_EQ(told(), "");
  (void)two_.core.resign(world_.now, "boss", 2);
  settle({&one_, &two_});
  EXPECT_EQ(told(), "leads boss@0 ");
}

TEST_F(SessionCoreTest, ClosingIsSaidWhenThereIsSomebodyToSayItTo) {
  open(one_);
  (void)acquire(one_, "orders");
  settle();
  (void)told();
  disconnect(one_);
  one_.core.close(world_.now);
  EXPECT_EQ(told(), "closed");
  EXPECT_TRUE(one_.core.wants_stream());
  connect(one_);
  settle();
  EXPECT_FALSE(one_.core.wants_stream());
  EXPECT_EQ(create_of("orders/1"), 0);
  EXPECT_FALSE(world_.view().lease(LeaseId(1)));
}

TEST_F(SessionCoreTest, AMovedSessionIsAttachedAgain) {
  open(one_);
  (void)acquire(one_, "orders");
  settle();
  (void)told();
  world_.sessions().on_state_replaced(world_.now);
  ASSERT_EQ(world_.sent[one_.stream].size(), 1U);
  EXPECT_TRUE(asks_to_move(world_.sent[one_.stream][0]));
  hear(one_);
  (void)acquire(one_, "more");
  EXPECT_TRUE(one_.core.take_requests().empty()) << "it waits for another stream";
  EXPECT_EQ(one_.core.keep_alive_at(), kNever);
  EXPECT_TRUE(one_.core.holds("orders", 2));
  disconnect(one_);
  connect(one_);
  settle();
  EXPECT_EQ(told(), "2 done more@3");
  EXPECT_TRUE(one_.core.holds("orders", 2));
}

// What was asked and not answered is asked again under its sequence, and so done once.
TEST_F(SessionCoreTest, WhatWasUnderWayWhenItMovedIsDoneOnce) {
  open(one_);
  (void)acquire(one_, "orders");
  deliver(one_);
  world_.sessions().set_lagging(world_.now, true);
  world_.sessions().tick(world_.now);
  hear(one_);
  disconnect(one_);
  world_.settle();
  EXPECT_NE(create_of("orders/1"), 0);
  connect(one_);
  settle();
  EXPECT_EQ(told(), "1 done orders@2");
}

// A server took the candidacy back, of an earlier asking by a call that had ended.
TEST_F(SessionCoreTest, ACandidacyThatIsLostEnds) {
  Peer two(2, world_.now);
  open(one_);
  open(two);
  (void)one_.core.campaign(world_.now, "boss", "one", 0);
  settle({&one_, &two});
  const OperationId waits = two.core.campaign(world_.now, "boss", "two", 0);
  settle({&one_, &two});
  (void)told(two);
  layers::CommandBuilder command;
  command.erase_record(layers::candidate_record_key("boss", SessionId(2)));
  world_.apply({.kind = keyspace::CommandKind::kInternal}, command.build());
  settle({&one_, &two});
  EXPECT_EQ(told(two), fmt::format("{} lost CLAIM_LOST", waits));
}

// Whether the release or the session's end was first, nobody can tell.
TEST_F(SessionCoreTest, AReleaseWithoutAnAnswerIsUnknownWhenTheSessionEnds) {
  open(one_);
  (void)acquire(one_, "orders");
  settle();
  (void)told();
  const OperationId asked = one_.core.release(world_.now, "orders", 2);
  (void)one_.core.take_requests();
  world_.expire(1);
  hear(one_);
  EXPECT_EQ(told(), fmt::format("expired SESSION_EXPIRED; {} outcome unknown SESSION_EXPIRED", asked));
}

// A session that is being closed is closed at the next server.
TEST_F(SessionCoreTest, AMoveDoesNotCloseASession) {
  open(one_);
  (void)acquire(one_, "orders");
  settle();
  (void)told();
  one_.core.close(world_.now);
  world_.sessions().set_lagging(world_.now, true);
  world_.sessions().tick(world_.now);
  hear(one_);
  EXPECT_TRUE(one_.core.wants_stream());
  disconnect(one_);
  connect(one_);
  settle();
  EXPECT_FALSE(one_.core.wants_stream());
  EXPECT_EQ(create_of("orders/1"), 0);
}

TEST_F(SessionCoreTest, AnotherWithTheSameSecretTakesOver) {
  open(one_);
  const StreamId other = world_.sessions().open_stream();
  v1::SessionRequest attach;
  attach.set_session(1);
  attach.mutable_attach()->set_secret("0123456789abcdef");
  attach.mutable_attach()->set_incarnation(9);
  world_.sessions().request(world_.now, other, attach);
  settle();
  EXPECT_EQ(told(), "expired TAKEN_OVER");
}

}  // namespace
}  // namespace conclave::client
