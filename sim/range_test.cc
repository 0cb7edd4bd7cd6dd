#include "sim/range.h"

#include <csignal>

#include <gtest/gtest.h>

#include "base/assert.h"

namespace conclave::sim {
namespace {

// Fails in the way its seed says.
RunResult misbehave(RunContext& context) {
  RunResult result;
  result.simulated = std::chrono::seconds(1);
  result.operations_attempted = 60;
  result.operations_acknowledged = context.seed == 7 ? 10 : 60;
  result.digest = context.seed * 17;
  const Decisions::Stream stream = context.decisions->stream(FaultKind::kKill, "test.kill");
  context.decisions->enable(FaultKind::kKill);
  const bool killed = context.decisions->decide(stream, 1, 1);
  static uint64_t runs = 0;
  switch (context.seed) {
    case 2:
      result.verdict = Verdict::kSafety;
      result.message = "two leaders in term 9";
      break;
    case 3:
      ASSERT_MSG(context.seed != 3 || !killed, "seed {}", context.seed);
      break;
    case 4:
      std::raise(SIGSEGV);
      break;
    case 5:
      result.digest = ++runs;
      break;
    case 6:
      result.verdict = Verdict::kLiveness;
      result.message = "no leader";
      break;
    default:
      break;
  }
  return result;
}

const Suite kSuite{.name = "misbehave", .run = &misbehave, .demands_load = true};

struct Outcome {
  Verdict verdict;
  std::string output;
};
Outcome run(uint64_t first, uint64_t last, uint64_t jobs, bool twice = false, bool coverage = false) {
  RangeOptions options{
      .suite = &kSuite, .first = first, .last = last, .jobs = jobs, .twice = twice, .coverage = coverage};
  options.program = "simulate";
  testing::internal::CaptureStdout();
  const Verdict verdict = run_range(options);
  std::fflush(stdout);
  return {verdict, testing::internal::GetCapturedStdout()};
}
// Without the lines that hold times.
std::string timeless(const std::string& output) {
  return output.substr(output.find("fault "));
}

TEST(Range, GoodSeedsAreGood) {
  const Outcome outcome = run(8, 20, 2);
  EXPECT_EQ(outcome.verdict, Verdict::kOk);
  EXPECT_NE(outcome.output.find("ok: suite misbehave, 13 seeds, 0 failed, 0 invalid"), std::string::npos)
      << outcome.output;
  EXPECT_NE(outcome.output.find("kill"), std::string::npos);
}

TEST(Range, EachKindOfFailureHasItsVerdictAndItsReport) {
  const Outcome safety = run(2, 2, 1);
  EXPECT_EQ(safety.verdict, Verdict::kSafety);
  for (const char* part : {"FAILED: safety violation", "commit ", "seed 2", "simulate misbehave --seed 2 --seconds 60",
                           "violated: two leaders in term 9"}) {
    EXPECT_NE(safety.output.find(part), std::string::npos) << part << " in " << safety.output;
  }
  EXPECT_EQ(run(6, 6, 1).verdict, Verdict::kLiveness);
  const Outcome assertion = run(3, 3, 1);
  EXPECT_EQ(assertion.verdict, Verdict::kCrash);
  EXPECT_NE(assertion.output.find("seed 3"), std::string::npos);
  EXPECT_NE(assertion.output.find("context.seed != 3"), std::string::npos) << assertion.output;
  EXPECT_EQ(run(4, 4, 1).verdict, Verdict::kCrash);
  EXPECT_EQ(run(5, 5, 1, true).verdict, Verdict::kDiverged);
  EXPECT_EQ(run(5, 5, 1, false).verdict, Verdict::kOk);
}

TEST(Range, ACrashDoesNotStopTheOthersAndTheFirstFailureNamesTheVerdict) {
  const Outcome outcome = run(1, 20, 3);
  EXPECT_EQ(outcome.verdict, Verdict::kSafety);
  EXPECT_NE(outcome.output.find("20 seeds, 4 failed, 1 invalid"), std::string::npos) << outcome.output;
}

TEST(Range, TheSummaryDoesNotDependOnTheNumberOfWorkers) {
  const Outcome one = run(8, 40, 1);
  const Outcome four = run(8, 40, 4);
  const auto digest = [](const std::string& output) { return output.substr(output.rfind("digest ")); };
  EXPECT_EQ(digest(one.output), digest(four.output));
  EXPECT_EQ(timeless(one.output).substr(0, 60), timeless(four.output).substr(0, 60));
}

TEST(Range, QuietRunsAndMissingFaultsFailCoverage) {
  EXPECT_EQ(run(7, 7, 1).verdict, Verdict::kOk);
  EXPECT_EQ(run(7, 7, 1, false, true).verdict, Verdict::kCoverage);
  EXPECT_EQ(run(8, 8, 1, false, true).verdict, Verdict::kOk);
}

TEST(Range, WhatFiredBeforeACrashIsHeardOf) {
  RangeOptions options{.suite = &kSuite};
  EXPECT_EQ(fired_before_crash(options, 3), (std::vector<Decision>{{"test.kill", 0, 0}}));
}

TEST(Load, FewerThanFiftyASecondOrHalfAcknowledgedIsNothing) {
  RunResult result;
  result.simulated = std::chrono::seconds(10);
  result.operations_attempted = 500;
  result.operations_acknowledged = 250;
  EXPECT_TRUE(has_enough_load(result));
  result.operations_acknowledged = 249;
  EXPECT_FALSE(has_enough_load(result));
  result.operations_acknowledged = result.operations_attempted = 499;
  EXPECT_FALSE(has_enough_load(result));
  result.loaded = std::chrono::seconds(5);
  EXPECT_TRUE(has_enough_load(result));
}

TEST(RunContext, SettingsAreNumbersOrTheDefault) {
  const RunContext context{.settings = {{"plant", "12"}, {"bad", "12x"}}};
  EXPECT_EQ(context.setting("plant", 0), 12U);
  EXPECT_EQ(context.setting("bad", 3), 3U);
  EXPECT_EQ(context.setting("none", 4), 4U);
}

}  // namespace
}  // namespace conclave::sim
