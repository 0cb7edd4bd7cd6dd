#include "server/descriptors.h"

#include <sys/resource.h>

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

}  // namespace
}  // namespace conclave::server
