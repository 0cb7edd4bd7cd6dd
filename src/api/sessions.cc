#include "api/sessions.h"

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "api/stream_call.h"
#include "base/assert.h"
#include "base/mark.h"
#include "conclave/v1/election.pb.h"
#include "conclave/v1/lock.pb.h"
#include "conclave/v1/session.pb.h"

namespace conclave::api {
namespace {

using keyspace::ErrorId;
using keyspace::GrpcCode;

constexpr std::string_view kClaimLostReason = "CLAIM_LOST";
constexpr std::string_view kDoesNotRead = "the client sends, or is told, more than it reads";

// A status with what a client may do about it.
net::GrpcStatus status_with_hint(Context& context, const v1::Error& error) {
  net::GrpcStatus status = status_of(error);
  if (error.reason() == kOverloadedReason) status.retry_after = context.retry_after();
  return status;
}

// Of a call that waited for a session, or for something of it.
v1::Error error_of(const v1::SessionEnded& ended) {
  switch (ended.reason()) {
    case v1::SessionEnded::TAKEN_OVER:
      return session_error(GrpcCode::kFailedPrecondition, kTakenOverReason,
                           "a later incarnation speaks for the session");
    case v1::SessionEnded::MOVED:
      return session_error(GrpcCode::kUnavailable, kUnknownOutcomeReason,
                           "the session goes on at another server: ask again there, under the same sequence");
    default:
      return session_error(GrpcCode::kNotFound, kSessionExpiredReason,
                           "the session has ended, and with it all it owned");
  }
}

v1::Error overloaded(std::string_view why) {
  return session_error(GrpcCode::kResourceExhausted, kOverloadedReason, why);
}

// ---- Streams ----

// Sends what it is told, as long as its client reads.
class PushCall : public StreamCall, public SessionsHost::Listener {
 public:
  PushCall(Context& context, SessionsHost& host, net::ServerCall& wire, Method method)
      : StreamCall(context, wire, method), host_(host) {}

  void on_drained() override {
    if (is_open()) (void)hold();
  }
  void on_refused(node::Ticket, ErrorId) override {}

 protected:
  [[nodiscard]] SessionsHost& host() { return host_; }
  [[nodiscard]] std::optional<SessionsHost::StreamId> stream() const { return stream_; }
  // False: there are too many, and the call was ended.
  [[nodiscard]] bool open_stream() {
    stream_ = host_.open(*this);
    if (!stream_) fail(overloaded("too many streams speak for sessions here"));
    return stream_.has_value();
  }
  using StreamCall::fail;
  void fail(const v1::Error& error) { finish(status_with_hint(context(), error)); }
  void push(std::string message) {
    wire().send(std::move(message));
    (void)hold();
  }
  // Of requests that wait.
  [[nodiscard]] virtual size_t waiting_bytes() const { return 0; }
  // Counts what is held for the client. False: too much, and the call was ended.
  [[nodiscard]] bool hold() {
    const size_t held = wire().queued_bytes() + waiting_bytes();
    const size_t counts = held > kSessionBytesUncounted ? held : 0;
    host_.held_bytes() += counts - counted_;
    counted_ = counts;
    const bool is_one_of_many = held > kStreamBytesQueuedMax && host_.held_bytes() > kSessionStreamsBytesMax;
    if (held <= kSessionStreamBytesMax && !is_one_of_many) return true;
    REACHED(session_stream_not_read);
    fail(overloaded(kDoesNotRead));
    return false;
  }
  void on_closed() override {
    host_.held_bytes() -= std::exchange(counted_, 0);
    if (stream_) host_.close(*std::exchange(stream_, std::nullopt));
    StreamCall::on_closed();
  }

 private:
  SessionsHost& host_;
  std::optional<SessionsHost::StreamId> stream_;
  size_t counted_ = 0;  // in the host's held_bytes()
};

// Sessions.Session. Its client's end is the end of it once everything was answered that has an answer.
class SessionStreamCall final : public PushCall {
 public:
  SessionStreamCall(Context& context, SessionsHost& host, net::ServerCall& wire)
      : PushCall(context, host, wire, Method::kSessionsSession) {}

