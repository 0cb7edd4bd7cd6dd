#include "sim/session_link.h"

#include <algorithm>

#include "sim/node_cluster.h"

namespace conclave::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr Duration kDelayMin = microseconds(50);
constexpr Duration kDelayMean = microseconds(200);
// Until an end learns that there is no other.
constexpr Duration kLearnMean = milliseconds(100);

}  // namespace

SessionLink::SessionLink(World& world, NodeCluster& cluster, Random random, size_t node, Client& client)
    : world_(world), cluster_(cluster), random_(random), node_(node), client_(&client) {}

bool SessionLink::server_lives() const {
  return world_.is_running(node_) && world_.machine(node_).gate.life() == life_;
}

void SessionLink::connect() {
  life_ = world_.machine(node_).gate.life();
  if (!server_lives()) {
    tell_down(random_.exponential(kLearnMean));
    return;
  }
  push_to_server([this] {
    stream_ = cluster_.server(node_)->open_sessions(shared_from_this());
    if (stream_ == 0) {
      tell_down(kDelayMin);
      return;
    }
    push_to_client([this] {
      if (client_ != nullptr) client_->on_link_up();
    });
  });
}

void SessionLink::send(const v1::SessionRequest& request) {
  push_to_server([this, request] {
    if (stream_ != 0) cluster_.server(node_)->ask_sessions(stream_, request);
  });
}

void SessionLink::on_response(v1::SessionResponse&& response) {
  push_to_client([this, response = std::move(response)] {
    if (client_ != nullptr) client_->on_link_response(response);
  });
}

// --- Ends.

void SessionLink::hang_up() {
  if (client_ == nullptr) return;
  unreachable_until_ = client_->unreachable_until(node_);
  client_ = nullptr;
  to_client_.is_cut = true;
  to_client_.steps.clear();
  if (random_.coin()) cut(to_server_);
  to_server_.is_cut = true;
  close_at_server(random_.coin() ? kDelayMin : random_.exponential(kLearnMean));
}

void SessionLink::break_off() {
  cut(to_server_);
  cut(to_client_);
  close_at_server(random_.exponential(kLearnMean));
  tell_down(random_.exponential(kLearnMean));
}

void SessionLink::on_stream_lost() {
  stream_ = 0;
  to_server_.is_cut = true;
  to_server_.steps.clear();
  if (random_.coin()) cut(to_client_);
  to_client_.is_cut = true;
  tell_down(random_.exponential(kLearnMean));
}

void SessionLink::cut(Lane& lane) {
  lane.is_cut = true;
  const size_t kept = random_.below(lane.steps.size() + 1);
  lane.steps.resize(kept);
}

// Behind what still arrives.
void SessionLink::close_at_server(Duration after) {
  if (!server_lives()) return;
  const Instant at = std::max(to_server_.last, world_.now()) + after;
  to_server_.last = at;
  to_server_.steps.emplace_back(at, [this] {
    if (stream_ != 0) cluster_.server(node_)->close_sessions(stream_);
    stream_ = 0;
  });
  plan_at_server(at);
}

void SessionLink::tell_down(Duration after) {
  const Instant at = std::max(to_client_.last, world_.now()) + after;
  to_client_.last = at;
  to_client_.steps.emplace_back(at, [this] {
    to_client_.steps.clear();
    if (Client* client = std::exchange(client_, nullptr)) client->on_link_down();
  });
  plan_at_client(at);
}

// --- The two ways.

Instant SessionLink::arrival(Lane& lane) {
  lane.last = std::max(lane.last, world_.now() + kDelayMin + random_.exponential(kDelayMean));
  return lane.last;
}

void SessionLink::push_to_server(std::function<void()> step) {
  if (to_server_.is_cut || !server_lives()) return;
  const Instant at = arrival(to_server_);
  to_server_.steps.emplace_back(at, std::move(step));
  plan_at_server(at);
}

void SessionLink::push_to_client(std::function<void()> step) {
  if (to_client_.is_cut) return;
  const Instant at = arrival(to_client_);
  to_client_.steps.emplace_back(at, std::move(step));
  plan_at_client(at);
}

void SessionLink::plan_at_server(Instant at) {
  world_.scheduler().schedule(world_.machine(node_).gate, at, [self = shared_from_this()] { self->pump_to_server(); });
}

void SessionLink::plan_at_client(Instant at) {
  world_.scheduler().schedule(at, [self = shared_from_this()] { self->pump_to_client(); });
}

void SessionLink::pump_to_server() {
  while (!to_server_.steps.empty() && to_server_.steps.front().first <= world_.now()) {
    const Instant until = client_ == nullptr ? unreachable_until_ : client_->unreachable_until(node_);
    if (until > world_.now()) {
      plan_at_server(until);
      return;
    }
    const std::function<void()> step = std::move(to_server_.steps.front().second);
    to_server_.steps.pop_front();
    step();
  }
}

void SessionLink::pump_to_client() {
  while (client_ != nullptr && !to_client_.steps.empty() && to_client_.steps.front().first <= world_.now()) {
    if (client_->is_paused()) return;
    const Instant until = client_->unreachable_until(node_);
    if (until > world_.now()) {
      plan_at_client(until);
      return;
    }
    const std::function<void()> step = std::move(to_client_.steps.front().second);
    to_client_.steps.pop_front();
    step();
  }
}

}  // namespace conclave::sim
