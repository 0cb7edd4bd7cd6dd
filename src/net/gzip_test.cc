// Compressed messages: the decoder alone, and requests over a bare socket.
#include "net/gzip.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "net/grpc_framing.h"
#include "net/testing/gzip_bytes.h"
#include "net/testing/http2_test_base.h"

namespace conclave::net {
namespace {

std::string some_text(Random& random, size_t size) {
  std::string text;
  while (text.size() < size) text.append(random.below(50), static_cast<char>(random.below(256)));
  text.resize(size);
  return text;
}

TEST(Gunzip, GivesBackWhatWasCompressed) {
  Random random(1);
  for (const size_t size : {size_t{0}, size_t{1}, size_t{16'383}, size_t{16'384}, size_t{16'385}, size_t{300'000}}) {
    const std::string plain = some_text(random, size);
    std::string out = "before";
    EXPECT_EQ(gunzip(gzip_bytes(plain), size, out), Gunzip::kDone) << size;
    EXPECT_TRUE(out == "before" + plain) << size;
  }
}

TEST(Gunzip, NeverMakesMoreThanItWasTold) {
  const std::string bomb = gzip_bytes(std::string(8'000'000, '\0'));
  EXPECT_LT(bomb.size(), 50'000U);
  std::string out;
  EXPECT_EQ(gunzip(bomb, 1'000'000, out), Gunzip::kTooLarge);
  EXPECT_LE(out.size(), 1'000'000U);
  out.clear();
  EXPECT_EQ(gunzip(gzip_bytes("four"), 3, out), Gunzip::kTooLarge);
  EXPECT_EQ(gunzip(gzip_bytes("four"), 4, out), Gunzip::kDone);
}

TEST(Gunzip, WhatIsCutDamagedOrLongerIsRefused) {
  Random random(2);
  const std::string whole = gzip_bytes(some_text(random, 3000));
  std::string out;
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(gunzip(ByteView(whole).substr(0, size), 10'000, out), Gunzip::kMalformed) << size;
  }
  EXPECT_EQ(gunzip(whole + "x", 10'000, out), Gunzip::kMalformed);
  EXPECT_EQ(gunzip(whole + whole, 10'000, out), Gunzip::kMalformed) << "one member";
  // The checksum and the length at its end.
  for (size_t i = whole.size() - 8; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    EXPECT_EQ(gunzip(damaged, 10'000, out), Gunzip::kMalformed) << i;
  }
  EXPECT_EQ(gunzip("no gzip at all, but long enough for it", 10'000, out), Gunzip::kMalformed);
}

std::string compressed_message(std::string_view compressed) {
  return std::string(1, '\1') + be32(static_cast<uint32_t>(compressed.size())) + std::string(compressed);
}

TEST(MessageReader, TellsCompressedMessagesFromOthers) {
  const std::string bytes = compressed_message("abc") + message("de") + compressed_message("");
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    MessageReader reader(1000);
    reader.take_compressed();
    std::string seen;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      reader.feed(ByteView(bytes).substr(at, piece));
      ByteView given;
      while (reader.next(given) == MessageReader::Next::kMessage) {
        seen += (reader.is_compressed() ? "z:" : "p:") + std::string(given) + " ";
      }
    }
    EXPECT_EQ(seen, "z:abc p:de z: ") << piece;
  }
}

class GzipTest : public Http2Test {
 protected:
  static std::string call_with(std::string_view encoding, std::string_view body,
                               std::string_view path = "/test.Echo/Unary") {
    return frame(kHeaders, kEndHeaders, 1, request_headers(path) + hpack({{"grpc-encoding", encoding}})) +
           frame(kData, kEndStream, 1, body);
  }
};

TEST_F(GzipTest, ACompressedRequestIsTheRequest) {
  auto peer = connect();
  const std::string text(5000, 't');
  peer->send(call_with("gzip",
                       compressed_message(gzip_bytes(text)) + message("plain") + compressed_message(gzip_bytes("")),
                       "/test.Echo/Stream"));
  EXPECT_TRUE(run_until([&] { return ended(*peer) == 1; }));
  std::string body;
  for (const Frame& got : frames_in(peer->received())) {
    if (got.type == kData) body += got.payload;
  }
  // Answers are not compressed.
  EXPECT_TRUE(body == message(text) + message("plain") + message(""));
  auto found = headers(*peer)[1];
  EXPECT_EQ(found["grpc-status"], "0");
  EXPECT_FALSE(found.contains("grpc-encoding"));
}

TEST_F(GzipTest, ABombIsRefusedAndTheConnectionLives) {
  const std::string bomb = compressed_message(gzip_bytes(std::string(kRequestBytesMax + 1, 'b')));
  ASSERT_LT(bomb.size(), 16'000U);
  EXPECT_EQ(answer(call_with("gzip", bomb))["grpc-status"], "8");
  EXPECT_EQ(service.counts.cancelled, 1U);
  EXPECT_EQ(answer(call_with("gzip", compressed_message("not gzip")))["grpc-status"], "13");
  EXPECT_EQ(answer(call_with("gzip", compressed_message("")))["grpc-status"], "13");
  EXPECT_EQ(service.counts.cancelled, 3U);
  // What is too long on the wire is not collected.
  EXPECT_EQ(answer(call_with("gzip", std::string("\1\xff\xff\xff\xff", 5) + "x"))["grpc-status"], "8");
  // The largest there may be; answered by a header of the request.
  const std::string largest = compressed_message(gzip_bytes(std::string(kRequestBytesMax, 'b')));
  EXPECT_EQ(answer(call_with("gzip", largest, "/test.Echo/Header"))["grpc-status"], "0");
  expect_alive();
}

TEST_F(GzipTest, ManyThatBecomeMuchLongerAreAFlood) {
  const std::string largest = compressed_message(gzip_bytes(std::string(kRequestBytesMax, 'b')));
  const auto ask = [&](uint32_t stream) {
    return frame(kHeaders, kEndHeaders, stream,
                 request_headers("/test.Echo/Header") + hpack({{"grpc-encoding", "gzip"}})) +
           frame(kData, kEndStream, stream, largest);
  };
  auto peer = connect();
  std::string bytes;
  for (uint32_t call = 0; call < 40; ++call) bytes += ask(2 * call + 1);
  peer->send(bytes);
  EXPECT_TRUE(run_until([&] { return peer->is_closed(); }));
  EXPECT_EQ(goaway(*peer), kEnhanceYourCalm);
  expect_alive();
  // As long as they are on the wire, or some times so: as many as there are.
  Random random(3);
  std::string noise;
  while (noise.size() < 10'000) noise.push_back(static_cast<char>(random.next()));
  const std::string usual = compressed_message(gzip_bytes(noise + noise + noise + noise));
  auto other = connect();
  std::string many;
  for (uint32_t call = 0; call < 60; ++call) {
    many += frame(kHeaders, kEndHeaders, 2 * call + 1,
                  request_headers("/test.Echo/Header") + hpack({{"grpc-encoding", "gzip"}})) +
            frame(kData, kEndStream, 2 * call + 1, usual);
  }
  other->send(many);
  EXPECT_TRUE(run_until([&] { return ended(*other) == 60; }));
}

TEST_F(GzipTest, AnotherEncodingIsUnimplementedAndToldWhichThereAre) {
  const std::string body = compressed_message(gzip_bytes("x"));
  for (const std::string& bytes : {call_with("snappy", body), call_with("snappy", message("x"))}) {
    auto found = answer(bytes);
    EXPECT_EQ(found["grpc-status"], "12");
    EXPECT_EQ(found["grpc-accept-encoding"], "identity,gzip");
  }
  // A message that says it is compressed and not how is malformed.
  for (const std::string& bytes :
       {call_with("identity", body),
        frame(kHeaders, kEndHeaders, 1, request_headers("/test.Echo/Unary")) + frame(kData, kEndStream, 1, body)}) {
    EXPECT_EQ(answer(bytes)["grpc-status"], "13");
  }
  // Nobody else is told.
  EXPECT_FALSE(answer(call_with("identity", message("x"))).contains("grpc-accept-encoding"));
}

}  // namespace
}  // namespace conclave::net
