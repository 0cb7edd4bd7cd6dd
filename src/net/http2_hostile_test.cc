// The server against clients that no library would be: frames by hand over a bare socket.
#include <gtest/gtest.h>

#include <algorithm>

#include "net/grpc_framing.h"
#include "net/testing/http2_test_base.h"

namespace conclave::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// HTTP/2's numbers.
constexpr uint32_t kProtocolError = 1;
constexpr uint32_t kFrameSizeError = 6;

class Http2HostileTest : public Http2Test {};

TEST_F(Http2HostileTest, ARequestInSingleBytesIsARequest) {
  auto peer = std::make_unique<RawPeer>(loop, server->port());
  const std::string bytes =
      std::string(kPreface) + frame(kSettings, 0, 0) + request(1, "/test.Echo/Unary", message("slow"));
  for (const char byte : bytes) {
    peer->send(std::string(1, byte));
    EXPECT_TRUE(run_until([&] { return peer->sent_all(); }));
    run_for(std::chrono::microseconds(100));
  }
  EXPECT_TRUE(run_until([&] { return ended(*peer) == 1; }));
  EXPECT_NE(peer->received().find(message("slow")), std::string::npos);
  EXPECT_EQ(headers(*peer)[1]["grpc-status"], "0");
}

TEST_F(Http2HostileTest, SeveralMessagesInOneFrameAndOneInSeveral) {
  auto peer = connect();
  const std::string long_message = message(std::string(100, 'm'));
  peer->send(frame(kHeaders, kEndHeaders, 1, request_headers("/test.Echo/Stream")) +
             frame(kData, 0, 1, message("a") + message("") + message("b") + long_message.substr(0, 3)) +
             frame(kData, 0, 1, long_message.substr(3, 50)) + frame(kData, kEndStream, 1, long_message.substr(53)));
  EXPECT_TRUE(run_until([&] { return ended(*peer) == 1; }));
  std::string body;
  for (const Frame& got : frames_in(peer->received())) {
    if (got.type == kData) body += got.payload;
  }
  EXPECT_EQ(body, message("a") + message("") + message("b") + long_message);
}

TEST_F(Http2HostileTest, WhatIsNotGrpcIsTold) {
  const auto with = [&](std::string_view method, std::string_view type) {
    return answer(frame(kHeaders, kEndHeaders | kEndStream, 1,
                        hpack({{":method", method},
                               {":scheme", "http"},
                               {":path", "/x"},
                               {":authority", "here"},
                               {"content-type", type}})));
  };
  EXPECT_EQ(with("POST", "application/json")[":status"], "415");
  EXPECT_EQ(with("POST", "application/grpcx")[":status"], "415");
  EXPECT_EQ(with("GET", "application/grpc")[":status"], "405");
  EXPECT_EQ(with("POST", "application/grpc+proto")[":status"], "200");
  EXPECT_EQ(service.counts.opened, 0U);
}

TEST_F(Http2HostileTest, MessagesThatCannotBeEndTheirCallOnly) {
  const auto status = [&](const std::string& body) {
    return answer(request(1, "/test.Echo/Unary", body))["grpc-status"];
  };
  EXPECT_EQ(status(message("cut").substr(0, 6)), "13");
  EXPECT_EQ(status(std::string("\1\0\0\0\1x", 6)), "13");
  EXPECT_EQ(status(std::string("\7\0\0\0\1x", 6)), "13");
  EXPECT_EQ(status(std::string("\0\x7f\0\0\0x", 6)), "8");
  EXPECT_EQ(service.counts.cancelled, 4U);
  EXPECT_TRUE(run_until([&] { return service.counts.destroyed == 4; }));
}

