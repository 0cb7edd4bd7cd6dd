#include "base/random.h"

#include <algorithm>
#include <bit>

namespace conclave {

Random::Random(uint64_t seed) {
  for (uint64_t& word : state_) {
    seed += 0x9e3779b97f4a7c15ULL;
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    word = z ^ (z >> 31);
  }
}

uint64_t Random::next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

uint64_t Random::below(uint64_t bound) {
  ASSERT(bound > 0);
  // Lemire's multiply-and-reject: the high half of next() * bound, rejecting the few low halves that would bias it.
  __extension__ using Wide = unsigned __int128;
  Wide product = static_cast<Wide>(next()) * bound;
  if (static_cast<uint64_t>(product) < bound) {
    const uint64_t threshold = (0 - bound) % bound;
    while (static_cast<uint64_t>(product) < threshold) product = static_cast<Wide>(next()) * bound;
  }
  return static_cast<uint64_t>(product >> 64);
}

Duration Random::exponential(Duration mean) {
  // -ln(u) by halves: the leading zeros of a uniform word are geometric with mean 1 and give the integer part of
  // -log2(u); the bits after the leading one, taken linearly, its fraction. ln 2 is 693147/1000000.
  const uint64_t word = next() | 1;  // at most 63 leading zeros
  const auto zeros = static_cast<uint64_t>(std::countl_zero(word));
  const uint64_t mantissa = zeros == 63 ? 0 : (word << (zeros + 1)) >> 44;  // 20 bits
  const uint64_t log2_scaled = ((zeros + 1) << 20) - mantissa;              // -log2(u) * 2^20
  const auto mean_ns = static_cast<uint64_t>(mean.count());
  __extension__ using Wide = unsigned __int128;
  const Wide scaled = static_cast<Wide>(mean_ns) * log2_scaled * 693147 / 1000000;
  const auto result = static_cast<uint64_t>(scaled >> 20);
  return Duration(static_cast<int64_t>(std::min(result, mean_ns * 16)));
}

size_t Random::weighted(std::span<const uint32_t> weights) {
  uint64_t sum = 0;
  for (uint32_t weight : weights) sum += weight;
  uint64_t draw = below(sum);
  for (size_t i = 0; i < weights.size(); ++i) {
    if (draw < weights[i]) return i;
    draw -= weights[i];
  }
  UNREACHABLE();
}

}  // namespace conclave
