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

}  // namespace conclave::api
