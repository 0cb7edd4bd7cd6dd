#include "sim/network.h"

#include <gtest/gtest.h>

namespace conclave::sim {
namespace {

using env::Lane;
using std::chrono::milliseconds;
using std::chrono::seconds;

struct Receiver final : env::NetworkReceiver {
  void on_frame(NodeId from, ByteView frame) override { trace += fmt::format("{}:{} ", from, frame); }
  void on_link_up(NodeId peer) override { links += fmt::format("+{} ", peer); }
  void on_link_broken(NodeId peer) override { links += fmt::format("-{} ", peer); }
  std::string trace;
  std::string links;
};

class SimNetworkTest : public testing::Test {
 protected:
  SimNetworkTest() {
    for (size_t i = 0; i < kFaultKinds; ++i) decisions_.enable(static_cast<FaultKind>(i));
    for (size_t node = 0; node < 3; ++node) start(node);
  }
  void start(size_t node) {
    gates_[node].open();
    network_.attach(node, receivers_[node], gates_[node]);
  }
  void stop(size_t node) {
    gates_[node].close();
    network_.detach(node);
  }
  void send(size_t from, size_t to, std::string frame, Lane lane = Lane::kConsensus) {
    network_.endpoint(from).send(SimNetwork::id_of(to), lane, std::move(frame));
  }
  void pass(Duration time = seconds(20)) { scheduler_.run_until(scheduler_.now() + time); }
  void always(FaultKind kind) { network_.per_million()[kind] = 1'000'000; }

