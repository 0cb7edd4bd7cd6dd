#include "sim/swarm.h"

#include <set>

#include <gtest/gtest.h>

#include "sim/digest.h"

namespace conclave::sim {
namespace {

TEST(Swarm, TheSeedChoosesAllAndSeedsDiffer) {
  std::set<size_t> sizes;
  std::set<std::string> worlds;
  FaultCounters on;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const SwarmParameters drawn = draw_swarm(seed, SwarmLimits::everything());
    EXPECT_EQ(describe(drawn), describe(draw_swarm(seed, SwarmLimits::everything())));
    sizes.insert(drawn.nodes);
    worlds.insert(describe(drawn));
    size_t damageable = 0;
    for (bool each : drawn.damageable) damageable += each ? 1 : 0;
    EXPECT_TRUE(!drawn.bounded || 2 * damageable < drawn.nodes);
    for (size_t i = 0; i < kFaultKinds; ++i) {
      const auto kind = static_cast<FaultKind>(i);
      on[kind] += drawn.enabled[kind] ? 1 : 0;
    }
  }
  EXPECT_EQ(sizes, std::set<size_t>({1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(worlds.size(), 200U);
  for (size_t i = 0; i < kFaultKinds; ++i) {
    EXPECT_GT(on[static_cast<FaultKind>(i)], 50U) << to_string(static_cast<FaultKind>(i));
    EXPECT_LT(on[static_cast<FaultKind>(i)], 150U) << to_string(static_cast<FaultKind>(i));
  }
}

TEST(Swarm, WhatIsNotAllowedIsNeverOn) {
  SwarmLimits limits = SwarmLimits::everything();
  limits.allowed[FaultKind::kLostDisk] = false;
  limits.nodes_min = limits.nodes_max = 5;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    const SwarmParameters drawn = draw_swarm(seed, limits);
    EXPECT_FALSE(drawn.enabled[FaultKind::kLostDisk]);
    EXPECT_EQ(drawn.nodes, 5U);
  }
}

TEST(Faults, NamesGoBothWays) {
  std::set<std::string_view> names;
  for (size_t i = 0; i < kFaultKinds; ++i) {
    const auto kind = static_cast<FaultKind>(i);
    names.insert(to_string(kind));
    EXPECT_EQ(fault_kind_of(to_string(kind)), kind);
  }
  EXPECT_EQ(names.size(), kFaultKinds);
  EXPECT_EQ(fault_kind_of("earthquake"), std::nullopt);
}

TEST(Digest, DependsOnOrderAndOnWhereBytesEnd) {
  const auto digest = [](std::initializer_list<ByteView> parts) {
    Digest made;
    for (ByteView part : parts) made.add_bytes(part);
    return made.value();
  };
  EXPECT_EQ(digest({"ab", "c"}), digest({"ab", "c"}));
  EXPECT_NE(digest({"ab", "c"}), digest({"a", "bc"}));
  EXPECT_NE(digest({"ab", "c"}), digest({"c", "ab"}));
  EXPECT_NE(digest({"12345678x"}), digest({"12345678y"}));
  EXPECT_NE(digest({""}), digest({}));
  // The same on every compiler.
  EXPECT_EQ(digest({"conclave", "sim"}), 0xcc060aff03e67128ULL);
}

}  // namespace
}  // namespace conclave::sim
