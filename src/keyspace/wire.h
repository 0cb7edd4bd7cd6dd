// Protobuf's wire format, as far as the keyspace needs it: a strict reader over bytes it does not own, and writers that
// append to a string. Strict means canonical: what protobuf's own serialisers write is read, every other spelling of
// the same message is refused here and re-encoded before it may enter the log (validate.h).
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"

namespace conclave::keyspace {

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

// Reads the fields of one message in order. After a fault ok() is false and next() says no more.
class WireReader {
 public:
  explicit WireReader(ByteView bytes) : reader_(bytes) {}
  // Moves to the next field; false at the end or after a fault.
  bool next() {
    if (!reader_.ok() || reader_.rest().empty()) return false;
    uint64_t tag = reader_.varint();
    if (!reader_.ok() || (tag >> 3) == 0 || (tag >> 3) > kFieldMax) {
      reader_.reject();
      return false;
    }
    field_ = static_cast<uint32_t>(tag >> 3);
    type_ = static_cast<uint8_t>(tag & 7);
    return true;
  }
  [[nodiscard]] uint32_t field() const { return field_; }
  // The value of the field next() found; a fault if its type is another.
  uint64_t varint() {
    if (type_ != static_cast<uint8_t>(WireType::kVarint)) reader_.reject();
    return reader_.varint();
  }
  int64_t int64() { return static_cast<int64_t>(varint()); }
  bool boolean() {
    uint64_t value = varint();
    if (value > 1) reader_.reject();
    return value == 1;
  }
  ByteView bytes() {
    if (type_ != static_cast<uint8_t>(WireType::kBytes)) reader_.reject();
    return reader_.sized();
  }
  void reject() { reader_.reject(); }
  [[nodiscard]] bool ok() const { return reader_.ok(); }

 private:
  static constexpr uint64_t kFieldMax = (uint64_t{1} << 29) - 1;  // of protobuf
  ByteReader reader_;
  uint32_t field_ = 0;
  uint8_t type_ = 0;
};

void append_varint(std::string& out, uint64_t value);
// Omitted when zero, as proto3 does.
void append_int64_field(std::string& out, uint32_t field, int64_t value);
void append_bool_field(std::string& out, uint32_t field, bool value);
// Omitted when empty.
void append_bytes_field(std::string& out, uint32_t field, ByteView bytes);
// Written even when empty: presence of a message counts.
void append_message_field(std::string& out, uint32_t field, ByteView bytes);

// A nested message written in place: open, append its fields, close. Nothing is copied for large ones; small ones are
// moved down by the bytes their length did not need. Above kPadAbove the length keeps its padding, which every protobuf
// parser reads.
inline constexpr size_t kPadAbove = size_t{64} << 10;
[[nodiscard]] size_t open_message(std::string& out, uint32_t field);
void close_message(std::string& out, size_t opened);

[[nodiscard]] constexpr size_t varint_size(uint64_t value) {
  size_t size = 1;
  while (value >= 0x80) {
    value >>= 7;
    ++size;
  }
  return size;
}

}  // namespace conclave::keyspace
