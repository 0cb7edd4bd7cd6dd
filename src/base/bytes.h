// Bytes: views, shared immutable buffers, and little-endian encoding with bounds. A decoder never reads past its end
// and never allocates more than the bytes present.
#pragma once

#include <atomic>
#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace conclave {

// Views of bytes are string_views: keys, values and protobuf fields already are.
using ByteView = std::string_view;

// Valid UTF-8: nothing longer than need be, no half of a pair, nothing past the last code point.
[[nodiscard]] bool is_utf8(ByteView bytes);
// 1 to 16 lower-case hex digits; nothing if it is none.
[[nodiscard]] std::optional<uint64_t> parse_hex(ByteView text);

// Immutable bytes with shared ownership, one allocation, one pointer wide. Copies may be held and dropped on any
// thread; the bytes themselves never change. An entry's payload is copied into one of these once and shared by the log
// in memory, the disk batch and the messages to peers.
class SharedBytes {
 public:
  SharedBytes() = default;
  // Copies `bytes` into a new buffer. Empty bytes need no buffer.
  static SharedBytes copy_of(ByteView bytes) { return concat(bytes, {}); }
  // One buffer of both, in order: a command is its header followed by the request's bytes.
  static SharedBytes concat(ByteView first, ByteView second);

  SharedBytes(const SharedBytes& other) : buffer_(other.buffer_) { retain(); }
  SharedBytes(SharedBytes&& other) noexcept : buffer_(std::exchange(other.buffer_, nullptr)) {}
  SharedBytes& operator=(const SharedBytes& other) {
    SharedBytes copy(other);
    std::swap(buffer_, copy.buffer_);
    return *this;
  }
  SharedBytes& operator=(SharedBytes&& other) noexcept {
    if (this != &other) {
      release();
      buffer_ = std::exchange(other.buffer_, nullptr);
    }
    return *this;
  }
  ~SharedBytes() { release(); }

  [[nodiscard]] ByteView view() const { return buffer_ == nullptr ? ByteView() : ByteView(data(), buffer_->size); }
  [[nodiscard]] size_t size() const { return buffer_ == nullptr ? 0 : buffer_->size; }
  [[nodiscard]] bool empty() const { return size() == 0; }
  friend bool operator==(const SharedBytes& a, const SharedBytes& b) { return a.view() == b.view(); }

 private:
  struct Buffer {
    std::atomic<uint32_t> owners;
    uint32_t size;
    // `size` bytes follow.
  };
  [[nodiscard]] const char* data() const { return reinterpret_cast<const char*>(buffer_ + 1); }
  void retain() const {
    if (buffer_ != nullptr) buffer_->owners.fetch_add(1, std::memory_order_relaxed);
  }
  void release() {
    if (buffer_ != nullptr && buffer_->owners.fetch_sub(1, std::memory_order_acq_rel) == 1) free_buffer(buffer_);
    buffer_ = nullptr;
  }
  static void free_buffer(Buffer* buffer);

  Buffer* buffer_ = nullptr;
};

static_assert(std::endian::native == std::endian::little, "the formats are little-endian and written as they lie");

template <std::unsigned_integral T>
void store_le(char* at, T value) {
  std::memcpy(at, &value, sizeof(value));
}
template <std::unsigned_integral T>
[[nodiscard]] T load_le(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// Appends little-endian fields to a string it does not own.
class ByteWriter {
 public:
  explicit ByteWriter(std::string& out) : out_(out) {}
  template <std::unsigned_integral T>
  void fixed(T value) {
    char raw[sizeof(T)];
    store_le(raw, value);
    out_.append(raw, sizeof(T));
  }
  // LEB128, 1 to 10 bytes.
  void varint(uint64_t value);
  // A varint length, then the bytes.
  void sized(ByteView bytes) {
    varint(bytes.size());
    out_.append(bytes);
  }
  void raw(ByteView bytes) { out_.append(bytes); }
  [[nodiscard]] size_t size() const { return out_.size(); }

 private:
  std::string& out_;
};

// Reads what ByteWriter wrote, and anything else without harm: past the first fault every read returns zero or empty
// and ok() is false, so that a decoder reads all its fields and asks once.
class ByteReader {
 public:
  explicit ByteReader(ByteView bytes) : rest_(bytes) {}
  template <std::unsigned_integral T>
  T fixed() {
    if (rest_.size() < sizeof(T)) return fault<T>();
    T value = load_le<T>(rest_.data());  // NOLINT(bugprone-suspicious-stringview-data-usage): the size is checked above
    rest_.remove_prefix(sizeof(T));
    return value;
  }
  // Refuses more than 10 bytes, overflow and non-minimal forms: each value has one encoding.
  uint64_t varint();
  ByteView sized() { return raw(varint()); }
  ByteView raw(uint64_t size) {
    if (!ok_ || size > rest_.size()) return fault<ByteView>();
    ByteView bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return bytes;
  }
  [[nodiscard]] bool ok() const { return ok_; }
  // ok, and nothing is left over.
  [[nodiscard]] bool finished() const { return ok_ && rest_.empty(); }
  [[nodiscard]] ByteView rest() const { return rest_; }
  // Marks the input as bad: a field was read but its value cannot be.
  void reject() { (void)fault<uint64_t>(); }

 private:
  template <class T>
  T fault() {
    ok_ = false;
    rest_ = {};
    return T{};
  }
  ByteView rest_;
  bool ok_ = true;
};

}  // namespace conclave
