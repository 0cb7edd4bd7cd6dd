#include "client/session_core.h"

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/assert.h"
#include "base/mark.h"
#include "base/types.h"

namespace conclave::client {
namespace {

using std::chrono::milliseconds;

// Sequences the servers remember: none is sent while the one this far before is unanswered.
constexpr uint64_t kWindow = 64;
// After an answer that asks for another try.
constexpr Duration kAgain = milliseconds(200);
// How long a caller waits for the answer to a cancel before it is told that the outcome is unknown.
constexpr Duration kCancelPatience = milliseconds(2000);

// Of the n-th asking; as good as random, if the first is.
int64_t id_of(int64_t first, uint64_t asking) {
  const uint64_t mixed = mix64(static_cast<uint64_t>(first) + asking * 0x9e3779b97f4a7c15ULL);
  return static_cast<int64_t>(mixed >> 1 | 1);
}

}  // namespace

std::string_view to_string(SessionState state) {
  static constexpr std::string_view kNames[] = {"opening", "safe", "jeopardy", "expired", "closed"};
  return kNames[static_cast<size_t>(state)];
}

std::string_view to_string(Outcome outcome) {
  static constexpr std::string_view kNames[] = {"done", "rejected", "not applied", "outcome unknown",
                                                "lost", "cancelled"};
  return kNames[static_cast<size_t>(outcome)];
}

bool asks_to_move(const v1::SessionResponse& response) {
  return response.has_ended() && response.ended().reason() == v1::SessionEnded::MOVED;
}

class SessionCore::Impl {
 public:
  Impl(SessionCoreOptions options, Instant) : options_(std::move(options)) {
    ASSERT(options_.id > 0);
    id_ = options_.id;
    ASSERT(options_.ttl > Duration());
  }

  // ---- Streams ----
  void on_connected(Instant now);
  void on_disconnected();
  void on_response(Instant now, const v1::SessionResponse& response);
  [[nodiscard]] Instant keep_alive_at() const;
  void on_keep_alive_sent(Instant now) { keep_alive_at_ = now + options_.ttl / 3; }
  void on_kept(Instant now, Instant sent, Kept kept);

  // ---- Operations ----
  OperationId acquire(Instant now, AcquireOptions options);
  OperationId campaign(Instant now, std::string name, std::string value, int32_t priority);
  void cancel(Instant now, OperationId id);
  OperationId give_up(Instant now, const std::string& name, int64_t token, v1::SessionRequest request);
  OperationId transfer(Instant now, const std::string& name, int64_t token, int64_t to);
  OperationId proclaim(Instant now, const std::string& name, int64_t token, std::string value);
  void observe(const std::string& name, bool candidates);
  void stop_observing(const std::string& name);
  void close(Instant now);

  [[nodiscard]] bool holds(const std::string& name, int64_t token) const {
    const auto held = held_.find(name);
    return held != held_.end() && held->second == token && !is_final();
  }
  [[nodiscard]] bool is_final() const { return state_ == SessionState::kExpired || state_ == SessionState::kClosed; }
  [[nodiscard]] bool wants_stream() const { return !is_final() || closing_; }

  void tick(Instant now);
  [[nodiscard]] Instant next_deadline() const;

  const SessionCoreOptions options_;
  int64_t id_ = 0;
  SessionState state_ = SessionState::kOpening;
  Instant safe_until_ = Instant::min();
  v1::Place place_;
  std::vector<v1::SessionRequest> requests_;
  std::vector<SessionEvent> events_;

 private:
  enum class Stage : uint8_t {
    kBlocked,  // another operation here has one of its names
    kToSend,   // has its turn with the next chance
    kAsked,    // sent on this stream
    kInLine,   // stands in line for some of its names
  };
  struct Operation {
    v1::SessionRequest request;
    Stage stage = Stage::kToSend;
    bool in_doubt = false;  // sent once, and not answered by what is proof
    std::vector<std::string> names;
    std::map<std::string, int64_t> granted;
    bool claims = false;  // acquire or campaign
    Instant deadline = kNever;
    Instant again_at = Instant::min();
    // Being taken back: by which operation, what its caller is told then, and at the latest when.
    OperationId cancel = 0;
    Outcome cancelled_as = Outcome::kCancelled;
    std::string cancelled_reason;
    Instant patience = kNever;
    // Of a cancel: whom.
    OperationId target = 0;
    bool silent = false;  // nobody is told its end
    // Of a transfer: what it gives up, and has again if it is refused; unless that was lost meanwhile.
    int64_t given_up = 0;
    std::optional<ClaimLost> lost;
  };

