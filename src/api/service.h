// The API of one replica at the wire: etcd v3 over gRPC and as JSON over HTTP, and /health, /version and /metrics.
// Opens a handler for each call, and hands them what the replica answers. The replica and the clock outlive this, and
// this outlives every call: net's server is destroyed before it.
//
// One thread, the loop's. A turn: calls and frames come in; Replica::flush(), which answers; turn_end(), which streams
// and works on; then net sends. has_work(): another turn is due at once.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>

#include "api/alarm_keeper.h"
#include "api/claims.h"
#include "api/context.h"
#include "api/http.h"
#include "api/members.h"
#include "api/options.h"
#include "api/sessions_host.h"
#include "env/clock.h"
#include "net/server.h"
#include "node/replica.h"

namespace conclave::api {

class Service final : public net::Service, public node::ReplicaClients {
 public:
  // Before the replica's first input; the caller gives it to Replica::set_clients.
  Service(ServiceOptions options, node::Replica& replica, env::Clock& clock);

  // ---- Calls ----
  [[nodiscard]] std::unique_ptr<net::CallHandler> open(net::ServerCall& call) override;
  [[nodiscard]] std::unique_ptr<net::HttpHandler> open_http(const net::HttpRequest& request,
                                                            net::HttpAnswer& answer) override;
  void on_http(const net::HttpRequest& request, std::function<void(net::HttpResponse)> answer) override;

  // ---- Answers ----
  void on_write_applied(node::Ticket ticket, const keyspace::Reply& reply) override;
  void on_write_refused(node::Ticket ticket, node::RequestRefusal refusal) override;
  void on_write_unknown(node::Ticket ticket) override;
  void on_read_ready(node::Ticket ticket) override;
  void on_read_refused(node::Ticket ticket, node::RequestRefusal refusal) override;
  void on_kept_alive(node::Ticket ticket, int64_t ttl_ms) override;
  void on_keep_alive_refused(node::Ticket ticket, node::RequestRefusal refusal) override;
  void on_change_done(node::Ticket ticket) override;
  void on_change_refused(node::Ticket ticket, node::ChangeRefusal refusal) override;
  void on_change_unknown(node::Ticket ticket) override;
  void on_applied(const keyspace::Effects& effects) override;
  void on_state_replaced() override;
  void on_role_changed(const raft::Status& status) override;

  // ---- Turns ----
  void turn_end(Instant now);
  [[nodiscard]] Instant next_deadline() const { return std::min(context_.next_deadline(), sessions_.next_deadline()); }
  [[nodiscard]] bool has_work() const { return context_.has_work() || sessions_.has_work(); }
  // Calls under way that end by themselves: a server that ends waits for them, and not for streams.
  [[nodiscard]] uint64_t unary_calls_open() { return context_.metrics().unary_calls_open; }
  // What can wait for everybody else: a piece each time, and what it answers goes out with the next turn_end().
  [[nodiscard]] bool has_leisure_work() const { return context_.has_leisure_work(); }
  void work_at_leisure() { context_.work_at_leisure(); }
  // Who leads, as this server's calls see it.
  [[nodiscard]] const raft::Status& role() const { return context_.role(); }
  [[nodiscard]] const Alarms& alarms() const { return context_.alarms(); }
  // Changes whenever what a server says of itself does (members.h).
  [[nodiscard]] uint64_t member_records_version() const { return member_records_version_; }

 private:
  void refuse(node::Ticket ticket, keyspace::ErrorId error);

  Context context_;
  Claims claims_;
  SessionsHost sessions_;
  Publisher publisher_;
  AlarmKeeper alarm_keeper_;
  Http http_;
  uint64_t member_records_version_ = 1;
};

}  // namespace conclave::api
