// Server and channel together, in one loop.
#include "net/server.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "net/client.h"
#include "net/testing/echo_service.h"
#include "net/testing/http2_frames.h"
#include "net/testing/loop_test_base.h"
#include "net/testing/raw_peer.h"

namespace conclave::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class ServerTest : public LoopTest {
 protected:
  ServerTest() {
    loop.add_turn_end([this](Instant) {
      if (server) server->flush();
    });
    start();
  }
  void start(const ServerOptions& options = {}) {
    auto made = Server::listen(loop, service, options);
    ASSERT_TRUE(made.has_value()) << made.error().message;
    server = std::move(*made);
    channel = Channel::make(loop, "127.0.0.1", server->port());
  }

  struct Answer {
    bool done = false;
    GrpcStatus status;
    std::string response;
  };
  // Fills in `answer` when it comes; that must outlive the call.
  void call(Channel& over, std::string_view path, std::string_view request, Answer& answer,
            Duration timeout = Duration::zero()) {
    over.call(path, request, timeout, [&answer](const GrpcStatus& status, ByteView response) {
      EXPECT_FALSE(answer.done);
      answer = {.done = true, .status = status, .response = std::string(response)};
    });
  }
  Answer call(std::string_view path, std::string_view request, Duration timeout = Duration::zero()) {
    Answer answer;
    call(*channel, path, request, answer, timeout);
    EXPECT_TRUE(run_until([&] { return answer.done; }));
    return answer;
  }

  EchoService service;
  std::unique_ptr<Server> server;
  std::unique_ptr<Channel> channel;
};

TEST_F(ServerTest, AUnaryCallIsAnswered) {
  EXPECT_FALSE(channel->is_connected());
  const Answer answer = call("/test.Echo/Unary", "hello");
  EXPECT_TRUE(answer.status.ok()) << answer.status.message;
  EXPECT_EQ(answer.response, "hello");
  EXPECT_TRUE(channel->is_connected());
  EXPECT_EQ(server->connections(), 1U);
  EXPECT_TRUE(run_until([&] { return service.counts.destroyed == 1; }));
  EXPECT_EQ(service.counts.cancelled, 0U);
}

TEST_F(ServerTest, AnEmptyAndALargeMessageArriveWhole) {
  EXPECT_EQ(call("/test.Echo/Unary", "").response, "");
  std::string large(kRequestBytesMax, 'x');
  for (size_t i = 0; i < large.size(); i += 4096) large[i] = static_cast<char>(i >> 12);
  const Answer answer = call("/test.Echo/Unary", large);
  EXPECT_TRUE(answer.status.ok()) << answer.status.message;
  EXPECT_TRUE(answer.response == large);
}

TEST_F(ServerTest, AMessageAboveTheLimitIsRefused) {
  const Answer answer = call("/test.Echo/Unary", std::string(kRequestBytesMax + 1, 'x'));
  EXPECT_EQ(answer.status.code, 8U) << answer.status.message;
  EXPECT_EQ(service.counts.cancelled, 1U);
  EXPECT_TRUE(call("/test.Echo/Unary", "and the connection lives").status.ok());
  EXPECT_EQ(server->connections(), 1U);
}

TEST_F(ServerTest, AStatusAndItsMessageArrive) {
  const Answer answer = call("/test.Echo/Refuse", "x");
  EXPECT_EQ(answer.status.code, 9U);
  EXPECT_EQ(answer.status.message, "etcdserver: not today, 100 % sure\n");
  EXPECT_EQ(answer.response, "");
}

TEST_F(ServerTest, AHintWhenToAskAgainArrivesWithTheStatus) {
  for (const char* request : {"", "an answer before it"}) {
    const Answer answer = call("/test.Echo/Busy", request);
    EXPECT_EQ(answer.status.code, 8U);
    EXPECT_EQ(answer.status.message, "too many requests");
    EXPECT_EQ(answer.status.retry_after, milliseconds(130)) << request;
  }
  EXPECT_EQ(call("/test.Echo/Refuse", "x").status.retry_after, Duration::zero());
}