  void on_message(ByteView message) override {
    if (!is_open() || (!stream() && !open_stream())) return;
    if (requests_.empty() && may_take()) {
      take(message);
      return;
    }
    if (requests_.size() >= kSessionRequestsWaitingMax) {
      REACHED(session_requests_refused);
      fail(overloaded(kDoesNotRead));
      return;
    }
    requests_.emplace_back(message);
    request_bytes_ += message.size();
    (void)hold();
  }
  void on_half_close() override {
    if (!is_open()) return;
    half_closed_ = true;
    end_if_answered();
  }
  void on_drained() override {
    if (is_open() && hold()) take_waiting();
  }
  void on_response(v1::SessionResponse&& response) override {
    if (response.has_kept() && keep_alives_ > 0) --keep_alives_;
    push(response.SerializeAsString());
    if (is_open()) take_waiting();
  }

 protected:
  size_t waiting_bytes() const override { return request_bytes_; }
  void on_closed() override {
    requests_.clear();
    PushCall::on_closed();
  }

 private:
  [[nodiscard]] bool may_take() {
    return wire().queued_bytes() < kStreamBytesQueuedMax && host().attaching(*stream()) < kSessionAttachmentsMax;
  }
  void take(ByteView message) {
    v1::SessionRequest request;
    if (!request.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
      fail(session_error(ErrorId::kMalformed));
      return;
    }
    if (request.has_keep_alive()) ++keep_alives_;
    host().request(*stream(), request);
  }
  // Not from within itself: what is taken may be answered at once.
  void take_waiting() {
    if (std::exchange(is_taking_, true)) return;
    while (is_open() && !requests_.empty() && may_take()) {
      const std::string message = std::move(requests_.front());
      requests_.pop_front();
      request_bytes_ -= message.size();
      take(message);
    }
    is_taking_ = false;
    if (is_open() && hold()) end_if_answered();
  }
  void end_if_answered() {
    if (!half_closed_ || !requests_.empty() || keep_alives_ > 0) return;
    if (!stream() || host().unanswered(*stream()) == 0) finish({});
  }

  std::deque<std::string> requests_;  // that wait
  size_t request_bytes_ = 0;
  size_t keep_alives_ = 0;  // without an answer
  bool half_closed_ = false;
  bool is_taking_ = false;
};

// One question, and then what happens.
class FeedCall : public PushCall {
 public:
  using PushCall::PushCall;

  void on_message(ByteView message) override {
    if (!is_open() || std::exchange(asked_, true)) return;
    v1::SessionRequest request;
    if (!to_request(message, request)) {
      fail(session_error(ErrorId::kMalformed));
    } else if (open_stream()) {
      host().request(*stream(), request);
    }
  }
  void on_half_close() override {
    if (is_open() && !asked_) fail(GrpcCode::kUnimplemented, "the call ended without a request");
  }
  void on_response(v1::SessionResponse&& response) override {
    if (response.has_error()) {
      fail(response.error());
    } else {
      told(response);
    }
  }

 protected:
  [[nodiscard]] virtual bool to_request(ByteView message, v1::SessionRequest& request) = 0;
  virtual void told(const v1::SessionResponse& response) = 0;

 private:
  bool asked_ = false;
};

class SessionEventsCall final : public FeedCall {
 public:
  using FeedCall::FeedCall;

 protected:
  bool to_request(ByteView message, v1::SessionRequest& request) override {
    v1::SessionIdentity identity;
    if (!identity.ParseFromArray(message.data(), static_cast<int>(message.size()))) return false;
    request.set_session(identity.session());
    request.mutable_attach()->set_secret(identity.secret());
    request.mutable_attach()->set_incarnation(identity.incarnation());
    return true;
  }
  void told(const v1::SessionResponse& response) override {
    push(response.SerializeAsString());
    if (is_open() && response.has_ended()) finish({});
  }
};

class ObserveElectionCall final : public FeedCall {
 public:
  using FeedCall::FeedCall;

