#include "api/sessions_host.h"

#include <openssl/evp.h>

#include "api/limits.h"
#include "api/status.h"
#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/limits.h"

namespace conclave::api {
namespace {

using keyspace::ErrorId;
using layers::NotDone;

// Of what is answered under its sequence or its session; nothing of the rest.
std::optional<SessionOperation> operation_of(const v1::SessionRequest& request) {
  switch (request.what_case()) {
    case v1::SessionRequest::kOpen:
      return SessionOperation::kOpen;
    case v1::SessionRequest::kAttach:
      return SessionOperation::kAttach;
    case v1::SessionRequest::kClose:
      return SessionOperation::kClose;
    case v1::SessionRequest::kAcquire:
      return SessionOperation::kAcquire;
    case v1::SessionRequest::kCancel:
      return SessionOperation::kCancel;
    case v1::SessionRequest::kRelease:
      return SessionOperation::kRelease;
    case v1::SessionRequest::kCampaign:
      return SessionOperation::kCampaign;
    case v1::SessionRequest::kProclaim:
      return SessionOperation::kProclaim;
    case v1::SessionRequest::kResign:
      return SessionOperation::kResign;
    case v1::SessionRequest::kTransfer:
      return SessionOperation::kTransfer;
    case v1::SessionRequest::kKeepAlive:
    case v1::SessionRequest::kDetach:
    case v1::SessionRequest::kObserve:
    case v1::SessionRequest::kStopObserving:
    case v1::SessionRequest::WHAT_NOT_SET:
      return std::nullopt;
  }
  return std::nullopt;
}

// Opened, attached and closed: by their session alone.
bool has_sequence(SessionOperation operation) {
  return operation != SessionOperation::kOpen && operation != SessionOperation::kAttach &&
         operation != SessionOperation::kClose;
}
bool attaches(SessionOperation operation) {
  return operation == SessionOperation::kOpen || operation == SessionOperation::kAttach;
}

NotDone not_done(ErrorId error) {
  switch (error) {
    case ErrorId::kTooManyRequests:
    case ErrorId::kRequestTooLarge:
      return NotDone::kOverloaded;
    case ErrorId::kNoSpace:
      return NotDone::kNoSpace;
    default:
      return NotDone::kNoQuorum;
  }
}

}  // namespace

std::string_view to_string(SessionOperation operation) {
  switch (operation) {
    case SessionOperation::kOpen:
      return "open";
    case SessionOperation::kAttach:
      return "attach";
    case SessionOperation::kClose:
      return "close";
    case SessionOperation::kAcquire:
      return "acquire";
    case SessionOperation::kCancel:
      return "cancel";
    case SessionOperation::kRelease:
      return "release";
    case SessionOperation::kCampaign:
      return "campaign";
    case SessionOperation::kProclaim:
      return "proclaim";
    case SessionOperation::kResign:
      return "resign";
    case SessionOperation::kTransfer:
      return "transfer";
  }
  UNREACHABLE();
}

SessionsHost::SessionsHost(Context& context) : context_(context), sessions_({}, *this) {
  context_.role_listeners().add(*this);
}

SessionsHost::~SessionsHost() {
  for (const auto& [ticket, asked] : asked_) context_.forget(ticket);
  context_.role_listeners().remove(*this);
}

// ---- Streams ----

template <class Step>
void SessionsHost::enter(Step step) {
  ++depth_;
  if (std::exchange(replaced_, false)) {
    REACHED(sessions_state_replaced);
    sessions_.on_state_replaced(context_.now());
  }
  step(context_.now());
  --depth_;
  if (depth_ == 0 && !delivering_) deliver();
}

void SessionsHost::deliver() {
  delivering_ = true;
  while (!outbox_.empty()) {
    auto [stream, response] = std::move(outbox_.front());
    outbox_.pop_front();
    const auto found = streams_.find(stream);
    if (found == streams_.end()) continue;  // it was closed meanwhile
    note_response(found->second, response);
    found->second.listener->on_response(std::move(response));
  }
  delivering_ = false;
}

std::optional<SessionsHost::StreamId> SessionsHost::open(Listener& listener) {
  if (streams_.size() >= kSessionStreamsMax) {
    REACHED(session_streams_refused);
    return std::nullopt;
  }
  const StreamId stream = sessions_.open_stream();
  streams_.emplace(stream, Stream{.listener = &listener});
  return stream;
}

void SessionsHost::close(StreamId stream) {
  const auto found = streams_.find(stream);
  ASSERT(found != streams_.end());
  streams_.erase(found);
  enter([this, stream](Instant) { sessions_.close_stream(stream); });
}

void SessionsHost::request(StreamId stream, const v1::SessionRequest& request) {
  const auto found = streams_.find(stream);
  ASSERT(found != streams_.end());
  const bool noted = note_request(found->second, request);
  enter([this, stream, &request, noted](Instant now) {
    if (noted) {
      sessions_.request(now, stream, request);
      return;
    }
    v1::SessionResponse response;
    response.set_session(request.session());
    response.set_sequence(request.sequence());
    response.mutable_place()->set_index(view().index().value());
    response.mutable_place()->set_revision(view().revision().value());
    *response.mutable_error() = session_error(ErrorId::kTooManyRequests);
    send(stream, std::move(response));
  });
}

void SessionsHost::introduce(StreamId stream, const v1::SessionIdentity& identity) {
  enter([this, stream, &identity](Instant now) { sessions_.introduce(now, stream, identity); });
}

void SessionsHost::withdraw(StreamId stream, SessionId session, uint64_t sequence) {
  enter([this, stream, session, sequence](Instant now) { sessions_.withdraw(now, stream, session, sequence); });
}

size_t SessionsHost::unanswered(StreamId stream) const {
  const auto found = streams_.find(stream);
  return found == streams_.end() ? 0 : found->second.waiting.size();
}

size_t SessionsHost::attaching(StreamId stream) const {
  const auto found = streams_.find(stream);
  return found == streams_.end() ? 0 : found->second.attaching;
}

bool SessionsHost::note_request(Stream& stream, const v1::SessionRequest& request) {
  if (request.has_detach()) give_up(stream, request.session());
  const std::optional<SessionOperation> operation = operation_of(request);
  if (!operation) return true;
  if (stream.waiting.size() >= kSessionOperationsMax) {
    REACHED(session_operations_refused);
    ++outcomes_[static_cast<size_t>(*operation)][std::string(kOverloadedReason)];
    return false;
  }
  if (attaches(*operation)) ++stream.attaching;
  stream.waiting.emplace(std::pair(request.session(), has_sequence(*operation) ? request.sequence() : 0), *operation);
  return true;
}

// Operations of a session that the stream does not speak for any more have no answer.
void SessionsHost::give_up(Stream& stream, int64_t session) {
  const auto first = stream.waiting.lower_bound({session, 1});
  const auto last = stream.waiting.upper_bound({session, UINT64_MAX});
  for (auto at = first; at != last; ++at) ++outcomes_[static_cast<size_t>(at->second)]["UNANSWERED"];
  stream.waiting.erase(first, last);
}

// Pushes answer nothing: they have no sequence, and neither an error nor one of three forms.
void SessionsHost::note_response(Stream& stream, const v1::SessionResponse& response) {
  if (response.has_ended()) give_up(stream, response.session());
  if (response.sequence() == 0 && !response.has_error() && !response.has_opened() && !response.has_attached() &&
      !response.has_closed()) {
    return;
  }
  const auto found = stream.waiting.find({response.session(), response.sequence()});
  if (found == stream.waiting.end()) return;
  if (attaches(found->second)) --stream.attaching;
  ++outcomes_[static_cast<size_t>(found->second)][response.has_error() ? response.error().reason() : "OK"];
  stream.waiting.erase(found);
}

// ---- The state and time ----

void SessionsHost::on_entry() {
  follow_role();
  enter([this](Instant now) { sessions_.on_applied(now, keyspace::applied_of(context_.keyspace())); });
}

// It leads once it has applied the first entry of its term: from then on it knows all that was decided before.
void SessionsHost::follow_role() {
  const Term term = context_.role().term;
  const bool leads = context_.is_leader() && context_.replica().applied_term() == term;
  const Term leading = leads ? term : Term();
  if (leading == leading_) return;
  leading_ = leading;
  enter([this](Instant) { sessions_.set_leading(leading_); });
}

void SessionsHost::turn_end(Instant now) {
  follow_role();
  if (replaced_) enter([](Instant) {});
  sessions_.set_lagging(now, context_.replica().is_lagging(now));
  if (sessions_.next_deadline() <= now) {
    enter([this](Instant at) { sessions_.tick(at); });
  }
  if (sessions_.has_work()) {
    enter([this](Instant at) { sessions_.work(at); });
  }
}

// ---- What is asked of the replica, and its answers ----

node::Ticket SessionsHost::issue(layers::Ticket ticket, Asked::What what) {
  const node::Ticket issued = context_.issue(*this);
  asked_.emplace(issued, Asked{.ticket = ticket, .what = what});
  return issued;
}

layers::Ticket SessionsHost::redeem(node::Ticket ticket) {
  const auto found = asked_.find(ticket);
  ASSERT(found != asked_.end());
  const layers::Ticket asked = found->second.ticket;
  asked_.erase(found);
  return asked;
}

void SessionsHost::write(layers::Ticket ticket, const keyspace::CommandHeader& header, ByteView body) {
  // What the leader's layer decides uses what was let in before.
  const ErrorId refusal =
      header.term.value() == 0 ? context_.alarms().refusal_of(context_.keyspace(), header.kind, body) : ErrorId::kNone;
  if (refusal != ErrorId::kNone) {
    enter([this, ticket, refusal](Instant now) { sessions_.on_write_refused(now, ticket, not_done(refusal)); });
    return;
  }
  context_.write(issue(ticket, Asked::What::kWrite), header, body);
}

void SessionsHost::read(layers::Ticket ticket) {
  context_.read(issue(ticket, Asked::What::kRead));
}

void SessionsHost::keep_alive(layers::Ticket ticket, LeaseId lease) {
  context_.keep_alive(issue(ticket, Asked::What::kKeepAlive), lease);
}

void SessionsHost::on_applied(node::Ticket ticket, const keyspace::Reply& reply) {
  const layers::Ticket asked = redeem(ticket);
  enter([this, asked, &reply](Instant now) { sessions_.on_written(now, asked, reply); });
}

void SessionsHost::on_ready(node::Ticket ticket) {
  const layers::Ticket asked = redeem(ticket);
  enter([this, asked](Instant now) { sessions_.on_read(now, asked); });
}

void SessionsHost::on_kept_alive(node::Ticket ticket, int64_t ttl_ms) {
  const layers::Ticket asked = redeem(ticket);
  enter([this, asked, ttl_ms](Instant) { sessions_.on_kept_alive(asked, ttl_ms); });
}

void SessionsHost::on_refused(node::Ticket ticket, ErrorId error) {
  const Asked::What what = asked_.at(ticket).what;
  const layers::Ticket asked = redeem(ticket);
  enter([this, what, asked, error](Instant now) {
    if (what == Asked::What::kRead) {
      sessions_.on_read_refused(now, asked, not_done(error));
    } else if (what == Asked::What::kKeepAlive) {
      sessions_.on_keep_alive_refused(asked, not_done(error));
    } else if (error == ErrorId::kTimeout) {
      sessions_.on_write_unknown(now, asked);
    } else {
      sessions_.on_write_refused(now, asked, not_done(error));
    }
  });
}

// ---- The rest of the world ----

const keyspace::View& SessionsHost::view() const {
  return view_.emplace(context_.keyspace());
}

std::string SessionsHost::hash_of(ByteView secret) const {
  std::array<unsigned char, keyspace::kSecretHashBytes> hash{};
  unsigned size = 0;
  ASSERT(EVP_Digest(secret.data(), secret.size(), hash.data(), &size, EVP_sha256(), nullptr) == 1);
  ASSERT_CMP(size, ==, hash.size());
  return {reinterpret_cast<const char*>(hash.data()), hash.size()};
}

void SessionsHost::send(StreamId stream, v1::SessionResponse&& response) {
  outbox_.emplace_back(stream, std::move(response));
}

}  // namespace conclave::api
