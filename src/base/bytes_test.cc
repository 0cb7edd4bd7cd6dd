#include "base/bytes.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace conclave {
namespace {

TEST(SharedBytes, SharesOneBuffer) {
  SharedBytes a = SharedBytes::concat("head", "body");
  EXPECT_EQ(a.view(), "headbody");
  SharedBytes b = a;
  EXPECT_EQ(a.view().data(), b.view().data());
  SharedBytes c = std::move(a);
  EXPECT_EQ(c.view().data(), b.view().data());
  EXPECT_TRUE(a.empty());  // NOLINT(bugprone-use-after-move): moved-from is empty, by contract
  const SharedBytes& alias = b;
  b = alias;  // self-assignment keeps the bytes
  EXPECT_EQ(b.view(), "headbody");
  EXPECT_TRUE(SharedBytes::copy_of("").empty());
}

TEST(Bytes, FieldsComeBackAsWritten) {
  std::string out;
  ByteWriter writer(out);
  writer.fixed<uint8_t>(7);
  writer.fixed<uint64_t>(0x0123456789abcdefULL);
  writer.varint(0);
  writer.varint(127);
  writer.varint(128);
  writer.varint(UINT64_MAX);
  writer.sized("key");
  EXPECT_EQ(static_cast<uint8_t>(out[1]), 0xef) << "little-endian";
  ByteReader reader(out);
  EXPECT_EQ(reader.fixed<uint8_t>(), 7);
  EXPECT_EQ(reader.fixed<uint64_t>(), 0x0123456789abcdefULL);
  EXPECT_EQ(reader.varint(), 0U);
  EXPECT_EQ(reader.varint(), 127U);
  EXPECT_EQ(reader.varint(), 128U);
  EXPECT_EQ(reader.varint(), UINT64_MAX);
  EXPECT_EQ(reader.sized(), "key");
  EXPECT_TRUE(reader.finished());
}

TEST(Bytes, EveryCutIsRefused) {
  std::string out;
  ByteWriter writer(out);
  writer.fixed<uint32_t>(1);
  writer.varint(300);
  writer.sized("abc");
  for (size_t cut = 0; cut < out.size(); ++cut) {
    ByteReader reader(ByteView(out).substr(0, cut));
    reader.fixed<uint32_t>();
    reader.varint();
    reader.sized();
    EXPECT_FALSE(reader.ok()) << cut;
  }
}

TEST(Bytes, VarintHasOneEncoding) {
  auto refused = [](const std::string& bytes) {
    ByteReader reader(bytes);
    reader.varint();
    return !reader.ok();
  };
  EXPECT_TRUE(refused({'\x80', '\x00'})) << "zero in two bytes";
  EXPECT_TRUE(refused(std::string(9, '\xff') + '\x02')) << "past 64 bits";
  EXPECT_TRUE(refused(std::string(11, '\x80'))) << "never ends";
  EXPECT_FALSE(refused(std::string(9, '\xff') + '\x01'));
}

TEST(Bytes, LengthBeyondTheInputIsRefusedWithoutAllocation) {
  std::string out;
  ByteWriter(out).varint(uint64_t{1} << 62);
  ByteReader reader(out);
  EXPECT_TRUE(reader.sized().empty());
  EXPECT_FALSE(reader.ok());
}

TEST(Bytes, Utf8) {
  EXPECT_TRUE(is_utf8("plain"));
  EXPECT_TRUE(is_utf8("\xf0\x9f\x94\x92\xe2\x82\xac\xc2\xa2"));
  for (const std::string_view bad : {"\x80", "\xc0\xaf", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                     "\xf5\x80\x80\x80", "\xe2\x82", "a\xff"}) {
    EXPECT_FALSE(is_utf8(bad));
  }
}

TEST(Bytes, Hex) {
  EXPECT_EQ(parse_hex("0"), 0U);
  EXPECT_EQ(parse_hex("00ff"), 255U);
  EXPECT_EQ(parse_hex("ffffffffffffffff"), UINT64_MAX);
  for (const ByteView bad : {"", "g", "F", "-1", "0x1", " 1", "10000000000000000"}) EXPECT_FALSE(parse_hex(bad)) << bad;
}

}  // namespace
}  // namespace conclave