 protected:
  bool to_request(ByteView message, v1::SessionRequest& request) override {
    return request.mutable_observe()->ParseFromArray(message.data(), static_cast<int>(message.size()));
  }
  void told(const v1::SessionResponse& response) override {
    if (response.has_leadership()) push(response.leadership().SerializeAsString());
  }
};

// ---- Single operations ----

// One request by a stream of its own. Operations are introduced first; what opens a session introduces it.
class SessionCall : public UnaryCall, public SessionsHost::Listener {
 public:
  SessionCall(Context& context, SessionsHost& host, net::ServerCall& wire, Method method)
      : UnaryCall(context, wire, method), host_(host) {}

  void on_response(v1::SessionResponse&& response) final {
    // In the middle of being withdrawn, nobody is there to be told.
    if (!is_open() || is_withdrawn_) return;
    if (response.has_error()) {
      fail(response.error());
    } else if (response.has_ended()) {
      ended(response);
    } else if (!is_introduced_ && response.has_attached()) {
      is_introduced_ = true;
      host_.request(*stream_, request_);
    } else {
      told(response);
    }
  }

 protected:
  virtual void told(const v1::SessionResponse& response) = 0;
  virtual void ended(const v1::SessionResponse& response) { fail(error_of(response.ended())); }
  // What came of the operation itself, and not of others of its session.
  [[nodiscard]] bool is_answer(const v1::SessionResponse& response) const {
    return response.sequence() != 0 && response.sequence() == request_.sequence();
  }

  using UnaryCall::fail;
  void fail(const v1::Error& error) { finish(status_with_hint(context(), error)); }
  // The call's request, with its bytes as a message of the stream.
  template <class Message>
  [[nodiscard]] bool parse_request(ByteView bytes, Message& message) {
    if (message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return true;
    fail(session_error(ErrorId::kMalformed));
    return false;
  }
  [[nodiscard]] v1::SessionRequest& request() { return request_; }
  void ask_as(const v1::SessionIdentity& identity) {
    request_.set_session(identity.session());
    request_.set_sequence(identity.sequence());
    // A single call does not say whether it is the first, so it is refused as if it were not: for good.
    request_.set_again(true);
    if (open_stream()) host_.introduce(*stream_, identity);
  }
  void ask() {
    is_introduced_ = true;
    if (open_stream()) host_.request(*stream_, request_);
  }
  // Whatever came of it or comes yet, nothing of it is to stay.
  void withdraw() {
    is_withdrawn_ = true;
    if (!stream_ || !is_introduced_) return;
    host_.withdraw(*stream_, SessionId(static_cast<uint64_t>(request_.session())), request_.sequence());
  }
  void on_closed() override {
    if (stream_) host_.close(*std::exchange(stream_, std::nullopt));
    UnaryCall::on_closed();
  }

 private:
  [[nodiscard]] bool open_stream() {
    stream_ = host_.open(*this);
    if (!stream_) fail(overloaded("too many streams speak for sessions here"));
    return stream_.has_value();
  }

  SessionsHost& host_;
  std::optional<SessionsHost::StreamId> stream_;
  v1::SessionRequest request_;
  bool is_introduced_ = false;
  bool is_withdrawn_ = false;
};

class OpenSessionCall final : public SessionCall {
 public:
  using SessionCall::SessionCall;

 protected:
  void on_request(ByteView message) override {
    if (!parse_request(message, *request().mutable_open())) return;
    request().set_session(request().open().session());
    ask();
  }
  void told(const v1::SessionResponse& response) override {
    if (response.has_opened()) answer(response.SerializeAsString());
  }
};

class KeepSessionCall final : public SessionCall {
 public:
  using SessionCall::SessionCall;

 protected:
  void on_request(ByteView message) override {
    v1::KeepSession keep;
    if (!parse_request(message, keep)) return;
    request().mutable_keep_alive()->add_sessions(keep.identity().session());
    ask_as(keep.identity());
  }
  void told(const v1::SessionResponse& response) override {
    if (!response.has_kept()) return;
    if (response.kept().gone_size() > 0) {
      fail(error_of(v1::SessionEnded()));
    } else if (response.kept().failed_size() > 0) {
      fail(session_error(ErrorId::kNoLeader));
    } else {
      v1::SessionResponse out = response;
      out.set_session(request().session());
      answer(out.SerializeAsString());
    }
  }
};

class CloseSessionCall final : public SessionCall {
 public:
  using SessionCall::SessionCall;