TEST_F(ServerTest, AnUnknownMethodIsUnimplemented) {
  EXPECT_EQ(call("/test.Nothing/Here", "x").status.code, 12U);
}

TEST_F(ServerTest, AThousandCallsOverEightConnectionsAllAnswer) {
  std::vector<std::unique_ptr<Channel>> channels;
  channels.reserve(8);
  for (int i = 0; i < 8; ++i) channels.push_back(Channel::make(loop, "127.0.0.1", server->port()));
  std::vector<Answer> answers(1000);
  size_t done = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    const std::string request = "request " + std::to_string(i) + std::string(i * 7 % 3000, '.');
    channels[i % 8]->call("/test.Echo/Unary", request, seconds(10),
                          [&, i, request](const GrpcStatus& status, ByteView response) {
                            EXPECT_TRUE(status.ok()) << status.message;
                            EXPECT_EQ(response, request);
                            EXPECT_FALSE(std::exchange(answers[i].done, true));
                            ++done;
                          });
  }
  EXPECT_TRUE(run_until([&] { return done == answers.size(); }));
  EXPECT_EQ(server->connections(), 8U);
  EXPECT_TRUE(run_until([&] { return service.counts.destroyed == answers.size(); }));
  EXPECT_EQ(service.counts.cancelled, 0U);
}

TEST_F(ServerTest, AStreamEchoesInOrderAndEnds) {
  std::vector<std::string> heard;
  GrpcStatus end{.code = 99};
  auto stream =
      channel->open("/test.Echo/Stream", {.on_message = [&](ByteView message) { heard.emplace_back(message); },
                                          .on_finished = [&](const GrpcStatus& status) { end = status; }});
  stream->send("one");
  stream->send("two");
  EXPECT_TRUE(run_until([&] { return heard.size() == 2; }));
  EXPECT_EQ(end.code, 99U);
  stream->send("three");
  stream->half_close();
  EXPECT_TRUE(run_until([&] { return end.code != 99; }));
  EXPECT_TRUE(end.ok()) << end.message;
  EXPECT_EQ(heard, (std::vector<std::string>{"one", "two", "three"}));
  EXPECT_EQ(stream->queued_bytes(), 0U);
}

TEST_F(ServerTest, TenMebibytesEachWayKeepTheirBoundsAndOrder) {
  constexpr size_t kMessage = 64 << 10;
  constexpr size_t kMessages = 160;
  size_t sent = 0;
  size_t heard = 0;
  bool finished = false;
  std::unique_ptr<ClientCall> stream =
      channel->open("/test.Echo/Stream", {.on_message =
                                              [&](ByteView message) {
                                                ASSERT_EQ(message.size(), kMessage);
                                                ASSERT_EQ(message.front(), static_cast<char>(heard));
                                                ++heard;
                                              },
                                          .on_finished =
                                              [&](const GrpcStatus& status) {
                                                EXPECT_TRUE(status.ok()) << status.message;
                                                finished = true;
                                              }});
  EXPECT_TRUE(run_until([&] {
    while (sent < kMessages && stream->queued_bytes() < 4 * kMessage) {
      stream->send(std::string(kMessage, static_cast<char>(sent)));
      if (++sent == kMessages) stream->half_close();
    }
    return finished;
  }));
  EXPECT_EQ(heard, kMessages);
  EXPECT_LE(service.counts.queued_max, (size_t{128} << 10) + kMessage + kMessage);
}

TEST_F(ServerTest, ACancelledCallIsToldToItsHandlerAndNobodyElse) {
  bool told = false;
  auto stream = channel->open("/test.Echo/Never", {.on_message = [&](ByteView) { told = true; },
                                                   .on_finished = [&](const GrpcStatus&) { told = true; }});
  stream->send("x");
  EXPECT_TRUE(run_until([&] { return service.counts.opened == 1; }));
  stream.reset();
  EXPECT_TRUE(run_until([&] { return service.counts.destroyed == 1; }));
  EXPECT_EQ(service.counts.cancelled, 1U);
  EXPECT_FALSE(told);
  EXPECT_TRUE(call("/test.Echo/Unary", "still there").status.ok());
}

