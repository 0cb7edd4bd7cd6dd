// A seeded generator that gives the same numbers on every compiler, library and optimisation level. The standard
// library's distributions differ between libraries and are not used; nothing here uses floating point.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "base/assert.h"
#include "base/time.h"

namespace conclave {

// xoshiro256** seeded by splitmix64 (Blackman and Vigna). Owned by one object, never shared between threads. Not for
// secrets: those come from env::Random.
class Random {
 public:
  explicit Random(uint64_t seed);

  uint64_t next();
  // Uniform in [0, bound); bound > 0. Without bias.
  uint64_t below(uint64_t bound);
  // Uniform in [low, high], both included.
  uint64_t between(uint64_t low, uint64_t high) {
    ASSERT_CMP(low, <=, high);
    return high - low == UINT64_MAX ? next() : low + below(high - low + 1);
  }
  Duration between(Duration low, Duration high) {
    ASSERT(low <= high);
    return low + Duration(static_cast<int64_t>(below(static_cast<uint64_t>((high - low).count()) + 1)));
  }
  // True `numerator` times in `denominator`.
  bool chance(uint64_t numerator, uint64_t denominator) { return below(denominator) < numerator; }
  bool coin() { return (next() >> 63) != 0; }
  // Roughly exponential with this mean, at most 16 times it: many small, few large. Integer arithmetic only.
  Duration exponential(Duration mean);
  // An index below weights.size(), each as often as its weight says; the sum must not be zero.
  size_t weighted(std::span<const uint32_t> weights);

  template <class T>
  void shuffle(std::span<T> items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }
  // An independent generator: what it gives does not depend on how much is drawn here afterwards.
  Random fork() { return Random(next()); }

 private:
  uint64_t state_[4];
};

}  // namespace conclave
