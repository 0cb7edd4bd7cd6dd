// The checker of operators finds what nobody asked for, and whoever is told something else than what was done.
#include "sim/operator_check.h"

#include <gtest/gtest.h>

#include "keyspace/internal_command.h"
#include "layers/claim_record.h"
#include "sim/claim_history.h"

namespace conclave::sim {
namespace {

class OperatorCheckTest : public testing::Test {
 protected:
  void end_sessions(const std::vector<LeaseId>& leases, Term term = Term()) {
    std::string body;
    keyspace::encode_expire(leases, body);
    operators.on_command({.header = {.kind = keyspace::CommandKind::kLeaseExpire, .term = term}, .body = body});
  }
  void record(int64_t token, bool forced, const std::string& note) {
    operators.on_command(
        {.records = {{.key = layers::request_record_key(ClaimHistory::key_of("a", 10)),
                      .value = layers::encode(layers::RequestRecord{.token = token, .forced = forced, .note = note}),
                      .is_put = true}}});
  }
  void lose(int64_t token, v1::Lost::Reason reason, const std::string& note = "") {
    operators.check_lost(10, {.name = "a", .token = token, .reason = reason, .note = note});
  }
  [[nodiscard]] bool finds(const std::string& what) const { return check.violation().find(what) != std::string::npos; }

  NodeCheck check{NodeCheck::Options{}};
  OperatorCheck operators{check};
};

TEST_F(OperatorCheckTest, WhatWasAskedForMayHappen) {
  operators.note_kill(10);
  end_sessions({LeaseId(10)});
  EXPECT_TRUE(operators.is_kill());
  operators.note_request("a", "please");
  record(5, false, "please");
  operators.check_wanted(10, {.name = "a", .token = 5, .note = "please"});
  operators.note_force("a", 5, "now");
  EXPECT_TRUE(operators.is_force_asked("a", 5));
  EXPECT_FALSE(operators.is_force_asked("a", 6));
  record(5, false, "now");
  record(5, true, "now");
  lose(5, v1::Lost::FORCED, "now");
  lose(6, v1::Lost::DELETED);
  EXPECT_EQ(check.violation(), "");
  EXPECT_EQ(operators.killed(), 1U);
  EXPECT_EQ(operators.forced(), 1U);
  EXPECT_EQ(operators.told_forced(), 1U);
}

TEST_F(OperatorCheckTest, AnEndThatItsLeaderDecidedIsNoKill) {
  end_sessions({LeaseId(10)}, Term(3));
  EXPECT_FALSE(operators.is_kill());
  EXPECT_EQ(check.violation(), "");
}

TEST_F(OperatorCheckTest, AKillThatNobodyAskedForIsFound) {
  operators.note_kill(10);
  end_sessions({LeaseId(10), LeaseId(11)});
  EXPECT_TRUE(finds("11 was killed, and nobody asked for that")) << check.violation();
}

TEST_F(OperatorCheckTest, AForcedReleaseOfAnotherTokenIsFound) {
  operators.note_force("a", 5, "now");
  record(6, true, "now");
  EXPECT_TRUE(finds("a/a with token 6 was forced as 'now', and nobody asked for that")) << check.violation();
}

TEST_F(OperatorCheckTest, AForcedReleaseWhereARequestWasAskedForIsFound) {
  operators.note_request("a", "please");
  record(5, true, "please");
  EXPECT_TRUE(finds("a/a with token 5 was forced as 'please', and nobody asked for that")) << check.violation();
}

TEST_F(OperatorCheckTest, ARequestThatNobodyAskedForIsFound) {
  record(5, false, "please");
  EXPECT_TRUE(finds("a/a with token 5 was requested as 'please', and nobody asked for that")) << check.violation();
}

TEST_F(OperatorCheckTest, ARequestThatIsToldWithoutARecordIsFound) {
  operators.note_request("a", "please");
  operators.check_wanted(10, {.name = "a", .token = 5, .note = "please"});
  EXPECT_TRUE(finds("session a was asked to release a with token 5")) << check.violation();
}

TEST_F(OperatorCheckTest, WhoWasForcedAndIsNotToldIsFound) {
  operators.note_force("a", 5, "now");
  record(5, true, "now");
  lose(5, v1::Lost::DELETED);
  EXPECT_TRUE(finds("lost a with token 5 as DELETED '', and it was forced as 'now'")) << check.violation();
}

TEST_F(OperatorCheckTest, WhoWasForcedAndIsToldAnotherReasonIsFound) {
  operators.note_force("a", 5, "now");
  record(5, true, "now");
  lose(5, v1::Lost::FORCED, "soon");
  EXPECT_TRUE(finds("lost a with token 5 as FORCED 'soon', and it was forced as 'now'")) << check.violation();
}

TEST_F(OperatorCheckTest, WhoWasNotForcedAndIsToldSoIsFound) {
  lose(5, v1::Lost::FORCED, "now");
  EXPECT_TRUE(finds("lost a with token 5 as FORCED 'now', and it was not forced")) << check.violation();
}

}  // namespace
}  // namespace conclave::sim
