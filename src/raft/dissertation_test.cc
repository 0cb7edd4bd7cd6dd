// One test per rule of Ongaro, "Consensus: Bridging Theory and Practice" (2014), in its order, cited by section.
#include <gtest/gtest.h>

#include "raft/describe.h"
#include "raft/testing/cluster.h"

namespace conclave::raft {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

bool is_append(const Message& message) {
  return std::holds_alternative<AppendRequest>(message.body);
}
bool is_append_reply(const Message& message) {
  return std::holds_alternative<AppendReply>(message.body);
}
bool is_vote(const Message& message) {
  const auto* request = std::get_if<VoteRequest>(&message.body);
  return request != nullptr && !request->pre;
}

class DissertationTest : public testing::Test {
 protected:
  // Three servers, 1 leads, all settled.
  void SetUp() override { cluster.elect(1); }
  void TearDown() override {
    for (const std::string& violation : cluster.violations()) ADD_FAILURE() << violation;
  }
  Term term(uint64_t id) { return cluster.raft(id).status().term; }
  LogIndex commit(uint64_t id) { return cluster.raft(id).status().commit; }
  Position last(uint64_t id) { return cluster.raft(id).status().last; }
  Role role(uint64_t id) { return cluster.raft(id).status().role; }

  // A message from `from` to `to` as it would come from a well-behaved server in this term.
  OwnedMessage message(uint64_t from, uint64_t to, uint64_t message_term, const Body& body) {
    return OwnedMessage::copy_of({.header = {.group = GroupId(7),
                                             .from = NodeId(from),
                                             .to = NodeId(to),
                                             .term = Term(message_term),
                                             .boot = cluster.server(from).boot,
                                             .to_boot = cluster.server(to).boot,
                                             .incarnation = Incarnation(1),
                                             .proven = true},
                                  .body = body});
  }
  // What server `to` answers at once to this message; the first message of the output.
  Message answer(uint64_t from, uint64_t to, uint64_t message_term, const Body& body) {
    const OwnedMessage sent = message(from, to, message_term, body);
    const Output& output = cluster.step(to, Receive{.message = sent.message()});
    EXPECT_FALSE(output.messages.empty());
    return output.messages.empty() ? Message() : output.messages.front().message;
  }

