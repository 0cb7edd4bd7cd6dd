// What the benchmarks over loopback share: a server that echoes, calls that follow each other on some connections, a
// server in a process of its own, and the median of some rounds.
#pragma once

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "env/posix/clock.h"
#include "net/client.h"
#include "net/server.h"

namespace conclave::bench {

class EchoCall final : public net::CallHandler {
 public:
  explicit EchoCall(net::ServerCall& call) : call_(call) {}
  void on_message(ByteView message) override { text_ = message; }
  void on_half_close() override {
    call_.send(std::move(text_));
    call_.finish({});
  }
  void on_cancel() override {}

 private:
  net::ServerCall& call_;
  std::string text_;
};

// Whatever is called.
class EchoService final : public net::Service {
 public:
  std::unique_ptr<net::CallHandler> open(net::ServerCall& call) override { return std::make_unique<EchoCall>(call); }
  void on_http(const net::HttpRequest&, std::function<void(net::HttpResponse)> answer) override { answer({}); }
};

struct Shape {
  const char* name;
  size_t connections;
  size_t streams;
};

// Unary calls of one shape to an echo, from this thread.
class EchoLoad {
 public:
  EchoLoad(uint16_t port, const Shape& shape, std::string path, std::string request)
      : shape_(shape), path_(std::move(path)), request_(std::move(request)) {
    channels_.reserve(shape.connections);
    for (size_t i = 0; i < shape.connections; ++i) {
      channels_.push_back(net::Channel::make(loop_, "127.0.0.1", port));
    }
  }
  // A tenth of what will be measured, and at least one of each stream.
  void warm(size_t calls) { (void)run(std::max(calls / 10, shape_.connections * shape_.streams)); }
  // The time it took.
  Duration run(size_t calls) {
    started_ = done_ = 0;
    goal_ = calls;
    const Instant begin = clock_.now();
    for (size_t stream = 0; stream < shape_.streams; ++stream) {
      for (size_t channel = 0; channel < shape_.connections; ++channel) next(channel);
    }
    loop_.run();
    return clock_.now() - begin;
  }

 private:
  // Each finished call starts the next on its channel.
  void next(size_t channel) {
    if (started_ == goal_) return;
    ++started_;
    channels_[channel]->call(path_, request_, std::chrono::seconds(60),
                             [this, channel](const net::GrpcStatus& status, ByteView response) {
                               ASSERT(status.ok() && response == request_);
                               if (++done_ == goal_) loop_.stop();
                               next(channel);
                             });
  }

  const Shape shape_;
  const std::string path_;
  const std::string request_;
  env::PosixClock clock_;
  net::Loop loop_{clock_};
  std::vector<std::unique_ptr<net::Channel>> channels_;
  size_t started_ = 0;
  size_t done_ = 0;
  size_t goal_ = 0;
};

// A process that serves, and ends with this or with its parent. Forked: before this process has threads.
class ServerProcess {
 public:
  // `serve` has the end of a pipe to tell what it listens on, and does not return.
  explicit ServerProcess(const std::function<void(int to_parent)>& serve) {
    std::array<int, 2> pipe{};
    ASSERT(::pipe2(pipe.data(), O_CLOEXEC) == 0);
    pid_ = ::fork();
    ASSERT(pid_ >= 0);
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      serve(pipe[1]);
      std::_Exit(1);
    }
    ::close(pipe[1]);
    from_ = pipe[0];
  }
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;
  ~ServerProcess() {
    ::close(from_);
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  // Where it tells.
  [[nodiscard]] int from() const { return from_; }

 private:
  pid_t pid_ = 0;
  int from_ = -1;
};

template <class Round, class Get = std::identity>
double median(const std::vector<Round>& rounds, Get get = {}) {
  std::vector<double> values;
  values.reserve(rounds.size());
  for (const Round& round : rounds) values.push_back(std::invoke(get, round));
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace conclave::bench
