#include "net/frame_memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

namespace conclave::net {
namespace {

// A frame's head and 16 KiB of its payload, in whole pages. Smaller ones share pages well enough.
constexpr size_t kBlockBytes = size_t{20} << 10;
constexpr size_t kSizeMin = size_t{16} << 10;

}  // namespace

FrameMemory::FrameMemory(size_t blocks_max) : blocks_max_(blocks_max) {
  functions_ = {
      .mem_user_data = this,
      .malloc = [](size_t size, void* own) { return static_cast<FrameMemory*>(own)->allocate(size); },
      .free = [](void* block, void* own) { static_cast<FrameMemory*>(own)->release(block); },
      .calloc = [](size_t count, size_t size, void*) { return std::calloc(count, size); },
      .realloc = [](void* block, size_t size,
                    void* own) { return static_cast<FrameMemory*>(own)->reallocate(block, size); },
  };
  // Address space only: a page costs memory from when it is first written to.
  void* const mapped = ::mmap(nullptr, blocks_max_ * kBlockBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return;
  blocks_ = static_cast<char*>(mapped);
  // A huge page would be resident for the first byte of a hundred blocks.
  (void)::madvise(mapped, blocks_max_ * kBlockBytes, MADV_NOHUGEPAGE);
}

FrameMemory::~FrameMemory() {
  if (blocks_ != nullptr) ::munmap(blocks_, blocks_max_ * kBlockBytes);
}

bool FrameMemory::owns(const void* block) const {
  const auto at = reinterpret_cast<uintptr_t>(block);
  const auto begin = reinterpret_cast<uintptr_t>(blocks_);
  return blocks_ != nullptr && at >= begin && at < begin + blocks_max_ * kBlockBytes;
}

void* FrameMemory::allocate(size_t size) {
  if (size < kSizeMin || size > kBlockBytes || blocks_ == nullptr) return std::malloc(size);
  if (!free_.empty()) {
    const uint32_t number = free_.back();
    free_.pop_back();
    return blocks_ + number * kBlockBytes;
  }
  if (used_ == blocks_max_) return std::malloc(size);
  return blocks_ + used_++ * kBlockBytes;
}

void* FrameMemory::reallocate(void* block, size_t size) {
  if (block == nullptr) return allocate(size);  // which is how nghttp2 asks for one
  if (!owns(block)) return std::realloc(block, size);
  if (size <= kBlockBytes) return block;
  void* const larger = std::malloc(size);
  if (larger == nullptr) return nullptr;
  std::memcpy(larger, block, kBlockBytes);
  release(block);
  return larger;
}

void FrameMemory::release(void* block) {
  if (!owns(block)) return std::free(block);
  free_.push_back(static_cast<uint32_t>(static_cast<size_t>(static_cast<char*>(block) - blocks_) / kBlockBytes));
}

}  // namespace conclave::net
