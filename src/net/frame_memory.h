// FrameMemory: where nghttp2 keeps what it holds for the connections of one server. A session has one block of 16 KiB
// for the headers that it is sending, for as long as it lives, and an idle one has written to its first bytes only.
// From malloc's heap that block lies among memory that was in use before, and all of it is resident; here each has
// pages of its own, of which the untouched ones never are. Everything else is malloc's. On the loop's thread.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace conclave::net {

class FrameMemory {
 public:
  // Blocks beyond `blocks_max`, and all where the address space is too small for them, come from malloc.
  explicit FrameMemory(size_t blocks_max);
  FrameMemory(const FrameMemory&) = delete;
  FrameMemory& operator=(const FrameMemory&) = delete;
  ~FrameMemory();

  // Good as long as this.
  [[nodiscard]] nghttp2_mem* functions() { return &functions_; }

 private:
  [[nodiscard]] void* allocate(size_t size);
  [[nodiscard]] void* reallocate(void* block, size_t size);
  void release(void* block);
  [[nodiscard]] bool owns(const void* block) const;

  nghttp2_mem functions_;
  char* blocks_ = nullptr;  // null: there are none
  size_t blocks_max_;
  size_t used_ = 0;             // so many were ever given out
  std::vector<uint32_t> free_;  // of those
};

}  // namespace conclave::net