  OperationId add(Instant now, Operation operation);
  [[nodiscard]] bool is_free(const Operation& operation, OperationId self) const;
  void free_names(Instant now, const std::vector<std::string>& names, OperationId of);
  void unblock(Instant now);
  void attach(Instant now);
  void flush(Instant now);
  void send(Operation& operation);
  void trust(Instant now, Instant sent);
  void set_state(SessionState state, std::string reason);
  // `is_applied`: a server whose state is without the session says so.
  void expire(std::string reason, bool is_applied = true);
  void end(Instant now, OperationId id, Outcome outcome, std::string reason = {}, std::string message = {},
           bool was_held = false);
  void tell_end(Operation& operation, OperationEnded ended);
  void begin_cancel(Instant now, OperationId id, Outcome outcome, std::string reason);
  void release_quietly(Instant now, const std::string& name, int64_t token);

  void on_opened(Instant now);
  void on_attached(Instant now, const v1::SessionAttached& attached);
  void on_ended(const v1::SessionEnded& ended);
  void on_error(Instant now, uint64_t sequence, const v1::Error& error);
  void on_claimed(Instant now, uint64_t sequence, const v1::Claimed& claimed);
  void on_granted(Instant now, const std::string& name, int64_t token);
  void on_lost(Instant now, const v1::Lost& lost);
  void on_cancelled(Instant now, uint64_t sequence);
  void on_done(Instant now, uint64_t sequence, bool was_held);
  void check_granted(Instant now, OperationId id);
  void lose_operation(Instant now, OperationId id);
  [[nodiscard]] OperationId asked_as(uint64_t sequence) const {
    const auto found = by_sequence_.find(sequence);
    return found == by_sequence_.end() ? 0 : found->second;
  }

  bool connected_ = false;
  bool opened_ = false;
  bool asked_ = false;  // to be opened or attached, on this stream
  bool attached_ = false;
  bool closing_ = false;
  uint64_t askings_ = 0;  // to be opened
  Instant asked_at_{};    // the newest of them
  Instant ask_again_at_ = kNever;
  uint64_t incarnation_ = 1;
  Instant keep_alive_at_ = Instant::min();

