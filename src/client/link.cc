#include "client/link.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include <fmt/format.h>

namespace conclave::client {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kSessionPath = "/conclave.v1.Sessions/Session";
// However long the TTL is, a dead server is noticed within some of these.
constexpr Duration kPatienceMax = 5s;
// A round trip to the other side of the world and some; a shorter one gives up servers that live.
constexpr Duration kPatienceMin = 200ms;
constexpr Duration kProbeInterval = 10s;
// While there are servers that were not tried, the next one comes at once but for this, so that not all clients of a
// server that died come in the same millisecond.
constexpr Duration kPauseFirst = 20ms;
constexpr Duration kPauseMax = 1s;
// Of what the connection has not taken: some thousand requests. More waits in the sessions, which are bounded.
constexpr size_t kQueuedBytesMax = size_t{4} << 20;
// Keep-alives not answered are given up with the stream; more than one a turn for the whole patience cannot be.
constexpr size_t kUnansweredMax = 1024;

}  // namespace

Link::Link(net::Loop& loop, std::vector<net::Endpoint> endpoints, uint64_t seed, LinkEvents& events)
    : loop_(loop),
      endpoints_(std::move(endpoints)),
      events_(events),
      random_(seed),
      patience_(kPatienceMax),
      endpoint_(static_cast<size_t>(random_.below(endpoints_.size()))) {}

Link::~Link() = default;

void Link::set_wanted(bool wanted) {
  wanted_ = wanted;
}

void Link::set_patience(Duration patience) {
  patience_ = std::clamp(patience, kPatienceMin, kPatienceMax);
}

bool Link::is_congested() const {
  return call_ && (call_->queued_bytes() >= kQueuedBytesMax || sent_.size() >= kUnansweredMax);
}

void Link::send(const v1::SessionRequest& request) {
  if (call_) call_->send(request.SerializeAsString());
}

void Link::keep_alive(Instant now, std::vector<int64_t> sessions) {
  if (!call_) return;
  v1::SessionRequest request;
  v1::KeepSessions& keep = *request.mutable_keep_alive();
  keep.set_id(next_keep_alive_);
  keep.mutable_sessions()->Add(sessions.begin(), sessions.end());
  sent_.push_back({.id = next_keep_alive_++, .sent = now, .sessions = std::move(sessions)});
  send(request);
}

Instant Link::probe_at() const {
  if (!call_ || heard_at_ == kNever || !sent_.empty()) return kNever;
  return std::max(heard_at_, probe_from_) + kProbeInterval;
}

Instant Link::given_up_at() const {
  Instant since = unrenewed_since_;
  if (heard_at_ == kNever) since = std::min(since, opened_at_);
  if (!sent_.empty()) since = std::min(since, sent_.front().sent);
  return since == kNever ? kNever : since + patience_;
}

Instant Link::next_deadline() const {
  if (!wanted_) return call_ ? Instant{} : kNever;
  if (!call_) return connect_at_;
  if (broken_) return Instant{};
  return given_up_at();
}

void Link::tick(Instant now) {
  if (!wanted_) {
    if (call_) disconnect(now);
    return;
  }
  if (call_ && broken_) disconnect(now);
  if (call_ && now >= given_up_at()) {
    last_failure_ =
        fmt::format("{}: {} for {} ms", endpoints_[endpoint_].text(),
                    unrenewed_since_ == kNever ? "no answer" : "no session was renewed", to_milliseconds(patience_));
    disconnect(now);
  }
  if (!call_ && now >= connect_at_) connect(now);
}

void Link::connect(Instant now) {
  const net::Endpoint& endpoint = endpoints_[endpoint_];
  channel_ = net::Channel::make(loop_, endpoint.host, endpoint.port, endpoint.tls);
  opened_at_ = now;
  heard_at_ = kNever;
  unrenewed_since_ = kNever;
  broken_ = false;
  call_ = channel_->open(kSessionPath, {.on_message = [this](ByteView message) { on_message(message); },
                                        .on_finished =
                                            [this](const net::GrpcStatus& status) {
                                              broken_ = true;
                                              last_failure_ =
                                                  fmt::format("{}: {}", endpoints_[endpoint_].text(), status.message);
                                            }});
  events_.on_connected(now);
}

void Link::disconnect(Instant now) {
  call_.reset();
  channel_.reset();  // and with it a connection that may be dead without knowing
  sent_.clear();
  ++failures_;  // until something comes of one
  endpoint_ = (endpoint_ + 1) % endpoints_.size();
  const size_t rounds = std::min<size_t>(failures_ / endpoints_.size(), 16);
  const Duration pause = std::min(kPauseFirst * (int64_t{1} << rounds), std::min(kPauseMax, patience_));
  connect_at_ = now + random_.between(pause / 2, pause);
  events_.on_disconnected(now);
}

void Link::on_message(ByteView message) {
  const Instant now = loop_.now();
  v1::SessionResponse response;
  if (!response.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
    broken_ = true;
    last_failure_ = fmt::format("{}: an answer that cannot be read", endpoints_[endpoint_].text());
    return;
  }
  if (broken_) return;
  heard_at_ = now;
  if (response.has_opened() || response.has_attached()) failures_ = 0;
  if (response.has_kept()) {
    on_kept(now, response.kept());
  } else {
    events_.on_response(now, response);
  }
  if (asks_to_move(response)) {
    broken_ = true;
    last_failure_ = fmt::format("{}: it lags, and asked to go to another server", endpoints_[endpoint_].text());
  }
}

void Link::on_kept(Instant now, const v1::SessionsKept& kept) {
  const auto found = std::ranges::find(sent_, kept.id(), &SentKeepAlive::id);
  if (found == sent_.end()) return;
  const SentKeepAlive sent = std::move(*found);
  sent_.erase(found);
  const std::unordered_set<int64_t> gone(kept.gone().begin(), kept.gone().end());
  const std::unordered_set<int64_t> failed(kept.failed().begin(), kept.failed().end());
  bool renewed = false;
  for (const int64_t session : sent.sessions) {
    const auto became = gone.contains(session)     ? SessionCore::Kept::kGone
                        : failed.contains(session) ? SessionCore::Kept::kFailed
                                                   : SessionCore::Kept::kRenewed;
    renewed |= became != SessionCore::Kept::kFailed;
    events_.on_kept(now, session, sent.sent, became);
  }
  if (renewed) {
    failures_ = 0;
    unrenewed_since_ = kNever;
  } else if (unrenewed_since_ == kNever) {
    unrenewed_since_ = sent.sent;
  }
}

}  // namespace conclave::client
