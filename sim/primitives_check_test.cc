// The checker of sessions finds what it is there for: each rule is shown something wrong, and something right beside
// it.
#include "sim/primitives_check.h"

#include <gtest/gtest.h>

#include "layers/claim_record.h"
#include "sim/scheduler.h"

namespace conclave::sim {
namespace {

using client::Outcome;
using keyspace::CommandKind;
using std::chrono::milliseconds;
using Wish = PrimitivesCheck::Wish;

// What a client believes, as the test says.
class Belief final : public PrimitivesCheck::Mind {
 public:
  [[nodiscard]] bool is_safe() const override { return safe; }
  [[nodiscard]] bool holds(const std::string& name, int64_t token) const override {
    return held.contains({name, token});
  }
  bool safe = true;
  std::set<std::pair<std::string, int64_t>> held;
};

// Sessions 10 and 11, and the recipe's lease 3.
class PrimitivesCheckTest : public testing::Test {
 protected:
  PrimitivesCheckTest() {
    primitives.note_session(10, ten);
    primitives.note_session(11, eleven);
    command({.kind = CommandKind::kSessionOpen}, {LeaseId(10), LeaseId(11)});
  }
  static std::string key(int64_t session, const std::string& name = "a") { return ClaimHistory::key_of(name, session); }
  static Instant at(int64_t time_ms) { return Scheduler::kStart + milliseconds(time_ms); }
  static keyspace::CommandHeader by(int64_t session, uint64_t sequence) {
    return {.kind = CommandKind::kInternal, .session = SessionId(static_cast<uint64_t>(session)), .sequence = sequence};
  }
  static keyspace::CommandHeader by_leader(CommandKind kind) { return {.kind = kind, .term = Term(3)}; }
  void command(const keyspace::CommandHeader& header, const std::vector<LeaseId>& started = {}, int64_t time_ms = 0) {
    primitives.on_command({.now = at(time_ms), .header = header, .changed = true, .leases_started = started});
  }
  void put(int64_t revision, const std::string& of, const std::string& value = "", int64_t lease = 0) {
    const LeaseId on(lease != 0 ? lease : ClaimHistory::session_of(of));
    primitives.on_event(revision, {.key = of, .value = value, .lease = on, .is_put = true});
  }
  void remove(int64_t revision, const std::string& of) { primitives.on_event(revision, {.key = of}); }
  void ask(int64_t session, uint64_t operation, Wish wish) {
    if (wish.names.empty()) wish.names = {"a"};
    primitives.note_asked(session, operation, wish);
    // As the sequence of that number.
    if (wish.kind == Wish::Kind::kAcquire || wish.kind == Wish::Kind::kCampaign) {
      primitives.note_request(session, request(wish, operation));
    }
  }
  static v1::SessionRequest request(const Wish& wish, uint64_t sequence) {
    v1::SessionRequest request;
    request.set_sequence(sequence);
    if (wish.kind == Wish::Kind::kCampaign) {
      request.mutable_campaign()->set_name(wish.names.front());
      request.mutable_campaign()->set_value(wish.value);
    } else {
      for (const std::string& name : wish.names) request.mutable_acquire()->add_names(name);
    }
    return request;
  }
  // Asked, and put by that operation at this revision.
  void claim(int64_t session, uint64_t operation, int64_t revision, const Wish& wish = {}) {
    ask(session, operation, wish);
    command(by(session, operation));
    put(revision, key(session), wish.value);
  }
  void end(int64_t session, uint64_t operation, Outcome outcome, const std::vector<client::HeldClaim>& claims = {}) {
    primitives.note_told(session, client::OperationEnded{.operation = operation, .outcome = outcome, .claims = claims},
                         at(0));
  }
  void grant(int64_t session, uint64_t operation, int64_t token) {
    (session == 10 ? ten : eleven).held.insert({"a", token});
    end(session, operation, Outcome::kDone, {{.name = "a", .token = token}});
  }
  void let_go(int64_t session, uint64_t operation, int64_t token) {
    (session == 10 ? ten : eleven).held.clear();
    ask(session, operation, {.kind = Wish::Kind::kRelease, .token = token});
  }
  void expire(int64_t session, int64_t revision, int64_t time_ms = 0) {
    (session == 10 ? ten : eleven).safe = false;
    command(by_leader(CommandKind::kLeaseExpire), {}, time_ms);
    remove(revision, key(session));
    primitives.on_lease_ended(LeaseId(session), true);
  }
  // By an operator.
  void kill(int64_t session) {
    primitives.operators().note_kill(session);
    std::string body;
    keyspace::encode_expire({LeaseId(session)}, body);
    primitives.on_command({.header = {.kind = CommandKind::kLeaseExpire}, .changed = true, .body = body});
  }
  static v1::SessionResponse granted(int64_t token, int64_t revision) {
    v1::SessionResponse response;
    response.mutable_place()->set_revision(revision);
    response.mutable_granted()->set_name("a");
    response.mutable_granted()->set_token(token);
    return response;
  }
  static v1::SessionResponse attached(int64_t revision) {
    v1::SessionResponse response;
    response.mutable_place()->set_revision(revision);
    response.mutable_attached();
    return response;
  }
  static void add(v1::SessionResponse& response, int64_t token, bool is_granted) {
    v1::Claim& claim = *response.mutable_attached()->add_claims();
    claim.set_name("a");
    claim.set_token(token);
    claim.set_granted(is_granted);
  }
  [[nodiscard]] bool finds(const std::string& what) const { return check.violation().find(what) != std::string::npos; }

