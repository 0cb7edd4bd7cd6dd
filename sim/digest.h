// Digest: one number for everything that happened in a run, in order. Two runs that differ in one event, or in the
// order of two, end with different digests; g++ and clang, -O0 and -O2 must agree. Not cryptographic.
#pragma once

#include <bit>
#include <cstdint>

#include "base/bytes.h"
#include "base/time.h"

namespace conclave::sim {

class Digest {
 public:
  void add(uint64_t word) { state_ = std::rotl((state_ ^ word) * 0x9fb21c651e98df25ULL, 29) + 0xd1b54a32d192ed03ULL; }
  void add(Instant at) { add(static_cast<uint64_t>(to_nanoseconds(at))); }
  // The length is part of it: "ab","c" is not "a","bc".
  void add_bytes(ByteView bytes) {
    add(bytes.size());
    while (bytes.size() >= 8) {
      add(load_le<uint64_t>(bytes.data()));  // NOLINT(bugprone-suspicious-stringview-data-usage): size checked
      bytes.remove_prefix(8);
    }
    uint64_t tail = 0;
    if (!bytes.empty()) std::memcpy(&tail, bytes.data(), bytes.size());
    if (!bytes.empty()) add(tail);
  }
  // The number so far; may be asked at any time and changes nothing.
  [[nodiscard]] uint64_t value() const {
    uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
  }

 private:
  uint64_t state_ = 0x243f6a8885a308d3ULL;  // fraction of pi: any start but zero
};

}  // namespace conclave::sim
