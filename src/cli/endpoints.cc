#include "cli/endpoints.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

#include <fmt/format.h>

namespace conclave::cli {
namespace {

using namespace std::chrono_literals;

enum GrpcCode : uint32_t {
  kCancelled = 1,
  kUnknownError = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternalError = 13,
  kUnavailableNow = 14,
  kUnauthenticated = 16,
};

// What a status says of the call it ended.
enum class Verdict {
  kDecided,     // the server looked at it and said no
  kNotApplied,  // nobody has done anything: a server without a leader
  kOpen         // the connection or the time ended: anything may have happened
};

Verdict verdict_of(const net::GrpcStatus& status) {
  switch (status.code) {
    case kUnavailableNow:
      return status.message == "etcdserver: no leader" ? Verdict::kNotApplied : Verdict::kOpen;
    case kCancelled:
    case kDeadlineExceeded:
    case kInternalError:
      return Verdict::kOpen;
    default:
      return Verdict::kDecided;
  }
}

// A server is there and says that it cannot now: another attempt a little later may do.
bool is_passing(const net::GrpcStatus& status) {
  return status.code == kUnavailableNow && status.message.starts_with("etcdserver:");
}

constexpr std::string_view kStatusPath = "/etcdserverpb.Maintenance/Status";
constexpr Duration kPauseFirst = 20ms;
constexpr Duration kPauseMax = 200ms;
// An attempt that could also be made elsewhere does not wait longer than this for a server that says nothing.
constexpr Duration kAttemptMin = 500ms;

}  // namespace

Endpoints::Endpoints(std::vector<Endpoint> endpoints) : endpoints_(std::move(endpoints)) {
  for (const Endpoint& endpoint : endpoints_) {
    channels_.push_back(net::Channel::make(loop_, endpoint.host, endpoint.port, endpoint.tls));
  }
  thread_ = std::thread([this]() noexcept { loop_.run(); });
}

Endpoints::~Endpoints() {
  on_loop([this] { channels_.clear(); });
  loop_.stop();
  thread_.join();
}

void Endpoints::on_loop(std::move_only_function<void()> work) {
  std::mutex mutex;
  std::condition_variable done;
  bool is_done = false;
  loop_.post([&] {
    work();
    const std::lock_guard lock(mutex);
    is_done = true;
    done.notify_one();
  });
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return is_done; });
}

Answer Endpoints::call_at(size_t endpoint, std::string_view path, std::string_view request, Duration timeout) {
  std::mutex mutex;
  std::condition_variable done;
  bool is_done = false;
  Answer answer{.status = {}, .message = {}, .endpoint = endpoint};
  // The references are good: this waits until the channel has answered, which it does at the latest at the timeout.
  loop_.post([&] {
    channels_[endpoint]->call(path, request, timeout, [&](const net::GrpcStatus& status, ByteView response) {
      const std::lock_guard lock(mutex);
      answer.status = status;
      answer.message = response;
      is_done = true;
      done.notify_one();
    });
  });
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return is_done; });
  return answer;
}

Answer Endpoints::connect(size_t endpoint, Duration timeout) {
  bool connected = false;
  on_loop([&] { connected = channels_[endpoint]->is_connected(); });
  if (connected) return Answer{.status = {}, .message = {}, .endpoint = endpoint};
  return call_at(endpoint, kStatusPath, {}, timeout);
}

Answer Endpoints::call(std::string_view path, std::string_view request, Repeat repeat, Duration timeout) {
  const Instant end = clock_.now() + timeout;
  const Duration attempt_max = size() == 1 ? timeout : std::max(kAttemptMin, timeout / 2);
  Duration pause = kPauseFirst;
  size_t index = preferred();
  Answer answer{.status = {kDeadlineExceeded, "the time given was over before a server was asked"}, .message = {}};
  while (true) {
    for (size_t tried = 0; tried < size(); ++tried, index = (index + 1) % size()) {
      const auto left = [&] { return std::min(end - clock_.now(), attempt_max); };
      if (left() <= Duration::zero()) return answer;
      // A change is sent on a connection that stands: one that cannot be made has certainly changed nothing.
      if (repeat == Repeat::kChange) {
        Answer reached = connect(index, left());
        if (!reached.status.ok() && verdict_of(reached.status) != Verdict::kDecided) {
          answer = std::move(reached);
          continue;
        }
      }
      if (left() <= Duration::zero()) return answer;
      answer = call_at(index, path, request, repeat == Repeat::kChange ? end - clock_.now() : left());
      const Verdict verdict = answer.status.ok() ? Verdict::kDecided : verdict_of(answer.status);
      if (verdict == Verdict::kDecided) {
        preferred_.store(index, std::memory_order_relaxed);
        return answer;
      }
      if (verdict == Verdict::kOpen && repeat == Repeat::kChange) {
        answer.may_have_happened = true;
        return answer;
      }
    }
    if (!is_passing(answer.status)) return answer;
    std::this_thread::sleep_for(std::clamp<Duration>(end - clock_.now(), Duration::zero(), pause));
    pause = std::min(2 * pause, kPauseMax);
  }
}

Failure Endpoints::failure_of(const Answer& answer) const {
  const std::string where = endpoints_[answer.endpoint].text();
  const std::string text = fmt::format("{}: {}", where, answer.status.message);
  if (answer.may_have_happened) {
    return {kOutcomeUnknown, fmt::format("the outcome is unknown: {}", text),
            "It may have been done, or may yet be: look before you do it again."};
  }
  switch (answer.status.code) {
    case kInvalidArgument:
      return {kUsage, text, ""};
    case kNotFound:
    case kAlreadyExists:
    case kFailedPrecondition:
    case kAborted:
    case kOutOfRange:
      return {kFalse, text, ""};
    case kPermissionDenied:
    case kUnauthenticated:
      return {kPermission, text, ""};
    case kResourceExhausted:
      return {kUnavailable, text, "The server is at one of its limits; nothing was done."};
    case kUnimplemented:
      return {kUnavailable, text, "This server does not know the call."};
    case kCancelled:
    case kDeadlineExceeded:
    case kUnavailableNow:
      return {kUnavailable, text,
              size() == 1 ? "Is a server running there? --endpoints or CONCLAVE_ENDPOINTS name the servers to ask."
                          : "No server could do it; nothing was changed."};
    default:
      return {kInternal, fmt::format("{} (gRPC code {})", text, answer.status.code), ""};
  }
}

Failure Endpoints::unreadable_answer(size_t endpoint) const {
  return {kInternal, fmt::format("{}: the answer could not be read", endpoints_[endpoint].text()), ""};
}

}  // namespace conclave::cli
