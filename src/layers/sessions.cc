#include "layers/sessions.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/errors.h"
#include "keyspace/internal_command.h"
#include "keyspace/wire.h"
#include "layers/listing.h"
#include "layers/recipe.h"
#include "layers/sessions_impl.h"

namespace conclave::layers {
namespace {

using keyspace::CommandKind;
using keyspace::ErrorId;
using enum keyspace::GrpcCode;

constexpr size_t kSecretBytesMin = 16;
constexpr size_t kSecretBytesMax = 64;
constexpr int64_t kTtlMsMin = 1000;
constexpr int64_t kTtlMsMax = int64_t{30} * 24 * 3600 * 1000;
// Opens, attachments and observations of one stream that have no answer yet.
constexpr size_t kRequestsUnderWayMax = 32'768;
// Messages of keep-alives of one stream: each may be of all its sessions, and one every third of the TTL is enough.
constexpr size_t kKeepAlivesUnderWayMax = 64;
// What the server does by itself is tried again after this.
constexpr Duration kAgain = std::chrono::milliseconds(100);
constexpr size_t kLeaseKeysAtOnce = 1024;
// Candidates read from the records in one turn when the index is made.
constexpr size_t kRecordsPerTurn = 1024;

int64_t number_of(SessionId session) {
  return static_cast<int64_t>(session.value());
}
SessionId session_of(int64_t number) {
  return SessionId(static_cast<uint64_t>(number));
}

}  // namespace

// ---- What is said ----

v1::SessionResponse Sessions::Impl::response(SessionId session, uint64_t sequence) const {
  v1::SessionResponse out;
  out.set_session(number_of(session));
  out.set_sequence(sequence);
  out.mutable_place()->set_index(world_.view().index().value());
  out.mutable_place()->set_revision(world_.view().revision().value());
  return out;
}

void Sessions::Impl::send(StreamId stream, v1::SessionResponse&& response) {
  if (streams_.contains(stream)) world_.send(stream, std::move(response));
}

void Sessions::Impl::push(SessionId id, const v1::SessionResponse& response) {
  const auto session = sessions_.find(id);
  if (session == sessions_.end()) return;
  for (const StreamId stream : session->second.streams) world_.send(stream, v1::SessionResponse(response));
}

void Sessions::Impl::send_error(StreamId stream, SessionId session, uint64_t sequence, keyspace::GrpcCode code,
                                std::string_view reason, std::string_view message) {
  v1::SessionResponse out = response(session, sequence);
  out.mutable_error()->set_code(static_cast<uint32_t>(code));
  out.mutable_error()->set_reason(std::string(reason));
  out.mutable_error()->set_message(std::string(message));
  send(stream, std::move(out));
}

Sessions::Impl::Refusal Sessions::Impl::refusal_of(std::optional<NotDone> reason) {
  if (!reason) {
    return {kUnavailable, "UNKNOWN_OUTCOME", "whether it was done is not known: ask again, under the same sequence"};
  }
  switch (*reason) {
    case NotDone::kNoQuorum:
      return {kUnavailable, "NO_QUORUM", "not done: no leader in time"};
    case NotDone::kOverloaded:
      return {kResourceExhausted, "OVERLOADED", "not done: a queue is full"};
    case NotDone::kNoSpace:
      return {kResourceExhausted, "NO_SPACE", "not done: there is no space for more"};
  }
  UNREACHABLE();
}

// ---- Streams ----

StreamId Sessions::Impl::open_stream() {
  streams_.emplace(++last_stream_, Stream());
  return last_stream_;
}

void Sessions::Impl::close_stream(StreamId id) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  for (const auto& [session, name] : std::set(found->second.observed)) stop_observing(id, session, name);
  const Stream stream = std::move(found->second);
  streams_.erase(found);
  for (const SessionId session : stream.sessions) {
    std::erase(sessions_.at(session).streams, id);
    drop_if_idle(session);
  }
}

