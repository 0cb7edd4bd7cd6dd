// The bytes of a link between servers: the hello both sides say, and frames (docs/internals/formats/peer.md). Owns no
// connection. What arrives is checked before it is believed, and held only as it arrives.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "base/types.h"
#include "env/network.h"

namespace conclave::net {

// In the answer to a hello. The numbers are wire format.
enum class PeerVerdict : uint8_t {
  kWelcome = 0,
  kWrongCluster = 1,
  kWrongReceiver = 2,  // the hello was meant for another server: an address is wrong
  kOldBoot = 3,        // a later life of the sender is connected
  kFull = 4,           // too many links
  kVersion = 5,        // not a version the receiver speaks
  kUntrusted = 6,      // with TLS: no certificate of the peers' CA, or one that does not name the member
  kStranger = 7,       // without TLS: not a member that the receiver knows
  kFeatures = 8,       // the two builds know no feature level in common
};
[[nodiscard]] std::string_view to_string(PeerVerdict verdict);

// The feature levels (node/features.h) that a build can run a cluster at.
struct FeatureRange {
  uint16_t lowest = 1;
  uint16_t highest = 1;
  [[nodiscard]] bool meets(const FeatureRange& other) const {
    return lowest <= other.highest && other.lowest <= highest;
  }
  friend bool operator==(const FeatureRange&, const FeatureRange&) = default;
};

struct PeerHello {
  bool is_answer = false;
  PeerVerdict verdict = PeerVerdict::kWelcome;  // of an answer
  ClusterId cluster;
  NodeId member;  // who says this
  Boot boot;
  NodeId receiver;  // and whom it means
  FeatureRange features;
};

inline constexpr uint8_t kPeerVersion = 1;
inline constexpr size_t kPeerHelloBytes = 48;
[[nodiscard]] std::string encode(const PeerHello& hello);
// Of exactly kPeerHelloBytes. kMalformed; kVersion if it is a hello of a version not known here.
[[nodiscard]] Result<PeerHello> decode_peer_hello(ByteView bytes);

inline constexpr size_t kPeerFrameHeadBytes = 9;
// No sender has a larger one; a length above it is damage.
inline constexpr size_t kPeerFrameBytesMax = size_t{64} << 20;
[[nodiscard]] std::array<char, kPeerFrameHeadBytes> encode_peer_frame_head(env::Lane lane, ByteView payload);

struct PeerFrame {
  env::Lane lane = env::Lane::kConsensus;
  ByteView payload;
};

// Cuts frames out of a link's bytes, as MessageReader does with messages.
class PeerFrameReader {
 public:
  enum class Next : uint8_t { kFrame, kMore, kBad };  // after kBad the link is of no use

  void feed(ByteView piece) { piece_ = piece; }
  // The payload is good until the next call.
  [[nodiscard]] Next next(PeerFrame& frame);
  [[nodiscard]] bool in_frame() const { return !partial_.empty(); }

 private:
  [[nodiscard]] static Next open(ByteView bytes, PeerFrame& frame);
  void take(size_t bytes_wanted);

  ByteView piece_;
  std::string partial_;
  bool delivered_ = false;  // partial_ was given out
};

}  // namespace conclave::net
