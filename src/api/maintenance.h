// etcdserverpb.Maintenance, the two methods of Auth that have an answer while authentication is off, and gRPC's health
// check.
#pragma once

#include <memory>

#include "api/call.h"

namespace conclave::api {

// Of the methods of the Maintenance service, kAuthStatus, kAuthenticate and kHealthCheck.
[[nodiscard]] std::unique_ptr<net::CallHandler> make_maintenance_call(Context& context, net::ServerCall& wire,
                                                                      Method method);

}  // namespace conclave::api
