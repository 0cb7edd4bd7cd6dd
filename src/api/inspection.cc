#include "api/inspection.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/interface.h"
#include "layers/claim_record.h"
#include "layers/listing.h"
#include "layers/owned_claim.h"

namespace conclave::api {
namespace {

using keyspace::CommandKind;
using keyspace::ErrorId;
using keyspace::GrpcCode;

// Keys looked at in one step, a unit each; and what a name or a claim costs that is told with its owner.
constexpr uint32_t kKeysPerStep = 256;
constexpr uint32_t kClaimsPerStep = 32;
constexpr uint32_t kUnitsOfClaim = 8;

constexpr std::string_view kNotHeldReason = "NOT_HELD";
constexpr std::string_view kNotASessionReason = "NOT_A_SESSION";

v1::Error no_such_session() {
  return session_error(GrpcCode::kNotFound, kSessionExpiredReason, "there is no such session, or not any more");
}

// Looks once a round has proven that the state here is of now or later.
class InspectionCall : public UnaryCall, public Job {
 public:
  using UnaryCall::UnaryCall;

  // Keys are not looked at in the middle of a large entry.
  bool run(uint32_t& units) final { return !context().keyspace().is_busy() && look(units); }

 protected:
  // Goes on looking. True: it is done with that, and answered or asked for something else.
  [[nodiscard]] virtual bool look(uint32_t& units) = 0;
  void ready() final { begin(); }
  void begin() {
    if (!run(context().read_units())) context().start_job(*this);
  }
  [[nodiscard]] keyspace::KeyspaceView view() { return keyspace::KeyspaceView(context().keyspace()); }
  static void spend(uint32_t& units, uint32_t used) { units -= std::min(units, used); }

  using UnaryCall::fail;
  void fail(const v1::Error& error) {
    net::GrpcStatus status = status_of(error);
    if (error.reason() == kOverloadedReason) status.retry_after = context().retry_after();
    finish(status);
  }
  void refused(ErrorId error) override {
    fail(is_writing_ && error == ErrorId::kTimeout ? unknown_outcome() : session_error(error));
  }
  void write_command(const keyspace::CommandHeader& header, ByteView body) {
    is_writing_ = true;
    write(header, body);
  }
  void write_command(const std::string& internal) { write_command({.kind = CommandKind::kInternal}, internal); }

  // False: the call was ended.
  template <class Message>
  [[nodiscard]] bool parse_request(ByteView bytes, Message& message) {
    if (message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return true;
    fail(session_error(ErrorId::kMalformed));
    return false;
  }
  [[nodiscard]] bool check_name(const std::string& name) {
    const std::optional<std::string_view> why = layers::why_no_name(name);
    if (why) fail(session_error(GrpcCode::kInvalidArgument, kInvalidNameReason, *why));
    return !why;
  }
  [[nodiscard]] bool check(bool holds, std::string_view otherwise) {
    if (!holds) fail(session_error(GrpcCode::kInvalidArgument, kInvalidRequestReason, otherwise));
    return holds;
  }
  void on_closed() override {
    context().stop_job(*this);
    UnaryCall::on_closed();
  }

 private:
  bool is_writing_ = false;
};

// ---- Sessions ----

class DescribeSessionCall final : public InspectionCall {
 public:
  using InspectionCall::InspectionCall;

 protected:
  void on_request(ByteView message) override {
    v1::DescribeSession request;
    if (!parse_request(message, request)) return;
    if (!check(request.session() > 0, "a session's number is above zero")) return;
    session_ = SessionId(static_cast<uint64_t>(request.session()));
    scan_.emplace(session_);
    read();
  }
  bool look(uint32_t& units) override {
    if (!description_) {
      description_ = layers::describe_session(view(), session_);
      if (description_) {
        ask_lease_time(LeaseId(static_cast<int64_t>(session_.value())));
      } else {
        fail(no_such_session());
      }
      return true;
    }
    while (units > 0) {
      spend(units, kClaimsPerStep * kUnitsOfClaim);
      if (!scan_->step(view(), kClaimsPerStep, *description_)) continue;
      answer(description_->SerializeAsString());
      return true;
    }
    return false;
  }
  void lease_time_known(int64_t left_ms) override {
    description_->set_remaining_ms(left_ms);
    begin();
  }

