#include "api/lease.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "api/stream_call.h"
#include "base/assert.h"
#include "base/mark.h"
#include "etcd/rpc.pb.h"
#include "keyspace/validate.h"
#include "keyspace/wire.h"

namespace conclave::api {
namespace {

using keyspace::CommandKind;
using keyspace::ErrorId;

class GrantCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView message) override {
    std::string storage;
    ByteView canonical;
    ErrorId error = keyspace::normalise(CommandKind::kLeaseGrant, message, storage, canonical);
    keyspace::LeaseGrantRequest request;
    if (error == ErrorId::kNone) error = keyspace::parse(canonical, request);
    if (error == ErrorId::kNone) {
      error = context().alarms().refusal_of(context().keyspace(), CommandKind::kLeaseGrant, canonical);
    }
    if (error != ErrorId::kNone) {
      fail(error);
      return;
    }
    const int64_t seconds = std::max(request.ttl_seconds, context().ttl_seconds_min());
    const LeaseId lease = request.id != 0 ? LeaseId(request.id) : context().choose_lease();
    write({.kind = CommandKind::kLeaseGrant, .lease = lease, .ttl_ms = seconds * 1000}, canonical);
  }
  void applied(const keyspace::Reply& reply) override {
    if (reply.error != ErrorId::kNone) {
      fail(reply.error);
    } else {
      answer(context().response(reply.revision, reply.body));
    }
  }
};

class RevokeCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView message) override {
    std::string storage;
    ByteView canonical;
    ErrorId error = keyspace::normalise(CommandKind::kLeaseRevoke, message, storage, canonical);
    if (error == ErrorId::kNone) {
      error = context().alarms().refusal_of(context().keyspace(), CommandKind::kLeaseRevoke, canonical);
    }
    if (error != ErrorId::kNone) {
      fail(error);
    } else {
      write({.kind = CommandKind::kLeaseRevoke}, canonical);
    }
  }
  void applied(const keyspace::Reply& reply) override {
    if (reply.error != ErrorId::kNone) {
      fail(reply.error);
    } else {
      answer(context().response(reply.revision, reply.body));
    }
  }
};

// One answer for each request, in the order of the requests, though rounds may answer them in another.
class KeepAliveCall final : public StreamCall {
 public:
  using StreamCall::StreamCall;

  void on_message(ByteView message) override {
    if (!is_open()) return;
    etcdserverpb::LeaseKeepAliveRequest request;
    if (!request.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
      fail(ErrorId::kMalformed);
      return;
    }
    if (waiting_.size() + unsent_.size() >= kKeepAlivesWaitingMax) {
      REACHED(keep_alives_refused);
      fail(ErrorId::kTooManyRequests);
      return;
    }
    const LeaseId lease(request.id());
    const node::Ticket ticket = context().issue(*this);
    waiting_.push_back({.ticket = ticket, .lease = lease});
    context().keep_alive(ticket, lease);
  }
  void on_half_close() override {
    ended_ = true;
    if (is_open()) send_answers();
  }
  // The client reads again.
  void on_drained() override {
    if (is_open()) send_answers();
  }
  void on_kept_alive(node::Ticket ticket, int64_t ttl_ms) override {
    // Nearly always the first.
    const auto found = std::ranges::find(waiting_, ticket, &Waiting::ticket);
    ASSERT(found != waiting_.end());
    found->ticket = 0;
    found->ttl_ms = ttl_ms;
    while (!waiting_.empty() && waiting_.front().ticket == 0) {
      unsent_.push_back(waiting_.front());
      waiting_.pop_front();
    }
    send_answers();
  }
  void on_refused(node::Ticket ticket, ErrorId error) override {
    const auto found = std::ranges::find(waiting_, ticket, &Waiting::ticket);
    ASSERT(found != waiting_.end());
    found->ticket = 0;
    fail(error);
  }

 protected:
  void on_closed() override {
    for (const Waiting& waiting : waiting_) context().forget(waiting.ticket);
    waiting_.clear();
    unsent_.clear();
    StreamCall::on_closed();
  }

 private:
  // As far as the client reads. One that asks and does not read is ended once too many answers wait.
  void send_answers() {
    while (!unsent_.empty() && wire().queued_bytes() < kStreamBytesQueuedMax) {
      const Waiting& first = unsent_.front();
      std::string message = context().response();
      keyspace::append_int64_field(message, 2, first.lease.value());
      keyspace::append_int64_field(message, 3, first.ttl_ms / 1000);
      unsent_.pop_front();
      wire().send(std::move(message));
    }
    if (ended_ && waiting_.empty() && unsent_.empty()) finish({});
  }

