#include "net/peer_frame.h"

#include <algorithm>

#include "base/crc32c.h"

namespace conclave::net {
namespace {

constexpr uint32_t kMagic = 0x70776c43;
// A buffer this large is kept between frames.
constexpr size_t kPartialBytesKept = size_t{64} << 10;

uint32_t frame_checksum(char lane, ByteView payload) {
  return crc32c(payload, crc32c(ByteView(&lane, 1)));
}

}  // namespace

std::string_view to_string(PeerVerdict verdict) {
  switch (verdict) {
    case PeerVerdict::kWelcome:
      return "welcome";
    case PeerVerdict::kWrongCluster:
      return "another cluster";
    case PeerVerdict::kWrongReceiver:
      return "another server";
    case PeerVerdict::kOldBoot:
      return "an earlier boot";
    case PeerVerdict::kFull:
      return "too many links";
    case PeerVerdict::kVersion:
      return "unknown version";
    case PeerVerdict::kUntrusted:
      return "untrusted certificate";
    case PeerVerdict::kStranger:
      return "not a member";
    case PeerVerdict::kFeatures:
      return "no feature level in common";
  }
  return "?";
}

std::string encode(const PeerHello& hello) {
  std::string out;
  ByteWriter writer(out);
  writer.fixed(kMagic);
  writer.fixed(kPeerVersion);
  writer.fixed(static_cast<uint8_t>(hello.is_answer ? 2 : 1));
  writer.fixed(static_cast<uint8_t>(hello.verdict));
  writer.fixed(uint8_t{0});
  writer.fixed(hello.cluster.value());
  writer.fixed(hello.member.value());
  writer.fixed(hello.boot.value());
  writer.fixed(hello.receiver.value());
  writer.fixed(hello.features.lowest);
  writer.fixed(hello.features.highest);
  writer.fixed(crc32c(out));
  return out;
}

Result<PeerHello> decode_peer_hello(ByteView bytes) {
  if (bytes.size() != kPeerHelloBytes) return fail(ErrorCode::kMalformed, "hello of {} bytes", bytes.size());
  ByteReader reader(bytes);
  if (reader.fixed<uint32_t>() != kMagic) return fail(ErrorCode::kMalformed, "not a server's link");
  // Before the checksum: a later version may have another layout behind the first five bytes.
  if (const auto version = reader.fixed<uint8_t>(); version != kPeerVersion) {
    return fail(ErrorCode::kVersion, "link of version {}", version);
  }
  const uint32_t checksum = crc32c(bytes.substr(0, kPeerHelloBytes - 4));
  const auto kind = reader.fixed<uint8_t>();
  const auto verdict = reader.fixed<uint8_t>();
  const auto zero = reader.fixed<uint8_t>();
  PeerHello hello{.is_answer = kind == 2, .verdict = static_cast<PeerVerdict>(verdict)};
  hello.cluster = ClusterId(reader.fixed<uint64_t>());
  hello.member = NodeId(reader.fixed<uint64_t>());
  hello.boot = Boot(reader.fixed<uint64_t>());
  hello.receiver = NodeId(reader.fixed<uint64_t>());
  hello.features.lowest = reader.fixed<uint16_t>();
  hello.features.highest = reader.fixed<uint16_t>();
  if (reader.fixed<uint32_t>() != checksum) return fail(ErrorCode::kMalformed, "hello with a wrong checksum");
  if (kind < 1 || kind > 2 || zero != 0 || verdict > static_cast<uint8_t>(PeerVerdict::kFeatures) ||
      (kind == 1 && verdict != 0) || hello.features.lowest > hello.features.highest) {
    return fail(ErrorCode::kMalformed, "hello of kind {}, verdict {}", kind, verdict);
  }
  return hello;
}

std::array<char, kPeerFrameHeadBytes> encode_peer_frame_head(env::Lane lane, ByteView payload) {
  std::array<char, kPeerFrameHeadBytes> head;
  const char lane_byte = static_cast<char>(lane);
  store_le(head.data(), static_cast<uint32_t>(payload.size()));
  store_le(head.data() + 4, frame_checksum(lane_byte, payload));
  head[8] = lane_byte;
  return head;
}

void PeerFrameReader::take(size_t bytes_wanted) {
  if (partial_.size() >= bytes_wanted) return;
  const size_t count = std::min(bytes_wanted - partial_.size(), piece_.size());
  partial_.append(piece_.substr(0, count));
  piece_.remove_prefix(count);
}

PeerFrameReader::Next PeerFrameReader::open(ByteView bytes, PeerFrame& frame) {
  const ByteView payload = bytes.substr(kPeerFrameHeadBytes);
  if (load_le<uint32_t>(bytes.data() + 4) != frame_checksum(bytes[8], payload)) return Next::kBad;
  if (static_cast<uint8_t>(bytes[8]) > static_cast<uint8_t>(env::Lane::kBulk)) return Next::kBad;
  frame = {.lane = static_cast<env::Lane>(bytes[8]), .payload = payload};
  return Next::kFrame;
}

PeerFrameReader::Next PeerFrameReader::next(PeerFrame& frame) {
  if (delivered_) {
    delivered_ = false;
    if (partial_.capacity() > kPartialBytesKept) partial_ = std::string();
    partial_.clear();
  }
  if (partial_.empty() && piece_.size() >= kPeerFrameHeadBytes) {
    // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): the size is checked above
    const size_t size = load_le<uint32_t>(piece_.data());
    if (size > kPeerFrameBytesMax) return Next::kBad;
    if (piece_.size() - kPeerFrameHeadBytes >= size) {
      const ByteView whole = piece_.substr(0, kPeerFrameHeadBytes + size);
      piece_.remove_prefix(whole.size());
      return open(whole, frame);
    }
  }
  take(kPeerFrameHeadBytes);
  if (partial_.size() < kPeerFrameHeadBytes) return Next::kMore;
  const size_t size = load_le<uint32_t>(partial_.data());
  if (size > kPeerFrameBytesMax) return Next::kBad;
  take(kPeerFrameHeadBytes + size);
  if (partial_.size() < kPeerFrameHeadBytes + size) return Next::kMore;
  delivered_ = true;
  return open(partial_, frame);
}

}  // namespace conclave::net