  Cluster cluster{3};
};

// ---- Chapter 3: basic Raft ----

TEST_F(DissertationTest, S33_ServerAdoptsALaterTermAndStepsDown) {
  const OwnedMessage later = message(2, 1, 9, AppendReply{.ok = false});
  cluster.step(1, Receive{.message = later.message()});
  EXPECT_EQ(term(1), Term(9));
  EXPECT_EQ(role(1), Role::kFollower);
}

TEST_F(DissertationTest, S33_ARequestOfAnEarlierTermIsRejectedWithTheCurrentOne) {
  cluster.crash(1);
  cluster.settle();
  const uint64_t follower = cluster.leader() == 2 ? 3 : 2;
  cluster.restart(1);
  const OwnedMessage stale = message(1, follower, 1, AppendRequest{});
  const Output& output = cluster.step(follower, Receive{.message = stale.message()});
  ASSERT_EQ(output.messages.size(), 1U);
  EXPECT_GT(output.messages[0].message.header.term, Term(1));
  EXPECT_FALSE(std::get<AppendReply>(output.messages[0].message.body).ok);
}

TEST_F(DissertationTest, S34_AtMostOneVotePerTermAlsoAcrossARestart) {
  cluster.crash(1);
  cluster.advance(milliseconds(1));
  cluster.step(2, LinkBroken{.peer = NodeId(1)});
  cluster.server(1).boot = Boot(1);
  const Position position = last(2);
  cluster.isolate(2);
  const OwnedMessage first = message(3, 2, 7, VoteRequest{.campaign_term = Term(7), .last = position});
  cluster.step(2, Receive{.message = first.message()});
  EXPECT_EQ(cluster.raft(2).vote().candidate, NodeId(3));
  cluster.deliver_all();  // durable
  cluster.crash(2);
  cluster.restart(2);
  EXPECT_EQ(cluster.raft(2).vote().candidate, NodeId(3));
  EXPECT_EQ(cluster.raft(2).vote().term, Term(7));
  const OwnedMessage second = message(1, 2, 7, VoteRequest{.campaign_term = Term(7), .last = position});
  cluster.step(2, Receive{.message = second.message()});
  EXPECT_EQ(cluster.raft(2).vote().candidate, NodeId(3));
}

TEST_F(DissertationTest, S34_AGrantedVoteLeavesOnlyWhenItIsDurable) {
  cluster.crash(1);
  cluster.step(2, LinkBroken{.peer = NodeId(1)});
  cluster.stop_disk(2);
  const OwnedMessage request = message(3, 2, 5, VoteRequest{.campaign_term = Term(5), .last = last(2)});
  const Output& output = cluster.step(2, Receive{.message = request.message()});
  ASSERT_EQ(output.messages.size(), 1U);
  EXPECT_TRUE(std::get<VoteReply>(output.messages[0].message.body).granted);
  ASSERT_TRUE(output.write.has_value());
  EXPECT_EQ(output.messages[0].after, output.write->sequence);
}

TEST_F(DissertationTest, S34_ACandidateDoesNotLeadBeforeItsOwnVoteIsDurable) {
  cluster.crash(1);
  for (uint64_t id : {2, 3}) cluster.step(id, LinkBroken{.peer = NodeId(1)});
  cluster.stop_disk(2);
  cluster.fire_deadline(2);
  cluster.deliver_all();
  EXPECT_NE(role(2), Role::kLeader);
  cluster.start_disk(2);
  cluster.deliver_all();
  EXPECT_EQ(role(2), Role::kLeader);
}

TEST_F(DissertationTest, S34_ACandidateThatHearsALeaderOfItsTermFollowsIt) {
  cluster.crash(1);
  cluster.step(2, LinkBroken{.peer = NodeId(1)});
  cluster.isolate(2);
  cluster.fire_deadline(2);
  ASSERT_EQ(role(2), Role::kPreCandidate);
  const OwnedMessage heartbeat = message(3, 2, 4, AppendRequest{.prev = last(2)});
  cluster.step(2, Receive{.message = heartbeat.message()});
  EXPECT_EQ(role(2), Role::kFollower);
  EXPECT_EQ(cluster.raft(2).status().leader, NodeId(3));
}

TEST_F(DissertationTest, S34_ElectionTimeoutsAreRandomised) {
  std::vector<Instant> deadlines;
  for (int i = 0; i < 20; ++i) {
    cluster.advance(milliseconds(100));
    deadlines.push_back(Instant(cluster.raft(2).next_deadline() - cluster.now()));
  }
  std::ranges::sort(deadlines);
  EXPECT_GE(deadlines.front().time_since_epoch(), milliseconds(800));
  EXPECT_LE(deadlines.back().time_since_epoch(), milliseconds(2000));
  EXPECT_GT(deadlines.back() - deadlines.front(), milliseconds(200));
}

TEST_F(DissertationTest, S35_AnEntryIsCommittedOnceAMajorityHasItDurable) {
  cluster.isolate(3);
  cluster.stop_disk(2);
  cluster.propose(1, "a");
  cluster.deliver_all();
  EXPECT_EQ(commit(1), LogIndex(1));
  cluster.start_disk(2);
  cluster.deliver_all();
  EXPECT_EQ(commit(1), LogIndex(2));
}

TEST_F(DissertationTest, S35_FollowersLearnTheCommitIndexFromTheNextAppend) {
  cluster.propose(1, "a");
  cluster.deliver_all();
  for (uint64_t id = 1; id <= 3; ++id) EXPECT_EQ(commit(id), LogIndex(2)) << id;
}

TEST_F(DissertationTest, S35_ConsistencyCheckRefusesAGap) {
  const Message reply =
      answer(1, 2, 1, AppendRequest{.prev = {.term = Term(1), .index = LogIndex(9)}, .round = ReadId(50)});
  EXPECT_FALSE(std::get<AppendReply>(reply.body).ok);
  EXPECT_EQ(std::get<AppendReply>(reply.body).hint, last(2));
}

TEST_F(DissertationTest, S35_AConflictingSuffixIsReplacedByTheLeaders) {
  cluster.isolate(1);
  cluster.propose(1, "lost");
  cluster.deliver_all();
  cluster.advance(seconds(4));
  const uint64_t leader = cluster.settle();
  ASSERT_NE(leader, 1U);
  cluster.propose(leader, "kept");
  cluster.heal_all();
  cluster.advance(seconds(2));
  EXPECT_EQ(cluster.committed(1), std::vector<std::string>{"kept"});
}

TEST_F(DissertationTest, S35_ARepeatedOrReorderedAppendChangesNothing) {
  const Entry entry{
      .index = LogIndex(2), .term = Term(1), .type = EntryType::kCommand, .payload = SharedBytes::copy_of("x")};
  const Entry next{
      .index = LogIndex(3), .term = Term(1), .type = EntryType::kCommand, .payload = SharedBytes::copy_of("y")};
  const std::vector<Entry> both{entry, next};
  const std::vector<Entry> one{entry};
  const Position prev{.term = Term(1), .index = LogIndex(1)};
  const OwnedMessage longer = message(1, 2, 1, AppendRequest{.prev = prev, .entries = EntrySlices(both)});
  const OwnedMessage shorter = message(1, 2, 1, AppendRequest{.prev = prev, .entries = EntrySlices(one)});
  cluster.step(2, Receive{.message = longer.message()});
  EXPECT_EQ(last(2).index, LogIndex(3));
  // The shorter one was sent first and comes late: what follows it stays.
  cluster.step(2, Receive{.message = shorter.message()});
  EXPECT_EQ(last(2).index, LogIndex(3));
}

TEST_F(DissertationTest, S36_VotersRefuseACandidateWhoseLogIsBehind) {
  cluster.crash(1);
  cluster.step(2, LinkBroken{.peer = NodeId(1)});
  const Message behind_index =
      answer(3, 2, 5, VoteRequest{.campaign_term = Term(5), .last = {.term = Term(1), .index = LogIndex(0)}});
  EXPECT_EQ(std::get<VoteReply>(behind_index.body).refusal, VoteRefusal::kLogBehind);
  const Message later_term =
      answer(3, 2, 6, VoteRequest{.campaign_term = Term(6), .last = {.term = Term(2), .index = LogIndex(1)}});
  EXPECT_TRUE(std::get<VoteReply>(later_term.body).granted);
}

TEST_F(DissertationTest, S362_ALeaderBeginsItsTermWithAnEntryOfItsOwn) {
  EXPECT_EQ(cluster.raft(1).entry(LogIndex(1)).type, EntryType::kNoop);
  EXPECT_EQ(cluster.raft(1).entry(LogIndex(1)).term, Term(1));
}

TEST_F(DissertationTest, S37_ACrashedFollowerIsRetriedUntilItHasEverything) {
  cluster.crash(3);
  for (const char* command : {"a", "b", "c"}) cluster.propose(1, command);
  cluster.deliver_all();
  cluster.restart(3);
  cluster.advance(milliseconds(500));
  EXPECT_EQ(cluster.committed(3), (std::vector<std::string>{"a", "b", "c"}));
}

TEST_F(DissertationTest, S38_TermVoteAndLogSurviveARestart) {
  cluster.propose(1, "a");
  cluster.deliver_all();
  const Vote vote = cluster.raft(2).vote();
  const Position position = last(2);
  cluster.crash(2);
  cluster.restart(2);
  EXPECT_EQ(cluster.raft(2).vote(), vote);
  EXPECT_EQ(last(2), position);
}

TEST_F(DissertationTest, S310_TransferStopsProposalsAndMakesTheTargetCampaignAtOnce) {
  cluster.stop_disk(2);
  cluster.propose(1, "a");
  cluster.deliver_all();
  cluster.step(1, Transfer{.to = NodeId(2)});
  EXPECT_EQ(cluster.propose(1, "b").proposal->refusal, Refusal::kTransferring);
  cluster.start_disk(2);
  cluster.deliver_all();
  EXPECT_EQ(cluster.leader(), 2U);
  EXPECT_EQ(term(2), Term(2));
}

// ---- Chapter 4: membership ----

TEST_F(DissertationTest, S41_AConfigurationIsInForceFromTheLogNotFromTheCommit) {
  cluster.isolate(1);
  Membership target = cluster.raft(1).membership();
  target.remove(NodeId(3));
  cluster.step(1, ProposeMembership{.target = target});
  EXPECT_TRUE(cluster.raft(1).membership().is_joint());
  EXPECT_EQ(commit(1), LogIndex(1));
}

TEST_F(DissertationTest, S41_ATruncatedConfigurationGivesWayToTheOneBefore) {
  cluster.isolate(1);
  Membership target = cluster.raft(1).membership();
  target.remove(NodeId(3));
  cluster.step(1, ProposeMembership{.target = target});
  cluster.deliver_all();
  cluster.advance(seconds(4));
  cluster.heal_all();
  cluster.settle();
  cluster.advance(seconds(1));
  EXPECT_EQ(cluster.raft(1).membership().describe(), "1 2 3");
}

TEST_F(DissertationTest, S41_OneChangeAtATime) {
  cluster.isolate(1);
  Membership target = cluster.raft(1).membership();
  target.remove(NodeId(3));
  EXPECT_EQ(cluster.step(1, ProposeMembership{.target = target}).proposal->refusal, Refusal::kNone);
  EXPECT_EQ(cluster.step(1, ProposeMembership{.target = target}).proposal->refusal, Refusal::kChangePending);
}

TEST_F(DissertationTest, S421_AServerWithoutTheLogDoesNotBecomeAVoter) {
  cluster.add_server(4);
  Membership target = cluster.raft(1).membership();
  target.set({.id = NodeId(4), .role = MemberRole::kVoter, .incarnation = Incarnation(1)});
  EXPECT_EQ(cluster.step(1, ProposeMembership{.target = target}).proposal->refusal, Refusal::kNotCaughtUp);
}

TEST_F(DissertationTest, S422_ALeaderThatIsRemovedGoesOnceTheChangeIsCommitted) {
  Membership target = cluster.raft(1).membership();
  target.remove(NodeId(1));
  cluster.step(1, ProposeMembership{.target = target});
  cluster.advance(milliseconds(300));
  EXPECT_NE(role(1), Role::kLeader);
  EXPECT_NE(cluster.settle(), 1U);
}

TEST_F(DissertationTest, S423_AServerThatHearsItsLeaderIgnoresCandidates) {
  const Message reply =
      answer(3, 2, 5, VoteRequest{.campaign_term = Term(5), .last = {.term = Term(4), .index = LogIndex(9)}});
  EXPECT_EQ(std::get<VoteReply>(reply.body).refusal, VoteRefusal::kLeaderAlive);
  EXPECT_EQ(term(2), Term(1));
}

TEST_F(DissertationTest, S43_AJointChangeNeedsBothMajoritiesAndEndsByItself) {
  cluster.add_server(4);
  cluster.add_server(5);
  Membership target = cluster.raft(1).membership();
  for (uint64_t id : {4, 5}) target.set({.id = NodeId(id), .role = MemberRole::kLearner});
  cluster.step(1, ProposeMembership{.target = target});
  cluster.advance(seconds(1));
  Membership swapped;
  for (uint64_t id : {1, 4, 5}) swapped.set({.id = NodeId(id), .role = MemberRole::kVoter});
  cluster.isolate(2);
  cluster.isolate(3);
  ASSERT_EQ(cluster.step(1, ProposeMembership{.target = swapped}).proposal->refusal, Refusal::kNone);
  const LogIndex joint = last(1).index;
  cluster.advance(milliseconds(300));
  EXPECT_LT(commit(1), joint) << "a majority of the old configuration is missing";
  cluster.heal_all();
  cluster.advance(seconds(1));
  cluster.settle();
  EXPECT_EQ(cluster.raft(cluster.leader()).membership().describe(), "1 4 5");
}

TEST_F(DissertationTest, S44_NoChangeBeforeTheLeaderCommittedInItsTerm) {
  cluster.crash(1);
  cluster.set_filter(is_append_reply);
  while (cluster.leader() == 0) cluster.advance(milliseconds(10));
  const uint64_t leader = cluster.leader();
  ASSERT_NE(leader, 0U);
  Membership target = cluster.raft(leader).membership();
  target.remove(NodeId(1));
  EXPECT_EQ(cluster.step(leader, ProposeMembership{.target = target}).proposal->refusal, Refusal::kChangePending);
}

// ---- Chapter 5: log compaction ----

TEST_F(DissertationTest, S51_ASnapshotReplacesTheLogUpToItsIndex) {
  for (const char* command : {"a", "b", "c"}) cluster.propose(1, command);
  cluster.deliver_all();
  cluster.snapshot(1);
  EXPECT_EQ(cluster.raft(1).log().start(), (Position{.term = Term(1), .index = LogIndex(4)}));
  EXPECT_EQ(cluster.raft(1).snapshot().membership.describe(), "1 2 3");
}

TEST_F(DissertationTest, S51_ASnapshotOfAPrefixLeavesTheSuffixStanding) {
  cluster.stop_disk(3);
  for (const char* command : {"a", "b"}) cluster.propose(1, command);
  cluster.deliver_all();
  const SnapshotMark mark{.last = {.term = Term(1), .index = LogIndex(2)}, .membership = cluster.raft(1).membership()};
  cluster.start_disk(3);
  cluster.isolate(3);
  // A late chunk of what it has already.
  const OwnedMessage chunk =
      message(1, 3, 1, SnapshotChunk{.mark = mark, .commit = LogIndex(3), .total = 4, .bytes = "abcd"});
  cluster.step(3, Receive{.message = chunk.message()});
  cluster.step(3, ChunkStored{.from = NodeId(1), .mark = mark, .offset = 4, .complete = true});
  EXPECT_EQ(last(3).index, LogIndex(3));
}

TEST_F(DissertationTest, S5_AFollowerBehindTheLogsStartGetsTheSnapshot) {
  cluster.crash(3);
  for (const char* command : {"a", "b", "c"}) cluster.propose(1, command);
  cluster.deliver_all();
  cluster.snapshot(1);
  cluster.restart(3);
  cluster.advance(milliseconds(500));
  EXPECT_EQ(cluster.raft(3).snapshot().last.index, LogIndex(4));
  EXPECT_EQ(commit(3), LogIndex(4));
}

// ---- Chapter 6: clients ----

TEST_F(DissertationTest, S62_ALeaderThatReachesNoQuorumStepsDown) {
  cluster.isolate(1);
  cluster.advance(milliseconds(1300));
  EXPECT_NE(role(1), Role::kLeader);
}

TEST_F(DissertationTest, S64_AReadNeedsARoundBegunAfterItArrived) {
  // Answers to the heartbeat before the read are under way; they prove nothing about later.
  cluster.fire_deadline(1);
  cluster.deliver_one(is_append);
  cluster.deliver_one(is_append);
  cluster.read(1, 1);
  cluster.deliver_one(is_append_reply);
  cluster.deliver_one(is_append_reply);
  EXPECT_TRUE(cluster.server(1).reads.empty());
  cluster.deliver_all();
  EXPECT_EQ(cluster.server(1).reads.size(), 1U);
}

TEST_F(DissertationTest, S64_ReadsThatArriveDuringARoundShareTheNext) {
  cluster.read(1, 1);
  const size_t messages = cluster.flights().size();
  cluster.read(1, 2);
  cluster.read(1, 3);
  EXPECT_EQ(cluster.flights().size(), messages);
  cluster.deliver_all();
  EXPECT_EQ(cluster.server(1).reads.size(), 3U);
}

TEST_F(DissertationTest, S641_AClockLeaseIsGivenUpBeforeLeadershipIsHandedOver) {
  for (uint64_t id = 1; id <= 3; ++id) cluster.step(id, ClockLease{.enabled = true});
  cluster.advance(milliseconds(300));
  EXPECT_GT(cluster.raft(1).lease_until(), cluster.now());
  cluster.set_filter([](const Message& message) { return std::holds_alternative<TimeoutNow>(message.body); });
  cluster.step(1, Transfer{.to = NodeId(2)});
  cluster.advance(milliseconds(200));
  EXPECT_EQ(role(1), Role::kLeader);
  EXPECT_LT(cluster.raft(1).lease_until(), cluster.now());
  cluster.advance(seconds(2));
  EXPECT_LT(cluster.raft(1).lease_until(), cluster.now()) << "never again in this term: the message may still arrive";
}

TEST_F(DissertationTest, S641_ARestartedServerKeepsThePromisesItForgot) {
  for (uint64_t id = 1; id <= 3; ++id) cluster.step(id, ClockLease{.enabled = true});
  cluster.advance(milliseconds(300));
  cluster.isolate(2);
  cluster.crash(2);
  cluster.restart(2);
  const Message reply = answer(3, 2, 1, VoteRequest{.pre = true, .campaign_term = Term(2), .last = last(2)});
  EXPECT_FALSE(std::get<VoteReply>(reply.body).granted);
  EXPECT_EQ(std::get<VoteReply>(reply.body).refusal, VoteRefusal::kPromised);
}

// ---- Section 9.6: pre-vote ----

TEST_F(DissertationTest, S96_APreVoteChangesNothingAtTheReceiver) {
  cluster.crash(1);
  cluster.step(2, LinkBroken{.peer = NodeId(1)});
  const Vote before = cluster.raft(2).vote();
  const Message reply = answer(3, 2, 1, VoteRequest{.pre = true, .campaign_term = Term(2), .last = last(2)});
  EXPECT_TRUE(std::get<VoteReply>(reply.body).granted);
  EXPECT_EQ(cluster.raft(2).vote(), before);
}

TEST_F(DissertationTest, S96_ACandidateRaisesItsTermOnlyAfterAMajorityWouldVote) {
  cluster.isolate(3);
  cluster.advance(seconds(10));
  EXPECT_EQ(term(3), Term(1));
  EXPECT_EQ(role(3), Role::kPreCandidate);
}

// ---- Chapter 10: performance ----

TEST_F(DissertationTest, S1021_TheLeaderWritesAndSendsInParallel) {
  const Output& output = cluster.propose(1, "a");
  (void)output;
  // The append leaves without waiting for the write.
  size_t sent = 0;
  for (const OwnedMessage& flight : cluster.flights()) {
    const auto* append = std::get_if<AppendRequest>(&flight.message().body);
    sent += append != nullptr && !append->entries.empty() ? 1 : 0;
  }
  EXPECT_EQ(sent, 2U);
}

TEST_F(DissertationTest, S1022_AppendsArePipelined) {
  for (int i = 0; i < 5; ++i) cluster.propose(1, std::to_string(i));
  size_t appends = 0;
  for (const OwnedMessage& flight : cluster.flights()) appends += is_append(flight.message()) ? 1 : 0;
  EXPECT_EQ(appends, 10U) << "five to each follower, none answered yet";
  cluster.deliver_all();
  EXPECT_EQ(commit(1), LogIndex(6));
}

TEST_F(DissertationTest, S1022_ALostAppendIsFoundByTheNext) {
  cluster.propose(1, "a");
  cluster.drop(is_append);
  cluster.propose(1, "b");
  cluster.deliver_all();
  EXPECT_EQ(cluster.committed(2), (std::vector<std::string>{"a", "b"}));
}

TEST_F(DissertationTest, VotesAreAskedOfAllMembersAtOnce) {
  cluster.crash(1);
  for (uint64_t id : {2, 3}) cluster.step(id, LinkBroken{.peer = NodeId(1)});
  cluster.fire_deadline(2);
  while (cluster.deliver_one([](const Message& m) { return !is_vote(m); })) {
  }
  size_t votes = 0;
  for (const OwnedMessage& flight : cluster.flights()) votes += is_vote(flight.message()) ? 1 : 0;
  EXPECT_EQ(votes, 2U);
}

}  // namespace
}  // namespace conclave::raft
