#include "api/kv.h"

#include <charconv>
#include <utility>

#include "api/reserved.h"
#include "api/stream_call.h"
#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/validate.h"
#include "keyspace/wire.h"

namespace conclave::api {
namespace {

using keyspace::CommandKind;
using keyspace::ErrorId;
using keyspace::GrpcCode;

// Put, DeleteRange and Txn.
class WriteCall : public UnaryCall {
 public:
  WriteCall(Context& context, net::ServerCall& wire, Method method, CommandKind kind)
      : UnaryCall(context, wire, method), kind_(kind) {}

 protected:
  void on_request(ByteView message) override {
    std::string storage;
    ByteView canonical;
    const ErrorId error = keyspace::normalise(kind_, message, storage, canonical);
    if (error != ErrorId::kNone) {
      fail(error);
    } else if (canonical.size() > kRequestBytesMax) {
      fail(ErrorId::kRequestTooLarge);
    } else if (writes_reserved(context().keyspace(), kind_, canonical)) {
      fail(GrpcCode::kPermissionDenied, kReservedKeysRefusal);
    } else if (const ErrorId refusal = context().alarms().refusal_of(context().keyspace(), kind_, canonical);
               refusal != ErrorId::kNone) {
      fail(refusal);
    } else {
      accepted(canonical);
      write({.kind = kind_}, canonical);
    }
  }
  virtual void accepted(ByteView) {}
  void applied(const keyspace::Reply& reply) override {
    if (reply.error != ErrorId::kNone) {
      fail(reply.error);
    } else {
      answer(context().response(reply.revision, reply.body));
    }
  }

 private:
  CommandKind kind_;
};

// With `physical` it waits until what was compacted is freed here.
class CompactCall final : public WriteCall, public Job {
 public:
  CompactCall(Context& context, net::ServerCall& wire, Method method)
      : WriteCall(context, wire, method, CommandKind::kCompact) {}
  bool run(uint32_t&) override {
    if (context().keyspace().store().has_garbage()) return false;
    answer(context().response());
    return true;
  }
  [[nodiscard]] bool may_wait() const override { return false; }

 protected:
  void accepted(ByteView canonical) override {
    keyspace::CompactionRequest request;
    physical_ = keyspace::parse(canonical, request) == ErrorId::kNone && request.physical;
  }
  void applied(const keyspace::Reply& reply) override {
    if (reply.error == ErrorId::kNone && physical_ && context().keyspace().store().has_garbage()) {
      REACHED(compaction_waited_for);
      context().start_job(*this);
    } else {
      WriteCall::applied(reply);
    }
  }
  void on_closed() override {
    context().stop_job(*this);
    WriteCall::on_closed();
  }

 private:
  bool physical_ = false;
};

// Of a serializable range: it is answered from state that includes this revision, and waits for it.
constexpr std::string_view kMinRevisionHeader = "conclave-min-revision";

// What Range and RangeStream have in common: the request, and from which state it is answered.
class RangeRequestCall : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  // The keyspace is as it is to be read. The bytes the request views live as long as the call.
  virtual void begin(const keyspace::RangeRequest& request) = 0;
  // Whether a request of the right form is served; if not, the call was ended.
  virtual bool admits(const keyspace::RangeRequest&) { return true; }

  void on_request(ByteView message) final {
    // The request is a view of these bytes for as long as the read takes.
    bytes_.assign(message);
    ErrorId error = keyspace::parse_and_validate(bytes_, request_);
    if (error == ErrorId::kMalformed) {
      std::string storage;
      ByteView canonical;
      error = keyspace::normalise_range(message, storage, canonical);
      if (error == ErrorId::kNone) {
        bytes_.assign(canonical);
        error = keyspace::parse_and_validate(bytes_, request_);
      }
    }
    if (error != ErrorId::kNone) {
      fail(error);
    } else if (!admits(request_)) {
      return;
    } else if (request_.serializable) {
      read_what_is_here();
    } else if (context().is_learner()) {
      fail(ErrorId::kLearnerUnsupported);
    } else {
      read();
    }
  }
  void ready() final { begin(request_); }

 private:
  // At once; or, if the client names a revision it has seen, once that is here.
  void read_what_is_here() {
    const std::string_view text = wire().header(kMinRevisionHeader);
    if (text.empty()) {
      begin(request_);
      return;
    }
    int64_t least = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), least);
    if (error != std::errc() || end != text.data() + text.size() || least < 0) {
      fail(GrpcCode::kInvalidArgument, "conclave-min-revision is not a revision");
      return;
    }
    read_at_least(Revision(least));
  }
  std::string bytes_;
  keyspace::RangeRequest request_;
};

class RangeCall final : public RangeRequestCall, public RangeWork::Owner {
 public:
  RangeCall(Context& context, net::ServerCall& wire, Method method)
      : RangeRequestCall(context, wire, method), work_(context, *this) {}
  void on_range(std::vector<std::string> pieces, Revision) override { answer(std::move(pieces)); }
  void on_range_refused(ErrorId error) override { fail(error); }

 protected:
  void begin(const keyspace::RangeRequest& request) override { work_.start(request); }
  void on_closed() override {
    work_.stop();
    RangeRequestCall::on_closed();
  }

 private:
  RangeWork work_;
};

// A range of any size, read at one revision and sent as it is read, in key order; header, `more` and `count` come with
// the last part. The past is kept for it, so a client that stops reading is ended.
class RangeStreamCall final : public RangeRequestCall, public Job, public StateUser {
 public:
  RangeStreamCall(Context& context, net::ServerCall& wire, Method method)
      : RangeRequestCall(context, wire, method), patience_(context, [this] { fail(ErrorId::kTimeout); }) {}

