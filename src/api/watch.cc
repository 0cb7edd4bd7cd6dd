#include "api/watch.h"

#include <deque>
#include <optional>
#include <utility>

#include "api/stream_call.h"
#include "base/mark.h"
#include "etcd/rpc.pb.h"
#include "keyspace/wire.h"

namespace conclave::api {
namespace {

using keyspace::ErrorId;

// By `compact_revision`, which stands before all events.
bool is_end_by_compaction(ByteView body) {
  constexpr uint32_t kCompactRevision = 5;
  keyspace::WireReader fields(body);
  while (fields.next() && fields.field() <= kCompactRevision) {
    if (fields.field() == kCompactRevision) return true;
    (void)fields.varint();
  }
  return false;
}

class WatchCall final : public StreamCall, public StreamOwner, public StateUser {
 public:
  WatchCall(Context& context, net::ServerCall& wire)
      : StreamCall(context, wire, Method::kWatch),
        stream_(context.keyspace().watches()),
        progress_(*this),
        patience_(context, [this] { fail(ErrorId::kTimeout); }) {
    context.streams().add(stream_.value(), *this);
    context.state_users().add(*this);
  }

  void on_message(ByteView message) override {
    if (!is_open()) return;
    if (waiting_.empty() && stream_->takes_requests()) {
      take(message);
      return;
    }
    waiting_bytes_ += message.size();
    if (waiting_.size() >= kWatchRequestsWaitingMax || waiting_bytes_ > kWatchRequestBytesWaitingMax) {
      REACHED(watch_requests_refused);
      fail(ErrorId::kTooManyRequests);
      return;
    }
    waiting_.emplace_back(message);
  }
  // It goes on watching.
  void on_half_close() override {}
  void on_drained() override {
    if (is_open()) context().streams().wake(*this);
  }
  void on_refused(node::Ticket, ErrorId) override {}
  // The client resumes where it was; the new state knows whether its history reaches so far.
  void on_state_replaced() override { fail(ErrorId::kLeaderChanged); }

  bool pump(uint32_t& units) override {
    const bool more = send_on(units);
    if (is_open()) watch_patience();
    return more;
  }

 protected:
  void on_closed() override {
    context().streams().remove(*stream_);
    context().state_users().remove(*this);
    context().stop_timer(progress_);
    patience_.stop();
    stream_.reset();
    waiting_.clear();
    StreamCall::on_closed();
  }

 private:
  // Notes for watchers that asked for them.
  class Progress final : public Timed {
   public:
    explicit Progress(WatchCall& call) : call_(call) {}
    void on_time(Instant now) override {
      call_.stream_->progress_tick();
      call_.context().set_timer(*this, now + call_.context().options().watch_progress_interval);
    }
    bool runs = false;

   private:
    WatchCall& call_;
  };
  bool send_on(uint32_t& units) {
    keyspace::WatchResponse response;
    while (wire().queued_bytes() < kStreamBytesQueuedMax) {
      if (!stream_->next(units, response)) return stream_->has_more() && units == 0;
      // etcd names no revision there, and its clients take none from it: the watcher ended behind the newest.
      const Revision revision = is_end_by_compaction(response.body) ? Revision() : response.revision;
      wire().send(context().response(revision, response.body));
      if (patience_.runs()) patience_.begin();
      while (!waiting_.empty() && stream_->takes_requests()) {
        const std::string message = std::move(waiting_.front());
        waiting_.pop_front();
        waiting_bytes_ -= message.size();
        take(message);
        if (!is_open()) return false;
      }
      if (units == 0) return stream_->has_more();
    }
    return false;  // on_drained() goes on
  }

  // With a client that stopped reading in the middle of a large revision.
  void watch_patience() {
    if (!stream_->holds_history()) {
      patience_.stop();
    } else if (!patience_.runs()) {
      patience_.begin();
    }
  }

  void take(ByteView message) {
    etcdserverpb::WatchRequest request;
    if (!request.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
      fail(ErrorId::kMalformed);
      return;
    }
    switch (request.request_union_case()) {
      case etcdserverpb::WatchRequest::kCreateRequest:
        create(request.create_request());
        break;
      case etcdserverpb::WatchRequest::kCancelRequest:
        stream_->cancel(request.cancel_request().watch_id());
        break;
      case etcdserverpb::WatchRequest::kProgressRequest:
        stream_->request_progress();
        break;
      case etcdserverpb::WatchRequest::REQUEST_UNION_NOT_SET:
        break;  // of a newer client: ignored, as etcd does
    }
  }

  void create(const etcdserverpb::WatchCreateRequest& request) {
    keyspace::WatchCreate create{.key = request.key(),
                                 .range_end = request.range_end(),
                                 .start_revision = request.start_revision(),
                                 .watch_id = request.watch_id(),
                                 .progress_notify = request.progress_notify(),
                                 .prev_kv = request.prev_kv(),
                                 .fragment = request.fragment()};
    for (const int filter : request.filters()) {
      if (filter == etcdserverpb::WatchCreateRequest::NOPUT) create.no_put = true;
      if (filter == etcdserverpb::WatchCreateRequest::NODELETE) create.no_delete = true;
    }
    stream_->create(create);
    const Duration interval = context().options().watch_progress_interval;
    if (create.progress_notify && interval > Duration::zero() && !std::exchange(progress_.runs, true)) {
      context().set_timer(progress_, context().now() + interval);
    }
  }

  std::optional<keyspace::WatchStream> stream_;  // ends with the call, not with its handler
  Progress progress_;
  ReaderPatience patience_;
  std::deque<std::string> waiting_;
  size_t waiting_bytes_ = 0;
};

// For a stream beyond what this server takes.
class RefusedWatchCall final : public StreamCall {
 public:
  RefusedWatchCall(Context& context, net::ServerCall& wire) : StreamCall(context, wire, Method::kWatch) {}
  void on_message(ByteView) override {
    if (is_open()) fail(ErrorId::kTooManyRequests);
  }
  void on_half_close() override {
    if (is_open()) fail(ErrorId::kTooManyRequests);
  }
  void on_refused(node::Ticket, ErrorId) override {}
};

}  // namespace

std::unique_ptr<net::CallHandler> make_watch_call(Context& context, net::ServerCall& wire) {
  if (context.streams().size() >= kWatchStreamsMax) return std::make_unique<RefusedWatchCall>(context, wire);
  return std::make_unique<WatchCall>(context, wire);
}

}  // namespace conclave::api