 private:
  SessionId session_;
  std::optional<layers::SessionScan> scan_;
  std::optional<v1::SessionDescription> description_;
};

class ListSessionsCall final : public InspectionCall {
 public:
  using InspectionCall::InspectionCall;

 protected:
  void on_request(ByteView message) override {
    v1::ListSessions request;
    if (!parse_request(message, request)) return;
    if (!check(request.after() >= 0, "sessions have numbers above zero")) return;
    if (!check(request.count() <= layers::kListedSessionsMax, "at most 1,000 sessions are told at once")) return;
    after_ = SessionId(static_cast<uint64_t>(request.after()));
    count_ = static_cast<int>(request.count() == 0 ? layers::kListedSessionsMax : request.count());
    read();
  }
  bool look(uint32_t& units) override {
    const auto& sessions = context().keyspace().tables().sessions();
    auto at = sessions.upper_bound(after_);
    for (; at != sessions.end() && units > 0; ++at) {
      spend(units, 1);
      after_ = at->first;
      std::optional<v1::SessionDescription> session = layers::describe_session(view(), at->first);
      if (!session) continue;  // it has ended, and is being taken apart
      if (list_.sessions_size() == count_) {
        list_.set_more(true);
        break;
      }
      *list_.add_sessions() = std::move(*session);
    }
    if (at != sessions.end() && !list_.more()) return false;
    answer(list_.SerializeAsString());
    return true;
  }

 private:
  SessionId after_;
  int count_ = 0;
  v1::SessionList list_;
};

// By the command that ends sessions whose time is over.
class KillSessionCall final : public InspectionCall {
 public:
  using InspectionCall::InspectionCall;

 protected:
  void on_request(ByteView message) override {
    v1::KillSession request;
    if (!parse_request(message, request)) return;
    if (!check(request.session() > 0, "a session's number is above zero")) return;
    session_ = SessionId(static_cast<uint64_t>(request.session()));
    read();
  }
  bool look(uint32_t&) override {
    const keyspace::Session* session = view().session(session_);
    if (session == nullptr) {
      fail(no_such_session());
      return true;
    }
    std::string body;
    keyspace::encode_expire({session->lease}, body);
    write_command({.kind = CommandKind::kLeaseExpire}, body);
    return true;
  }
  void applied(const keyspace::Reply& reply) override {
    if (reply.error != ErrorId::kNone) {
      fail(session_error(reply.error));
    } else {
      answer(v1::SessionKilled().SerializeAsString());
    }
  }

 private:
  SessionId session_;
};

// ---- Names ----

// Of Validate, Leader and both Describes: one name.
template <class Request>
class NameCall : public InspectionCall {
 public:
  using InspectionCall::InspectionCall;

 protected:
  void on_request(ByteView message) final {
    if (parse_request(message, request_) && check_name(request_.name()) && is_acceptable()) read();
  }
  // If not, the call was ended.
  [[nodiscard]] virtual bool is_acceptable() { return true; }
  [[nodiscard]] const Request& request() const { return request_; }

 private:
  Request request_;
};

class ValidateLockCall final : public NameCall<v1::ValidateLock> {
 public:
  using NameCall::NameCall;

 protected:
  bool look(uint32_t&) override {
    answer(layers::validity_of(view(), request().name(), request().token()).SerializeAsString());
    return true;
  }
};

class LeaderOfElectionCall final : public NameCall<v1::GetLeader> {
 public:
  using NameCall::NameCall;

 protected:
  bool look(uint32_t&) override {
    answer(layers::leadership_of(view(), request().name()).SerializeAsString());
    return true;
  }
};

class DescribeLockCall final : public NameCall<v1::DescribeLock> {
 public:
  using NameCall::NameCall;

 protected:
  bool look(uint32_t& units) override {
    if (!scan_) scan_.emplace(request().name());
    while (units > 0) {
      spend(units, kKeysPerStep);
      if (!scan_->step(view(), kKeysPerStep)) continue;
      answer(scan_->lock(view()).SerializeAsString());
      return true;
    }
    return false;
  }

 private:
  std::optional<layers::LineScan> scan_;
};

class DescribeElectionCall final : public NameCall<v1::DescribeElection> {
 public:
  using NameCall::NameCall;

