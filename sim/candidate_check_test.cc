// The checker of elections finds whoever is elected although a better one waits, and says nothing where the promise
// ends.
#include "sim/candidate_check.h"

#include <gtest/gtest.h>

#include "layers/claim_record.h"
#include "layers/command_builder.h"
#include "layers/recipe.h"
#include "sim/claim_history.h"

namespace conclave::sim {
namespace {

class CandidateCheckTest : public testing::Test {
 protected:
  static std::string record_of(int64_t session) {
    return layers::candidate_record_key("e", SessionId(static_cast<uint64_t>(session)));
  }
  void campaign(int64_t session, int32_t priority, int64_t revision) {
    candidates.on_command({.changed = true,
                           .records = {{.key = record_of(session),
                                        .value = layers::encode(layers::CandidateRecord{.priority = priority}),
                                        .is_put = true}}},
                          revision, false);
  }
  // What a command erases, and from which look it elects; zero: from none.
  void elect(int64_t session, int64_t looked_at, bool is_transfer = false) {
    const std::string prefix = layers::claim_prefix("e");
    layers::CommandBuilder command;
    if (looked_at != 0) {
      command.if_none_created_after(prefix, layers::claim_prefix_end(prefix), Revision(looked_at));
    }
    command.put(ClaimHistory::key_of("e", session), "", LeaseId(session));
    erase(session, command.build(), is_transfer);
  }
  void erase(int64_t session, std::string body, bool is_transfer = false) {
    candidates.on_command({.header = {.kind = keyspace::CommandKind::kInternal},
                           .changed = true,
                           .body = std::move(body),
                           .records = {{.key = record_of(session)}}},
                          20, is_transfer);
  }
  [[nodiscard]] bool finds(const std::string& what) const { return check.violation().find(what) != std::string::npos; }

  NodeCheck check{NodeCheck::Options{}};
  CandidateCheck candidates{check};
};

TEST_F(CandidateCheckTest, TheBestAndThenTheOldestIsElected) {
  campaign(10, 1, 5);
  campaign(11, 1, 6);
  campaign(12, 2, 7);
  elect(12, 9);
  elect(10, 11);
  elect(11, 12);
  EXPECT_EQ(check.violation(), "");
  EXPECT_EQ(candidates.elections(), 3U);
  EXPECT_EQ(candidates.passed_over(), 3U);
}

TEST_F(CandidateCheckTest, ALowerPriorityBeforeAHigherOneIsFound) {
  campaign(10, 1, 5);
  campaign(11, 2, 6);
  elect(10, 7);
  EXPECT_TRUE(finds("session a with priority 1 was elected for e, and session b with 2 was a candidate too"))
      << check.violation();
}

TEST_F(CandidateCheckTest, AYoungerOneBeforeAnOlderOneIsFound) {
  campaign(10, 1, 5);
  campaign(11, 1, 5);
  elect(11, 6);
  EXPECT_TRUE(finds("session b with priority 1 was elected for e, and session a with 1 was a candidate before it"))
      << check.violation();
}

TEST_F(CandidateCheckTest, WhoIsNoCandidateIsFound) {
  elect(10, 7);
  EXPECT_TRUE(finds("session a was elected for e, and was no candidate")) << check.violation();
}

TEST_F(CandidateCheckTest, WhoCameSinceTheLookMayBePassedOver) {
  campaign(10, 1, 5);
  campaign(11, 2, 7);
  elect(10, 7);
  EXPECT_EQ(check.violation(), "");
}

TEST_F(CandidateCheckTest, WhoIsNoCandidateAnyMoreMayBePassedOver) {
  campaign(10, 1, 5);
  campaign(11, 2, 6);
  erase(11, layers::CommandBuilder().build());
  elect(10, 9);
  EXPECT_EQ(check.violation(), "");
}

TEST_F(CandidateCheckTest, WhoIsBoundOrNamedMayBeAnyone) {
  campaign(10, 1, 5);
  campaign(11, 1, 5);
  campaign(12, 2, 6);
  elect(10, 0);
  elect(11, 9, true);
  EXPECT_EQ(check.violation(), "");
  EXPECT_EQ(candidates.elections(), 0U);
}

TEST_F(CandidateCheckTest, WhoWasBoundComesBackAsWhatItWas) {
  const auto comes_back = [&](int64_t session, int32_t priority) {
    candidates.on_command(
        {.changed = true,
         .records = {{.key = record_of(session),
                      .value = layers::encode(layers::CandidateRecord{.priority = priority, .since = LogIndex(3)}),
                      .is_put = true}}},
        8, false);
  };
  campaign(10, 1, 5);
  campaign(11, 1, 6);
  elect(10, 0);
  comes_back(10, 1);
  elect(10, 9);
  EXPECT_EQ(check.violation(), "") << "the older of the two";
  EXPECT_EQ(candidates.returned(), 1U);
  EXPECT_EQ(candidates.passed_over(), 1U);
  comes_back(10, 2);
  EXPECT_TRUE(finds("candidate a of e comes back from the line with priority 2, and had 1")) << check.violation();
}

TEST_F(CandidateCheckTest, ARecordThatCannotBeReadIsFound) {
  candidates.on_command({.changed = true, .records = {{.key = record_of(10), .value = "?", .is_put = true}}}, 5, false);
  EXPECT_TRUE(finds("the record of candidate a of e cannot be read")) << check.violation();
}

}  // namespace
}  // namespace conclave::sim
