// The server against clients that no library would be: frames by hand over a bare socket.
#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <map>
#include <optional>

#include "net/client.h"
#include "net/server.h"
#include "net/testing/echo_service.h"
#include "net/testing/http2_frames.h"
#include "net/testing/loop_test_base.h"
#include "net/testing/raw_peer.h"

namespace conclave::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// HTTP/2's numbers.
constexpr uint32_t kEnhanceYourCalm = 11;
constexpr uint32_t kFrameSizeError = 6;

class Http2HostileTest : public LoopTest {
 protected:
  Http2HostileTest() : server(std::move(*Server::listen(loop, service, {}))) {
    loop.add_turn_end([this](Instant) { server->flush(); });
  }
  ~Http2HostileTest() override {
    for (auto& [peer, inflater] : inflaters_) nghttp2_hd_inflate_del(inflater);
  }

  std::unique_ptr<RawPeer> connect(std::string_view settings = {}) {
    auto peer = std::make_unique<RawPeer>(loop, server->port());
    peer->send(std::string(kPreface) + frame(kSettings, 0, 0, settings) + frame(kSettings, kAck, 0));
    return peer;
  }
  static std::string request(uint32_t stream, std::string_view path, std::string_view body) {
    return frame(kHeaders, kEndHeaders, stream, request_headers(path)) + frame(kData, kEndStream, stream, body);
  }
  // The headers of a stream's answer, the last value of each name. Decodes all that arrived: once per peer.
  std::map<uint32_t, std::map<std::string, std::string>> headers(RawPeer& peer) {
    nghttp2_hd_inflater*& inflater = inflaters_[&peer];
    EXPECT_EQ(inflater, nullptr);
    nghttp2_hd_inflate_new(&inflater);
    std::map<uint32_t, std::map<std::string, std::string>> found;
    for (const Frame& got : frames_in(peer.received())) {
      if (got.type != kHeaders) continue;
      const auto* at = reinterpret_cast<const uint8_t*>(got.payload.data());
      size_t left = got.payload.size();
      for (;;) {
        nghttp2_nv nv;
        int flags = 0;
        const ssize_t used = nghttp2_hd_inflate_hd2(inflater, &nv, &flags, at, left, 1);
        if (used < 0) break;
        at += used;
        left -= static_cast<size_t>(used);
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0) {
          found[got.stream][std::string(reinterpret_cast<const char*>(nv.name), nv.namelen)] =
              std::string(reinterpret_cast<const char*>(nv.value), nv.valuelen);
        }
        if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) {
          nghttp2_hd_inflate_end_headers(inflater);
          break;
        }
      }
    }
    return found;
  }
  // The error of a GOAWAY, if there was one.
  static std::optional<uint32_t> goaway(RawPeer& peer) {
    for (const Frame& got : frames_in(peer.received())) {
      if (got.type == kGoAway) return static_cast<unsigned char>(got.payload[7]);
    }
    return std::nullopt;
  }
  // Streams whose answers ended.
  static size_t ended(RawPeer& peer) {
    const auto frames = frames_in(peer.received());
    return static_cast<size_t>(std::count_if(frames.begin(), frames.end(), [](const Frame& got) {
      return got.type == kHeaders && (got.flags & kEndStream) != 0;
    }));
  }
  std::map<std::string, std::string> answer(const std::string& bytes) {
    auto peer = connect();
    peer->send(bytes);
    EXPECT_TRUE(run_until([&] { return ended(*peer) == 1; }));
    auto found = headers(*peer)[1];
    nghttp2_hd_inflate_del(inflaters_[peer.get()]);
    inflaters_.erase(peer.get());
    return found;
  }
  void expect_alive() {
    auto channel = Channel::make(loop, "127.0.0.1", server->port());
    bool ok = false;
    channel->call("/test.Echo/Unary", "alive", seconds(5),
                  [&](const GrpcStatus& status, ByteView) { ok = status.ok(); });
    EXPECT_TRUE(run_until([&] { return ok; }));
  }

  EchoService service;
  std::unique_ptr<Server> server;
  std::map<RawPeer*, nghttp2_hd_inflater*> inflaters_;
};

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
  EXPECT_EQ(status(std::string("\1\0\0\0\1x", 6)), "12");
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
  EXPECT_EQ(with("grpc-encoding", "gzip"), "12");
  EXPECT_EQ(with("grpc-encoding", "identity"), "0");
  EXPECT_EQ(with("x-large", std::string(16'200, 'l')), "8");
  EXPECT_EQ(with("x-not-large", std::string(15'000, 'l')), "0");
  auto peer = connect();
  peer->send(frame(kHeaders, kEndHeaders, 1, request_headers("/test.Echo/Header") + hpack({{"x-test", "its value"}})) +
             frame(kData, kEndStream, 1));
  EXPECT_TRUE(run_until([&] { return ended(*peer) == 1; }));
  EXPECT_NE(peer->received().find(message("its value")), std::string::npos);
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
  for (const std::string& flood : {ping, setting, priority}) {
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

TEST_F(Http2HostileTest, PingsBetweenAnswersAreNoFlood) {
  auto peer = connect();
  std::string bytes;
  for (uint32_t i = 0; i < 3000; ++i) {
    bytes += request(2 * i + 1, "/test.Echo/Unary", message("x")) + frame(kPing, 0, 0, "12345678");
  }
  for (size_t at = 0; at < bytes.size(); at += 16'000) {
    peer->send(std::string_view(bytes).substr(at, 16'000));
    run_for(milliseconds(1));
  }
  EXPECT_TRUE(run_until([&] { return ended(*peer) == 3000; }));
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

// A clock that a test can put forward.
class ShiftedClock final : public env::Clock {
 public:
  [[nodiscard]] Instant now() override { return real_.now() + shift; }
  [[nodiscard]] int64_t wall_milliseconds() override { return real_.wall_milliseconds(); }
  Duration shift{};

 private:
  env::PosixClock real_;
};

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
