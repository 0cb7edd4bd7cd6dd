#include "cli/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace conclave::cli {

size_t Histogram::bucket_of(uint64_t value) {
  constexpr uint64_t kSmall = uint64_t{1} << kBits;
  if (value < kSmall) return value;
  const auto shift = static_cast<unsigned>(std::bit_width(value)) - kBits - 1;
  return (size_t{shift + 1} << kBits) + static_cast<size_t>((value >> shift) - kSmall);
}

uint64_t Histogram::top_of(size_t bucket) {
  constexpr uint64_t kSmall = uint64_t{1} << kBits;
  if (bucket < kSmall) return bucket;
  const size_t shift = (bucket >> kBits) - 1;
  const uint64_t lowest = (kSmall + (bucket & (kSmall - 1))) << shift;
  return lowest + ((uint64_t{1} << shift) - 1);
}

void Histogram::add(Duration value) {
  const uint64_t nanoseconds = value.count() < 0 ? 0 : static_cast<uint64_t>(value.count());
  ++buckets_[bucket_of(nanoseconds)];
  ++count_;
  sum_ += static_cast<double>(nanoseconds);
  max_ = std::max(max_, nanoseconds);
}

void Histogram::merge(const Histogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  sum_ += other.sum_;
  max_ = std::max(max_, other.max_);
}

Duration Histogram::at(double share) const {
  if (count_ == 0) return Duration::zero();
  const auto wanted = static_cast<uint64_t>(std::ceil(std::clamp(share, 0.0, 1.0) * static_cast<double>(count_)));
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    seen += buckets_[i];
    if (seen >= std::max<uint64_t>(wanted, 1)) return Duration(static_cast<int64_t>(std::min(top_of(i), max_)));
  }
  return max();
}

Duration Histogram::mean() const {
  return count_ == 0 ? Duration::zero() : Duration(static_cast<int64_t>(sum_ / static_cast<double>(count_)));
}

}  // namespace conclave::cli