void Sessions::Impl::request(Instant now, StreamId id, const v1::SessionRequest& request) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  Stream& stream = found->second;
  using What = v1::SessionRequest::WhatCase;
  const SessionId session = session_of(request.session());
  const What what = request.what_case();
  if ((what == What::kOpen || what == What::kAttach || what == What::kObserve) &&
      stream.requests_under_way >= kRequestsUnderWayMax) {
    send_error(id, session, request.sequence(), kResourceExhausted, "OVERLOADED", "too many requests under way");
    return;
  }
  // Elections are observed by whoever wants to.
  const bool observes = what == What::kObserve || what == What::kStopObserving;
  if (what != What::kKeepAlive && request.session() <= (observes ? -1 : 0)) {
    send_error(id, session, request.sequence(), kInvalidArgument, "INVALID_REQUEST",
               "a session's number is above zero");
    return;
  }
  const auto known = sessions_.find(session);
  const bool attached = known != sessions_.end() && known->second.is_spoken_for_by(id);
  switch (what) {
    case What::kOpen:
      open(now, id, request);
      return;
    case What::kAttach:
      attach(id, session, request.attach());
      return;
    case What::kKeepAlive:
      keep_alive(id, request.keep_alive());
      return;
    case What::kDetach:
      if (attached) detach(id, session);
      return;
    case What::WHAT_NOT_SET:
      send_error(id, session, request.sequence(), kInvalidArgument, "INVALID_REQUEST", "nothing is asked");
      return;
    default:
      break;
  }
  if (!attached && !(observes && request.session() == 0)) {
    send_error(id, session, request.sequence(), kFailedPrecondition, "NOT_ATTACHED",
               "the stream does not speak for the session: attach it first");
    return;
  }
  switch (what) {
    case What::kClose:
      close(id, session);
      return;
    case What::kObserve:
      observe(id, request);
      return;
    case What::kStopObserving:
      stop_observing(id, session, request.stop_observing().name());
      return;
    default:
      operate(now, id, request);
  }
}

Ticket Sessions::Impl::issue(Pending pending) {
  const auto stream = streams_.find(pending.stream);
  using Kind = Pending::Kind;
  if (stream != streams_.end() &&
      (pending.kind == Kind::kOpen || pending.kind == Kind::kAttach || pending.kind == Kind::kObserve)) {
    ++stream->second.requests_under_way;
  }
  pending_.emplace(++last_ticket_, std::move(pending));
  return last_ticket_;
}

// ---- Opening and attaching ----

void Sessions::Impl::open(Instant, StreamId id, const v1::SessionRequest& request) {
  const v1::OpenSession& open = request.open();
  const SessionId session = session_of(request.session());
  if (open.session() != 0 && open.session() != request.session()) {
    send_error(id, session, 0, kInvalidArgument, "INVALID_REQUEST", "two different sessions are named");
    return;
  }
  if (open.secret().size() < kSecretBytesMin || open.secret().size() > kSecretBytesMax) {
    send_error(id, session, 0, kInvalidArgument, "INVALID_REQUEST", "a secret has 16 to 64 bytes");
    return;
  }
  if (open.ttl_ms() < kTtlMsMin || open.ttl_ms() > kTtlMsMax) {
    send_error(id, session, 0, kInvalidArgument, "INVALID_TTL", "a session's time is 1 s to 30 days, in milliseconds");
    return;
  }
  if (open.description().size() > keyspace::kSessionDescriptionBytesMax) {
    send_error(id, session, 0, kInvalidArgument, "INVALID_REQUEST", "a description has at most 256 bytes");
    return;
  }
  const std::string hash = world_.hash_of(open.secret());
  std::string body;
  keyspace::encode(keyspace::SessionOpen{.session = session,
                                         .lease = lease_of(session),
                                         .ttl_ms = open.ttl_ms(),
                                         .secret_hash = hash,
                                         .description = open.description()},
                   body);
  world_.write(issue({.kind = Pending::Kind::kOpen, .stream = id, .session = session}),
               {.kind = CommandKind::kSessionOpen}, body);
}

void Sessions::Impl::attach(StreamId id, SessionId session, const v1::AttachSession& request) {
  if (request.incarnation() == 0 || request.incarnation() > kProtocolNumberMax) {
    send_error(id, session, 0, kInvalidArgument, "INVALID_REQUEST", "an incarnation is counted from 1");
    return;
  }
  if (request.secret().size() > kSecretBytesMax) {
    send_error(id, session, 0, kUnauthenticated, "WRONG_SECRET", "that is not the session's secret");
    return;
  }
  world_.read(issue({.kind = Pending::Kind::kAttach,
                     .stream = id,
                     .session = session,
                     .text = world_.hash_of(request.secret()),
                     .incarnation = request.incarnation(),
                     .place = request.place()}));
}

