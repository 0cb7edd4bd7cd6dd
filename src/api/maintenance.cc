#include "api/maintenance.h"

#include "base/assert.h"
#include "etcd/health.pb.h"
#include "etcd/rpc.pb.h"
#include "keyspace/wire.h"

namespace conclave::api {
namespace {

using keyspace::ErrorId;
using keyspace::GrpcCode;

// A transfer takes a round or two; raft itself gives up after an election timeout.
constexpr int kTransferElectionTimeouts = 3;

// Of this server alone, as it is now: no leader is needed.
class StatusCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView) override {
    const raft::Status status = context().replica().raft().status();
    const keyspace::Store& store = context().keyspace().store();
    const auto used = static_cast<int64_t>(store.used_bytes());
    etcdserverpb::StatusResponse response;
    response.set_version(context().options().version);
    response.set_dbsize(used);
    // Without what is kept for the past only.
    response.set_dbsizeinuse(used - std::min(used, static_cast<int64_t>(store.history_bytes())));
    response.set_leader(status.leader.value());
    response.set_raftindex(status.commit.value());
    response.set_raftterm(status.term.value());
    response.set_raftappliedindex(context().replica().applied().value());
    response.set_islearner(!status.voter);
    response.set_storageversion(context().options().version);
    if (!status.leader.is_set()) response.add_errors(std::string(error_text(ErrorId::kNoLeader)));
    answer(context().response() + response.SerializeAsString());
  }
};

// None can be raised yet, so all there are is none.
class AlarmCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView message) override {
    etcdserverpb::AlarmRequest request;
    if (!parse(message, request)) return;
    if (request.action() == etcdserverpb::AlarmRequest::ACTIVATE) {
      fail(GrpcCode::kUnimplemented, "alarms cannot be raised by hand");
    } else {
      answer(context().response());
    }
  }
};

// There is no file that would shrink: freed memory is used again.
class DefragmentCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView) override { answer(context().response()); }
};

uint32_t fold(uint64_t digest) {
  return static_cast<uint32_t>(digest ^ (digest >> 32));
}

// Equal on all replicas at equal applied index; not etcd's numbers. Waits while a large command is under way.
class HashCall final : public UnaryCall, public Job {
 public:
  using UnaryCall::UnaryCall;
  bool run(uint32_t&) override {
    keyspace::Keyspace& keyspace = context().keyspace();
    if (keyspace.is_busy()) return false;
    etcdserverpb::HashResponse response;
    response.set_hash(fold(keyspace.digest()));
    answer(context().response() + response.SerializeAsString());
    return true;
  }

 protected:
  void on_request(ByteView) override {
    uint32_t units = 0;
    if (!run(units)) context().start_job(*this);
  }
  void on_closed() override {
    context().stop_job(*this);
    UnaryCall::on_closed();
  }
};

// Keys and their history alone: equal on all replicas at equal revision. Only the newest revision has one.
class HashKvCall final : public UnaryCall, public Job {
 public:
  using UnaryCall::UnaryCall;
  bool run(uint32_t&) override {
    keyspace::Keyspace& keyspace = context().keyspace();
    if (keyspace.is_busy()) return false;
    const int64_t current = keyspace.revision().value();
    if (revision_ > current) {
      fail(ErrorId::kFutureRevision);
    } else if (revision_ > 0 && revision_ < keyspace.compacted()) {
      fail(ErrorId::kCompacted);
    } else if (revision_ > 0 && revision_ != current) {
      fail(GrpcCode::kUnimplemented, "only the newest revision can be hashed");
    } else {
      const keyspace::Store& store = keyspace.store();
      etcdserverpb::HashKVResponse response;
      response.set_hash(fold(store.live_digest() * 31 + store.event_digest()));
      response.set_compact_revision(keyspace.compacted());
      response.set_hash_revision(current);
      answer(context().response() + response.SerializeAsString());
    }
    return true;
  }

 protected:
  void on_request(ByteView message) override {
    etcdserverpb::HashKVRequest request;
    if (!parse(message, request)) return;
    revision_ = request.revision();
    uint32_t units = 0;
    if (!run(units)) context().start_job(*this);
  }
  void on_closed() override {
    context().stop_job(*this);
    UnaryCall::on_closed();
  }

 private:
  int64_t revision_ = 0;
};

