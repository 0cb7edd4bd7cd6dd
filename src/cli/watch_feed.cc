#include "cli/watch_feed.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace conclave::cli {
namespace {

// Long enough not to be a load on servers that are electing, short enough not to be felt.
constexpr Duration kReopenPause = std::chrono::milliseconds(50);

}  // namespace

WatchFeed::WatchFeed(Endpoints& endpoints, etcdserverpb::WatchCreateRequest request, WatchFeedEvents events)
    : endpoints_(endpoints),
      request_(std::move(request)),
      events_(std::move(events)),
      endpoint_(endpoints.preferred()) {
  open();
}

WatchFeed::~WatchFeed() {
  endpoints_.loop().cancel(timer_);
}

void WatchFeed::open() {
  call_ = endpoints_.channel(endpoint_).open("/etcdserverpb.Watch/Watch",
                                             {.on_message = [this](ByteView message) { on_message(message); },
                                              .on_finished = [this](const net::GrpcStatus&) { reopen_later(); }});
  etcdserverpb::WatchRequest request;
  *request.mutable_create_request() = request_;
  call_->send(request.SerializeAsString());
}

void WatchFeed::reopen_later() {
  if (ended_ || timer_ != 0) return;
  timer_ = endpoints_.loop().call_at(endpoints_.loop().now() + kReopenPause, [this] {
    timer_ = 0;
    endpoint_ = (endpoint_ + 1) % endpoints_.size();
    open();
  });
}

void WatchFeed::on_message(ByteView message) {
  if (ended_) return;
  etcdserverpb::WatchResponse response;
  const auto failed = [&](ExitCode code, const std::string& text) {
    ended_ = true;
    events_.on_failed({code, fmt::format("{}: {}", endpoints_.at(endpoint_).text(), text), ""});
  };
  if (!response.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
    return failed(kInternal, "an event could not be read");
  }
  if (response.created() && request_.start_revision() == 0) {
    request_.set_start_revision(response.header().revision() + 1);
  }
  if (response.compact_revision() > 0) {
    return failed(kFalse, fmt::format("the revisions before {} are no longer kept", response.compact_revision()));
  }
  // Ended by the server for another reason, such as a lost leader: another one goes on.
  if (response.canceled()) {
    if (response.watch_id() == -1) return failed(kUsage, response.cancel_reason());
    return reopen_later();
  }
  for (const mvccpb::Event& event : response.events()) {
    request_.set_start_revision(std::max(request_.start_revision(), event.kv().mod_revision() + 1));
  }
  if (response.events_size() > 0) events_.on_events(response);
}

}  // namespace conclave::cli