 protected:
  bool look(uint32_t& units) override {
    if (!line_) {
      line_.emplace(request().name());
      candidates_.emplace(request().name());
    }
    while (units > 0) {
      spend(units, kKeysPerStep);
      if (!is_line_known_) {
        is_line_known_ = line_->step(view(), kKeysPerStep);
      } else if (candidates_->step(view(), kKeysPerStep)) {
        v1::ElectionDescription election = line_->election(view());
        candidates_->describe(view(), election);
        answer(election.SerializeAsString());
        return true;
      }
    }
    return false;
  }

 private:
  std::optional<layers::LineScan> line_;
  std::optional<layers::CandidateScan> candidates_;
  bool is_line_known_ = false;
};

// Names in order, each with who holds it.
template <class Request, class List>
class ListNamesCall : public InspectionCall {
 public:
  using InspectionCall::InspectionCall;

 protected:
  [[nodiscard]] virtual layers::NameScan::What what() const = 0;
  virtual void add(const layers::NameScan::Found& name, List& list) = 0;

  void on_request(ByteView message) final {
    Request request;
    if (!parse_request(message, request)) return;
    const bool is_short = std::max(request.prefix().size(), request.after().size()) <= layers::kNameBytesMax;
    if (!check(is_short, "a name has at most 512 bytes")) return;
    if (!check(request.count() <= layers::kListedNamesMax, "at most 1,000 names are told at once")) return;
    scan_.emplace(layers::NameScan::Options{.what = what(),
                                            .prefix = request.prefix(),
                                            .after = request.after(),
                                            .count = request.count() == 0 ? layers::kListedNames : request.count()});
    read();
  }
  bool look(uint32_t& units) final {
    while (units > 0 && !is_found_) {
      spend(units, kKeysPerStep);
      if (!scan_->step(view(), kKeysPerStep)) continue;
      is_found_ = true;
      found_ = scan_->found();
    }
    for (; told_ < found_.size() && units > 0; ++told_) {
      spend(units, kUnitsOfClaim);
      add(found_[told_], list_);
    }
    if (!is_found_ || told_ < found_.size()) return false;
    list_.set_more(scan_->has_more());
    answer(list_.SerializeAsString());
    return true;
  }

 private:
  std::optional<layers::NameScan> scan_;
  std::vector<layers::NameScan::Found> found_;
  size_t told_ = 0;
  bool is_found_ = false;
  List list_;
};

class ListLocksCall final : public ListNamesCall<v1::ListLocks, v1::LockList> {
 public:
  using ListNamesCall::ListNamesCall;

 protected:
  layers::NameScan::What what() const override { return layers::NameScan::What::kLocks; }
  void add(const layers::NameScan::Found& name, v1::LockList& list) override {
    *list.add_locks() = layers::describe_lock(view(), name);
  }
};

class ListElectionsCall final : public ListNamesCall<v1::ListElections, v1::ElectionList> {
 public:
  using ListNamesCall::ListNamesCall;

 protected:
  layers::NameScan::What what() const override { return layers::NameScan::What::kElections; }
  void add(const layers::NameScan::Found& name, v1::ElectionList& list) override {
    *list.add_elections() = layers::describe_election(view(), name);
  }
};

// ---- Asking owners, and forcing them ----

class RequestReleaseCall final : public NameCall<v1::RequestReleaseOfLock> {
 public:
  using NameCall::NameCall;

 protected:
  bool is_acceptable() override {
    return check(request().note().size() <= layers::kNoteBytesMax, "a note has at most 256 bytes");
  }
  bool look(uint32_t&) override {
    claim_ = layers::owned_claim_of(view(), request().name());
    if (!claim_) {
      fail_as_not_held();
    } else if (!claim_->is_session) {
      fail(session_error(GrpcCode::kFailedPrecondition, kNotASessionReason,
                         fmt::format("{} is held by a client of etcd's recipe, which cannot be asked", claim_->key)));
    } else {
      write_command(layers::encode_release_request(*claim_, request().note()));
    }
    return true;
  }
  void applied(const keyspace::Reply& reply) override {
    if (reply.error == ErrorId::kNone) {
      v1::ReleaseWasRequested asked;
      asked.set_token(claim_->create.value());
      answer(asked.SerializeAsString());
    } else if (reply.error == ErrorId::kGuardFailed || reply.error == ErrorId::kLeaseNotFound) {
      fail_as_not_held();
    } else {
      fail(session_error(reply.error));
    }
  }

