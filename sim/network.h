// SimNetwork: the links between the nodes of one world, each direction of each pair a link of its own. Nodes are
// numbered 0..n-1; node i is NodeId(i + 1).
//
// A frame travels if the direction is open when it is sent and when it arrives, and the receiver lives; otherwise it is
// dropped and counted. In one direction frames of one lane arrive in order unless a fault says otherwise. A direction
// is closed by any of several layers (a partition, a cut, an imposed graph, flapping), each set by itself.
//
// on_link_up and on_link_broken are hints, as in the product: a pair that is open both ways comes up after a while, a
// pair that is not, or whose process ended, breaks after a while, and either end may fail to be told. Frames do not
// wait for them.
//
// Every frame carries a CRC32C, checked on arrival: changed bytes are dropped and counted, never delivered.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "env/network.h"
#include "sim/decisions.h"
#include "sim/digest.h"
#include "sim/partitions.h"
#include "sim/scheduler.h"

namespace conclave::sim {

struct NetworkOptions {
  Duration delay_min = std::chrono::microseconds(100);
  Duration delay_mean = std::chrono::milliseconds(1);  // beyond the minimum, exponential
  // Chance per frame, out of a million: kMessageLost, kMessageDelayed, kMessageReplayed, kMessageReordered,
  // kMessageCorrupted; per end of a broken link: kLinkBreakHidden.
  PerFault<uint32_t> per_million;
  Duration long_delay_max = std::chrono::seconds(5);
  Duration replay_delay_max = std::chrono::seconds(10);
  // A replayed frame may reach a later life of the receiver.
  bool replay_across_lives = true;
  // On the way in one direction.
  size_t queue_frames_max = 1024;
  size_t queue_bytes_max = size_t{16} << 20;
  Duration connect_delay_max = std::chrono::milliseconds(200);
  Duration break_delay_max = std::chrono::seconds(2);
};

struct NetworkCounters {
  uint64_t sent = 0;
  uint64_t delivered = 0;
  uint64_t lost = 0;
  uint64_t dropped_closed = 0;  // the direction was closed at one end of the journey, or half open
  uint64_t dropped_dead = 0;    // the receiver did not live (any more)
  uint64_t dropped_queue_full = 0;
  uint64_t dropped_corrupt = 0;
  uint64_t replayed = 0;
  uint64_t filtered = 0;
};

// Why a direction is closed.
enum class CutLayer : uint8_t { kCut, kPartition, kGraph, kFlap };

class SimNetwork {
 public:
  SimNetwork(Scheduler& scheduler, Decisions& decisions, size_t nodes, const NetworkOptions& options,
             Digest* digest = nullptr);
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;

  static NodeId id_of(size_t node) { return NodeId(node + 1); }
  static size_t index_of(NodeId id) { return static_cast<size_t>(id.value() - 1); }
  [[nodiscard]] size_t size() const { return nodes_.size(); }
  // What the node sends through; lives as long as the network.
  [[nodiscard]] env::Network& endpoint(size_t node) { return nodes_[node]->endpoint; }

  // The process of `node` began; its gate is open. Peers are told once links stand.
  void attach(size_t node, env::NetworkReceiver& receiver, Gate& gate);
  // It ended: what is on its way to it is lost, what it sent still arrives.
  void detach(size_t node);

  // --- Shape.
  void set_open(CutLayer layer, size_t from, size_t to, bool open);
  // The whole layer at once.
  void impose(CutLayer layer, const Connectivity& graph);
  void clear(CutLayer layer) { impose(layer, Connectivity(size())); }
  // No layer closes this direction.
  [[nodiscard]] bool is_open(size_t from, size_t to) const { return from == to || link(from, to).closed == 0; }
  [[nodiscard]] Connectivity connectivity() const;
  // Frames sent until then arrive after it; none is lost by it.
  void clog(size_t from, size_t to, Instant until);
  // What the clog holds arrives now.
  void unclog(size_t from, size_t to);
  // Swallows everything silently: no layer closes, nobody is told.
  void set_half_open(size_t from, size_t to, bool half_open) { link(from, to).half_open = half_open; }
  // Closes and opens the direction again and again, each phase exponential, until then.
  void flap(size_t from, size_t to, Duration phase_mean, Instant until, Random random);
  // Clogs `links` directions in random order over `spread`, opens them in another random order after `hold`.
  void swizzle(size_t links, Duration spread, Duration hold, Random& random);
  // All of the above ends between the nodes given (true): the healed core, and what is held up between them arrives.
  // Others stay as they are.
  void heal(const std::vector<bool>& among);

