// etcdserverpb.Cluster. Lists members; changes of membership are refused for now.
#pragma once

#include <memory>

#include "api/call.h"

namespace conclave::api {

// Of the methods of the Cluster service.
[[nodiscard]] std::unique_ptr<net::CallHandler> make_cluster_call(Context& context, net::ServerCall& wire,
                                                                  Method method);

}  // namespace conclave::api
