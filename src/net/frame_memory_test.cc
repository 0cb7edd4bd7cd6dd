#include "net/frame_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace conclave::net {
namespace {

constexpr size_t kFrame = (size_t{16} << 10) + 10;  // as nghttp2 asks for them
constexpr size_t kPage = size_t{4} << 10;

class FrameMemoryTest : public testing::Test {
 protected:
  void* allocate(size_t size) { return memory_.functions()->malloc(size, &memory_); }
  void release(void* block) { memory_.functions()->free(block, &memory_); }
  void* reallocate(void* block, size_t size) { return memory_.functions()->realloc(block, size, &memory_); }
  // On pages that no other block is on.
  static bool is_apart(const void* block) { return reinterpret_cast<uintptr_t>(block) % kPage == 0; }

  FrameMemory memory_{2};
};

TEST_F(FrameMemoryTest, FramesHavePagesOfTheirOwnAndAreUsedAgain) {
  void* const first = allocate(kFrame);
  void* const second = reallocate(nullptr, kFrame);
  EXPECT_TRUE(is_apart(first) && is_apart(second));
  EXPECT_GE(std::abs(static_cast<char*>(first) - static_cast<char*>(second)), static_cast<ptrdiff_t>(kFrame));
  std::memset(first, 'a', kFrame);
  std::memset(second, 'b', kFrame);
  EXPECT_EQ(static_cast<char*>(first)[kFrame - 1], 'a');
  release(first);
  EXPECT_EQ(allocate(kFrame), first);
  release(first);
  release(second);
}

TEST_F(FrameMemoryTest, WhatIsBeyondItIsMallocs) {
  void* const first = allocate(kFrame);
  void* const second = allocate(kFrame);
  void* const third = allocate(kFrame);
  void* const small = allocate(100);
  void* const large = allocate(size_t{1} << 20);
  std::memset(third, 'c', kFrame);
  std::memset(small, 's', 100);
  std::memset(large, 'l', size_t{1} << 20);
  for (void* const block : {third, small, large, second, first}) release(block);
  release(nullptr);
}

TEST_F(FrameMemoryTest, AFrameMayGrowOutOfIt) {
  void* const block = allocate(kFrame);
  std::memset(block, 'g', kFrame);
  EXPECT_EQ(reallocate(block, kFrame + 100), block);
  void* const larger = reallocate(block, size_t{1} << 20);
  EXPECT_NE(larger, block);
  EXPECT_EQ(std::string_view(static_cast<char*>(larger), kFrame), std::string(kFrame, 'g'));
  EXPECT_EQ(allocate(kFrame), block);
  release(block);
  release(larger);
}

}  // namespace
}  // namespace conclave::net
