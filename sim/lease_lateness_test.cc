#include "sim/lease_lateness.h"

#include <gtest/gtest.h>

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class LeaseLatenessTest : public testing::Test {
 protected:
  // All of one second; looked at this long after the beginning.
  std::string look(int64_t time_ms, const std::vector<std::pair<int64_t, std::optional<int64_t>>>& remaining,
                   bool able = true) {
    LeaseLateness::Look look{.now = begin + milliseconds(time_ms), .able = able};
    for (const auto& [id, remaining_ms] : remaining) {
      look.leases.push_back({.id = LeaseId(id), .ttl_ms = ttl_ms, .remaining_ms = remaining_ms});
    }
    return lateness.look(look);
  }
  const Instant begin{seconds(1000)};
  int64_t ttl_ms = 1'000;
  LeaseLateness lateness{node::LeaseClock::Options{}};
};

TEST_F(LeaseLatenessTest, ATenthOfASecondIsInTime) {
  EXPECT_EQ(look(0, {{1, 100}}), "");
  EXPECT_EQ(look(150, {{1, 0}}), "");
  EXPECT_EQ(look(200, {{1, 0}}), "");
  EXPECT_NE(look(202, {{1, 0}}), "");
}

TEST_F(LeaseLatenessTest, ATwentiethOfALongOneIsInTime) {
  ttl_ms = 60'000;
  EXPECT_EQ(look(0, {{1, 100}}), "");
  EXPECT_EQ(look(3'100, {{1, 0}}), "");
  EXPECT_NE(look(3'102, {{1, 0}}), "");
}

TEST_F(LeaseLatenessTest, WhatIsProposedOrRenewedIsNotLate) {
  EXPECT_EQ(look(0, {{1, 100}, {2, 100}}), "");
  EXPECT_EQ(look(150, {{1, 0}, {2, 0}}), "");
  EXPECT_EQ(look(190, {{1, std::nullopt}, {2, 1'000}}), "");
  EXPECT_EQ(look(1'000, {{1, std::nullopt}, {2, 190}}), "");
}

TEST_F(LeaseLatenessTest, WhatIsGivenBackCountsFromThenOn) {
  EXPECT_EQ(look(0, {{1, 0}}), "");
  EXPECT_EQ(look(90, {{1, std::nullopt}}), "");
  EXPECT_EQ(look(180, {{1, 0}}), "");
  EXPECT_EQ(look(270, {{1, 0}}), "");
  EXPECT_NE(look(290, {{1, 0}}), "");
}

TEST_F(LeaseLatenessTest, AMachineThatStandsStillIsNotLate) {
  EXPECT_EQ(look(0, {{1, 100}}), "");
  EXPECT_EQ(look(5'000, {{1, 0}}, false), "");
  EXPECT_EQ(look(5'050, {{1, 0}}), "");
  EXPECT_NE(look(5'150, {{1, 0}}), "");
}

TEST_F(LeaseLatenessTest, TheRateHoldsBackByWhatIsDueBefore) {
  lateness = LeaseLateness({.ends_per_second = 100, .inherited_ends_per_second = 10});
  EXPECT_EQ(look(0, {{1, 0}, {2, 0}, {3, 0}}), "");
  EXPECT_EQ(look(400, {{2, 0}, {3, 0}}), "");
  EXPECT_EQ(look(500, {{3, 0}}), "");
  EXPECT_NE(look(510, {{3, 0}}), "");
}

TEST_F(LeaseLatenessTest, MoreTimeThanAnybodyMayGiveIsFound) {
  EXPECT_EQ(look(0, {{1, 1'021}}), "");
  EXPECT_NE(look(0, {{1, 1'030}}), "");
}

}  // namespace
}  // namespace conclave::sim
