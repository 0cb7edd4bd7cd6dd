#include "server/process.h"

#include <cstring>
#include <vector>

#include <gtest/gtest.h>

namespace conclave::server {
namespace {

TEST(ProcessTest, MemoryAndCpuGrowWithWhatIsUsed) {
  const api::ProcessMetrics before = process_metrics();
  EXPECT_GT(before.resident_bytes, 0U);
  std::vector<char> block(size_t{64} << 20);
  std::memset(block.data(), 1, block.size());
  api::ProcessMetrics after = process_metrics();
  EXPECT_GE(after.resident_bytes, before.resident_bytes + (size_t{60} << 20));
  while (after.cpu_seconds <= before.cpu_seconds) after = process_metrics();
  EXPECT_EQ(block[block.size() / 2], 1);
}

}  // namespace
}  // namespace conclave::server
