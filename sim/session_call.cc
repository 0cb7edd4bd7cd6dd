#include "sim/session_call.h"

#include <utility>

#include "sim/node_cluster.h"

namespace conclave::sim {
namespace {

constexpr Duration kDelayMin = std::chrono::microseconds(50);
constexpr Duration kDelayMean = std::chrono::milliseconds(1);

}  // namespace

SessionCall::SessionCall(World& world, NodeCluster& cluster, Random random, size_t node)
    : world_(world), cluster_(cluster), random_(random), node_(node), life_(world.machine(node).gate.life()) {}

void SessionCall::later(std::function<void()> step) {
  if (!world_.is_running(node_) || world_.machine(node_).gate.life() != life_) return;
  const Instant at = world_.now() + kDelayMin + random_.exponential(kDelayMean);
  world_.scheduler().schedule(world_.machine(node_).gate, at,
                              [self = shared_from_this(), step = std::move(step)] { step(); });
}

void SessionCall::begin(const v1::SessionIdentity& identity, const v1::SessionRequest& request) {
  request_ = request;
  // A single call does not say whether it is the first.
  request_.set_again(true);
  later([this, identity] {
    stream_ = cluster_.server(node_)->open_sessions(shared_from_this());
    if (stream_ != 0) cluster_.server(node_)->introduce_sessions(stream_, identity);
  });
}

void SessionCall::on_response(v1::SessionResponse&& response) {
  if (is_introduced_ || !response.has_attached()) return;
  is_introduced_ = true;
  later([this] {
    if (stream_ != 0) cluster_.server(node_)->ask_sessions(stream_, request_);
  });
}

void SessionCall::end() {
  later([this] {
    const layers::StreamId stream = std::exchange(stream_, 0);
    if (stream == 0) return;
    const SessionId session(static_cast<uint64_t>(request_.session()));
    cluster_.server(node_)->withdraw_sessions(stream, session, request_.sequence());
    cluster_.server(node_)->close_sessions(stream);
  });
}

}  // namespace conclave::sim
