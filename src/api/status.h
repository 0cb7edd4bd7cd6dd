// What a call ends with. The texts and codes of etcd's API come from keyspace/errors.h; here stand only those that no
// command can meet.
#pragma once

#include <string_view>

#include "keyspace/errors.h"
#include "net/grpc.h"
#include "node/replica.h"

namespace conclave::api {

[[nodiscard]] net::GrpcStatus status_of(keyspace::ErrorId error);
[[nodiscard]] net::GrpcStatus status_of(keyspace::GrpcCode code, std::string_view text);
[[nodiscard]] keyspace::ErrorId error_of(node::RequestRefusal refusal);
[[nodiscard]] keyspace::ErrorId error_of(node::ChangeRefusal refusal);

// Of etcd's lock and election services, which send them as UNKNOWN; clients match the texts.
inline constexpr std::string_view kSessionIsExpired = "mutex: session is expired";
inline constexpr std::string_view kNoElectionLeader = "election: no leader";
inline constexpr std::string_view kNotElectionLeader = "election: not leader";
inline constexpr std::string_view kMissingLeaderKey = "\"leader\" field must be provided";

}  // namespace conclave::api
