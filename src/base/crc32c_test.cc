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

}  // namespace
}  // namespace conclave
