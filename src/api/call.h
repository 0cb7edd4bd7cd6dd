// The handlers of calls: what is common to all, and to those with one request and one answer. A handler's life: made by
// Service::open, closed once (it finished the call, or the client cancelled it), then destroyed by net at any time. A
// closed handler is known to nobody else: no ticket, job, timer or listener names it.
#pragma once

#include <memory>
#include <string>

#include "api/context.h"
#include "api/methods.h"
#include "api/status.h"
#include "keyspace/internal_command.h"
#include "net/server.h"

namespace conclave::api {

class Call : public net::CallHandler, public Waiter {
 public:
  Call(Context& context, net::ServerCall& wire, Method method);
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() override;
  void on_cancel() final;

 protected:
  // Lets go of everything that names this call. Called once, while the handler is still whole.
  virtual void on_closed() {}
  // Before on_closed(), if it was the client who ended the call.
  virtual void on_cancelled() {}

  [[nodiscard]] Context& context() { return context_; }
  [[nodiscard]] bool is_open() const { return wire_ != nullptr; }
  [[nodiscard]] Method method() const { return method_; }
  // Of an open call.
  [[nodiscard]] net::ServerCall& wire() { return *wire_; }
  // The client would rather be refused than wait for a leader.
  [[nodiscard]] bool requires_leader() { return wire_->header("hasleader") == "true"; }

  // Ends the call.
  void finish(const net::GrpcStatus& status);
  void answer(std::string message);
  void answer(std::vector<std::string> pieces);
  // With a hint when to ask again, where the server is at one of its limits.
  void fail(keyspace::ErrorId error);
  void fail(keyspace::GrpcCode code, std::string_view text) { finish(status_of(code, text)); }

 private:
  Context& context_;
  net::ServerCall* wire_;
  Method method_;
  Instant began_;
};

// One request, one answer, at most one ticket at a time.
class UnaryCall : public Call {
 public:
  UnaryCall(Context& context, net::ServerCall& wire, Method method);
  void on_message(ByteView message) final;
  void on_half_close() final;
  void on_applied(node::Ticket ticket, const keyspace::Reply& reply) final;
  void on_ready(node::Ticket ticket) final;
  void on_kept_alive(node::Ticket ticket, int64_t ttl_ms) final;
  void on_change_done(node::Ticket ticket) final;
  void on_refused(node::Ticket ticket, keyspace::ErrorId error) final;

 protected:
  virtual void on_request(ByteView message) = 0;
  virtual void applied(const keyspace::Reply& reply);
  virtual void ready();
  virtual void lease_time_known(int64_t left_ms);
  virtual void changed();
  virtual void refused(keyspace::ErrorId error) { fail(error); }
  void on_closed() override;

  void write(const keyspace::CommandHeader& header, ByteView body);
  void write(const keyspace::InternalCommand& command);
  // Whether a key of so many bytes with its value may be written (alarms.h); if not, the call was ended.
  [[nodiscard]] bool admits_growth(size_t bytes);
  void read();
  void read_at_least(Revision revision);
  void ask_lease_time(LeaseId lease);
  void change(const node::MemberChange& change);
  // Parses with protobuf; false: the call was ended with kMalformed.
  template <class Message>
  [[nodiscard]] bool parse(ByteView bytes, Message& message) {
    if (message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return true;
    fail(keyspace::ErrorId::kMalformed);
    return false;
  }

 private:
  bool asked_ = false;
  node::Ticket ticket_ = 0;
};

}  // namespace conclave::api
