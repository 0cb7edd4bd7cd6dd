#include "server/slow_writes.h"

#include <gtest/gtest.h>

namespace conclave::server {
namespace {

using std::chrono::milliseconds;

Instant at(int64_t ms) {
  return Instant(milliseconds(ms));
}

TEST(SlowWrites, AreToldOnceAndOnceMoreWhenTheyHaveEnded) {
  wal::WriteGauge gauge;
  SlowWrites slow;
  EXPECT_FALSE(slow.look(at(0), gauge));
  gauge.begin(at(100));
  EXPECT_FALSE(slow.look(at(1000), gauge));
  const auto told = slow.look(at(1300), gauge);
  ASSERT_TRUE(told);
  EXPECT_NE(told->find("1.200 s"), std::string::npos) << *told;
  EXPECT_FALSE(slow.look(at(5000), gauge)) << "once";
  gauge.end(at(6100));
  const auto ended = slow.look(at(6200), gauge);
  ASSERT_TRUE(ended);
  EXPECT_NE(ended->find("6.000 s"), std::string::npos) << *ended;
  EXPECT_FALSE(slow.look(at(6300), gauge));
}

TEST(SlowWrites, TheNextOneIsAnother) {
  wal::WriteGauge gauge;
  SlowWrites slow;
  gauge.begin(at(0));
  EXPECT_TRUE(slow.look(at(1500), gauge));
  gauge.end(at(1600));
  gauge.begin(at(1700));
  EXPECT_TRUE(slow.look(at(1800), gauge)) << "the end of the first";
  EXPECT_FALSE(slow.look(at(2000), gauge));
  EXPECT_TRUE(slow.look(at(2800), gauge)) << "the second";
}

TEST(WriteGauge, CountsByHowLongWritesTook) {
  wal::WriteGauge gauge;
  for (const int64_t ms : {1, 2, 3, 8192, 9000}) {
    gauge.begin(at(0));
    gauge.end(at(ms));
  }
  EXPECT_EQ(gauge.count(0), 1U);
  EXPECT_EQ(gauge.count(1), 1U);
  EXPECT_EQ(gauge.count(2), 1U);
  EXPECT_EQ(gauge.count(13), 1U);
  EXPECT_EQ(gauge.count(14), 1U);
  EXPECT_EQ(gauge.sum(), milliseconds(17'198));
}

}  // namespace
}  // namespace conclave::server
