#include "client/live_sessions.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace conclave::client {
namespace {

using namespace std::chrono_literals;

// What a server takes on one stream (layers::SessionsOptions).
constexpr size_t kSessionsMax = 16'384;
// Of one session, under way or waiting in it: the cluster takes 64 at a time.
constexpr size_t kOperationsMax = 4096;
// Keep-alives that are due within this go with the first that is.
constexpr Duration kKeepAliveSlack = 20ms;
// The connection is looked at again so soon when it has taken too little.
constexpr Duration kCongestedPause = 10ms;

State public_state(SessionState state) {
  switch (state) {
    case SessionState::kOpening:
      return State::kOpening;
    case SessionState::kSafe:
      return State::kSafe;
    case SessionState::kJeopardy:
      return State::kJeopardy;
    case SessionState::kExpired:
      return State::kExpired;
    case SessionState::kClosed:
      return State::kClosed;
  }
  return State::kExpired;
}

OperationEnded lost_with_session() {
  return {.outcome = Outcome::kLost, .reason = "SESSION_EXPIRED", .message = "the session has ended"};
}

}  // namespace

struct LiveSessions::Live {
  Live(SessionCoreOptions core_options, const SessionOptions& options, std::shared_ptr<SessionView> shown, Instant now)
      : id(core_options.id), ttl(core_options.ttl), core(std::move(core_options), now), view(std::move(shown)) {
    on_state = options.on_state;
    on_release_wanted = options.on_release_wanted;
  }

  struct Observed {
    std::vector<std::weak_ptr<Observation::State>> by;
    bool candidates = false;     // are asked for
    std::optional<Leader> last;  // for who comes later
  };

  const int64_t id;      // that it was made with
  int64_t known_as = 0;  // to servers
  const Duration ttl;
  SessionCore core;
  const std::shared_ptr<SessionView> view;
  std::function<void(client::State, const std::string&)> on_state;
  std::function<void(const std::string&, int64_t, const std::string&)> on_release_wanted;

  Instant due = kNever;
  std::map<OperationId, Ended> pending;
  std::map<std::string, std::weak_ptr<HeldState>> held;
  std::map<std::string, Observed> observed;
  Opened opened;
  bool is_open = false;  // was safe once
  std::move_only_function<void(bool)> closed;
  net::TimerId timer = 0;  // of open and close
  bool settling = false;
  bool backlogged = false;
};

void Observation::State::tell(const Leader& leader) {
  const std::lock_guard lock(mutex_);
  if (!live_) return;
  if (options_.candidates || leader.waiting == 0) return seen_(leader);
  // Another observer of the session asked for them.
  Leader without = leader;
  without.candidates.clear();
  without.waiting = 0;
  seen_(without);
}

void Observation::State::end() {
  const std::lock_guard lock(mutex_);
  live_ = false;
}

bool Observation::State::is_live() {
  const std::lock_guard lock(mutex_);
  return live_;
}

LiveSessions::LiveSessions(net::Loop& loop, std::vector<net::Endpoint> endpoints, uint64_t seed)
    : loop_(loop), link_(loop, std::move(endpoints), seed, *this) {}

LiveSessions::~LiveSessions() = default;

LiveSessions::Live* LiveSessions::find(int64_t session) {
  const auto found = live_.find(session);
  return found == live_.end() ? nullptr : found->second.get();
}

LiveSessions::Live* LiveSessions::find_known_as(int64_t id) {
  const auto found = made_as_.find(id);
  return found == made_as_.end() ? nullptr : find(found->second);
}

// ---- Opening and closing ----

void LiveSessions::open(SessionCoreOptions core, const SessionOptions& options, std::shared_ptr<SessionView> view,
                        Duration timeout, Opened opened) {
  // Whoever was told in this turn that one is closed may have another in its place.
  if (live_.size() >= kSessionsMax) erase_over();
  if (live_.size() >= kSessionsMax) {
    return opened(
        std::unexpected(Error{ErrorKind::kNotApplied, "TOO_MANY_SESSIONS",
                              fmt::format("this client has {} sessions, the most there may be", kSessionsMax)}));
  }
  const Instant now = loop_.now();
  const int64_t id = core.id;
  auto made = std::make_unique<Live>(std::move(core), options, std::move(view), now);
  Live& live = *made;
  live.opened = std::move(opened);
  live.timer = loop_.call_at(now + timeout, [this, id] {
    Live* const late = find(id);
    if (late == nullptr || !late->opened) return;
    late->timer = 0;
    const std::string& failure = link_.last_failure();
    std::exchange(late->opened, nullptr)(std::unexpected(
        Error{ErrorKind::kNotApplied, "NO_SERVER",
              fmt::format("no server opened the session in time{}{}", failure.empty() ? "" : ": ", failure)}));
    keep_closing(*late);
    late->core.close(loop_.now());
    settle(*late);
  });
  live_.emplace(id, std::move(made));
  ttls_.insert(live.ttl);
  set_patience();
  link_.set_wanted(true);
  if (link_.is_connected()) live.core.on_connected(now);
  settle(live);
}

