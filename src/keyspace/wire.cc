#include "keyspace/wire.h"

#include "base/assert.h"

namespace conclave::keyspace {
namespace {

constexpr size_t kLengthPlaceBytes = 5;  // 35 bits: more than any message here

void append_tag(std::string& out, uint32_t field, WireType type) {
  append_varint(out, (uint64_t{field} << 3) | static_cast<uint64_t>(type));
}

}  // namespace

void append_varint(std::string& out, uint64_t value) {
  char raw[10];
  size_t size = 0;
  while (value >= 0x80) {
    raw[size++] = static_cast<char>(value | 0x80);
    value >>= 7;
  }
  raw[size++] = static_cast<char>(value);
  out.append(raw, size);
}

void append_int64_field(std::string& out, uint32_t field, int64_t value) {
  if (value == 0) return;
  append_tag(out, field, WireType::kVarint);
  append_varint(out, static_cast<uint64_t>(value));
}

void append_bool_field(std::string& out, uint32_t field, bool value) {
  append_int64_field(out, field, value ? 1 : 0);
}

void append_bytes_field(std::string& out, uint32_t field, ByteView bytes) {
  if (!bytes.empty()) append_message_field(out, field, bytes);
}

void append_message_field(std::string& out, uint32_t field, ByteView bytes) {
  append_tag(out, field, WireType::kBytes);
  append_varint(out, bytes.size());
  out.append(bytes);
}

size_t open_message(std::string& out, uint32_t field) {
  append_tag(out, field, WireType::kBytes);
  out.append(kLengthPlaceBytes, '\0');
  return out.size();
}

void close_message(std::string& out, size_t opened) {
  ASSERT_CMP(opened, <=, out.size());
  uint64_t size = out.size() - opened;
  ASSERT_CMP(size, <, uint64_t{1} << 35);
  char* place = out.data() + opened - kLengthPlaceBytes;
  if (size > kPadAbove) {
    for (size_t i = 0; i < kLengthPlaceBytes; ++i) {
      uint8_t low = static_cast<uint8_t>((size >> (7 * i)) & 0x7f);
      place[i] = static_cast<char>(i + 1 < kLengthPlaceBytes ? low | 0x80 : low);
    }
    return;
  }
  size_t needed = varint_size(size);
  for (size_t i = 0; i < needed; ++i) {
    uint8_t low = static_cast<uint8_t>((size >> (7 * i)) & 0x7f);
    place[i] = static_cast<char>(i + 1 < needed ? low | 0x80 : low);
  }
  out.erase(opened - kLengthPlaceBytes + needed, kLengthPlaceBytes - needed);
}

}  // namespace conclave::keyspace
