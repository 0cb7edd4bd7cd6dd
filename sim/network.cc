#include "sim/network.h"

#include <algorithm>

#include "base/assert.h"
#include "base/crc32c.h"

namespace conclave::sim {

SimNetwork::SimNetwork(Scheduler& scheduler, Decisions& decisions, size_t nodes, const NetworkOptions& options,
                       Digest* digest)
    : scheduler_(scheduler), decisions_(decisions), options_(options), digest_(digest), links_(nodes * nodes) {
  for (size_t node = 0; node < nodes; ++node) nodes_.push_back(std::make_unique<Node>(*this, node));
  for (size_t from = 0; from < nodes; ++from) {
    for (size_t to = 0; to < nodes; ++to) {
      const uint64_t target = from * 100 + to;  // readable in a file of decisions
      link(from, to).streams = {
          .lost = decisions.stream(FaultKind::kMessageLost, "net.lost", target),
          .delayed = decisions.stream(FaultKind::kMessageDelayed, "net.delayed", target),
          .replayed = decisions.stream(FaultKind::kMessageReplayed, "net.replayed", target),
          .reordered = decisions.stream(FaultKind::kMessageReordered, "net.reordered", target),
          .corrupted = decisions.stream(FaultKind::kMessageCorrupted, "net.corrupted", target),
          .hidden = decisions.stream(FaultKind::kLinkBreakHidden, "net.break-hidden", target),
      };
    }
  }
}

// --- Frames.

uint32_t SimNetwork::take_frame() {
  if (free_frame_ == UINT32_MAX) {
    frames_.emplace_back();
    return static_cast<uint32_t>(frames_.size() - 1);
  }
  const uint32_t index = free_frame_;
  free_frame_ = frames_[index].next_free;
  return index;
}

void SimNetwork::release_frame(uint32_t index) {
  Frame& frame = frames_[index];
  Link& on = link(frame.from, frame.to);
  --on.frames;
  on.bytes -= frame.bytes.size();
  frame.bytes.clear();
  frame.next_free = free_frame_;
  free_frame_ = index;
}

void SimNetwork::send(size_t from, NodeId to_id, env::Lane lane, std::string bytes) {
  ASSERT(to_id.is_set() && index_of(to_id) < size());
  const size_t to = index_of(to_id);
  ASSERT(to != from);
  ++counters_.sent;
  if (filter_ && !filter_(from, to, lane, bytes)) {
    ++counters_.filtered;
    return;
  }
  Link& on = link(from, to);
  if (on.closed != 0 || on.half_open) {
    ++counters_.dropped_closed;
    return;
  }
  if (decisions_.decide(on.streams.lost, options_.per_million[FaultKind::kMessageLost], 1'000'000)) {
    ++counters_.lost;
    return;
  }
  if (on.frames >= options_.queue_frames_max || on.bytes + bytes.size() > options_.queue_bytes_max) {
    ++counters_.dropped_queue_full;
    decisions_.count(FaultKind::kQueueFull);
    return;
  }
  const uint32_t index = take_frame();
  Frame& frame = frames_[index];
  frame.from = static_cast<uint32_t>(from);
  frame.to = static_cast<uint32_t>(to);
  frame.lane = lane;
  frame.checksum = crc32c(bytes);
  frame.life = nodes_[to]->life;
  frame.sequence = ++sequence_;
  frame.bytes = std::move(bytes);
  frame.next_free = UINT32_MAX;
  ++on.frames;
  on.bytes += frame.bytes.size();

  Duration delay = options_.delay_min + decisions_.exponential(on.streams.lost, options_.delay_mean);
  if (decisions_.decide(on.streams.delayed, options_.per_million[FaultKind::kMessageDelayed], 1'000'000)) {
    delay += decisions_.detail(on.streams.delayed).between(Duration(0), options_.long_delay_max);
  }
  Instant at = scheduler_.now() + delay;
  if (at < on.clogged_until) at = on.clogged_until + delay;
  Instant& last = on.last[static_cast<size_t>(lane)];
  if (!decisions_.decide(on.streams.reordered, options_.per_million[FaultKind::kMessageReordered], 1'000'000)) {
    at = std::max(at, last);
    last = at;
  } else {
    // Held back without those behind it: they overtake.
    at += decisions_.detail(on.streams.reordered).between(Duration(0), 4 * (options_.delay_min + options_.delay_mean));
  }
  if (decisions_.decide(on.streams.replayed, options_.per_million[FaultKind::kMessageReplayed], 1'000'000)) {
    Random detail = decisions_.detail(on.streams.replayed);
    const Duration most = detail.chance(1, 4) ? options_.replay_delay_max : 4 * options_.delay_mean;
    const uint32_t again = take_frame();
    const Frame& original = frames_[index];
    frames_[again] = original;
    if (options_.replay_across_lives) frames_[again].life = 0;
    ++on.frames;
    on.bytes += original.bytes.size();
    ++counters_.replayed;
    dispatch(again, at + detail.between(Duration(0), most));
  }
  if (decisions_.decide(on.streams.corrupted, options_.per_million[FaultKind::kMessageCorrupted], 1'000'000)) {
    std::string& changed = frames_[index].bytes;
    Random detail = decisions_.detail(on.streams.corrupted);
    if (changed.empty()) {
      frames_[index].checksum ^= 1;
    } else {
      // Up to 32 bits in a row: every such burst is one CRC-32C finds.
      char& byte = changed[detail.below(changed.size())];
      byte = static_cast<char>(static_cast<unsigned char>(byte) ^ (1 + detail.below(255)));
    }
  }
  dispatch(index, at);
}

void SimNetwork::dispatch(uint32_t index, Instant at) {
  Frame& frame = frames_[index];
  frame.under_way = true;
  frame.at = at;
  frame.event = scheduler_.schedule(at, [this, index] { arrive(index); });
}

void SimNetwork::hurry(size_t from, size_t to) {
  const Instant soon = scheduler_.now() + options_.delay_min + options_.delay_mean;
  std::vector<uint32_t> late;
  for (uint32_t index = 0; index < frames_.size(); ++index) {
    const Frame& frame = frames_[index];
    if (frame.under_way && frame.from == from && frame.to == to && frame.at > soon) late.push_back(index);
  }
  std::ranges::sort(late, [this](uint32_t a, uint32_t b) {
    return frames_[a].at != frames_[b].at ? frames_[a].at < frames_[b].at : frames_[a].sequence < frames_[b].sequence;
  });
  for (uint32_t index : late) {
    scheduler_.cancel(frames_[index].event);
    dispatch(index, soon);
  }
  for (Instant& last : link(from, to).last) last = std::min(last, soon);
}

// At the receiver's machine: waits there if its process is frozen.
void SimNetwork::arrive(uint32_t index) {
  Frame& frame = frames_[index];
  frame.under_way = false;
  Node& node = *nodes_[frame.to];
  const Link& on = link(frame.from, frame.to);
  if (on.closed != 0 || on.half_open) {
    ++counters_.dropped_closed;
    release_frame(index);
  } else if (node.receiver == nullptr || (frame.life != 0 && frame.life != node.life)) {
    ++counters_.dropped_dead;
    release_frame(index);
  } else if (node.gate->is_frozen() || !node.waiting.empty()) {
    // One event at the gate for all of them: it runs when the node thaws, and they keep their order.
    if (node.waiting.empty()) {
      const size_t to = frame.to;
      scheduler_.schedule(*node.gate, scheduler_.now(), [this, to] { drain(to); });
    }
    node.waiting.push_back(index);
  } else {
    deliver(index);
  }
}

void SimNetwork::drain(size_t to) {
  Node& node = *nodes_[to];
  // A delivery may end the process, which empties the list.
  while (!node.waiting.empty()) {
    const uint32_t index = node.waiting.front();
    node.waiting.erase(node.waiting.begin());
    deliver(index);
  }
}

void SimNetwork::deliver(uint32_t index) {
  // Out of the pool first: the receiver sends, and the pool may move.
  std::string bytes = std::move(frames_[index].bytes);
  const Frame& frame = frames_[index];
  const size_t from = frame.from;
  const size_t to = frame.to;
  const uint32_t checksum = frame.checksum;
  link(from, to).bytes -= bytes.size();
  frames_[index].bytes.clear();
  release_frame(index);
  if (crc32c(bytes) != checksum) {
    ++counters_.dropped_corrupt;
    return;
  }
  ++counters_.delivered;
  if (digest_ != nullptr) {
    digest_->add(scheduler_.now());
    digest_->add((uint64_t{checksum} << 16) ^ (from << 8) ^ to);
  }
  nodes_[to]->receiver->on_frame(id_of(from), bytes);
}

// --- Processes and links.

void SimNetwork::attach(size_t node, env::NetworkReceiver& receiver, Gate& gate) {
  Node& attached = *nodes_[node];
  ASSERT(attached.receiver == nullptr && gate.is_open());
  attached.receiver = &receiver;
  attached.gate = &gate;
  ++attached.life;
  for (size_t peer = 0; peer < size(); ++peer) reconsider(node, peer);
}

void SimNetwork::detach(size_t node) {
  Node& detached = *nodes_[node];
  if (detached.receiver == nullptr) return;
  detached.receiver = nullptr;
  detached.gate = nullptr;
  ++detached.life;
  counters_.dropped_dead += detached.waiting.size();
  for (uint32_t index : detached.waiting) release_frame(index);
  detached.waiting.clear();
  for (size_t peer = 0; peer < size(); ++peer) {
    if (peer == node) continue;
    Link& pair = link(std::min(node, peer), std::max(node, peer));
    ++pair.pair_epoch;
    pair.connecting = false;
    if (!pair.up) continue;
    pair.up = false;
    // The kernel closes the sockets: the peer hears of it in the time of one delay, if the way is open.
    if (is_open(node, peer)) {
      tell_broken(peer, node, options_.delay_min + decisions_.exponential(pair.streams.hidden, options_.delay_mean));
    } else {
      tell_broken(peer, node, decisions_.exponential(pair.streams.hidden, options_.break_delay_max / 2));
    }
  }
}

void SimNetwork::tell_broken(size_t to, size_t peer, Duration delay) {
  Node& node = *nodes_[to];
  if (node.receiver == nullptr) return;
  const Link& on = link(peer, to);
  if (decisions_.decide(on.streams.hidden, options_.per_million[FaultKind::kLinkBreakHidden], 1'000'000)) return;
  scheduler_.schedule(*node.gate, scheduler_.now() + delay, [this, to, peer] {
    if (digest_ != nullptr) digest_->add(0xb0 + (peer << 8) + (to << 16));
    nodes_[to]->receiver->on_link_broken(id_of(peer));
  });
}

void SimNetwork::reconsider(size_t a, size_t b) {
  if (a == b) return;
  if (a > b) std::swap(a, b);
  Link& pair = link(a, b);
  const bool alive = nodes_[a]->receiver != nullptr && nodes_[b]->receiver != nullptr;
  const bool stands = alive && is_open(a, b) && is_open(b, a);
  if (stands == pair.up) {
    // Mended before anybody noticed, or still down: whatever was planned is void.
    if (pair.up || pair.connecting) ++pair.pair_epoch;
    pair.connecting = false;
    return;
  }
  if (stands && pair.connecting) return;
  const uint64_t epoch = ++pair.pair_epoch;
  pair.connecting = stands;
  const Duration most = stands ? options_.connect_delay_max : options_.break_delay_max;
  const auto nanoseconds = static_cast<uint64_t>(most.count()) + 1;
  const Duration delay(static_cast<int64_t>(decisions_.choose(pair.streams.hidden, nanoseconds)));
  scheduler_.schedule(scheduler_.now() + delay, [this, a, b, epoch, stands] {
    if (stands) {
      connect(a, b, epoch);
    } else {
      break_pair(a, b, epoch);
    }
  });
}

void SimNetwork::connect(size_t a, size_t b, uint64_t epoch) {
  Link& pair = link(a, b);
  if (pair.pair_epoch != epoch) return;
  pair.connecting = false;
  pair.up = true;
  for (const auto& [to, peer] : {std::pair(a, b), std::pair(b, a)}) {
    Node& node = *nodes_[to];
    scheduler_.schedule(*node.gate, scheduler_.now(), [this, to, peer] {
      if (digest_ != nullptr) digest_->add(0xa0 + (peer << 8) + (to << 16));
      nodes_[to]->receiver->on_link_up(id_of(peer));
    });
  }
}

void SimNetwork::break_pair(size_t a, size_t b, uint64_t epoch) {
  Link& pair = link(a, b);
  if (pair.pair_epoch != epoch) return;
  pair.up = false;
  tell_broken(a, b, Duration(0));
  tell_broken(b, a, Duration(0));
}

// --- Shape.

void SimNetwork::set_open(CutLayer layer, size_t from, size_t to, bool open) {
  if (from == to) return;
  Link& on = link(from, to);
  const auto bit = static_cast<uint8_t>(1U << static_cast<unsigned>(layer));
  const bool was_open = on.closed == 0;
  on.closed = static_cast<uint8_t>(open ? on.closed & ~bit : on.closed | bit);
  if (was_open != (on.closed == 0)) reconsider(from, to);
}

void SimNetwork::impose(CutLayer layer, const Connectivity& graph) {
  ASSERT_CMP(graph.size(), ==, size());
  for (size_t from = 0; from < size(); ++from) {
    for (size_t to = 0; to < size(); ++to) set_open(layer, from, to, graph.open(from, to));
  }
}

Connectivity SimNetwork::connectivity() const {
  Connectivity graph(size());
  for (size_t from = 0; from < size(); ++from) {
    for (size_t to = 0; to < size(); ++to) graph.set(from, to, is_open(from, to));
  }
  return graph;
}

void SimNetwork::clog(size_t from, size_t to, Instant until) {
  link(from, to).clogged_until = until;
}

void SimNetwork::unclog(size_t from, size_t to) {
  link(from, to).clogged_until = Instant{};
  hurry(from, to);
}

void SimNetwork::flap(size_t from, size_t to, Duration phase_mean, Instant until, Random random) {
  flap_step(from, to, phase_mean, until, random, ++link(from, to).flap_epoch, false);
}

void SimNetwork::flap_step(size_t from, size_t to, Duration phase_mean, Instant until, Random random, uint64_t epoch,
                           bool open) {
  if (link(from, to).flap_epoch != epoch) return;
  const bool over = scheduler_.now() >= until;
  set_open(CutLayer::kFlap, from, to, open || over);
  if (over) return;
  const Instant next = std::min(until, scheduler_.now() + random.exponential(phase_mean));
  scheduler_.schedule(next, [=, this] { flap_step(from, to, phase_mean, until, random, epoch, !open); });
}

void SimNetwork::swizzle(size_t links, Duration spread, Duration hold, Random& random) {
  std::vector<std::pair<size_t, size_t>> directions;
  for (size_t from = 0; from < size(); ++from) {
    for (size_t to = 0; to < size(); ++to) {
      if (from != to) directions.emplace_back(from, to);
    }
  }
  random.shuffle(std::span<std::pair<size_t, size_t>>(directions));
  directions.resize(std::min(links, directions.size()));
  for (const auto& direction : directions) {
    // Each begins within the first spread and ends within the second: the order of ending owes nothing to that of
    // beginning.
    const Instant begin = scheduler_.now() + random.between(Duration(0), spread);
    const Instant end = scheduler_.now() + spread + hold + random.between(Duration(0), spread);
    scheduler_.schedule(begin, [this, direction, end] {
      if (!decisions_.is_stopped()) clog(direction.first, direction.second, end);
    });
  }
}

void SimNetwork::heal(const std::vector<bool>& among) {
  for (size_t from = 0; from < size(); ++from) {
    for (size_t to = 0; to < size(); ++to) {
      if (from == to || !among[from] || !among[to]) continue;
      Link& on = link(from, to);
      ++on.flap_epoch;
      on.half_open = false;
      unclog(from, to);
      const bool was_open = on.closed == 0;
      on.closed = 0;
      if (!was_open) reconsider(from, to);
    }
  }
}

}  // namespace conclave::sim
