// Bootstrap: how the servers of a new cluster agree that it begins. A server with an empty directory waits; `init`,
// asked of any of them, has that one ask all the others. Only if every server answers, and none has seen an election,
// do those that are empty begin, each with the same first entry. A server that is empty because it lost its disk is
// thus never made a voter again by mistake: the others remember an election, and the leader re-admits it.
//
// A pure exchange of frames: whoever owns it sends them and makes the beginning durable.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/time.h"
#include "base/types.h"

namespace conclave::server {

// In front of each frame; node's kinds are below it.
inline constexpr char kBootstrapFrame = 0x40;

enum class BootstrapState : uint8_t {
  kEmpty = 0,  // nothing there, waits
  kBegun = 1,  // has the first entry, and no election was seen
  kLed = 2,    // an election was seen, or this server cannot tell
};

class Bootstrap {
 public:
  struct Outcome {
    bool already = false;
    std::string error;         // empty: the cluster has begun
    bool unreachable = false;  // of an error: somebody did not answer
  };
  struct World {
    std::function<void(NodeId to, std::string frame)> send;
    std::function<BootstrapState()> state;
    // Makes the first entry durable and starts the replica, then calls begun().
    std::function<void()> begin;
  };
  Bootstrap(NodeId self, std::vector<std::pair<NodeId, std::string>> peers, uint64_t nonce, World world)
      : self_(self), peers_(std::move(peers)), nonce_(nonce), world_(std::move(world)) {}

  // `done` is called once, with what became of it.
  void init(Instant now, std::function<void(const Outcome&)> done);
  void on_frame(NodeId from, ByteView frame);
  // The beginning is durable here.
  void begun();
  void tick(Instant now);
  [[nodiscard]] Instant next_deadline() const { return done_.empty() ? kNever : next_try_; }

 private:
  enum class Kind : uint8_t { kQuery = 1, kState = 2, kBegin = 3 };
  void send(NodeId to, Kind kind, uint64_t nonce, BootstrapState state = BootstrapState::kEmpty);
  void ask();
  void proceed();
  void finish(const Outcome& outcome);

  const NodeId self_;
  const std::vector<std::pair<NodeId, std::string>> peers_;  // with their names
  uint64_t nonce_;                                           // of the queries asked here; never one of an earlier life
  World world_;
  std::vector<std::function<void(const Outcome&)>> done_;  // of those who asked for init
  std::map<NodeId, BootstrapState> answers_;
  bool beginning_ = false;  // all were asked, and the empty ones were told
  Instant next_try_ = kNever;
  Instant give_up_ = kNever;
  // The nonce of the newest query answered as empty: only that asker may tell this server to begin.
  std::optional<std::pair<NodeId, uint64_t>> answered_;
  std::optional<std::pair<NodeId, uint64_t>> told_by_;
};

}  // namespace conclave::server
