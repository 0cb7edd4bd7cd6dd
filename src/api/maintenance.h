// etcdserverpb.Maintenance.
#pragma once

#include <memory>

#include "api/call.h"

namespace conclave::api {

// Of the methods of the Maintenance service.
[[nodiscard]] std::unique_ptr<net::CallHandler> make_maintenance_call(Context& context, net::ServerCall& wire,
                                                                      Method method);

}  // namespace conclave::api
