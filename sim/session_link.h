// SessionLink: one stream of sessions between a simulated client and a server, as a connection carries it: in order
// both ways, each message after a time of its own. It breaks when either end does, or by itself: then of what is under
// way each side still gets some beginning, and learns at a moment of its own that there is no more. While the two
// cannot reach each other what is sent waits.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "base/random.h"
#include "sim/sessions_host.h"
#include "sim/world.h"

namespace conclave::sim {

class NodeCluster;

class SessionLink final : public SessionSink, public std::enable_shared_from_this<SessionLink> {
 public:
  class Client {
   public:
    virtual ~Client() = default;
    virtual void on_link_up() = 0;
    virtual void on_link_response(const v1::SessionResponse& response) = 0;
    // Nothing comes after it.
    virtual void on_link_down() = 0;
    // It takes nothing now; whoever pauses it calls pump() afterwards.
    [[nodiscard]] virtual bool is_paused() const = 0;
    // Zero: it is reached.
    [[nodiscard]] virtual Instant unreachable_until(size_t node) const = 0;
  };

  SessionLink(World& world, NodeCluster& cluster, Random random, size_t node, Client& client);
  // Asks for the stream; on_link_up() or on_link_down() follows, or nothing if the server ends first.
  void connect();
  [[nodiscard]] size_t node() const { return node_; }
  void send(const v1::SessionRequest& request);
  // Nothing more is told to the client.
  void hang_up();
  // It breaks by itself.
  void break_off();
  // The client takes what has arrived.
  void pump() { pump_to_client(); }

  // SessionSink
  void on_response(v1::SessionResponse&& response) override;
  void on_stream_lost() override;

 private:
  struct Lane {
    std::deque<std::pair<Instant, std::function<void()>>> steps;  // and when each arrives
    Instant last{};
    bool is_cut = false;
  };

  [[nodiscard]] Instant arrival(Lane& lane);
  void push_to_server(std::function<void()> step);
  void push_to_client(std::function<void()> step);
  void plan_at_server(Instant at);
  void plan_at_client(Instant at);
  void pump_to_server();
  void pump_to_client();
  // Some of what is under way is lost, and all that follows.
  void cut(Lane& lane);
  void close_at_server(Duration after);
  void tell_down(Duration after);
  [[nodiscard]] bool server_lives() const;

  World& world_;
  NodeCluster& cluster_;
  Random random_;
  const size_t node_;
  Client* client_;               // null: it has hung up
  Instant unreachable_until_{};  // once it has
  uint64_t life_ = 0;            // of the server
  layers::StreamId stream_ = 0;
  Lane to_server_;
  Lane to_client_;
};

}  // namespace conclave::sim
