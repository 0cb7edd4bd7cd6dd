// etcdserverpb.Lease. Ids and TTLs are chosen here, before the log; time to go is known on the leader's lease clock
// alone.
//
// LeaseTimeToLive on a follower: whether the lease stands, what it was granted and its keys are linearizable; the time
// to go is not known there, and the granted TTL, which it never exceeds, is named instead.
#pragma once

#include <memory>

#include "api/call.h"

namespace conclave::api {

// Of the methods of the Lease service.
[[nodiscard]] std::unique_ptr<net::CallHandler> make_lease_call(Context& context, net::ServerCall& wire, Method method);

}  // namespace conclave::api