void LiveSessions::close(int64_t session, Duration timeout, std::move_only_function<void(bool)> closed) {
  Live* const live = find(session);
  if (live == nullptr || live->closed) return closed(false);
  live->closed = std::move(closed);
  loop_.cancel(live->timer);
  live->timer = loop_.call_at(loop_.now() + timeout, [this, session] {
    if (Live* const late = find(session)) {
      late->timer = 0;
      finish_closing(*late, false);
    }
  });
  live->core.close(loop_.now());
  settle(*live);
}

void LiveSessions::finish_closing(Live& live, bool confirmed) {
  live.view->close_confirmed = confirmed;
  loop_.cancel(std::exchange(live.timer, 0));
  std::exchange(live.closed, nullptr)(confirmed);
  if (confirmed) return remove(live.id);
  // What it held is free the earlier the sooner a server hears of it; after its TTL it has ended by itself.
  keep_closing(live);
}

void LiveSessions::keep_closing(Live& live) {
  live.closed = [](bool) {};
  live.timer = loop_.call_at(loop_.now() + live.ttl, [this, id = live.id] {
    if (Live* const late = find(id)) late->timer = 0;
    remove(id);
  });
}

// At the turn's end: whoever called may still use it.
void LiveSessions::remove(int64_t session) {
  over_.push_back(session);
}

void LiveSessions::erase_over() {
  for (const int64_t session : std::exchange(over_, {})) {
    const auto found = live_.find(session);
    if (found == live_.end()) continue;
    Live& live = *found->second;
    loop_.cancel(live.timer);
    if (live.closed) live.closed(false);
    due_.erase({live.due, session});
    ttls_.erase(ttls_.find(live.ttl));
    made_as_.erase(live.known_as);
    for (auto& [operation, ended] : std::exchange(live.pending, {})) ended(lost_with_session());
    live_.erase(found);
  }
}

void LiveSessions::set_patience() {
  if (!ttls_.empty()) link_.set_patience(*ttls_.begin() / 3);
}

// ---- Operations ----

template <class Ask>
OperationId LiveSessions::operate(int64_t session, Ended ended, Ask ask) {
  Live* const live = find(session);
  if (live == nullptr) {
    ended(lost_with_session());
    return 0;
  }
  if (live->pending.size() >= kOperationsMax) {
    ended({.outcome = Outcome::kNotApplied,
           .reason = "OVERLOADED",
           .message = fmt::format("the session has {} operations under way, the most there may be", kOperationsMax)});
    return 0;
  }
  const OperationId operation = ask(live->core, loop_.now());
  live->pending.emplace(operation, std::move(ended));
  settle(*live);
  return operation;
}

OperationId LiveSessions::acquire(int64_t session, AcquireOptions options, Ended ended) {
  return operate(session, std::move(ended),
                 [&](SessionCore& core, Instant now) { return core.acquire(now, std::move(options)); });
}

OperationId LiveSessions::campaign(int64_t session, std::string name, std::string value, int32_t priority,
                                   Ended ended) {
  return operate(session, std::move(ended), [&](SessionCore& core, Instant now) {
    return core.campaign(now, std::move(name), std::move(value), priority);
  });
}

void LiveSessions::cancel(int64_t session, OperationId operation) {
  Live* const live = find(session);
  if (live == nullptr || !live->pending.contains(operation)) return;
  live->core.cancel(loop_.now(), operation);
  settle(*live);
}

void LiveSessions::release(int64_t session, HeldState::Kind kind, const HeldClaim& claim, Ended ended) {
  if (Live* const live = find(session)) live->held.erase(claim.name);
  operate(session, std::move(ended), [&](SessionCore& core, Instant now) {
    return kind == HeldState::Kind::kLock ? core.release(now, claim.name, claim.token)
                                          : core.resign(now, claim.name, claim.token);
  });
}

