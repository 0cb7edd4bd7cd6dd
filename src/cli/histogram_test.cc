#include "cli/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/random.h"

namespace conclave::cli {
namespace {

using namespace std::chrono_literals;

TEST(Histogram, OfNothing) {
  const Histogram histogram;
  EXPECT_EQ(histogram.count(), 0U);
  EXPECT_EQ(histogram.at(0.5), 0ns);
  EXPECT_EQ(histogram.max(), 0ns);
  EXPECT_EQ(histogram.mean(), 0ns);
}

TEST(Histogram, SmallValuesAreExact) {
  Histogram histogram;
  for (int i = 1; i <= 100; ++i) histogram.add(Duration(i));
  EXPECT_EQ(histogram.at(0.5), 50ns);
  EXPECT_EQ(histogram.at(0.99), 99ns);
  EXPECT_EQ(histogram.at(0.0), 1ns);
  EXPECT_EQ(histogram.at(1.0), 100ns);
}

TEST(Histogram, ASingleValueIsEveryShare) {
  Histogram histogram;
  histogram.add(1234567ns);
  EXPECT_EQ(histogram.at(0.001), 1234567ns);
  EXPECT_EQ(histogram.at(0.999), 1234567ns);
}

TEST(Histogram, NegativeIsZeroAndHugeFits) {
  Histogram histogram;
  histogram.add(Duration(-5));
  histogram.add(Duration::max());
  EXPECT_EQ(histogram.at(0.5), 0ns);
  EXPECT_EQ(histogram.max(), Duration::max());
  EXPECT_EQ(histogram.at(1.0), Duration::max());
}

TEST(Histogram, IsWithinOnePercentOfTheTruth) {
  Random random(7);
  Histogram histogram;
  std::vector<int64_t> values;
  for (int i = 0; i < 200'000; ++i) {
    // From a microsecond to a minute, each order of magnitude alike.
    const int64_t value = static_cast<int64_t>(random.between(1'000, 1'999)) << random.below(25);
    values.push_back(value);
    histogram.add(Duration(value));
  }
  std::ranges::sort(values);
  for (const double share : {0.01, 0.25, 0.5, 0.9, 0.99, 0.999}) {
    const auto index = static_cast<size_t>(share * static_cast<double>(values.size())) - 1;
    const auto truth = static_cast<double>(values[index]);
    const auto found = static_cast<double>(histogram.at(share).count());
    EXPECT_GE(found, truth * 0.999) << share;
    EXPECT_LE(found, truth * 1.01) << share;
  }
  EXPECT_EQ(histogram.max().count(), values.back());
}

TEST(Histogram, MergedIsAsIfAddedTogether) {
  Random random(8);
  Histogram one;
  Histogram two;
  Histogram both;
  for (int i = 0; i < 1000; ++i) {
    const Duration value(static_cast<int64_t>(random.below(1'000'000'000)));
    (i % 3 == 0 ? one : two).add(value);
    both.add(value);
  }
  one.merge(two);
  EXPECT_EQ(one.count(), both.count());
  EXPECT_EQ(one.at(0.5), both.at(0.5));
  EXPECT_EQ(one.max(), both.max());
  EXPECT_EQ(one.mean(), both.mean());
}

}  // namespace
}  // namespace conclave::cli