 protected:
  void on_request(ByteView message) override {
    v1::SessionIdentity identity;
    if (!parse_request(message, identity)) return;
    request().mutable_close();
    ask_as(identity);
  }
  void told(const v1::SessionResponse& response) override {
    if (response.has_closed()) answer(response.SerializeAsString());
  }
  // It may be told as any other end, before it is told as what was asked for.
  void ended(const v1::SessionResponse& response) override {
    const v1::SessionEnded::Reason reason = response.ended().reason();
    if (reason != v1::SessionEnded::CLOSED && reason != v1::SessionEnded::EXPIRED) {
      SessionCall::ended(response);
      return;
    }
    v1::SessionResponse out;
    out.set_session(response.session());
    *out.mutable_place() = response.place();
    out.mutable_closed();
    answer(out.SerializeAsString());
  }
};

// Of the operations that are answered once: the request's form, and the answer's.
template <class Request, class Answer>
class OperationCall final : public SessionCall {
 public:
  using Take = void (*)(Request& from, v1::SessionRequest& to);
  using Give = bool (*)(const v1::SessionResponse& from, Answer& to);
  OperationCall(Context& context, SessionsHost& host, net::ServerCall& wire, Method method, Take take, Give give)
      : SessionCall(context, host, wire, method), take_(take), give_(give) {}

 protected:
  void on_request(ByteView message) override {
    Request from;
    if (!parse_request(message, from)) return;
    take_(from, request());
    ask_as(from.identity());
  }
  void told(const v1::SessionResponse& response) override {
    Answer out;
    if (is_answer(response) && give_(response, out)) answer(out.SerializeAsString());
  }

 private:
  Take take_;
  Give give_;
};

// Acquire and Campaign: answered when all is granted, and withdrawn where that is not waited for any more.
class WaitingCall : public SessionCall {
 public:
  using SessionCall::SessionCall;

 protected:
  void told(const v1::SessionResponse& response) final {
    if (is_answer(response) && response.has_claimed()) {
      for (const v1::ClaimState& claim : response.claimed().claims()) {
        v1::ClaimState& known = claims_.emplace_back(claim);
        const auto granted = granted_before_.find(claim.name());
        if (granted == granted_before_.end()) continue;
        known.set_token(granted->second);
        known.set_granted(true);
      }
      granted_before_.clear();
      is_claimed_ = true;
    } else if (response.has_granted()) {
      note_grant(response.granted());
    } else if (response.has_lost()) {
      note_loss(response.lost());
    }
    const auto is_granted = [](const v1::ClaimState& claim) { return claim.granted(); };
    if (is_open() && is_claimed_ && std::ranges::all_of(claims_, is_granted)) granted(claims_);
  }
  void on_cancelled() override { withdraw(); }
  virtual void granted(const std::vector<v1::ClaimState>& claims) = 0;

 private:
  [[nodiscard]] bool wants(const std::string& name) {
    const auto& names = request().acquire().names();
    return request().has_campaign() ? request().campaign().name() == name : std::ranges::count(names, name) > 0;
  }
  // A candidate's token is another one whenever it is bound in line, and none while it is not.
  [[nodiscard]] bool is_of(const v1::ClaimState& claim, int64_t token) {
    return request().has_campaign() || claim.token() == token;
  }
  void note_grant(const v1::Granted& granted) {
    if (!is_claimed_) {
      if (wants(granted.name())) granted_before_[granted.name()] = granted.token();
      return;
    }
    for (v1::ClaimState& claim : claims_) {
      if (claim.name() != granted.name() || !is_of(claim, granted.token())) continue;
      claim.set_token(granted.token());
      claim.set_granted(true);
    }
  }
  void note_loss(const v1::Lost& lost) {
    for (const v1::ClaimState& claim : claims_) {
      if (claim.name() != lost.name() || !is_of(claim, lost.token())) continue;
      REACHED(claim_lost_while_waiting);
      withdraw();
      fail(
          session_error(GrpcCode::kNotFound, kClaimLostReason,
                        "the claim on " + lost.name() + " was deleted while it waited; nothing is left of the others"));
      return;
    }
  }

