// Endpoints: the servers a command may ask. Owns the loop's thread and a channel for each; a call goes to the one that
// answered last, and to the next one when that cannot have done anything, or when doing it twice does no harm. Never
// says that a write failed when it may have happened.
#pragma once

#include <atomic>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <google/protobuf/message_lite.h>

#include "base/time.h"
#include "cli/failure.h"
#include "env/posix/clock.h"
#include "net/client.h"
#include "net/endpoint.h"
#include "net/loop.h"

namespace conclave::cli {

using net::Endpoint;
using net::load_endpoints;
using net::parse_endpoints;

// What a repetition of the call would do.
enum class Repeat {
  kHarmless,  // a read, or a write that is the same twice: asked again whatever came of it
  kChange     // asked again only where it is known that nothing was done
};

struct Answer {
  net::GrpcStatus status;
  std::string message;
  size_t endpoint = 0;
  bool may_have_happened = false;  // not OK, and yet it may have been done
};

// Made and used by one thread, besides the loop's own.
class Endpoints {
 public:
  explicit Endpoints(std::vector<Endpoint> endpoints);
  Endpoints(const Endpoints&) = delete;
  Endpoints& operator=(const Endpoints&) = delete;
  ~Endpoints();

  // Waits for the answer, at most `timeout` for all attempts together.
  [[nodiscard]] Answer call(std::string_view path, std::string_view request, Repeat repeat, Duration timeout);
  // One attempt at one endpoint.
  [[nodiscard]] Answer call_at(size_t endpoint, std::string_view path, std::string_view request, Duration timeout);

  // The same, with messages. The failure is worded and has the exit code.
  template <class Response>
  std::expected<Response, Failure> ask(std::string_view path, const google::protobuf::MessageLite& request,
                                       Repeat repeat, Duration timeout) {
    const Answer answer = call(path, request.SerializeAsString(), repeat, timeout);
    if (!answer.status.ok()) return std::unexpected(failure_of(answer));
    Response response;
    if (!response.ParseFromString(answer.message)) return std::unexpected(unreadable_answer(answer.endpoint));
    return response;
  }

  [[nodiscard]] size_t size() const { return endpoints_.size(); }
  [[nodiscard]] const Endpoint& at(size_t index) const { return endpoints_[index]; }
  [[nodiscard]] Failure failure_of(const Answer& answer) const;
  [[nodiscard]] Failure unreadable_answer(size_t endpoint) const;
  [[nodiscard]] env::Clock& clock() { return clock_; }

  // Runs `work` on the loop's thread and waits until it is done.
  void on_loop(std::move_only_function<void()> work);
  // On the loop's thread only.
  [[nodiscard]] net::Loop& loop() { return loop_; }
  [[nodiscard]] net::Channel& channel(size_t index) { return *channels_[index]; }
  // Where the last call was answered: a good place to begin. Any thread.
  [[nodiscard]] size_t preferred() const { return preferred_.load(std::memory_order_relaxed); }

 private:
  // The answer of an endpoint that is not connected yet and cannot be; OK if it is.
  [[nodiscard]] Answer connect(size_t endpoint, Duration timeout);

  const std::vector<Endpoint> endpoints_;
  env::PosixClock clock_;
  net::Loop loop_{clock_};
  std::vector<std::unique_ptr<net::Channel>> channels_;  // the loop's thread
  std::atomic<size_t> preferred_{0};
  std::thread thread_;
};

}  // namespace conclave::cli
