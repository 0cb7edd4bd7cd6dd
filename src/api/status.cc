#include "api/status.h"

#include "base/assert.h"

namespace conclave::api {

net::GrpcStatus status_of(keyspace::ErrorId error) {
  return {.code = static_cast<uint32_t>(keyspace::grpc_code(error)),
          .message = std::string(keyspace::error_text(error))};
}

net::GrpcStatus status_of(keyspace::GrpcCode code, std::string_view text) {
  return {.code = static_cast<uint32_t>(code), .message = std::string(text)};
}

keyspace::ErrorId error_of(node::RequestRefusal refusal) {
  switch (refusal) {
    case node::RequestRefusal::kNoLeader:
      return keyspace::ErrorId::kNoLeader;
    case node::RequestRefusal::kOverloaded:
      return keyspace::ErrorId::kTooManyRequests;
    case node::RequestRefusal::kTooLarge:
      return keyspace::ErrorId::kRequestTooLarge;
    case node::RequestRefusal::kNoSpace:
      return keyspace::ErrorId::kNoSpace;
    case node::RequestRefusal::kTimedOut:
      return keyspace::ErrorId::kTimeout;
  }
  UNREACHABLE();
}

keyspace::ErrorId error_of(node::ChangeRefusal refusal) {
  switch (refusal) {
    case node::ChangeRefusal::kNone:
      break;
    case node::ChangeRefusal::kNoLeader:
      return keyspace::ErrorId::kNoLeader;
    case node::ChangeRefusal::kOverloaded:
      return keyspace::ErrorId::kTooManyRequests;
    case node::ChangeRefusal::kAlreadyMember:
      return keyspace::ErrorId::kMemberExists;
    case node::ChangeRefusal::kNotMember:
      return keyspace::ErrorId::kMemberNotFound;
    case node::ChangeRefusal::kNotLearner:
      return keyspace::ErrorId::kNotLearner;
    case node::ChangeRefusal::kNotCaughtUp:
      return keyspace::ErrorId::kLearnerNotReady;
    case node::ChangeRefusal::kLastVoter:
      return keyspace::ErrorId::kNotEnoughStarted;
    case node::ChangeRefusal::kTooFewActive:
    case node::ChangeRefusal::kChangePending:  // clients ask again later
      return keyspace::ErrorId::kUnhealthy;
    case node::ChangeRefusal::kTooManyMembers:
      return keyspace::ErrorId::kTooManyMembers;
    case node::ChangeRefusal::kTooManyLearners:
      return keyspace::ErrorId::kTooManyLearners;
  }
  UNREACHABLE();
}

net::GrpcStatus status_of(const v1::Error& error) {
  return {.code = error.code(), .message = error.reason() + ": " + error.message(), .reason = error.reason()};
}

v1::Error session_error(keyspace::GrpcCode code, std::string_view reason, std::string_view message) {
  v1::Error error;
  error.set_code(static_cast<uint32_t>(code));
  error.set_reason(std::string(reason));
  error.set_message(std::string(message));
  return error;
}

v1::Error session_error(keyspace::ErrorId error) {
  using keyspace::ErrorId;
  using keyspace::GrpcCode;
  switch (error) {
    case ErrorId::kNoLeader:
    case ErrorId::kTimeout:
      return session_error(GrpcCode::kUnavailable, kNoQuorumReason,
                           "no leader was found in time; nothing was done: ask again");
    case ErrorId::kTooManyRequests:
      return session_error(GrpcCode::kResourceExhausted, kOverloadedReason,
                           "a queue is full; nothing was done: ask again, later");
    case ErrorId::kNoSpace:
      return session_error(GrpcCode::kResourceExhausted, kNoSpaceReason,
                           "the quota is used up, or a disk; nothing was done: delete something, or raise the quota");
    case ErrorId::kLeaderChanged:
      return session_error(GrpcCode::kUnavailable, kNoQuorumReason,
                           "this server took over a newer state meanwhile; nothing was done: ask again");
    case ErrorId::kMalformed:
      return session_error(GrpcCode::kInvalidArgument, kInvalidRequestReason, "the bytes are not of such a request");
    default:
      return session_error(keyspace::grpc_code(error), kInvalidRequestReason, keyspace::error_text(error));
  }
}

v1::Error unknown_outcome() {
  return session_error(keyspace::GrpcCode::kUnavailable, kUnknownOutcomeReason,
                       "no answer came in time; whether it was done is not known: ask again");
}

}  // namespace conclave::api