  std::vector<v1::ClaimState> claims_;
  std::map<std::string, int64_t> granted_before_;  // said before the claims were: the token of each
  bool is_claimed_ = false;
};

class AcquireCall final : public WaitingCall {
 public:
  using WaitingCall::WaitingCall;

 protected:
  void on_request(ByteView message) override {
    v1::AcquireRequest from;
    if (!parse_request(message, from)) return;
    *request().mutable_acquire() = std::move(*from.mutable_acquire());
    ask_as(from.identity());
  }
  void granted(const std::vector<v1::ClaimState>& claims) override {
    v1::LocksHeld held;
    for (const v1::ClaimState& claim : claims) *held.add_claims() = claim;
    answer(held.SerializeAsString());
  }
};

class CampaignSessionCall final : public WaitingCall {
 public:
  using WaitingCall::WaitingCall;

 protected:
  void on_request(ByteView message) override {
    v1::CampaignRequest from;
    if (!parse_request(message, from)) return;
    *request().mutable_campaign() = std::move(*from.mutable_campaign());
    ask_as(from.identity());
  }
  void granted(const std::vector<v1::ClaimState>& claims) override {
    v1::Elected elected;
    if (!claims.empty()) elected.set_token(claims.front().token());
    answer(elected.SerializeAsString());
  }
};

bool give_end_of_term(const v1::SessionResponse& from, v1::TermEnded& to) {
  if (from.has_released()) to.set_held(from.released().held());
  return from.has_released();
}

}  // namespace

std::unique_ptr<net::CallHandler> make_sessions_call(Context& context, SessionsHost& host, net::ServerCall& wire,
                                                     Method method) {
  switch (method) {
    case Method::kSessionsSession:
      return std::make_unique<SessionStreamCall>(context, host, wire);
    case Method::kSessionsOpen:
      return std::make_unique<OpenSessionCall>(context, host, wire, method);
    case Method::kSessionsKeepAlive:
      return std::make_unique<KeepSessionCall>(context, host, wire, method);
    case Method::kSessionsClose:
      return std::make_unique<CloseSessionCall>(context, host, wire, method);
    case Method::kSessionsEvents:
      return std::make_unique<SessionEventsCall>(context, host, wire, method);
    case Method::kLocksAcquire:
      return std::make_unique<AcquireCall>(context, host, wire, method);
    case Method::kLocksRelease:
      return std::make_unique<OperationCall<v1::ReleaseRequest, v1::Released>>(
          context, host, wire, method,
          [](v1::ReleaseRequest& from, v1::SessionRequest& to) { to.mutable_release()->Swap(from.mutable_release()); },
          [](const v1::SessionResponse& from, v1::Released& to) {
            to = from.released();
            return from.has_released();
          });
    case Method::kElectionsCampaign:
      return std::make_unique<CampaignSessionCall>(context, host, wire, method);
    case Method::kElectionsProclaim:
      return std::make_unique<OperationCall<v1::ProclaimRequest, v1::Proclaimed>>(
          context, host, wire, method,
          [](v1::ProclaimRequest& from, v1::SessionRequest& to) {
            to.mutable_proclaim()->Swap(from.mutable_proclaim());
          },
          [](const v1::SessionResponse& from, v1::Proclaimed& to) {
            to = from.proclaimed();
            return from.has_proclaimed();
          });
    case Method::kElectionsResign:
      return std::make_unique<OperationCall<v1::ResignRequest, v1::TermEnded>>(
          context, host, wire, method,
          [](v1::ResignRequest& from, v1::SessionRequest& to) { to.mutable_resign()->Swap(from.mutable_resign()); },
          give_end_of_term);
    case Method::kElectionsTransfer:
      return std::make_unique<OperationCall<v1::TransferRequest, v1::TermEnded>>(
          context, host, wire, method,
          [](v1::TransferRequest& from, v1::SessionRequest& to) {
            to.mutable_transfer()->Swap(from.mutable_transfer());
          },
          give_end_of_term);
    case Method::kElectionsObserve:
      return std::make_unique<ObserveElectionCall>(context, host, wire, method);
    default:
      UNREACHABLE();
  }
}

}  // namespace conclave::api