void Sessions::Impl::introduce(Instant now, StreamId stream, const v1::SessionIdentity& identity) {
  const SessionId session = session_of(identity.session());
  if (identity.session() <= 0 || identity.incarnation() == 0 || identity.incarnation() > kProtocolNumberMax ||
      identity.secret().size() > kSecretBytesMax) {
    send_error(stream, session, 0, kInvalidArgument, "INVALID_REQUEST",
               "session and incarnation are above zero, a secret has at most 64 bytes");
    return;
  }
  Pending pending{.kind = Pending::Kind::kAttach,
                  .stream = stream,
                  .session = session,
                  .text = world_.hash_of(identity.secret()),
                  .incarnation = identity.incarnation(),
                  .lists = false};
  // It may be younger than what is known here; what is known stands.
  if (world_.view().session(session) != nullptr) {
    finish_attachment(now, pending);
  } else {
    world_.read(issue(std::move(pending)));
  }
}

// The state includes what anybody was told before the attachment was asked for, where it lists.
void Sessions::Impl::finish_attachment(Instant, const Pending& pending) {
  const SessionId id = pending.session;
  const keyspace::View& view = world_.view();
  const keyspace::Session* known = view.session(id);
  if (known == nullptr) {
    send_error(pending.stream, id, 0, kNotFound, "SESSION_EXPIRED", "there is no such session, or not any more");
    return;
  }
  if (ByteView(known->secret_hash.data(), known->secret_hash.size()) != pending.text) {
    send_error(pending.stream, id, 0, kUnauthenticated, "WRONG_SECRET", "that is not the session's secret");
    return;
  }
  if (pending.place.index() > view.index().value() || pending.place.revision() > view.revision().value()) {
    REACHED(session_place_unknown);
    send_error(pending.stream, id, 0, kOutOfRange, "PLACE_UNKNOWN",
               "the cluster never was at the place named: it was restored from an older state");
    return;
  }
  if (pending.incarnation < known->incarnation) {
    send_error(pending.stream, id, 0, kFailedPrecondition, "TAKEN_OVER", "a later incarnation speaks for the session");
    return;
  }
  Session* session = speak_for(pending.stream, id, pending.incarnation);
  if (session == nullptr) return;
  v1::SessionResponse out = response(id, 0);
  v1::SessionAttached& attached = *out.mutable_attached();
  // As the state is: of an entry with many events the claims are looked at again only later in the turn.
  const auto owns = [&](const std::string& name, const Claim& claim) {
    if (claim.granted || claim.token == Revision()) return claim.granted;
    const std::optional<keyspace::KeyValue> owner = owner_of(view, name);
    return owner && owner->key == claim.key;
  };
  const std::optional<keyspace::LeaseInfo> lease = view.lease(lease_of(id));
  if (lease) attached.set_ttl_ms(lease->ttl_ms);
  if (pending.lists) {
    list_claims(id, *session);
    for (const auto& [name, claim] : session->claims) {
      v1::Claim& told = *attached.add_claims();
      told.set_name(name);
      told.set_kind(claim.kind == ClaimKind::kLock ? v1::LOCK : v1::ELECTION);
      told.set_token(claim.token.value());
      told.set_granted(owns(name, claim));
    }
  }
  // First: from the list alone the client would not know why.
  if (pending.lists) tell_forced(pending.stream, id, *session);
  send(pending.stream, std::move(out));
  if (!pending.lists) return;
  for (const auto& [name, claim] : session->claims) {
    if (!owns(name, claim)) continue;
    RequestRecord record;
    const keyspace::Record* request = view.record(request_record_key(claim.key));
    if (request != nullptr && decode(request->value, record)) tell_request(id, name, claim, record);
  }
}