  NodeCheck check{NodeCheck::Options{}};
  LockCheck recipes{check, LockCheck::Options{}};
  PrimitivesCheck primitives{check, recipes, PrimitivesCheck::Options{}};
  Belief ten;
  Belief eleven;
};

TEST_F(PrimitivesCheckTest, ARightHandoverIsRight) {
  claim(10, 1, 5);
  primitives.note_response(10, granted(5, 5));
  grant(10, 1, 5);
  claim(11, 1, 6);
  primitives.note_believes(10, at(10));
  let_go(10, 2, 5);
  command(by(10, 2));
  remove(8, key(10));
  end(10, 2, Outcome::kDone);
  primitives.note_response(11, granted(6, 8));
  grant(11, 1, 6);
  primitives.note_believes(11, at(20));
  EXPECT_EQ(check.violation(), "");
  EXPECT_EQ(primitives.granted(), 2U);
  EXPECT_EQ(primitives.what_is_open(), "session a stands");
}

// --- What servers say at a place.

TEST_F(PrimitivesCheckTest, AGrantToOneWhoIsNotTheOldestIsFound) {
  claim(10, 1, 5);
  claim(11, 1, 6);
  primitives.note_response(11, granted(6, 7));
  EXPECT_TRUE(finds("a with token 6 is granted, and the oldest was 'a/a' of 5")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AGrantOfAnotherTokenIsFound) {
  claim(10, 1, 5);
  primitives.note_response(10, granted(6, 7));
  EXPECT_TRUE(finds("its claim on a has token 6, and it was 5")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AGrantToADeadSessionIsFound) {
  claim(10, 1, 5);
  expire(10, 7);
  primitives.note_response(10, granted(5, 6));
  EXPECT_EQ(check.violation(), "");
  primitives.note_response(10, granted(5, 7));
  EXPECT_TRUE(finds("its claim on a has token 5, and it was 0")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AClaimThatOwnsAndIsSaidToWaitIsFound) {
  claim(10, 1, 5);
  v1::SessionResponse response;
  response.mutable_place()->set_revision(5);
  v1::ClaimState& state = *response.mutable_claimed()->add_claims();
  state.set_name("a");
  state.set_token(5);
  primitives.note_response(10, response);
  EXPECT_TRUE(finds("a with token 5 is not granted")) << check.violation();
}

TEST_F(PrimitivesCheckTest, ALossOfWhatStandsIsFound) {
  claim(10, 1, 5);
  v1::SessionResponse response;
  response.mutable_place()->set_revision(6);
  response.mutable_lost()->set_name("a");
  response.mutable_lost()->set_token(5);
  primitives.note_response(10, response);
  EXPECT_TRUE(finds("it lost a with token 5, which stands")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AnAttachmentTellsAllAndNothingElse) {
  claim(10, 1, 5);
  v1::SessionResponse all = attached(6);
  add(all, 5, true);
  primitives.note_response(10, all);
  EXPECT_EQ(check.violation(), "");
  primitives.note_response(10, attached(4));
  EXPECT_EQ(check.violation(), "");
  primitives.note_response(10, attached(6));
  EXPECT_TRUE(finds("was attached at revision 6 and not told of a/a")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AnAttachmentThatTellsWhatIsGoneIsFound) {
  claim(10, 1, 5);
  command(by(10, 2));
  remove(7, key(10));
  v1::SessionResponse response = attached(8);
  add(response, 5, true);
  primitives.note_response(10, response);
  EXPECT_TRUE(finds("its claim on a has token 5, and it was 0")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AnAttachmentBehindWhatWasToldIsFound) {
  v1::SessionRequest request;
  request.mutable_attach();
  claim(10, 1, 5);
  primitives.note_request(11, request);
  primitives.note_response(10, granted(5, 9));
  primitives.note_response(11, attached(8));
  EXPECT_EQ(check.violation(), "");
  primitives.note_request(11, request);
  primitives.note_response(11, attached(8));
  EXPECT_TRUE(finds("was attached at revision 8, and 9 had been told before it asked")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AnEndOfWhatStandsIsFound) {
  v1::SessionResponse response;
  response.mutable_ended()->set_reason(v1::SessionEnded::MOVED);
  primitives.note_response(10, response);
  EXPECT_EQ(check.violation(), "");
  response.mutable_ended()->set_reason(v1::SessionEnded::EXPIRED);
  primitives.note_response(10, response);
  EXPECT_TRUE(finds("session a was told that it ended (EXPIRED), and stands")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AnEndIsToldOfWhatEnded) {
  expire(10, 5);
  v1::SessionResponse response;
  response.mutable_ended()->set_reason(v1::SessionEnded::EXPIRED);
  primitives.note_response(10, response);
  primitives.note_gone(10);
  eleven.safe = false;
  primitives.note_gone(11);
  EXPECT_EQ(check.violation(), "");
  eleven.safe = true;
  primitives.note_gone(11);
  EXPECT_TRUE(finds("session b was told that it is gone, and stands, and its client counts on it"))
      << check.violation();
}

// --- What may be put.

TEST_F(PrimitivesCheckTest, AClaimNobodyAskedForIsFound) {
  put(5, key(10));
  EXPECT_TRUE(finds("a/a was put at revision 5, and session a asks for no such claim")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AClaimAfterItsClientWasToldItIsNotDoneIsFound) {
  for (const Outcome outcome : {Outcome::kCancelled, Outcome::kNotApplied, Outcome::kRejected}) {
    NodeCheck other{NodeCheck::Options{}};
    LockCheck locks{other, LockCheck::Options{}};
    PrimitivesCheck late{other, locks, PrimitivesCheck::Options{}};
    late.note_session(10, ten);
    late.note_asked(10, 1, {.names = {"a"}});
    late.note_request(10, request({.names = {"a"}}, 1));
    late.note_told(10, client::OperationEnded{.operation = 1, .outcome = outcome}, at(0));
    late.on_command({.header = by(10, 1), .changed = true});
    late.on_event(5, {.key = key(10), .is_put = true});
    EXPECT_NE(other.violation().find("asks for no such claim"), std::string::npos) << other.violation();
  }
}

// It had its sequence when its stream broke, and was never sent; the next on that name is not taken for it.
TEST_F(PrimitivesCheckTest, WhatIsCancelledUnsentHasItsSequence) {
  primitives.note_asked(10, 1, {.names = {"a"}});
  primitives.note_asked(10, 2, {.names = {"a"}});
  v1::SessionRequest cancel;
  cancel.set_sequence(2);
  cancel.mutable_cancel()->set_operation(1);
  cancel.mutable_cancel()->add_names("a");
  primitives.note_request(10, cancel);
  primitives.note_request(10, request({.names = {"a"}}, 3));
  end(10, 1, Outcome::kCancelled);
  command(by(10, 3));
  put(20, key(10));
  EXPECT_EQ(check.violation(), "");
}

TEST_F(PrimitivesCheckTest, AGrantThatAServerTakesBackIsFound) {
  claim(10, 1, 5);
  claim(11, 1, 6);
  command({.kind = CommandKind::kInternal});
  remove(7, key(11));
  EXPECT_EQ(check.violation(), "") << "it waited";
  command({.kind = CommandKind::kInternal});
  remove(8, key(10));
  EXPECT_TRUE(finds("a/a was granted, and a server took it back")) << check.violation();
}

TEST_F(PrimitivesCheckTest, WhatIsNotKnownMayHappenYet) {
  ask(10, 1, {});
  end(10, 1, Outcome::kUnknown);
  command(by(10, 1));
  put(5, key(10));
  EXPECT_EQ(check.violation(), "");
}

TEST_F(PrimitivesCheckTest, AClaimThatIsPutAgainAfterItWasGrantedIsFound) {
  claim(10, 1, 5);
  grant(10, 1, 5);
  command(by(10, 2));
  remove(6, key(10));
  primitives.on_command({.header = by(10, 1)});
  put(7, key(10));
  EXPECT_TRUE(finds("a/a was put at revision 7")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AClaimThatIsLeftOfWhatWasCancelledIsFound) {
  claim(10, 1, 5);
  end(10, 1, Outcome::kCancelled);
  EXPECT_TRUE(finds("operation 1 of session a was cancelled, and a/a stands")) << check.violation();
}

TEST_F(PrimitivesCheckTest, WhatIsCancelledAndTakenBackIsRight) {
  claim(10, 1, 5);
  command(by(10, 2));
  remove(6, key(10));
  end(10, 1, Outcome::kCancelled);
  claim(10, 3, 7);
  EXPECT_EQ(check.violation(), "");
}

TEST_F(PrimitivesCheckTest, OneThatTriesAndStandsInLineIsFound) {
  claim(10, 1, 5, {.try_once = true});
  EXPECT_EQ(check.violation(), "");
  claim(11, 1, 6, {.try_once = true});
  EXPECT_TRUE(finds("a/b was put at revision 6 by one that tries, and is not the oldest")) << check.violation();
}

TEST_F(PrimitivesCheckTest, ASequenceThatTakesEffectTwiceIsFound) {
  claim(10, 1, 5);
  primitives.on_command({.header = by(10, 1)});
  EXPECT_EQ(check.violation(), "");
  command(by(10, 1));
  EXPECT_TRUE(finds("sequence 1 of session a took effect twice")) << check.violation();
}

TEST_F(PrimitivesCheckTest, ACampaignsClaimHasItsValue) {
  ask(10, 1, {.kind = Wish::Kind::kCampaign, .value = "=1"});
  command(by_leader(CommandKind::kInternal));
  put(5, key(10), "=1");
  EXPECT_EQ(check.violation(), "");
  ask(11, 1, {.kind = Wish::Kind::kCampaign, .value = "=2"});
  put(6, key(11), "=3");
  EXPECT_TRUE(finds("session b asks for no such claim")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AProclamationThatWasNotDoneAndIsWrittenIsFound) {
  claim(10, 1, 5, {.kind = Wish::Kind::kCampaign, .value = "=1"});
  grant(10, 1, 5);
  ask(10, 2, {.kind = Wish::Kind::kProclaim, .value = "=2"});
  end(10, 2, Outcome::kNotApplied);
  EXPECT_EQ(check.violation(), "");
  put(6, key(10), "=2");
  EXPECT_TRUE(finds("'=2' was written to a/a, and session a had been told that operation 2 was not done"))
      << check.violation();
}

TEST_F(PrimitivesCheckTest, AProclamationThatIsWrittenAndSaidNotToBeIsFound) {
  claim(10, 1, 5, {.kind = Wish::Kind::kCampaign, .value = "=1"});
  grant(10, 1, 5);
  ask(10, 2, {.kind = Wish::Kind::kProclaim, .value = "=2"});
  put(6, key(10), "=2");
  end(10, 2, Outcome::kRejected);
  EXPECT_TRUE(finds("operation 2 of session a was rejected, and '=2' is written")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AProclamationThatIsDoneAndNotWrittenIsFound) {
  ask(10, 2, {.kind = Wish::Kind::kProclaim, .value = "=2"});
  end(10, 2, Outcome::kDone);
  EXPECT_TRUE(finds("session a proclaimed '=2', which is not written")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AReleaseThatReleasesNothingIsFound) {
  claim(10, 1, 5);
  grant(10, 1, 5);
  let_go(10, 2, 5);
  end(10, 2, Outcome::kDone);
  EXPECT_TRUE(finds("session a released a with token 5, which stands")) << check.violation();
}

TEST_F(PrimitivesCheckTest, WhatIsCancelledMayBeToldAsUnknownBeforeItsCancelIsSent) {
  v1::SessionRequest cancel;
  cancel.set_sequence(2);
  cancel.mutable_cancel()->set_operation(1);
  cancel.mutable_cancel()->add_names("a");
  primitives.note_asked(10, 1, {.names = {"a"}});
  end(10, 1, Outcome::kUnknown);
  primitives.note_request(10, cancel);
  EXPECT_EQ(check.violation(), "");
  primitives.note_asked(11, 1, {.names = {"a"}});
  end(11, 1, Outcome::kCancelled);
  primitives.note_request(11, cancel);
  EXPECT_TRUE(finds("session b asks as 1 for what nobody wants")) << check.violation();
}

// --- What clients are told.

TEST_F(PrimitivesCheckTest, AnOperationThatEndsTwiceIsFound) {
  ask(10, 1, {});
  end(10, 1, Outcome::kRejected);
  EXPECT_EQ(check.violation(), "");
  end(10, 1, Outcome::kUnknown);
  EXPECT_TRUE(finds("operation 1 of session a ended and was not under way")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AGrantWithoutAllNamesIsFound) {
  ask(10, 1, {.names = {"a", "b"}});
  end(10, 1, Outcome::kDone, {{.name = "a", .token = 5}});
  EXPECT_TRUE(finds("operation 1 of session a is done with 1 of 2 names")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AGrantAfterTheEndWasToldIsFound) {
  claim(10, 1, 5);
  primitives.note_told(10, client::StateChanged{.state = client::SessionState::kExpired}, at(0));
  end(10, 1, Outcome::kDone, {{.name = "a", .token = 5}});
  EXPECT_TRUE(finds("session a was granted a after it was told that it ended")) << check.violation();
}

TEST_F(PrimitivesCheckTest, ALossOfWhatWasNotHeldIsFound) {
  claim(10, 1, 5);
  grant(10, 1, 5);
  primitives.note_told(10, client::ClaimLost{.name = "a", .token = 5}, at(0));
  EXPECT_EQ(check.violation(), "");
  primitives.note_told(10, client::ClaimLost{.name = "a", .token = 5}, at(0));
  EXPECT_TRUE(finds("session a lost a with token 5, which it did not hold")) << check.violation();
}

// --- What they believe.

TEST_F(PrimitivesCheckTest, TwoThatBelieveAtOnceAreFound) {
  claim(10, 1, 5);
  claim(11, 1, 6);
  grant(10, 1, 5);
  grant(11, 1, 6);
  EXPECT_TRUE(finds("a is held by session a with token 5 and by session b with token 6 at once")) << check.violation();
}

TEST_F(PrimitivesCheckTest, WhoIsNotSafeDoesNotBelieve) {
  claim(10, 1, 5);
  claim(11, 1, 6);
  grant(10, 1, 5);
  ten.safe = false;
  grant(11, 1, 6);
  EXPECT_EQ(check.violation(), "");
  ten.safe = true;
  primitives.note_believes(10, at(0));
  EXPECT_TRUE(finds("at once")) << check.violation();
}

TEST_F(PrimitivesCheckTest, WhoseClaimWasDeletedByHandMayBelieveForAWhile) {
  claim(10, 1, 5);
  claim(11, 1, 6);
  grant(10, 1, 5);
  command({.kind = CommandKind::kDeleteRange});
  remove(7, key(10));
  grant(11, 1, 6);
  EXPECT_EQ(check.violation(), "");
}

TEST_F(PrimitivesCheckTest, ATokenThatDoesNotGrowIsFound) {
  claim(10, 1, 5);
  claim(11, 1, 6);
  grant(11, 1, 6);
  let_go(11, 2, 6);
  grant(10, 1, 5);
  EXPECT_TRUE(finds("a was given to session a with token 5 after session b had 6")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AClientOfTheRecipeBesidesASessionIsFound) {
  put(4, key(3));
  recipes.on_event(4, {.key = key(3), .lease = LeaseId(3), .is_put = true});
  recipes.note_held("a", LeaseId(3), 4, 4, at(0), {.sent = at(0), .ttl = milliseconds(1000)});
  claim(10, 1, 5);
  grant(10, 1, 5);
  EXPECT_TRUE(finds("a is held under lease 3 and by session a with token 5 at once")) << check.violation();
}

TEST_F(PrimitivesCheckTest, ASessionBesidesAClientOfTheRecipeIsFound) {
  claim(10, 1, 5);
  grant(10, 1, 5);
  put(6, key(3));
  recipes.on_event(6, {.key = key(3), .lease = LeaseId(3), .is_put = true});
  recipes.note_held("a", LeaseId(3), 6, 6, at(0), {.sent = at(0), .ttl = milliseconds(1000)});
  EXPECT_TRUE(finds("a is held by session a with token 5 and under lease 3 at once")) << check.violation();
}

TEST_F(PrimitivesCheckTest, WhoCountsOnWhatWasGoneWhenItWasShownAllIsFound) {
  claim(10, 1, 5);
  grant(10, 1, 5);
  command({.kind = CommandKind::kDeleteRange});
  remove(7, key(10));
  primitives.note_believes(10, at(0));
  EXPECT_EQ(check.violation(), "") << "it is not shown yet";
  primitives.note_response(10, attached(7));
  primitives.note_believes(10, at(0));
  EXPECT_TRUE(finds("session a was attached at revision 7, and counts on a with token 5, which was gone"))
      << check.violation();
}

// --- Operators.

TEST_F(PrimitivesCheckTest, WhoIsKilledMayBelieveForAWhileAndHoldsNothingBack) {
  claim(10, 1, 5, {.lock_delay = milliseconds(1000)});
  grant(10, 1, 5);
  primitives.note_believes(10, at(0));
  claim(11, 1, 6);
  kill(10);
  remove(7, key(10));
  primitives.on_lease_ended(LeaseId(10), true);
  grant(11, 1, 6);
  primitives.note_believes(10, at(0));
  primitives.note_killed(10);
  EXPECT_EQ(check.violation(), "");
}

TEST_F(PrimitivesCheckTest, AnEndByTimeBesidesAKillIsFound) {
  kill(11);
  primitives.on_lease_ended(LeaseId(11), true);
  EXPECT_EQ(check.violation(), "");
  command(by_leader(CommandKind::kLeaseExpire));
  primitives.on_lease_ended(LeaseId(10), true);
  EXPECT_TRUE(finds("session a ended by its time while its client counts on it")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AKilledSessionThatLeavesSomethingBehindIsFound) {
  claim(10, 1, 5, {.lock_delay = milliseconds(1000)});
  kill(10);
  put(6, key(10), "", 99);
  primitives.on_lease_ended(LeaseId(10), true);
  EXPECT_TRUE(finds("session a ended and left a/a behind")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AKillThatIsToldAsDoneAndWasNotIsFound) {
  v1::SessionResponse response;
  response.mutable_opened();
  primitives.note_response(10, response);
  primitives.note_killed(10);
  EXPECT_TRUE(finds("whoever killed session a was told that it is done, and it stands")) << check.violation();
}

TEST_F(PrimitivesCheckTest, WhatIsGrantedAfterAnEndIsFound) {
  v1::SessionResponse response;
  response.mutable_opened();
  primitives.note_response(10, response);
  kill(10);
  put(6, "x");
  primitives.on_lease_ended(LeaseId(10), true);
  primitives.note_response(10, attached(6));
  EXPECT_EQ(check.violation(), "") << "its server may not have heard of the end";
  EXPECT_EQ(primitives.who_is_not_told(), "session a has ended, and its client does not know");
  primitives.note_response(10, attached(7));
  EXPECT_TRUE(finds("session a had ended at revision 6, and was told at 7")) << check.violation();
  primitives.note_told(10, client::StateChanged{.state = client::SessionState::kExpired}, at(0));
  EXPECT_EQ(primitives.who_is_not_told(), "");
}

TEST_F(PrimitivesCheckTest, WhatIsForcedMayBeTakenFromItsOwner) {
  claim(10, 1, 5);
  grant(10, 1, 5);
  claim(11, 1, 6);
  primitives.operators().note_force("a", 5, "now");
  command({.kind = CommandKind::kInternal});
  remove(7, key(10));
  grant(11, 1, 6);
  primitives.note_believes(10, at(0));
  primitives.note_forced(key(10), 5);
  EXPECT_EQ(check.violation(), "");
  primitives.note_forced(key(11), 6);
  EXPECT_TRUE(finds("whoever forced a/b with token 6 was told that it is done, and it stands")) << check.violation();
}

// --- Records.

TEST_F(PrimitivesCheckTest, ACandidacyWithAnotherPriorityIsFound) {
  ask(10, 1, {.kind = Wish::Kind::kCampaign, .value = "=1", .priority = 2});
  const auto put_record = [&](int32_t priority) {
    const std::string value = layers::encode(layers::CandidateRecord{.priority = priority, .value = "=1"});
    primitives.on_command(
        {.records = {{.key = layers::candidate_record_key("a", SessionId(10)), .value = value, .is_put = true}}});
  };
  put_record(2);
  EXPECT_EQ(check.violation(), "");
  put_record(1);
  EXPECT_TRUE(finds("operation 1 of session a is a candidacy with priority 1, and did not ask for that"))
      << check.violation();
}

TEST_F(PrimitivesCheckTest, ARecordThatIsLeftIsFound) {
  const std::string record = layers::claim_record_key(key(10));
  primitives.on_command({.records = {{.key = record, .is_put = true}}});
  EXPECT_EQ(primitives.what_is_open(), "record claim/a/a is left");
  primitives.on_command({.records = {{.key = record}}});
  EXPECT_EQ(primitives.what_is_open(), "session a stands");
}

// --- Ends.

TEST_F(PrimitivesCheckTest, ASessionThatStandsAgainAfterItsEndIsFound) {
  v1::SessionResponse response;
  response.mutable_opened();
  expire(11, 5);
  command({.kind = CommandKind::kSessionOpen}, {LeaseId(11)});
  EXPECT_EQ(check.violation(), "");
  primitives.note_response(10, response);
  expire(10, 6);
  command({.kind = CommandKind::kSessionOpen}, {LeaseId(10)});
  EXPECT_TRUE(finds("session a had ended and was opened again")) << check.violation();
}

TEST_F(PrimitivesCheckTest, ASessionThatIsAskedForUnderAnotherNumberIsTheSame) {
  Belief twelve;
  primitives.note_session(12, twelve);
  ask(12, 1, {.kind = Wish::Kind::kProclaim, .value = "=1"});
  primitives.note_observing(12, "e");
  primitives.note_renamed(12, 13);
  command({.kind = CommandKind::kSessionOpen}, {LeaseId(12)});
  command({.kind = CommandKind::kSessionOpen}, {LeaseId(13)});
  ask(13, 2, {});
  command(by(13, 2));
  put(5, key(13));
  put(6, key(13), "=1");
  end(13, 1, Outcome::kDone);
  primitives.note_told(13, client::LeaderSeen{.name = "e"}, at(0));
  EXPECT_EQ(check.violation(), "");
  primitives.note_renamed(13, 14);
  EXPECT_TRUE(finds("session d was opened, and is asked for as e")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AnEndBeforeItsClientsBoundIsFound) {
  command(by_leader(CommandKind::kLeaseExpire));
  primitives.on_lease_ended(LeaseId(10), true);
  EXPECT_TRUE(finds("session a ended by its time while its client counts on it")) << check.violation();
}

TEST_F(PrimitivesCheckTest, ARenewalAfterTheEndIsFound) {
  expire(10, 5);
  EXPECT_EQ(check.violation(), "");
  ten.safe = true;
  primitives.note_believes(10, at(0));
  EXPECT_TRUE(finds("session a ended by its time, and its client counts on it")) << check.violation();
}

TEST_F(PrimitivesCheckTest, AnEndByHandMayComeAtAnyTime) {
  claim(10, 1, 5);
  grant(10, 1, 5);
  command({.kind = CommandKind::kLeaseRevoke});
  remove(6, key(10));
  primitives.on_lease_ended(LeaseId(10), false);
  primitives.note_believes(10, at(0));
  EXPECT_EQ(check.violation(), "");
}

TEST_F(PrimitivesCheckTest, AClaimThatOutlivesItsSessionIsFound) {
  claim(10, 1, 5);
  ten.safe = false;
  command(by_leader(CommandKind::kLeaseExpire));
  primitives.on_lease_ended(LeaseId(10), true);
  EXPECT_TRUE(finds("session a ended and left a/a behind")) << check.violation();
}

TEST_F(PrimitivesCheckTest, ALockIsHeldBackForItsDelay) {
  claim(10, 1, 5, {.lock_delay = milliseconds(1000)});
  ten.safe = false;
  command(by_leader(CommandKind::kInternal), {LeaseId(77)}, 100);
  put(6, key(10), "", 77);
  primitives.on_lease_ended(LeaseId(10), true);
  EXPECT_EQ(check.violation(), "");
  EXPECT_EQ(primitives.held_back(), 1U);
  command(by_leader(CommandKind::kLeaseExpire), {}, 1'100);
  remove(7, key(10));
  EXPECT_EQ(check.violation(), "");
}

TEST_F(PrimitivesCheckTest, ADelayThatIsTooShortIsFound) {
  claim(10, 1, 5, {.lock_delay = milliseconds(1000)});
  ten.safe = false;
  command(by_leader(CommandKind::kInternal), {LeaseId(77)}, 100);
  put(6, key(10), "", 77);
  primitives.on_lease_ended(LeaseId(10), true);
  command(by_leader(CommandKind::kLeaseExpire), {}, 1'099);
  remove(7, key(10));
  EXPECT_TRUE(finds("a is held back, and was free 1000 us too early")) << check.violation();
}

TEST_F(PrimitivesCheckTest, ALockThatIsNotHeldBackIsFound) {
  claim(10, 1, 5, {.lock_delay = milliseconds(1000)});
  grant(10, 1, 5);
  expire(10, 6);
  EXPECT_TRUE(finds("session a ended by its time and owned a, which was not held back")) << check.violation();
}

TEST_F(PrimitivesCheckTest, WhoNeverCountedOnTheLockHasNoDelay) {
  claim(10, 1, 5, {.lock_delay = milliseconds(1000)});
  ten.safe = false;
  grant(10, 1, 5);
  expire(10, 6);
  EXPECT_EQ(check.violation(), "");
}

TEST_F(PrimitivesCheckTest, WhatIsTakenBackMayBeHeldBackAllTheSame) {
  claim(10, 1, 5, {.lock_delay = milliseconds(1000)});
  ten.safe = false;
  command(by_leader(CommandKind::kInternal), {LeaseId(77)}, 100);
  put(6, key(10), "", 77);
  primitives.on_lease_ended(LeaseId(10), true);
  end(10, 1, Outcome::kNotApplied);
  EXPECT_EQ(check.violation(), "");
}

TEST_F(PrimitivesCheckTest, WhoOnlyWaitedHasNoDelay) {
  claim(11, 1, 4);
  claim(10, 1, 5, {.lock_delay = milliseconds(1000)});
  expire(10, 6);
  EXPECT_EQ(check.violation(), "");
}

TEST_F(PrimitivesCheckTest, WhatIsOpenAtTheEndIsTold) {
  expire(10, 5);
  expire(11, 6);
  EXPECT_EQ(primitives.what_is_open(), "");
  ask(10, 1, {});
  EXPECT_EQ(primitives.what_is_open(), "operation 1 of session a has not ended");
  end(10, 1, Outcome::kLost);
  EXPECT_EQ(primitives.what_is_open(), "");
  ask(11, 1, {});
  primitives.note_forgotten(11);
  EXPECT_EQ(primitives.what_is_open(), "");
}

}  // namespace
}  // namespace conclave::sim
