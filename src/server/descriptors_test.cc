#include "server/descriptors.h"

#include <sys/resource.h>
#include <unistd.h>

#include <array>

#include <gtest/gtest.h>

namespace conclave::server {
namespace {

TEST(Descriptors, SomeAreKeptForAllThatIsNoClient) {
  EXPECT_EQ(connections_max_of(20'000), 19'744U);
  EXPECT_EQ(connections_max_of(1024), 768U);
  EXPECT_EQ(connections_max_of(512), 256U);
  EXPECT_EQ(connections_max_of(100), 50U) << "of few, half";
  EXPECT_EQ(connections_max_of(0), 1U);
  EXPECT_EQ(connections_max_of(uint64_t{1} << 20), 100'000U) << "memory is the limit then";
  EXPECT_EQ(connections_max_of(RLIM_INFINITY), 100'000U);
}

TEST(Descriptors, TheSoftLimitIsRaisedToTheHardOne) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_GT(before.rlim_max, 64U);
  rlimit lower = before;
  lower.rlim_cur = 64;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &lower), 0);
  EXPECT_EQ(raise_descriptor_limit(), before.rlim_max);
  rlimit after{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &after), 0);
  EXPECT_EQ(after.rlim_cur, before.rlim_max);
  EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST(DescriptorsTest, ThoseOpenAreCounted) {
  DescriptorCount count;
  const uint64_t before = count.count(0);
  EXPECT_GE(before, 3U);
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  EXPECT_EQ(count.count(0), before + 2);
  EXPECT_EQ(count.count(2), before + 2) << "the two are connections";
  // So many connections are not listed: what else there was before is added to them.
  EXPECT_EQ(count.count(50'000), before + 50'000);
  ::close(ends[0]);
  ::close(ends[1]);
  EXPECT_EQ(count.count(0), before);
}

}  // namespace
}  // namespace conclave::server
