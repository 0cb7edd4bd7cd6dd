// The checkers find what they are there for: each is shown something wrong, and something right beside it.
#include "sim/raft_check.h"

#include <gtest/gtest.h>

#include "sim/raft_history.h"
#include "sim/scheduler.h"

namespace conclave::sim {
namespace {

// --- Histories.

Command put(uint32_t client, uint64_t sequence, uint8_t place, uint64_t value) {
  return {.client = client, .sequence = sequence, .place = place, .value = value};
}
Entry entry_of(uint64_t index, const Command& command) {
  return {.index = LogIndex(index),
          .term = Term(1),
          .type = EntryType::kCommand,
          .payload = SharedBytes::copy_of(encode(command))};
}
Instant at(int64_t time) {
  return Scheduler::kStart + Duration(time);
}

class HistoryTest : public testing::Test {
 protected:
  HistoryTest() {
    committed_ = {entry_of(1, put(1, 1, 0, 10)), entry_of(2, put(2, 1, 0, 20)), entry_of(3, put(1, 2, 1, 30))};
    write(put(1, 1, 0, 10), 1, 0, 5, 0);
    write(put(2, 1, 0, 20), 2, 3, 8, 10);
    read(3, 1, 0, 2, 20, 9, 12);
    write(put(1, 2, 1, 30), 3, 13, 15, 0);
  }
  void write(const Command& command, uint64_t index, int64_t called, int64_t returned, uint64_t before) {
    operations_.push_back({.command = command,
                           .called = at(called),
                           .returned = at(returned),
                           .outcome = Outcome::kDone,
                           .index = LogIndex(index),
                           .result = {.effective = true, .success = true, .before = before}});
  }
  void read(uint32_t client, uint64_t sequence, uint8_t place, uint64_t index, uint64_t value, int64_t called,
            int64_t returned) {
    operations_.push_back({.is_read = true,
                           .command = {.client = client, .sequence = sequence, .place = place},
                           .called = at(called),
                           .returned = at(returned),
                           .outcome = Outcome::kDone,
                           .index = LogIndex(index),
                           .value = value});
  }
  std::string verdict(const HistoryOptions& options = {}) { return judge(operations_, committed_, options); }
  std::vector<Operation> operations_;
  std::vector<Entry> committed_;
};

TEST_F(HistoryTest, ARightOneIsRight) {
  EXPECT_EQ(verdict(), "");
}
TEST_F(HistoryTest, AWrongValueIsFound) {
  operations_[2].value = 10;
  EXPECT_NE(verdict(), "");
}
TEST_F(HistoryTest, AStaleReadIsFoundAndExcusedOnlyWhereClocksMayLie) {
  operations_[2].index = LogIndex(1);
  operations_[2].value = 10;
  EXPECT_NE(verdict().find("had returned before it was called"), std::string::npos) << verdict();
  EXPECT_EQ(verdict({.real_time_reads = false}), "");
}
TEST_F(HistoryTest, AReadOfTheFutureIsFound) {
  operations_[2].index = LogIndex(9);
  EXPECT_NE(verdict(), "");
}
TEST_F(HistoryTest, AWriteBeforeOneThatHadReturnedIsFound) {
  operations_[3].called = at(0);
  operations_[3].returned = at(1);  // index 3, returned before index 2 was called
  EXPECT_NE(verdict().find("had returned before it was called"), std::string::npos) << verdict();
}
TEST_F(HistoryTest, AWriteAtAnothersIndexIsFound) {
  operations_[3].index = LogIndex(2);
  EXPECT_NE(verdict(), "");
}
TEST_F(HistoryTest, AWrongResultIsFound) {
  operations_[1].result.before = 11;
  EXPECT_NE(verdict(), "");
}
TEST_F(HistoryTest, ALostWriteIsFound) {
  committed_.pop_back();
  EXPECT_NE(verdict(), "");
}
TEST_F(HistoryTest, ARefusedWriteThatTookEffectIsFoundAndAnUnknownOneMay) {
  operations_[1].outcome = Outcome::kUnknown;
  EXPECT_EQ(verdict(), "");
  operations_[1].outcome = Outcome::kRefused;
  EXPECT_NE(verdict().find("refused for good"), std::string::npos);
}
TEST_F(HistoryTest, ACommandThatChangedOnItsWayIsFound) {
  operations_[1].outcome = Outcome::kUnknown;
  operations_[1].command.value = 21;
  EXPECT_NE(verdict(), "");
}
TEST_F(HistoryTest, ACopyInTheLogHasNoEffect) {
  committed_.push_back(entry_of(4, put(1, 1, 0, 10)));
  read(3, 2, 0, 4, 20, 20, 21);
  EXPECT_EQ(verdict(), "");
  operations_.back().value = 10;
  EXPECT_NE(verdict(), "");
}
TEST_F(HistoryTest, AnOperationCalledTwiceIsFound) {
  operations_.push_back(operations_[0]);
  EXPECT_NE(verdict().find("called twice"), std::string::npos);
}

// --- Between servers.

class ServersTest : public testing::Test {
 protected:
  static constexpr GroupId kGroup{7};
  static LogDirectory directory(uint64_t term, uint64_t last, uint64_t incarnation = 1) {
    LogDirectory directory{.vote = {.term = Term(term), .incarnation = Incarnation(incarnation)},
                           .first = LogIndex(1),
                           .last = {.term = Term(term), .index = LogIndex(last)}};
    directory.runs = {{.first = LogIndex(1), .term = Term(term)}};
    return directory;
  }
  static Recovered recovered(uint64_t term, uint64_t last, Certainty certainty = Certainty::kCertain) {
    Recovered result{.group = kGroup,
                     .certainty = certainty,
                     .vote = {.term = Term(term), .incarnation = Incarnation(1)},
                     .last = {.term = Term(term), .index = LogIndex(last)}};
    for (uint64_t index = 1; index <= last; ++index) {
      result.entries.push_back({.index = LogIndex(index), .term = Term(term), .type = EntryType::kNoop});
    }
    return result;
  }
  static raft::Message vote(uint64_t from, uint64_t to, uint64_t term, uint64_t incarnation = 1) {
    return {.header = {.group = kGroup,
                       .from = NodeId(from),
                       .to = NodeId(to),
                       .term = Term(term),
                       .incarnation = Incarnation(incarnation)},
            .body = raft::VoteReply{.campaign_term = Term(term), .granted = true}};
  }
  RaftCheck check_;
};

TEST_F(ServersTest, TwoVotesOfOneIdentityInOneTermAreFound) {
  check_.note_sent(vote(1, 2, 5));
  check_.note_sent(vote(1, 2, 5));
  check_.note_sent(vote(1, 3, 6));
  check_.note_sent(vote(1, 3, 5, 4));  // another identity
  EXPECT_EQ(check_.violation(), "");
  check_.note_sent(vote(1, 3, 5));
  EXPECT_NE(check_.violation().find("voted for 2 and for 3"), std::string::npos);
}

TEST_F(ServersTest, ABootThatRepeatsIsFound) {
  check_.note_boot(NodeId(1), Boot(1));
  check_.note_boot(NodeId(1), Boot(2));
  EXPECT_EQ(check_.violation(), "");
  check_.note_boot(NodeId(1), Boot(2));
  EXPECT_NE(check_.violation(), "");
}

TEST_F(ServersTest, ASoundDiskThatForgetsIsFound) {
  check_.note_new(NodeId(1), directory(1, 1));
  check_.note_written(NodeId(1), directory(2, 5));
  check_.note_recovered(NodeId(1), recovered(2, 5), false);  // what was under way may be there
  EXPECT_EQ(check_.violation(), "");
  check_.note_recovered(NodeId(1), recovered(2, 4), false);
  EXPECT_NE(check_.violation().find("of a sound disk"), std::string::npos);
}

TEST_F(ServersTest, ASoundDiskThatForgetsItsTermIsFound) {
  check_.note_new(NodeId(1), directory(3, 5));
  Recovered back = recovered(3, 5);
  back.vote.term = Term(2);
  check_.note_recovered(NodeId(1), back, false);
  EXPECT_NE(check_.violation(), "");
}

TEST_F(ServersTest, AHoleOrUncertaintyOfASoundDiskIsFoundAndOfAStruckOneIsNot) {
  for (const bool struck : {true, false}) {
    check_.note_new(NodeId(1), directory(2, 5));
    check_.note_recovered(NodeId(1), recovered(2, 5, Certainty::kLastUncertain), struck);
    Recovered holed = recovered(2, 5);
    holed.entries[2].type = EntryType::kHole;
    check_.note_new(NodeId(2), directory(2, 5));
    check_.note_recovered(NodeId(2), holed, struck);
    EXPECT_EQ(check_.violation().empty(), struck);
  }
}

TEST_F(ServersTest, TwoEntriesOfOnePlaceAndTermAreFound) {
  check_.note_new(NodeId(1), directory(2, 1));
  check_.note_new(NodeId(2), directory(2, 1));
  check_.note_recovered(NodeId(1), recovered(2, 1), false);
  Recovered other = recovered(2, 1);
  other.entries[0].payload = SharedBytes::copy_of("x");
  check_.note_recovered(NodeId(2), other, false);
  EXPECT_NE(check_.violation().find("another entry"), std::string::npos);
}

TEST_F(ServersTest, TwoStatesAtOneIndexAreFound) {
  check_.note_state(NodeId(1), LogIndex(3), 77);
  check_.note_state(NodeId(2), LogIndex(3), 77);
  EXPECT_EQ(check_.violation(), "");
  check_.note_state(NodeId(3), LogIndex(3), 78);
  EXPECT_NE(check_.violation(), "");
}

// Real cores, and a check that is told too little or too much of them.
class CoresTest : public ServersTest {
 protected:
  std::unique_ptr<raft::Raft> start(uint64_t id, const std::vector<NodeId>& voters, Recovered from) {
    from.snapshot.membership = Membership::of_voters(voters);
    raft::Options options{.group = kGroup, .self = NodeId(id), .boot = Boot(1), .seed = id};
    auto core = std::make_unique<raft::Raft>(options, std::move(from));
    check_.note_boot(NodeId(id), Boot(1));
    step(*core, raft::Start{});
    return core;
  }
  void step(raft::Raft& core, const raft::Input& input) {
    core.step(now_, input, output_);
    check_.note_step(core, output_);
  }
  // A cluster of one: leads as soon as its vote is durable.
  void elect_alone(raft::Raft& core, bool durable) {
    now_ += std::chrono::seconds(5);
    step(core, raft::Tick{});
    finish(core, durable);
  }
  void finish(raft::Raft& core, bool durable) {
    for (int i = 0; i < 5 && output_.write; ++i) {
      const WriteSequence sequence = output_.write->sequence;
      if (durable) {
        LogDirectory directory{.vote = core.vote(), .first = LogIndex(1), .last = core.log().last()};
        directory.runs = {{.first = LogIndex(1), .term = core.vote().term}};
        check_.note_written(core.options().self, directory);
        check_.note_durable(core.options().self);
      }
      step(core, raft::WriteDone{.sequence = sequence});
    }
  }
  Instant now_ = Scheduler::kStart;
  raft::Output output_;
};

TEST_F(CoresTest, WhatIsCommittedWithoutAQuorumHavingItIsFound) {
  for (const bool durable : {true, false}) {
    check_ = RaftCheck();
    check_.note_new(NodeId(1), directory(0, 0));
    auto core = start(1, {NodeId(1)}, recovered(0, 0));
    elect_alone(*core, durable);
    ASSERT_EQ(core->status().role, raft::Role::kLeader);
    ASSERT_EQ(core->status().commit, LogIndex(1));
    if (durable) {
      EXPECT_EQ(check_.violation(), "");
    } else {
      EXPECT_NE(check_.violation().find("have durable"), std::string::npos) << check_.violation();
    }
  }
}

TEST_F(CoresTest, TwoLeadersOfOneTermAreFound) {
  check_.note_new(NodeId(1), directory(0, 0));
  check_.note_new(NodeId(2), directory(0, 0));
  auto one = start(1, {NodeId(1)}, recovered(0, 0));
  auto two = start(2, {NodeId(2)}, recovered(0, 0));
  elect_alone(*one, true);
  EXPECT_EQ(check_.violation(), "");
  elect_alone(*two, true);
  EXPECT_NE(check_.violation().find("two leaders of term 1"), std::string::npos) << check_.violation();
}

TEST_F(CoresTest, ALeaderWithoutWhatIsCommittedAndAnotherCommitAreFound) {
  check_.note_new(NodeId(1), directory(0, 0));
  check_.note_new(NodeId(2), directory(4, 0));
  auto one = start(1, {NodeId(1)}, recovered(0, 0));
  elect_alone(*one, true);
  const SharedBytes command = SharedBytes::copy_of("c");
  step(*one, raft::Propose{.commands = {&command, 1}});
  finish(*one, true);
  ASSERT_EQ(check_.committed().size(), 2);
  EXPECT_EQ(check_.violation(), "");
  // Of a later term, with a log that knows nothing of it.
  auto two = start(2, {NodeId(2)}, recovered(4, 0));
  elect_alone(*two, true);
  EXPECT_NE(check_.violation().find("lacks the committed entry"), std::string::npos) << check_.violation();
}

}  // namespace
}  // namespace conclave::sim
