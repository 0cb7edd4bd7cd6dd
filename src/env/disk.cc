#include "env/disk.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/assert.h"

namespace conclave::env {

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), capacity_(std::exchange(other.capacity_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  if (this != &other) {
    std::free(data_);
    data_ = std::exchange(other.data_, nullptr);
    capacity_ = std::exchange(other.capacity_, 0);
  }
  return *this;
}

AlignedBuffer::~AlignedBuffer() {
  std::free(data_);
}

void AlignedBuffer::reserve(size_t capacity, size_t keep) {
  if (capacity <= capacity_) return;
  ASSERT_CMP(keep, <=, capacity_);
  size_t size = std::max(capacity_ * 2, kBlockBytes);
  while (size < capacity) size *= 2;
  auto* data = static_cast<char*>(std::aligned_alloc(kBlockBytes, size));
  ASSERT(data != nullptr);
  if (keep > 0) std::memcpy(data, data_, keep);
  std::free(data_);
  data_ = data;
  capacity_ = size;
}

}  // namespace conclave::env
