// Round trips: how long a word takes to each peer and back. Every few seconds each server sends a ping on its link to
// the peer, which answers on its own link: what is measured is what a heartbeat and its answer take, the turns of both
// servers' loops among it. Nothing is decided by it. Sends and hears frames; owns no link and no clock.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "api/metrics.h"
#include "base/bytes.h"
#include "base/time.h"
#include "base/types.h"
#include "net/peer_links.h"

namespace conclave::server {

// In front of each frame; beside the kinds of node/frame.h, bootstrap.h and introduction.h. A build that does not know
// it passes it over, so its peers learn no times of it and nothing else is missing.
inline constexpr char kPingFrame = 0x42;

// As often as etcd asks. What is not answered until the next is not counted: the times of those that are would be of
// another network.
inline constexpr Duration kPingInterval = std::chrono::seconds(5);

class RoundTrips {
 public:
  using Send = std::function<void(NodeId to, std::string frame)>;
  // `nonce` is never one of an earlier life.
  RoundTrips(uint64_t nonce, Send send) : last_(nonce), send_(std::move(send)) {}

  // A new link is asked at once.
  void on_link_up(Instant now, NodeId peer);
  void on_frame(Instant now, NodeId from, ByteView frame);
  // Now and then: asks those whose time has come, and forgets who is linked to no more.
  void look(Instant now, std::span<const net::PeerLinkState> links);
  [[nodiscard]] std::vector<api::RoundTripMetrics> metrics() const;

 private:
  enum class Kind : uint8_t { kPing = 1, kAnswer = 2 };
  struct Peer {
    std::optional<Instant> asked_at;
    uint64_t number = 0;  // of the newest ping, until it is answered
    api::RoundTripMetrics times;
  };
  void ask(Instant now, NodeId id, Peer& peer);
  void say(NodeId to, Kind kind, uint64_t number);

  uint64_t last_;
  Send send_;
  std::map<NodeId, Peer> peers_;
};

}  // namespace conclave::server
