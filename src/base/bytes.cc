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

}  // namespace conclave
