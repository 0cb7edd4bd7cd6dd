#include "server/round_trips.h"

#include <deque>

#include <gtest/gtest.h>

namespace conclave::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr NodeId kA{1};
constexpr NodeId kB{2};

// Two servers, with what they say in the test's hands.
struct Pair {
  std::deque<std::pair<NodeId, std::string>> said;  // by whom
  RoundTrips a{uint64_t{7} << 16, [this](NodeId to, std::string frame) {
                 EXPECT_EQ(to, kB);
                 said.emplace_back(kA, std::move(frame));
               }};
  RoundTrips b{uint64_t{9} << 16, [this](NodeId to, std::string frame) {
                 EXPECT_EQ(to, kA);
                 said.emplace_back(kB, std::move(frame));
               }};
  Instant now{seconds(100)};

  // The next frame arrives after so long.
  void deliver(Duration after) {
    ASSERT_FALSE(said.empty());
    now += after;
    const auto [from, frame] = said.front();
    said.pop_front();
    (from == kA ? b : a).on_frame(now, from, frame);
  }
  void look() {
    const std::array links = {net::PeerLinkState{.id = kB, .connected = true}};
    a.look(now, links);
  }
  [[nodiscard]] uint64_t counted() const {
    uint64_t all = 0;
    for (const auto& times : a.metrics()) all += times.count();
    return all;
  }
};

TEST(RoundTripsTest, AnAnswerIsCountedByHowLongItTook) {
  Pair pair;
  pair.a.on_link_up(pair.now, kB);
  pair.deliver(milliseconds(1));
  pair.deliver(milliseconds(2));
  EXPECT_TRUE(pair.said.empty());
  const auto metrics = pair.a.metrics();
  ASSERT_EQ(metrics.size(), 1U);
  EXPECT_EQ(metrics[0].peer, kB);
  // Above 1.6 ms, not above 3.2 ms.
  EXPECT_EQ(metrics[0].counts[5], 1U);
  EXPECT_EQ(metrics[0].count(), 1U);
  EXPECT_EQ(metrics[0].sum, milliseconds(3));
  EXPECT_TRUE(pair.b.metrics().empty()) << "who is asked learns nothing";
}

TEST(RoundTripsTest, APeerIsAskedEveryFewSecondsAndANewLinkAtOnce) {
  Pair pair;
  pair.look();
  EXPECT_EQ(pair.said.size(), 1U);
  pair.now += kPingInterval - milliseconds(1);
  pair.look();
  EXPECT_EQ(pair.said.size(), 1U);
  pair.now += milliseconds(1);
  pair.look();
  EXPECT_EQ(pair.said.size(), 2U);
  pair.a.on_link_up(pair.now, kB);
  EXPECT_EQ(pair.said.size(), 3U);
  const std::array broken = {net::PeerLinkState{.id = kB}};
  pair.now += kPingInterval;
  pair.a.look(pair.now, broken);
  EXPECT_EQ(pair.said.size(), 3U) << "nothing would arrive";
}

TEST(RoundTripsTest, OnlyTheNewestPingIsAnsweredAndOnce) {
  Pair pair;
  pair.look();
  pair.now += kPingInterval;
  pair.look();
  pair.deliver(milliseconds(1));  // the first, late
  pair.deliver(milliseconds(1));  // the second
  pair.deliver(milliseconds(1));
  EXPECT_EQ(pair.counted(), 0U) << "too late to say anything";
  const std::string answer = pair.said.front().second;
  pair.deliver(milliseconds(1));
  EXPECT_EQ(pair.counted(), 1U);
  pair.a.on_frame(pair.now, kB, answer);
  EXPECT_EQ(pair.counted(), 1U);
  pair.a.on_frame(pair.now, NodeId(3), answer);
  EXPECT_EQ(pair.counted(), 1U) << "of somebody else";
}

TEST(RoundTripsTest, WhoIsLinkedToNoMoreIsForgotten) {
  Pair pair;
  pair.look();
  EXPECT_EQ(pair.a.metrics().size(), 1U);
  pair.a.look(pair.now, {});
  EXPECT_TRUE(pair.a.metrics().empty());
}

TEST(RoundTripsTest, OddFramesAreNothing) {
  Pair pair;
  pair.look();
  const std::string ping = pair.said.front().second;
  pair.said.clear();
  for (size_t cut = 1; cut < ping.size(); ++cut) pair.b.on_frame(pair.now, kA, ping.substr(0, cut));
  pair.b.on_frame(pair.now, kA, ping + "x");
  std::string odd = ping;
  odd[1] = 3;
  pair.b.on_frame(pair.now, kA, odd);
  pair.b.on_frame(pair.now, kA, ping.substr(0, 2) + std::string(8, '\0'));
  EXPECT_TRUE(pair.said.empty());
}

}  // namespace
}  // namespace conclave::server
