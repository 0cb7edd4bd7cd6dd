// A queue in one piece of memory that grows by doubling and is never freed: in steady state nothing is allocated.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "base/assert.h"

namespace conclave {

// Elements by position from the front. Dropped elements are reset to T{} so that what they own is released at once.
template <class T>
class Ring {
 public:
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] T& operator[](size_t i) {
    ASSERT(i < size_);
    return slots_[(head_ + i) & (slots_.size() - 1)];
  }
  [[nodiscard]] const T& operator[](size_t i) const {
    ASSERT(i < size_);
    return slots_[(head_ + i) & (slots_.size() - 1)];
  }
  [[nodiscard]] T& front() { return (*this)[0]; }
  [[nodiscard]] const T& front() const { return (*this)[0]; }
  [[nodiscard]] T& back() { return (*this)[size_ - 1]; }
  [[nodiscard]] const T& back() const { return (*this)[size_ - 1]; }

  void push_back(T value) {
    if (size_ == slots_.size()) grow();
    slots_[(head_ + size_) & (slots_.size() - 1)] = std::move(value);
    ++size_;
  }
  void pop_front() {
    ASSERT(size_ > 0);
    slots_[head_] = T{};
    head_ = (head_ + 1) & (slots_.size() - 1);
    --size_;
  }
  void pop_back() {
    ASSERT(size_ > 0);
    slots_[(head_ + size_ - 1) & (slots_.size() - 1)] = T{};
    --size_;
  }
  void clear() {
    while (size_ > 0) pop_front();
  }

  // Elements [from, from + count) as they lie: in one piece, or in two where they wrap.
  [[nodiscard]] std::pair<std::span<const T>, std::span<const T>> slices(size_t from, size_t count) const {
    ASSERT(from + count <= size_);
    if (count == 0) return {};
    const size_t begin = (head_ + from) & (slots_.size() - 1);
    const size_t first = std::min(count, slots_.size() - begin);
    return {std::span<const T>(slots_.data() + begin, first), std::span<const T>(slots_.data(), count - first)};
  }

 private:
  void grow() {
    std::vector<T> larger(slots_.empty() ? 16 : slots_.size() * 2);
    for (size_t i = 0; i < size_; ++i) larger[i] = std::move((*this)[i]);
    slots_ = std::move(larger);
    head_ = 0;
  }

  std::vector<T> slots_;
  size_t head_ = 0;
  size_t size_ = 0;
};

}  // namespace conclave
