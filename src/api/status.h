// What a call ends with. The texts and codes of etcd's API come from keyspace/errors.h; here stand only those that no
// command can meet.
#pragma once

#include <string_view>

#include "conclave/v1/session.pb.h"
#include "keyspace/errors.h"
#include "net/grpc.h"
#include "node/replica.h"

namespace conclave::api {

[[nodiscard]] net::GrpcStatus status_of(keyspace::ErrorId error);
[[nodiscard]] net::GrpcStatus status_of(keyspace::GrpcCode code, std::string_view text);
[[nodiscard]] keyspace::ErrorId error_of(node::RequestRefusal refusal);
[[nodiscard]] keyspace::ErrorId error_of(node::ChangeRefusal refusal);

// Of conclave.v1: the text is "REASON: message", and the reason stands in the details too.
[[nodiscard]] net::GrpcStatus status_of(const v1::Error& error);
[[nodiscard]] v1::Error session_error(keyspace::GrpcCode code, std::string_view reason, std::string_view message);
// What conclave.v1 says where the keyspace or the replica refused; and of a write whose outcome is not known.
[[nodiscard]] v1::Error session_error(keyspace::ErrorId error);
[[nodiscard]] v1::Error unknown_outcome();

// Reasons of session.proto that are given here too.
inline constexpr std::string_view kNoQuorumReason = "NO_QUORUM";
inline constexpr std::string_view kOverloadedReason = "OVERLOADED";
inline constexpr std::string_view kNoSpaceReason = "NO_SPACE";
inline constexpr std::string_view kUnknownOutcomeReason = "UNKNOWN_OUTCOME";
inline constexpr std::string_view kInvalidRequestReason = "INVALID_REQUEST";
inline constexpr std::string_view kInvalidNameReason = "INVALID_NAME";
inline constexpr std::string_view kSessionExpiredReason = "SESSION_EXPIRED";
inline constexpr std::string_view kTakenOverReason = "TAKEN_OVER";

// Of etcd's lock and election services, which send them as UNKNOWN; clients match the texts.
inline constexpr std::string_view kSessionIsExpired = "mutex: session is expired";
inline constexpr std::string_view kNoElectionLeader = "election: no leader";
inline constexpr std::string_view kNotElectionLeader = "election: not leader";
inline constexpr std::string_view kMissingLeaderKey = "\"leader\" field must be provided";

}  // namespace conclave::api
