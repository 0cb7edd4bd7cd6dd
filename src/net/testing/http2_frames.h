// HTTP/2 frames by hand, as a client that does what no library would.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace conclave::net {

inline constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

enum FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kPriority = 2,
  kReset = 3,
  kSettings = 4,
  kPing = 6,
  kGoAway = 7,
  kWindowUpdate = 8,
  kContinuation = 9,
};
inline constexpr uint8_t kEndStream = 1;
inline constexpr uint8_t kAck = 1;
inline constexpr uint8_t kEndHeaders = 4;
inline constexpr uint8_t kPadded = 8;

inline std::string be32(uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

inline std::string frame(FrameType type, uint8_t flags, uint32_t stream, std::string_view payload = {}) {
  std::string out = be32(static_cast<uint32_t>(payload.size())).substr(1);
  out.push_back(static_cast<char>(type));
  out.push_back(static_cast<char>(flags));
  return out + be32(stream) + std::string(payload);
}

// A string of HPACK without Huffman's code.
inline std::string hpack_string(std::string_view text) {
  std::string out;
  size_t size = text.size();
  if (size < 127) {
    out.push_back(static_cast<char>(size));
  } else {
    out.push_back(127);
    for (size -= 127; size >= 128; size >>= 7) out.push_back(static_cast<char>(size | 128));
    out.push_back(static_cast<char>(size));
  }
  return out + std::string(text);
}

inline std::string hpack(std::initializer_list<std::pair<std::string_view, std::string_view>> headers) {
  std::string out;
  for (const auto& [name, value] : headers) out += std::string(1, '\0') + hpack_string(name) + hpack_string(value);
  return out;
}

inline std::string request_headers(std::string_view path) {
  return hpack({{":method", "POST"},
                {":scheme", "http"},
                {":path", path},
                {":authority", "here"},
                {"content-type", "application/grpc"},
                {"te", "trailers"}});
}

inline std::string message(std::string_view text) {
  return std::string(1, '\0') + be32(static_cast<uint32_t>(text.size())) + std::string(text);
}

struct Frame {
  uint8_t type = 0;
  uint8_t flags = 0;
  uint32_t stream = 0;
  std::string_view payload;
};

// The whole frames in `bytes`.
inline std::vector<Frame> frames_in(std::string_view bytes) {
  std::vector<Frame> frames;
  const auto at = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(bytes[i])); };
  while (bytes.size() >= 9) {
    const size_t size = at(0) << 16 | at(1) << 8 | at(2);
    if (bytes.size() < 9 + size) break;
    frames.push_back({.type = static_cast<uint8_t>(at(3)),
                      .flags = static_cast<uint8_t>(at(4)),
                      .stream = at(5) << 24 | at(6) << 16 | at(7) << 8 | at(8),
                      .payload = bytes.substr(9, size)});
    bytes.remove_prefix(9 + size);
  }
  return frames;
}

}  // namespace conclave::net
