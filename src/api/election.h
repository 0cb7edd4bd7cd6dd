// v3electionpb.Election: etcd's election service, over the same keys as its clients' recipe (layers/recipe.h).
#pragma once

#include <memory>

#include "api/call.h"
#include "api/claims.h"

namespace conclave::api {

// Of the methods of the Election service.
[[nodiscard]] std::unique_ptr<net::CallHandler> make_election_call(Context& context, Claims& claims,
                                                                   net::ServerCall& wire, Method method);

}  // namespace conclave::api
