#include "sim/partitions.h"

#include <gtest/gtest.h>

namespace conclave::sim {
namespace {

TEST(Connectivity, GraphsAreNumberedByTheirBits) {
  EXPECT_EQ(Connectivity::directed(4, 0xfff).closed_count(), 0U);
  EXPECT_EQ(Connectivity::directed(4, 0).closed_count(), 12U);
  const Connectivity one = Connectivity::directed(4, 1U << 4);  // pairs of 0: 3 bits; then (1,0), (1,2)
  EXPECT_TRUE(one.open(1, 2));
  EXPECT_EQ(one.closed_count(), 11U);
  const Connectivity edge = Connectivity::undirected(5, 1U << 4);  // pairs of 0: 4 bits; then 1-2
  EXPECT_TRUE(edge.open(1, 2) && edge.open(2, 1));
  EXPECT_EQ(edge.closed_count(), 18U);
  EXPECT_EQ(edge.mutual_degree(1), 2U);
}

TEST(Connectivity, AQuorumCentreReachesAMajorityBothWays) {
  Connectivity star(5, false);
  EXPECT_FALSE(star.has_quorum_centre());
  star.set_both(2, 0, true);
  EXPECT_FALSE(star.has_quorum_centre());
  star.set(2, 4, true);
  EXPECT_FALSE(star.has_quorum_centre());
  star.set(4, 2, true);
  EXPECT_TRUE(star.has_quorum_centre());
  EXPECT_FALSE(Connectivity::undirected(4, 1).has_quorum_centre());  // two of four are no quorum
}

TEST(Partition, EachShapeIsWhatItsNameSays) {
  Random random(5);
  for (size_t size = 3; size <= 7; ++size) {
    for (int round = 0; round < 50; ++round) {
      const Connectivity split = make_partition(FaultKind::kPartition, size, random);
      // Whoever node 0 reaches sees exactly what node 0 sees.
      for (size_t a = 0; a < size; ++a) {
        for (size_t b = 0; b < size; ++b) EXPECT_EQ(split.open(a, b), split.open(0, a) == split.open(0, b));
      }
      EXPECT_GT(split.closed_count(), 0U);

      const auto hubs = [size](const Connectivity& graph) {
        size_t count = 0;
        for (size_t node = 0; node < size; ++node) count += graph.mutual_degree(node) == size ? 1 : 0;
        return count;
      };
      EXPECT_EQ(hubs(make_partition(FaultKind::kPartitionBridge, size, random)), 1U);
      const Connectivity partial = make_partition(FaultKind::kPartitionPartial, size, random);
      EXPECT_GE(hubs(partial), 1U);
      EXPECT_GT(partial.closed_count(), 0U);

      const Connectivity ring = make_partition(FaultKind::kPartitionRing, size, random);
      size_t ends = 0;
      for (size_t node = 0; node < size; ++node) {
        EXPECT_LE(ring.mutual_degree(node), 3U);
        ends += ring.mutual_degree(node) == 2 ? 1 : 0;
      }
      EXPECT_EQ(ends, size == 3 ? 2U : 0U);

      const Connectivity isolated = make_partition(FaultKind::kIsolation, size, random);
      EXPECT_TRUE(isolated.closed_count() == size - 1 || isolated.closed_count() == 2 * (size - 1));
    }
  }
}

TEST(Partition, TooFewNodesLeaveTheWorldWhole) {
  Random random(1);
  EXPECT_EQ(make_partition(FaultKind::kPartitionRing, 1, random).closed_count(), 0U);
  EXPECT_GT(make_partition(FaultKind::kPartitionRing, 2, random).closed_count(), 0U);
}

}  // namespace
}  // namespace conclave::sim
