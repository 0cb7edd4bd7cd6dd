// What a server does with a log that has holes, and from whom it takes what it lacks: the cases of log.h and
// recovery.cc.
#include <gtest/gtest.h>

#include "raft/describe.h"
#include "raft/testing/cluster.h"

namespace conclave::raft {
namespace {

Entry entry(uint64_t index, uint64_t term, std::string_view text = "e") {
  return {
      .index = LogIndex(index), .term = Term(term), .type = EntryType::kCommand, .payload = SharedBytes::copy_of(text)};
}
Entry hole(uint64_t index, uint64_t term = 0) {
  return {.index = LogIndex(index), .term = Term(term), .type = EntryType::kHole};
}
Position place(uint64_t term, uint64_t index) {
  return {.term = Term(term), .index = LogIndex(index)};
}

// Server 2 of three, restarted with a log of the test's making; the others say what the test says.
class RecoveryTest : public testing::Test {
 protected:
  void start(std::vector<Entry> entries, uint64_t term) {
    cluster.crash(2);
    Recovered recovered{.group = GroupId(7), .certainty = Certainty::kCertain};
    recovered.vote = {.term = Term(term), .incarnation = Incarnation(1)};
    recovered.snapshot = cluster.server(2).durable.snapshot;
    recovered.last = {.term = entries.back().term, .index = entries.back().index};
    recovered.entries = std::move(entries);
    cluster.restart_with(2, std::move(recovered));
    cluster.deliver_all();  // the others answer its hello
    cluster.isolate(2);
    cluster.drop([](const Message&) { return true; });
  }
  const Output& say(uint64_t from, uint64_t term, const Body& body) {
    const OwnedMessage message = OwnedMessage::copy_of({.header = {.group = GroupId(7),
                                                                   .from = NodeId(from),
                                                                   .to = NodeId(2),
                                                                   .term = Term(term),
                                                                   .boot = cluster.server(from).boot,
                                                                   .to_boot = cluster.server(2).boot,
                                                                   .incarnation = Incarnation(1),
                                                                   .proven = true},
                                                        .body = body});
    return cluster.step(2, Receive{.message = message.message()});
  }
  template <class T>
  static const T* sent(const Output& output) {
    for (const Outgoing& outgoing : output.messages) {
      if (const T* body = std::get_if<T>(&outgoing.message.body)) return body;
    }
    return nullptr;
  }
  void TearDown() override {
    for (const std::string& violation : cluster.violations()) ADD_FAILURE() << violation;
  }
  const Log& log() { return cluster.raft(2).log(); }

