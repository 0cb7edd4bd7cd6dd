// The written list of what may differ between the two servers, each with its reason and how often it did: in an answer,
// or in what would have been asked. Nothing here is about keys, values, codes or texts of errors.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace conclave::differential {

enum class Differs : uint8_t {
  kHeader,
  kLeaseChosen,
  kLeaseTime,
  kLeaseShort,
  kLeaseKeys,
  kLeases,
  kTies,
  kTiesLeft,
  kDeleteFrom,
  kErrorDetails,
  kPrecondition,
  kHashPath,
  kEndedId,
  kBehind,
  kDeletedThere,
  kLongBody,
  kCount,
};

struct Difference {
  std::string_view what;
  std::string_view why;
  uint64_t hits = 0;
};

inline constexpr size_t kDifferencesMax = 20;
static_assert(static_cast<size_t>(Differs::kCount) <= kDifferencesMax);

[[nodiscard]] std::array<Difference, static_cast<size_t>(Differs::kCount)>& differences();
inline void hit(Differs what) {
  ++differences()[static_cast<size_t>(what)].hits;
}

}  // namespace conclave::differential
