#include "raft/raft.h"

#include <gtest/gtest.h>

#include "raft/describe.h"
#include "raft/testing/cluster.h"

namespace conclave::raft {
namespace {

class RaftTest : public testing::Test {
 protected:
  static void expect_sound(const Cluster& cluster) {
    for (const std::string& violation : cluster.violations()) ADD_FAILURE() << violation;
  }
};

TEST_F(RaftTest, OneServerLeadsItself) {
  Cluster cluster(1);
  EXPECT_EQ(cluster.settle(), 1U);
  cluster.propose(1, "a");
  cluster.deliver_all();
  EXPECT_EQ(cluster.committed(1), std::vector<std::string>{"a"});
  cluster.read(1, 5);
  ASSERT_EQ(cluster.server(1).reads.size(), 1U);
  EXPECT_EQ(cluster.server(1).reads[0].index, LogIndex(2));
  expect_sound(cluster);
}

TEST_F(RaftTest, ThreeElectAndReplicate) {
  Cluster cluster(3);
  const uint64_t leader = cluster.settle();
  ASSERT_NE(leader, 0U);
  for (int i = 0; i < 20; ++i) cluster.propose(leader, std::to_string(i));
  cluster.advance(std::chrono::milliseconds(200));
  for (uint64_t id = 1; id <= 3; ++id) EXPECT_EQ(cluster.committed(id).size(), 20U) << id;
  expect_sound(cluster);
}

TEST_F(RaftTest, StartedServersElectWithinTheirStartDelay) {
  Cluster cluster(5);
  cluster.advance(std::chrono::milliseconds(150));
  EXPECT_NE(cluster.leader(), 0U);
  expect_sound(cluster);
}

}  // namespace
}  // namespace conclave::raft
