// Io: a client's thread and what runs on it: the loop, the sessions and the unary calls. Other threads only post.
#pragma once

#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "client/calls.h"
#include "client/live_sessions.h"
#include "client/promise.h"
#include "env/posix/clock.h"
#include "net/alarm.h"
#include "net/endpoint.h"
#include "net/loop.h"

namespace conclave::client {

class Io : public std::enable_shared_from_this<Io> {
 public:
  [[nodiscard]] static std::shared_ptr<Io> start(const std::vector<net::Endpoint>& endpoints, Duration request_timeout);
  Io(const Io&) = delete;
  Io& operator=(const Io&) = delete;
  ~Io();

  // Any thread. `work` runs on the client's, unless the client has ended: then it is destroyed, in the caller.
  void post(std::move_only_function<void(Io&)> work);
  [[nodiscard]] bool is_own_thread() const { return std::this_thread::get_id() == thread_id_; }
  [[nodiscard]] Duration request_timeout() const { return request_timeout_; }

  // Posts, and waits for what is given. Not on the client's thread, where it would be for ever: rejected there.
  template <class T, class Work>
  [[nodiscard]] std::expected<T, Error> ask(Work work) {
    if (is_own_thread()) return std::unexpected(on_client_thread());
    Promise<T> promise;
    auto answer = promise.answer();
    post([work = std::move(work), promise = std::move(promise)](Io& io) mutable { work(io, std::move(promise)); });
    return answer.wait();
  }
  [[nodiscard]] static Error on_client_thread();

  // All that is under way ends. From any thread; the client's does not wait for its own end.
  void close();

  // ---- The client's thread ----
  [[nodiscard]] net::Loop& loop() { return loop_; }
  [[nodiscard]] LiveSessions& sessions() { return sessions_; }
  [[nodiscard]] Calls& calls() { return calls_; }

 private:
  Io(const std::vector<net::Endpoint>& endpoints, Duration request_timeout, uint64_t seed);
  void turn_end(Instant now);

  const Duration request_timeout_;
  env::PosixClock clock_;
  net::Loop loop_{clock_};
  LiveSessions sessions_;
  Calls calls_;
  net::Alarm alarm_;
  std::mutex mutex_;
  bool closed_ = false;  // under the mutex
  std::thread thread_;
  std::thread::id thread_id_;  // set before anybody else has the object
};

}  // namespace conclave::client