// Null if it must not, which was said.
Sessions::Impl::Session* Sessions::Impl::speak_for(StreamId id, SessionId session_id, uint64_t incarnation) {
  const auto stream = streams_.find(id);
  if (stream == streams_.end()) return nullptr;
  const auto known = sessions_.find(session_id);
  if (known != sessions_.end() && known->second.incarnation > incarnation) {
    send_error(id, session_id, 0, kFailedPrecondition, "TAKEN_OVER", "a later incarnation speaks for the session");
    return nullptr;
  }
  if (!stream->second.sessions.contains(session_id) &&
      stream->second.sessions.size() >= options_.sessions_per_stream_max) {
    send_error(id, session_id, 0, kResourceExhausted, "OVERLOADED", "the stream speaks for too many sessions");
    return nullptr;
  }
  Session& session = sessions_[session_id];
  if (session.incarnation < incarnation) {
    for (const StreamId other : std::vector(session.streams)) {
      if (other == id) continue;
      REACHED(session_taken_over);
      v1::SessionResponse out = response(session_id, 0);
      out.mutable_ended()->set_reason(v1::SessionEnded::TAKEN_OVER);
      send(other, std::move(out));
      stop_observing(other, session_id);
      streams_.at(other).sessions.erase(session_id);
      std::erase(session.streams, other);
    }
  }
  session.incarnation = incarnation;
  if (std::find(session.streams.begin(), session.streams.end(), id) == session.streams.end()) {
    session.streams.push_back(id);
  }
  stream->second.sessions.insert(session_id);
  return &session;
}

std::map<std::string, Sessions::Impl::Standing> Sessions::Impl::claims_of(SessionId id, size_t enough) const {
  const keyspace::View& view = world_.view();
  const LeaseId lease = lease_of(id);
  const std::string suffix = claim_key("", lease);  // "/HEX"
  std::map<std::string, Standing> found;
  // The session's other keys hang on its lease as well.
  for (std::string from;;) {
    const std::vector<std::string> keys = view.lease_keys(lease, from, kLeaseKeysAtOnce);
    for (const std::string& key : keys) {
      if (key.size() <= suffix.size() || !key.ends_with(suffix)) continue;
      const std::optional<keyspace::KeyValue> value = view.get(key);
      if (!value) continue;
      found[key.substr(0, key.size() - suffix.size())] = {.kind = claim_record_of(view, key).kind,
                                                          .token = value->create};
    }
    if (keys.size() < kLeaseKeysAtOnce || found.size() >= enough) break;
    from = keys.back() + '\0';
  }
  view.scan_lease_records(lease, kCandidateRecords, SIZE_MAX, [&](ByteView key, const keyspace::Record&) {
    std::string name;
    SessionId candidate;
    if (!decode_candidate_key(key, name, candidate)) return key.starts_with(kCandidateRecords);
    if (candidate == id) found.try_emplace(std::move(name), Standing{.kind = ClaimKind::kElection, .token = {}});
    return true;
  });
  return found;
}

void Sessions::Impl::list_claims(SessionId id, Session& session) {
  std::set<std::string> found;
  for (const auto& [name, standing] : claims_of(id)) {
    found.insert(name);
    const auto known = session.claims.find(name);
    if (known != session.claims.end() && known->second.token == standing.token) continue;
    track(id, session, name, standing.kind, standing.token,
          known == session.claims.end() ? 0 : known->second.operation);
  }
  std::vector<std::string> gone;
  for (const auto& [name, claim] : session.claims) {
    if (!found.contains(name)) gone.push_back(name);
  }
  for (const std::string& name : gone) forget_claim(session, name);
  session.listed = true;
}

void Sessions::Impl::close(StreamId id, SessionId session) {
  std::string body;
  keyspace::append_int64_field(body, 1, number_of(session));
  world_.write(issue({.kind = Pending::Kind::kClose, .stream = id, .session = session}),
               {.kind = CommandKind::kLeaseRevoke}, body);
}

// ---- Ends ----

void Sessions::Impl::detach(StreamId id, SessionId session) {
  stop_observing(id, session);
  streams_.at(id).sessions.erase(session);
  std::erase(sessions_.at(session).streams, id);
  drop_if_idle(session);
}

void Sessions::Impl::set_lagging(Instant now, bool lagging) {
  if (lagging == is_lagging_) return;
  is_lagging_ = lagging;
  to_hand_over_.clear();
  if (!lagging) return;
  hand_over_at_ = std::max(hand_over_at_, now);
  for (const auto& [id, stream] : streams_) {
    if (!stream.sessions.empty()) to_hand_over_.push_back(id);
  }
}

