// conclave.v1 as clients of sessions use it: the stream of everything, single operations of Sessions, Locks and
// Elections (each by a stream of its own inside), and what they are told, of a session or of an election. What is done
// and refused decides layers::Sessions.
#pragma once

#include <memory>

#include "api/call.h"
#include "api/sessions_host.h"

namespace conclave::api {

[[nodiscard]] std::unique_ptr<net::CallHandler> make_sessions_call(Context& context, SessionsHost& host,
                                                                   net::ServerCall& wire, Method method);

}  // namespace conclave::api
