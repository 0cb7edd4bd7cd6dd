#include "net/grpc_framing.h"

#include <array>

#include <gtest/gtest.h>

#include "base/random.h"

namespace conclave::net {
namespace {

using Next = MessageReader::Next;

std::string framed(std::string_view message) {
  OutboundMessages out;
  out.add(message);
  std::string bytes;
  out.take(out.size(), bytes);
  return bytes;
}

TEST(MessageReader, CutsMessagesOutOfAnyPieces) {
  Random random(3);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::string> messages;
    std::string bytes;
    for (uint64_t i = random.below(6); i > 0; --i) {
      messages.emplace_back(random.below(4) == 0 ? random.below(40'000) : random.below(20), static_cast<char>(i));
      bytes += framed(messages.back());
    }
    MessageReader reader(50'000);
    std::vector<std::string> seen;
    for (std::string_view rest = bytes; !rest.empty();) {
      const size_t piece = std::min<size_t>(rest.size(), 1 + random.below(random.coin() ? 10 : 30'000));
      reader.feed(rest.substr(0, piece));
      rest.remove_prefix(piece);
      ByteView message;
      Next next;
      while ((next = reader.next(message)) == Next::kMessage) seen.emplace_back(message);
      ASSERT_EQ(next, Next::kMore);
    }
    ASSERT_EQ(seen, messages);
    ASSERT_FALSE(reader.in_message());
  }
}

TEST(MessageReader, RefusesBeforeItCollects) {
  const auto first = [](ByteView bytes) {
    MessageReader reader(1000);
    ByteView message;
    Next next = Next::kMore;
    for (const char byte : bytes) {
      reader.feed(ByteView(&byte, 1));
      next = reader.next(message);
      if (next != Next::kMore) break;
    }
    MessageReader whole(1000);
    whole.feed(bytes);
    EXPECT_EQ(whole.next(message), next);
    return next;
  };
  EXPECT_EQ(first({"\0\xff\xff\xff\xff", 5}), Next::kTooLarge);
  EXPECT_EQ(first({"\0\0\0\x03\xe9", 5}), Next::kTooLarge);
  EXPECT_EQ(first({"\0\0\0\x03\xe8", 5}), Next::kMore);
  EXPECT_EQ(first({"\1\0\0\0\1x", 6}), Next::kCompressed);
  EXPECT_EQ(first({"\2\0\0\0\1x", 6}), Next::kMalformed);
}

TEST(MessageReader, KnowsThatAMessageIsCut) {
  MessageReader reader(1000);
  ByteView message;
  const std::string bytes = framed("abc");
  for (size_t size = 1; size < bytes.size(); ++size) {
    MessageReader cut(1000);
    cut.feed(std::string_view(bytes).substr(0, size));
    EXPECT_EQ(cut.next(message), Next::kMore);
    EXPECT_TRUE(cut.in_message()) << size;
  }
}

TEST(OutboundMessages, GivesBackWhatWasAddedInAnyPieces) {
  Random random(11);
  OutboundMessages out;
  std::string expected;
  std::string taken;
  for (int i = 0; i < 3000; ++i) {
    std::string message(random.below(20) == 0 ? random.below(60'000) : random.below(100), static_cast<char>(i));
    const char prefix[5] = {0, static_cast<char>(message.size() >> 24), static_cast<char>(message.size() >> 16),
                            static_cast<char>(message.size() >> 8), static_cast<char>(message.size())};
    expected.append(prefix, 5).append(message);
    if (const uint64_t how = random.below(3); how == 0) {
      out.add(std::string_view(message));
    } else if (how == 1) {
      const size_t cut = random.below(message.size() + 1);
      std::array<std::string, 2> pieces = {message.substr(0, cut), message.substr(cut)};
      out.add_pieces(pieces);
    } else {
      out.add(std::move(message));
    }
    ASSERT_EQ(out.size(), expected.size() - taken.size());
    if (random.below(3) == 0) out.take(random.below(out.size() + 1), taken);
  }
  out.take(out.size(), taken);
  EXPECT_TRUE(out.empty());
  EXPECT_TRUE(taken == expected);
}

TEST(GrpcTimeout, ReadsEveryUnitAndNothingElse) {
  using namespace std::chrono;  // NOLINT(google-build-using-namespace)
  EXPECT_EQ(parse_grpc_timeout("2H"), hours(2));
  EXPECT_EQ(parse_grpc_timeout("3M"), minutes(3));
  EXPECT_EQ(parse_grpc_timeout("5S"), seconds(5));
  EXPECT_EQ(parse_grpc_timeout("100m"), milliseconds(100));
  EXPECT_EQ(parse_grpc_timeout("7u"), microseconds(7));
  EXPECT_EQ(parse_grpc_timeout("99999999n"), nanoseconds(99'999'999));
  EXPECT_EQ(parse_grpc_timeout("0n"), Duration::zero());
  EXPECT_GT(*parse_grpc_timeout("99999999H"), hours(24 * 365)) << "no overflow";
  for (const char* bad : {"", "m", "1", "-1m", "1x", "1 m", "100000000m", "1mm", " 1m"}) {
    EXPECT_FALSE(parse_grpc_timeout(bad)) << bad;
  }
}

TEST(GrpcTimeout, WhatIsWrittenIsReadAsNoLess) {
  Random random(5);
  for (int i = 0; i < 2000; ++i) {
    const Duration timeout(static_cast<int64_t>(random.next() >> (10 + random.below(50))));
    const std::string text = format_grpc_timeout(timeout);
    const auto read = parse_grpc_timeout(text);
    ASSERT_TRUE(read.has_value()) << text;
    if (timeout < std::chrono::hours(24 * 365)) {
      EXPECT_GE(*read, timeout) << text;
      EXPECT_LE((*read - timeout).count(), timeout.count() / 100'000 + 1) << text;
    }
  }
  EXPECT_EQ(format_grpc_timeout(std::chrono::seconds(5)), "5000000u");
}

TEST(PercentCoding, ComesBackTheSame) {
  std::string all;
  for (int c = 0; c < 256; ++c) all.push_back(static_cast<char>(c));
  const std::string encoded = percent_encode(all);
  for (const char c : encoded) EXPECT_TRUE(c >= 0x20 && c <= 0x7e);
  EXPECT_EQ(percent_decode(encoded), all);
  EXPECT_EQ(percent_encode("50 % \n"), "50 %25 %0A");
  EXPECT_EQ(percent_decode("%zz %4 %41%"), "%zz %4 A%");
}

TEST(RetryHint, PushbackIsWholeMilliseconds) {
  using std::chrono::microseconds;
  EXPECT_EQ(format_pushback(std::chrono::milliseconds(200)), "200");
  EXPECT_EQ(format_pushback(microseconds(200'001)), "201") << "never earlier than was meant";
  EXPECT_EQ(parse_pushback("201"), std::chrono::milliseconds(201));
  EXPECT_EQ(parse_pushback("0"), Duration::zero());
  EXPECT_EQ(parse_pushback("4000000000"), std::chrono::hours(1)) << "no server sends a client away for weeks";
  for (const char* odd : {"", "-1", "1.5", "soon", "1 ", "99999999999"}) EXPECT_FALSE(parse_pushback(odd)) << odd;
}

// The bytes are those that protobuf makes of the message.
TEST(RetryHint, DetailsAreAStatusWithARetryInfo) {
  const GrpcStatus status{.code = 8, .message = "etcdserver: too many requests", .retry_after = kRetryAfter};
  EXPECT_EQ(
      format_status_details(status),
      "CAgSHWV0Y2RzZXJ2ZXI6IHRvbyBtYW55IHJlcXVlc3RzGjMKKHR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5SZXRyeUluZm8SBwoF"
      "EICEr18");
  EXPECT_EQ(format_status_details({.code = 8, .retry_after = std::chrono::seconds(2)}),
            "CAgaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIIAg");
  EXPECT_EQ(format_status_details({.code = 8, .message = "nothing else is known"}), "");
}

TEST(StatusDetails, AReasonIsAnErrorInfo) {
  EXPECT_EQ(format_status_details({.code = 9, .message = "NOT_OWNER: no", .reason = "NOT_OWNER"}),
            "CAkSDU5PVF9PV05FUjogbm8aQQoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLkVycm9ySW5mbxIVCglOT1RfT1dORVISCGNvbm"
            "NsYXZl");
  EXPECT_EQ(format_status_details({.code = 8, .retry_after = std::chrono::seconds(2), .reason = "OVERLOADED"}),
            "CAgaQgoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLkVycm9ySW5mbxIWCgpPVkVSTE9BREVEEghjb25jbGF2ZRowCih0eXBlLm"
            "dvb2dsZWFwaXMuY29tL2dvb2dsZS5ycGMuUmV0cnlJbmZvEgQKAggC")
      << "both, the reason first";
}

}  // namespace
}  // namespace conclave::net