void LiveSessions::proclaim(int64_t session, const HeldClaim& claim, std::string value, Ended ended) {
  operate(session, std::move(ended), [&](SessionCore& core, Instant now) {
    return core.proclaim(now, claim.name, claim.token, std::move(value));
  });
}

void LiveSessions::transfer(int64_t session, const HeldClaim& claim, int64_t to, Ended ended) {
  operate(session, std::move(ended),
          [&](SessionCore& core, Instant now) { return core.transfer(now, claim.name, claim.token, to); });
}

void LiveSessions::observe(int64_t session, std::weak_ptr<Observation::State> observation) {
  Live* const live = find(session);
  const std::shared_ptr<Observation::State> by = observation.lock();
  if (live == nullptr || !by) return;
  Live::Observed& observed = live->observed[by->name()];
  const bool asks = observed.by.empty() || (by->wants_candidates() && !observed.candidates);
  observed.by.push_back(std::move(observation));
  if (asks) {
    observed.candidates = observed.candidates || by->wants_candidates();
    // What comes of the asking is told only where it is new; candidates follow.
    if (observed.last) by->tell(*observed.last);
    live->core.observe(loop_.now(), by->name(), observed.candidates);
    settle(*live);
  } else if (observed.last) {
    by->tell(*observed.last);
  }
}

void LiveSessions::stop_observing(int64_t session, const std::string& name) {
  Live* const live = find(session);
  if (live == nullptr) return;
  const auto found = live->observed.find(name);
  if (found == live->observed.end()) return;
  std::erase_if(found->second.by, [](const std::weak_ptr<Observation::State>& each) {
    const auto by = each.lock();
    return !by || !by->is_live();
  });
  if (!found->second.by.empty()) return;
  live->observed.erase(found);
  live->core.stop_observing(loop_.now(), name);
  settle(*live);
}

bool LiveSessions::hold(const std::shared_ptr<HeldState>& held) {
  Live* const live = find(held->session());
  if (live == nullptr) return false;
  for (const HeldClaim& claim : held->claims()) {
    if (!live->core.holds(claim.name, claim.token)) return false;
  }
  for (const HeldClaim& claim : held->claims()) live->held[claim.name] = held;
  return true;
}

bool LiveSessions::holds(int64_t session, const HeldClaim& claim) {
  const Live* const live = find(session);
  return live != nullptr && live->core.holds(claim.name, claim.token);
}

std::shared_ptr<HeldState> LiveSessions::held(int64_t session, const std::string& name) {
  Live* const live = find(session);
  if (live == nullptr) return nullptr;
  const auto found = live->held.find(name);
  return found == live->held.end() ? nullptr : found->second.lock();
}

// ---- What cores ask and tell ----

void LiveSessions::settle(Live& live) {
  // Whoever is told something may use the core again: what comes of that is handed on in order, after the rest.
  if (std::exchange(live.settling, true)) return;
  if (live.known_as != live.core.id()) {
    made_as_.erase(live.known_as);
    live.known_as = live.core.id();
    made_as_.emplace(live.known_as, live.id);
    live.view->id = live.known_as;
  }
  send_requests(live);
  for (auto events = live.core.take_events(); !events.empty(); events = live.core.take_events()) {
    hand_on(live, std::move(events));
    send_requests(live);
  }
  live.settling = false;
  publish(live);
  if (live.closed && !live.core.wants_stream()) finish_closing(live, true);
  due_.erase({live.due, live.id});
  live.due = std::min(live.core.next_deadline(), link_.is_connected() ? live.core.keep_alive_at() : kNever);
  due_.insert({live.due, live.id});
}

void LiveSessions::send_requests(Live& live) {
  if (!link_.is_connected()) return;
  if (link_.is_congested()) {
    if (!std::exchange(live.backlogged, true)) backlog_.push_back(live.id);
    return;
  }
  for (const v1::SessionRequest& request : live.core.take_requests()) link_.send(request);
}

void LiveSessions::publish(Live& live) {
  const State state = public_state(live.core.state());
  const int64_t until = to_nanoseconds(live.core.safe_until());
  SessionView& view = *live.view;
  if (view.state.load(std::memory_order_relaxed) == state && view.safe_until.load(std::memory_order_relaxed) == until) {
    return;
  }
  const std::lock_guard lock(view.mutex);
  view.safe_until.store(until, std::memory_order_release);
  view.state.store(state, std::memory_order_release);
  view.changed.notify_all();
}