void Sessions::Impl::hand_over(Instant now) {
  while (!to_hand_over_.empty() && hand_over_at_ <= now) {
    const StreamId id = to_hand_over_.front();
    to_hand_over_.pop_front();
    const auto stream = streams_.find(id);
    if (stream == streams_.end()) continue;
    const std::set<SessionId> sessions = stream->second.sessions;
    for (const SessionId session : sessions) {
      REACHED(session_handed_over);
      v1::SessionResponse out = response(session, 0);
      out.mutable_ended()->set_reason(v1::SessionEnded::MOVED);
      send(id, std::move(out));
      detach(id, session);
    }
    handed_over_ += sessions.size();
    hand_over_at_ = now + Duration(std::chrono::seconds(1)) * static_cast<int64_t>(sessions.size()) /
                              static_cast<int64_t>(options_.handed_over_per_second);
  }
}

// Nobody speaks for it here: it is known no longer, but for what is still to be taken back.
void Sessions::Impl::drop_if_idle(SessionId id) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end() || !found->second.streams.empty()) return;
  Session& session = found->second;
  for (auto at = session.operations.begin(); at != session.operations.end();) {
    if (at->second.withdrawn) {
      ++at;
      continue;
    }
    waits_.erase({at->second.deadline, {id, at->first}});
    at = session.operations.erase(at);
  }
  while (!session.claims.empty()) forget_claim(session, std::string(session.claims.begin()->first));
  session.listed = false;
  if (session.operations.empty()) sessions_.erase(found);
}

void Sessions::Impl::end_session(SessionId id, v1::SessionEnded::Reason reason) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  v1::SessionResponse out = response(id, 0);
  out.mutable_ended()->set_reason(reason);
  push(id, out);
  Session& session = found->second;
  for (const StreamId stream : session.streams) {
    stop_observing(stream, id);
    streams_.at(stream).sessions.erase(id);
  }
  for (const auto& [sequence, operation] : session.operations) waits_.erase({operation.deadline, {id, sequence}});
  while (!session.claims.empty()) forget_claim(session, std::string(session.claims.begin()->first));
  sessions_.erase(found);
}

void Sessions::Impl::forget_claim(Session& session, const std::string& name) {
  const auto found = session.claims.find(name);
  if (found == session.claims.end()) return;
  if (found->second.waiter != 0) {
    queue_.forget(found->second.waiter);
    waiters_.erase(found->second.waiter);
  } else {
    candidacies_.erase(found->second.key);
  }
  session.claims.erase(found);
}

// ---- Keep-alives ----

void Sessions::Impl::keep_alive(StreamId id, const v1::KeepSessions& request) {
  Stream& stream = streams_.at(id);
  if (stream.keep_alives_under_way >= kKeepAlivesUnderWayMax) {
    send_error(id, SessionId(), 0, kResourceExhausted, "OVERLOADED", "too many keep-alives under way");
    return;
  }
  const uint64_t number = ++last_keep_alive_;
  KeepAlive& keep = keep_alives_[number];
  keep.stream = id;
  keep.answer.set_id(request.id());
  ++stream.keep_alives_under_way;
  if (request.sessions().empty()) {
    keep.to_ask.assign(stream.sessions.begin(), stream.sessions.end());
  } else {
    for (const int64_t session : request.sessions()) {
      if (stream.sessions.contains(session_of(session))) {
        keep.to_ask.push_back(session_of(session));
      } else {
        keep.answer.add_failed(session);
      }
    }
  }
  keep.waiting = keep.to_ask.size();
  if (keep.waiting == 0) {
    finish_keep_alive(number);
    return;
  }
  keep_alives_to_ask_.push_back(number);
  ask_keep_alives();
}

// In the order they came, as many at once as the replica takes well.
void Sessions::Impl::ask_keep_alives() {
  while (!keep_alives_to_ask_.empty() && keep_alives_under_way_ < options_.keep_alives_under_way_max) {
    const uint64_t number = keep_alives_to_ask_.front();
    std::vector<SessionId>& to_ask = keep_alives_.at(number).to_ask;
    const SessionId session = to_ask.back();
    to_ask.pop_back();
    // What is answered at once may end it.
    if (to_ask.empty()) keep_alives_to_ask_.pop_front();
    ++keep_alives_under_way_;
    world_.keep_alive(issue({.kind = Pending::Kind::kKeepAlive, .session = session, .number = number}),
                      lease_of(session));
  }
}

