// Histogram: how often each latency came, with at most 1 % error in the latency, in a fixed amount of memory. Buckets
// are as wide as 1/128 of the power of two they lie in. One thread.
#pragma once

#include <array>
#include <cstdint>

#include "base/time.h"

namespace conclave::cli {

class Histogram {
 public:
  // Negative counts as zero.
  void add(Duration value);
  void merge(const Histogram& other);
  [[nodiscard]] uint64_t count() const { return count_; }
  // The smallest recorded bound that at least this share (0 to 1) of the values does not exceed; zero without values.
  [[nodiscard]] Duration at(double share) const;
  // Exact.
  [[nodiscard]] Duration max() const { return Duration(static_cast<int64_t>(max_)); }
  [[nodiscard]] Duration mean() const;

 private:
  static constexpr unsigned kBits = 7;  // 128 buckets for each power of two
  static constexpr size_t kBuckets = (64 - kBits + 1) << kBits;
  [[nodiscard]] static size_t bucket_of(uint64_t value);
  [[nodiscard]] static uint64_t top_of(size_t bucket);

  std::array<uint64_t, kBuckets> buckets_{};
  uint64_t count_ = 0;
  uint64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace conclave::cli