TEST_F(ServerTest, ACallCancelledBeforeItsConnectionStandsLeavesNothing) {
  auto stream = channel->open("/test.Echo/Never", {});
  stream->send("x");
  stream.reset();
  EXPECT_TRUE(call("/test.Echo/Unary", "next").status.ok());
  EXPECT_EQ(service.counts.opened, 1U);
}

TEST_F(ServerTest, ATimeLimitEndsTheCallOnBothSides) {
  const Instant before = clock.now();
  const Answer answer = call("/test.Echo/Never", "x", milliseconds(50));
  EXPECT_EQ(answer.status.code, 4U) << answer.status.message;
  EXPECT_GE(clock.now() - before, milliseconds(50));
  EXPECT_TRUE(run_until([&] { return service.counts.destroyed == 1; }));
  EXPECT_EQ(service.counts.cancelled, 1U);
}

TEST_F(ServerTest, AConnectionThatBreaksEndsItsCallsAndTheNextCallMakesAnother) {
  std::vector<Answer> answers(3);
  for (Answer& answer : answers) call(*channel, "/test.Echo/Never", "x", answer);
  EXPECT_TRUE(run_until([&] { return service.counts.half_closed == 3; }));
  const uint16_t port = server->port();
  server.reset();
  EXPECT_EQ(service.counts.cancelled, 3U);
  EXPECT_EQ(service.counts.destroyed, 3U);
  EXPECT_TRUE(run_until([&] { return answers[0].done && answers[1].done && answers[2].done; }));
  for (const Answer& answer : answers) EXPECT_EQ(answer.status.code, 14U) << answer.status.message;
  EXPECT_FALSE(channel->is_connected());

  const Answer refused = call("/test.Echo/Unary", "x");
  EXPECT_EQ(refused.status.code, 14U) << refused.status.message;
  auto made = Server::listen(loop, service, {.port = port});
  ASSERT_TRUE(made.has_value()) << made.error().message;
  server = std::move(*made);
  EXPECT_TRUE(call("/test.Echo/Unary", "again").status.ok());
}

TEST_F(ServerTest, AChannelMayEndWithinItsOwnCallbacks) {
  bool done = false;
  channel->call("/test.Echo/Unary", "x", seconds(5), [&](const GrpcStatus&, ByteView) {
    channel.reset();
    done = true;
  });
  Answer other;
  call(*channel, "/test.Echo/Never", "x", other);
  EXPECT_TRUE(run_until([&] { return done && service.counts.destroyed == 2; }));
  EXPECT_FALSE(other.done) << "an abandoned call is not told";
}

TEST_F(ServerTest, AStreamMayEndItselfWithinItsOwnEvents) {
  std::unique_ptr<ClientCall> stream;
  bool heard = false;
  stream = channel->open("/test.Echo/Stream", {.on_message =
                                                   [&](ByteView) {
                                                     heard = true;
                                                     stream.reset();
                                                   },
                                               .on_finished = [&](const GrpcStatus&) { ADD_FAILURE(); }});
  stream->send("x");
  EXPECT_TRUE(run_until([&] { return heard && service.counts.destroyed == 1; }));
}

TEST_F(ServerTest, DrainLetsCallsFinishAndTakesNoConnections) {
  std::vector<std::string> heard;
  bool finished = false;
  auto stream = channel->open("/test.Echo/Stream", {.on_message = [&](ByteView m) { heard.emplace_back(m); },
                                                    .on_finished =
                                                        [&](const GrpcStatus& status) {
                                                          EXPECT_TRUE(status.ok()) << status.message;
                                                          finished = true;
                                                        }});
  stream->send("before");
  EXPECT_TRUE(run_until([&] { return heard.size() == 1; }));
  server->drain();
  run_for(milliseconds(250));
  EXPECT_EQ(server->connections(), 1U);
  stream->send("while");
  EXPECT_TRUE(run_until([&] { return heard.size() == 2; }));
  EXPECT_EQ(call("/test.Echo/Unary", "x").status.code, 14U) << "the listening socket is closed";
  stream->half_close();
  EXPECT_TRUE(run_until([&] { return finished && server->connections() == 0; }));
}

