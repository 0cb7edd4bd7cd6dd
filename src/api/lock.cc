#include "api/lock.h"

#include <utility>

#include "api/reserved.h"
#include "base/assert.h"
#include "etcd/lock.pb.h"
#include "keyspace/wire.h"
#include "layers/recipe.h"

namespace conclave::api {
namespace {

using keyspace::ErrorId;

class LockCall final : public UnaryCall, public Claims::Owner {
 public:
  LockCall(Context& context, Claims& claims, net::ServerCall& wire)
      : UnaryCall(context, wire, Method::kLock), claims_(claims) {}

  void on_claim_granted(const Claims::Grant& grant) override {
    std::string response = context().response(grant.revision);
    keyspace::append_bytes_field(response, 2, grant.key);
    answer(std::move(response));
  }
  void on_claim_lost(bool) override { fail(keyspace::GrpcCode::kUnknown, kSessionIsExpired); }
  void on_claim_refused(ErrorId error) override { fail(error); }

 protected:
  void on_request(ByteView message) override {
    v3lockpb::LockRequest request;
    if (!parse(message, request) || !admits_growth(request.name().size())) return;
    if (is_reserved(layers::claim_prefix(request.name()))) {
      fail(keyspace::GrpcCode::kPermissionDenied, kReservedKeysRefusal);
      return;
    }
    claim_ = claims_.make({.name = std::move(*request.mutable_name()), .lease = LeaseId(request.lease())}, *this);
  }
  void on_cancelled() override { claims_.cancel(std::exchange(claim_, 0)); }

 private:
  Claims& claims_;
  Claims::Id claim_ = 0;
};

class UnlockCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  // Whatever the key is, it is deleted: etcd's word for it.
  void on_request(ByteView message) override {
    v3lockpb::UnlockRequest request;
    if (!parse(message, request)) return;
    if (request.key().empty()) {
      fail(ErrorId::kEmptyKey);
      return;
    }
    if (is_reserved(request.key())) {
      fail(keyspace::GrpcCode::kPermissionDenied, kReservedKeysRefusal);
      return;
    }
    std::string body;
    keyspace::append_bytes_field(body, 1, request.key());
    write({.kind = keyspace::CommandKind::kDeleteRange}, body);
  }
  void applied(const keyspace::Reply& reply) override {
    if (reply.error != ErrorId::kNone) {
      fail(reply.error);
    } else {
      answer(context().response(reply.revision));
    }
  }
};

}  // namespace

std::unique_ptr<net::CallHandler> make_lock_call(Context& context, Claims& claims, net::ServerCall& wire,
                                                 Method method) {
  switch (method) {
    case Method::kLock:
      return std::make_unique<LockCall>(context, claims, wire);
    case Method::kUnlock:
      return std::make_unique<UnlockCall>(context, wire, method);
    default:
      UNREACHABLE();
  }
}

}  // namespace conclave::api