void Sessions::Impl::on_kept(Ticket ticket, std::optional<int64_t> ttl_ms) {
  const auto pending = pending_.extract(ticket);
  if (pending.empty()) return;
  --keep_alives_under_way_;
  const uint64_t number = pending.mapped().number;
  KeepAlive& keep = keep_alives_.at(number);
  if (!ttl_ms) {
    keep.answer.add_failed(number_of(pending.mapped().session));
  } else if (*ttl_ms == 0) {
    keep.answer.add_gone(number_of(pending.mapped().session));
  }
  if (--keep.waiting == 0) finish_keep_alive(number);
}

void Sessions::Impl::finish_keep_alive(uint64_t number) {
  const auto found = keep_alives_.find(number);
  v1::SessionResponse out = response(SessionId(), 0);
  *out.mutable_kept() = std::move(found->second.answer);
  const auto stream = streams_.find(found->second.stream);
  if (stream != streams_.end()) {
    --stream->second.keep_alives_under_way;
    send(stream->first, std::move(out));
  }
  keep_alives_.erase(found);
}

// ---- Answers ----

void Sessions::Impl::on_written(Instant now, Ticket ticket, const Reply& reply) {
  const auto extracted = pending_.extract(ticket);
  if (extracted.empty()) return;
  const Pending& pending = extracted.mapped();
  switch (pending.kind) {
    case Pending::Kind::kOperation:
      on_operation_written(now, ticket, pending, reply);
      return;
    case Pending::Kind::kOpen: {
      const auto stream = streams_.find(pending.stream);
      if (stream == streams_.end()) return;
      --stream->second.requests_under_way;
      if (reply.error == ErrorId::kSessionExists || reply.error == ErrorId::kLeaseExists) {
        send_error(pending.stream, pending.session, 0, kAlreadyExists, "SESSION_EXISTS",
                   "another session or lease has that number: choose one at random");
        return;
      }
      if (reply.error != ErrorId::kNone) {
        send_error(pending.stream, pending.session, 0, kInvalidArgument, "INVALID_REQUEST",
                   keyspace::error_text(reply.error));
        return;
      }
      const keyspace::Session* known = world_.view().session(pending.session);
      const std::optional<keyspace::LeaseInfo> lease = world_.view().lease(lease_of(pending.session));
      // A repeated one finds a session that has done something meanwhile.
      const uint64_t incarnation = known == nullptr ? 1 : std::max<uint64_t>(1, known->incarnation);
      if (speak_for(pending.stream, pending.session, incarnation) == nullptr) return;
      v1::SessionResponse out = response(pending.session, 0);
      out.mutable_opened()->set_ttl_ms(lease ? lease->ttl_ms : 0);
      send(pending.stream, std::move(out));
      return;
    }
    case Pending::Kind::kClose: {
      // That it is gone already is as good.
      end_session(pending.session, v1::SessionEnded::CLOSED);
      v1::SessionResponse out = response(pending.session, 0);
      out.mutable_closed();
      send(pending.stream, std::move(out));
      return;
    }
    case Pending::Kind::kWithdrawal: {
      const auto withdrawal = withdrawals_.find(pending.number);
      withdrawal->second.ticket = 0;
      // Of the mark: only where it was applied before is there anything of it. Otherwise it never happened, and will
      // not; or a later incarnation has asked for something, and what it asks for again is its own.
      if (withdrawal->second.unknown_sequence != 0) {
        if (reply.error != ErrorId::kRepeated) withdrawal->second.names.clear();
        withdrawal->second.unknown_sequence = 0;
      }
      run_withdrawal(now, pending.number);
      return;
    }
    case Pending::Kind::kElection:
      elections_.on_decided(pending.text);
      return;
    case Pending::Kind::kAttach:
    case Pending::Kind::kObserve:
    case Pending::Kind::kKeepAlive:
      break;
  }
  UNREACHABLE();
}

void Sessions::Impl::on_not_written(Instant now, Ticket ticket, std::optional<NotDone> reason) {
  const auto extracted = pending_.extract(ticket);
  if (extracted.empty()) return;
  const Pending& pending = extracted.mapped();
  switch (pending.kind) {
    case Pending::Kind::kOperation:
      on_operation_not_written(now, ticket, pending, reason);
      return;
    case Pending::Kind::kOpen:
    case Pending::Kind::kClose: {
      const auto stream = streams_.find(pending.stream);
      if (stream == streams_.end()) return;
      if (pending.kind == Pending::Kind::kOpen) --stream->second.requests_under_way;
      send_error(pending.stream, pending.session, 0, refusal_of(reason));
      return;
    }
    case Pending::Kind::kWithdrawal:
      withdrawals_.at(pending.number).ticket = 0;
      withdrawals_again_.emplace(now + kAgain, pending.number);
      return;
    case Pending::Kind::kElection:
      elections_again_.emplace(now + kAgain, pending.text);
      return;
    case Pending::Kind::kAttach:
    case Pending::Kind::kObserve:
    case Pending::Kind::kKeepAlive:
      break;
  }
  UNREACHABLE();
}

