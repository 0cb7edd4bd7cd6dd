// etcdserverpb.Cluster, and of conclave.v1.Cluster what is asked of a cluster that has begun. Who is a member says the
// configuration; names and addresses say the members' records (members.h).
#pragma once

#include <memory>

#include "api/call.h"

namespace conclave::api {

// Of the methods of both services.
[[nodiscard]] std::unique_ptr<net::CallHandler> make_cluster_call(Context& context, net::ServerCall& wire,
                                                                  Method method);

}  // namespace conclave::api