  void on_drained() override {
    if (is_open() && read_) context().start_job(*this);
  }
  void on_state_replaced() override { fail(ErrorId::kLeaderChanged); }
  bool run(uint32_t& units) override {
    while (units > 0) {
      if (wire().queued_bytes() >= kStreamBytesQueuedMax) return true;  // on_drained() goes on
      const uint32_t share = std::min(units, kRangePartUnits);
      uint32_t left = share;
      const bool done = read_->step(left, part_);
      units -= share - left;
      if (done) {
        send_part(context().response(revision_, part_));
        finish({});
        return true;
      }
      if (part_.size() >= kRangePartBytes) send_part(part_);
    }
    return false;
  }

 protected:
  bool admits(const keyspace::RangeRequest& request) override {
    const bool filters = request.min_mod_revision != 0 || request.max_mod_revision != 0 ||
                         request.min_create_revision != 0 || request.max_create_revision != 0;
    const bool in_order =
        request.sort_target == keyspace::SortTarget::kKey && request.sort_order != keyspace::SortOrder::kDescend;
    if (in_order && !filters) return true;
    fail(GrpcCode::kUnimplemented, "a range is streamed in key order, without filters by revision");
    return false;
  }
  void begin(const keyspace::RangeRequest& request) override {
    keyspace::Keyspace& keyspace = context().keyspace();
    read_.emplace();
    const ErrorId error = read_->begin(keyspace.store(), request);
    if (error != ErrorId::kNone) {
      fail(error);
      return;
    }
    revision_ = keyspace.revision();
    context().state_users().add(*this);
    context().start_job(*this);
    patience_.begin();
  }
  void on_closed() override {
    context().stop_job(*this);
    patience_.stop();
    context().state_users().remove(*this);
    read_.reset();
    RangeRequestCall::on_closed();
  }

 private:
  void send_part(ByteView range_response) {
    std::string message;
    keyspace::append_message_field(message, 1, range_response);
    part_.clear();
    wire().send(std::move(message));
    patience_.begin();
  }

  ReaderPatience patience_;
  std::optional<keyspace::RangeRead> read_;
  std::string part_;  // of a RangeResponse, not sent yet
  Revision revision_;
};

}  // namespace

void RangeWork::start(const keyspace::RangeRequest& request) {
  keyspace::Keyspace& keyspace = context_.keyspace();
  read_.emplace();
  const ErrorId error = read_->begin(keyspace.store(), request);
  if (error != ErrorId::kNone) {
    owner_.on_range_refused(error);
    return;
  }
  // etcd names the newest revision even when an older one was read. Where the newest was read it must be that one: a
  // client watches from the next.
  revision_ = keyspace.revision();
  term_ = context_.role().term;
  pieces_.clear();
  piece_ = context_.response(revision_);
  header_bytes_ = piece_.size();
  bytes_ = 0;
  uint32_t& left = context_.read_units();
  const uint32_t share = std::min(left, kSharedUnits);
  uint32_t units = share;
  const bool done = run(units);
  left -= share - units;
  if (done) return;
  REACHED(range_in_slices);
  context_.start_job(*this);
  context_.state_users().add(*this);
}

void RangeWork::stop() {
  context_.stop_job(*this);
  context_.state_users().remove(*this);
  context_.range_bytes() -= std::exchange(bytes_counted_, 0);
  read_.reset();
}

bool RangeWork::run(uint32_t& units) {
  // Between two pieces nothing is copied again, and what waits is never in one piece of memory.
  while (units > 0) {
    const uint32_t share = std::min(units, kRangePartUnits);
    uint32_t left = share;
    const bool done = read_->step(left, piece_);
    units -= share - left;
    if (done) {
      stop();
      take_piece();
      if (term_ != context_.role().term) pieces_.front().replace(0, header_bytes_, context_.response(revision_));
      owner_.on_range(std::exchange(pieces_, {}), revision_);
      return true;
    }
    if (piece_.size() >= kRangePartBytes) take_piece();
  }
  context_.range_bytes() += bytes_ + piece_.capacity() - bytes_counted_;
  bytes_counted_ = bytes_ + piece_.capacity();
  const bool too_large = bytes_ > kRangeBytesMax;
  if (!too_large && context_.range_bytes() <= kRangesBytesMax) return false;
  stop();
  pieces_ = {};
  piece_ = {};
  owner_.on_range_refused(too_large ? ErrorId::kRequestTooLarge : ErrorId::kTooManyRequests);
  return true;
}

void RangeWork::take_piece() {
  bytes_ += piece_.capacity();
  pieces_.push_back(std::exchange(piece_, {}));
}

void RangeWork::on_state_replaced() {
  stop();
  // A client may ask again: nothing happened.
  owner_.on_range_refused(ErrorId::kLeaderChanged);
}

std::unique_ptr<net::CallHandler> make_kv_call(Context& context, net::ServerCall& wire, Method method) {
  switch (method) {
    case Method::kRange:
      return std::make_unique<RangeCall>(context, wire, method);
    case Method::kRangeStream:
      return std::make_unique<RangeStreamCall>(context, wire, method);
    case Method::kPut:
      return std::make_unique<WriteCall>(context, wire, method, CommandKind::kPut);
    case Method::kDeleteRange:
      return std::make_unique<WriteCall>(context, wire, method, CommandKind::kDeleteRange);
    case Method::kTxn:
      return std::make_unique<WriteCall>(context, wire, method, CommandKind::kTxn);
    case Method::kCompact:
      return std::make_unique<CompactCall>(context, wire, method);
    default:
      UNREACHABLE();
  }
}

}  // namespace conclave::api