void LiveSessions::hand_on(Live& live, std::vector<SessionEvent> events) {
  // Losses first: a session that is safe again may have lost some of what it held (session_view.h).
  for (const SessionEvent& event : events) {
    if (const auto* const lost = std::get_if<ClaimLost>(&event)) on_lost(live, *lost);
  }
  for (SessionEvent& event : events) {
    if (const auto* const changed = std::get_if<StateChanged>(&event)) {
      on_state(live, *changed);
    } else if (auto* const ended = std::get_if<OperationEnded>(&event)) {
      const auto found = live.pending.find(ended->operation);
      if (found == live.pending.end()) continue;
      Ended call = std::move(found->second);
      live.pending.erase(found);
      call(std::move(*ended));
    } else if (const auto* const wanted = std::get_if<ReleaseWanted>(&event)) {
      if (live.on_release_wanted) live.on_release_wanted(wanted->name, wanted->token, wanted->note);
    } else if (const auto* const seen = std::get_if<LeaderSeen>(&event)) {
      on_leader(live, *seen);
    }
  }
}

void LiveSessions::on_lost(Live& live, const ClaimLost& lost) {
  const auto found = live.held.find(lost.name);
  if (found == live.held.end()) return;
  const std::shared_ptr<HeldState> held = found->second.lock();
  const bool is_this = held && std::ranges::any_of(held->claims(), [&](const HeldClaim& claim) {
                         return claim.name == lost.name && claim.token == lost.token;
                       });
  if (!is_this) return;
  live.held.erase(found);
  const bool forced = lost.reason == v1::Lost::FORCED;
  held->lose(HeldState::Over::kLost, forced ? "FORCED" : "DELETED",
             fmt::format("the claim on {} was {}{}{}", lost.name, forced ? "ended by decision" : "deleted",
                         lost.note.empty() ? "" : ": ", lost.note));
}

void LiveSessions::on_leader(Live& live, const LeaderSeen& seen) {
  const auto found = live.observed.find(seen.name);
  if (found == live.observed.end()) return;
  Leader leader{.name = seen.name,
                .token = seen.token,
                .value = seen.value,
                .lease = seen.lease,
                .revision = seen.revision,
                .skipped = seen.skipped};
  if (seen.candidates) {
    leader.waiting = seen.candidates->waiting();
    for (const v1::Candidate& candidate : seen.candidates->best()) {
      leader.candidates.push_back(
          {.session = candidate.session(), .description = candidate.description(), .priority = candidate.priority()});
    }
  } else if (found->second.last) {
    leader.waiting = found->second.last->waiting;
    leader.candidates = found->second.last->candidates;
  }
  found->second.last = leader;
  found->second.last->skipped = false;  // for who begins with it
  for (const auto& each : found->second.by) {
    const auto observer = each.lock();
    if (observer && (seen.is_new || observer->wants_candidates())) observer->tell(leader);
  }
}

void LiveSessions::on_state(Live& live, const StateChanged& changed) {
  {
    const std::lock_guard lock(live.view->mutex);
    live.view->reason = changed.reason;
  }
  switch (changed.state) {
    case SessionState::kOpening:
      break;
    case SessionState::kSafe:
      if (!std::exchange(live.is_open, true)) {
        loop_.cancel(std::exchange(live.timer, 0));
        publish(live);
        if (live.opened) std::exchange(live.opened, nullptr)({});
      }
      break;
    case SessionState::kJeopardy:
      for (const auto& [name, each] : live.held) {
        if (const auto held = each.lock()) held->on_jeopardy();
      }
      break;
    case SessionState::kExpired:
      end_all(live, HeldState::Over::kLost, "SESSION_EXPIRED",
              fmt::format("the session has ended{}{}", changed.reason.empty() ? "" : ": ", changed.reason));
      if (live.opened) {
        loop_.cancel(std::exchange(live.timer, 0));
        std::exchange(live.opened, nullptr)(std::unexpected(Error{
            ErrorKind::kRejected, changed.reason, fmt::format("the session was not opened: {}", changed.reason)}));
      }
      // What waits for its end is told by the core; then there is nothing more to speak of.
      remove(live.id);
      break;
    case SessionState::kClosed:
      end_all(live, HeldState::Over::kClosed, "SESSION_CLOSED", "the session was closed by its owner");
      break;
  }
  // A reader of the state that is told sees it.
  publish(live);
  if (live.on_state) live.on_state(public_state(changed.state), changed.reason);
}