 private:
  void fail_as_not_held() {
    fail(session_error(GrpcCode::kNotFound, kNotHeldReason, fmt::format("nobody holds {}", request().name())));
  }
  std::optional<layers::OwnedClaim> claim_;
};

// Looks, asks the owner, waits until it has released or its time is over, and forces it then. A call that its client
// ends forces nothing more.
class ForceReleaseCall final : public NameCall<v1::ForceReleaseLock>, public Timed {
 public:
  using NameCall::NameCall;

  void on_time(Instant now) override {
    if (context().keyspace().is_busy()) {
      context().set_timer(*this, now + kReleaseCheck);
      return;
    }
    const std::optional<keyspace::KeyValue> claim = view().get(claim_->key);
    if (!claim || claim->create != claim_->create) {
      end(true);
    } else if (now >= force_at_) {
      force();
    } else {
      context().set_timer(*this, std::min(now + kReleaseCheck, force_at_));
    }
  }

 protected:
  bool is_acceptable() override {
    return check(request().token() > 0, "a token is above zero") &&
           check(request().reason().size() <= layers::kNoteBytesMax, "a reason has at most 256 bytes");
  }
  bool look(uint32_t&) override {
    claim_ = layers::owned_claim_of(view(), request().name());
    if (!claim_ || claim_->create.value() != request().token()) {
      end(false);
      return true;
    }
    const std::optional<keyspace::LeaseInfo> lease = view().lease(claim_->lease);
    if (request().now() || !lease) {
      force();
      return true;
    }
    time_ = std::chrono::milliseconds(lease->ttl_ms);
    if (claim_->is_session) {
      write_command(layers::encode_release_request(*claim_, request().reason()));
    } else {
      wait();
    }
    return true;
  }
  void applied(const keyspace::Reply& reply) override {
    const bool is_gone = reply.error == ErrorId::kGuardFailed || reply.error == ErrorId::kLeaseNotFound;
    if (is_gone) {
      // Released, or lost, since it was looked at.
      end(is_asked_);
    } else if (reply.error != ErrorId::kNone) {
      fail(session_error(reply.error));
    } else if (is_forced_) {
      end(true);
    } else {
      wait();
    }
  }
  void on_closed() override {
    context().stop_timer(*this);
    NameCall::on_closed();
  }

 private:
  void wait() {
    is_asked_ = true;
    force_at_ = context().now() + time_;
    context().set_timer(*this, context().now() + kReleaseCheck);
  }
  void force() {
    REACHED(claim_forced);
    is_forced_ = true;
    write_command(layers::encode_forced_release(*claim_, request().reason()));
  }
  void end(bool held) {
    v1::Released released;
    released.set_held(held);
    answer(released.SerializeAsString());
  }

  std::optional<layers::OwnedClaim> claim_;
  Duration time_{};
  Instant force_at_ = kNever;
  bool is_asked_ = false;  // it had its time
  bool is_forced_ = false;
};

}  // namespace

std::unique_ptr<net::CallHandler> make_inspection_call(Context& context, net::ServerCall& wire, Method method) {
  switch (method) {
    case Method::kSessionsDescribe:
      return std::make_unique<DescribeSessionCall>(context, wire, method);
    case Method::kSessionsList:
      return std::make_unique<ListSessionsCall>(context, wire, method);
    case Method::kSessionsKill:
      return std::make_unique<KillSessionCall>(context, wire, method);
    case Method::kLocksValidate:
      return std::make_unique<ValidateLockCall>(context, wire, method);
    case Method::kLocksDescribe:
      return std::make_unique<DescribeLockCall>(context, wire, method);
    case Method::kLocksList:
      return std::make_unique<ListLocksCall>(context, wire, method);
    case Method::kLocksForceRelease:
      return std::make_unique<ForceReleaseCall>(context, wire, method);
    case Method::kLocksRequestRelease:
      return std::make_unique<RequestReleaseCall>(context, wire, method);
    case Method::kElectionsLeader:
      return std::make_unique<LeaderOfElectionCall>(context, wire, method);
    case Method::kElectionsDescribe:
      return std::make_unique<DescribeElectionCall>(context, wire, method);
    case Method::kElectionsList:
      return std::make_unique<ListElectionsCall>(context, wire, method);
    default:
      UNREACHABLE();
  }
}

}  // namespace conclave::api
