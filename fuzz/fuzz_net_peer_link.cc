// A link's bytes from a peer, cut into pieces: hello and frames are the same however they are cut, and encode to the
// same bytes again.
#include <cstdint>
#include <string>
#include <vector>

#include "base/assert.h"
#include "net/peer_frame.h"

namespace {

using namespace conclave;       // NOLINT(google-build-using-namespace)
using namespace conclave::net;  // NOLINT(google-build-using-namespace)

struct Read {
  std::vector<std::string> frames;  // as they would be sent
  PeerFrameReader::Next end = PeerFrameReader::Next::kMore;
};

Read read_in_pieces(ByteView bytes, size_t piece_bytes) {
  PeerFrameReader reader;
  Read read;
  while (!bytes.empty() && read.end == PeerFrameReader::Next::kMore) {
    reader.feed(bytes.substr(0, piece_bytes));
    bytes.remove_prefix(std::min(piece_bytes, bytes.size()));
    PeerFrame frame;
    while ((read.end = reader.next(frame)) == PeerFrameReader::Next::kFrame) {
      const auto head = encode_peer_frame_head(frame.lane, frame.payload);
      read.frames.push_back(std::string(head.data(), head.size()) + std::string(frame.payload));
    }
  }
  return read;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t piece = 1 + data[0] % 64;
  ByteView bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (bytes.size() >= kPeerHelloBytes) {
    if (const auto hello = decode_peer_hello(bytes.substr(0, kPeerHelloBytes))) {
      ASSERT(encode(*hello) == bytes.substr(0, kPeerHelloBytes));
      bytes.remove_prefix(kPeerHelloBytes);
    }
  }
  const Read whole = read_in_pieces(bytes, bytes.size() + 1);
  const Read cut = read_in_pieces(bytes, piece);
  ASSERT(whole.frames == cut.frames);
  ASSERT(whole.end == cut.end);
  size_t at = 0;
  for (const std::string& frame : whole.frames) {
    ASSERT(bytes.substr(at, frame.size()) == frame);
    at += frame.size();
  }
  return 0;
}
