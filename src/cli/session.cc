#include "cli/session.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "etcd/rpc.pb.h"

namespace conclave::cli {
namespace {

using namespace std::chrono_literals;

constexpr Duration kReopenPause = 50ms;
// A server that has not answered a keep-alive for this long is left for the next one.
constexpr Duration kPatienceMax = 2s;

}  // namespace

Session::Session(Endpoints& endpoints, const Options& options, Changed changed)
    : endpoints_(endpoints), options_(options), changed_(std::move(changed)), endpoint_(endpoints.preferred()) {}

std::expected<std::unique_ptr<Session>, Failure> Session::open(Endpoints& endpoints, const Options& options,
                                                               Changed changed) {
  std::unique_ptr<Session> session(new Session(endpoints, options, std::move(changed)));
  etcdserverpb::LeaseGrantRequest request;
  request.set_ttl(std::chrono::ceil<std::chrono::seconds>(options.ttl).count());
  // Granted twice, the one nobody knows ends by itself. The deadline counts from before the first attempt.
  const Instant sent = endpoints.clock().now();
  auto granted = endpoints.ask<etcdserverpb::LeaseGrantResponse>("/etcdserverpb.Lease/LeaseGrant", request,
                                                                 Repeat::kHarmless, options.timeout);
  if (!granted) return std::unexpected(std::move(granted).error());
  session->lease_ = granted->id();
  session->ttl_ = std::chrono::seconds(granted->ttl());
  session->deadline_ = sent + session->ttl_;
  session->endpoint_ = endpoints.preferred();
  endpoints.on_loop([&] { session->tick(); });
  return session;
}

Session::~Session() {
  endpoints_.on_loop([this] { stop(); });
}

std::string Session::lease_hex() const {
  return fmt::format("{:x}", static_cast<uint64_t>(lease_));
}

Instant Session::deadline() const {
  const std::lock_guard lock(mutex_);
  return deadline_;
}

bool Session::is_lost() const {
  const std::lock_guard lock(mutex_);
  return lost_;
}

void Session::lose() {
  {
    const std::lock_guard lock(mutex_);
    lost_ = true;
  }
  changed_();
}

std::expected<void, Failure> Session::close() {
  endpoints_.on_loop([this] { stop(); });
  etcdserverpb::LeaseRevokeRequest request;
  request.set_id(lease_);
  const auto revoked = endpoints_.ask<etcdserverpb::LeaseRevokeResponse>("/etcdserverpb.Lease/LeaseRevoke", request,
                                                                         Repeat::kHarmless, options_.timeout);
  // Not found: it has ended already.
  if (!revoked && revoked.error().code != kFalse) return std::unexpected(revoked.error());
  return {};
}

void Session::stop() {
  endpoints_.loop().cancel(std::exchange(timer_, 0));
  call_.reset();
}

// Runs when a keep-alive is due, when an answer is overdue, and when a stream broke.
void Session::tick() {
  const Instant now = endpoints_.loop().now();
  const Duration patience = std::min(options_.interval, kPatienceMax);
  if (broken_ || (!sent_.empty() && now - sent_.front() >= patience)) call_.reset();
  if (!call_) {
    open_stream();
    send();
  } else if (now >= next_send_) {
    send();
  }
  const Instant overdue = sent_.empty() ? kNever : sent_.front() + patience;
  set_timer(std::min(next_send_, overdue));
}

void Session::set_timer(Instant at) {
  endpoints_.loop().cancel(timer_);
  timer_ = endpoints_.loop().call_at(at, [this] {
    timer_ = 0;
    tick();
  });
}

void Session::open_stream() {
  sent_.clear();
  broken_ = false;
  call_ = endpoints_.channel(endpoint_).open("/etcdserverpb.Lease/LeaseKeepAlive",
                                             {.on_message = [this](ByteView message) { on_message(message); },
                                              .on_finished =
                                                  [this](const net::GrpcStatus&) {
                                                    broken_ = true;
                                                    set_timer(endpoints_.loop().now() + kReopenPause);
                                                  }});
  endpoint_ = (endpoint_ + 1) % endpoints_.size();  // for the next stream
}

void Session::send() {
  const Instant now = endpoints_.loop().now();
  etcdserverpb::LeaseKeepAliveRequest request;
  request.set_id(lease_);
  sent_.push_back(now);
  next_send_ = now + options_.interval;
  call_->send(request.SerializeAsString());
}

void Session::on_message(ByteView message) {
  etcdserverpb::LeaseKeepAliveResponse response;
  if (sent_.empty() || !response.ParseFromArray(message.data(), static_cast<int>(message.size()))) return;
  const Instant sent = sent_.front();
  sent_.pop_front();
  {
    const std::lock_guard lock(mutex_);
    if (response.ttl() <= 0) {
      lost_ = true;
    } else {
      deadline_ = std::max(deadline_, sent + std::chrono::seconds(response.ttl()));
    }
  }
  changed_();
}

}  // namespace conclave::cli
