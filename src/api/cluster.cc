#include "api/cluster.h"

#include "api/members.h"
#include "etcd/rpc.pb.h"
#include "keyspace/wire.h"

namespace conclave::api {
namespace {

class MemberListCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView message) override {
    etcdserverpb::MemberListRequest request;
    if (!parse(message, request)) return;
    if (request.linearizable()) {
      read();
    } else {
      ready();
    }
  }
  void ready() override {
    std::string response = context().response();
    for (const etcdserverpb::Member& member : list_members(context())) {
      keyspace::append_message_field(response, 2, member.SerializeAsString());
    }
    answer(std::move(response));
  }
};

class RefusedChangeCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView) override {
    fail(keyspace::GrpcCode::kUnimplemented,
         "membership cannot be changed yet: the members are those the cluster began with");
  }
};

}  // namespace

std::unique_ptr<net::CallHandler> make_cluster_call(Context& context, net::ServerCall& wire, Method method) {
  if (method == Method::kMemberList) return std::make_unique<MemberListCall>(context, wire, method);
  return std::make_unique<RefusedChangeCall>(context, wire, method);
}

}  // namespace conclave::api