// Two GOAWAY: the first takes all that is on its way, the second, a little later, names the last call that was taken.
TEST_F(ServerTest, DrainSaysGoawayTwice) {
  RawPeer peer(loop, server->port());
  const auto ask = [](uint32_t stream) {
    return frame(kHeaders, kEndHeaders | kEndStream, stream, request_headers("/test.Echo/Never"));
  };
  peer.send(std::string(kPreface) + frame(kSettings, 0, 0) + ask(1));
  EXPECT_TRUE(run_until([&] { return service.counts.half_closed == 1; }));
  const auto told = [&](FrameType type) {
    std::vector<std::string> payloads;
    for (const Frame& got : frames_in(peer.received())) {
      if (got.type == type) payloads.emplace_back(got.payload);
    }
    return payloads;
  };
  server->drain();
  peer.send(ask(3));
  EXPECT_TRUE(run_until([&] { return told(kGoAway).size() == 2; }));
  EXPECT_EQ(told(kGoAway), (std::vector<std::string>{be32(0x7fffffff) + be32(0), be32(3) + be32(0)}));
  EXPECT_EQ(service.counts.half_closed, 2U) << "what was on its way is served";
  const size_t pings = told(kPing).size();
  peer.send(ask(5) + frame(kPing, 0, 0, "behind 5"));
  EXPECT_TRUE(run_until([&] { return told(kPing).size() > pings; }));
  EXPECT_EQ(service.counts.half_closed, 2U);
  EXPECT_FALSE(peer.is_closed()) << "calls are under way";
}

TEST_F(ServerTest, ConnectionsAboveTheLimitAreClosed) {
  server.reset();
  start({.connections_max = 2});
  auto second = Channel::make(loop, "127.0.0.1", server->port());
  auto third = Channel::make(loop, "127.0.0.1", server->port());
  Answer waiting;
  call(*channel, "/test.Echo/Never", "x", waiting);
  call(*second, "/test.Echo/Never", "x", waiting);
  EXPECT_TRUE(run_until([&] { return service.counts.half_closed == 2; }));
  Answer refused;
  call(*third, "/test.Echo/Unary", "x", refused);
  EXPECT_TRUE(run_until([&] { return refused.done; }));
  EXPECT_EQ(refused.status.code, 14U);
  EXPECT_EQ(server->connections(), 2U);
  EXPECT_EQ(server->port_counts().accepted, 2U);
  EXPECT_EQ(server->port_counts().refused, 1U);
  EXPECT_FALSE(waiting.done);
}

TEST_F(ServerTest, CallsAboveTheStreamLimitWaitForTheirTurn) {
  server.reset();
  start({.streams_per_connection_max = 4});
  EXPECT_TRUE(call("/test.Echo/Unary", "settings are known").status.ok());
  std::vector<Answer> answers(100);
  for (Answer& answer : answers) call(*channel, "/test.Echo/Unary", "x", answer);
  EXPECT_TRUE(run_until(
      [&] { return std::all_of(answers.begin(), answers.end(), [](const Answer& answer) { return answer.done; }); }));
  for (const Answer& answer : answers) EXPECT_TRUE(answer.status.ok()) << answer.status.message;
}

TEST_F(ServerTest, ANameIsLookedUpAndAnUnknownOneIsUnavailable) {
  channel = Channel::make(loop, "localhost", server->port());
  EXPECT_TRUE(call("/test.Echo/Unary", "x").status.ok());
  channel = Channel::make(loop, "no-such-host.invalid", server->port());
  EXPECT_EQ(call("/test.Echo/Unary", "x").status.code, 14U);
}

TEST_F(ServerTest, AnAddressThatIsTakenIsAnError) {
  auto second = Server::listen(loop, service, {.port = server->port()});
  ASSERT_FALSE(second.has_value());
  EXPECT_NE(second.error().message.find(std::to_string(server->port())), std::string::npos);
  EXPECT_FALSE(Server::listen(loop, service, {.address = "no-such-host.invalid"}).has_value());
}

}  // namespace
}  // namespace conclave::net
