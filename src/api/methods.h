// Every method served, by its path. A path that is not here is UNIMPLEMENTED.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace conclave::api {

// CONCLAVE_API_METHODS(X): X(identifier, path).
#define CONCLAVE_API_METHODS(X)                                                         \
  X(kRange, "/etcdserverpb.KV/Range")                                                   \
  X(kRangeStream, "/etcdserverpb.KV/RangeStream")                                       \
  X(kPut, "/etcdserverpb.KV/Put")                                                       \
  X(kDeleteRange, "/etcdserverpb.KV/DeleteRange")                                       \
  X(kTxn, "/etcdserverpb.KV/Txn")                                                       \
  X(kCompact, "/etcdserverpb.KV/Compact")                                               \
  X(kWatch, "/etcdserverpb.Watch/Watch")                                                \
  X(kLeaseGrant, "/etcdserverpb.Lease/LeaseGrant")                                      \
  X(kLeaseRevoke, "/etcdserverpb.Lease/LeaseRevoke")                                    \
  X(kLeaseKeepAlive, "/etcdserverpb.Lease/LeaseKeepAlive")                              \
  X(kLeaseTimeToLive, "/etcdserverpb.Lease/LeaseTimeToLive")                            \
  X(kLeaseLeases, "/etcdserverpb.Lease/LeaseLeases")                                    \
  X(kMemberAdd, "/etcdserverpb.Cluster/MemberAdd")                                      \
  X(kMemberRemove, "/etcdserverpb.Cluster/MemberRemove")                                \
  X(kMemberUpdate, "/etcdserverpb.Cluster/MemberUpdate")                                \
  X(kMemberList, "/etcdserverpb.Cluster/MemberList")                                    \
  X(kMemberPromote, "/etcdserverpb.Cluster/MemberPromote")                              \
  X(kAddMember, "/conclave.v1.Cluster/AddMember")                                       \
  X(kReplaceMember, "/conclave.v1.Cluster/ReplaceMember")                               \
  X(kGetSettings, "/conclave.v1.Cluster/GetSettings")                                   \
  X(kChangeSettings, "/conclave.v1.Cluster/ChangeSettings")                             \
  X(kAlarm, "/etcdserverpb.Maintenance/Alarm")                                          \
  X(kStatus, "/etcdserverpb.Maintenance/Status")                                        \
  X(kDefragment, "/etcdserverpb.Maintenance/Defragment")                                \
  X(kHash, "/etcdserverpb.Maintenance/Hash")                                            \
  X(kHashKv, "/etcdserverpb.Maintenance/HashKV")                                        \
  X(kSnapshot, "/etcdserverpb.Maintenance/Snapshot")                                    \
  X(kMoveLeader, "/etcdserverpb.Maintenance/MoveLeader")                                \
  X(kDowngrade, "/etcdserverpb.Maintenance/Downgrade")                                  \
  X(kAuthEnable, "/etcdserverpb.Auth/AuthEnable")                                       \
  X(kAuthDisable, "/etcdserverpb.Auth/AuthDisable")                                     \
  X(kAuthStatus, "/etcdserverpb.Auth/AuthStatus")                                       \
  X(kAuthenticate, "/etcdserverpb.Auth/Authenticate")                                   \
  X(kUserAdd, "/etcdserverpb.Auth/UserAdd")                                             \
  X(kUserGet, "/etcdserverpb.Auth/UserGet")                                             \
  X(kUserList, "/etcdserverpb.Auth/UserList")                                           \
  X(kUserDelete, "/etcdserverpb.Auth/UserDelete")                                       \
  X(kUserChangePassword, "/etcdserverpb.Auth/UserChangePassword")                       \
  X(kUserGrantRole, "/etcdserverpb.Auth/UserGrantRole")                                 \
  X(kUserRevokeRole, "/etcdserverpb.Auth/UserRevokeRole")                               \
  X(kRoleAdd, "/etcdserverpb.Auth/RoleAdd")                                             \
  X(kRoleGet, "/etcdserverpb.Auth/RoleGet")                                             \
  X(kRoleList, "/etcdserverpb.Auth/RoleList")                                           \
  X(kRoleDelete, "/etcdserverpb.Auth/RoleDelete")                                       \
  X(kRoleGrantPermission, "/etcdserverpb.Auth/RoleGrantPermission")                     \
  X(kRoleRevokePermission, "/etcdserverpb.Auth/RoleRevokePermission")                   \
  X(kReflection, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")           \
  X(kReflectionAlpha, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo") \
  X(kHealthWatch, "/grpc.health.v1.Health/Watch")                                       \
  X(kHealthCheck, "/grpc.health.v1.Health/Check")                                       \
  X(kLock, "/v3lockpb.Lock/Lock")                                                       \
  X(kUnlock, "/v3lockpb.Lock/Unlock")                                                   \
  X(kCampaign, "/v3electionpb.Election/Campaign")                                       \
  X(kProclaim, "/v3electionpb.Election/Proclaim")                                       \
  X(kLeader, "/v3electionpb.Election/Leader")                                           \
  X(kObserve, "/v3electionpb.Election/Observe")                                         \
  X(kResign, "/v3electionpb.Election/Resign")                                           \
  X(kSessionsSession, "/conclave.v1.Sessions/Session")                                  \
  X(kSessionsOpen, "/conclave.v1.Sessions/Open")                                        \
  X(kSessionsKeepAlive, "/conclave.v1.Sessions/KeepAlive")                              \
  X(kSessionsClose, "/conclave.v1.Sessions/Close")                                      \
  X(kSessionsEvents, "/conclave.v1.Sessions/Events")                                    \
  X(kSessionsDescribe, "/conclave.v1.Sessions/Describe")                                \
  X(kSessionsList, "/conclave.v1.Sessions/List")                                        \
  X(kSessionsKill, "/conclave.v1.Sessions/Kill")                                        \
  X(kLocksAcquire, "/conclave.v1.Locks/Acquire")                                        \
  X(kLocksRelease, "/conclave.v1.Locks/Release")                                        \
  X(kLocksValidate, "/conclave.v1.Locks/Validate")                                      \
  X(kLocksDescribe, "/conclave.v1.Locks/Describe")                                      \
  X(kLocksList, "/conclave.v1.Locks/List")                                              \
  X(kLocksForceRelease, "/conclave.v1.Locks/ForceRelease")                              \
  X(kLocksRequestRelease, "/conclave.v1.Locks/RequestRelease")                          \
  X(kElectionsCampaign, "/conclave.v1.Elections/Campaign")                              \
  X(kElectionsProclaim, "/conclave.v1.Elections/Proclaim")                              \
  X(kElectionsResign, "/conclave.v1.Elections/Resign")                                  \
  X(kElectionsTransfer, "/conclave.v1.Elections/Transfer")                              \
  X(kElectionsLeader, "/conclave.v1.Elections/Leader")                                  \
  X(kElectionsObserve, "/conclave.v1.Elections/Observe")                                \
  X(kElectionsDescribe, "/conclave.v1.Elections/Describe")                              \
  X(kElectionsList, "/conclave.v1.Elections/List")

enum class Method : uint8_t {
#define X(identifier, path) identifier,
  CONCLAVE_API_METHODS(X)
#undef X
};

#define X(identifier, path) +1
inline constexpr size_t kMethodCount = 0 CONCLAVE_API_METHODS(X);
#undef X

[[nodiscard]] std::optional<Method> method_of(std::string_view path);
[[nodiscard]] std::string_view path_of(Method method);

}  // namespace conclave::api
