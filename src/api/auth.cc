#include "api/auth.h"

#include "base/assert.h"
#include "etcd/rpc.pb.h"

namespace conclave::api {
namespace {

using keyspace::ErrorId;

class AuthCall final : public UnaryCall {
 public:
  AuthCall(Context& context, net::ServerCall& wire, Method method)
      : UnaryCall(context, wire, method), method_(method) {}

 protected:
  void on_request(ByteView message) override {
    switch (method_) {
      case Method::kAuthStatus:
      case Method::kAuthDisable:
      case Method::kUserList:
      case Method::kRoleList:
        // Off, and nobody there: the header is all.
        answer(context().response());
        return;
      case Method::kAuthEnable:
        fail(ErrorId::kRootUserMissing);
        return;
      case Method::kAuthenticate:
        fail(ErrorId::kAuthNotEnabled);
        return;
      case Method::kUserAdd:
        refuse_name<etcdserverpb::AuthUserAddRequest>(message, ErrorId::kUserEmpty);
        return;
      case Method::kRoleAdd:
        refuse_name<etcdserverpb::AuthRoleAddRequest>(message, ErrorId::kRoleEmpty);
        return;
      case Method::kUserGet:
      case Method::kUserDelete:
      case Method::kUserChangePassword:
      case Method::kUserGrantRole:
      case Method::kUserRevokeRole:
        fail(ErrorId::kUserNotFound);
        return;
      case Method::kRoleGet:
      case Method::kRoleDelete:
      case Method::kRoleRevokePermission:
        fail(ErrorId::kRoleNotFound);
        return;
      case Method::kRoleGrantPermission: {
        etcdserverpb::AuthRoleGrantPermissionRequest request;
        if (parse(message, request)) fail(request.has_perm() ? ErrorId::kRoleNotFound : ErrorId::kPermissionNotGiven);
        return;
      }
      default:
        UNREACHABLE();
    }
  }

 private:
  template <class Request>
  void refuse_name(ByteView message, ErrorId if_empty) {
    Request request;
    if (parse(message, request)) fail(request.name().empty() ? if_empty : ErrorId::kAuthNotEnabled);
  }

  Method method_;
};

}  // namespace

std::unique_ptr<net::CallHandler> make_auth_call(Context& context, net::ServerCall& wire, Method method) {
  return std::make_unique<AuthCall>(context, wire, method);
}

}  // namespace conclave::api
