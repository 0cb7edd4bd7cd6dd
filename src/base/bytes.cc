#include "base/bytes.h"

#include <cstdlib>
#include <limits>
#include <new>

#include "base/assert.h"

namespace conclave {

SharedBytes SharedBytes::concat(ByteView first, ByteView second) {
  SharedBytes result;
  const size_t size = first.size() + second.size();
  if (size == 0) return result;
  ASSERT_CMP(size, <=, static_cast<size_t>(std::numeric_limits<uint32_t>::max()));
  void* memory = std::malloc(sizeof(Buffer) + size);
  ASSERT(memory != nullptr);
  auto* buffer = new (memory) Buffer{.owners = 1, .size = static_cast<uint32_t>(size)};
  char* data = reinterpret_cast<char*>(buffer + 1);
  if (!first.empty()) std::memcpy(data, first.data(), first.size());
  if (!second.empty()) std::memcpy(data + first.size(), second.data(), second.size());
  result.buffer_ = buffer;
  return result;
}

void SharedBytes::free_buffer(Buffer* buffer) {
  buffer->~Buffer();
  std::free(buffer);
}

void ByteWriter::varint(uint64_t value) {
  while (value >= 0x80) {
    out_.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out_.push_back(static_cast<char>(value));
}

uint64_t ByteReader::varint() {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (rest_.empty()) return fault<uint64_t>();
    const auto byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    if (shift == 63 && byte > 1) return fault<uint64_t>();  // past 64 bits
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) {
      if (byte == 0 && shift != 0) return fault<uint64_t>();  // a longer form of a smaller number
      return value;
    }
  }
  return fault<uint64_t>();
}

bool is_utf8(ByteView bytes) {
  size_t i = 0;
  while (i < bytes.size()) {
    const auto first = static_cast<unsigned char>(bytes[i++]);
    if (first < 0x80) continue;
    const size_t more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4 || bytes.size() - i < more) return false;
    uint32_t point = first & (0x3fU >> more);
    for (size_t k = 0; k < more; ++k) {
      const auto next = static_cast<unsigned char>(bytes[i++]);
      if ((next & 0xc0U) != 0x80) return false;
      point = (point << 6) | (next & 0x3fU);
    }
    // Longer than need be, half of a pair, or past the last.
    if ((more == 2 && point < 0x800) || (more == 3 && (point < 0x10000 || point > 0x10ffff))) return false;
    if (point >= 0xd800 && point <= 0xdfff) return false;
  }
  return true;
}

std::optional<uint64_t> parse_hex(ByteView text) {
  if (text.empty() || text.size() > 16) return std::nullopt;
  uint64_t number = 0;
  for (const char digit : text) {
    const bool is_decimal = digit >= '0' && digit <= '9';
    if (!is_decimal && (digit < 'a' || digit > 'f')) return std::nullopt;
    number = number << 4 | static_cast<uint64_t>(is_decimal ? digit - '0' : digit - 'a' + 10);
  }
  return number;
}

}  // namespace conclave
