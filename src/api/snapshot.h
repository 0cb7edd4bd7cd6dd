// etcdserverpb.Maintenance/Snapshot: the state at one applied index as a file that clients save. Its content is ours
// (docs/internals/formats/keyspace-snapshot.md), its frame is etcd's: the content padded with zeros to 512 bytes, then
// the SHA-256 of all that.
#pragma once

#include <memory>

#include "api/call.h"

namespace conclave::api {

[[nodiscard]] std::unique_ptr<net::CallHandler> make_snapshot_call(Context& context, net::ServerCall& wire);

}  // namespace conclave::api
