#include "base/crc32c.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace conclave {
namespace {

// The test vectors of RFC 3720, appendix B.4.
TEST(Crc32c, KnownAnswers) {
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43U);
  std::string rising;
  for (int i = 0; i < 32; ++i) rising.push_back(static_cast<char>(i));
  EXPECT_EQ(crc32c(rising), 0x46dd794eU);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
  EXPECT_EQ(crc32c(""), 0U);
}

TEST(Crc32c, PortableGivesTheSameAnswers) {
  Random random(1);
  std::string bytes;
  for (int round = 0; round < 2000; ++round) {
    bytes.resize(random.below(300));
    for (char& c : bytes) c = static_cast<char>(random.next());
    const auto seed = static_cast<uint32_t>(random.next());
    EXPECT_EQ(crc32c(bytes, seed), crc32c_portable(bytes, seed));
    const size_t cut = random.below(bytes.size() + 1);
    EXPECT_EQ(crc32c(bytes), crc32c(ByteView(bytes).substr(cut), crc32c(ByteView(bytes).substr(0, cut))));
  }
}

TEST(Crc32c, FourAtOnceAreTheSame) {
  std::string bytes;
  for (int i = 0; i < 2000; ++i) bytes.push_back(static_cast<char>(i * 7 + i / 13));
  for (size_t size : {0, 1, 4, 7, 8, 12, 15, 16, 499, 500}) {
    const char* const buffers[4] = {bytes.data(), bytes.data() + 500, bytes.data() + 1000, bytes.data() + 1499};
    uint32_t four[4];
    crc32c_four(buffers, size, 5, four);
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(four[i], crc32c(ByteView(buffers[i], size), 5)) << size;
      EXPECT_EQ(four[i], crc32c_portable(ByteView(buffers[i], size), 5)) << size;
    }
  }
}

}  // namespace
}  // namespace conclave
