#include "api/service.h"

#include <utility>

#include "api/auth.h"
#include "api/cluster.h"
#include "api/election.h"
#include "api/grpc_services.h"
#include "api/inspection.h"
#include "api/json.h"
#include "api/kv.h"
#include "api/lease.h"
#include "api/lock.h"
#include "api/maintenance.h"
#include "api/methods.h"
#include "api/sessions.h"
#include "api/status.h"
#include "api/watch.h"
#include "base/assert.h"

namespace conclave::api {
namespace {

// Of Range only what is serializable: its call sees to that. What is not etcd's is about the server, not the cluster.
bool is_served_by_learners(Method method) {
  switch (method) {
    case Method::kRange:
    case Method::kRangeStream:
    case Method::kStatus:
    case Method::kSnapshot:
    case Method::kHealthCheck:
    case Method::kHealthWatch:
    case Method::kReflection:
    case Method::kReflectionAlpha:
      return true;
    default:
      return false;
  }
}

class LearnerRefusal final : public Call {
 public:
  using Call::Call;
  void on_message(ByteView) override { on_half_close(); }
  void on_half_close() override {
    if (is_open()) fail(keyspace::ErrorId::kLearnerUnsupported);
  }
  void on_refused(node::Ticket, keyspace::ErrorId) override {}
};

}  // namespace

Service::Service(ServiceOptions options, node::Replica& replica, env::Clock& clock)
    : context_(std::move(options), replica, clock),
      claims_(context_),
      sessions_(context_),
      publisher_(context_),
      alarm_keeper_(context_),
      http_(context_, sessions_) {}

std::unique_ptr<net::CallHandler> Service::open(net::ServerCall& call) {
  const std::optional<Method> method = method_of(call.path());
  if (!method) return nullptr;
  if (context_.is_learner() && !is_served_by_learners(*method)) {
    return std::make_unique<LearnerRefusal>(context_, call, *method);
  }
  switch (*method) {
    case Method::kRange:
    case Method::kRangeStream:
    case Method::kPut:
    case Method::kDeleteRange:
    case Method::kTxn:
    case Method::kCompact:
      return make_kv_call(context_, call, *method);
    case Method::kWatch:
      return make_watch_call(context_, call);
    case Method::kLeaseGrant:
    case Method::kLeaseRevoke:
    case Method::kLeaseKeepAlive:
    case Method::kLeaseTimeToLive:
    case Method::kLeaseLeases:
      return make_lease_call(context_, call, *method);
    case Method::kMemberAdd:
    case Method::kMemberRemove:
    case Method::kMemberUpdate:
    case Method::kMemberList:
    case Method::kMemberPromote:
    case Method::kAddMember:
    case Method::kReplaceMember:
    case Method::kGetSettings:
    case Method::kChangeSettings:
      return make_cluster_call(context_, call, *method);
    case Method::kAlarm:
    case Method::kStatus:
    case Method::kDefragment:
    case Method::kHash:
    case Method::kHashKv:
    case Method::kSnapshot:
    case Method::kMoveLeader:
    case Method::kDowngrade:
      return make_maintenance_call(context_, call, *method);
    case Method::kHealthCheck:
    case Method::kHealthWatch:
    case Method::kReflection:
    case Method::kReflectionAlpha:
      return make_grpc_services_call(context_, call, *method);
    case Method::kAuthEnable:
    case Method::kAuthDisable:
    case Method::kAuthStatus:
    case Method::kAuthenticate:
    case Method::kUserAdd:
    case Method::kUserGet:
    case Method::kUserList:
    case Method::kUserDelete:
    case Method::kUserChangePassword:
    case Method::kUserGrantRole:
    case Method::kUserRevokeRole:
    case Method::kRoleAdd:
    case Method::kRoleGet:
    case Method::kRoleList:
    case Method::kRoleDelete:
    case Method::kRoleGrantPermission:
    case Method::kRoleRevokePermission:
      return make_auth_call(context_, call, *method);
    case Method::kLock:
    case Method::kUnlock:
      return make_lock_call(context_, claims_, call, *method);
    case Method::kCampaign:
    case Method::kProclaim:
    case Method::kLeader:
    case Method::kObserve:
    case Method::kResign:
      return make_election_call(context_, claims_, call, *method);
    case Method::kSessionsSession:
    case Method::kSessionsOpen:
    case Method::kSessionsKeepAlive:
    case Method::kSessionsClose:
    case Method::kSessionsEvents:
    case Method::kLocksAcquire:
    case Method::kLocksRelease:
    case Method::kElectionsCampaign:
    case Method::kElectionsProclaim:
    case Method::kElectionsResign:
    case Method::kElectionsTransfer:
    case Method::kElectionsObserve:
      return make_sessions_call(context_, sessions_, call, *method);
    case Method::kSessionsDescribe:
    case Method::kSessionsList:
    case Method::kSessionsKill:
    case Method::kLocksValidate:
    case Method::kLocksDescribe:
    case Method::kLocksList:
    case Method::kLocksForceRelease:
    case Method::kLocksRequestRelease:
    case Method::kElectionsLeader:
    case Method::kElectionsDescribe:
    case Method::kElectionsList:
      return make_inspection_call(context_, call, *method);
  }
  UNREACHABLE();
}

std::unique_ptr<net::HttpHandler> Service::open_http(const net::HttpRequest& request, net::HttpAnswer& answer) {
  const std::optional<Method> method = json_method_of(request.target);
  if (!method) return nullptr;
  return make_json_call(context_, *this, request, answer, *method);
}

void Service::on_http(const net::HttpRequest& request, std::function<void(net::HttpResponse)> answer) {
  http_.serve(request, std::move(answer));
}

void Service::on_write_applied(node::Ticket ticket, const keyspace::Reply& reply) {
  if (Waiter* waiter = context_.redeem(ticket)) waiter->on_applied(ticket, reply);
}

void Service::on_write_refused(node::Ticket ticket, node::RequestRefusal refusal) {
  ++context_.metrics().writes_failed;
  refuse(ticket, error_of(refusal));
}

void Service::on_write_unknown(node::Ticket ticket) {
  ++context_.metrics().writes_failed;
  // As etcd says it: a client that retries must expect that it happened.
  refuse(ticket, keyspace::ErrorId::kTimeout);
}

void Service::on_read_ready(node::Ticket ticket) {
  if (Waiter* waiter = context_.redeem(ticket)) waiter->on_ready(ticket);
}

void Service::on_read_refused(node::Ticket ticket, node::RequestRefusal refusal) {
  refuse(ticket, error_of(refusal));
}

void Service::on_kept_alive(node::Ticket ticket, int64_t ttl_ms) {
  if (Waiter* waiter = context_.redeem(ticket)) waiter->on_kept_alive(ticket, ttl_ms);
}

void Service::on_keep_alive_refused(node::Ticket ticket, node::RequestRefusal refusal) {
  refuse(ticket, error_of(refusal));
}

void Service::on_change_done(node::Ticket ticket) {
  if (Waiter* waiter = context_.redeem(ticket)) waiter->on_change_done(ticket);
}

void Service::on_change_refused(node::Ticket ticket, node::ChangeRefusal refusal) {
  refuse(ticket, error_of(refusal));
}

void Service::on_change_unknown(node::Ticket ticket) {
  refuse(ticket, keyspace::ErrorId::kTimeout);
}

void Service::refuse(node::Ticket ticket, keyspace::ErrorId error) {
  if (Waiter* waiter = context_.redeem(ticket)) waiter->on_refused(ticket, error);
}

void Service::on_applied(const keyspace::Effects& effects) {
  bool alarms_changed = false;
  for (const keyspace::RecordChange& record : effects.records) {
    if (record.key.starts_with(kMemberRecords)) ++member_records_version_;
    alarms_changed = alarms_changed || Alarms::is_record(record.key);
  }
  if (alarms_changed) context_.alarms().refresh(context_.keyspace());
  claims_.on_applied();
  sessions_.on_entry();
}

void Service::on_state_replaced() {
  ++member_records_version_;
  context_.on_state_replaced();
  claims_.on_state_replaced();
  sessions_.on_state_replaced();
}

void Service::on_role_changed(const raft::Status& status) {
  context_.on_role_changed(status);
}

void Service::turn_end(Instant now) {
  sessions_.turn_end(now);
  context_.turn_end(now);
}

}  // namespace conclave::api
