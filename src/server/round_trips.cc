#include "server/round_trips.h"

#include <algorithm>

namespace conclave::server {

void RoundTrips::say(NodeId to, Kind kind, uint64_t number) {
  std::string frame(1, kPingFrame);
  ByteWriter writer(frame);
  writer.fixed(static_cast<uint8_t>(kind));
  writer.fixed(number);
  send_(to, std::move(frame));
}

void RoundTrips::ask(Instant now, NodeId id, Peer& peer) {
  peer.asked_at = now;
  peer.number = ++last_;
  say(id, Kind::kPing, peer.number);
}

void RoundTrips::on_link_up(Instant now, NodeId peer) {
  ask(now, peer, peers_[peer]);
}

void RoundTrips::on_frame(Instant now, NodeId from, ByteView frame) {
  ByteReader reader(frame);
  (void)reader.fixed<uint8_t>();
  const auto kind = static_cast<Kind>(reader.fixed<uint8_t>());
  const auto number = reader.fixed<uint64_t>();
  if (!reader.finished() || number == 0) return;
  if (kind == Kind::kPing) {
    say(from, Kind::kAnswer, number);
    return;
  }
  const auto found = peers_.find(from);
  if (kind != Kind::kAnswer || found == peers_.end() || found->second.number != number) return;
  Peer& peer = found->second;
  peer.number = 0;
  peer.times.count(now - *peer.asked_at);
}

void RoundTrips::look(Instant now, std::span<const net::PeerLinkState> links) {
  std::erase_if(peers_, [&](const auto& entry) {
    return std::ranges::find(links, entry.first, &net::PeerLinkState::id) == links.end();
  });
  for (const net::PeerLinkState& link : links) {
    if (!link.connected) continue;
    Peer& peer = peers_[link.id];
    if (!peer.asked_at || now - *peer.asked_at >= kPingInterval) ask(now, link.id, peer);
  }
}

std::vector<api::RoundTripMetrics> RoundTrips::metrics() const {
  std::vector<api::RoundTripMetrics> all;
  for (const auto& [id, peer] : peers_) {
    all.push_back(peer.times);
    all.back().peer = id;
  }
  return all;
}

}  // namespace conclave::server