  std::map<OperationId, Operation> operations_;
  OperationId last_operation_ = 0;
  uint64_t last_sequence_ = 0;
  std::map<uint64_t, OperationId> by_sequence_;
  std::set<uint64_t> unanswered_;            // sequences sent first, and not answered
  std::map<std::string, int64_t> held_;      // by name: granted, not given up
  std::map<std::string, OperationId> busy_;  // names that an operation has: until it is over, and what it got given up
  std::deque<OperationId> blocked_;
  struct Seen {
    int64_t token = 0;
    int64_t revision = 0;
    bool waits = false;  // for the answer to the newest asking
    bool candidates = false;
  };
  std::map<std::string, Seen> observed_;
};

// ---- Streams ----

void SessionCore::Impl::on_connected(Instant now) {
  connected_ = true;
  asked_ = false;
  attached_ = false;
  ask_again_at_ = kNever;
  if (wants_stream()) attach(now);
}

void SessionCore::Impl::on_disconnected() {
  connected_ = false;
  attached_ = false;
  requests_.clear();
  for (auto& [id, operation] : operations_) {
    if (operation.stage != Stage::kAsked) continue;
    operation.stage = Stage::kToSend;
    operation.again_at = Instant::min();
  }
}

void SessionCore::Impl::attach(Instant now) {
  asked_ = true;
  v1::SessionRequest request;
  request.set_session(id_);
  if (!opened_) {
    if (askings_++ > 0) id_ = id_of(options_.id, askings_);
    asked_at_ = now;
    request.set_session(id_);
    v1::OpenSession& open = *request.mutable_open();
    open.set_session(id_);
    open.set_secret(options_.secret);
    open.set_ttl_ms(to_milliseconds(options_.ttl));
    open.set_description(options_.description);
  } else {
    v1::AttachSession& attach = *request.mutable_attach();
    attach.set_secret(options_.secret);
    attach.set_incarnation(++incarnation_);
    *attach.mutable_place() = place_;
  }
  requests_.push_back(std::move(request));
}

Instant SessionCore::Impl::keep_alive_at() const {
  return attached_ && !is_final() ? keep_alive_at_ : kNever;
}

void SessionCore::Impl::on_kept(Instant now, Instant sent, Kept kept) {
  if (is_final()) return;
  switch (kept) {
    case Kept::kRenewed:
      trust(now, sent);
      return;
    case Kept::kGone:
      // Its end is proposed at least; what it has stands until that is applied.
      expire("SESSION_EXPIRED", false);
      return;
    case Kept::kFailed:
      keep_alive_at_ = std::min(keep_alive_at_, now + std::min<Duration>(kAgain, options_.ttl / 10));
      return;
  }
}

// A keep-alive that was answered holds from when it was sent, however late the answer came.
void SessionCore::Impl::trust(Instant now, Instant sent) {
  safe_until_ = std::max(safe_until_, sent + options_.ttl);
  if (now < safe_until_ && state_ != SessionState::kSafe) set_state(SessionState::kSafe, {});
}

void SessionCore::Impl::set_state(SessionState state, std::string reason) {
  if (state_ == state) return;
  state_ = state;
  events_.emplace_back(StateChanged{.state = state, .reason = std::move(reason)});
}

void SessionCore::Impl::on_response(Instant now, const v1::SessionResponse& response) {
  if (!connected_ || response.session() != id_) return;
  if (response.place().index() > place_.index()) place_.set_index(response.place().index());
  if (response.place().revision() > place_.revision()) place_.set_revision(response.place().revision());
  if (closing_) {
    if (response.what_case() == v1::SessionResponse::kClosed ||
        (response.what_case() == v1::SessionResponse::kEnded && !asks_to_move(response)) ||
        response.error().reason() == "SESSION_EXPIRED" || response.error().reason() == "WRONG_SECRET" ||
        response.error().reason() == "TAKEN_OVER" || response.error().reason() == "PLACE_UNKNOWN") {
      closing_ = false;
    } else if (response.what_case() == v1::SessionResponse::kOpened ||
               response.what_case() == v1::SessionResponse::kAttached) {
      opened_ = true;
      attached_ = true;
      v1::SessionRequest request;
      request.set_session(id_);
      request.mutable_close();
      requests_.push_back(std::move(request));
    } else if (response.has_error() && response.sequence() == 0) {
      ask_again_at_ = now + kAgain;
    }
    return;
  }
  if (is_final()) return;
  if (response.has_error()) {
    on_error(now, response.sequence(), response.error());
    return;
  }
  using What = v1::SessionResponse::WhatCase;
  switch (response.what_case()) {
    case What::kOpened:
      on_opened(now);
      return;
    case What::kAttached:
      on_attached(now, response.attached());
      return;
    case What::kClosed:
      expire("CLOSED");
      return;
    case What::kEnded:
      on_ended(response.ended());
      return;
    case What::kClaimed:
      on_claimed(now, response.sequence(), response.claimed());
      return;
    case What::kCancelled:
      on_cancelled(now, response.sequence());
      return;
    case What::kReleased:
      on_done(now, response.sequence(), response.released().held());
      return;
    case What::kProclaimed:
      on_done(now, response.sequence(), true);
      return;
    case What::kGranted:
      on_granted(now, response.granted().name(), response.granted().token());
      return;
    case What::kLost:
      on_lost(now, response.lost());
      return;
    case What::kReleaseRequested: {
      const v1::ReleaseRequested& wanted = response.release_requested();
      if (!holds(wanted.name(), wanted.token())) return;
      events_.emplace_back(ReleaseWanted{.name = wanted.name(), .token = wanted.token(), .note = wanted.note()});
      return;
    }
    case What::kLeadership: {
      const v1::Leadership& leads = response.leadership();
      const auto observed = observed_.find(leads.name());
      if (observed == observed_.end()) return;
      Seen& seen = observed->second;
      // Of an observation that was given up before this one began.
      if (seen.waits && !leads.first()) {
        REACHED(client_leadership_of_before);
        return;
      }
      seen.waits = false;
      // As it was before a break.
      const bool same = !leads.skipped() && seen.revision != 0 && seen.token == leads.token() &&
                        (leads.token() == 0 || seen.revision == leads.mod_revision());
      if (same && !leads.has_candidates()) return;
      seen.token = leads.token();
      seen.revision = leads.mod_revision();
      events_.emplace_back(LeaderSeen{.name = leads.name(),
                                      .token = leads.token(),
                                      .value = leads.value(),
                                      .lease = leads.lease(),
                                      .revision = leads.mod_revision(),
                                      .skipped = leads.skipped(),
                                      .is_new = !same});
      if (leads.has_candidates()) std::get<LeaderSeen>(events_.back()).candidates = leads.candidates();
      return;
    }
    default:
      return;  // of a newer server, or none of this session's
  }
}

void SessionCore::Impl::on_opened(Instant now) {
  opened_ = true;
  attached_ = true;
  keep_alive_at_ = asked_at_ + options_.ttl / 3;
  trust(now, asked_at_);
  // Its time was over before the answer came: whether it stands, a keep-alive will tell.
  if (state_ == SessionState::kOpening) set_state(SessionState::kJeopardy, "the answer to its opening came too late");
  for (const auto& [name, seen] : observed_) observe(name, seen.candidates);
  flush(now);
}

// What is listed is so, by proof, at a place that includes all this client was told.
void SessionCore::Impl::on_attached(Instant now, const v1::SessionAttached& attached) {
  opened_ = true;
  attached_ = true;
  keep_alive_at_ = now;
  std::map<std::string, const v1::Claim*> listed;
  for (const v1::Claim& claim : attached.claims()) listed[claim.name()] = &claim;
  std::vector<HeldClaim> lost;
  for (const auto& [name, token] : held_) {
    const auto claim = listed.find(name);
    if (claim == listed.end() || claim->second->token() != token) lost.push_back({.name = name, .token = token});
  }
  for (const HeldClaim& claim : lost) {
    REACHED(client_claim_lost_while_away);
    held_.erase(claim.name);
    events_.emplace_back(ClaimLost{.name = claim.name, .token = claim.token});
    free_names(now, {claim.name}, 0);
  }
  for (auto& [id, operation] : operations_) {
    if (operation.given_up == 0) continue;
    const auto claim = listed.find(operation.names[0]);
    if (claim != listed.end() && claim->second->token() == operation.given_up) continue;
    // The server that attached it may have said why, before this.
    if (!operation.lost) operation.lost = ClaimLost{.name = operation.names[0], .token = operation.given_up};
  }
  std::vector<OperationId> in_line;
  for (const auto& [id, operation] : operations_) {
    if (operation.stage == Stage::kInLine) in_line.push_back(id);
  }
  for (const OperationId id : in_line) {
    Operation& operation = operations_.at(id);
    bool stands = true;
    for (const std::string& name : operation.names) {
      const auto claim = listed.find(name);
      if (claim == listed.end()) {
        stands = false;
      } else if (claim->second->granted()) {
        operation.granted[name] = claim->second->token();
      }
    }
    if (operation.cancel != 0) continue;
    if (stands) {
      check_granted(now, id);
    } else {
      REACHED(client_wait_lost_while_away);
      lose_operation(now, id);
    }
  }
  // What nobody here knows of: left of something that was given up as unknown.
  for (const auto& [name, claim] : listed) {
    if (claim->token() != 0 && !busy_.contains(name)) {
      REACHED(client_orphan_released);
      release_quietly(now, name, claim->token());
    }
  }
  for (const auto& [name, seen] : observed_) observe(name, seen.candidates);
  flush(now);
}

void SessionCore::Impl::on_ended(const v1::SessionEnded& ended) {
  switch (ended.reason()) {
    case v1::SessionEnded::MOVED:
      REACHED(client_session_moved);
      // Until on_disconnected(), which follows, nothing is asked.
      attached_ = false;
      return;
    case v1::SessionEnded::TAKEN_OVER:
      expire("TAKEN_OVER");
      return;
    default:
      expire("SESSION_EXPIRED");
  }
}

// ---- Operations ----

bool SessionCore::Impl::is_free(const Operation& operation, OperationId self) const {
  if (!operation.claims) return true;
  for (const std::string& name : operation.names) {
    const auto busy = busy_.find(name);
    if (busy != busy_.end() && busy->second != self) return false;
  }
  // Who came first is first.
  for (const OperationId id : blocked_) {
    if (id == self) return true;
    for (const std::string& name : operations_.at(id).names) {
      if (std::find(operation.names.begin(), operation.names.end(), name) != operation.names.end()) return false;
    }
  }
  return true;
}

OperationId SessionCore::Impl::add(Instant now, Operation operation) {
  const OperationId id = ++last_operation_;
  Operation& added = operations_.emplace(id, std::move(operation)).first->second;
  if (is_final()) {
    end(now, id, Outcome::kLost, "SESSION_EXPIRED", "the session has ended");
    return id;
  }
  if (added.claims && !is_free(added, id)) {
    if (added.request.acquire().try_()) {
      end(now, id, Outcome::kRejected, "WOULD_BLOCK", "the session itself has the lock");
      return id;
    }
    added.stage = Stage::kBlocked;
    blocked_.push_back(id);
    return id;
  }
  if (added.claims) {
    for (const std::string& name : added.names) busy_[name] = id;
  }
  flush(now);
  return id;
}

OperationId SessionCore::Impl::acquire(Instant now, AcquireOptions options) {
  Operation operation;
  v1::Acquire& acquire = *operation.request.mutable_acquire();
  for (const std::string& name : options.names) acquire.add_names(name);
  if (options.try_once) acquire.set_try_(true);
  acquire.set_lock_delay_ms(
      static_cast<uint32_t>(std::clamp<int64_t>(to_milliseconds(options.lock_delay), 0, UINT32_MAX)));
  acquire.set_note(options.note);
  acquire.set_while_holding(options.while_holding);
  operation.names = std::move(options.names);
  operation.claims = true;
  if (options.timeout > Duration()) operation.deadline = now + options.timeout;
  return add(now, std::move(operation));
}

OperationId SessionCore::Impl::campaign(Instant now, std::string name, std::string value, int32_t priority) {
  Operation operation;
  v1::Campaign& campaign = *operation.request.mutable_campaign();
  campaign.set_name(name);
  campaign.set_value(std::move(value));
  campaign.set_priority(priority);
  operation.names = {std::move(name)};
  operation.claims = true;
  return add(now, std::move(operation));
}

void SessionCore::Impl::cancel(Instant now, OperationId id) {
  const auto found = operations_.find(id);
  if (found == operations_.end() || !found->second.claims || found->second.cancel != 0) return;
  begin_cancel(now, id, Outcome::kCancelled, "CANCELLED");
}

void SessionCore::Impl::begin_cancel(Instant now, OperationId id, Outcome outcome, std::string reason) {
  Operation& operation = operations_.at(id);
  // Nobody was ever asked for it.
  if (operation.stage == Stage::kBlocked || operation.request.sequence() == 0) {
    end(now, id, outcome, std::move(reason));
    return;
  }
  operation.cancelled_as = outcome;
  operation.cancelled_reason = std::move(reason);
  operation.patience = now + kCancelPatience;
  Operation cancel;
  cancel.request.mutable_cancel()->set_operation(operation.request.sequence());
  for (const std::string& name : operation.names) cancel.request.mutable_cancel()->add_names(name);
  cancel.names = operation.names;
  cancel.target = id;
  cancel.silent = true;
  // It is not asked again: the cancel decides what became of it.
  unanswered_.erase(operation.request.sequence());
  operation.cancel = last_operation_ + 1;
  (void)add(now, std::move(cancel));
}

OperationId SessionCore::Impl::give_up(Instant now, const std::string& name, int64_t token,
                                       v1::SessionRequest request) {
  const auto held = held_.find(name);
  if (held != held_.end() && held->second == token) held_.erase(held);
  Operation operation;
  operation.request = std::move(request);
  operation.names = {name};
  const OperationId id = add(now, std::move(operation));
  // The name is free for others here once this is answered.
  if (operations_.contains(id) && busy_.contains(name) && !operations_.contains(busy_.at(name))) busy_[name] = id;
  return id;
}

void SessionCore::Impl::release_quietly(Instant now, const std::string& name, int64_t token) {
  v1::SessionRequest request;
  request.mutable_release()->set_name(name);
  request.mutable_release()->set_token(token);
  busy_.emplace(name, 0);
  const OperationId id = give_up(now, name, token, std::move(request));
  const auto found = operations_.find(id);
  if (found != operations_.end()) found->second.silent = true;
}

OperationId SessionCore::Impl::transfer(Instant now, const std::string& name, int64_t token, int64_t to) {
  const bool held = holds(name, token);
  v1::SessionRequest request;
  request.mutable_transfer()->set_name(name);
  request.mutable_transfer()->set_token(token);
  request.mutable_transfer()->set_to(to);
  const OperationId id = give_up(now, name, token, std::move(request));
  const auto found = operations_.find(id);
  if (found != operations_.end() && held) found->second.given_up = token;
  return id;
}

OperationId SessionCore::Impl::proclaim(Instant now, const std::string& name, int64_t token, std::string value) {
  Operation operation;
  v1::Proclaim& proclaim = *operation.request.mutable_proclaim();
  proclaim.set_name(name);
  proclaim.set_token(token);
  proclaim.set_value(std::move(value));
  operation.names = {name};
  return add(now, std::move(operation));
}

void SessionCore::Impl::observe(const std::string& name, bool candidates) {
  Seen& seen = observed_[name];
  seen.candidates = candidates;
  if (!attached_) return;
  seen.waits = true;
  v1::SessionRequest request;
  request.set_session(id_);
  request.mutable_observe()->set_name(name);
  request.mutable_observe()->set_token(seen.token);
  request.mutable_observe()->set_mod_revision(seen.revision);
  request.mutable_observe()->set_candidates(candidates);
  requests_.push_back(std::move(request));
}

void SessionCore::Impl::stop_observing(const std::string& name) {
  if (observed_.erase(name) == 0 || !attached_) return;
  v1::SessionRequest request;
  request.set_session(id_);
  request.mutable_stop_observing()->set_name(name);
  requests_.push_back(std::move(request));
}

void SessionCore::Impl::close(Instant) {
  if (is_final()) return;
  const bool was_asked = opened_ || asked_;
  set_state(SessionState::kClosed, {});
  expire({});
  if (!was_asked) return;
  closing_ = true;
  if (!attached_) return;
  v1::SessionRequest request;
  request.set_session(id_);
  request.mutable_close();
  requests_.push_back(std::move(request));
}

// All that may be sent now, what is asked again first: its sequences are the lowest.
void SessionCore::Impl::flush(Instant now) {
  if (!attached_ || is_final()) return;
  for (const auto& [sequence, id] : by_sequence_) {
    const auto found = operations_.find(id);
    if (found == operations_.end() || found->second.stage != Stage::kToSend || found->second.again_at > now) continue;
    if (found->second.cancel != 0) continue;
    send(found->second);
  }
  for (auto& [id, operation] : operations_) {
    if (operation.stage != Stage::kToSend || operation.request.sequence() != 0) continue;
    if (!unanswered_.empty() && *unanswered_.begin() + kWindow <= last_sequence_ + 1) {
      REACHED(client_window_full);
      return;
    }
    operation.request.set_sequence(++last_sequence_);
    by_sequence_[last_sequence_] = id;
    unanswered_.insert(last_sequence_);
    send(operation);
  }
}

void SessionCore::Impl::send(Operation& operation) {
  // It may have been begun before the session was opened, and so had its number.
  operation.request.set_session(id_);
  operation.request.set_again(operation.in_doubt);
  operation.in_doubt = true;
  operation.stage = Stage::kAsked;
  requests_.push_back(operation.request);
}

// ---- What became of them ----

void SessionCore::Impl::on_error(Instant now, uint64_t sequence, const v1::Error& error) {
  const std::string& reason = error.reason();
  const bool later = reason == "NO_QUORUM" || reason == "OVERLOADED" || reason == "NO_SPACE";
  if (sequence == 0) {
    if (later || reason == "UNKNOWN_OUTCOME") {
      if (!attached_) ask_again_at_ = now + kAgain;
    } else if (reason == "NOT_ATTACHED") {
      // A pushed thing, or of what is asked again by itself.
    } else if (!attached_ || reason == "SESSION_EXPIRED" || reason == "TAKEN_OVER") {
      expire(reason);
    }
    return;
  }
  if (reason == "SESSION_EXPIRED" || reason == "TAKEN_OVER") {
    expire(reason);
    return;
  }
  const OperationId id = asked_as(sequence);
  if (id == 0) return;
  Operation& operation = operations_.at(id);
  // Of one that is being taken back only the answer to that counts.
  if (operation.cancel != 0) return;
  if (later) {
    // Known not done of this asking; an earlier one may be under way.
    operation.in_doubt = operation.request.again();
    operation.stage = Stage::kToSend;
    operation.again_at = now + kAgain;
    return;
  }
  if (reason == "UNKNOWN_OUTCOME" || reason == "NOT_ATTACHED") {
    REACHED(client_operation_unknown);
    operation.stage = Stage::kToSend;
    operation.again_at = Instant::min();
    // Under a higher incarnation what is under way of it is without effect once it is asked again.
    if (attached_) {
      attached_ = false;
      attach(now);
    }
    return;
  }
  if (reason == "CLAIM_LOST") {
    end(now, id, Outcome::kLost, reason, error.message());
  } else if (operation.target != 0) {
    // A cancel cannot be refused for what it is; if it is, the session's end takes all back.
    end(now, id, Outcome::kUnknown, reason, error.message());
  } else {
    end(now, id, Outcome::kRejected, reason, error.message());
  }
}

void SessionCore::Impl::on_claimed(Instant now, uint64_t sequence, const v1::Claimed& claimed) {
  const OperationId id = asked_as(sequence);
  if (id == 0) return;
  Operation& operation = operations_.at(id);
  if (!operation.claims || operation.cancel != 0) return;
  operation.in_doubt = false;
  unanswered_.erase(sequence);
  operation.stage = Stage::kInLine;
  bool lost = false;
  for (const v1::ClaimState& state : claimed.claims()) {
    if (state.granted()) operation.granted[state.name()] = state.token();
    lost = lost || (state.token() == 0 && operation.request.has_acquire());
  }
  if (lost) {
    lose_operation(now, id);
  } else {
    check_granted(now, id);
  }
  flush(now);
}

void SessionCore::Impl::check_granted(Instant now, OperationId id) {
  Operation& operation = operations_.at(id);
  if (operation.granted.size() < operation.names.size()) return;
  for (const auto& [name, token] : operation.granted) held_[name] = token;
  end(now, id, Outcome::kDone);
}

// Some of what it had in line is gone: what is left is given up.
void SessionCore::Impl::lose_operation(Instant now, OperationId id) {
  Operation& operation = operations_.at(id);
  operation.granted.clear();
  if (operation.names.size() > 1) {
    begin_cancel(now, id, Outcome::kLost, "CLAIM_LOST");
  } else {
    end(now, id, Outcome::kLost, "CLAIM_LOST", "what it had in line is gone");
  }
}

void SessionCore::Impl::on_granted(Instant now, const std::string& name, int64_t token) {
  const auto busy = busy_.find(name);
  if (busy == busy_.end()) return;
  const auto found = operations_.find(busy->second);
  if (found == operations_.end() || found->second.stage != Stage::kInLine || found->second.cancel != 0) return;
  found->second.granted[name] = token;
  check_granted(now, found->first);
}

void SessionCore::Impl::on_lost(Instant now, const v1::Lost& lost) {
  const auto held = held_.find(lost.name());
  if (held != held_.end() && held->second == lost.token()) {
    held_.erase(held);
    events_.emplace_back(
        ClaimLost{.name = lost.name(), .token = lost.token(), .reason = lost.reason(), .note = lost.note()});
    free_names(now, {lost.name()}, 0);
    return;
  }
  const auto busy = busy_.find(lost.name());
  if (busy == busy_.end()) return;
  const auto found = operations_.find(busy->second);
  // A candidacy has no token.
  if (found != operations_.end() && lost.token() != 0 && found->second.given_up == lost.token()) {
    found->second.lost =
        ClaimLost{.name = lost.name(), .token = lost.token(), .reason = lost.reason(), .note = lost.note()};
    return;
  }
  if (found == operations_.end() || found->second.stage != Stage::kInLine || found->second.cancel != 0) return;
  lose_operation(now, found->first);
}

void SessionCore::Impl::on_cancelled(Instant now, uint64_t sequence) {
  const OperationId id = asked_as(sequence);
  if (id == 0 || operations_.at(id).target == 0) return;
  const OperationId target = operations_.at(id).target;
  end(now, id, Outcome::kDone);
  const auto found = operations_.find(target);
  if (found == operations_.end()) return;
  end(now, target, found->second.cancelled_as, found->second.cancelled_reason);
}

void SessionCore::Impl::on_done(Instant now, uint64_t sequence, bool was_held) {
  const OperationId id = asked_as(sequence);
  if (id == 0 || operations_.at(id).claims || operations_.at(id).target != 0) return;
  end(now, id, Outcome::kDone, {}, {}, was_held);
}

void SessionCore::Impl::end(Instant now, OperationId id, Outcome outcome, std::string reason, std::string message,
                            bool was_held) {
  const auto found = operations_.find(id);
  Operation operation = std::move(found->second);
  operations_.erase(found);
  if (operation.stage == Stage::kBlocked) std::erase(blocked_, id);
  if (operation.request.sequence() != 0) {
    unanswered_.erase(operation.request.sequence());
    by_sequence_.erase(operation.request.sequence());
  }
  OperationEnded ended{.operation = id,
                       .outcome = outcome,
                       .reason = std::move(reason),
                       .message = std::move(message),
                       .was_held = was_held};
  if (operation.claims && outcome == Outcome::kDone) {
    for (const std::string& name : operation.names) {
      ended.claims.push_back({.name = name, .token = operation.granted.at(name)});
    }
  }
  tell_end(operation, std::move(ended));
  if (is_final()) return;
  // What was granted stays its session's until it is given up; and what was to be given up, where that was refused.
  bool keeps = operation.claims && outcome == Outcome::kDone;
  if (operation.given_up != 0 && outcome != Outcome::kDone) {
    if (operation.lost) {
      events_.emplace_back(*operation.lost);
    } else {
      keeps = true;
      held_[operation.names[0]] = operation.given_up;
      busy_[operation.names[0]] = 0;
    }
  }
  if (!keeps) free_names(now, operation.names, id);
  flush(now);
}

void SessionCore::Impl::tell_end(Operation& operation, OperationEnded ended) {
  if (operation.silent) return;
  operation.silent = true;
  events_.emplace_back(std::move(ended));
}

void SessionCore::Impl::free_names(Instant now, const std::vector<std::string>& names, OperationId of) {
  for (const std::string& name : names) {
    const auto busy = busy_.find(name);
    if (busy == busy_.end()) continue;
    // Another operation may be giving it up, or have it meanwhile.
    if (of != 0 ? busy->second == of : !operations_.contains(busy->second)) busy_.erase(busy);
  }
  unblock(now);
}

void SessionCore::Impl::unblock(Instant now) {
  for (size_t i = 0; i < blocked_.size();) {
    const OperationId id = blocked_[i];
    Operation& operation = operations_.at(id);
    if (!is_free(operation, id)) {
      ++i;
      continue;
    }
    blocked_.erase(blocked_.begin() + static_cast<std::ptrdiff_t>(i));
    operation.stage = Stage::kToSend;
    for (const std::string& name : operation.names) busy_[name] = id;
  }
  flush(now);
}

// ---- Ends ----

void SessionCore::Impl::expire(std::string reason, bool is_applied) {
  const bool proven = is_applied && reason == "SESSION_EXPIRED";
  const std::string why = state_ == SessionState::kClosed ? "CLOSED" : reason;
  if (state_ != SessionState::kClosed) {
    if (is_final()) return;
    set_state(SessionState::kExpired, std::move(reason));
  }
  held_.clear();
  busy_.clear();
  blocked_.clear();
  by_sequence_.clear();
  unanswered_.clear();
  for (auto& [id, operation] : std::exchange(operations_, {})) {
    OperationEnded ended{.operation = id, .reason = why};
    if (operation.request.has_release() || operation.request.has_resign()) {
      // It is over either way; by which of the two, nobody may be able to tell.
      ended.outcome = operation.in_doubt ? Outcome::kUnknown : Outcome::kLost;
    } else if (operation.request.sequence() == 0) {
      ended.outcome = Outcome::kNotApplied;
    } else if (!operation.claims && operation.in_doubt) {
      ended.outcome = Outcome::kUnknown;
    } else if (operation.claims && operation.cancel != 0) {
      // Where no server said so, what is under way may be done yet, for as long as the session stands.
      ended.outcome = proven ? operation.cancelled_as : Outcome::kUnknown;
      ended.reason = operation.cancelled_reason;
    } else {
      ended.outcome = Outcome::kLost;
    }
    tell_end(operation, std::move(ended));
  }
}

void SessionCore::Impl::tick(Instant now) {
  if (ask_again_at_ <= now) {
    ask_again_at_ = kNever;
    if (connected_ && !attached_ && wants_stream()) {
      attach(now);
    }
  }
  if (is_final()) return;
  if (state_ == SessionState::kSafe && now >= safe_until_) set_state(SessionState::kJeopardy, {});
  if (state_ == SessionState::kJeopardy && now >= safe_until_ + options_.jeopardy_max) {
    REACHED(client_jeopardy_too_long);
    expire("JEOPARDY");
    return;
  }
  std::vector<OperationId> late;
  for (const auto& [id, operation] : operations_) {
    if (operation.claims && operation.cancel == 0 && operation.deadline <= now) late.push_back(id);
  }
  for (const OperationId id : late) {
    REACHED(client_acquire_timed_out);
    begin_cancel(now, id, Outcome::kNotApplied, "TIMED_OUT");
  }
  for (auto& [id, operation] : operations_) {
    if (operation.cancel == 0 || operation.patience > now || operation.silent) continue;
    REACHED(client_cancel_unanswered);
    operation.patience = kNever;
    tell_end(operation, {.operation = id,
                         .outcome = Outcome::kUnknown,
                         .reason = operation.cancelled_reason,
                         .message = "no server answered; it is taken back as soon as one does, or the session ends"});
  }
  flush(now);
}

Instant SessionCore::Impl::next_deadline() const {
  if (is_final()) return closing_ ? ask_again_at_ : kNever;
  Instant next = ask_again_at_;
  if (state_ == SessionState::kSafe) next = std::min(next, safe_until_);
  if (state_ == SessionState::kJeopardy) next = std::min(next, safe_until_ + options_.jeopardy_max);
  for (const auto& [id, operation] : operations_) {
    if (operation.cancel == 0) {
      next = std::min(next, operation.deadline);
    } else if (!operation.silent) {
      next = std::min(next, operation.patience);
    }
    if (operation.stage == Stage::kToSend && attached_ && operation.again_at != Instant::min()) {
      next = std::min(next, operation.again_at);
    }
  }
  return next;
}

// ---- The face ----

SessionCore::SessionCore(SessionCoreOptions options, Instant now)
    : impl_(std::make_unique<Impl>(std::move(options), now)) {}
SessionCore::~SessionCore() = default;
void SessionCore::on_connected(Instant now) {
  impl_->on_connected(now);
}
void SessionCore::on_disconnected(Instant) {
  impl_->on_disconnected();
}
void SessionCore::on_response(Instant now, const v1::SessionResponse& response) {
  impl_->on_response(now, response);
}
Instant SessionCore::keep_alive_at() const {
  return impl_->keep_alive_at();
}
void SessionCore::on_keep_alive_sent(Instant now) {
  impl_->on_keep_alive_sent(now);
}
void SessionCore::on_kept(Instant now, Instant sent, Kept kept) {
  impl_->on_kept(now, sent, kept);
}
OperationId SessionCore::acquire(Instant now, AcquireOptions options) {
  return impl_->acquire(now, std::move(options));
}
OperationId SessionCore::campaign(Instant now, std::string name, std::string value, int32_t priority) {
  return impl_->campaign(now, std::move(name), std::move(value), priority);
}
void SessionCore::cancel(Instant now, OperationId operation) {
  impl_->cancel(now, operation);
}
OperationId SessionCore::release(Instant now, const std::string& name, int64_t token) {
  v1::SessionRequest request;
  request.mutable_release()->set_name(name);
  request.mutable_release()->set_token(token);
  return impl_->give_up(now, name, token, std::move(request));
}
OperationId SessionCore::proclaim(Instant now, const std::string& name, int64_t token, std::string value) {
  return impl_->proclaim(now, name, token, std::move(value));
}
OperationId SessionCore::resign(Instant now, const std::string& name, int64_t token) {
  v1::SessionRequest request;
  request.mutable_resign()->set_name(name);
  request.mutable_resign()->set_token(token);
  return impl_->give_up(now, name, token, std::move(request));
}
OperationId SessionCore::transfer(Instant now, const std::string& name, int64_t token, int64_t to) {
  return impl_->transfer(now, name, token, to);
}
void SessionCore::observe(Instant, const std::string& name, bool candidates) {
  impl_->observe(name, candidates);
}
void SessionCore::stop_observing(Instant, const std::string& name) {
  impl_->stop_observing(name);
}
void SessionCore::close(Instant now) {
  impl_->close(now);
}
SessionState SessionCore::state() const {
  return impl_->state_;
}
Instant SessionCore::safe_until() const {
  return impl_->safe_until_;
}
bool SessionCore::holds(const std::string& name, int64_t token) const {
  return impl_->holds(name, token);
}
const SessionCoreOptions& SessionCore::options() const {
  return impl_->options_;
}
int64_t SessionCore::id() const {
  return impl_->id_;
}
v1::Place SessionCore::place() const {
  return impl_->place_;
}
void SessionCore::tick(Instant now) {
  impl_->tick(now);
}
Instant SessionCore::next_deadline() const {
  return impl_->next_deadline();
}
bool SessionCore::wants_stream() const {
  return impl_->wants_stream();
}
std::vector<v1::SessionRequest> SessionCore::take_requests() {
  return std::exchange(impl_->requests_, {});
}
std::vector<SessionEvent> SessionCore::take_events() {
  return std::exchange(impl_->events_, {});
}

}  // namespace conclave::client
