// conclave.v1 for people: what sessions, locks and elections there are, who holds and who waits; and what ends a
// session or a claim by decision. Each looks at a state proven by a round of reads, in slices where there is much.
#pragma once

#include <memory>

#include "api/call.h"

namespace conclave::api {

[[nodiscard]] std::unique_ptr<net::CallHandler> make_inspection_call(Context& context, net::ServerCall& wire,
                                                                     Method method);

}  // namespace conclave::api
