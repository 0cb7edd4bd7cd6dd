#include "client/calls.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "client/promise.h"

namespace conclave::client {
namespace {

using namespace std::chrono_literals;

enum GrpcCode : uint32_t {
  kCancelled = 1,
  kDeadlineExceeded = 4,
  kResourceExhausted = 8,
  kInternal = 13,
  kUnavailable = 14,
};

constexpr std::string_view kStatusPath = "/etcdserverpb.Maintenance/Status";
// An attempt that can also be made elsewhere waits no longer than this, or half of the time, for a silent server.
constexpr Duration kAttemptMin = 500ms;
// Between rounds of all servers.
constexpr Duration kPauseFirst = 20ms;
constexpr Duration kPauseMax = 200ms;

// The server looked at it and said no.
bool is_decided(const net::GrpcStatus& status) {
  return status.code != kCancelled && status.code != kDeadlineExceeded && status.code != kInternal &&
         status.code != kUnavailable && status.code != kResourceExhausted;
}

// A server says that nobody has done it: what it says of itself, in etcd's words or in ours.
bool is_not_applied(const net::GrpcStatus& status) {
  if (status.code == kResourceExhausted) return true;
  return status.code == kUnavailable &&
         (status.message == "etcdserver: no leader" || status.message.starts_with("NO_QUORUM"));
}

// The stable word that a message of conclave.v1 begins with, or the code's number.
std::string reason_of(const net::GrpcStatus& status) {
  const size_t end = status.message.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
  if (end != 0 && status.message.size() > 2) {
    const std::string word = status.message.substr(0, end);
    if (word.size() > 2) return word;
  }
  return fmt::format("GRPC_{}", status.code);
}

}  // namespace

struct Calls::Call {
  std::string path;
  std::string request;
  Repeat repeat = Repeat::kHarmless;
  Instant end{};
  Duration attempt_max{};
  Duration pause = kPauseFirst;
  size_t endpoint = 0;
  size_t tried = 0;  // in this round
  Error last;
  Done done;
};

Calls::Calls(net::Loop& loop, std::vector<net::Endpoint> endpoints) : loop_(loop), endpoints_(std::move(endpoints)) {
  for (const net::Endpoint& endpoint : endpoints_) {
    channels_.push_back(net::Channel::make(loop_, endpoint.host, endpoint.port, endpoint.tls));
  }
}

Calls::~Calls() = default;

void Calls::shut() {
  channels_.clear();
  while (!calls_.empty()) finish(std::shared_ptr(*calls_.begin()), std::unexpected(client_closed()));
}

void Calls::finish(const std::shared_ptr<Call>& call, std::expected<std::string, Error> answer) {
  if (calls_.erase(call) != 0) call->done(std::move(answer));
}

void Calls::call(std::string_view path, std::string request, Repeat repeat, Duration timeout, Done done) {
  const auto call = std::make_shared<Call>(Call{
      .path = std::string(path),
      .request = std::move(request),
      .repeat = repeat,
      .end = loop_.now() + timeout,
      .attempt_max = endpoints_.size() == 1 ? timeout : std::max(kAttemptMin, timeout / 2),
      .endpoint = preferred_,
      .last = {ErrorKind::kNotApplied, "NO_SERVER", "the time given was over before a server was asked"},
      .done = std::move(done),
  });
  calls_.insert(call);
  attempt(call);
}

void Calls::attempt(const std::shared_ptr<Call>& call) {
  if (!calls_.contains(call)) return;
  const Duration left = std::min(call->end - loop_.now(), call->attempt_max);
  if (left <= Duration::zero()) return finish(call, std::unexpected(call->last));
  net::Channel& channel = *channels_[call->endpoint];
  if (call->repeat == Repeat::kHarmless || channel.is_connected()) return ask(call);
  // A change is sent on a connection that stands: one that cannot be made has certainly changed nothing.
  channel.call(kStatusPath, {}, left, [this, call](const net::GrpcStatus& status, ByteView) {
    if (status.ok() || is_decided(status)) return ask(call);
    call->last = {ErrorKind::kNotApplied, "NO_SERVER",
                  fmt::format("{}: {}", endpoints_[call->endpoint].text(), status.message)};
    try_next(call);
  });
}

void Calls::ask(const std::shared_ptr<Call>& call) {
  const Duration left = call->end - loop_.now();
  if (left <= Duration::zero()) return finish(call, std::unexpected(call->last));
  channels_[call->endpoint]->call(
      call->path, call->request, call->repeat == Repeat::kChange ? left : std::min(left, call->attempt_max),
      [this, call](const net::GrpcStatus& status, ByteView response) { on_answer(call, status, response); });
}

void Calls::on_answer(const std::shared_ptr<Call>& call, const net::GrpcStatus& status, std::string_view response) {
  if (status.ok()) {
    preferred_ = call->endpoint;
    return finish(call, std::string(response));
  }
  std::string message = fmt::format("{}: {}", endpoints_[call->endpoint].text(), status.message);
  if (is_decided(status)) {
    preferred_ = call->endpoint;
    return finish(call, std::unexpected(Error{ErrorKind::kRejected, reason_of(status), std::move(message)}));
  }
  if (call->repeat == Repeat::kHarmless || is_not_applied(status)) {
    call->last = {ErrorKind::kNotApplied, status.code == kResourceExhausted ? "OVERLOADED" : "NO_SERVER",
                  std::move(message)};
    return try_next(call);
  }
  finish(call, std::unexpected(Error{ErrorKind::kOutcomeUnknown, "UNKNOWN_OUTCOME", std::move(message)}));
}

void Calls::try_next(const std::shared_ptr<Call>& call) {
  call->endpoint = (call->endpoint + 1) % endpoints_.size();
  if (++call->tried < endpoints_.size()) return attempt(call);
  call->tried = 0;
  loop_.call_at(std::min(loop_.now() + call->pause, call->end), [this, call] { attempt(call); });
  call->pause = std::min(2 * call->pause, kPauseMax);
}

}  // namespace conclave::client
