#include "api/alarm_keeper.h"

#include <algorithm>

#include "base/mark.h"

namespace conclave::api {
namespace {

// An eighth must be free again before the alarm is over, or it would come and go with each request.
constexpr uint64_t kRoomDivisor = 8;

}  // namespace

AlarmKeeper::AlarmKeeper(Context& context) : context_(context) {
  context_.alarms().refresh(context_.keyspace());
  context_.set_timer(*this, context_.now() + kOwnRetry);
}

AlarmKeeper::~AlarmKeeper() {
  context_.forget(ticket_);
  context_.stop_timer(*this);
}

void AlarmKeeper::on_time(Instant now) {
  if (ticket_ == 0 && context_.has_leader()) look();
  context_.set_timer(*this, now + kOwnRetry);
}

void AlarmKeeper::look() {
  Alarms& alarms = context_.alarms();
  if (alarms.take_exceeded()) {
    REACHED(alarm_raised);
    const std::string key = alarm_record_key(AlarmKind::kNoSpace, context_.options().self);
    write({.kind = keyspace::InternalOperation::Kind::kRecordPut, .key = key, .value = kRaisedByServer});
    return;
  }
  // The leader's task, since whoever raised it may be gone.
  if (!context_.is_leader()) return;
  const uint64_t quota = alarms.quota_bytes();
  if (quota != 0 && live_bytes(context_.keyspace()) > quota - quota / kRoomDivisor) return;
  const auto over = std::ranges::find_if(
      alarms.standing(), [](const Alarm& alarm) { return alarm.kind == AlarmKind::kNoSpace && alarm.by_server; });
  if (over == alarms.standing().end()) return;
  REACHED(alarm_cleared);
  const std::string key = alarm_record_key(over->kind, over->member);
  write({.kind = keyspace::InternalOperation::Kind::kRecordDelete, .key = key});
}

void AlarmKeeper::write(const keyspace::InternalOperation& operation) {
  keyspace::InternalCommand command;
  command.operations.push_back(operation);
  ticket_ = context_.issue(*this);
  context_.write(ticket_, command);
}

void AlarmKeeper::on_applied(node::Ticket, const keyspace::Reply&) {
  ticket_ = 0;
}

// The next look finds whether it is still wanted.
void AlarmKeeper::on_refused(node::Ticket, keyspace::ErrorId) {
  ticket_ = 0;
}

}  // namespace conclave::api
