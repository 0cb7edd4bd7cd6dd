// For tests of the server's HTTP/2: a server that echoes, clients that send frames by hand, and what they heard.
#pragma once

#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "net/client.h"
#include "net/server.h"
#include "net/testing/echo_service.h"
#include "net/testing/http2_frames.h"
#include "net/testing/loop_test_base.h"
#include "net/testing/raw_peer.h"

namespace conclave::net {

// HTTP/2's number.
inline constexpr uint32_t kEnhanceYourCalm = 11;

class Http2Test : public LoopTest {
 protected:
  Http2Test() : server(std::move(*Server::listen(loop, service, {}))) {
    loop.add_turn_end([this](Instant) { server->flush(); });
  }
  Http2Test(const Http2Test&) = delete;
  Http2Test& operator=(const Http2Test&) = delete;
  ~Http2Test() override {
    for (auto& [peer, inflater] : inflaters_) nghttp2_hd_inflate_del(inflater);
  }

  // Another server in the place of the first one.
  void restart(const ServerOptions& options) { server = std::move(*Server::listen(loop, service, options)); }

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
    channel->call("/test.Echo/Unary", "alive", std::chrono::seconds(5),
                  [&](const GrpcStatus& status, ByteView) { ok = status.ok(); });
    EXPECT_TRUE(run_until([&] { return ok; }));
  }

  EchoService service;
  std::unique_ptr<Server> server;
  std::map<RawPeer*, nghttp2_hd_inflater*> inflaters_;
};

}  // namespace conclave::net