void Sessions::Impl::on_read(Instant now, Ticket ticket) {
  auto extracted = pending_.extract(ticket);
  if (extracted.empty()) return;
  Pending& pending = extracted.mapped();
  if (pending.kind == Pending::Kind::kAttach || pending.kind == Pending::Kind::kObserve) {
    const auto stream = streams_.find(pending.stream);
    if (stream == streams_.end()) return;
    --stream->second.requests_under_way;
    if (world_.is_settled()) {
      finish_read(now, pending);
    } else {
      REACHED(session_attached_after_large_entry);
      unsettled_attachments_.push_back(std::move(pending));
    }
    return;
  }
  const auto session = sessions_.find(pending.session);
  if (session == sessions_.end()) return;
  const auto operation = session->second.operations.find(pending.number);
  if (operation == session->second.operations.end() || operation->second.ticket != ticket) return;
  operation->second.ticket = 0;
  operation->second.proven = true;
  run(now, pending.session, pending.number);
}

void Sessions::Impl::finish_read(Instant now, const Pending& pending) {
  if (pending.kind == Pending::Kind::kObserve) {
    begin_observing(pending);
  } else {
    finish_attachment(now, pending);
  }
}

void Sessions::Impl::on_read_refused(Instant now, Ticket ticket, NotDone reason) {
  const auto extracted = pending_.extract(ticket);
  if (extracted.empty()) return;
  const Pending& pending = extracted.mapped();
  if (pending.kind == Pending::Kind::kOperation) {
    on_operation_not_written(now, ticket, pending, reason);
    return;
  }
  const auto stream = streams_.find(pending.stream);
  if (stream == streams_.end()) return;
  if (pending.kind == Pending::Kind::kObserve) {
    // It has no number by which its client could ask again: that is done here, and it counts as under way.
    REACHED(session_observer_asked_again);
    observers_again_.emplace_back(now + kAgain, pending);
    return;
  }
  --stream->second.requests_under_way;
  send_error(pending.stream, pending.session, 0, refusal_of(reason));
}

// ---- Time and work ----

void Sessions::Impl::set_leading(Term term) {
  if (term == elections_.term()) return;
  if (term == Term()) {
    elections_.follow();
  } else {
    elections_.lead(term);
  }
  // What was to be asked again is decided anew.
  for (const auto& [at, name] : std::exchange(elections_again_, {})) elections_.on_decided(name);
}

void Sessions::Impl::tick(Instant now) {
  end_waits(now);
  hand_over(now);
  tell_candidates(now);
  while (!withdrawals_again_.empty() && withdrawals_again_.begin()->first <= now) {
    const uint64_t number = withdrawals_again_.begin()->second;
    withdrawals_again_.erase(withdrawals_again_.begin());
    run_withdrawal(now, number);
  }
  while (!elections_again_.empty() && elections_again_.begin()->first <= now) {
    elections_.on_decided(elections_again_.begin()->second);
    elections_again_.erase(elections_again_.begin());
  }
  while (!observers_again_.empty() && observers_again_.front().first <= now) {
    Pending pending = std::move(observers_again_.front().second);
    observers_again_.pop_front();
    const auto stream = streams_.find(pending.stream);
    if (stream == streams_.end()) continue;
    --stream->second.requests_under_way;
    world_.read(issue(std::move(pending)));
  }
}

Instant Sessions::Impl::next_deadline() const {
  Instant next = kNever;
  if (!waits_.empty()) next = std::min(next, waits_.begin()->first);
  if (!to_hand_over_.empty()) next = std::min(next, hand_over_at_);
  if (!withdrawals_again_.empty()) next = std::min(next, withdrawals_again_.begin()->first);
  if (!elections_again_.empty()) next = std::min(next, elections_again_.begin()->first);
  if (!observers_again_.empty()) next = std::min(next, observers_again_.front().first);
  if (!candidates_changed_.empty()) next = std::min(next, candidates_at_);
  return next;
}

