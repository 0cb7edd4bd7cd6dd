// Messages that clients send compressed. Takes hostile input: never makes more than it was told, whatever the input
// claims, and holds nothing afterwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"

namespace conclave::net {

enum class Gunzip : uint8_t {
  kDone,
  kTooLarge,   // more than bytes_max
  kMalformed,  // not gzip, cut, damaged, or with something behind it
};
// One member of RFC 1952. Appends to `out`; unless kDone, some part of it or nothing. Beside that: 64 KiB.
[[nodiscard]] Gunzip gunzip(ByteView compressed, size_t bytes_max, std::string& out);

}  // namespace conclave::net
