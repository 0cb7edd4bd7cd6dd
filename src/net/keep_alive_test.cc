// Pings of HTTP/2, the server's own and those of clients.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/mark.h"
#include "net/ping_strikes.h"
#include "net/testing/http2_test_base.h"

namespace conclave::net {
namespace {

using std::chrono::hours;
using std::chrono::seconds;

Instant at(int64_t s) {
  return Instant(seconds(s));
}

TEST(PingStrikes, TwoAreForgivenAndWhatIsSentWipesThemOut) {
  PingStrikes strikes(seconds(5));
  EXPECT_TRUE(strikes.allows(at(100), true)) << "the first is never too soon";
  EXPECT_TRUE(strikes.allows(at(104), true));
  EXPECT_TRUE(strikes.allows(at(108), true));
  EXPECT_FALSE(strikes.allows(at(112), true));
  strikes.wipe();
  EXPECT_TRUE(strikes.allows(at(112), true));
  for (int64_t s = 117; s < 1000; s += 5) EXPECT_TRUE(strikes.allows(at(s), true)) << s;
}

TEST(PingStrikes, WithoutStreamsNobodyNeedsToAsk) {
  PingStrikes strikes(seconds(5));
  for (int64_t i = 0; i < 10; ++i) EXPECT_TRUE(strikes.allows(at(i * 7200), false)) << i;
  EXPECT_TRUE(strikes.allows(at(72'000), false));
  EXPECT_TRUE(strikes.allows(at(73'000), false));
  EXPECT_TRUE(strikes.allows(at(74'000), false));
  EXPECT_FALSE(strikes.allows(at(75'000), false));
}

class KeepAliveTest : public Http2Test {
 protected:
  static size_t pings(RawPeer& peer) {
    const auto frames = frames_in(peer.received());
    return static_cast<size_t>(
        std::ranges::count_if(frames, [](const Frame& got) { return got.type == kPing && (got.flags & kAck) == 0; }));
  }
  static size_t answered(RawPeer& peer) {
    const auto frames = frames_in(peer.received());
    return static_cast<size_t>(
        std::ranges::count_if(frames, [](const Frame& got) { return got.type == kPing && (got.flags & kAck) != 0; }));
  }
  std::unique_ptr<RawPeer> connect_with_call() {
    auto peer = connect();
    peer->send(request(1, "/test.Echo/Never", message("x")));
    EXPECT_TRUE(run_until([&] { return service.counts.half_closed > 0; }));
    return peer;
  }
};

TEST_F(KeepAliveTest, WhoIsSilentIsAskedAndClosedWithoutAnAnswer) {
  auto peer = connect_with_call();
  pass(hours(2) - seconds(5));
  expect_alive();
  EXPECT_EQ(pings(*peer), 0U);
  pass(seconds(6));
  EXPECT_TRUE(run_until([&] { return pings(*peer) == 1; }));
  pass(seconds(15));
  expect_alive();
  EXPECT_FALSE(peer->is_closed());
  pass(seconds(6));
  EXPECT_TRUE(run_until([&] { return peer->is_closed(); }));
  EXPECT_EQ(service.counts.cancelled, 1U);
  EXPECT_EQ(server->port_counts().timeouts, 1U);
}

TEST_F(KeepAliveTest, WhoAnswersIsAskedAgainMuchLater) {
  auto peer = connect_with_call();
  for (size_t i = 1; i <= 3; ++i) {
    pass(hours(2) + seconds(1));
    ASSERT_TRUE(run_until([&] { return pings(*peer) == i; }));
    peer->send(frame(kPing, kAck, 0, std::string(8, '\0')));
    ASSERT_TRUE(run_until([&] { return peer->sent_all(); }));
    pass(seconds(15));
    expect_alive();
    pass(seconds(15));
    expect_alive();
    ASSERT_FALSE(peer->is_closed());
    ASSERT_EQ(pings(*peer), i);
  }
  EXPECT_EQ(service.counts.cancelled, 0U);
}

TEST_F(KeepAliveTest, WithoutACallNobodyIsAsked) {
  auto peer = connect();
  peer->send(request(1, "/test.Echo/Unary", message("x")));
  EXPECT_TRUE(run_until([&] { return ended(*peer) == 1; }));
  for (int i = 0; i < 5; ++i) pass(hours(1));
  expect_alive();
  EXPECT_EQ(pings(*peer), 0U);
  EXPECT_FALSE(peer->is_closed());
}

TEST_F(KeepAliveTest, ZeroMeansNever) {
  restart({.keep_alive = {.interval = Duration::zero()}});
  auto peer = connect_with_call();
  for (int i = 0; i < 5; ++i) pass(hours(1));
  expect_alive();
  EXPECT_EQ(pings(*peer), 0U);
  EXPECT_FALSE(peer->is_closed());
}

TEST_F(KeepAliveTest, TheChannelAnswers) {
  const auto sent = [] {
    uint64_t hits = 0;
    for (const Mark* mark : all_marks()) {
      if (std::string_view(mark->name) == "net_keep_alive_ping") hits += mark->hits.load();
    }
    return hits;
  };
  const uint64_t before = sent();
  auto channel = Channel::make(loop, "127.0.0.1", server->port());
  bool heard = false;
  bool finished = false;
  auto stream = channel->open("/test.Echo/Stream", {.on_message = [&](ByteView) { heard = true; },
                                                    .on_finished = [&](const GrpcStatus&) { finished = true; }});
  stream->send("x");
  EXPECT_TRUE(run_until([&] { return heard; }));
  pass(hours(3));
  EXPECT_TRUE(run_until([&] { return sent() == before + 1; }));
  pass(seconds(15));
  expect_alive();
  pass(seconds(15));
  expect_alive();
  EXPECT_FALSE(finished);
  heard = false;
  stream->send("y");
  EXPECT_TRUE(run_until([&] { return heard; }));
}

TEST_F(KeepAliveTest, ClientsThatAskTooOftenAreSentAway) {
  auto peer = connect_with_call();
  const std::string ping = frame(kPing, 0, 0, "12345678");
  peer->send(ping + ping + ping);
  EXPECT_TRUE(run_until([&] { return answered(*peer) == 3; }));
  EXPECT_FALSE(goaway(*peer).has_value());
  peer->send(ping);
  EXPECT_TRUE(run_until([&] { return peer->is_closed(); }));
  EXPECT_EQ(goaway(*peer), kEnhanceYourCalm);
  const auto frames = frames_in(peer->received());
  const auto told = std::ranges::find_if(frames, [](const Frame& got) { return got.type == kGoAway; });
  ASSERT_NE(told, frames.end());
  EXPECT_EQ(told->payload.substr(8), "too_many_pings");
  EXPECT_TRUE(run_until([&] { return service.counts.cancelled == 1; }));
  expect_alive();
}

TEST_F(KeepAliveTest, ClientsThatAskAtTheirTimeAreAnswered) {
  auto peer = connect_with_call();
  for (size_t i = 1; i <= 10; ++i) {
    pass(seconds(5));
    peer->send(frame(kPing, 0, 0, "12345678"));
    ASSERT_TRUE(run_until([&] { return answered(*peer) == i; }));
  }
  EXPECT_FALSE(goaway(*peer).has_value());
  // Without a call there is no need to.
  auto idle = connect();
  for (size_t i = 1; i <= 3; ++i) {
    pass(seconds(5));
    idle->send(frame(kPing, 0, 0, "12345678"));
    ASSERT_TRUE(run_until([&] { return answered(*idle) == i; }));
  }
  pass(seconds(5));
  idle->send(frame(kPing, 0, 0, "12345678"));
  EXPECT_TRUE(run_until([&] { return idle->is_closed(); }));
  EXPECT_EQ(goaway(*idle), kEnhanceYourCalm);
}

TEST_F(KeepAliveTest, AnswersToPingsThatNobodySentAreAFlood) {
  auto peer = connect();
  std::string bytes;
  for (int i = 0; i < 5000; ++i) bytes += frame(kPing, kAck, 0, "12345678");
  peer->send(bytes);
  EXPECT_TRUE(run_until([&] { return peer->is_closed(); }));
  EXPECT_EQ(goaway(*peer), kEnhanceYourCalm);
}

}  // namespace
}  // namespace conclave::net
