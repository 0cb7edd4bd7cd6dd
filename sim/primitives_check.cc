#include "sim/primitives_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "layers/claim_record.h"

namespace conclave::sim {
namespace {

using client::Outcome;
using keyspace::CommandKind;
using Kind = PrimitivesCheck::Wish::Kind;

std::string label(int64_t session) {
  return fmt::format("session {:x}", session);
}

}  // namespace

bool PrimitivesCheck::Operation::is_undone() const {
  return outcome == Outcome::kRejected || outcome == Outcome::kNotApplied || outcome == Outcome::kCancelled;
}

bool PrimitivesCheck::Operation::may_act() const {
  return !is_undone() && outcome != Outcome::kDone;
}

PrimitivesCheck::PrimitivesCheck(NodeCheck& check, LockCheck& recipes, const Options& options)
    : check_(check),
      recipes_(recipes),
      options_(options),
      leaders_(check, claims_),
      candidates_(check),
      operators_(check) {
  check.add_observer(*this);
  recipes.set_listener(*this);
}

// --- The history.

void PrimitivesCheck::on_command(const NodeCheck::Commanded& command) {
  command_ = command;
  revision_before_ = claims_.revision();
  deleted_.clear();
  for (const LeaseId lease : command.leases_started) {
    const auto session = sessions_.find(lease.value());
    if (session == sessions_.end()) continue;
    // Its opening may arrive twice, and open it anew after it ended: harmless as long as its client does not count on
    // it.
    if (session->second.has_ended && session->second.was_opened) {
      check_.violate(fmt::format("{} had ended and was opened again", label(session->first)));
    }
    session->second.stands = true;
    session->second.expired = false;
  }
  const auto session = sessions_.find(static_cast<int64_t>(command.header.session.value()));
  const bool is_transfer = session != sessions_.end() && session->second.transfers.contains(command.header.sequence);
  candidates_.on_command(command, revision_before_, is_transfer);
  operators_.on_command(command);
  for (const NodeCheck::RecordChange& change : command.records) on_record(change);
  if (!command.changed || session == sessions_.end()) return;
  if (!session->second.changed.insert(command.header.sequence).second) {
    check_.violate(fmt::format("sequence {} of {} took effect twice", command.header.sequence, label(session->first)));
  }
}

void PrimitivesCheck::on_record(const NodeCheck::RecordChange& change) {
  const bool is_candidate = change.key.starts_with(layers::kCandidateRecords);
  if (!is_candidate && !change.key.starts_with(layers::kClaimRecords) &&
      !change.key.starts_with(layers::kRequestRecords)) {
    return;
  }
  if (!change.is_put) {
    records_.erase(change.key);
    return;
  }
  records_.insert(change.key);
  layers::CandidateRecord record;
  if (!is_candidate || !layers::decode(change.value, record)) return;
  const auto value = values_.find(record.value);
  if (value == values_.end()) {
    check_.violate(fmt::format("'{}' is a candidate's, and nobody campaigns with it", record.value));
    return;
  }
  const auto [session, number] = value->second;
  const Wish& wish = sessions_.at(session).operations.at(number).wish;
  if (wish.kind == Kind::kCampaign && wish.priority == record.priority) return;
  check_.violate(fmt::format("operation {} of {} is a candidacy with priority {}, and did not ask for that", number,
                             label(session), record.priority));
}

void PrimitivesCheck::on_event(int64_t revision, const NodeCheck::Event& event) {
  const int64_t token = claims_.token_of(event.key);
  claims_.on_event(revision, event);
  check_value(event);
  const std::string name = ClaimHistory::name_of(event.key);
  if (name.empty()) return;
  const int64_t id = ClaimHistory::session_of(event.key);
  const auto session = sessions_.find(id);
  if (event.is_put) {
    if (token == 0 && session != sessions_.end()) {
      on_claim_put(session->second, id, revision, event, claims_.owner_at(name, revision).key != event.key);
    }
  } else if (token != 0) {
    on_claim_deleted(session == sessions_.end() ? 0 : id, name, event.key, token);
  }
}

// The operation of the session itself; or a candidate's, which others' commands may elect.
uint64_t PrimitivesCheck::who_put(const Session& session, int64_t id, const NodeCheck::Event& event) const {
  uint64_t by = 0;
  if (static_cast<int64_t>(command_.header.session.value()) == id) {
    const auto asked = session.asked_as.find(command_.header.sequence);
    if (asked != session.asked_as.end()) by = asked->second;
  }
  if (const auto value = values_.find(event.value); by == 0 && value != values_.end() && value->second.first == id) {
    by = value->second.second;
  }
  if (by == 0) return 0;
  const Wish& wish = session.operations.at(by).wish;
  const bool names_it = std::ranges::find(wish.names, ClaimHistory::name_of(event.key)) != wish.names.end();
  const bool asks = wish.kind == Kind::kCampaign ? wish.value == event.value : wish.kind == Kind::kAcquire;
  return names_it && asks ? by : 0;
}

// Its client asked for it, and was not told that it will not happen.
void PrimitivesCheck::on_claim_put(Session& session, int64_t id, int64_t revision, const NodeCheck::Event& event,
                                   bool tail) {
  const uint64_t by = who_put(session, id, event);
  if (by == 0 || !session.operations.at(by).may_act()) {
    check_.violate(
        fmt::format("{} was put at revision {}, and {} asks for no such claim", event.key, revision, label(id)));
    return;
  }
  if (tail && session.operations.at(by).wish.try_once) {
    check_.violate(
        fmt::format("{} was put at revision {} by one that tries, and is not the oldest", event.key, revision));
  }
  origins_[event.key] = {.session = id, .operation = by, .token = revision};
}

void PrimitivesCheck::on_claim_deleted(int64_t id, const std::string& name, const std::string& key, int64_t token) {
  const keyspace::CommandHeader& header = command_.header;
  const bool by_hand = !header.session.is_set() && header.term.value() == 0;
  if (by_hand) disowned_.insert({name, token});
  check_taken_back(id, key, token, by_hand);
  const auto delay = delays_.find(name);
  if (delay != delays_.end() && delay->second.token == token) {
    if (!by_hand && !options_.clocks_lie && command_.now < delay->second.until) {
      check_.violate(fmt::format("{} is held back, and was free {} us too early", name,
                                 (delay->second.until - command_.now).count() / 1000));
    }
    delays_.erase(delay);
  }
  if (id == 0) return;
  const auto origin = origins_.find(key);
  const bool owned = claims_.owner_at(name, revision_before_).key == key;
  bool delayed = false;
  if (owned && origin != origins_.end() && origin->second.token == token) {
    const Session& session = sessions_.at(id);
    delayed = session.operations.at(origin->second.operation).wish.lock_delay > Duration() &&
              session.believed.contains({name, token});
  }
  deleted_.emplace(id, Deleted{.name = name, .delayed = delayed});
}

// A server takes back what nobody waits for any more; never what was granted as a whole, unless it is to be forced.
void PrimitivesCheck::check_taken_back(int64_t id, const std::string& key, int64_t token, bool by_hand) {
  const auto origin = origins_.find(key);
  if (!by_hand || command_.header.kind != CommandKind::kInternal || origin == origins_.end() ||
      origin->second.token != token || operators_.is_force_asked(ClaimHistory::name_of(key), token)) {
    return;
  }
  const Operation& operation = sessions_.at(id).operations.at(origin->second.operation);
  const bool waited = std::ranges::any_of(operation.wish.names, [&](const std::string& name) {
    return claims_.owner_at(name, revision_before_).key != ClaimHistory::key_of(name, id);
  });
  if (!waited) check_.violate(fmt::format("{} was granted, and a server took it back", key));
}

void PrimitivesCheck::check_value(const NodeCheck::Event& event) {
  const auto value = event.is_put ? values_.find(event.value) : values_.end();
  if (value == values_.end()) return;
  const auto [session, number] = value->second;
  Operation& operation = sessions_.at(session).operations.at(number);
  if (operation.is_undone()) {
    check_.violate(fmt::format("'{}' was written to {}, and {} had been told that operation {} was not done",
                               event.value, event.key, label(session), number));
  }
  operation.written = true;
}

void PrimitivesCheck::on_lease_ended(LeaseId lease, bool by_time) {
  // Who is killed ends as if its time were over, but it is not, and no lock is held back.
  const bool expired = by_time && !operators_.is_kill();
  const int64_t id = lease.value();
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  Session& session = found->second;
  session.stands = false;
  session.has_ended = true;
  session.ended_at = claims_.revision();
  session.expired = expired;
  if (expired && !options_.clocks_lie && session.mind != nullptr && session.mind->is_safe()) {
    check_.violate(fmt::format("{} ended by its time while its client counts on it", label(id)));
  }
  if (expired) {
    const auto [first, last] = deleted_.equal_range(id);
    for (auto deleted = first; deleted != last; ++deleted) {
      if (!deleted->second.delayed) continue;
      check_.violate(
          fmt::format("{} ended by its time and owned {}, which was not held back", label(id), deleted->second.name));
    }
  }
  for (const std::string& key : claims_.keys_at(id, INT64_MAX - 1)) {
    const std::string name = ClaimHistory::name_of(key);
    const auto origin = origins_.find(key);
    const bool known = origin != origins_.end() && origin->second.token == claims_.token_of(key);
    const Duration delay = known ? session.operations.at(origin->second.operation).wish.lock_delay : Duration();
    const bool owned = claims_.owner_at(name, revision_before_).key == key;
    if (!expired || !owned || delay == Duration() || claims_.lease_of(key) == lease) {
      check_.violate(fmt::format("{} ended and left {} behind", label(id), key));
      continue;
    }
    ++held_back_count_;
    delays_[name] = {.token = claims_.token_of(key), .until = command_.now + delay};
  }
}

// --- What clients do.

void PrimitivesCheck::note_session(int64_t session, const Mind& mind) {
  sessions_[session].mind = &mind;
}

void PrimitivesCheck::note_renamed(int64_t id, int64_t renamed) {
  auto session = sessions_.extract(id);
  session.key() = renamed;
  // What was opened under the other number ends by its time, and nobody has anything by it.
  session.mapped().stands = false;
  session.mapped().has_ended = false;
  if (session.mapped().was_opened || !session.mapped().asked_as.empty()) {
    check_.violate(fmt::format("{} was opened, and is asked for as {:x}", label(id), renamed));
  }
  sessions_.insert(std::move(session));
  for (auto& [value, by] : values_) {
    if (by.first == id) by.first = renamed;
  }
  leaders_.note_renamed(id, renamed);
}

void PrimitivesCheck::note_forgotten(int64_t id) {
  Session& session = sessions_.at(id);
  session.mind = nullptr;
  session.was_ended = true;
  session.was_opened = false;
  for (const auto& [name, token] : session.held) holders_[name].erase(id);
  session.held.clear();
  leaders_.note_gone(id);
}

void PrimitivesCheck::note_asked(int64_t id, uint64_t number, const Wish& wish) {
  Session& session = sessions_.at(id);
  session.operations[number] = {.wish = wish};
  if (!wish.value.empty()) values_[wish.value] = {id, number};
  if (wish.kind != Kind::kRelease && wish.kind != Kind::kTransfer) return;
  for (const std::string& name : wish.names) {
    session.held.erase(name);
    holders_[name].erase(id);
  }
}

void PrimitivesCheck::note_request(int64_t id, const v1::SessionRequest& request) {
  Session& session = sessions_.at(id);
  if (request.has_attach()) session.attach_floors.push_back(told_revision_);
  if (request.has_transfer()) session.transfers.insert(request.sequence());
  if (!request.has_acquire() && !request.has_campaign() && !request.has_cancel()) return;
  // The stream may have broken before what is cancelled was sent: it has its sequence all the same.
  const uint64_t sequence = request.has_cancel() ? request.cancel().operation() : request.sequence();
  if (session.asked_as.contains(sequence)) return;
  const auto& asked = request.has_cancel() ? request.cancel().names() : request.acquire().names();
  std::vector<std::string> names(asked.begin(), asked.end());
  if (request.has_campaign()) names = {request.campaign().name()};
  // Operations on one name get their sequences in the order of their numbers.
  for (auto& [number, operation] : session.operations) {
    const bool acquires = operation.wish.kind == Kind::kAcquire;
    const bool campaigns = operation.wish.kind == Kind::kCampaign;
    // What is taken back may be so for longer than its client waits to be told.
    const bool is_told = operation.outcome && (!request.has_cancel() || operation.outcome != Outcome::kUnknown);
    if (operation.sent || is_told || (!acquires && !campaigns) || operation.wish.names != names) continue;
    if (request.has_acquire() && !acquires) continue;
    if (request.has_campaign() && (!campaigns || operation.wish.value != request.campaign().value())) continue;
    operation.sent = true;
    session.asked_as[sequence] = number;
    return;
  }
  check_.violate(fmt::format("{} asks as {} for what nobody wants", label(id), sequence));
}

// --- What they are told.

void PrimitivesCheck::note_response(int64_t id, const v1::SessionResponse& response) {
  const int64_t revision = response.place().revision();
  check_stood(id, response);
  if (response.has_claimed()) {
    for (const v1::ClaimState& claim : response.claimed().claims()) {
      if (claim.token() != 0) check_told(id, claim.name(), claim.token(), claim.granted(), revision);
    }
  } else if (response.has_granted()) {
    check_told(id, response.granted().name(), response.granted().token(), true, revision);
  } else if (response.has_opened()) {
    sessions_.at(id).was_opened = true;
  } else if (response.has_attached()) {
    check_attached(id, response.attached(), revision);
  } else if (response.has_lost()) {
    const v1::Lost& lost = response.lost();
    // Without a token it is a candidacy.
    if (lost.token() != 0 && claims_.token_at(ClaimHistory::key_of(lost.name(), id), revision) == lost.token()) {
      check_.violate(fmt::format("{} was told at revision {} that it lost {} with token {}, which stands", label(id),
                                 revision, lost.name(), lost.token()));
    }
  } else if (response.has_ended()) {
    const auto reason = response.ended().reason();
    const bool goes_on = reason == v1::SessionEnded::TAKEN_OVER || reason == v1::SessionEnded::MOVED;
    if (!goes_on) check_ended_told(id, v1::SessionEnded::Reason_Name(reason));
  } else if (response.has_error() && response.error().reason() == "SESSION_EXPIRED") {
    check_ended_told(id, response.error().reason());
  }
  told_revision_ = std::max(told_revision_, revision);
}

// Of a state that is newer than its end nothing is told but that.
void PrimitivesCheck::check_stood(int64_t id, const v1::SessionResponse& response) const {
  const bool stands =
      response.has_opened() || response.has_attached() || response.has_claimed() || response.has_granted();
  const Session& session = sessions_.at(id);
  if (!stands || session.stands || !session.has_ended || response.place().revision() <= session.ended_at) return;
  check_.violate(fmt::format("{} had ended at revision {}, and was told at {}: {}", label(id), session.ended_at,
                             response.place().revision(), response.ShortDebugString()));
}

// Its end may be proposed and not applied yet, so that its time is over.
void PrimitivesCheck::note_gone(int64_t id) {
  const Session& session = sessions_.at(id);
  if (options_.clocks_lie || !session.stands || session.mind == nullptr || !session.mind->is_safe()) return;
  check_.violate(fmt::format("{} was told that it is gone, and stands, and its client counts on it", label(id)));
}

void PrimitivesCheck::check_ended_told(int64_t id, const std::string& how) {
  const Session& session = sessions_.at(id);
  if (session.stands && !session.has_ended)
    check_.violate(fmt::format("{} was told that it ended ({}), and stands", label(id), how));
}

void PrimitivesCheck::check_told(int64_t id, const std::string& name, int64_t token, bool granted, int64_t revision) {
  const std::string key = ClaimHistory::key_of(name, id);
  if (claims_.token_at(key, revision) != token) {
    check_.violate(fmt::format("{} was told at revision {} that its claim on {} has token {}, and it was {}", label(id),
                               revision, name, token, claims_.token_at(key, revision)));
    return;
  }
  const ClaimHistory::Owner owner = claims_.owner_at(name, revision);
  if ((owner.key == key) != granted) {
    check_.violate(fmt::format("{} was told at revision {} that {} with token {} is {}, and the oldest was '{}' of {}",
                               label(id), revision, name, token, granted ? "granted" : "not granted", owner.key,
                               owner.token));
  }
}

// All that it owned then, and no other.
void PrimitivesCheck::check_attached(int64_t id, const v1::SessionAttached& attached, int64_t revision) {
  Session& session = sessions_.at(id);
  if (!session.attach_floors.empty()) {
    const int64_t floor = session.attach_floors.front();
    session.attach_floors.pop_front();
    if (revision < floor) {
      check_.violate(fmt::format("{} was attached at revision {}, and {} had been told before it asked", label(id),
                                 revision, floor));
    }
  }
  session.attached_at = revision;
  std::set<std::string> told;
  for (const v1::Claim& claim : attached.claims()) {
    if (claim.token() == 0) continue;
    told.insert(ClaimHistory::key_of(claim.name(), id));
    check_told(id, claim.name(), claim.token(), claim.granted(), revision);
  }
  for (const std::string& key : claims_.keys_at(id, revision)) {
    // What is held back is its own no more.
    if (!told.contains(key) && claims_.lease_of(key) == LeaseId(id)) {
      check_.violate(fmt::format("{} was attached at revision {} and not told of {}", label(id), revision, key));
    }
  }
}

void PrimitivesCheck::note_told(int64_t id, const client::SessionEvent& event, Instant now) {
  Session& session = sessions_.at(id);
  if (const auto* state = std::get_if<client::StateChanged>(&event)) {
    const bool is_final =
        state->state == client::SessionState::kExpired || state->state == client::SessionState::kClosed;
    if (is_final) session.was_ended = true;
    if (is_final) session.was_opened = false;
  } else if (const auto* ended = std::get_if<client::OperationEnded>(&event)) {
    on_ended(id, *ended, now);
  } else if (const auto* lost = std::get_if<client::ClaimLost>(&event)) {
    const auto held = session.held.find(lost->name);
    if (held == session.held.end() || held->second != lost->token) {
      check_.violate(
          fmt::format("{} lost {} with token {}, which it did not hold", label(id), lost->name, lost->token));
      return;
    }
    session.held.erase(held);
    holders_[lost->name].erase(id);
    operators_.check_lost(id, *lost);
  } else if (const auto* wanted = std::get_if<client::ReleaseWanted>(&event)) {
    operators_.check_wanted(id, *wanted);
  } else if (const auto* seen = std::get_if<client::LeaderSeen>(&event)) {
    leaders_.note_seen(id, *seen);
  }
}

void PrimitivesCheck::on_ended(int64_t id, const client::OperationEnded& ended, Instant now) {
  Session& session = sessions_.at(id);
  const auto found = session.operations.find(ended.operation);
  if (found == session.operations.end() || found->second.outcome) {
    check_.violate(fmt::format("operation {} of {} ended and was not under way", ended.operation, label(id)));
    return;
  }
  Operation& operation = found->second;
  operation.outcome = ended.outcome;
  const Wish& wish = operation.wish;
  if (wish.kind == Kind::kTransfer && ended.outcome != Outcome::kDone && !session.was_ended) {
    session.held[wish.names.front()] = wish.token;
    holders_[wish.names.front()].insert(id);
  }
  if (operation.is_undone()) {
    if (wish.asks()) check_nothing_left(id, ended.operation, operation);
    if (operation.written && ended.outcome != Outcome::kCancelled) {
      check_.violate(fmt::format("operation {} of {} was {}, and '{}' is written", ended.operation, label(id),
                                 client::to_string(ended.outcome), wish.value));
    }
    return;
  }
  if (ended.outcome != Outcome::kDone) return;
  if (wish.asks()) {
    if (ended.claims.size() != wish.names.size()) {
      check_.violate(fmt::format("operation {} of {} is done with {} of {} names", ended.operation, label(id),
                                 ended.claims.size(), wish.names.size()));
    }
    for (const client::HeldClaim& claim : ended.claims) on_granted(id, claim, now);
  } else if (wish.kind != Kind::kProclaim) {
    for (const std::string& name : wish.names) {
      if (claims_.token_of(ClaimHistory::key_of(name, id)) != wish.token) continue;
      check_.violate(fmt::format("{} released {} with token {}, which stands", label(id), name, wish.token));
    }
  } else if (!operation.written) {
    check_.violate(fmt::format("{} proclaimed '{}', which is not written", label(id), wish.value));
  }
}

void PrimitivesCheck::on_granted(int64_t id, const client::HeldClaim& claim, Instant now) {
  Session& session = sessions_.at(id);
  ++granted_;
  if (session.was_ended) {
    check_.violate(fmt::format("{} was granted {} after it was told that it ended", label(id), claim.name));
  }
  session.held[claim.name] = claim.token;
  holders_[claim.name].insert(id);
  if (believes(session, claim.name, claim.token)) {
    session.believed.emplace(claim.name, claim.token);
    check_grows(claim.name, claim.token, label(id));
    check_alone(claim.name, id, claim.token, now);
  }
}

void PrimitivesCheck::check_nothing_left(int64_t id, uint64_t number, const Operation& operation) {
  for (const std::string& name : operation.wish.names) {
    const std::string key = ClaimHistory::key_of(name, id);
    const auto origin = origins_.find(key);
    if (origin == origins_.end() || origin->second.operation != number) continue;
    if (claims_.token_of(key) != origin->second.token) continue;
    // It was granted, and its session lost, before it was taken back.
    if (delays_.contains(name) && delays_.at(name).token == origin->second.token) continue;
    check_.violate(fmt::format("operation {} of {} was {}, and {} stands", number, label(id),
                               client::to_string(*operation.outcome), key));
  }
}

// --- What they believe.

bool PrimitivesCheck::believes(const Session& session, const std::string& name, int64_t token) const {
  return !options_.clocks_lie && session.mind != nullptr && session.mind->is_safe() &&
         session.mind->holds(name, token) && !is_disowned(name, token);
}

void PrimitivesCheck::check_grows(const std::string& name, int64_t token, const std::string& who) {
  Newest& newest = newest_[name];
  if (token < newest.token || (token == newest.token && who != newest.who)) {
    check_.violate(
        fmt::format("{} was given to {} with token {} after {} had {}", name, who, token, newest.who, newest.token));
  }
  newest = {.token = token, .who = who};
}

void PrimitivesCheck::check_alone(const std::string& name, int64_t id, int64_t token, Instant now) {
  for (const int64_t other : holders_[name]) {
    if (other == id) continue;
    const Session& session = sessions_.at(other);
    if (!believes(session, name, session.held.at(name))) continue;
    check_.violate(fmt::format("{} is held by {} with token {} and by {} with token {} at once", name, label(other),
                               session.held.at(name), label(id), token));
  }
  for (const LeaseId lease : recipes_.who_trusts(name, now)) {
    check_.violate(
        fmt::format("{} is held under lease {} and by {} with token {} at once", name, lease, label(id), token));
  }
}

void PrimitivesCheck::on_trusted(const std::string& name, LeaseId lease, int64_t token) {
  if (options_.clocks_lie) return;
  check_grows(name, token, fmt::format("lease {}", lease));
  for (const int64_t other : holders_[name]) {
    const Session& session = sessions_.at(other);
    if (!believes(session, name, session.held.at(name))) continue;
    check_.violate(fmt::format("{} is held by {} with token {} and under lease {} at once", name, label(other),
                               session.held.at(name), lease));
  }
}

void PrimitivesCheck::note_believes(int64_t id, Instant now) {
  Session& session = sessions_.at(id);
  check_shown(id, session);
  if (options_.clocks_lie || session.mind == nullptr || !session.mind->is_safe()) return;
  if (session.expired) check_.violate(fmt::format("{} ended by its time, and its client counts on it", label(id)));
  for (const auto& [name, token] : session.held) {
    if (!believes(session, name, token)) continue;
    session.believed.emplace(name, token);
    check_alone(name, id, token, now);
  }
}

// What was lost before it was shown all it owns, its client holds no more.
void PrimitivesCheck::check_shown(int64_t id, Session& session) {
  const int64_t revision = std::exchange(session.attached_at, 0);
  if (revision == 0 || session.mind == nullptr) return;
  for (const auto& [name, token] : session.held) {
    const bool stood = token > revision || claims_.token_at(ClaimHistory::key_of(name, id), revision) == token;
    if (stood || !session.mind->holds(name, token)) continue;
    check_.violate(fmt::format("{} was attached at revision {}, and counts on {} with token {}, which was gone",
                               label(id), revision, name, token));
  }
}

// --- What operators are told.

void PrimitivesCheck::note_killed(int64_t id) {
  const auto session = sessions_.find(id);
  if (session == sessions_.end() || !session->second.stands || !session->second.was_opened) return;
  check_.violate(fmt::format("whoever killed {} was told that it is done, and it stands", label(id)));
}

void PrimitivesCheck::note_forced(const std::string& key, int64_t token) {
  if (claims_.token_of(key) != token) return;
  check_.violate(fmt::format("whoever forced {} with token {} was told that it is done, and it stands", key, token));
}

// --- The end.

std::string PrimitivesCheck::who_is_not_told() const {
  for (const auto& [id, session] : sessions_) {
    if (session.mind == nullptr || !session.was_opened || session.stands || session.was_ended) continue;
    return label(id) + " has ended, and its client does not know";
  }
  return {};
}

std::string PrimitivesCheck::what_is_open() const {
  if (!records_.empty()) return fmt::format("record {} is left", *records_.begin());
  for (const auto& [id, session] : sessions_) {
    if (session.stands) return label(id) + " stands";
    if (session.mind == nullptr) continue;
    for (const auto& [number, operation] : session.operations) {
      if (!operation.outcome) return fmt::format("operation {} of {} has not ended", number, label(id));
    }
  }
  return leaders_.who_is_behind();
}

}  // namespace conclave::sim
