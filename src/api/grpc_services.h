// What gRPC itself defines for every server: health (Check and Watch) and reflection of the services there are.
#pragma once

#include <memory>

#include "api/call.h"

namespace conclave::api {

// Of kHealthCheck, kHealthWatch, kReflection and kReflectionAlpha.
[[nodiscard]] std::unique_ptr<net::CallHandler> make_grpc_services_call(Context& context, net::ServerCall& wire,
                                                                        Method method);

}  // namespace conclave::api
