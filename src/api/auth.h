// etcdserverpb.Auth while there is no authentication: every method answers as etcd does that has neither users nor
// roles and is not enabled. The two that would make one, UserAdd and RoleAdd, say that authentication is not enabled.
#pragma once

#include <memory>

#include "api/call.h"

namespace conclave::api {

// Of the methods of the Auth service.
[[nodiscard]] std::unique_ptr<net::CallHandler> make_auth_call(Context& context, net::ServerCall& wire, Method method);

}  // namespace conclave::api