// Answered when the target leads. Asked of raft at the end of the turn: its time must not run ahead of the loop's.
class MoveLeaderCall final : public UnaryCall, public Timed, public RoleListener {
 public:
  using UnaryCall::UnaryCall;

  void on_time(Instant now) override {
    if (asked_) {
      fail(ErrorId::kTimeout);
      return;
    }
    asked_ = true;
    context().request_turn();
    switch (context().operated_replica().transfer(now, target_)) {
      case raft::Refusal::kNone:
      case raft::Refusal::kTransferring:  // one is under way: to this target or not, time will tell
        break;
      case raft::Refusal::kNotLeader:
        fail(ErrorId::kNotLeader);
        return;
      default:
        fail(ErrorId::kBadTransferee);
        return;
    }
    const Duration patience = kTransferElectionTimeouts * context().replica().raft().options().election_timeout;
    if (is_open()) context().set_timer(*this, now + patience);
  }
  void on_role_changed() override {
    if (context().role().leader == target_) answer(context().response());
  }

 protected:
  void on_request(ByteView message) override {
    etcdserverpb::MoveLeaderRequest request;
    if (!parse(message, request)) return;
    target_ = NodeId(request.targetid());
    const Member* member = context().replica().raft().membership().find(target_);
    if (!context().is_leader()) {
      fail(ErrorId::kNotLeader);
    } else if (member == nullptr || member->role != MemberRole::kVoter) {
      fail(ErrorId::kBadTransferee);
    } else if (target_ == context().options().self) {
      answer(context().response());
    } else {
      context().role_listeners().add(*this);
      context().set_timer(*this, context().now());
    }
  }
  void on_closed() override {
    context().role_listeners().remove(*this);
    context().stop_timer(*this);
    UnaryCall::on_closed();
  }

 private:
  NodeId target_;
  bool asked_ = false;
};

class AuthStatusCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView) override { answer(context().response()); }
};

class AuthenticateCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView) override { fail(ErrorId::kAuthNotEnabled); }
};

class HealthCheckCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView message) override {
    grpc::health::v1::HealthCheckRequest request;
    if (!parse(message, request)) return;
    if (!request.service().empty()) {
      fail(GrpcCode::kNotFound, "unknown service");
      return;
    }
    grpc::health::v1::HealthCheckResponse response;
    response.set_status(context().has_leader() ? grpc::health::v1::HealthCheckResponse::SERVING
                                               : grpc::health::v1::HealthCheckResponse::NOT_SERVING);
    answer(response.SerializeAsString());
  }
};

class NotOfferedCall final : public UnaryCall {
 public:
  NotOfferedCall(Context& context, net::ServerCall& wire, Method method, std::string_view text)
      : UnaryCall(context, wire, method), text_(text) {}

 protected:
  void on_request(ByteView) override { fail(GrpcCode::kUnimplemented, text_); }

 private:
  std::string_view text_;
};

}  // namespace

std::unique_ptr<net::CallHandler> make_maintenance_call(Context& context, net::ServerCall& wire, Method method) {
  switch (method) {
    case Method::kStatus:
      return std::make_unique<StatusCall>(context, wire, method);
    case Method::kAlarm:
      return std::make_unique<AlarmCall>(context, wire, method);
    case Method::kDefragment:
      return std::make_unique<DefragmentCall>(context, wire, method);
    case Method::kHash:
      return std::make_unique<HashCall>(context, wire, method);
    case Method::kHashKv:
      return std::make_unique<HashKvCall>(context, wire, method);
    case Method::kMoveLeader:
      return std::make_unique<MoveLeaderCall>(context, wire, method);
    case Method::kSnapshot:
      return std::make_unique<NotOfferedCall>(context, wire, method, "snapshots in etcd's file format are not offered");
    case Method::kDowngrade:
      return std::make_unique<NotOfferedCall>(context, wire, method, "there is no version to go down to");
    case Method::kAuthStatus:
      return std::make_unique<AuthStatusCall>(context, wire, method);
    case Method::kAuthenticate:
      return std::make_unique<AuthenticateCall>(context, wire, method);
    case Method::kHealthCheck:
      return std::make_unique<HealthCheckCall>(context, wire, method);
    default:
      UNREACHABLE();
  }
}

}  // namespace conclave::api
