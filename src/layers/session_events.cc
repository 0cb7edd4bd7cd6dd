// What clients are told without asking: grants and losses of claims, ends of sessions, requests to release, leaders;
// and the decisions of the server that leads. All of it follows from applied entries, in their order.
#include <algorithm>

#include "base/assert.h"
#include "base/mark.h"
#include "layers/listing.h"
#include "layers/recipe.h"
#include "layers/sessions_impl.h"

namespace conclave::layers {
namespace {

using keyspace::CommandKind;
using enum keyspace::GrpcCode;

constexpr Duration kCandidatesToldEvery = std::chrono::milliseconds(100);
// While the state cannot be looked at, or the index is built anew.
constexpr Duration kCandidatesAgain = std::chrono::milliseconds(1);

}  // namespace

void Sessions::Impl::on_applied(Instant now, const keyspace::Applied& applied) {
  for (const LeaseId lease : applied.effects.leases_ended) {
    if (!sessions_.contains(session_of(lease))) continue;
    // An end decided by the leader's clock carries its term, and one that is to be taken for it is of that kind.
    const keyspace::CommandHeader& header = applied.reply.header;
    const bool expired = header.term != Term() || header.kind == CommandKind::kLeaseExpire;
    end_session(session_of(lease), expired ? v1::SessionEnded::EXPIRED : v1::SessionEnded::CLOSED);
  }
  const bool has_interest = queue_.waiters() > 0 || !candidacies_.empty() || !elections_.empty() || !observed_.empty();
  if (has_interest && applied.event_count > 0) {
    if (applied.event_count > options_.events_per_entry_max) {
      REACHED(sessions_recheck);
      recheck_all();
    } else {
      queue_.on_applied(world_.view(), applied);
      take_decisions();
      std::set<std::string> changed;
      std::set<std::string> twice;
      follow_events(applied, changed, twice);
      for (const std::string& name : changed) elections_.on_claims_changed(name);
      look_at_leaders(changed, twice);
    }
  }
  for (const keyspace::RecordChange& change : applied.effects.records) {
    if (change.key.starts_with(kCandidateRecords)) {
      elections_.on_record(world_.view(), change.key);
      on_candidate_record(change.key);
    } else if (change.key.starts_with(kRequestRecords) && !change.deleted) {
      on_request_record(change.key);
    }
  }
  run_settled(now);
  decide_elections();
}

// Claims that were put for candidates here; and the names on whose direct children something happened, those apart on
// which it did in more than one revision.
void Sessions::Impl::follow_events(const keyspace::Applied& applied, std::set<std::string>& names,
                                   std::set<std::string>& twice) {
  if (candidacies_.empty() && elections_.empty() && observed_.empty()) return;
  std::map<std::string, int64_t> seen;
  std::vector<std::pair<SessionId, std::string>> elected;
  applied.events([&](const keyspace::Version& event) {
    const ByteView key = event.key->bytes();
    if (!event.is_tombstone()) {
      const auto candidacy = candidacies_.find(key);
      if (candidacy != candidacies_.end()) elected.push_back(candidacy->second);
    }
    if (elections_.empty() && observed_.empty()) return;
    std::string name(name_of(key));
    const auto known = seen.find(name);
    if (known == seen.end()) {
      seen.emplace(name, event.mod);
      names.insert(std::move(name));
    } else if (known->second != event.mod) {
      twice.insert(std::move(name));
    }
  });
  for (const auto& [id, name] : elected) follow_candidate(id, name);
}

void Sessions::Impl::recheck_all() {
  queue_.begin_recheck();
  std::vector<std::pair<SessionId, std::string>> all;
  all.reserve(candidacies_.size());
  for (const auto& [key, candidacy] : candidacies_) all.push_back(candidacy);
  for (const auto& [id, name] : all) follow_candidate(id, name);
  elections_.on_all_changed();
  std::set<std::string> names;
  for (const auto& [name, observed] : observed_) names.insert(name);
  look_at_leaders(names, names);
}

// A candidate of a session here: its claim stands, or its record, or neither.
void Sessions::Impl::follow_candidate(SessionId id, const std::string& name) {
  Session& session = sessions_.at(id);
  const auto found = session.claims.find(name);
  if (found == session.claims.end() || found->second.token != Revision()) return;
  const std::optional<keyspace::KeyValue> own = world_.view().get(found->second.key);
  if (own && own->lease == lease_of(id)) {
    track(id, session, name, ClaimKind::kElection, own->create, found->second.operation);
    const Claim& claim = session.claims.at(name);
    if (claim.granted) tell_granted(id, session, name);
    return;
  }
  if (world_.view().record(candidate_record_key(name, id)) != nullptr) return;
  tell_lost(id, session, name);
}

void Sessions::Impl::on_candidate_record(ByteView key) {
  std::string name;
  SessionId id;
  if (!decode_candidate_key(key, name, id)) return;
  if (observed_.contains(name)) candidates_changed_.insert(name);
  const auto session = sessions_.find(id);
  if (session == sessions_.end()) return;
  // Its own withdrawal has been taken note of already.
  follow_candidate(id, name);
}

void Sessions::Impl::take_decisions() {
  for (const ClaimQueue::Decision& decision : queue_.take_decisions()) {
    const auto waiter = waiters_.find(decision.waiter);
    ASSERT(waiter != waiters_.end());
    const auto [id, name] = waiter->second;
    Session& session = sessions_.at(id);
    Claim& claim = session.claims.at(name);
    if (decision.outcome == ClaimQueue::Outcome::kGranted) {
      claim.granted = true;
      tell_granted(id, session, name);
    } else if (!claim.granted && claim.kind == ClaimKind::kElection &&
               world_.view().record(candidate_record_key(name, id)) != nullptr) {
      REACHED(session_candidate_again);
      track(id, session, name, ClaimKind::kElection, {}, claim.operation);
    } else {
      tell_lost(id, session, name);
    }
  }
}

void Sessions::Impl::tell_granted(SessionId id, Session& session, const std::string& name) {
  const Claim& claim = session.claims.at(name);
  v1::SessionResponse out = response(id, 0);
  out.mutable_granted()->set_name(name);
  out.mutable_granted()->set_token(claim.token.value());
  push(id, out);
  const auto operation = session.operations.find(claim.operation);
  if (operation == session.operations.end() || operation->second.stage != Operation::Stage::kAnswered) return;
  for (const std::string& other : operation->second.names) {
    const auto held = session.claims.find(other);
    if (held != session.claims.end() && !held->second.granted) return;
  }
  waits_.erase({operation->second.deadline, {id, operation->first}});
  session.operations.erase(operation);
}

void Sessions::Impl::tell_lost(SessionId id, Session& session, const std::string& name) {
  const Claim claim = session.claims.at(name);
  v1::SessionResponse out = response(id, 0);
  v1::Lost& lost = *out.mutable_lost();
  lost.set_name(name);
  lost.set_token(claim.token.value());
  RequestRecord record;
  const keyspace::Record* request = world_.view().record(request_record_key(claim.key));
  if (request != nullptr && decode(request->value, record) && record.forced && record.token == claim.token.value()) {
    lost.set_reason(v1::Lost::FORCED);
    lost.set_note(record.note);
  }
  forget_claim(session, name);
  const auto operation = session.operations.find(claim.operation);
  // Of several names those that are left stand on, until their client or its time limit takes them back.
  if (operation != session.operations.end() && operation->second.stage == Operation::Stage::kAnswered &&
      std::none_of(operation->second.names.begin(), operation->second.names.end(),
                   [&](const std::string& other) { return session.claims.contains(other); })) {
    waits_.erase({operation->second.deadline, {id, operation->first}});
    session.operations.erase(operation);
  }
  push(id, out);
}

// What it had was ended by decision while it was not attached. Told again with each attachment; of what its client does
// not hold by that token it says nothing.
void Sessions::Impl::tell_forced(StreamId stream, SessionId id, const Session& session) {
  world_.view().scan_lease_records(
      lease_of(id), kRequestRecords, SIZE_MAX, [&](ByteView key, const keyspace::Record& record) {
        if (!key.starts_with(kRequestRecords)) return false;
        RequestRecord request;
        const std::string name(name_of(key.substr(kRequestRecords.size())));
        if (!decode(record.value, request) || !request.forced || session.claims.contains(name)) return true;
        v1::SessionResponse out = response(id, 0);
        v1::Lost& lost = *out.mutable_lost();
        lost.set_name(name);
        lost.set_token(request.token);
        lost.set_reason(v1::Lost::FORCED);
        lost.set_note(request.note);
        send(stream, std::move(out));
        return true;
      });
}

// ---- Requests to release ----

void Sessions::Impl::on_request_record(ByteView key) {
  const ByteView claim_key = key.substr(kRequestRecords.size());
  const keyspace::Record* record = world_.view().record(key);
  if (record == nullptr) return;
  const auto session = sessions_.find(session_of(record->lease));
  if (session == sessions_.end()) return;
  const std::string name(name_of(claim_key));
  const auto claim = session->second.claims.find(name);
  RequestRecord request;
  if (claim == session->second.claims.end() || !decode(record->value, request)) return;
  tell_request(session->first, name, claim->second, request);
}

void Sessions::Impl::tell_request(SessionId id, const std::string& name, const Claim& claim,
                                  const RequestRecord& record) {
  if (record.forced || record.token != claim.token.value()) return;
  v1::SessionResponse out = response(id, 0);
  out.mutable_release_requested()->set_name(name);
  out.mutable_release_requested()->set_token(record.token);
  out.mutable_release_requested()->set_note(record.note);
  push(id, out);
}

// ---- Observers ----

void Sessions::Impl::observe(StreamId stream, const v1::SessionRequest& request) {
  const SessionId id(static_cast<uint64_t>(request.session()));
  if (const std::optional<std::string_view> why = why_no_name(request.observe().name())) {
    send_error(stream, id, 0, kInvalidArgument, "INVALID_NAME", *why);
    return;
  }
  Stream& state = streams_.at(stream);
  if (state.observed.size() >= options_.claims_per_session_max &&
      !state.observed.contains({id, request.observe().name()})) {
    send_error(stream, id, 0, kResourceExhausted, "OVERLOADED", "the stream observes too many elections");
    return;
  }
  // A vacancy, and who leads now, are told by proof.
  world_.read(issue({.kind = Pending::Kind::kObserve,
                     .stream = stream,
                     .session = id,
                     .text = request.observe().name(),
                     .seen = {request.observe().token(), request.observe().mod_revision()},
                     .candidates = request.observe().candidates()}));
}

void Sessions::Impl::begin_observing(const Pending& pending) {
  const auto stream = streams_.find(pending.stream);
  if (stream == streams_.end()) return;
  stream->second.observed.insert({pending.session, pending.text});
  Observed& observed = observed_[pending.text];
  observed.last = leadership_of(world_.view(), pending.text);
  observed.observers[{pending.stream, pending.session}] = pending.candidates;
  v1::SessionResponse out = response(pending.session, 0);
  *out.mutable_leadership() = observed.last;
  // What it saw last is still so: nothing was missed.
  const auto [token, mod_revision] = pending.seen;
  const bool same = token != 0 && token == observed.last.token() && mod_revision == observed.last.mod_revision();
  out.mutable_leadership()->set_first(true);
  // While the index is built anew they follow.
  if (pending.candidates && elections_.is_rebuilding()) {
    candidates_changed_.insert(pending.text);
  } else if (pending.candidates) {
    *out.mutable_leadership()->mutable_candidates() = candidates_of(world_.view(), elections_, pending.text);
  }
  out.mutable_leadership()->set_skipped((token != 0 || mod_revision != 0) && !same);
  send(pending.stream, std::move(out));
}

void Sessions::Impl::stop_observing(StreamId stream, SessionId session, const std::string& name) {
  if (streams_.at(stream).observed.erase({session, name}) == 0) return;
  const auto observed = observed_.find(name);
  observed->second.observers.erase({stream, session});
  if (observed->second.observers.empty()) observed_.erase(observed);
}

// All that it observes.
void Sessions::Impl::stop_observing(StreamId stream, SessionId session) {
  const auto& all = streams_.at(stream).observed;
  for (auto at = all.lower_bound({session, {}}); at != all.end() && at->first == session;) {
    const std::string name = at->second;
    ++at;
    stop_observing(stream, session, name);
  }
}

void Sessions::Impl::look_at_leaders(const std::set<std::string>& names, const std::set<std::string>& twice) {
  if (observed_.empty()) return;
  for (const std::string& name : names) {
    const auto found = observed_.find(name);
    if (found == observed_.end()) continue;
    Observed& observed = found->second;
    v1::Leadership now = leadership_of(world_.view(), name);
    const bool same = now.token() == observed.last.token() &&
                      (now.token() == 0 || now.mod_revision() == observed.last.mod_revision());
    if (same && !twice.contains(name)) continue;
    observed.last = now;
    now.set_skipped(twice.contains(name));
    for (const auto& [observer, with_candidates] : observed.observers) {
      v1::SessionResponse out = response(observer.second, 0);
      *out.mutable_leadership() = now;
      send(observer.first, std::move(out));
    }
  }
}

// Now and then: many campaign one after the other, and each change would be told to each observer.
void Sessions::Impl::tell_candidates(Instant now) {
  if (candidates_changed_.empty() || now < candidates_at_) return;
  const bool may_look = world_.is_settled() && !elections_.is_rebuilding();
  candidates_at_ = now + (may_look ? kCandidatesToldEvery : kCandidatesAgain);
  if (!may_look) return;
  for (const std::string& name : std::exchange(candidates_changed_, {})) {
    const auto found = observed_.find(name);
    if (found == observed_.end()) continue;
    v1::Leadership told = found->second.last;
    *told.mutable_candidates() = candidates_of(world_.view(), elections_, name);
    for (const auto& [observer, with_candidates] : found->second.observers) {
      if (!with_candidates) continue;
      v1::SessionResponse out = response(observer.second, 0);
      *out.mutable_leadership() = told;
      send(observer.first, std::move(out));
    }
  }
}

// ---- The leader ----

void Sessions::Impl::decide_elections() {
  if (!world_.is_settled()) return;
  while (std::optional<Elections::Decision> decision = elections_.decide(world_.view())) {
    const Ticket ticket = issue({.kind = Pending::Kind::kElection, .text = decision->name});
    world_.write(ticket, {.kind = CommandKind::kInternal, .term = elections_.term()}, decision->command);
  }
}

// Nothing of the old state may be referred to. All sessions are to be attached anew, from the new one: what happened
// between the two was not seen here.
void Sessions::Impl::on_state_replaced(Instant) {
  REACHED(sessions_state_replaced);
  std::vector<SessionId> all;
  all.reserve(sessions_.size());
  for (const auto& [id, session] : sessions_) all.push_back(id);
  std::sort(all.begin(), all.end());
  for (const SessionId id : all) end_session(id, v1::SessionEnded::MOVED);
  std::set<std::string> names;
  for (const auto& [name, observed] : observed_) names.insert(name);
  look_at_leaders(names, names);
  elections_.begin_rebuild();
  candidates_changed_ = std::move(names);
}

}  // namespace conclave::layers
