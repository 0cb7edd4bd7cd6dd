#include "api/stream_call.h"

#include "base/mark.h"

namespace conclave::api {
namespace {

// etcd's: streams outlive an election, but not a lost quorum.
constexpr int kElectionTimeoutsWithoutLeader = 3;

}  // namespace

StreamCall::StreamCall(Context& context, net::ServerCall& wire, Method method) : Call(context, wire, method) {
  requires_leader_ = requires_leader();
  if (!requires_leader_) return;
  context.role_listeners().add(*this);
  end_unless_led();
}

void StreamCall::on_role_changed() { end_unless_led(); }

// By the timer in any case: of a call that begins, nobody has the handler yet.
void StreamCall::end_unless_led() {
  if (context().has_leader()) {
    context().stop_timer(*this);
    return;
  }
  const Duration patience = kElectionTimeoutsWithoutLeader * context().replica().raft().options().election_timeout;
  context().set_timer(*this, context().leaderless_since() + patience);
}

void StreamCall::on_time(Instant) {
  REACHED(stream_ended_without_leader);
  fail(keyspace::ErrorId::kNoLeader);
}

void ReaderPatience::on_time(Instant) {
  REACHED(history_reader_too_slow);
  runs_ = false;
  end_();
}

void StreamCall::on_closed() {
  if (!requires_leader_) return;
  context().role_listeners().remove(*this);
  context().stop_timer(*this);
}

}  // namespace conclave::api