  Scheduler scheduler_;
  Decisions decisions_{3};
  std::array<Gate, 3> gates_{Gate(scheduler_), Gate(scheduler_), Gate(scheduler_)};
  std::array<Receiver, 3> receivers_;
  SimNetwork network_{scheduler_, decisions_, 3, {.queue_frames_max = 100}};
};

TEST_F(SimNetworkTest, FramesOfOneLaneKeepTheirOrder) {
  std::string expected;
  for (int i = 0; i < 50; ++i) {
    send(0, 1, fmt::format("{}", i));
    expected += fmt::format("1:{} ", i);
  }
  EXPECT_EQ(receivers_[1].trace, "");  // never at once
  pass();
  EXPECT_EQ(receivers_[1].trace, expected);
  EXPECT_EQ(receivers_[2].trace, "");
  EXPECT_EQ(network_.counters().delivered, 50U);
}

TEST_F(SimNetworkTest, ACutIsOneWayAndTakesWhatIsOnItsWay) {
  send(0, 1, "early");
  network_.set_open(CutLayer::kCut, 0, 1, false);
  send(0, 1, "late");
  send(1, 0, "back");
  pass();
  EXPECT_EQ(receivers_[1].trace, "");
  EXPECT_EQ(receivers_[0].trace, "2:back ");
  EXPECT_EQ(network_.counters().dropped_closed, 2U);
  network_.set_open(CutLayer::kCut, 0, 1, true);
  send(0, 1, "again");
  pass();
  EXPECT_EQ(receivers_[1].trace, "1:again ");
}

TEST_F(SimNetworkTest, ADirectionIsOpenOnlyIfEveryLayerIs) {
  network_.impose(CutLayer::kGraph, Connectivity(3, false));
  network_.set_open(CutLayer::kCut, 0, 1, false);
  network_.clear(CutLayer::kGraph);
  EXPECT_FALSE(network_.is_open(0, 1));
  EXPECT_TRUE(network_.is_open(1, 0));
  EXPECT_EQ(network_.connectivity().closed_count(), 1U);
  network_.heal({false, true, true});
  EXPECT_FALSE(network_.is_open(0, 1));
  network_.heal({true, true, false});
  EXPECT_TRUE(network_.is_open(0, 1));
}

TEST_F(SimNetworkTest, LinksComeUpBreakAndComeUpAgain) {
  pass();
  EXPECT_TRUE(receivers_[0].links == "+2 +3 " || receivers_[0].links == "+3 +2 ");
  receivers_[0].links.clear();
  stop(1);
  pass();
  EXPECT_EQ(receivers_[0].links, "-2 ");
  start(1);
  pass();
  EXPECT_EQ(receivers_[0].links, "-2 +2 ");
  network_.set_open(CutLayer::kCut, 1, 0, false);
  pass();
  EXPECT_EQ(receivers_[0].links, "-2 +2 -2 ");
  EXPECT_FALSE(network_.is_up(0, 1));
  network_.set_open(CutLayer::kCut, 1, 0, true);
  pass();
  EXPECT_EQ(receivers_[0].links, "-2 +2 -2 +2 ");
  always(FaultKind::kLinkBreakHidden);
  stop(1);
  pass();
  EXPECT_EQ(receivers_[0].links, "-2 +2 -2 +2 ");
}

TEST_F(SimNetworkTest, ACutMendedBeforeItIsNoticedBreaksNothing) {
  pass();
  receivers_[0].links.clear();
  network_.set_open(CutLayer::kCut, 1, 0, false);
  network_.set_open(CutLayer::kCut, 1, 0, true);
  pass();
  EXPECT_EQ(receivers_[0].links, "");
  EXPECT_TRUE(network_.is_up(0, 1));
}

TEST_F(SimNetworkTest, TheDeadHearNothingAndALaterLifeNothingOfTheEarlier) {
  send(0, 1, "lost");
  stop(1);
  start(1);
  pass();
  EXPECT_EQ(receivers_[1].trace, "");
  EXPECT_EQ(network_.counters().dropped_dead, 1U);
}

TEST_F(SimNetworkTest, AFrozenNodeHearsLaterInOrder) {
  gates_[1].freeze();
  send(0, 1, "a");
  send(0, 1, "b");
  pass(seconds(5));
  send(2, 1, "c");
  pass(seconds(5));
  EXPECT_EQ(receivers_[1].trace, "");
  gates_[1].thaw();
  send(0, 1, "d");
  pass();
  EXPECT_EQ(receivers_[1].trace, "1:a 1:b 3:c 1:d ");
  gates_[1].freeze();
  send(0, 1, "never");
  pass();
  stop(1);
  start(1);
  pass();
  EXPECT_EQ(receivers_[1].trace, "1:a 1:b 3:c 1:d ");
}

TEST_F(SimNetworkTest, QueuesAreBoundedAndWhatDoesNotFitIsCounted) {
  network_.clog(0, 1, scheduler_.now() + seconds(5));
  for (int i = 0; i < 130; ++i) send(0, 1, "x");
  EXPECT_EQ(network_.counters().dropped_queue_full, 30U);
  EXPECT_EQ(decisions_.counters()[FaultKind::kQueueFull], 30U);
  pass(seconds(4));
  EXPECT_EQ(receivers_[1].trace, "");
  pass(seconds(2));
  EXPECT_EQ(network_.counters().delivered, 100U);
  send(0, 1, "y");
  pass();
  EXPECT_EQ(network_.counters().delivered, 101U);
}

TEST_F(SimNetworkTest, WhatAClogHoldsComesInOrderWhenItEnds) {
  network_.clog(0, 1, scheduler_.now() + seconds(500));
  for (const char* frame : {"a", "b", "c"}) send(0, 1, frame);
  pass();
  EXPECT_EQ(receivers_[1].trace, "");
  network_.unclog(0, 1);
  send(0, 1, "d");
  pass();
  EXPECT_EQ(receivers_[1].trace, "1:a 1:b 1:c 1:d ");
  network_.clog(0, 1, scheduler_.now() + seconds(500));
  send(0, 1, "e");
  network_.heal({true, true, true});
  pass();
  EXPECT_EQ(receivers_[1].trace, "1:a 1:b 1:c 1:d 1:e ");
}

TEST_F(SimNetworkTest, ChangedBytesAreDroppedNeverDelivered) {
  always(FaultKind::kMessageCorrupted);
  for (int i = 0; i < 50; ++i) send(0, 1, std::string(static_cast<size_t>(i), 'x'));
  pass();
  EXPECT_EQ(receivers_[1].trace, "");
  EXPECT_EQ(network_.counters().dropped_corrupt, 50U);
}

TEST_F(SimNetworkTest, ReplayedFramesComeTwice) {
  always(FaultKind::kMessageReplayed);
  send(0, 1, "x");
  pass(seconds(60));
  EXPECT_EQ(receivers_[1].trace, "1:x 1:x ");
}

TEST_F(SimNetworkTest, LostFramesAreLostAndReorderedFramesOvertake) {
  network_.per_million()[FaultKind::kMessageReordered] = 300'000;
  std::string expected;
  for (int i = 0; i < 50; ++i) {
    send(0, 1, fmt::format("{}", i));
    expected += fmt::format("1:{} ", i);
  }
  pass();
  EXPECT_EQ(receivers_[1].trace.size(), expected.size());
  EXPECT_NE(receivers_[1].trace, expected);
  always(FaultKind::kMessageLost);
  send(0, 2, "x");
  pass();
  EXPECT_EQ(receivers_[2].trace, "");
  EXPECT_EQ(network_.counters().lost, 1U);
}

TEST_F(SimNetworkTest, HalfOpenSwallowsAndTellsNobody) {
  pass();
  receivers_[0].links.clear();
  network_.set_half_open(0, 1, true);
  send(0, 1, "x");
  pass();
  EXPECT_EQ(receivers_[1].trace, "");
  EXPECT_EQ(receivers_[0].links, "");
  EXPECT_TRUE(network_.is_open(0, 1));
}

TEST_F(SimNetworkTest, AFlappingLinkEndsOpenAndClosesInBetween) {
  network_.flap(0, 1, milliseconds(10), scheduler_.now() + seconds(1), Random(1));
  int closed = 0;
  int open = 0;
  for (int i = 0; i < 100; ++i) {
    pass(milliseconds(9));
    (network_.is_open(0, 1) ? open : closed) += 1;
  }
  EXPECT_GT(closed, 10);
  EXPECT_GT(open, 10);
  pass();
  EXPECT_TRUE(network_.is_open(0, 1));
}

TEST_F(SimNetworkTest, SwizzledLinksClogAndComeBackWithoutLoss) {
  Random random(2);
  network_.swizzle(6, milliseconds(100), seconds(1), random);
  pass(milliseconds(150));
  for (size_t to : {1U, 2U}) send(0, to, "x");
  pass(milliseconds(500));
  EXPECT_EQ(receivers_[1].trace + receivers_[2].trace, "");
  pass();
  EXPECT_EQ(receivers_[1].trace + receivers_[2].trace, "1:x 1:x ");
}

TEST_F(SimNetworkTest, AFilterDropsWhatItRefuses) {
  network_.set_filter([](size_t, size_t to, Lane lane, ByteView) { return to != 1 || lane == Lane::kBulk; });
  send(0, 1, "x");
  send(0, 1, "bulk", Lane::kBulk);
  send(0, 2, "y");
  pass();
  EXPECT_EQ(receivers_[1].trace, "1:bulk ");
  EXPECT_EQ(receivers_[2].trace, "1:y ");
  EXPECT_EQ(network_.counters().filtered, 1U);
}

}  // namespace
}  // namespace conclave::sim
