#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/types.h"

namespace conclave::env {

// Frames of a lane never wait behind frames of a later one.
enum class Lane : uint8_t {
  kConsensus,  // votes, heartbeats, appends
  kForward,    // proposals and keep-alives on their way to the leader, and the answers
  kBulk,       // snapshots and repair
};

// What a replica hears from the links to its peers. Called on the replica's thread.
class NetworkReceiver {
 public:
  virtual ~NetworkReceiver() = default;
  // A whole frame as the peer sent it: authenticated as coming from `from`, otherwise untrusted.
  virtual void on_frame(NodeId from, ByteView frame) = 0;
  // A link to the peer stands, to a process that was not reached before or again.
  virtual void on_link_up(NodeId peer) = 0;
  // The link broke, as when the peer's process ended. A hint: the peer may live.
  virtual void on_link_broken(NodeId peer) = 0;
};

// Links to the peers of one cluster. Sending never blocks, frames of one lane to one peer keep their order while the
// link stands, and any frame may be lost; queues are bounded and what does not fit is dropped and counted.
class Network {
 public:
  virtual ~Network() = default;
  virtual void send(NodeId to, Lane lane, std::string frame) = 0;
};

}  // namespace conclave::env