bool Sessions::Impl::has_work() const {
  // Renewals that wait are asked with the next turn after answers came: those come many at once.
  if (!keep_alives_to_ask_.empty() && keep_alives_under_way_ < options_.keep_alives_under_way_max) return true;
  if (!world_.is_settled()) return false;
  return queue_.is_rechecking() || elections_.is_rebuilding() || elections_.has_decisions() || !unsettled_.empty() ||
         !unsettled_attachments_.empty();
}

void Sessions::Impl::work(Instant now) {
  ask_keep_alives();
  if (!world_.is_settled()) return;
  run_settled(now);
  if (elections_.is_rebuilding()) (void)elections_.rebuild(world_.view(), kRecordsPerTurn);
  if (queue_.is_rechecking()) {
    (void)queue_.recheck(world_.view(), options_.rechecks_per_turn);
    take_decisions();
  }
  decide_elections();
}

void Sessions::Impl::run_settled(Instant now) {
  for (size_t count = unsettled_attachments_.size(); count > 0; --count) {
    const Pending pending = std::move(unsettled_attachments_.front());
    unsettled_attachments_.pop_front();
    finish_read(now, pending);
  }
  for (size_t count = unsettled_.size(); count > 0; --count) {
    const auto [session, sequence] = unsettled_.front();
    unsettled_.pop_front();
    run(now, session, sequence);
  }
}

// ---- The face ----

Sessions::Sessions(const SessionsOptions& options, SessionsWorld& world)
    : impl_(std::make_unique<Impl>(options, world)) {}
Sessions::~Sessions() = default;
StreamId Sessions::open_stream() {
  return impl_->open_stream();
}
void Sessions::close_stream(StreamId stream) {
  impl_->close_stream(stream);
}
void Sessions::request(Instant now, StreamId stream, const v1::SessionRequest& request) {
  impl_->request(now, stream, request);
}
void Sessions::introduce(Instant now, StreamId stream, const v1::SessionIdentity& identity) {
  impl_->introduce(now, stream, identity);
}
void Sessions::withdraw(Instant now, StreamId stream, SessionId session, uint64_t sequence) {
  impl_->withdraw(now, stream, session, sequence);
}
void Sessions::on_written(Instant now, Ticket ticket, const keyspace::Reply& reply) {
  impl_->on_written(now, ticket, reply);
}
void Sessions::on_write_refused(Instant now, Ticket ticket, NotDone reason) {
  impl_->on_not_written(now, ticket, reason);
}
void Sessions::on_write_unknown(Instant now, Ticket ticket) {
  impl_->on_not_written(now, ticket, std::nullopt);
}
void Sessions::on_read(Instant now, Ticket ticket) {
  impl_->on_read(now, ticket);
}
void Sessions::on_read_refused(Instant now, Ticket ticket, NotDone reason) {
  impl_->on_read_refused(now, ticket, reason);
}
void Sessions::on_kept_alive(Ticket ticket, int64_t ttl_ms) {
  impl_->on_kept(ticket, ttl_ms);
}
void Sessions::on_keep_alive_refused(Ticket ticket, NotDone) {
  impl_->on_kept(ticket, std::nullopt);
}
void Sessions::on_applied(Instant now, const keyspace::Applied& applied) {
  impl_->on_applied(now, applied);
}
void Sessions::on_state_replaced(Instant now) {
  impl_->on_state_replaced(now);
}
void Sessions::set_leading(Term term) {
  impl_->set_leading(term);
}
void Sessions::set_lagging(Instant now, bool lagging) {
  impl_->set_lagging(now, lagging);
}
void Sessions::tick(Instant now) {
  impl_->tick(now);
}
Instant Sessions::next_deadline() const {
  return impl_->next_deadline();
}
bool Sessions::has_work() const {
  return impl_->has_work();
}
void Sessions::work(Instant now) {
  impl_->work(now);
}
size_t Sessions::streams() const {
  return impl_->streams();
}
size_t Sessions::attached() const {
  return impl_->attached();
}
uint64_t Sessions::handed_over() const {
  return impl_->handed_over();
}
size_t Sessions::waiters() const {
  return impl_->waiters();
}

}  // namespace conclave::layers
