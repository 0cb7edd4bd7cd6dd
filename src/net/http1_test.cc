// The parser by itself, and the server's HTTP/1.1 over a bare socket.
#include "net/http1.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "net/testing/echo_service.h"
#include "net/testing/loop_test_base.h"
#include "net/testing/raw_peer.h"

namespace conclave::net {
namespace {

using std::chrono::milliseconds;
using namespace std::string_literals;

Http1Next parse(ByteView bytes) {
  Http1Request request;
  return parse_http1(bytes, request);
}

TEST(Http1Parser, ReadsARequestAndSaysHowLongItIs) {
  const std::string bytes =
      "POST /v1/x?y=%20z HTTP/1.1\r\nHost: here\r\nX-Odd:\t a b \r\ncontent-LENGTH: 4\r\n\r\nbodyGET /next";
  Http1Request request;
  ASSERT_EQ(parse_http1(bytes, request), Http1Next::kRequest);
  EXPECT_EQ(request.request.method, "POST");
  EXPECT_EQ(request.request.target, "/v1/x?y=%20z");
  EXPECT_EQ(request.request.body, "body");
  EXPECT_TRUE(request.keep_alive);
  EXPECT_EQ(bytes.substr(request.bytes), "GET /next");
  for (size_t size = 0; size + 9 < bytes.size(); ++size) {
    EXPECT_EQ(parse(ByteView(bytes).substr(0, size)), Http1Next::kMore) << size;
  }
}

TEST(Http1Parser, KnowsWhenTheConnectionEnds) {
  const auto keeps = [](const std::string& bytes) {
    Http1Request request;
    EXPECT_EQ(parse_http1(bytes, request), Http1Next::kRequest);
    return request.keep_alive;
  };
  EXPECT_TRUE(keeps("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  EXPECT_FALSE(keeps("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, Close\r\n\r\n"));
  EXPECT_FALSE(keeps("GET / HTTP/1.0\r\n\r\n"));
  EXPECT_TRUE(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

TEST(Http1Parser, RefusesWhatIsOdd) {
  for (const std::string& bytes : {
           std::string("GET / HTTP/1.1\r\n\r\n"),                                            // no host
           std::string("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),                      // two
           std::string("GET / HTTP/2.0\r\nHost: x\r\n\r\n"),                                 //
           std::string("GET /  HTTP/1.1\r\nHost: x\r\n\r\n"),                                // two spaces
           std::string("GET x HTTP/1.1\r\nHost: x\r\n\r\n"),                                 // no path
           std::string("GET /\x80 HTTP/1.1\r\nHost: x\r\n\r\n"),                             // not ASCII
           std::string("G(T / HTTP/1.1\r\nHost: x\r\n\r\n"),                                 // not a token
           std::string("GET /\r\nHost: x\r\n\r\n"),                                          // HTTP/0.9
           std::string("GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n"),                   // folded
           std::string("GET / HTTP/1.1\r\nHost : x\r\n\r\n"),                                // space before colon
           std::string("GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n"),                     //
           std::string("GET / HTTP/1.1\nHost: x\r\n\r\n"),                                   // bare line feed
           std::string("GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n"),                           //
           std::string("GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n", 29),                          // a zero byte
           std::string("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"),  //
           std::string("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
           std::string("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\nx"),
           std::string("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\nx"),
           std::string("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n"),
           std::string("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4194305\r\n\r\n"),  // too large
           std::string("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n"),
           std::string("\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"),
           std::string("\x16\x03\x01\x02\x00", 5),  // TLS
           "GET / HTTP/1.1\r\nHost: x\r\nX: " + std::string(kHttp1HeaderBytesMax, 'y'),
       }) {
    EXPECT_EQ(parse(bytes), Http1Next::kBad) << bytes.substr(0, 100);
  }
  EXPECT_EQ(parse("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4194304\r\n\r\n" + std::string(4 << 20, 'b')),
            Http1Next::kRequest);
}

TEST(Http1Parser, GivesTheFieldsAndWhatIsMissing) {
  Http1Request request;
  const std::string head =
      "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nX-Two: a\r\nContent-Length: 10\r\n\r\n";
  ASSERT_EQ(parse_http1(head + "12345", request), Http1Next::kMore);
  EXPECT_EQ(request.bytes, head.size() + 10);
  EXPECT_TRUE(request.expects_continue);
  ASSERT_EQ(parse_http1(head.substr(0, 30), request), Http1Next::kMore);
  EXPECT_EQ(request.bytes, 0U);
  ASSERT_EQ(parse_http1(head + "1234567890", request), Http1Next::kRequest);
  ASSERT_EQ(request.request.fields.size(), 4U);
  EXPECT_EQ(request.request.fields[2], std::pair("x-two"s, "a"s));
}

TEST(Http1Format, NoValueBeginsAnotherHeader) {
  std::string out;
  format_http1({.status = 503, .content_type = "text/plain\r\nX-Injected: y", .body = "b"}, false, false, out);
  EXPECT_EQ(out,
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 1\r\nConnection: "
            "close\r\n\r\nb");
}

TEST(Http1Format, SaysInSecondsWhenToAskAgain) {
  std::string out;
  format_http1({.status = 429, .content_type = "text/plain", .retry_after = std::chrono::milliseconds(1200)}, true,
               false, out);
  EXPECT_EQ(out,
            "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: 0\r\nRetry-After: 2\r\n"
            "Connection: keep-alive\r\n\r\n");
}

class Http1ServerTest : public LoopTest {
 protected:
  Http1ServerTest() : server(std::move(*Server::listen(loop, service, {}))) {
    loop.add_turn_end([this](Instant) { server->flush(); });
  }
  static size_t count(std::string_view text, std::string_view what) {
    size_t found = 0;
    for (size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + 1)) ++found;
    return found;
  }
  EchoService service;
  std::unique_ptr<Server> server;
};

TEST_F(Http1ServerTest, AnswersOneAfterTheOtherOnOneConnection) {
  RawPeer peer(loop, server->port());
  peer.send(
      "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhiHEAD /c "
      "HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(run_until([&] { return count(peer.received(), "HTTP/1.1 200 OK") == 3; }));
  EXPECT_NE(peer.received().find("GET /a "), std::string::npos);
  EXPECT_NE(peer.received().find("POST /b hi"), std::string::npos);
  EXPECT_EQ(peer.received().find("HEAD /c"), std::string::npos) << "no body";
  EXPECT_FALSE(peer.is_closed());
  peer.send("GET /d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(run_until([&] { return peer.is_closed(); }));
  EXPECT_NE(peer.received().find("Connection: close"), std::string::npos);
  EXPECT_TRUE(run_until([&] { return server->connections() == 0; }));
}

TEST_F(Http1ServerTest, ALateAnswerIsSentAndOneTooLateIsNot) {
  RawPeer peer(loop, server->port());
  peer.send("GET /later HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(run_until([&] { return service.later != nullptr; }));
  run_for(milliseconds(10));
  EXPECT_EQ(service.http_requests, 1U) << "one at a time";
  const auto answer = std::exchange(service.later, nullptr);
  answer({.body = "late"});
  answer({.body = "twice"});
  EXPECT_TRUE(run_until([&] { return count(peer.received(), "HTTP/1.1 200 OK") == 2; }));
  EXPECT_LT(peer.received().find("late"), peer.received().find("GET /second"));
  EXPECT_EQ(peer.received().find("twice"), std::string::npos);

  peer.send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(run_until([&] { return service.later != nullptr; }));
  peer.close();
  EXPECT_TRUE(run_until([&] { return server->connections() == 0; }));
  service.later({.body = "nobody there"});
}

TEST_F(Http1ServerTest, OddBytesAreAnsweredWith400AndClosed) {
  for (const std::string& bytes : {std::string("NONSENSE\r\n\r\n"), std::string("\x16\x03\x01\x02\x00", 5),
                                   std::string("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"), std::string(100'000, 'a')}) {
    RawPeer peer(loop, server->port());
    peer.send(bytes);
    EXPECT_TRUE(run_until([&] { return peer.is_closed(); }));
    EXPECT_TRUE(peer.received().starts_with("HTTP/1.1 400 Bad Request\r\n")) << peer.received();
  }
  EXPECT_TRUE(run_until([&] { return server->connections() == 0; }));
  EXPECT_EQ(service.http_requests, 0U);
}

TEST_F(Http1ServerTest, WhatIsSentAheadIsBounded) {
  RawPeer peer(loop, server->port());
  peer.send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n" + std::string(1 << 20, 'x'));
  EXPECT_TRUE(run_until([&] { return peer.is_closed(); }));
  service.later({});
}

TEST_F(Http1ServerTest, AnswersInPieces) {
  RawPeer peer(loop, server->port());
  peer.send("POST /pieces HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(run_until([&] { return service.pieces != nullptr; }));
  service.pieces->begin({.content_type = "application/json"});
  service.pieces->send("one\n");
  EXPECT_TRUE(run_until([&] { return peer.received().ends_with("\r\n\r\n4\r\none\n\r\n"); })) << peer.received();
  EXPECT_NE(peer.received().find("Transfer-Encoding: chunked\r\n"), std::string::npos);
  service.pieces->send("");
  service.pieces->send("two");
  service.pieces->finish();
  EXPECT_TRUE(run_until([&] { return count(peer.received(), "HTTP/1.1 200 OK") == 2; }));
  EXPECT_NE(peer.received().find("3\r\ntwo\r\n0\r\n\r\nHTTP/1.1 200 OK"), std::string::npos) << peer.received();
  EXPECT_EQ(service.counts.cancelled, 0U);
  EXPECT_TRUE(run_until([&] { return service.counts.destroyed == 1; }));

  RawPeer old(loop, server->port());
  service.pieces = nullptr;
  old.send("POST /pieces HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_TRUE(run_until([&] { return service.pieces != nullptr; }));
  service.pieces->begin({});
  service.pieces->send("all");
  service.pieces->finish();
  EXPECT_TRUE(run_until([&] { return old.is_closed(); }));
  EXPECT_TRUE(old.received().ends_with("Connection: close\r\n\r\nall")) << "it knows no chunks: " << old.received();
}

TEST_F(Http1ServerTest, AClientThatLeavesCancels) {
  RawPeer peer(loop, server->port());
  peer.send("POST /pieces HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(run_until([&] { return service.pieces != nullptr; }));
  service.pieces->begin({});
  peer.close();
  EXPECT_TRUE(run_until([&] { return service.counts.cancelled == 1 && service.counts.destroyed == 1; }));
}

TEST_F(Http1ServerTest, ASlowReaderIsToldToTheHandler) {
  RawPeer peer(loop, server->port());
  peer.set_reading(false);
  peer.send("POST /pieces HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(run_until([&] { return service.pieces != nullptr; }));
  service.pieces->begin({});
  size_t sent = 0;
  for (; service.pieces->queued_bytes() < (1 << 20); ++sent) {
    service.pieces->send(std::string(64 << 10, 'f'));
    run_for(milliseconds(1));
    ASSERT_LT(sent, 2000U) << "the socket takes for ever";
  }
  const size_t drained = service.counts.drained;
  peer.set_reading(true);
  EXPECT_TRUE(run_until([&] { return service.counts.drained > drained; }));
  service.pieces->finish();
  EXPECT_TRUE(run_until([&] { return peer.received().ends_with("0\r\n\r\n"); }));
  EXPECT_EQ(std::ranges::count(peer.received(), 'f'), static_cast<ptrdiff_t>(sent << 16) + 2) << "two in the head";
}

TEST_F(Http1ServerTest, ABodyIsAskedForOnce) {
  RawPeer peer(loop, server->port());
  peer.send("POST /b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  EXPECT_TRUE(run_until([&] { return peer.received() == kHttp1Continue; }));
  peer.send("bo");
  run_for(milliseconds(5));
  peer.send("dy");
  EXPECT_TRUE(run_until([&] { return peer.received().ends_with("POST /b body"); }));
  EXPECT_EQ(count(peer.received(), "100 Continue"), 1U);
}

}  // namespace
}  // namespace conclave::net
