// v3lockpb.Lock: etcd's lock service, over the same keys as its clients' recipe (layers/recipe.h).
#pragma once

#include <memory>

#include "api/call.h"
#include "api/claims.h"

namespace conclave::api {

// Of kLock and kUnlock.
[[nodiscard]] std::unique_ptr<net::CallHandler> make_lock_call(Context& context, Claims& claims, net::ServerCall& wire,
                                                               Method method);

}  // namespace conclave::api
