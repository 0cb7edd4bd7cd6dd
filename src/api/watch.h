// etcdserverpb.Watch: frames the requests and responses of keyspace::WatchStream. No logic of watching is here, only
// when to read and when to send: requests wait while too many answers do, and sending stops while the connection has
// enough.
#pragma once

#include <memory>

#include "api/call.h"

namespace conclave::api {

[[nodiscard]] std::unique_ptr<net::CallHandler> make_watch_call(Context& context, net::ServerCall& wire);

}  // namespace conclave::api
