// More connections than there may be, and connections that say nothing.
#include <sys/resource.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "net/testing/http2_test_base.h"

namespace conclave::net {
namespace {

using std::chrono::seconds;

class ConnectionsTest : public Http2Test {
 protected:
  // Whose call never ends.
  std::unique_ptr<RawPeer> connect_busy() {
    const size_t before = service.counts.half_closed;
    auto peer = connect();
    peer->send(request(1, "/test.Echo/Never", message("x")));
    EXPECT_TRUE(run_until([&] { return service.counts.half_closed == before + 1; }));
    return peer;
  }
  // Whose call was answered.
  std::unique_ptr<RawPeer> connect_idle() {
    auto peer = connect();
    peer->send(request(1, "/test.Echo/Unary", message("x")));
    EXPECT_TRUE(run_until([&] { return ended(*peer) == 1; }));
    return peer;
  }
  std::unique_ptr<RawPeer> connect_silent() {
    const uint64_t before = server->port_counts().accepted;
    auto peer = std::make_unique<RawPeer>(loop, server->port());
    EXPECT_TRUE(run_until([&] { return server->port_counts().accepted == before + 1; }));
    return peer;
  }
};

TEST_F(ConnectionsTest, TheSilentMakeRoomAndTheBusyDoNot) {
  restart({.connections_max = 4});
  const auto busy = connect_busy();
  const auto idle_first = connect_idle();
  const auto silent = connect_silent();
  const auto idle_later = connect_idle();
  EXPECT_EQ(server->connections(), 4U);
  // Who never asked for anything goes first, though it came later than others.
  const auto second_busy = connect_busy();
  EXPECT_TRUE(run_until([&] { return silent->is_closed(); }));
  EXPECT_EQ(server->port_counts().evicted, 1U);
  // Then the one silent for longest.
  idle_first->send(request(3, "/test.Echo/Unary", message("x")));
  EXPECT_TRUE(run_until([&] { return ended(*idle_first) == 2; }));
  const auto third_busy = connect_busy();
  EXPECT_TRUE(run_until([&] { return idle_later->is_closed(); }));
  EXPECT_EQ(goaway(*idle_later), 0U) << "told, so that its client asks again elsewhere";
  EXPECT_FALSE(idle_first->is_closed());
  const auto fourth_busy = connect_busy();
  EXPECT_TRUE(run_until([&] { return idle_first->is_closed(); }));
  EXPECT_EQ(server->port_counts().evicted, 3U);
  // All are busy now.
  RawPeer refused(loop, server->port());
  EXPECT_TRUE(run_until([&] { return refused.is_closed(); }));
  EXPECT_EQ(server->port_counts().refused, 1U);
  EXPECT_EQ(server->port_counts().accepted, 7U);
  EXPECT_EQ(service.counts.cancelled, 0U);
  for (const RawPeer* peer : {busy.get(), second_busy.get(), third_busy.get(), fourth_busy.get()}) {
    EXPECT_FALSE(peer->is_closed());
  }
}

TEST_F(ConnectionsTest, AStreamWithoutAMessageIsSilence) {
  restart({.connections_max = 1});
  auto peer = connect();
  peer->send(frame(kHeaders, kEndHeaders, 1, request_headers("/test.Echo/Stream")) +
             frame(kData, 0, 1, message("cut").substr(0, 6)));
  EXPECT_TRUE(run_until([&] { return service.counts.opened == 1; }));
  expect_alive();
  EXPECT_TRUE(peer->is_closed());
  EXPECT_EQ(service.counts.cancelled, 1U);
}

TEST_F(ConnectionsTest, AStreamThatSpokeOnceIsNone) {
  restart({.connections_max = 1});
  auto peer = connect();
  peer->send(frame(kHeaders, kEndHeaders, 1, request_headers("/test.Echo/Stream")) + frame(kData, 0, 1, message("x")));
  EXPECT_TRUE(run_until([&] { return peer->received().find(message("x")) != std::string::npos; }));
  RawPeer refused(loop, server->port());
  EXPECT_TRUE(run_until([&] { return refused.is_closed(); }));
  EXPECT_FALSE(peer->is_closed());
}

TEST_F(ConnectionsTest, Http1MakesRoomBetweenItsRequests) {
  restart({.connections_max = 1});
  RawPeer waiting(loop, server->port());
  waiting.send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(run_until([&] { return service.later != nullptr; }));
  RawPeer refused(loop, server->port());
  EXPECT_TRUE(run_until([&] { return refused.is_closed(); }));
  service.later({.body = "at last"});
  EXPECT_TRUE(run_until([&] { return !waiting.received().empty(); }));
  expect_alive();
  EXPECT_TRUE(waiting.is_closed());
}

TEST_F(ConnectionsTest, AFloodOfTheSilentKeepsNobodyOut) {
  restart({.connections_max = 20});
  const auto busy = connect_busy();
  const auto idle = connect_idle();
  std::vector<std::unique_ptr<RawPeer>> flood;
  flood.reserve(300);
  for (int i = 0; i < 300; ++i) flood.push_back(std::make_unique<RawPeer>(loop, server->port()));
  EXPECT_TRUE(run_until([&] {
    EXPECT_LE(server->connections(), 20U);
    return server->port_counts().accepted == 302;
  }));
  EXPECT_EQ(server->port_counts().evicted, 282U);
  EXPECT_EQ(server->port_counts().refused, 0U);
  expect_alive();
  EXPECT_FALSE(busy->is_closed());
  EXPECT_FALSE(idle->is_closed());
}

TEST_F(ConnectionsTest, WithoutDescriptorsTheBacklogWaitsAndTheLoopRests) {
#if defined(__has_feature)
#if __has_feature(undefined_behavior_sanitizer)
  GTEST_SKIP() << "the sanitizer looks at memory through a pipe, for which there would be no descriptor";
#endif
#endif
  RawPeer peer(loop, server->port());  // its descriptor is there; the server's is not
  peer.send("GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = 0;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  int turns = 0;
  loop.add_turn_end([&](Instant) { ++turns; });
  const bool failed = run_until([&] { return server->port_counts().failures >= 3; });
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(failed);
  EXPECT_LT(turns, 100) << "it does not spin";
  EXPECT_EQ(server->connections(), 0U);
  EXPECT_TRUE(run_until([&] { return !peer.received().empty(); }));
  EXPECT_EQ(server->port_counts().accepted, 1U);
  expect_alive();
}

TEST_F(ConnectionsTest, HeadersThatAreNeverWholeAreNotWaitedFor) {
  auto peer = connect_idle();
  auto other = connect_idle();
  // Three headers of five, in a frame that says more follow.
  peer->send(frame(kHeaders, 0, 3, request_headers("/test.Echo/Unary").substr(0, 40)));
  // One that cannot be is refused, and no reason to end the connection later.
  other->send(frame(kHeaders, kEndHeaders | kEndStream, 3, hpack({{"No-Capitals", "x"}})));
  EXPECT_TRUE(run_until([&] {
    const auto frames = frames_in(other->received());
    return peer->sent_all() && std::ranges::any_of(frames, [](const Frame& got) { return got.type == kReset; });
  }));
  expect_alive();
  pass(seconds(11));
  EXPECT_TRUE(run_until([&] { return peer->is_closed(); }));
  EXPECT_EQ(server->port_counts().timeouts, 1U);
  pass(seconds(60));
  expect_alive();
  EXPECT_FALSE(other->is_closed());
}

}  // namespace
}  // namespace conclave::net
