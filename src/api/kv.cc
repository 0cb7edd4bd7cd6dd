#include "api/kv.h"

#include <charconv>
#include <utility>

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/validate.h"

namespace conclave::api {
namespace {

using keyspace::CommandKind;
using keyspace::ErrorId;

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

class RangeCall final : public UnaryCall, public RangeWork::Owner {
 public:
  RangeCall(Context& context, net::ServerCall& wire, Method method)
      : UnaryCall(context, wire, method), work_(context, *this) {}
  void on_range(std::string message, Revision) override { answer(std::move(message)); }
  void on_range_refused(ErrorId error) override { fail(error); }

 protected:
  void on_request(ByteView message) override {
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
    } else if (request_.serializable) {
      read_what_is_here();
    } else if (context().is_learner()) {
      fail(ErrorId::kLearnerUnsupported);
    } else {
      read();
    }
  }
  void ready() override { work_.start(request_); }
  void on_closed() override {
    work_.stop();
    UnaryCall::on_closed();
  }

 private:
  // At once; or, if the client names a revision it has seen, once that is here.
  void read_what_is_here() {
    const std::string_view text = wire().header(kMinRevisionHeader);
    if (text.empty()) {
      work_.start(request_);
      return;
    }
    int64_t least = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), least);
    if (error != std::errc() || end != text.data() + text.size() || least < 0) {
      fail(keyspace::GrpcCode::kInvalidArgument, "conclave-min-revision is not a revision");
      return;
    }
    read_at_least(Revision(least));
  }
  std::string bytes_;
  keyspace::RangeRequest request_;
  RangeWork work_;
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
  message_ = context_.response(revision_);
  header_bytes_ = message_.size();
  if (run(context_.read_units())) return;
  REACHED(range_in_slices);
  context_.start_job(*this);
  context_.state_users().add(*this);
}

void RangeWork::stop() {
  context_.stop_job(*this);
  context_.state_users().remove(*this);
  context_.range_bytes() -= std::exchange(counted_, 0);
  read_.reset();
}

bool RangeWork::run(uint32_t& units) {
  const bool done = read_->step(units, message_);
  if (!done) {
    context_.range_bytes() += message_.size() - counted_;
    counted_ = message_.size();
    const bool too_large = message_.size() > kRangeBytesMax;
    if (!too_large && context_.range_bytes() <= kRangesBytesMax) return false;
    stop();
    message_ = {};
    owner_.on_range_refused(too_large ? ErrorId::kRequestTooLarge : ErrorId::kTooManyRequests);
    return true;
  }
  stop();
  if (term_ != context_.role().term) message_.replace(0, header_bytes_, context_.response(revision_));
  owner_.on_range(std::move(message_), revision_);
  return true;
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
