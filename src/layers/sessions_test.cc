#include "layers/sessions.h"

#include <gtest/gtest.h>

#include "layers/claim_record.h"
#include "layers/command_builder.h"
#include "layers/recipe.h"
#include "layers/session_end.h"
#include "layers/testing/session_world.h"

namespace conclave::layers {
namespace {

using std::chrono::milliseconds;

constexpr std::string_view kSecret = "0123456789abcdef";

class SessionsTest : public testing::Test {
 protected:
  SessionsTest() { stream_ = world_.sessions().open_stream(); }

  void ask(const v1::SessionRequest& request) { ask_at(stream_, request); }
  void ask_at(StreamId stream, const v1::SessionRequest& request) {
    world_.sessions().request(world_.now, stream, request);
  }
  static v1::SessionRequest open_of(int64_t session) {
    v1::SessionRequest request;
    request.set_session(session);
    request.mutable_open()->set_secret(std::string(kSecret));
    request.mutable_open()->set_ttl_ms(10'000);
    return request;
  }
  void open(int64_t session) {
    ask(open_of(session));
    world_.settle();
    EXPECT_EQ(said(), fmt::format("{} opened 10000", session));
  }
  static v1::SessionRequest attach_of(int64_t session, uint64_t incarnation) {
    v1::SessionRequest request;
    request.set_session(session);
    request.mutable_attach()->set_secret(std::string(kSecret));
    request.mutable_attach()->set_incarnation(incarnation);
    return request;
  }
  static v1::SessionRequest operation_of(int64_t session, uint64_t sequence) {
    v1::SessionRequest request;
    request.set_session(session);
    request.set_sequence(sequence);
    return request;
  }
  static v1::SessionRequest acquire_of(int64_t session, uint64_t sequence, const std::string& name,
                                       bool tries = false) {
    v1::SessionRequest request = operation_of(session, sequence);
    request.mutable_acquire()->add_names(name);
    if (tries) request.mutable_acquire()->set_try_(true);
    return request;
  }
  static v1::SessionRequest cancel_of(int64_t session, uint64_t sequence, uint64_t operation, const std::string& name) {
    v1::SessionRequest request = operation_of(session, sequence);
    request.mutable_cancel()->set_operation(operation);
    request.mutable_cancel()->add_names(name);
    return request;
  }
  static v1::SessionRequest release_of(int64_t session, uint64_t sequence, const std::string& name, int64_t token) {
    v1::SessionRequest request = operation_of(session, sequence);
    request.mutable_release()->set_name(name);
    request.mutable_release()->set_token(token);
    return request;
  }
  static v1::SessionRequest campaign_of(int64_t session, uint64_t sequence, const std::string& name, int32_t priority) {
    v1::SessionRequest request = operation_of(session, sequence);
    request.mutable_campaign()->set_name(name);
    request.mutable_campaign()->set_value(fmt::format("v{}", session));
    request.mutable_campaign()->set_priority(priority);
    return request;
  }
  static v1::SessionRequest resign_of(int64_t session, uint64_t sequence, const std::string& name, int64_t token) {
    v1::SessionRequest request = operation_of(session, sequence);
    request.mutable_resign()->set_name(name);
    request.mutable_resign()->set_token(token);
    return request;
  }
  static v1::SessionRequest transfer_of(int64_t session, uint64_t sequence, const std::string& name, int64_t token,
                                        int64_t to) {
    v1::SessionRequest request = operation_of(session, sequence);
    request.mutable_transfer()->set_name(name);
    request.mutable_transfer()->set_token(token);
    request.mutable_transfer()->set_to(to);
    return request;
  }
  static v1::SessionRequest asked_again(v1::SessionRequest request) {
    request.set_again(true);
    return request;
  }
  // Of a stream of its own, that a single call is.
  StreamId call_of(int64_t session) {
    const StreamId call = world_.sessions().open_stream();
    v1::SessionIdentity identity;
    identity.set_session(session);
    identity.set_secret(std::string(kSecret));
    identity.set_incarnation(1);
    world_.sessions().introduce(world_.now, call, identity);
    return call;
  }
  // Another stream, where the session goes on.
  StreamId attached_elsewhere(int64_t session) {
    const StreamId other = world_.sessions().open_stream();
    ask_at(other, attach_of(session, 2));
    world_.settle();
    return other;
  }
  // Session 1 owns `orders`, and 2 waits.
  void stand_in_line() {
    open(1);
    open(2);
    ask(acquire_of(1, 1, "orders"));
    ask(acquire_of(2, 1, "orders"));
    world_.settle();
  }
  // What was said to the stream since, in order.
  std::string said() { return said_to(stream_); }
  std::string said_to(StreamId stream) {
    std::string out;
    for (const v1::SessionResponse& response : std::exchange(world_.sent[stream], {})) {
      if (!out.empty()) out += "; ";
      out += describe(response);
    }
    return out;
  }
  std::string settled() {
    world_.settle();
    return said();
  }
  int64_t create_of(const std::string& key) {
    const auto value = world_.view().get(key);
    return value ? value->create.value() : 0;
  }

  TestWorld world_{{.handed_over_per_second = 300}};
  StreamId stream_ = 0;
};

TEST_F(SessionsTest, OpensOnceAndSaysWhyNot) {
  open(7);
  const Revision revision = world_.view().revision();
  ask(open_of(7));  // repeated: the same
  EXPECT_EQ(settled(), "7 opened 10000");
  EXPECT_EQ(world_.view().revision(), revision);
  v1::SessionRequest other = open_of(7);
  other.mutable_open()->set_secret("another secret, of somebody else");
  ask(other);
  EXPECT_EQ(settled(), "7 error SESSION_EXISTS");
  other = open_of(8);
  other.mutable_open()->set_secret("short");
  ask(other);
  EXPECT_EQ(settled(), "8 error INVALID_REQUEST");
  other = open_of(8);
  other.mutable_open()->set_ttl_ms(999);
  ask(other);
  EXPECT_EQ(settled(), "8 error INVALID_TTL");
  ask(open_of(-8));
  EXPECT_EQ(settled(), "-8 error INVALID_REQUEST");
  world_.refuses_writes = true;
  ask(open_of(9));
  EXPECT_EQ(settled(), "9 error NO_QUORUM");
}

TEST_F(SessionsTest, OnlyWhoAttachedIsHeard) {
  open(7);
  const StreamId other = world_.sessions().open_stream();
  ask_at(other, acquire_of(7, 1, "orders"));
  EXPECT_EQ(said_to(other), "7#1 error NOT_ATTACHED");
  v1::SessionRequest wrong = attach_of(7, 2);
  wrong.mutable_attach()->set_secret("not the secret!!");
  ask_at(other, wrong);
  ask_at(other, attach_of(8, 1));
  world_.settle();
  EXPECT_EQ(said_to(other), "7 error WRONG_SECRET; 8 error SESSION_EXPIRED");
  // A later incarnation takes over; the earlier is told, and refused from then on.
  ask_at(other, attach_of(7, 2));
  world_.settle();
  EXPECT_EQ(said_to(other), "7 attached");
  EXPECT_EQ(said(), "7 ended TAKEN_OVER");
  ask(attach_of(7, 1));
  EXPECT_EQ(settled(), "7 error TAKEN_OVER");
  // What it saw elsewhere is not known here: the cluster was restored.
  v1::SessionRequest ahead = attach_of(7, 3);
  ahead.mutable_attach()->mutable_place()->set_index(world_.index() + 1);
  ask(ahead);
  EXPECT_EQ(settled(), "7 error PLACE_UNKNOWN");
}

TEST_F(SessionsTest, OnesWaitInLineAndEachReleaseWakesTheNext) {
  for (const int64_t session : {1, 2, 3}) open(session);
  for (const int64_t session : {1, 2, 3}) ask(acquire_of(session, 1, "orders"));
  EXPECT_EQ(settled(), "1#1 claimed orders@2+; 2#1 claimed orders@3; 3#1 claimed orders@4");
  ask(release_of(1, 2, "orders", 2));
  EXPECT_EQ(settled(), "1#2 released; 2 granted orders@3");
  // Once more: it was done, and is not done again.
  ask(release_of(1, 2, "orders", 2));
  EXPECT_EQ(settled(), "1#2 released");
  ask(release_of(1, 3, "orders", 2));
  EXPECT_EQ(settled(), "1#3 was lost");
  world_.expire(2);
  EXPECT_EQ(said(), "2 ended EXPIRED; 3 granted orders@4");
  EXPECT_EQ(world_.sessions().attached(), 2U);
}

TEST_F(SessionsTest, DeeperNamesAreOtherLocks) {
  open(1);
  open(2);
  ask(acquire_of(1, 1, "orders/42"));
  ask(acquire_of(2, 1, "orders"));
  EXPECT_EQ(settled(), "1#1 claimed orders/42@2+; 2#1 claimed orders@3+");
  ask(acquire_of(2, 2, "orders/42"));
  ask(acquire_of(1, 2, "orders"));
  EXPECT_EQ(settled(), "2#2 claimed orders/42@4; 1#2 claimed orders@5");
}

TEST_F(SessionsTest, RecipesClientsStandInTheSameLine) {
  open(1);
  open(2);
  world_.put("orders/abc");
  ask(acquire_of(1, 1, "orders"));
  EXPECT_EQ(settled(), "1#1 claimed orders@3");
  world_.put("orders/def");
  ask(acquire_of(2, 1, "orders"));
  EXPECT_EQ(settled(), "2#1 claimed orders@5");
  world_.erase("orders/abc");
  EXPECT_EQ(said(), "1 granted orders@3");
  ask(release_of(1, 2, "orders", 3));
  EXPECT_EQ(settled(), "1#2 released");
  world_.erase("orders/def");
  EXPECT_EQ(said(), "2 granted orders@5");
}

TEST_F(SessionsTest, TryPutsNothingWhereItWouldBlock) {
  open(1);
  open(2);
  ask(acquire_of(1, 1, "orders", true));
  EXPECT_EQ(settled(), "1#1 claimed orders@2+");
  const Revision revision = world_.view().revision();
  ask(acquire_of(2, 1, "orders", true));
  EXPECT_EQ(settled(), "2#1 error WOULD_BLOCK");
  EXPECT_EQ(world_.view().revision(), revision);
  ask(acquire_of(1, 2, "orders", true));
  EXPECT_EQ(settled(), "1#2 error ALREADY_HELD");
  ask(acquire_of(1, 3, "orders"));
  EXPECT_EQ(settled(), "1#3 error ALREADY_HELD");
}

TEST_F(SessionsTest, SomebodyWhoComesBetweenTheLookAndTheEntryOfATry) {
  open(1);
  ask(acquire_of(1, 1, "orders", true));
  ASSERT_EQ(world_.writes_waiting(), 1U);
  world_.put("orders/abc");
  EXPECT_EQ(settled(), "1#1 error WOULD_BLOCK");
  EXPECT_EQ(create_of("orders/1"), 0);
}

TEST_F(SessionsTest, AWaitThatIsOverLeavesNothing) {
  open(1);
  open(2);
  ask(acquire_of(1, 1, "orders"));
  v1::SessionRequest request = acquire_of(2, 1, "orders");
  request.mutable_acquire()->set_up_to_ms(500);
  ask(request);
  EXPECT_EQ(settled(), "1#1 claimed orders@2+; 2#1 claimed orders@3");
  EXPECT_EQ(world_.sessions().next_deadline(), world_.now + milliseconds(500));
  world_.now += milliseconds(500);
  world_.sessions().tick(world_.now);
  EXPECT_EQ(settled(), "2#1 error WOULD_BLOCK");
  EXPECT_EQ(create_of("orders/2"), 0);
  EXPECT_EQ(world_.sessions().waiters(), 0U);
}

TEST_F(SessionsTest, AWaitThatIsOverIsToldToWhoSpeaksForTheSessionThen) {
  open(1);
  open(2);
  ask(acquire_of(1, 1, "orders"));
  v1::SessionRequest request = acquire_of(2, 1, "orders");
  request.mutable_acquire()->set_up_to_ms(500);
  ask(request);
  world_.settle();
  const StreamId other = world_.sessions().open_stream();
  ask_at(other, attach_of(2, 2));
  world_.settle();
  EXPECT_EQ(said_to(other), "2 attached orders@3");
  world_.now += milliseconds(500);
  world_.sessions().tick(world_.now);
  world_.settle();
  EXPECT_EQ(said_to(other), "2#1 error WOULD_BLOCK");
}

TEST_F(SessionsTest, SeveralLocksAtOnce) {
  open(1);
  open(2);
  ask(acquire_of(1, 1, "b"));
  world_.settle();
  v1::SessionRequest both = acquire_of(2, 1, "a");
  both.mutable_acquire()->add_names("b");
  ask(both);
  EXPECT_EQ(settled(), "1#1 claimed b@2+; 2#1 claimed a@3+ b@3");
  ask(release_of(1, 2, "b", 2));
  EXPECT_EQ(settled(), "1#2 released; 2 granted b@3");
  both = acquire_of(2, 2, "c");
  both.mutable_acquire()->add_names("d");
  ask(both);
  EXPECT_EQ(settled(), "2#2 error HOLDS_OTHERS");
  both.mutable_acquire()->set_while_holding(true);
  both.set_sequence(3);
  ask(both);
  EXPECT_EQ(settled(), "2#3 claimed c@5+ d@5+");
  both.set_sequence(4);
  both.mutable_acquire()->add_names("c");
  ask(both);
  EXPECT_EQ(settled(), "2#4 error INVALID_REQUEST");
}

// An entry had too many events to follow them one by one, and before all that wait were looked at again one attaches:
// what it is told of its claims is so at the place it is told of.
TEST_F(SessionsTest, WhatIsListedIsSoWhileClaimsAreLookedAtAgain) {
  TestWorld world({.events_per_entry_max = 1});
  const StreamId stream = world.sessions().open_stream();
  const auto request = [&](const v1::SessionRequest& what) { world.sessions().request(world.now, stream, what); };
  for (const int64_t session : {1, 2}) request(open_of(session));
  world.settle();
  v1::SessionRequest both = acquire_of(1, 1, "a");
  both.mutable_acquire()->add_names("b");
  request(both);
  request(acquire_of(2, 1, "a"));
  world.settle();
  request(attach_of(2, 2));
  world.sent.clear();
  world.expire(1);
  world.settle();
  std::string said;
  for (const v1::SessionResponse& response : world.sent[stream]) said += describe(response) + "; ";
  EXPECT_EQ(said, "1 ended EXPIRED; 2 attached a@3+; 2 granted a@3; ");
}

// What is under way may be done before it: the session would hold that when it asks.
TEST_F(SessionsTest, SeveralLocksTwiceAtOnce) {
  open(1);
  v1::SessionRequest both = acquire_of(1, 1, "a");
  both.mutable_acquire()->add_names("b");
  ask(both);
  both = acquire_of(1, 2, "c");
  both.mutable_acquire()->add_names("d");
  ask(both);
  EXPECT_EQ(settled(), "1#2 error HOLDS_OTHERS; 1#1 claimed a@2+ b@2+");
  ask(release_of(1, 3, "a", 2));
  ask(release_of(1, 4, "b", 2));
  both.set_sequence(5);
  EXPECT_EQ(settled(), "1#3 released; 1#4 released");
  ask(both);
  EXPECT_EQ(settled(), "1#5 claimed c@5+ d@5+");
}

TEST_F(SessionsTest, CancelTakesBackWhatWaitsAndWhatIsUnderWay) {
  open(1);
  open(2);
  ask(acquire_of(1, 1, "orders"));
  ask(acquire_of(2, 1, "orders"));
  EXPECT_EQ(settled(), "1#1 claimed orders@2+; 2#1 claimed orders@3");
  ask(cancel_of(2, 2, 1, "orders"));
  EXPECT_EQ(settled(), "2#1 error CANCELLED; 2#2 cancelled");
  EXPECT_EQ(create_of("orders/2"), 0);
  // Before its entry is applied.
  ask(acquire_of(2, 3, "orders"));
  ask(cancel_of(2, 4, 3, "orders"));
  EXPECT_EQ(said(), "");
  EXPECT_EQ(settled(), "2#3 error CANCELLED; 2#4 cancelled");
  EXPECT_EQ(create_of("orders/2"), 0);
  // Again: nothing more.
  ask(cancel_of(2, 4, 3, "orders"));
  EXPECT_EQ(settled(), "2#4 cancelled");
  EXPECT_EQ(world_.sessions().waiters(), 0U);
}

// 1. An acquire is under way, and its server does not know any more what became of it. 2. It is cancelled. 3. Its entry
// comes after all: it must do nothing.
TEST_F(SessionsTest, WhatWasCancelledDoesNotHappenLater) {
  open(1);
  ask(acquire_of(1, 1, "orders"));
  world_.delay_write();
  EXPECT_EQ(said(), "1#1 error UNKNOWN_OUTCOME");
  ask(cancel_of(1, 2, 1, "orders"));
  EXPECT_EQ(settled(), "1#2 cancelled");
  world_.apply_late();
  EXPECT_EQ(create_of("orders/1"), 0);
}

// 1. A try is under way, its outcome unknown. 2. The client attaches anew and asks again; somebody else has the lock by
// then, and a look says so. 3. That is told only once the first entry cannot do anything any more.
TEST_F(SessionsTest, WhatWasRefusedDoesNotHappenLater) {
  open(1);
  ask(acquire_of(1, 1, "orders", true));
  world_.delay_write();
  world_.put("orders/abc");
  ask(attach_of(1, 2));
  const v1::SessionRequest again = asked_again(acquire_of(1, 1, "orders", true));
  world_.settle();
  ask(again);
  EXPECT_EQ(settled(), "1#1 error UNKNOWN_OUTCOME; 1 attached; 1#1 error WOULD_BLOCK");
  world_.erase("orders/abc");
  world_.apply_late();
  EXPECT_EQ(create_of("orders/1"), 0);
}

TEST_F(SessionsTest, ARepeatedAcquireIsAnsweredFromTheState) {
  open(1);
  ask(acquire_of(1, 1, "orders"));
  EXPECT_EQ(settled(), "1#1 claimed orders@2+");
  const StreamId other = attached_elsewhere(1);
  EXPECT_EQ(said_to(other), "1 attached orders@2+");
  const v1::SessionRequest again = asked_again(acquire_of(1, 1, "orders"));
  ask_at(other, again);
  world_.settle();
  EXPECT_EQ(said_to(other), "1#1 claimed orders@2+");
  world_.erase("orders/1");
  ask_at(other, again);
  world_.settle();
  EXPECT_EQ(said_to(other), "1 lost orders@2 DELETED; 1#1 error CLAIM_LOST");
}

TEST_F(SessionsTest, AStreamThatEndsLeavesAllAsItIs) {
  open(1);
  open(2);
  ask(acquire_of(1, 1, "orders"));
  ask(acquire_of(2, 1, "orders"));
  world_.settle();
  world_.sessions().close_stream(stream_);
  EXPECT_EQ(world_.sessions().attached(), 0U);
  EXPECT_EQ(world_.sessions().waiters(), 0U);
  world_.erase("orders/1");
  stream_ = world_.sessions().open_stream();
  ask(attach_of(2, 2));
  ask(attach_of(1, 2));
  EXPECT_EQ(settled(), "2 attached orders@3+; 1 attached");
}

TEST_F(SessionsTest, WhoIsGoneIsWithdrawn) {
  stand_in_line();
  world_.sessions().withdraw(world_.now, stream_, SessionId(2), 1);
  world_.settle();
  EXPECT_EQ(create_of("orders/2"), 0);
  // Its entry is under way when its stream ends; and once more, with an outcome nobody knows.
  for (const bool knows : {true, false}) {
    ask(acquire_of(2, knows ? 2 : 3, "orders"));
    world_.sessions().withdraw(world_.now, stream_, SessionId(2), knows ? 2 : 3);
    if (!knows) world_.delay_write();
    world_.settle();
    world_.apply_late();
    world_.settle();
    EXPECT_EQ(create_of("orders/2"), 0);
  }
  EXPECT_EQ(world_.sessions().waiters(), 0U);
}

// A cancel waits for an operation whose call ends while its entry is under way: it is answered, whatever became of
// that.
TEST_F(SessionsTest, ACancelOfWhatIsWithdrawnIsAnswered) {
  stand_in_line();
  (void)said();
  uint64_t sequence = 1;
  for (const char how : {'n', 'g', 'u'}) {
    SCOPED_TRACE(how);
    const StreamId call = call_of(2);
    const uint64_t target = ++sequence;
    ask_at(call, acquire_of(2, target, how == 'g' ? "orders" : "other"));  // stands in line for orders already
    ask(cancel_of(2, ++sequence, target, "other"));
    world_.sessions().withdraw(world_.now, call, SessionId(2), target);
    world_.sessions().close_stream(call);
    if (how == 'u') world_.lose_write();
    EXPECT_EQ(settled(), fmt::format("2#{} cancelled", sequence));
    EXPECT_EQ(create_of("other/2"), 0);
  }
}

// Whatever the operation that it waits for comes to.
TEST_F(SessionsTest, ACancelIsAnsweredWhateverIsDecided) {
  open(1);
  ask(acquire_of(1, 1, "orders"));
  EXPECT_EQ(settled(), "1#1 claimed orders@2+");
  // Nothing of it stands any more when it is answered again.
  const StreamId other = attached_elsewhere(1);
  (void)said_to(other);
  world_.erase("orders/1");
  ask_at(other, asked_again(acquire_of(1, 1, "orders")));
  ask_at(other, cancel_of(1, 2, 1, "orders"));
  world_.settle();
  EXPECT_EQ(said_to(other), "1 lost orders@2 DELETED; 1#1 error CLAIM_LOST; 1#2 cancelled");
  // Two of them, of one operation.
  ask_at(other, acquire_of(1, 3, "orders"));
  ask_at(other, cancel_of(1, 4, 3, "orders"));
  ask_at(other, cancel_of(1, 5, 3, "orders"));
  world_.settle();
  EXPECT_EQ(said_to(other), "1#3 error CANCELLED; 1#4 cancelled; 1#5 cancelled");
  EXPECT_EQ(create_of("orders/1"), 0);
  // What is no acquire is done all the same.
  ask_at(other, acquire_of(1, 6, "orders"));
  world_.settle();
  (void)said_to(other);
  ask_at(other, release_of(1, 7, "orders", create_of("orders/1")));
  ask_at(other, cancel_of(1, 8, 7, "orders"));
  world_.settle();
  EXPECT_EQ(said_to(other), "1#7 released; 1#8 cancelled");
}

// What another operation of the session waits for is told, whatever a single call for the same name comes to.
TEST_F(SessionsTest, WhatAnotherOperationWaitsForIsToldOf) {
  stand_in_line();
  (void)said();
  const StreamId call = call_of(2);
  ask_at(call, acquire_of(2, 2, "orders"));
  world_.sessions().withdraw(world_.now, call, SessionId(2), 2);
  world_.lose_write();
  world_.settle();
  // And once more, overtaken by a later incarnation.
  ask_at(call, acquire_of(2, 3, "orders"));
  world_.sessions().withdraw(world_.now, call, SessionId(2), 3);
  world_.apply({.kind = keyspace::CommandKind::kInternal, .session = SessionId(2), .incarnation = 2, .sequence = 9},
               CommandBuilder().build());
  world_.settle();
  world_.erase("orders/1");
  EXPECT_EQ(settled(), "1 lost orders@2 DELETED; 2 granted orders@3");
}

// The session was attached at another server meanwhile, and was told of its grant there: what this one wants to take
// back is not what waited.
TEST_F(SessionsTest, WhatWasGrantedMeanwhileIsNotTakenBack) {
  stand_in_line();
  world_.sessions().withdraw(world_.now, stream_, SessionId(2), 1);
  ASSERT_EQ(world_.writes_waiting(), 1U);
  (void)said();
  world_.erase("orders/1");
  EXPECT_EQ(settled(), "1 lost orders@2 DELETED; 2 granted orders@3");
  EXPECT_EQ(create_of("orders/2"), 3);
  ask(release_of(2, 2, "orders", 3));
  EXPECT_EQ(settled(), "2#2 released");
}

// Its time is over in the moment it is granted: it is told so, and not that nothing is left of it.
TEST_F(SessionsTest, AWaitThatEndsInItsGrantIsGranted) {
  open(1);
  open(2);
  ask(acquire_of(1, 1, "a"));
  ask(acquire_of(1, 2, "b"));
  world_.settle();
  v1::SessionRequest request = operation_of(2, 1);
  for (const char* name : {"a", "b"}) request.mutable_acquire()->add_names(name);
  request.mutable_acquire()->set_up_to_ms(500);
  ask(request);
  world_.settle();
  (void)said();
  world_.erase("a/1");
  EXPECT_EQ(said(), "1 lost a@2 DELETED; 2 granted a@4");
  world_.now += milliseconds(500);
  world_.sessions().tick(world_.now);
  world_.erase("b/1");
  EXPECT_EQ(settled(), "1 lost b@3 DELETED; 2 granted a@4; 2 granted b@4");
  // Granted in part only, all of it goes.
  request.set_sequence(2);
  ask(release_of(2, 3, "a", 4));
  ask(release_of(2, 4, "b", 4));
  ask(acquire_of(1, 3, "b"));
  world_.settle();
  ask(request);
  world_.settle();
  (void)said();
  world_.now += milliseconds(500);
  world_.sessions().tick(world_.now);
  EXPECT_EQ(settled(), "2#2 error WOULD_BLOCK");
  EXPECT_EQ(create_of("a/2"), 0);
  EXPECT_EQ(create_of("b/2"), 0);
}

// Of several one was lost, and asked for again: the time limit of the first says nothing of that.
TEST_F(SessionsTest, AWaitThatEndsTakesOnlyWhatIsItsOwn) {
  open(1);
  open(2);
  ask(acquire_of(1, 1, "a"));
  ask(acquire_of(1, 2, "b"));
  world_.settle();
  v1::SessionRequest request = operation_of(2, 1);
  for (const char* name : {"a", "b"}) request.mutable_acquire()->add_names(name);
  request.mutable_acquire()->set_up_to_ms(500);
  ask(request);
  world_.settle();
  (void)said();
  world_.erase("a/2");
  EXPECT_EQ(settled(), "2 lost a@4 DELETED");
  ask(acquire_of(2, 2, "a"));
  EXPECT_EQ(settled(), "2#2 claimed a@6");
  world_.now += milliseconds(500);
  world_.sessions().tick(world_.now);
  EXPECT_EQ(settled(), "2#1 error WOULD_BLOCK");
  EXPECT_EQ(create_of("b/2"), 0);
  EXPECT_EQ(create_of("a/2"), 6);
  world_.erase("a/1");
  EXPECT_EQ(settled(), "1 lost a@2 DELETED; 2 granted a@6");
}

// A later incarnation asked again for what an earlier one's call left: that is the later one's.
TEST_F(SessionsTest, WhatALaterIncarnationAskedForIsNotTakenBack) {
  open(1);
  open(2);
  ask(acquire_of(1, 1, "orders"));
  world_.settle();
  ask(acquire_of(2, 1, "orders"));
  world_.sessions().withdraw(world_.now, stream_, SessionId(2), 1);
  world_.delay_write();
  ASSERT_EQ(world_.writes_waiting(), 1U);  // the mark of it
  CommandBuilder elsewhere;
  elsewhere.put("orders/2", {}, LeaseId(2));
  world_.apply({.kind = keyspace::CommandKind::kInternal, .session = SessionId(2), .incarnation = 2, .sequence = 2},
               elsewhere.build());
  world_.settle();
  EXPECT_EQ(create_of("orders/2"), 3);
  world_.apply_late();
  world_.settle();
  EXPECT_EQ(create_of("orders/2"), 3);
}

// What gives back is not refused for what there is.
TEST_F(SessionsTest, AtTheBoundOfClaimsWhatIsHeldCanBeReleased) {
  TestWorld world({.claims_per_session_max = 2});
  const StreamId stream = world.sessions().open_stream();
  const auto ask = [&](const v1::SessionRequest& request) {
    world.sessions().request(world.now, stream, request);
    world.settle();
    std::string out;
    for (const v1::SessionResponse& each : std::exchange(world.sent[stream], {})) out += describe(each);
    return out;
  };
  (void)ask(open_of(1));
  EXPECT_EQ(ask(acquire_of(1, 1, "a")), "1#1 claimed a@2+");
  EXPECT_EQ(ask(acquire_of(1, 2, "b")), "1#2 claimed b@3+");
  EXPECT_EQ(ask(acquire_of(1, 3, "c")), "1#3 error OVERLOADED");
  EXPECT_EQ(ask(release_of(1, 4, "a", 2)), "1#4 released");
  EXPECT_EQ(ask(acquire_of(1, 5, "c")), "1#5 claimed c@5+");
}

// Other keys may hang on a session's lease, and before its claims.
TEST_F(SessionsTest, AllClaimsAreListedAmongManyKeys) {
  open(1);
  ask(acquire_of(1, 1, "orders"));
  world_.settle();
  (void)said();
  for (int i = 0; i < 3000; ++i) world_.put(fmt::format("data/{:04}", i), LeaseId(1));
  world_.sessions().close_stream(stream_);
  stream_ = world_.sessions().open_stream();
  ask(attach_of(1, 2));
  EXPECT_EQ(settled(), "1 attached orders@2+");
}

TEST_F(SessionsTest, ClosingEndsAllInOneRevision) {
  open(1);
  open(2);
  ask(acquire_of(1, 1, "a"));
  ask(acquire_of(1, 2, "b"));
  ask(acquire_of(2, 1, "a"));
  world_.settle();
  (void)said();
  const Revision before = world_.view().revision();
  v1::SessionRequest close = operation_of(1, 0);
  close.mutable_close();
  ask(close);
  EXPECT_EQ(settled(), "1 ended CLOSED; 1 closed; 2 granted a@4");
  EXPECT_EQ(world_.view().revision().value(), before.value() + 1);
}

TEST_F(SessionsTest, KeepAlivesOfAllInOneMessage) {
  for (const int64_t session : {1, 2, 3}) open(session);
  v1::SessionRequest keep;
  keep.mutable_keep_alive()->set_id(5);
  ask(keep);
  EXPECT_EQ(settled(), "0 kept 5 gone 0 failed 0");
  keep.mutable_keep_alive()->add_sessions(2);
  keep.mutable_keep_alive()->add_sessions(4);
  ask(keep);
  EXPECT_EQ(settled(), "0 kept 5 gone 0 failed 1");
}

TEST(SessionKeepAlives, NoMoreAreAskedAtOnceThanTheReplicaTakesAndAStreamHasSomeUnderWay) {
  TestWorld world({.keep_alives_under_way_max = 10});
  const StreamId stream = world.sessions().open_stream();
  v1::SessionRequest open;
  open.mutable_open()->set_secret(std::string(kSecret));
  open.mutable_open()->set_ttl_ms(10'000);
  for (int64_t session = 1; session <= 3; ++session) {
    open.set_session(session);
    world.sessions().request(world.now, stream, open);
  }
  world.settle();
  world.sent.clear();
  v1::SessionRequest keep;
  for (uint64_t id = 1; id <= 65; ++id) {
    keep.mutable_keep_alive()->set_id(id);
    world.sessions().request(world.now, stream, keep);
  }
  ASSERT_EQ(world.sent[stream].size(), 1U);
  EXPECT_EQ(describe(world.sent[stream].front()), "0 error OVERLOADED");
  EXPECT_EQ(world.keep_alives_waiting(), 10U);
  world.settle();
  EXPECT_EQ(world.sent[stream].size(), 65U);
  EXPECT_EQ(describe(world.sent[stream].back()), "0 kept 64 gone 0 failed 0");
}

TEST_F(SessionsTest, AnOwnerIsAskedAndForced) {
  open(1);
  ask(acquire_of(1, 1, "orders"));
  EXPECT_EQ(settled(), "1#1 claimed orders@2+");
  const std::string record = request_record_key("orders/1");
  CommandBuilder request;
  request.if_created("orders/1", Revision(2))
      .put_record(record, encode(RequestRecord{.token = 2, .note = "soon"}), LeaseId(1));
  world_.apply({.kind = keyspace::CommandKind::kInternal}, request.build());
  EXPECT_EQ(said(), "1 asked for orders@2 soon");
  ask(attach_of(1, 2));
  EXPECT_EQ(settled(), "1 attached orders@2+; 1 asked for orders@2 soon");
  CommandBuilder force;
  force.if_created("orders/1", Revision(2))
      .put_record(record, encode(RequestRecord{.token = 2, .forced = true, .note = "now"}), LeaseId(1))
      .erase("orders/1");
  world_.apply({.kind = keyspace::CommandKind::kInternal}, force.build());
  EXPECT_EQ(said(), "1 lost orders@2 FORCED now");
  // Who was away is told with its attachment, until it has that name again.
  ask(attach_of(1, 2));
  EXPECT_EQ(settled(), "1 lost orders@2 FORCED now; 1 attached");
  ask(acquire_of(1, 9, "orders"));
  (void)settled();
  ask(attach_of(1, 3));
  EXPECT_EQ(settled(), "1 attached orders@4+");
  // With the claim goes what was asked of it.
  ask(release_of(1, 10, "orders", 4));
  EXPECT_EQ(settled(), "1#10 released");
  EXPECT_EQ(world_.view().record(record), nullptr);
}

// ---- The delay after an owner that was lost ----

TEST_F(SessionsTest, AnOwnersClaimLingersAndAWaitersDoesNot) {
  for (const int64_t session : {1, 2, 3}) open(session);
  for (const int64_t session : {1, 2}) {
    v1::SessionRequest request = acquire_of(session, 1, "orders");
    request.mutable_acquire()->set_lock_delay_ms(5000);
    ask(request);
  }
  ask(acquire_of(3, 1, "orders"));
  EXPECT_EQ(settled(), "1#1 claimed orders@2+; 2#1 claimed orders@3; 3#1 claimed orders@4");
  EXPECT_FALSE(may_linger(world_.view(), LeaseId(3)));
  EXPECT_TRUE(may_linger(world_.view(), LeaseId(2)));
  EXPECT_FALSE(encode_lingering_end(world_.view(), LeaseId(2)));  // it waits: it goes at once
  const auto body = encode_lingering_end(world_.view(), LeaseId(1));
  ASSERT_TRUE(body);
  world_.apply({.kind = keyspace::CommandKind::kInternal, .term = Term(1), .lease = LeaseId(1)}, *body);
  EXPECT_EQ(said(), "1 ended EXPIRED");
  const auto claim = world_.view().get("orders/1");
  ASSERT_TRUE(claim);
  EXPECT_EQ(claim->create.value(), 2);
  EXPECT_EQ(world_.view().lease(claim->lease)->ttl_ms, 5000);
  EXPECT_FALSE(world_.view().lease(LeaseId(1)));
  world_.expire(claim->lease.value());
  EXPECT_EQ(said(), "2 granted orders@3");
}

// The owner before it goes between the leader's look and its entry: it has the lock by then, and its end is decided
// anew.
TEST_F(SessionsTest, AWaiterThatBecameOwnerIsNotEndedAsOne) {
  for (const int64_t session : {1, 2}) open(session);
  ask(acquire_of(1, 1, "a"));
  for (const std::string name : {"a", "b"}) {
    v1::SessionRequest request = acquire_of(2, name == "a" ? 1 : 2, name);
    request.mutable_acquire()->set_lock_delay_ms(5000);
    ask(request);
  }
  world_.settle();
  const auto body = encode_lingering_end(world_.view(), LeaseId(2));
  ASSERT_TRUE(body);
  world_.erase("a/1");
  world_.apply({.kind = keyspace::CommandKind::kInternal, .term = Term(1), .lease = LeaseId(2)}, *body);
  EXPECT_TRUE(world_.view().lease(LeaseId(2)));
  const auto again = encode_lingering_end(world_.view(), LeaseId(2));
  world_.apply({.kind = keyspace::CommandKind::kInternal, .term = Term(1), .lease = LeaseId(2)}, *again);
  EXPECT_FALSE(world_.view().lease(LeaseId(2)));
  EXPECT_NE(create_of("a/2"), 0);
  EXPECT_NE(create_of("b/2"), 0);
}

// ---- Elections ----

class SessionElectionsTest : public SessionsTest {
 protected:
  SessionElectionsTest() { world_.sessions().set_leading(Term(1)); }
};

TEST_F(SessionElectionsTest, TheBestCandidateIsElected) {
  for (const int64_t session : {1, 2, 3, 4}) open(session);
  ask(campaign_of(1, 1, "boss", 0));
  EXPECT_EQ(settled(), "1#1 claimed boss@0; 1 granted boss@2");
  ask(campaign_of(2, 1, "boss", 0));
  ask(campaign_of(3, 1, "boss", 5));
  ask(campaign_of(4, 1, "boss", 5));
  EXPECT_EQ(settled(), "2#1 claimed boss@0; 3#1 claimed boss@0; 4#1 claimed boss@0");
  // From the same revision on: no vacancy between.
  const Revision before = world_.view().revision();
  ask(resign_of(1, 2, "boss", 2));
  EXPECT_EQ(settled(), "1#2 released; 3 granted boss@3");
  EXPECT_EQ(world_.view().revision().value(), before.value() + 1);
  EXPECT_EQ(world_.view().get("boss/3")->value, "v3");
  world_.expire(3);
  EXPECT_EQ(settled(), "3 ended EXPIRED; 4 granted boss@5");
  ask(cancel_of(2, 2, 1, "boss"));
  EXPECT_EQ(settled(), "2#1 error CANCELLED; 2#2 cancelled");
  ask(resign_of(4, 2, "boss", 5));
  EXPECT_EQ(settled(), "4#2 released");
  EXPECT_EQ(world_.view().count(keyspace::KeyRange::of("boss/", "boss0")), 0);
}

TEST_F(SessionElectionsTest, OnlyTheLeaderDecidesAndOnlyInItsTerm) {
  world_.sessions().set_leading(Term());
  open(1);
  ask(campaign_of(1, 1, "boss", 0));
  EXPECT_EQ(settled(), "1#1 claimed boss@0");
  world_.sessions().set_leading(Term(1));
  world_.sessions().work(world_.now);
  ASSERT_EQ(world_.writes_waiting(), 1U);
  world_.term = 2;
  EXPECT_EQ(world_.step(), true);  // of a term that is over
  EXPECT_EQ(create_of("boss/1"), 0);
  world_.sessions().set_leading(Term(2));
  EXPECT_EQ(settled(), "1 granted boss@2");
}

TEST_F(SessionElectionsTest, RecipesCandidatesAreNotPassedOver) {
  for (const int64_t session : {1, 2}) open(session);
  world_.put("boss/abc");
  ask(campaign_of(1, 1, "boss", 0));
  ask(campaign_of(2, 1, "boss", 9));
  // The first to come was bound to its place before the better one came; that one waits outside.
  EXPECT_EQ(settled(), "1#1 claimed boss@0; 2#1 claimed boss@0");
  EXPECT_EQ(create_of("boss/1"), 3);
  EXPECT_EQ(create_of("boss/2"), 0);
  world_.put("boss/def");
  world_.erase("boss/abc");
  EXPECT_EQ(settled(), "1 granted boss@3");
  // Behind the other's claim now, in line itself.
  EXPECT_EQ(create_of("boss/2"), 6);
  ask(transfer_of(1, 2, "boss", 3, 2));
  EXPECT_EQ(settled(), "1#2 error FOREIGN_WAITERS");
  ask(resign_of(1, 3, "boss", 3));
  EXPECT_EQ(settled(), "1#3 released");
  world_.erase("boss/def");
  EXPECT_EQ(settled(), "2 granted boss@6");
}

// Somebody of the recipe stands behind, and is not passed over by this.
TEST_F(SessionElectionsTest, TransferToWhoIsBoundAndNext) {
  for (const int64_t session : {1, 2, 3}) open(session);
  world_.put("boss/abc");
  ask(campaign_of(1, 1, "boss", 0));
  EXPECT_EQ(settled(), "1#1 claimed boss@0");
  world_.put("boss/def");
  world_.erase("boss/abc");
  EXPECT_EQ(settled(), fmt::format("1 granted boss@{}", create_of("boss/1")));
  ask(campaign_of(2, 1, "boss", 0));
  ask(campaign_of(3, 1, "boss", 9));
  EXPECT_EQ(settled(), "2#1 claimed boss@0; 3#1 claimed boss@0");
  ASSERT_NE(create_of("boss/2"), 0);
  // Not yet the next; then it is, and who is no candidate in line still waits.
  ask(transfer_of(1, 2, "boss", create_of("boss/1"), 2));
  EXPECT_EQ(settled(), "1#2 error FOREIGN_WAITERS");
  world_.erase("boss/def");
  world_.put("boss/ghi");
  ask(transfer_of(1, 3, "boss", create_of("boss/1"), 3));
  EXPECT_EQ(settled(), "1#3 error FOREIGN_WAITERS");
  const v1::SessionRequest transfer = transfer_of(1, 4, "boss", create_of("boss/1"), 2);
  ask(transfer);
  EXPECT_EQ(settled(), fmt::format("1#4 released; 2 granted boss@{}", create_of("boss/2")));
  ask(transfer);
  EXPECT_EQ(settled(), "1#4 released");
  EXPECT_NE(create_of("boss/ghi"), 0);
}

// Who was bound is a candidate again, as what it was, once nobody of the recipe stands in line: a better one is elected
// before it, and one of the same priority that came later is not.
TEST_F(SessionElectionsTest, WhoIsBoundGoesBackToTheCandidates) {
  for (const int64_t session : {1, 2, 3, 4, 5}) open(session);
  ask(campaign_of(1, 1, "boss", 0));
  EXPECT_EQ(settled(), "1#1 claimed boss@0; 1 granted boss@2");
  world_.put("boss/abc");
  ask(campaign_of(2, 1, "boss", 5));
  EXPECT_EQ(settled(), "2#1 claimed boss@0");
  const int64_t bound = create_of("boss/2");
  ASSERT_NE(bound, 0);
  ask(campaign_of(3, 1, "boss", 5));
  ask(campaign_of(4, 1, "boss", 9));
  EXPECT_EQ(settled(), "3#1 claimed boss@0; 4#1 claimed boss@0");
  // It stands in line for whoever asks.
  ask(campaign_of(2, 1, "boss", 5));
  EXPECT_EQ(settled(), fmt::format("2#1 claimed boss@{}", bound));
  world_.erase("boss/abc");
  EXPECT_EQ(settled(), "");  // nothing was lost
  EXPECT_EQ(create_of("boss/2"), 0);
  ask(resign_of(1, 2, "boss", 2));
  EXPECT_EQ(settled(), "1#2 released; 4 granted boss@7");
  EXPECT_EQ(world_.view().get("boss/4")->value, "v4");
  ask(resign_of(4, 2, "boss", create_of("boss/4")));
  EXPECT_EQ(settled(), "4#2 released; 2 granted boss@8");
  EXPECT_GT(create_of("boss/2"), bound);
  EXPECT_EQ(world_.view().get("boss/2")->value, "v2");
  // Bound again, in its second term: nobody is taken out of it.
  ask(campaign_of(5, 1, "boss", 9));
  world_.put("boss/def");
  world_.erase("boss/def");
  EXPECT_EQ(settled(), "5#1 claimed boss@0");
  EXPECT_NE(create_of("boss/2"), 0);
  ask(transfer_of(2, 2, "boss", create_of("boss/2"), 3));
  EXPECT_EQ(settled(), "2#2 released; 3 granted boss@13");
}

// Its candidacy is taken back while it is on its way from the line to the candidates, and the other way round.
TEST_F(SessionElectionsTest, WhoIsBoundIsCancelledInEitherState) {
  for (const bool becomes_bound : {true, false}) {
    SCOPED_TRACE(becomes_bound);
    const int64_t first = becomes_bound ? 1 : 4;
    for (int64_t session = first; session < first + 3; ++session) open(session);
    const std::string name = becomes_bound ? "in" : "out";
    ask(campaign_of(first, 1, name, 0));
    (void)settled();
    ask(campaign_of(first + 1, 1, name, 0));
    if (!becomes_bound) {
      world_.put(name + "/abc");
      (void)settled();
      ask(campaign_of(first + 2, 1, name, 0));  // without another nobody need go back
      (void)settled();
      ASSERT_NE(create_of(name + "/" + std::to_string(first + 1)), 0);
      world_.erase(name + "/abc");
    } else {
      (void)settled();
      world_.put(name + "/abc");
    }
    // The leader's command and the cancel's are under way at once, the leader's first.
    world_.sessions().work(world_.now);
    ask(cancel_of(first + 1, 2, 1, name));
    ASSERT_EQ(world_.writes_waiting(), 2U);
    EXPECT_EQ(settled(), fmt::format("{0}#1 error CANCELLED; {0}#2 cancelled", first + 1));
    EXPECT_EQ(create_of(name + "/" + std::to_string(first + 1)), 0);
    EXPECT_EQ(world_.view().record(candidate_record_key(name, SessionId(static_cast<uint64_t>(first + 1)))), nullptr);
  }
}

// One waits for a transfer that looks once more, since somebody came; and the transfer's call ends while it does.
TEST_F(SessionElectionsTest, ACancelOfWhatLooksAgainIsAnswered) {
  for (const int64_t session : {1, 2}) open(session);
  ask(campaign_of(1, 1, "boss", 0));
  (void)settled();
  ask(campaign_of(2, 1, "boss", 0));
  (void)settled();
  const StreamId call = call_of(1);
  ask_at(call, transfer_of(1, 2, "boss", create_of("boss/1"), 2));
  ask(cancel_of(1, 3, 2, "boss"));
  ASSERT_EQ(world_.writes_waiting(), 1U);
  world_.put("boss/abc");
  ASSERT_TRUE(world_.step());  // its entry, which does nothing
  ASSERT_NE(create_of("boss/1"), 0);
  ASSERT_EQ(world_.reads_waiting(), 1U) << "for its look";
  world_.sessions().withdraw(world_.now, call, SessionId(1), 2);
  EXPECT_EQ(settled(), "1#3 cancelled");
  EXPECT_EQ(create_of("boss/1"), 0);
}

// Between the look and the entry the one named gives up.
TEST_F(SessionElectionsTest, NoTransferToWhoLeftTheLine) {
  for (const int64_t session : {1, 2}) open(session);
  world_.put("boss/abc");
  ask(campaign_of(1, 1, "boss", 0));
  (void)settled();
  world_.put("boss/def");
  world_.erase("boss/abc");
  (void)settled();
  ask(campaign_of(2, 1, "boss", 0));
  (void)settled();
  world_.erase("boss/def");
  const int64_t token = create_of("boss/1");
  ask(cancel_of(2, 2, 1, "boss"));
  ask(transfer_of(1, 2, "boss", token, 2));
  EXPECT_EQ(settled(), "2#1 error CANCELLED; 2#2 cancelled; 1#2 error NO_CANDIDATE");
  EXPECT_EQ(create_of("boss/1"), token);
}

TEST_F(SessionElectionsTest, TransferToACandidateAndToNobodyElse) {
  for (const int64_t session : {1, 2, 3}) open(session);
  ask(campaign_of(1, 1, "boss", 0));
  ask(campaign_of(2, 1, "boss", 7));
  ask(campaign_of(3, 1, "boss", 0));
  (void)settled();
  const int64_t token = create_of("boss/1");
  ASSERT_NE(token, 0);
  ask(transfer_of(1, 2, "boss", token, 9));
  EXPECT_EQ(settled(), "1#2 error NO_CANDIDATE");
  ask(transfer_of(1, 3, "boss", token + 1, 3));
  EXPECT_EQ(settled(), "1#3 error NOT_OWNER");
  ask(transfer_of(2, 2, "boss", token, 3));
  EXPECT_EQ(settled(), "2#2 error NOT_OWNER");
  ask(transfer_of(1, 4, "boss", token, 3));
  EXPECT_EQ(settled(), fmt::format("1#4 released; 3 granted boss@{}", token + 1));
  ask(transfer_of(1, 4, "boss", token, 3));  // repeated
  EXPECT_EQ(settled(), "1#4 released");
  // Refused, and marked since it was asked before; asked once more it is no success.
  const v1::SessionRequest again = asked_again(transfer_of(3, 2, "boss", token + 1, 9));
  for (int i = 0; i < 2; ++i) {
    ask(again);
    EXPECT_EQ(settled(), "3#2 error NO_CANDIDATE");
  }
  EXPECT_EQ(create_of("boss/1"), 0);
}

TEST_F(SessionElectionsTest, ProclaimChangesTheValueOfWhoLeads) {
  for (const int64_t session : {1, 2}) open(session);
  ask(campaign_of(1, 1, "boss", 0));
  ask(campaign_of(2, 1, "boss", 0));
  (void)settled();
  v1::SessionRequest proclaim = operation_of(1, 2);
  proclaim.mutable_proclaim()->set_name("boss");
  proclaim.mutable_proclaim()->set_token(2);
  proclaim.mutable_proclaim()->set_value("other");
  ask(proclaim);
  EXPECT_EQ(settled(), "1#2 proclaimed 3");
  EXPECT_EQ(world_.view().get("boss/1")->value, "other");
  EXPECT_EQ(create_of("boss/1"), 2);
  proclaim.set_session(2);
  ask(proclaim);
  EXPECT_EQ(settled(), "2#2 error NOT_OWNER");
}

TEST_F(SessionElectionsTest, ObserversSeeLeadersInOrderAndVacancies) {
  for (const int64_t session : {1, 2}) open(session);
  v1::SessionRequest observe;
  observe.mutable_observe()->set_name("boss");
  const StreamId watcher = world_.sessions().open_stream();
  ask_at(watcher, observe);
  world_.settle();
  EXPECT_EQ(said_to(watcher), "0 leads boss@0 ");
  ask(campaign_of(1, 1, "boss", 0));
  (void)settled();
  EXPECT_EQ(said_to(watcher), "0 leads boss@2 v1");
  world_.put("boss/1", LeaseId(1), "new");
  EXPECT_EQ(said_to(watcher), "0 leads boss@2 new");
  world_.expire(1);
  EXPECT_EQ(said_to(watcher), "0 leads boss@0 ");
  ask(campaign_of(2, 1, "boss", 0));
  (void)settled();
  EXPECT_EQ(said_to(watcher), "0 leads boss@5 v2");
  // Taken up again where it was, and where it was not.
  const StreamId again = world_.sessions().open_stream();
  observe.mutable_observe()->set_token(5);
  observe.mutable_observe()->set_mod_revision(5);
  ask_at(again, observe);
  observe.mutable_observe()->set_token(2);
  observe.mutable_observe()->set_mod_revision(3);
  ask_at(again, observe);
  world_.settle();
  EXPECT_EQ(said_to(again), "0 leads boss@5 v2; 0 leads boss@5 v2 skipped");
}

TEST_F(SessionElectionsTest, ObserversSeeCandidatesOnRequest) {
  for (const int64_t session : {1, 2, 3}) open(session);
  v1::SessionRequest observe;
  observe.mutable_observe()->set_name("boss");
  const StreamId without = world_.sessions().open_stream();
  ask_at(without, observe);
  const StreamId watcher = world_.sessions().open_stream();
  observe.mutable_observe()->set_candidates(true);
  ask_at(watcher, observe);
  world_.settle();
  EXPECT_EQ(said_to(watcher), "0 leads boss@0 , 0 wait:");
  EXPECT_EQ(said_to(without), "0 leads boss@0 ");
  // The first change at once, later ones each after a tenth of a second, as they are then.
  const auto pass = [&] {
    world_.now = std::max(world_.now, world_.sessions().next_deadline());
    world_.sessions().tick(world_.now);
  };
  ask(campaign_of(1, 1, "boss", 0));
  (void)settled();
  pass();
  EXPECT_EQ(said_to(watcher), "0 leads boss@2 v1; 0 leads boss@2 v1, 0 wait:");
  EXPECT_EQ(said_to(without), "0 leads boss@2 v1");
  ask(campaign_of(2, 1, "boss", 0));
  (void)settled();
  const Instant before = world_.now;
  pass();
  EXPECT_EQ(world_.now, before + milliseconds(100));
  ask(campaign_of(3, 1, "boss", 7));
  (void)settled();
  pass();
  EXPECT_EQ(world_.sessions().next_deadline(), kNever);
  ask(cancel_of(2, 2, 1, "boss"));
  (void)settled();
  pass();
  EXPECT_EQ(said_to(watcher),
            "0 leads boss@2 v1, 1 wait: 2(0); 0 leads boss@2 v1, 2 wait: 3(7) 2(0); "
            "0 leads boss@2 v1, 1 wait: 3(7)");
  EXPECT_EQ(said_to(without), "");
  // Another state, whose candidates are read anew: those that stand are told then, to who begins meanwhile too.
  world_.sessions().on_state_replaced(world_.now);
  ask_at(watcher, observe);
  world_.settle();
  pass();
  EXPECT_EQ(said_to(watcher), "0 leads boss@2 v1 skipped; 0 leads boss@2 v1; 0 leads boss@2 v1, 1 wait: 3(7)");
}

// No more are named than an answer has room for.
TEST_F(SessionElectionsTest, ObserversSeeTheBestCandidates) {
  open(1);
  ask(campaign_of(1, 1, "boss", 0));
  (void)settled();
  for (int64_t session = 2; session < 42; ++session) {
    open(session);
    ask(campaign_of(session, 1, "boss", static_cast<int32_t>(session)));
    (void)settled();
  }
  v1::SessionRequest observe;
  observe.mutable_observe()->set_name("boss");
  observe.mutable_observe()->set_candidates(true);
  const StreamId watcher = world_.sessions().open_stream();
  ask_at(watcher, observe);
  world_.settle();
  const std::string said = said_to(watcher);
  EXPECT_TRUE(said.starts_with("0 leads boss@2 v1, 40 wait: 41(41) 40(40) ")) << said;
  EXPECT_TRUE(said.ends_with(" 11(11) 10(10)")) << said;
}

// Two terms that end in one entry are two revisions: who led between them is not seen, and that is said.
TEST_F(SessionElectionsTest, ObserversAreToldWhatTheyMissed) {
  v1::SessionRequest observe;
  observe.mutable_observe()->set_name("boss");
  ask(observe);
  (void)settled();
  world_.apply({.kind = keyspace::CommandKind::kLeaseGrant, .lease = LeaseId(21), .ttl_ms = 1000}, "");
  world_.apply({.kind = keyspace::CommandKind::kLeaseGrant, .lease = LeaseId(22), .ttl_ms = 1000}, "");
  world_.put("boss/15", LeaseId(21));
  world_.put("boss/16", LeaseId(22));
  EXPECT_EQ(said(), "0 leads boss@2 ");
  std::string body;
  keyspace::encode_expire({LeaseId(21), LeaseId(22)}, body);
  world_.apply({.kind = keyspace::CommandKind::kLeaseExpire, .term = Term(1)}, body);
  EXPECT_EQ(said(), "0 leads boss@0  skipped");
}

// ---- A server that lags ----

TEST_F(SessionsTest, ALaggingServerHandsItsSessionsOverStreamByStream) {
  for (const int64_t session : {1, 2, 3}) open(session);
  const StreamId second = world_.sessions().open_stream();
  const StreamId third = world_.sessions().open_stream();
  (void)world_.sessions().open_stream();  // speaks for nobody
  for (const int64_t session : {4, 5}) ask_at(second, open_of(session));
  ask_at(third, open_of(6));
  world_.settle();
  (void)said_to(second);
  (void)said_to(third);
  ask(acquire_of(1, 1, "orders"));
  ask_at(second, acquire_of(4, 1, "orders"));
  world_.settle();
  (void)said();
  (void)said_to(second);
  EXPECT_EQ(world_.sessions().waiters(), 1U);
  world_.sessions().set_lagging(world_.now, true);
  EXPECT_EQ(world_.sessions().next_deadline(), world_.now);
  world_.sessions().tick(world_.now);
  EXPECT_EQ(said(), "1 ended MOVED; 2 ended MOVED; 3 ended MOVED");
  EXPECT_EQ(said_to(second), "");
  // Three cost a hundredth of three hundred a second.
  EXPECT_EQ(world_.sessions().next_deadline(), world_.now + milliseconds(10));
  // One that comes back found no better server, and stays; what it has stands.
  ask(attach_of(1, 2));
  EXPECT_EQ(settled(), "1 attached orders@2+");
  world_.now += milliseconds(10);
  world_.sessions().set_lagging(world_.now, true);
  world_.sessions().tick(world_.now);
  EXPECT_EQ(said_to(second), "4 ended MOVED; 5 ended MOVED");
  EXPECT_EQ(world_.sessions().waiters(), 0U);
  EXPECT_NE(create_of("orders/4"), 0) << "nothing is given up";
  ask_at(second, acquire_of(4, 2, "other"));
  world_.settle();
  EXPECT_EQ(said_to(second), "4#2 error NOT_ATTACHED");
  // It has caught up: nobody else goes.
  world_.sessions().set_lagging(world_.now, false);
  EXPECT_EQ(world_.sessions().next_deadline(), kNever);
  EXPECT_EQ(said_to(third), "");
  EXPECT_EQ(world_.sessions().handed_over(), 5U);
  EXPECT_EQ(world_.sessions().attached(), 2U);
  // Again, and within the time that the last one cost.
  world_.sessions().set_lagging(world_.now, true);
  EXPECT_GT(world_.sessions().next_deadline(), world_.now);
  world_.now += milliseconds(10);
  world_.sessions().close_stream(stream_);
  world_.sessions().tick(world_.now);
  EXPECT_EQ(said_to(third), "6 ended MOVED");
  EXPECT_EQ(world_.sessions().attached(), 0U);
}

TEST_F(SessionElectionsTest, AReplacedStateBeginsAnew) {
  open(1);
  ask(campaign_of(1, 1, "boss", 0));
  (void)settled();
  world_.sessions().on_state_replaced(world_.now);
  EXPECT_EQ(settled(), "1 ended MOVED");
  ask(attach_of(1, 2));
  EXPECT_EQ(settled(), "1 attached boss@2+");
}

// ---- Bad input ----

TEST_F(SessionsTest, BadNamesAndSizesAreRefusedBeforeTheLog) {
  open(1);
  const uint64_t index = world_.index();
  uint64_t sequence = 0;
  for (const std::string& name : {std::string(), std::string(513, 'n'), std::string("a\0b", 3), std::string("\xff"),
                                  std::string("/.conclave/x")}) {
    ask(acquire_of(1, ++sequence, name));
    EXPECT_EQ(settled(), fmt::format("1#{} error INVALID_NAME", sequence));
  }
  v1::SessionRequest request = acquire_of(1, ++sequence, "orders");
  request.mutable_acquire()->set_note(std::string(257, 'n'));
  ask(request);
  request = acquire_of(1, ++sequence, "orders");
  request.mutable_acquire()->set_lock_delay_ms(60'001);
  ask(request);
  request = campaign_of(1, ++sequence, "orders", 0);
  request.mutable_campaign()->set_value(std::string(65'537, 'v'));
  ask(request);
  ask(acquire_of(1, 0, "orders"));
  ++sequence;
  ask(cancel_of(1, sequence, sequence, "orders"));
  ask(operation_of(1, ++sequence));
  EXPECT_EQ(settled(),
            "1#6 error INVALID_REQUEST; 1#7 error INVALID_REQUEST; 1#8 error INVALID_REQUEST; 1 error INVALID_REQUEST; "
            "1#9 error INVALID_REQUEST; 1#10 error INVALID_REQUEST");
  EXPECT_EQ(world_.index(), index);
}

TEST_F(SessionsTest, TooManyUnderWayAreRefused) {
  open(1);
  for (uint64_t sequence = 1; sequence <= 64; ++sequence) ask(acquire_of(1, sequence, fmt::format("n{}", sequence)));
  EXPECT_EQ(said(), "");
  ask(acquire_of(1, 65, "n65"));
  EXPECT_EQ(said(), "1#65 error OVERLOADED");
}

TEST(ClaimRecord, RecordsAreReadBackAndOthersRefused) {
  ClaimRecord claim{.kind = ClaimKind::kElection, .lock_delay_ms = 60'000, .note = "n"};
  ClaimRecord claim_back;
  ASSERT_TRUE(decode(encode(claim), claim_back));
  EXPECT_EQ(claim, claim_back);
  for (const int32_t priority : {0, 1, -1, INT32_MAX, INT32_MIN}) {
    const CandidateRecord candidate{.priority = priority, .value = "v"};
    CandidateRecord back;
    ASSERT_TRUE(decode(encode(candidate), back));
    EXPECT_EQ(candidate, back);
    // Of one that was bound: both say what it was. An entry that is none is no part of either.
    const ClaimRecord bound{.kind = ClaimKind::kElection, .priority = priority, .since = LogIndex(300)};
    ASSERT_TRUE(decode(encode(bound), claim_back));
    EXPECT_EQ(bound, claim_back);
    const CandidateRecord returned{.priority = priority, .value = "v", .since = LogIndex(300)};
    ASSERT_TRUE(decode(encode(returned), back));
    EXPECT_EQ(returned, back);
    EXPECT_FALSE(decode(encode(candidate) + std::string(1, '\0'), back));
    EXPECT_FALSE(decode(encode(claim) + std::string("\x05\0", 2), claim_back));
    EXPECT_FALSE(decode(encode(claim) + "\x05", claim_back));
  }
  const RequestRecord request{.token = 9, .forced = true, .note = "x"};
  RequestRecord request_back;
  ASSERT_TRUE(decode(encode(request), request_back));
  EXPECT_EQ(request, request_back);
  for (const std::string& bad : {std::string(), std::string("\x02"), encode(claim) + "x", encode(claim).substr(0, 3)}) {
    EXPECT_FALSE(decode(bad, claim_back));
    CandidateRecord candidate;
    EXPECT_FALSE(decode(bad, candidate));
    EXPECT_FALSE(decode(bad, request_back));
  }
  std::string name;
  SessionId session;
  ASSERT_TRUE(decode_candidate_key(candidate_record_key("a/b", SessionId(0x7f)), name, session));
  EXPECT_EQ(name, "a/b");
  EXPECT_EQ(session, SessionId(0x7f));
  for (const std::string& bad :
       {std::string("candidate/"), std::string("candidate/a\0", 12), std::string("candidate/a"),
        std::string("candidate/a\0zz", 14), std::string("claim/a\0001", 9)}) {
    EXPECT_FALSE(decode_candidate_key(bad, name, session)) << bad;
  }
}

}  // namespace
}  // namespace conclave::layers