TEST_F(Http2HostileTest, HeadersOfACallAreReadAndChecked) {
  const auto with = [&](std::string_view name, std::string_view value) {
    return answer(frame(kHeaders, kEndHeaders, 1, request_headers("/test.Echo/Unary") + hpack({{name, value}})) +
                  frame(kData, kEndStream, 1, message("x")))["grpc-status"];
  };
  EXPECT_EQ(with("grpc-timeout", "soon"), "13");
  EXPECT_EQ(with("grpc-timeout", "1H"), "0");
  EXPECT_EQ(with("grpc-encoding", "deflate"), "12");
  EXPECT_EQ(with("grpc-encoding", "identity"), "0");
  EXPECT_EQ(with("x-large", std::string(16'200, 'l')), "8");
  EXPECT_EQ(with("x-not-large", std::string(15'000, 'l')), "0");
  auto peer = connect();
  peer->send(frame(kHeaders, kEndHeaders, 1, request_headers("/test.Echo/Header") + hpack({{"x-test", "its value"}})) +
             frame(kData, kEndStream, 1));
  EXPECT_TRUE(run_until([&] { return ended(*peer) == 1; }));
  EXPECT_NE(peer->received().find(message("its value")), std::string::npos);
}

TEST_F(Http2HostileTest, AHintWhenToAskAgainIsInTheTrailersAndNowhereElse) {
  auto headers = answer(request(1, "/test.Echo/Busy", message("")));
  EXPECT_EQ(headers["grpc-status"], "8");
  EXPECT_EQ(headers["grpc-retry-pushback-ms"], "130");
  EXPECT_EQ(headers["grpc-status-details-bin"],
            format_status_details({.code = 8, .message = "too many requests", .retry_after = milliseconds(130)}));
  headers = answer(request(1, "/test.Echo/Refuse", message("")));
  EXPECT_EQ(headers["grpc-status"], "9");
  EXPECT_FALSE(headers.contains("grpc-retry-pushback-ms"));
  EXPECT_FALSE(headers.contains("grpc-status-details-bin"));
}

TEST_F(Http2HostileTest, AReasonIsInTheDetailsWithoutAHint) {
  auto headers = answer(request(1, "/test.Echo/Reason", message("")));
  EXPECT_EQ(headers["grpc-status"], "9");
  EXPECT_EQ(headers["grpc-message"], "NOT_TODAY: ask tomorrow");
  EXPECT_FALSE(headers.contains("grpc-retry-pushback-ms"));
  EXPECT_EQ(headers["grpc-status-details-bin"],
            format_status_details({.code = 9, .message = "NOT_TODAY: ask tomorrow", .reason = "NOT_TODAY"}));
}

// Go's clients make an authority of the URL that is their endpoint.
TEST_F(Http2HostileTest, AnAuthorityMayBeAUrl) {
  EXPECT_EQ(answer(frame(kHeaders, kEndHeaders, 1,
                         hpack({{":method", "POST"},
                                {":scheme", "http"},
                                {":path", "/test.Echo/Unary"},
                                {":authority", "http://127.0.0.1:2379"},
                                {"content-type", "application/grpc"},
                                {"te", "trailers"}})) +
                   frame(kData, kEndStream, 1, message("x")))["grpc-status"],
            "0");
}

TEST_F(Http2HostileTest, HeadersThatCannotBeResetTheirCallOnly) {
  const std::string good = request_headers("/test.Echo/Stream");
  const std::string no_path = hpack({{":method", "POST"}, {":scheme", "http"}, {"content-type", "application/grpc"}});
  const std::string trailers = hpack({{"x", "y"}});
  auto peer = connect();
  const auto resets = [&] {
    const auto frames = frames_in(peer->received());
    return std::count_if(frames.begin(), frames.end(),
                         [](const Frame& got) { return got.type == kReset && got.payload == be32(kProtocolError); });
  };
  ptrdiff_t expected = 0;
  uint32_t stream = 1;
  for (const std::string& bad : {good + hpack({{"X-Capital", "y"}}), good + hpack({{"x", "a\nb"}}),
                                 good + hpack({{":path", "/other"}}), no_path}) {
    peer->send(frame(kHeaders, kEndHeaders, stream, bad) + frame(kData, kEndStream, stream, message("x")));
    ++expected;
    EXPECT_TRUE(run_until([&] { return resets() == expected; })) << stream;
    stream += 2;
  }
  EXPECT_EQ(service.counts.opened, 0U);
  // Trailers that do not end the request, and such as would be headers.
  for (const std::string& bad : {frame(kHeaders, kEndHeaders, stream, trailers),
                                 frame(kHeaders, kEndHeaders | kEndStream, stream + 2, hpack({{":path", "/other"}}))}) {
    peer->send(frame(kHeaders, kEndHeaders, stream, good) + bad);
    ++expected;
    EXPECT_TRUE(run_until([&] { return resets() == expected; })) << stream;
    stream += 2;
  }
  EXPECT_EQ(service.counts.cancelled, 2U);
  peer->send(frame(kHeaders, kEndHeaders, stream, request_headers("/test.Echo/Unary")) +
             frame(kData, 0, stream, message("still here")) +
             frame(kHeaders, kEndHeaders | kEndStream, stream, trailers));
  EXPECT_TRUE(run_until([&] { return peer->received().find(message("still here")) != std::string::npos; }));
}

TEST_F(Http2HostileTest, ACallPastItsTimeIsEndedByTheServer) {
  auto peer = connect();
  peer->send(frame(kHeaders, kEndHeaders, 1, request_headers("/test.Echo/Never") + hpack({{"grpc-timeout", "30m"}})));
  EXPECT_TRUE(run_until([&] { return ended(*peer) == 1; }));
  EXPECT_EQ(headers(*peer)[1]["grpc-status"], "4");
  EXPECT_EQ(service.counts.cancelled, 1U);
  // The client had not ended its half: it is told to stop.
  const auto frames = frames_in(peer->received());
  EXPECT_TRUE(std::any_of(frames.begin(), frames.end(), [](const Frame& got) { return got.type == kReset; }));
}

TEST_F(Http2HostileTest, FloodsAreEndedWithGoaway) {
  const std::string ping = frame(kPing, 0, 0, "12345678");
  const std::string setting = frame(kSettings, 0, 0, std::string_view("\0\4\0\1\0\0", 6));
  const std::string priority = frame(kPriority, 0, 1, std::string_view("\0\0\0\0\1", 5));
  const std::string unknown = frame(static_cast<FrameType>(0xfa), 0, 0, "none");
  const std::string alternative = frame(static_cast<FrameType>(10), 0, 1, "none");
  const std::string leave = frame(kGoAway, 0, 0, be32(0) + be32(0));
  for (const std::string& flood : {ping, setting, priority, unknown, alternative, leave}) {
    auto peer = connect();
    std::string bytes;
    for (int i = 0; i < 5000; ++i) bytes += flood;
    peer->send(bytes);
    EXPECT_TRUE(run_until([&] { return peer->is_closed(); }));
    EXPECT_EQ(goaway(*peer), kEnhanceYourCalm);
  }
  auto peer = connect();
  std::string bytes = frame(kHeaders, kEndHeaders, 1, request_headers("/test.Echo/Stream"));
  for (int i = 0; i < 5000; ++i) bytes += frame(kData, 0, 1);
  peer->send(bytes);
  EXPECT_TRUE(run_until([&] { return peer->is_closed(); }));
  EXPECT_EQ(goaway(*peer), kEnhanceYourCalm);
  EXPECT_TRUE(run_until([&] { return server->connections() == 0 && service.counts.destroyed == 1; }));
  expect_alive();
}

TEST_F(Http2HostileTest, DataOfPaddingOnlyIsEmpty) {
  auto peer = connect();
  std::string bytes = frame(kHeaders, kEndHeaders, 1, request_headers("/test.Echo/Stream"));
  for (int i = 0; i < 5000; ++i) bytes += frame(kData, kPadded, 1, std::string_view("\2\0\0", 3));
  peer->send(bytes);
  EXPECT_TRUE(run_until([&] { return peer->is_closed(); }));
  EXPECT_EQ(goaway(*peer), kEnhanceYourCalm);
}

TEST_F(Http2HostileTest, WindowUpdatesAreCountedButForWhatWasSent) {
  // A byte each, of the connection's window.
  const auto updates = [](int count) {
    std::string bytes;
    for (int i = 0; i < count; ++i) bytes += frame(kWindowUpdate, 0, 0, be32(1));
    return bytes;
  };
  auto peer = connect();
  for (uint32_t i = 0; i < 5; ++i) {
    peer->send(updates(9000) + request(2 * i + 1, "/test.Echo/Unary", message("x")));
    ASSERT_TRUE(run_until([&] { return peer->is_closed() || ended(*peer) == i + 1; }));
  }
  EXPECT_FALSE(goaway(*peer).has_value());
  peer->send(updates(40'000));
  EXPECT_TRUE(run_until([&] { return peer->is_closed(); }));
  EXPECT_EQ(goaway(*peer), kEnhanceYourCalm);
  expect_alive();
}

TEST_F(Http2HostileTest, FramesThatHttp2DoesNotKnowArePassedOver) {
  auto peer = connect();
  std::string bytes;
  for (uint32_t type = 10; type <= 0xff; ++type) {
    bytes += frame(static_cast<FrameType>(type), 0xff, type % 3, std::string(type, 'u'));
  }
  peer->send(bytes + request(1, "/test.Echo/Unary", message("x")));
  EXPECT_TRUE(run_until([&] { return ended(*peer) == 1; }));
  EXPECT_EQ(headers(*peer)[1]["grpc-status"], "0");
}

TEST_F(Http2HostileTest, PingsBetweenAnswersAreNoFlood) {
  auto peer = connect();
  for (uint32_t i = 0; i < 1500; ++i) {
    peer->send(request(2 * i + 1, "/test.Echo/Unary", message("x")) + frame(kPing, 0, 0, "12345678"));
    ASSERT_TRUE(run_until([&] { return ended(*peer) == i + 1; }));
  }
  EXPECT_FALSE(goaway(*peer).has_value());
}

TEST_F(Http2HostileTest, RapidResetsAreEndedWithGoaway) {
  auto peer = connect();
  std::string bytes;
  for (uint32_t i = 0; i < 10'000; ++i) {
    bytes += frame(kHeaders, kEndHeaders, 2 * i + 1, request_headers("/test.Echo/Never")) +
             frame(kReset, 0, 2 * i + 1, be32(8));
  }
  peer->send(bytes);
  EXPECT_TRUE(run_until([&] { return peer->is_closed(); }));
  EXPECT_LT(service.counts.opened, 4000U);
  EXPECT_TRUE(run_until([&] { return service.counts.destroyed == service.counts.opened; }));
  EXPECT_EQ(service.counts.cancelled, service.counts.opened);
  expect_alive();
}

TEST_F(Http2HostileTest, StreamsThatTheServerHasToResetAreCountedToo) {
  auto peer = connect();
  uint32_t stream = 1;
  // A window beyond what there may be ends its stream; a call that is answered wipes out what is charged for bad
  // frames.
  for (size_t answers = 1; answers <= 100 && !peer->is_closed(); ++answers) {
    std::string bytes;
    for (int i = 0; i < 100; ++i, stream += 2) {
      bytes += frame(kHeaders, kEndHeaders, stream, request_headers("/test.Echo/Never")) +
               frame(kWindowUpdate, 0, stream, be32(0x7fffffff));
    }
    peer->send(bytes + request(stream, "/test.Echo/Unary", message("x")));
    stream += 2;
    ASSERT_TRUE(run_until([&] { return peer->is_closed() || ended(*peer) == answers; }));
  }
  EXPECT_TRUE(peer->is_closed());
  EXPECT_EQ(goaway(*peer), kEnhanceYourCalm);
  EXPECT_LT(service.counts.opened, 4000U);
  EXPECT_TRUE(run_until([&] { return service.counts.destroyed == service.counts.opened; }));
  expect_alive();
}

TEST_F(Http2HostileTest, EndlessHeadersAreEnded) {
  auto peer = connect();
  std::string bytes = frame(kHeaders, 0, 1, request_headers("/test.Echo/Unary"));
  for (int i = 0; i < 2000; ++i) bytes += frame(kContinuation, 0, 1, hpack({{"x", std::string(1000, 'y')}}));
  peer->send(bytes);
  EXPECT_TRUE(run_until([&] { return peer->is_closed(); }));
  EXPECT_EQ(service.counts.opened, 0U);
  expect_alive();
}

TEST_F(Http2HostileTest, FramesThatCannotBeEndTheConnection) {
  const std::vector<std::string> bad = {
      frame(kData, 0, 0, "x"),                                                            // no stream
      frame(kData, 0, 1, "x"),                                                            // a stream never opened
      frame(kHeaders, kEndHeaders, 2, request_headers("/x")),                             // an even number
      frame(kHeaders, kEndHeaders, 1, "\xff\xff\xff\xff\xff\xff\xff"),                    // not HPACK
      frame(kSettings, 0, 1),                                                             // of a stream
      frame(kSettings, 0, 0, "12345"),                                                    // not whole entries
      frame(kPing, 0, 0, "short"),                                                        //
      frame(kWindowUpdate, 0, 0, be32(0)),                                                //
      frame(kContinuation, kEndHeaders, 1, "x"),                                          // of nothing
      std::string("\x01\x00\x01\x00\x00\x00\x00\x00\x01", 9) + std::string(65'537, 'x'),  // longer than allowed
  };
  for (const std::string& bytes : bad) {
    auto peer = connect();
    peer->send(bytes);
    EXPECT_TRUE(run_until([&] { return peer->is_closed(); })) << frames_in(bytes).size();
    EXPECT_TRUE(goaway(*peer).has_value());
    if (&bytes == &bad.back()) {
      EXPECT_EQ(goaway(*peer), kFrameSizeError);
    }
  }
  EXPECT_EQ(service.counts.opened, 0U);
  expect_alive();
}

TEST_F(Http2HostileTest, TenMebibytesToASlowReaderStayWithinBounds) {
  // A window of 20,000 bytes for each stream, opened by hand.
  auto peer = connect(std::string_view("\0\4\0\0\x4e\x20", 6));
  peer->send(request(1, "/test.Echo/Flood", message("0123456789")));
  size_t body = 0;
  size_t parsed = 0;
  size_t opened = 20'000;
  EXPECT_TRUE(run_until([&] {
    std::string& received = peer->received();
    const std::vector<Frame> frames = frames_in(received);
    size_t used = 0;
    bool is_over = false;
    for (const Frame& got : frames) {
      used += 9 + got.payload.size();
      if (got.type == kData) body += got.payload.size();
      is_over = is_over || (got.type == kHeaders && (got.flags & kEndStream) != 0);
    }
    received.erase(0, used);
    EXPECT_LE(body, opened);
    if (body > parsed) {
      peer->send(frame(kWindowUpdate, 0, 0, be32(static_cast<uint32_t>(body - parsed))) +
                 frame(kWindowUpdate, 0, 1, be32(static_cast<uint32_t>(body - parsed))));
      opened += body - parsed;
      parsed = body;
    }
    return is_over;
  }));
  EXPECT_EQ(body, (size_t{10} << 20) + size_t{160} * 5);
  EXPECT_GT(service.counts.drained, 10U);
  EXPECT_LE(service.counts.queued_max, (size_t{192} << 10) + 10);
}

TEST_F(Http2HostileTest, AConnectionWhoseAnswersAreNotReadIsNotRead) {
  // All windows wide open, so that only the socket holds the answers up.
  auto peer = connect(std::string_view("\0\4\x7f\xff\xff\xff", 6));
  peer->send(frame(kWindowUpdate, 0, 0, be32(0x7fff0000)));
  // Let the server's SETTINGS arrive, then hear nothing.
  EXPECT_TRUE(run_until([&] { return !frames_in(peer->received()).empty(); }));
  peer->set_reading(false);
  constexpr uint32_t kCalls = 60;
  const std::string body = message(std::string(1'000'000, 'x'));
  for (uint32_t i = 0; i < kCalls; ++i) {
    std::string bytes = frame(kHeaders, kEndHeaders, 2 * i + 1, request_headers("/test.Echo/Unary"));
    for (size_t at = 0; at < body.size(); at += 16'000) {
      bytes += frame(kData, at + 16'000 >= body.size() ? kEndStream : uint8_t{0}, 2 * i + 1,
                     std::string_view(body).substr(at, 16'000));
    }
    peer->send(bytes);
  }
  // Until nothing moves any more.
  size_t before = 0;
  do {
    before = service.counts.half_closed;
    run_for(milliseconds(200));
  } while (service.counts.half_closed != before);
  EXPECT_FALSE(peer->sent_all());
  // 8 MiB waiting, what the kernel holds of answers, and one turn's reading.
  EXPECT_LT(service.counts.half_closed, 30U);
  peer->set_reading(true);
  EXPECT_TRUE(run_until([&] { return service.counts.destroyed == kCalls; }));
  EXPECT_EQ(service.counts.cancelled, 0U);
}

TEST_F(Http2HostileTest, ShutWindowsDoNotGrowMemoryForEver) {
  auto peer = connect(std::string_view("\0\4\0\0\0\0", 6));
  constexpr uint32_t kCalls = 90;
  const std::string body = message(std::string(1 << 20, 'x'));
  for (uint32_t i = 0; i < kCalls; ++i) {
    std::string bytes = frame(kHeaders, kEndHeaders, 2 * i + 1, request_headers("/test.Echo/Unary"));
    for (size_t at = 0; at < body.size(); at += 16'000) {
      bytes += frame(kData, at + 16'000 >= body.size() ? kEndStream : uint8_t{0}, 2 * i + 1,
                     std::string_view(body).substr(at, 16'000));
    }
    peer->send(bytes);
  }
  EXPECT_TRUE(run_until([&] {
    const auto frames = frames_in(peer->received());
    return std::any_of(frames.begin(), frames.end(),
                       [](const Frame& got) { return got.type == kHeaders && got.stream == 2 * kCalls - 1; });
  }));
  EXPECT_LE(service.counts.opened, 66U);
  const auto found = headers(*peer);
  EXPECT_EQ(found.at(2 * kCalls - 1).at("grpc-status"), "8");
}

TEST_F(Http2HostileTest, MessagesThatNeverEndDoNotGrowMemoryForEver) {
  auto peer = connect();
  constexpr uint32_t kCalls = 120;
  const std::string body = message(std::string(1 << 20, 'x')).substr(0, 1'000'000);
  for (uint32_t i = 0; i < kCalls; ++i) {
    std::string bytes = frame(kHeaders, kEndHeaders, 2 * i + 1, request_headers("/test.Echo/Unary"));
    for (size_t at = 0; at < body.size(); at += 16'000) {
      bytes += frame(kData, 0, 2 * i + 1, std::string_view(body).substr(at, 16'000));
    }
    peer->send(bytes);
  }
  EXPECT_TRUE(run_until([&] { return service.counts.opened == kCalls && service.counts.destroyed > 50; }));
  // 64 MiB of them are waiting; the others were refused.
  EXPECT_GE(service.counts.opened - service.counts.destroyed, 60U);
  EXPECT_LE(service.counts.opened - service.counts.destroyed, 68U);
  peer->close();
  EXPECT_TRUE(
      run_until([&] { return server->connections() == 0 && service.counts.destroyed == service.counts.opened; }));
  expect_alive();
}

TEST_F(Http2HostileTest, AClientThatVanishesCancelsItsCalls) {
  auto peer = connect();
  for (uint32_t i = 0; i < 10; ++i) {
    peer->send(frame(kHeaders, kEndHeaders, 2 * i + 1, request_headers("/test.Echo/Never")));
  }
  EXPECT_TRUE(run_until([&] { return service.counts.opened == 10; }));
  peer->close();
  EXPECT_TRUE(run_until([&] { return service.counts.destroyed == 10; }));
  EXPECT_EQ(service.counts.cancelled, 10U);
  EXPECT_EQ(server->connections(), 0U);
}

TEST(Patience, ConnectionsThatSayNothingAreClosedAndIdleOnesKept) {
  ShiftedClock clock;
  Loop loop(clock);
  EchoService service;
  auto server = std::move(*Server::listen(loop, service, {}));
  loop.add_turn_end([&](Instant) { server->flush(); });
  std::function<bool()> until;
  loop.set_deadline([&] {
    if (until()) loop.stop();
    return kNever;
  });
  const auto run_until = [&](std::function<bool()> condition) {
    bool late = false;
    const TimerId timer = loop.call_at(clock.now() + seconds(300), [&] { late = true; });
    until = [&] { return late || condition(); };
    loop.run();
    loop.cancel(timer);
    return !late;
  };
  RawPeer silent(loop, server->port());
  RawPeer half_preface(loop, server->port());
  half_preface.send(kPreface.substr(0, 10));
  RawPeer no_settings(loop, server->port());
  no_settings.send(kPreface);
  RawPeer half_request(loop, server->port());
  half_request.send("GET / HTTP/1.1\r\nHo");
  RawPeer idle_http1(loop, server->port());
  idle_http1.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  RawPeer idle_http2(loop, server->port());
  idle_http2.send(std::string(kPreface) + frame(kSettings, 0, 0));
  ASSERT_TRUE(run_until([&] {
    return server->connections() == 6 && !idle_http1.received().empty() && !idle_http2.received().empty() &&
           !no_settings.received().empty() && half_request.sent_all() && half_preface.sent_all();
  }));
  clock.shift += seconds(11);
  loop.post([] {});
  EXPECT_TRUE(run_until([&] {
    return silent.is_closed() && half_preface.is_closed() && no_settings.is_closed() && half_request.is_closed();
  }));
  EXPECT_FALSE(idle_http1.is_closed());
  EXPECT_EQ(server->connections(), 2U);
  clock.shift += seconds(60);
  loop.post([] {});
  EXPECT_TRUE(run_until([&] { return idle_http1.is_closed(); }));
  EXPECT_FALSE(idle_http2.is_closed());
}

}  // namespace
}  // namespace conclave::net