void LiveSessions::end_all(Live& live, HeldState::Over how, const std::string& reason, const std::string& message) {
  const auto all = std::exchange(live.held, {});
  for (const auto& [name, each] : all) {
    if (const auto held = each.lock()) held->lose(how, reason, message);
  }
}

void LiveSessions::shut() {
  for (auto& [id, live] : live_) {
    {
      const std::lock_guard lock(live->view->mutex);
      live->view->reason = "the client has ended";
      live->view->state.store(State::kExpired, std::memory_order_release);
      live->view->changed.notify_all();
    }
    end_all(*live, HeldState::Over::kLost, "CLIENT_CLOSED", "the client has ended");
    if (live->opened) live->opened(std::unexpected(client_closed()));
    if (live->closed) live->closed(false);
    for (auto& [operation, ended] : std::exchange(live->pending, {})) {
      ended({.operation = operation,
             .outcome = Outcome::kUnknown,
             .reason = client_closed().reason,
             .message = client_closed().message});
    }
  }
  live_.clear();
  made_as_.clear();
  due_.clear();
  ttls_.clear();
  link_.set_wanted(false);
  link_.tick(loop_.now());
}

// ---- The link ----

void LiveSessions::on_connected(Instant now) {
  for (auto& [id, live] : live_) {
    live->core.on_connected(now);
    settle(*live);
  }
}

void LiveSessions::on_disconnected(Instant now) {
  for (auto& [id, live] : live_) {
    live->core.on_disconnected(now);
    settle(*live);
  }
}

void LiveSessions::on_response(Instant now, const v1::SessionResponse& response) {
  Live* const live = find_known_as(response.session());
  if (live == nullptr) return;
  live->core.on_response(now, response);
  settle(*live);
}

void LiveSessions::on_kept(Instant now, int64_t session, Instant sent, SessionCore::Kept kept) {
  Live* const live = find_known_as(session);
  if (live == nullptr) return;
  live->core.on_kept(now, sent, kept);
  settle(*live);
}

void LiveSessions::send_keep_alives(Instant now) {
  std::vector<int64_t> sessions;
  const bool probe = now >= link_.probe_at();
  for (auto at = due_.begin(); at != due_.end() && (at->first <= now + kKeepAliveSlack || (probe && sessions.empty()));
       ++at) {
    const Instant keep_alive_at = live_.at(at->second)->core.keep_alive_at();
    if (keep_alive_at <= now + kKeepAliveSlack || (probe && sessions.empty() && keep_alive_at != kNever)) {
      sessions.push_back(at->second);
    }
  }
  if (sessions.empty()) {
    if (probe) link_.put_off_probe(now);
    return;
  }
  std::vector<int64_t> known_as;
  known_as.reserve(sessions.size());
  for (const int64_t session : sessions) {
    Live& live = *live_.at(session);
    known_as.push_back(live.known_as);
    live.core.on_keep_alive_sent(now);
    settle(live);
  }
  link_.keep_alive(now, std::move(known_as));
}

void LiveSessions::tick(Instant now) {
  link_.tick(now);
  std::vector<int64_t> due;
  for (auto at = due_.begin(); at != due_.end() && at->first <= now; ++at) due.push_back(at->second);
  for (const int64_t session : due) {
    Live& live = *live_.at(session);
    live.core.tick(now);
    settle(live);
  }
  if (!link_.is_congested()) {
    for (const int64_t session : std::exchange(backlog_, {})) {
      Live* const live = find(session);
      if (live == nullptr) continue;
      live->backlogged = false;
      settle(*live);
    }
    if (link_.is_connected()) send_keep_alives(now);
  }
  erase_over();
  set_patience();
  link_.set_wanted(!live_.empty());
  link_.tick(now);
}

Instant LiveSessions::next_deadline() const {
  if (!over_.empty()) return Instant{};
  Instant link = std::min(link_.next_deadline(), link_.probe_at());
  if (!backlog_.empty()) link = std::min(link, loop_.now() + kCongestedPause);
  if (due_.empty()) return link;
  const Instant due = due_.begin()->first;
  return std::min(link, link_.is_congested() ? std::max(due, loop_.now() + kCongestedPause) : due);
}

}  // namespace conclave::client