  // Frames for which it gives false are dropped and counted. Empty: none.
  using Filter = std::function<bool(size_t from, size_t to, env::Lane lane, ByteView frame)>;
  void set_filter(Filter filter) { filter_ = std::move(filter); }
  PerFault<uint32_t>& per_million() { return options_.per_million; }
  // Whether the pair's link is up, as far as the ends were told.
  [[nodiscard]] bool is_up(size_t a, size_t b) const { return link(a < b ? a : b, a < b ? b : a).up; }
  [[nodiscard]] const NetworkCounters& counters() const { return counters_; }

 private:
  static constexpr size_t kLanes = 3;
  class Endpoint final : public env::Network {
   public:
    Endpoint(SimNetwork& network, size_t node) : network_(network), node_(node) {}
    void send(NodeId to, env::Lane lane, std::string frame) override {
      network_.send(node_, to, lane, std::move(frame));
    }

   private:
    SimNetwork& network_;
    size_t node_;
  };
  struct Node {
    Node(SimNetwork& network, size_t index) : endpoint(network, index) {}
    Endpoint endpoint;
    env::NetworkReceiver* receiver = nullptr;  // null: no process
    Gate* gate = nullptr;
    uint64_t life = 0;
    std::vector<uint32_t> waiting;  // frames that arrived while it was frozen
  };
  struct Link {
    uint8_t closed = 0;  // a bit per layer
    bool half_open = false;
    bool up = false;          // of the pair; kept in the direction from the lower to the higher number
    uint64_t pair_epoch = 0;  // the same; grows whenever the pair's fate changes, so that older plans are void
    bool connecting = false;
    Instant clogged_until{};
    uint64_t flap_epoch = 0;
    size_t frames = 0;
    size_t bytes = 0;
    std::array<Instant, kLanes> last{};
    struct Streams {
      Decisions::Stream lost, delayed, replayed, reordered, corrupted, hidden;
    } streams{};
  };
  struct Frame {
    uint32_t from = 0;
    uint32_t to = 0;
    env::Lane lane = env::Lane::kConsensus;
    uint32_t checksum = 0;
    uint64_t life = 0;  // of the receiver when sent
    bool under_way = false;
    Instant at{};  // of arrival
    EventHandle event{};
    uint64_t sequence = 0;  // of sending
    std::string bytes;
    uint32_t next_free = UINT32_MAX;
  };

  Link& link(size_t from, size_t to) { return links_[from * nodes_.size() + to]; }
  [[nodiscard]] const Link& link(size_t from, size_t to) const { return links_[from * nodes_.size() + to]; }
  void send(size_t from, NodeId to, env::Lane lane, std::string frame);
  void dispatch(uint32_t index, Instant at);
  void arrive(uint32_t index);
  void deliver(uint32_t index);
  void drain(size_t to);
  uint32_t take_frame();
  void release_frame(uint32_t index);
  // Frames under way arrive no later than a usual delay from now, in the order they would have.
  void hurry(size_t from, size_t to);
  void flap_step(size_t from, size_t to, Duration phase_mean, Instant until, Random random, uint64_t epoch, bool open);
  // The pair's standing may have changed: plan a link up or a break.
  void reconsider(size_t a, size_t b);
  void connect(size_t a, size_t b, uint64_t epoch);
  void break_pair(size_t a, size_t b, uint64_t epoch);
  void tell_broken(size_t to, size_t peer, Duration delay);

  Scheduler& scheduler_;
  Decisions& decisions_;
  NetworkOptions options_;
  Digest* digest_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<Link> links_;
  std::vector<Frame> frames_;
  uint32_t free_frame_ = UINT32_MAX;
  uint64_t sequence_ = 0;
  Filter filter_;
  NetworkCounters counters_;
};

}  // namespace conclave::sim