  Cluster cluster{3};
};

TEST_F(RecoveryTest, TermsOfHolesBetweenEqualTermsAreKnown) {
  start({entry(1, 1), hole(2), hole(3), entry(4, 1), hole(5), entry(6, 3)}, 3);
  EXPECT_EQ(log().term_at(LogIndex(2)), Term(1));
  EXPECT_EQ(log().term_at(LogIndex(3)), Term(1));
  EXPECT_EQ(log().term_at(LogIndex(5)), Term(0)) << "1, 2 or 3";
  EXPECT_EQ(log().contiguous_last(), LogIndex(1));
  EXPECT_EQ(log().last(), place(3, 6));
}

// The case told in log.h, step by step.
TEST_F(RecoveryTest, TheSuffixBehindAFilledHoleIsNotTrustedUntilProven) {
  start({entry(1, 1), hole(2), entry(3, 2)}, 2);
  const std::vector<Entry> fill{entry(2, 1, "of another log")};
  say(1, 3, AppendRequest{.prev = place(1, 1), .round = ReadId(1), .entries = EntrySlices(fill)});
  EXPECT_EQ(log().entry(LogIndex(2)).payload.view(), "of another log");
  EXPECT_EQ(log().last(), place(2, 3)) << "acknowledged once: it still votes by it";
  EXPECT_EQ(log().contiguous_last(), LogIndex(2));
  const AppendReply* probe = sent<AppendReply>(say(3, 4, AppendRequest{.prev = place(2, 3), .round = ReadId(1)}));
  ASSERT_NE(probe, nullptr);
  EXPECT_FALSE(probe->ok);
  EXPECT_EQ(probe->hint, place(1, 2));
}

TEST_F(RecoveryTest, ALeadersEntryBehindTheHoleProvesTheSuffix) {
  start({entry(1, 1), hole(2), entry(3, 2), entry(4, 2)}, 2);
  const std::vector<Entry> entries{entry(2, 2), entry(3, 2)};
  const AppendReply* reply = sent<AppendReply>(
      say(1, 3, AppendRequest{.prev = place(1, 1), .round = ReadId(1), .entries = EntrySlices(entries)}));
  ASSERT_NE(reply, nullptr);
  EXPECT_TRUE(reply->ok);
  EXPECT_FALSE(log().has_gap());
  EXPECT_EQ(log().last(), place(2, 4));
}

TEST_F(RecoveryTest, ALeadersEntryBehindTheHoleRefutesTheSuffix) {
  start({entry(1, 1), hole(2), entry(3, 2), entry(4, 2)}, 2);
  const std::vector<Entry> entries{entry(2, 1), entry(3, 3)};
  say(1, 3, AppendRequest{.prev = place(1, 1), .round = ReadId(1), .entries = EntrySlices(entries)});
  EXPECT_FALSE(log().has_gap());
  EXPECT_EQ(log().last(), place(3, 3));
}

TEST_F(RecoveryTest, AHoleOfAKnownOtherTermIsAConflict) {
  start({entry(1, 1), hole(2, 2), entry(3, 2)}, 2);
  const std::vector<Entry> entries{entry(2, 3)};
  say(1, 3, AppendRequest{.prev = place(1, 1), .round = ReadId(1), .entries = EntrySlices(entries)});
  EXPECT_EQ(log().last(), place(3, 2));
  EXPECT_FALSE(log().has_gap());
}

TEST_F(RecoveryTest, NothingAtOrBehindAHoleIsAcknowledged) {
  start({entry(1, 1), hole(2), entry(3, 1)}, 1);
  const AppendReply* reply = sent<AppendReply>(say(1, 1, AppendRequest{.prev = place(1, 3), .round = ReadId(1)}));
  ASSERT_NE(reply, nullptr);
  EXPECT_FALSE(reply->ok);
  EXPECT_EQ(reply->hint, place(1, 1));
}

TEST_F(RecoveryTest, OnlyALogThatHasTheProofServesARepair) {
  start({entry(1, 1), entry(2, 1), entry(3, 2)}, 2);
  const PullReply* proven = sent<PullReply>(say(1, 2, PullRequest{.id = 5, .prev = place(1, 1), .proof = place(2, 3)}));
  ASSERT_NE(proven, nullptr);
  EXPECT_TRUE(proven->ok);
  EXPECT_EQ(proven->entries.size(), 2U);
  const PullReply* unproven =
      sent<PullReply>(say(1, 2, PullRequest{.id = 6, .prev = place(1, 1), .proof = place(1, 3)}));
  ASSERT_NE(unproven, nullptr);
  EXPECT_FALSE(unproven->ok);
  EXPECT_TRUE(unproven->entries.empty());
}

TEST_F(RecoveryTest, CatchesUpOnlyFromALogThatEndsLater) {
  start({entry(1, 1), entry(2, 3)}, 3);
  while (cluster.raft(2).status().role != Role::kPreCandidate) cluster.fire_deadline(2);
  cluster.drop([](const Message&) { return true; });
  const Term campaign = cluster.raft(2).status().term.next();
  // Longer, but of an earlier last term: it refuses for whatever reason, and is nobody's source.
  for (const VoteRefusal refusal : {VoteRefusal::kLogBehind, VoteRefusal::kLeaderAlive, VoteRefusal::kMayNotVote}) {
    for (uint64_t from : {1, 3}) {
      const Output& output =
          say(from, 3, VoteReply{.pre = true, .campaign_term = campaign, .refusal = refusal, .last = place(2, 9)});
      EXPECT_EQ(sent<PullRequest>(output), nullptr) << to_string(refusal);
    }
  }
  // Of a later one: asked, from the place where the logs may agree.
  for (uint64_t from : {1, 3}) {
    say(from, 3,
        VoteReply{.pre = true, .campaign_term = campaign, .refusal = VoteRefusal::kLogBehind, .last = place(3, 5)});
  }
  cluster.drop([](const Message& m) { return !std::holds_alternative<PullRequest>(m.body); });
  EXPECT_EQ(cluster.raft(2).status().role, Role::kFollower) << "catching up";
}

}  // namespace
}  // namespace conclave::raft