  struct Waiting {
    node::Ticket ticket = 0;  // zero: answered
    LeaseId lease;
    int64_t ttl_ms = 0;
  };
  std::deque<Waiting> waiting_;
  std::deque<Waiting> unsent_;  // answered, and all before them
  bool ended_ = false;
};

// The keys of a lease that holds many are listed in slices: then they are not those of one moment.
class TimeToLiveCall final : public UnaryCall, public Job {
 public:
  using UnaryCall::UnaryCall;

  bool run(uint32_t& units) override {
    while (units > 0) {
      const std::vector<std::string> keys = context().keyspace().lease_keys(lease_, from_, kLeasesPerStep);
      for (const std::string& key : keys) keyspace::append_message_field(body_, 5, key);
      units -= std::min(units, static_cast<uint32_t>(keys.size()) + 1);
      if (keys.size() < kLeasesPerStep) {
        answer(context().response(context().keyspace().revision(), body_));
        return true;
      }
      from_ = keys.back() + '\0';
    }
    return false;
  }

 protected:
  void on_request(ByteView message) override {
    etcdserverpb::LeaseTimeToLiveRequest request;
    if (!parse(message, request)) return;
    lease_ = LeaseId(request.id());
    with_keys_ = request.keys();
    read();
  }
  void ready() override {
    if (context().keyspace().lease(lease_)) {
      // Its clock is with the leader.
      ask_lease_time(lease_);
    } else {
      answer_without_lease();
    }
  }
  void lease_time_known(int64_t left_ms) override {
    const std::optional<keyspace::LeaseInfo> lease = context().keyspace().lease(lease_);
    if (!lease) {
      answer_without_lease();
      return;
    }
    // Nothing left: its end is proposed.
    keyspace::append_int64_field(body_, 2, lease_.value());
    keyspace::append_int64_field(body_, 3, left_ms / 1000);
    keyspace::append_int64_field(body_, 4, lease->ttl_ms / 1000);
    if (with_keys_) {
      if (!run(context().read_units())) context().start_job(*this);
    } else {
      answer(context().response(context().keyspace().revision(), body_));
    }
  }
  void on_closed() override {
    context().stop_job(*this);
    UnaryCall::on_closed();
  }

 private:
  void answer_without_lease() {
    keyspace::append_int64_field(body_, 2, lease_.value());
    keyspace::append_int64_field(body_, 3, -1);
    answer(context().response(context().keyspace().revision(), body_));
  }

  LeaseId lease_;
  bool with_keys_ = false;
  std::string from_;
  std::string body_;
};

class LeasesCall final : public UnaryCall, public Job {
 public:
  using UnaryCall::UnaryCall;

  bool run(uint32_t& units) override {
    while (units > 0) {
      const std::vector<keyspace::LeaseInfo> leases = context().keyspace().leases(after_, kLeasesPerStep);
      std::string status;
      for (const keyspace::LeaseInfo& lease : leases) {
        status.clear();
        keyspace::append_int64_field(status, 1, lease.id.value());
        keyspace::append_message_field(body_, 2, status);
      }
      units -= std::min(units, static_cast<uint32_t>(leases.size()) + 1);
      if (leases.size() < kLeasesPerStep) {
        answer(context().response(context().keyspace().revision(), body_));
        return true;
      }
      after_ = leases.back().id;
    }
    return false;
  }

 protected:
  void on_request(ByteView) override { read(); }
  void ready() override {
    if (!run(context().read_units())) context().start_job(*this);
  }
  void on_closed() override {
    context().stop_job(*this);
    UnaryCall::on_closed();
  }

 private:
  LeaseId after_{INT64_MIN};
  std::string body_;
};

}  // namespace

std::unique_ptr<net::CallHandler> make_lease_call(Context& context, net::ServerCall& wire, Method method) {
  switch (method) {
    case Method::kLeaseGrant:
      return std::make_unique<GrantCall>(context, wire, method);
    case Method::kLeaseRevoke:
      return std::make_unique<RevokeCall>(context, wire, method);
    case Method::kLeaseKeepAlive:
      return std::make_unique<KeepAliveCall>(context, wire, method);
    case Method::kLeaseTimeToLive:
      return std::make_unique<TimeToLiveCall>(context, wire, method);
    case Method::kLeaseLeases:
      return std::make_unique<LeasesCall>(context, wire, method);
    default:
      UNREACHABLE();
  }
}

}  // namespace conclave::api
