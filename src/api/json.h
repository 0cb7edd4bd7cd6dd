// The API as JSON over HTTP: etcd's, POST /v3/kv/range and so on, and ours, POST /v1/lock/acquire and so on. A request
// becomes a call of the same service that gRPC calls reach, and what that answers becomes JSON; nothing is checked or
// done here that is not about JSON. By libprotobuf's mapping with the fields' original names. For people and scripts:
// conversion costs some 20 us per KiB.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "api/context.h"
#include "api/methods.h"
#include "net/server.h"

namespace conclave::api {

// Of a request's target, with or without a query.
[[nodiscard]] std::optional<Method> json_method_of(std::string_view target);

// Null if it was answered at once.
[[nodiscard]] std::unique_ptr<net::HttpHandler> make_json_call(Context& context, net::Service& service,
                                                               const net::HttpRequest& request, net::HttpAnswer& answer,
                                                               Method method);

// HTTP's word for a gRPC code.
[[nodiscard]] int http_status_of(uint32_t grpc_code);

}  // namespace conclave::api
