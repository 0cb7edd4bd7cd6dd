#include "api/call.h"

#include <utility>

#include "base/assert.h"

namespace conclave::api {

Call::Call(Context& context, net::ServerCall& wire, Method method)
    : context_(context), wire_(&wire), method_(method), began_(context.now()) {
  ++context_.metrics().calls_open;
  ++context_.metrics().started[static_cast<size_t>(method)];
}

Call::~Call() {
  // net destroys a handler that it told of the end, or that told it.
  ASSERT(wire_ == nullptr);
}

void Call::on_cancel() {
  if (wire_ == nullptr) return;
  ++context_.metrics().calls_cancelled;
  --context_.metrics().calls_open;
  on_cancelled();
  wire_ = nullptr;
  on_closed();
}

void Call::finish(const net::GrpcStatus& status) {
  ASSERT(wire_ != nullptr);
  context_.metrics().count(method_, status.code, context_.now() - began_);
  --context_.metrics().calls_open;
  std::exchange(wire_, nullptr)->finish(status);
  on_closed();
}

void Call::fail(keyspace::ErrorId error) {
  net::GrpcStatus status = status_of(error);
  if (error == keyspace::ErrorId::kTooManyRequests) status.retry_after = context_.retry_after();
  finish(status);
}

void Call::answer(std::string message) {
  wire_->send(std::move(message));
  finish({});
}

void Call::answer(std::vector<std::string> pieces) {
  if (pieces.size() == 1) return answer(std::move(pieces.front()));
  wire_->send_pieces(pieces);
  finish({});
}

void UnaryCall::on_message(ByteView message) {
  if (std::exchange(asked_, true) || !is_open()) return;
  if (!context().has_leader() && requires_leader()) {
    fail(keyspace::ErrorId::kNoLeader);
    return;
  }
  on_request(message);
}

void UnaryCall::on_half_close() {
  // gRPC's word for the wrong number of requests.
  if (!asked_ && is_open()) fail(keyspace::GrpcCode::kUnimplemented, "the call ended without a request");
}

void UnaryCall::on_applied(node::Ticket, const keyspace::Reply& reply) {
  ticket_ = 0;
  applied(reply);
}

void UnaryCall::on_kept_alive(node::Ticket, int64_t ttl_ms) {
  ticket_ = 0;
  lease_time_known(ttl_ms);
}

void UnaryCall::on_ready(node::Ticket) {
  ticket_ = 0;
  ready();
}

void UnaryCall::on_change_done(node::Ticket) {
  ticket_ = 0;
  changed();
}

void UnaryCall::on_refused(node::Ticket, keyspace::ErrorId error) {
  ticket_ = 0;
  refused(error);
}

void UnaryCall::applied(const keyspace::Reply&) {
  UNREACHABLE();
}

void UnaryCall::ready() {
  UNREACHABLE();
}

void UnaryCall::lease_time_known(int64_t) {
  UNREACHABLE();
}

void UnaryCall::changed() {
  UNREACHABLE();
}

UnaryCall::UnaryCall(Context& context, net::ServerCall& wire, Method method) : Call(context, wire, method) {
  ++context.metrics().unary_calls_open;
}

void UnaryCall::on_closed() {
  --context().metrics().unary_calls_open;
  context().forget(std::exchange(ticket_, 0));
}

void UnaryCall::write(const keyspace::CommandHeader& header, ByteView body) {
  ASSERT(ticket_ == 0);
  ticket_ = context().issue(*this);
  context().write(ticket_, header, body);
}

void UnaryCall::write(const keyspace::InternalCommand& command) {
  ASSERT(ticket_ == 0);
  ticket_ = context().issue(*this);
  context().write(ticket_, command);
}

bool UnaryCall::admits_growth(size_t bytes) {
  const keyspace::ErrorId refusal = context().alarms().refusal_of_growth(context().keyspace(), bytes);
  if (refusal != keyspace::ErrorId::kNone) fail(refusal);
  return refusal == keyspace::ErrorId::kNone;
}

void UnaryCall::read() {
  ASSERT(ticket_ == 0);
  ticket_ = context().issue(*this);
  context().read(ticket_);
}

void UnaryCall::read_at_least(Revision revision) {
  ASSERT(ticket_ == 0);
  ticket_ = context().issue(*this);
  context().read_at_least(ticket_, revision);
}

void UnaryCall::ask_lease_time(LeaseId lease) {
  ASSERT(ticket_ == 0);
  ticket_ = context().issue(*this);
  context().lease_time(ticket_, lease);
}

void UnaryCall::change(const node::MemberChange& change) {
  ASSERT(ticket_ == 0);
  ticket_ = context().issue(*this);
  context().administer(ticket_, change);
}

}  // namespace conclave::api
