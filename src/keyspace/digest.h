// A 64-bit hash for state digests: the same on every compiler and machine of our byte order, about 4 bytes a
// nanosecond. Not against adversaries: it tells divergence and damage, not forgery.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace conclave::keyspace {

__extension__ using Wide = unsigned __int128;

// Folds the 128-bit product: every input bit reaches every output bit.
[[nodiscard]] constexpr uint64_t mix(uint64_t a, uint64_t b) {
  Wide product = static_cast<Wide>(a ^ 0x9e3779b97f4a7c15ULL) * (b ^ 0xe7037ed1a0b428dbULL);
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

[[nodiscard]] inline uint64_t hash_bytes(ByteView bytes, uint64_t seed) {
  uint64_t hash = mix(seed, bytes.size());
  while (bytes.size() >= 8) {
    hash =
        mix(hash, load_le<uint64_t>(bytes.data()));  // NOLINT(bugprone-suspicious-stringview-data-usage): 8 are there
    bytes.remove_prefix(8);
  }
  uint64_t tail = 0;
  for (size_t i = 0; i < bytes.size(); ++i) tail |= uint64_t{static_cast<uint8_t>(bytes[i])} << (8 * i);
  return mix(hash, tail);
}

}  // namespace conclave::keyspace
