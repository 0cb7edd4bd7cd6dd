// SessionCall: an operation asked by a call of its own at some simulated server, as the single calls of conclave.v1 are
// served, whose client ends it without having read an answer: what waits is taken back there, while the client may have
// asked again elsewhere.
#pragma once

#include <memory>

#include "base/random.h"
#include "sim/sessions_host.h"
#include "sim/world.h"

namespace conclave::sim {

class NodeCluster;

class SessionCall final : public SessionSink, public std::enable_shared_from_this<SessionCall> {
 public:
  SessionCall(World& world, NodeCluster& cluster, Random random, size_t node);
  void begin(const v1::SessionIdentity& identity, const v1::SessionRequest& request);
  // The server learns of it a little later.
  void end();

  // SessionSink
  void on_response(v1::SessionResponse&& response) override;
  void on_stream_lost() override { stream_ = 0; }

 private:
  // At the server, if it lives on.
  void later(std::function<void()> step);

  World& world_;
  NodeCluster& cluster_;
  Random random_;
  const size_t node_;
  const uint64_t life_;
  layers::StreamId stream_ = 0;
  v1::SessionRequest request_;
  bool is_introduced_ = false;
};

}  // namespace conclave::sim
