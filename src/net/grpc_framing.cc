#include "net/grpc_framing.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/assert.h"

namespace conclave::net {
namespace {

// Above this a message is its own segment; below it, copying is cheaper than the allocation.
constexpr size_t kSegmentBytes = size_t{16} << 10;

uint32_t load_be32(const char* at) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(at);
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | uint32_t{bytes[3]};
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

MessageReader::Next MessageReader::check_prefix(const char* prefix, size_t& size) {
  if (prefix[0] != 0 && prefix[0] != 1) return Next::kMalformed;
  is_compressed_ = prefix[0] == 1;
  if (is_compressed_ && !takes_compressed_) return Next::kCompressed;
  size = load_be32(prefix + 1);
  return size > message_bytes_max_ ? Next::kTooLarge : Next::kMessage;
}

void MessageReader::take(size_t bytes_wanted) {
  if (partial_.size() >= bytes_wanted) return;
  const size_t count = std::min(bytes_wanted - partial_.size(), piece_.size());
  partial_.append(piece_.substr(0, count));
  piece_.remove_prefix(count);
}

MessageReader::Next MessageReader::next(ByteView& message) {
  if (delivered_) {
    delivered_ = false;
    // An idle stream keeps no large buffer.
    if (partial_.capacity() > kSegmentBytes) partial_ = std::string();
    partial_.clear();
  }
  size_t size = 0;
  if (partial_.empty() && piece_.size() >= kGrpcPrefixBytes) {
    // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): the size is checked above
    if (const Next bad = check_prefix(piece_.data(), size); bad != Next::kMessage) return bad;
    if (piece_.size() - kGrpcPrefixBytes >= size) {
      message = piece_.substr(kGrpcPrefixBytes, size);
      piece_.remove_prefix(kGrpcPrefixBytes + size);
      return Next::kMessage;
    }
  }
  take(kGrpcPrefixBytes);
  if (partial_.size() < kGrpcPrefixBytes) return Next::kMore;
  if (const Next bad = check_prefix(partial_.data(), size); bad != Next::kMessage) return bad;
  take(kGrpcPrefixBytes + size);
  if (partial_.size() < kGrpcPrefixBytes + size) return Next::kMore;
  message = ByteView(partial_).substr(kGrpcPrefixBytes);
  delivered_ = true;
  return Next::kMessage;
}

void OutboundMessages::add_prefix(std::string& segment, size_t size) {
  const char prefix[kGrpcPrefixBytes] = {0, static_cast<char>(size >> 24), static_cast<char>(size >> 16),
                                         static_cast<char>(size >> 8), static_cast<char>(size)};
  segment.append(prefix, kGrpcPrefixBytes);
  bytes_ += kGrpcPrefixBytes + size;
}

std::string& OutboundMessages::open_segment(size_t coming) {
  if (segments_.size() == first_ || segments_.back().size() + coming > kSegmentBytes) segments_.emplace_back();
  return segments_.back();
}

void OutboundMessages::add(std::string&& message) {
  if (message.size() <= kSegmentBytes) return add(std::string_view(message));
  ASSERT_CMP(message.size(), <=, size_t{UINT32_MAX});
  add_prefix(open_segment(kGrpcPrefixBytes), message.size());
  segments_.push_back(std::move(message));
}

void OutboundMessages::add(std::string_view message) {
  ASSERT_CMP(message.size(), <=, size_t{UINT32_MAX});
  std::string& segment = open_segment(kGrpcPrefixBytes + message.size());
  if (segment.empty()) segment.reserve(kGrpcPrefixBytes + message.size());
  add_prefix(segment, message.size());
  segment.append(message);
}

void OutboundMessages::add_pieces(std::span<std::string> pieces) {
  size_t size = 0;
  for (const std::string& piece : pieces) size += piece.size();
  ASSERT_CMP(size, <=, size_t{UINT32_MAX});
  add_prefix(open_segment(kGrpcPrefixBytes), size);
  for (std::string& piece : pieces) segments_.push_back(std::move(piece));
}

void OutboundMessages::take(size_t count, std::string& out) {
  ASSERT_CMP(count, <=, bytes_);
  bytes_ -= count;
  while (count > 0) {
    std::string& segment = segments_[first_];
    const size_t piece = std::min(count, segment.size() - offset_);
    out.append(segment, offset_, piece);
    offset_ += piece;
    count -= piece;
    if (offset_ < segment.size()) break;
    offset_ = 0;
    // A used-up segment frees its memory at once; the list of them is cut when it is all used up, or half.
    segment = std::string();
    ++first_;
  }
  if (bytes_ == 0) {
    clear();
  } else if (first_ >= 64 && first_ * 2 >= segments_.size()) {
    segments_.erase(segments_.begin(), segments_.begin() + static_cast<std::ptrdiff_t>(first_));
    first_ = 0;
  }
}

void OutboundMessages::clear() {
  segments_.clear();
  first_ = 0;
  offset_ = 0;
  bytes_ = 0;
}

std::optional<Duration> parse_grpc_timeout(std::string_view text) {
  if (text.size() < 2 || text.size() > 9) return std::nullopt;
  int64_t number = 0;
  for (const char c : text.substr(0, text.size() - 1)) {
    if (c < '0' || c > '9') return std::nullopt;
    number = number * 10 + (c - '0');
  }
  // Eight digits of hours are 11,000 years and would not fit; nobody waits a year.
  constexpr Duration kLongest = std::chrono::hours(24 * 366);
  const auto of = [&](Duration unit) { return number > kLongest / unit ? kLongest : unit * number; };
  switch (text.back()) {
    case 'H':
      return of(std::chrono::hours(1));
    case 'M':
      return of(std::chrono::minutes(1));
    case 'S':
      return of(std::chrono::seconds(1));
    case 'm':
      return of(std::chrono::milliseconds(1));
    case 'u':
      return of(std::chrono::microseconds(1));
    case 'n':
      return of(std::chrono::nanoseconds(1));
    default:
      return std::nullopt;
  }
}

std::string format_grpc_timeout(Duration timeout) {
  struct Unit {
    int64_t nanoseconds;
    char letter;
  };
  static constexpr std::array<Unit, 6> kUnits = {{{1, 'n'},
                                                  {1'000, 'u'},
                                                  {1'000'000, 'm'},
                                                  {1'000'000'000, 'S'},
                                                  {60'000'000'000, 'M'},
                                                  {3'600'000'000'000, 'H'}}};
  const int64_t nanoseconds = std::max<int64_t>(timeout.count(), 0);
  for (const Unit& unit : kUnits) {
    const int64_t number = nanoseconds / unit.nanoseconds + (nanoseconds % unit.nanoseconds != 0 ? 1 : 0);
    if (number <= 99'999'999) return std::to_string(number) + unit.letter;
  }
  UNREACHABLE();  // 63 bits of nanoseconds are 2.6 million hours
}

std::string percent_encode(std::string_view text) {
  static constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte <= 0x7e && c != '%') {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
  return out;
}

std::string percent_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
      out.push_back(static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

// ---- What a status says beside code and message ----

namespace {

constexpr Duration kPushbackMax = std::chrono::hours(1);

// Protobuf's fields, of a number and of bytes. Left out where they are zero or empty, as protobuf does.
void add_number_field(uint64_t field, uint64_t value, std::string& out) {
  if (value == 0) return;
  ByteWriter writer(out);
  writer.varint(field << 3);
  writer.varint(value);
}
void add_bytes_field(uint64_t field, std::string_view bytes, std::string& out) {
  if (bytes.empty()) return;
  ByteWriter writer(out);
  writer.varint((field << 3) | 2);
  writer.sized(bytes);
}

// Without padding, as gRPC sends it.
std::string base64(std::string_view bytes) {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() * 4 + 2) / 3);
  uint32_t bits = 0;
  size_t count = 0;
  for (const char byte : bytes) {
    bits = (bits << 8) | static_cast<unsigned char>(byte);
    for (count += 8; count >= 6; count -= 6) out.push_back(kDigits[(bits >> (count - 6)) & 63]);
  }
  if (count > 0) out.push_back(kDigits[(bits << (6 - count)) & 63]);
  return out;
}

}  // namespace

std::string format_pushback(Duration retry_after) {
  return std::to_string(std::chrono::ceil<std::chrono::milliseconds>(retry_after).count());
}

std::optional<Duration> parse_pushback(std::string_view text) {
  uint32_t milliseconds = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), milliseconds);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
  return std::min<Duration>(std::chrono::milliseconds(milliseconds), kPushbackMax);
}

namespace {

// As field 3 of a google.rpc.Status.
void add_detail(std::string_view type, std::string_view message, std::string& out) {
  std::string detail;  // google.protobuf.Any
  add_bytes_field(1, type, detail);
  add_bytes_field(2, message, detail);
  add_bytes_field(3, detail, out);
}

}  // namespace

std::string format_status_details(const GrpcStatus& status) {
  if (status.reason.empty() && status.retry_after == Duration::zero()) return "";
  std::string all;  // google.rpc.Status
  add_number_field(1, status.code, all);
  add_bytes_field(2, status.message, all);
  if (!status.reason.empty()) {
    std::string info;  // google.rpc.ErrorInfo
    add_bytes_field(1, status.reason, info);
    add_bytes_field(2, kErrorDomain, info);
    add_detail("type.googleapis.com/google.rpc.ErrorInfo", info, all);
  }
  if (status.retry_after != Duration::zero()) {
    const auto seconds = std::chrono::floor<std::chrono::seconds>(status.retry_after);
    std::string delay;  // google.protobuf.Duration
    add_number_field(1, static_cast<uint64_t>(seconds.count()), delay);
    add_number_field(2, static_cast<uint64_t>(std::chrono::nanoseconds(status.retry_after - seconds).count()), delay);
    std::string retry_info;  // google.rpc.RetryInfo
    add_bytes_field(1, delay, retry_info);
    add_detail("type.googleapis.com/google.rpc.RetryInfo", retry_info, all);
  }
  return base64(all);
}

}  // namespace conclave::net
