#include "sim/decisions.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "sim/runner.h"

namespace conclave::sim {
namespace {

using Stream = Decisions::Stream;

// Draws from two sites in turn; what fires and its details as text.
std::string draw(Decisions& decisions, int draws = 200) {
  decisions.enable(FaultKind::kMessageLost);
  decisions.enable(FaultKind::kKill);
  const Stream lost = decisions.stream(FaultKind::kMessageLost, "lost", 1);
  const Stream kill = decisions.stream(FaultKind::kKill, "kill");
  std::string trace;
  for (int i = 0; i < draws; ++i) {
    if (decisions.decide(lost, 1, 10)) trace += fmt::format("l{}:{} ", i, decisions.detail(lost).below(1000));
    if (decisions.decide(kill, 1, 20)) trace += fmt::format("k{}:{} ", i, decisions.detail(kill).below(1000));
  }
  return trace;
}

TEST(Decisions, TheSameSeedGivesTheSameAndAnotherGivesOther) {
  Decisions first(1);
  Decisions second(1);
  Decisions third(2);
  const std::string trace = draw(first);
  EXPECT_EQ(trace, draw(second));
  EXPECT_NE(trace, draw(third));
  EXPECT_EQ(first.counters()[FaultKind::kMessageLost] + first.counters()[FaultKind::kKill], first.fired_count());
  EXPECT_GT(first.counters()[FaultKind::kMessageLost], 5U);
  EXPECT_LT(first.counters()[FaultKind::kMessageLost], 40U);
}

TEST(Decisions, KeepingAllChangesNothing) {
  Decisions first(9);
  const std::string trace = draw(first);
  Decisions second(9);
  second.set_replay({.mode = ReplayMode::kKeepOnly, .decisions = first.fired()});
  EXPECT_EQ(draw(second), trace);
}

TEST(Decisions, SuppressingOneShiftsNoOther) {
  Decisions first(9);
  std::string trace = draw(first);
  const std::vector<Decision> fired = first.fired();
  ASSERT_GT(fired.size(), 3U);
  Decisions second(9);
  second.set_replay({.mode = ReplayMode::kSuppress, .decisions = {fired[1]}});
  // The second word of the trace is gone, all others stand.
  const size_t begin = trace.find(' ') + 1;
  trace.erase(begin, trace.find(' ', begin) + 1 - begin);
  EXPECT_EQ(draw(second), trace);
  EXPECT_EQ(second.fired_count(), fired.size() - 1);
}

TEST(Decisions, AKindThatIsOffOrStoppedNeverFires) {
  Decisions decisions(3);
  const Stream stream = decisions.stream(FaultKind::kFreeze, "freeze");
  EXPECT_FALSE(decisions.decide(stream, 1, 1));
  decisions.enable(FaultKind::kFreeze);
  EXPECT_TRUE(decisions.decide(stream, 1, 1));
  EXPECT_FALSE(decisions.decide(stream, 0, 1));
  decisions.stop();
  EXPECT_FALSE(decisions.decide(stream, 1, 1));
  EXPECT_EQ(decisions.fired(), (std::vector<Decision>{{"freeze", 0, 1}}));
}

TEST(Decisions, ChoicesAreUniformEnoughAndNotRecorded) {
  Decisions decisions(4);
  const Stream stream = decisions.stream(FaultKind::kFreeze, "freeze");
  uint64_t counts[5] = {};
  for (int i = 0; i < 10'000; ++i) ++counts[decisions.choose(stream, 5)];
  for (uint64_t count : counts) {
    EXPECT_GT(count, 1800U);
    EXPECT_LT(count, 2200U);
  }
  EXPECT_EQ(decisions.fired_count(), 0U);
}

TEST(Replay, TextGoesBothWaysAndNonsenseIsRefused) {
  const Replay replay{.suite = "raft",
                      .seed = 77,
                      .seconds = 60,
                      .mode = ReplayMode::kSuppress,
                      .decisions = {{"net.lost", 102, 5, Instant(Duration(9))}, {"nemesis.kill", 0, 0}}};
  const Result<Replay> read = replay_of_text(to_text(replay));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->suite, "raft");
  EXPECT_EQ(read->seed, 77U);
  EXPECT_EQ(read->seconds, 60U);
  EXPECT_EQ(read->mode, ReplayMode::kSuppress);
  EXPECT_EQ(read->decisions, replay.decisions);
  for (const char* text : {"", "hello 1\n", "conclave-decisions 2\n", "conclave-decisions 1\nseed x\n",
                           "conclave-decisions 1\nmode some\n", "conclave-decisions 1\nnet.lost 1\n",
                           "conclave-decisions 1\nnet.lost 1 2 3\n", "conclave-decisions 1\nnet.lost 1 -2\n"}) {
    const Result<Replay> refused = replay_of_text(text);
    ASSERT_FALSE(refused) << text;
    EXPECT_EQ(refused.error().code, ErrorCode::kMalformed);
  }
}

TEST(Shrink, FindsTheFewThatMatter) {
  std::vector<Decision> decisions;
  decisions.reserve(500);
  for (uint64_t i = 0; i < 500; ++i) decisions.push_back({"site", i % 3, i});
  const std::vector<Decision> needed = {decisions[17], decisions[230], decisions[499]};
  uint64_t trials = 0;
  const std::vector<Decision> found = shrink(decisions, [&](const std::vector<Decision>& kept) {
    ++trials;
    return std::ranges::all_of(needed,
                               [&](const Decision& each) { return std::ranges::find(kept, each) != kept.end(); });
  });
  EXPECT_EQ(found, needed);
  EXPECT_LT(trials, 200U);
  EXPECT_TRUE(shrink(decisions, [](const std::vector<Decision>&) { return true; }).empty());
}

}  // namespace
}  // namespace conclave::sim
