// The protocol saying no: every refusal of the keyspace and of etcd's API with its gRPC code and exact text, in one
// table. Clients match these texts; they are facts, not prose. gRPC statuses are made from here and nowhere else.
#pragma once

#include <cstdint>
#include <string_view>

namespace conclave::keyspace {

// Numbers of gRPC.
enum class GrpcCode : uint8_t {
  kOk = 0,
  kCanceled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

// CONCLAVE_KEYSPACE_ERRORS(X): X(identifier, gRPC code, text).
#define CONCLAVE_KEYSPACE_ERRORS(X)                                                                                  \
  X(kNone, kOk, "")                                                                                                  \
  X(kEmptyKey, kInvalidArgument, "etcdserver: key is not provided")                                                  \
  X(kKeyNotFound, kInvalidArgument, "etcdserver: key not found")                                                     \
  X(kValueProvided, kInvalidArgument, "etcdserver: value is provided")                                               \
  X(kLeaseProvided, kInvalidArgument, "etcdserver: lease is provided")                                               \
  X(kTooManyOperations, kInvalidArgument, "etcdserver: too many operations in txn request")                          \
  X(kDuplicateKey, kInvalidArgument, "etcdserver: duplicate key given in txn request")                               \
  X(kInvalidClientApiVersion, kInvalidArgument, "etcdserver: invalid client api version")                            \
  X(kInvalidSortOption, kInvalidArgument, "etcdserver: invalid sort option")                                         \
  X(kInvalidMemberUrls, kInvalidArgument, "etcdserver: given member URLs are invalid")                               \
  X(kRequestTooLarge, kInvalidArgument, "etcdserver: request is too large")                                          \
  X(kUserEmpty, kInvalidArgument, "etcdserver: user name is empty")                                                  \
  X(kRoleEmpty, kInvalidArgument, "etcdserver: role name is empty")                                                  \
  X(kAuthFailed, kInvalidArgument, "etcdserver: authentication failed, invalid user ID or password")                 \
  X(kPermissionNotGiven, kInvalidArgument, "etcdserver: permission not given")                                       \
  X(kInvalidAuthManagement, kInvalidArgument, "etcdserver: invalid auth management")                                 \
  X(kAuthOldRevision, kInvalidArgument, "etcdserver: revision of auth store is old")                                 \
  X(kWrongDowngradeFormat, kInvalidArgument, "etcdserver: wrong downgrade target version format")                    \
  X(kInvalidDowngradeTarget, kInvalidArgument, "etcdserver: invalid downgrade target version")                       \
  X(kCompacted, kOutOfRange, "etcdserver: mvcc: required revision has been compacted")                               \
  X(kFutureRevision, kOutOfRange, "etcdserver: mvcc: required revision is a future revision")                        \
  X(kLeaseTtlTooLarge, kOutOfRange, "etcdserver: too large lease TTL")                                               \
  X(kNoSpace, kResourceExhausted, "etcdserver: mvcc: database space exceeded")                                       \
  X(kTooManyRequests, kResourceExhausted, "etcdserver: too many requests")                                           \
  X(kLeaseNotFound, kNotFound, "etcdserver: requested lease not found")                                              \
  X(kMemberNotFound, kNotFound, "etcdserver: member not found")                                                      \
  X(kLeaseExists, kFailedPrecondition, "etcdserver: lease already exists")                                           \
  X(kMemberExists, kFailedPrecondition, "etcdserver: member ID already exist")                                       \
  X(kPeerUrlExists, kFailedPrecondition, "etcdserver: Peer URLs already exists")                                     \
  X(kNotEnoughStarted, kFailedPrecondition, "etcdserver: re-configuration failed due to not enough started members") \
  X(kNotLearner, kFailedPrecondition, "etcdserver: can only promote a learner member")                               \
  X(kLearnerNotReady, kFailedPrecondition,                                                                           \
    "etcdserver: can only promote a learner member which is in sync with leader")                                    \
  X(kTooManyLearners, kFailedPrecondition, "etcdserver: too many learner members in cluster")                        \
  X(kClusterIdMismatch, kFailedPrecondition, "etcdserver: cluster ID mismatch")                                      \
  X(kRootUserMissing, kFailedPrecondition, "etcdserver: root user does not exist")                                   \
  X(kRootRoleMissing, kFailedPrecondition, "etcdserver: root user does not have root role")                          \
  X(kUserExists, kFailedPrecondition, "etcdserver: user name already exists")                                        \
  X(kUserNotFound, kFailedPrecondition, "etcdserver: user name not found")                                           \
  X(kRoleExists, kFailedPrecondition, "etcdserver: role name already exists")                                        \
  X(kRoleNotFound, kFailedPrecondition, "etcdserver: role name not found")                                           \
  X(kRoleNotGranted, kFailedPrecondition, "etcdserver: role is not granted to the user")                             \
  X(kPermissionNotGranted, kFailedPrecondition, "etcdserver: permission is not granted to the role")                 \
  X(kAuthNotEnabled, kFailedPrecondition, "etcdserver: authentication is not enabled")                               \
  X(kNotLeader, kFailedPrecondition, "etcdserver: not leader")                                                       \
  X(kNotCapable, kFailedPrecondition, "etcdserver: not capable")                                                     \
  X(kLearnerUnsupported, kFailedPrecondition, "etcdserver: rpc not supported for learner")                           \
  X(kBadTransferee, kFailedPrecondition, "etcdserver: bad leader transferee")                                        \
  X(kClusterVersionNotFound, kFailedPrecondition, "etcdserver: cluster version not found during downgrade")          \
  X(kDowngradeInProgress, kFailedPrecondition, "etcdserver: cluster has a downgrade job in progress")                \
  X(kNoDowngrade, kFailedPrecondition, "etcdserver: no inflight downgrade job")                                      \
  X(kPermissionDenied, kPermissionDenied, "etcdserver: permission denied")                                           \
  X(kInvalidAuthToken, kUnauthenticated, "etcdserver: invalid auth token")                                           \
  X(kWatchCanceled, kCanceled, "etcdserver: watch canceled")                                                         \
  X(kRequestCanceled, kCanceled, "etcdserver: request canceled")                                                     \
  X(kDeadlineExceeded, kDeadlineExceeded, "etcdserver: context deadline exceeded")                                   \
  X(kCorrupt, kDataLoss, "etcdserver: corrupt cluster")                                                              \
  X(kNoLeader, kUnavailable, "etcdserver: no leader")                                                                \
  X(kLeaderChanged, kUnavailable, "etcdserver: leader changed")                                                      \
  X(kStopped, kUnavailable, "etcdserver: server stopped")                                                            \
  X(kTimeout, kUnavailable, "etcdserver: request timed out")                                                         \
  X(kTimeoutLeaderFailure, kUnavailable, "etcdserver: request timed out, possibly due to previous leader failure")   \
  X(kTimeoutConnectionLost, kUnavailable, "etcdserver: request timed out, possibly due to connection lost")          \
  X(kTimeoutApplied, kUnavailable, "etcdserver: request timed out, waiting for the applied index took too long")     \
  X(kUnhealthy, kUnavailable, "etcdserver: unhealthy cluster")                                                       \
  /* Texts of watch cancellations; they travel as cancel_reason, without a status. */                                \
  X(kWatchDuplicateId, kInvalidArgument, "mvcc: duplicate watch ID provided on the WatchStream")                     \
  X(kWatchEmptyRange, kInvalidArgument, "mvcc: watcher range is empty")                                              \
  X(kWatchCompacted, kOutOfRange, "mvcc: required revision has been compacted")                                      \
  X(kWatchTooMany, kResourceExhausted, "mvcc: too many watchers on this stream")                                     \
  /* Ours: what etcd has no word for. */                                                                             \
  X(kMalformed, kInvalidArgument, "MALFORMED_REQUEST")                                                               \
  X(kUnknownEnum, kInvalidArgument, "UNKNOWN_ENUM_VALUE")                                                            \
  X(kUnknownCommand, kUnimplemented, "UNKNOWN_COMMAND")                                                              \
  X(kSessionExpired, kNotFound, "SESSION_EXPIRED")                                                                   \
  X(kSessionExists, kAlreadyExists, "SESSION_EXISTS")                                                                \
  X(kStaleIncarnation, kFailedPrecondition, "STALE_INCARNATION")                                                     \
  X(kRepeated, kAlreadyExists, "ALREADY_APPLIED")                                                                    \
  X(kPastTerm, kAborted, "PAST_TERM")                                                                                \
  X(kGuardFailed, kFailedPrecondition, "GUARD_FAILED")                                                               \
  X(kTooManyMembers, kFailedPrecondition, "TOO_MANY_MEMBERS")                                                        \
  /* Of a command that took effect. */                                                                               \
  X(kAnswerTooLarge, kOutOfRange, "APPLIED_BUT_ANSWER_TOO_LARGE")

enum class ErrorId : uint8_t {
#define X(identifier, code, text) identifier,
  CONCLAVE_KEYSPACE_ERRORS(X)
#undef X
};

[[nodiscard]] GrpcCode grpc_code(ErrorId error);
[[nodiscard]] std::string_view error_text(ErrorId error);

}  // namespace conclave::keyspace
