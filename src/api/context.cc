#include "api/context.h"

#include <algorithm>

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/wire.h"

namespace conclave::api {
namespace {

// A header whose numbers all take their ten bytes.
constexpr size_t kHeaderBytesMax = 2 + 4 * 11;

}  // namespace

void Waiter::on_applied(node::Ticket, const keyspace::Reply&) {
  UNREACHABLE();
}
void Waiter::on_ready(node::Ticket) {
  UNREACHABLE();
}
void Waiter::on_kept_alive(node::Ticket, int64_t) {
  UNREACHABLE();
}
void Waiter::on_change_done(node::Ticket) {
  UNREACHABLE();
}

Context::Context(ServiceOptions options, node::Replica& replica, env::Clock& clock)
    : options_(std::move(options)),
      replica_(replica),
      clock_(clock),
      random_(options_.seed),
      role_(replica.raft().status()) {
  keyspace::append_int64_field(header_head_, 1, static_cast<int64_t>(options_.cluster.value()));
  keyspace::append_int64_field(header_head_, 2, static_cast<int64_t>(options_.self.value()));
  if (!has_leader()) leaderless_since_ = now();
}

// ---- Tickets: a slot's place and how often it was used. The place comes back, the ticket never. ----

node::Ticket Context::issue(Waiter& waiter) {
  uint32_t at = 0;
  if (free_slots_.empty()) {
    at = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    at = free_slots_.back();
    free_slots_.pop_back();
  }
  slots_[at].waiter = &waiter;
  return (uint64_t{slots_[at].generation} << 32) | at;
}

Waiter* Context::redeem(node::Ticket ticket) {
  const auto at = static_cast<uint32_t>(ticket);
  ASSERT_CMP(at, <, slots_.size());
  Slot& slot = slots_[at];
  if (slot.generation != ticket >> 32) return nullptr;
  Waiter* waiter = std::exchange(slot.waiter, nullptr);
  if (++slot.generation == 0) slot.generation = 1;
  free_slots_.push_back(at);
  return waiter;
}

void Context::forget(node::Ticket ticket) {
  if (ticket != 0) (void)redeem(ticket);
}

void Context::write(node::Ticket ticket, const keyspace::InternalCommand& command) {
  std::string body;
  keyspace::encode(command, body);
  write(ticket, {.kind = keyspace::CommandKind::kInternal}, body);
}

// ---- Responses ----

void Context::append_header(Revision revision, std::string& out) const {
  const size_t opened = out.size() + 2;
  out.append("\x0a\0", 2);  // field 1, and its length, which is below 128
  out.append(header_head_);
  keyspace::append_int64_field(out, 3, revision.value());
  keyspace::append_int64_field(out, 4, static_cast<int64_t>(role_.term.value()));
  out[opened - 1] = static_cast<char>(out.size() - opened);
}

std::string Context::response(Revision revision, ByteView body) const {
  std::string out;
  out.reserve(kHeaderBytesMax + body.size());
  append_header(revision, out);
  out.append(body);
  return out;
}

// ---- Leases ----

LeaseId Context::choose_lease() {
  while (true) {
    const LeaseId lease(static_cast<int64_t>(random_.next() >> 1));
    if (lease.is_set() && !keyspace().lease(lease)) return lease;
  }
}

int64_t Context::ttl_seconds_min() const {
  const Duration longest = 3 * replica_.raft().options().election_timeout / 2;
  return (to_milliseconds(longest) + 999) / 1000;
}

// ---- Work and time ----

void Context::start_job(Job& job) {
  if (job.among_ != nullptr) return;
  job.among_ = job.used_ >= kPromptUnits && job.may_wait() ? &leisure_jobs_ : &jobs_;
  job.place_ = job.among_->insert(job.among_->end(), &job);
}

void Context::stop_job(Job& job) {
  if (job.among_ == nullptr) return;
  std::exchange(job.among_, nullptr)->erase(job.place_);
}

uint32_t Context::run_next(std::list<Job*>& among, uint32_t units) {
  Job* const job = among.front();
  among.splice(among.end(), among, among.begin());
  uint32_t left = units;
  const bool done = job->run(left);
  const uint32_t used = std::max<uint32_t>(1, units - left);
  if (done) {
    // The call may be over, but is destroyed in a later step of the loop.
    stop_job(*job);
  } else if (job->among_ != nullptr && job->used_ < kPromptUnits) {
    job->used_ += used;
    if (job->used_ >= kPromptUnits && job->may_wait()) {
      REACHED(job_waits_for_time);
      stop_job(*job);
      start_job(*job);
    }
  }
  return used;
}

void Context::run_jobs() {
  for (size_t count = jobs_.size(); count > 0 && !jobs_.empty() && read_units_ > 0; --count) {
    read_units_ -= run_next(jobs_, std::min(read_units_, kSharedUnits));
  }
}

void Context::work_at_leisure() {
  if (!leisure_jobs_.empty()) run_next(leisure_jobs_, kLeisureUnits);
}

void Context::set_timer(Timed& timed, Instant at) {
  stop_timer(timed);
  timed.timer_ = {at, ++serial_};
  timers_.emplace(*timed.timer_, &timed);
}

void Context::stop_timer(Timed& timed) {
  if (timed.timer_) timers_.erase(*timed.timer_);
  timed.timer_.reset();
}

void Context::on_role_changed(const raft::Status& status) {
  if (status.leader.is_set() && status.leader != last_leader_) {
    last_leader_ = status.leader;
    ++metrics_.leader_changes;
  }
  role_ = status;
  if (has_leader()) {
    leaderless_since_ = kNever;
  } else if (leaderless_since_ == kNever) {
    leaderless_since_ = now();
  }
  role_listeners_.tell([](RoleListener& listener) { listener.on_role_changed(); });
}

void Context::on_state_replaced() {
  REACHED(api_state_replaced);
  alarms_.refresh(keyspace());
  state_users_.tell([](StateUser& user) { user.on_state_replaced(); });
}

void Context::turn_end(Instant now) {
  turn_requested_ = false;
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    Timed* timed = timers_.begin()->second;
    stop_timer(*timed);
    timed->on_time(now);
  }
  background_ = keyspace().run_background();
  streams_.run(keyspace().watches(), kStreamUnitsPerTurn);
  // What small reads took at once must not starve what goes on.
  read_units_ = std::max(read_units_, keyspace::kSliceUnits);
  run_jobs();
  read_units_ = kReadUnitsPerTurn;
  background_ |= keyspace().watches().has_ready();
}

Instant Context::next_deadline() const {
  return timers_.empty() ? kNever : timers_.begin()->first.first;
}

}  // namespace conclave::api
