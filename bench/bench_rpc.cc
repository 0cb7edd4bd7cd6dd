// CPU of a unary call at the server, system calls included, beside the same echo served by gRPC C++: each server a
// process of its own, under the same load from here, in alternating rounds. gRPC's servers are written in three ways;
// the one that costs it least at a shape is what we are compared with there.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <ctime>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/assert.h"
#include "bench/grpc_echo.h"
#include "env/posix/clock.h"
#include "net/client.h"
#include "net/server.h"

namespace conclave::bench {
namespace {

using net::GrpcStatus;

constexpr std::string_view kPath = "/conclave.bench.Echo/Call";
// A Blob of 98 bytes, as the request of a small put is.
const std::string kRequest = std::string("\x0a\x62", 2) + std::string(98, 'r');

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

class EchoService final : public net::Service {
 public:
  std::unique_ptr<net::CallHandler> open(net::ServerCall& call) override {
    return call.path() == kPath ? std::make_unique<EchoCall>(call) : nullptr;
  }
  void on_http(const net::HttpRequest&, std::function<void(net::HttpResponse)> answer) override { answer({}); }
};

using Listening = std::function<void(uint16_t port)>;

[[noreturn]] void serve_echo(const Listening& listening) {
  env::PosixClock clock;
  net::Loop loop(clock);
  EchoService service;
  auto server = net::Server::listen(loop, service, {});
  ASSERT(server.has_value());
  loop.add_turn_end([&](Instant) { (*server)->flush(); });
  listening((*server)->port());
  loop.run();
  std::_Exit(0);
}

// Forked before this process has threads; ends with this.
class ServerProcess {
 public:
  explicit ServerProcess(const std::function<void(const Listening&)>& serve) {
    std::array<int, 2> pipe{};
    ASSERT(::pipe(pipe.data()) == 0);
    pid_ = ::fork();
    ASSERT(pid_ >= 0);
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      serve([&](uint16_t port) { ASSERT(::write(pipe[1], &port, sizeof(port)) == sizeof(port)); });
      std::_Exit(1);
    }
    ::close(pipe[1]);
    ASSERT(::read(pipe[0], &port_, sizeof(port_)) == sizeof(port_));
    ::close(pipe[0]);
    ASSERT(::clock_getcpuclockid(pid_, &clock_) == 0);
  }
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;
  ~ServerProcess() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] uint16_t port() const { return port_; }
  // Of all its threads, user and system.
  [[nodiscard]] double cpu_microseconds() const {
    timespec time{};
    ASSERT(::clock_gettime(clock_, &time) == 0);
    return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
  }

 private:
  pid_t pid_ = 0;
  clockid_t clock_{};
  uint16_t port_ = 0;
};

struct Shape {
  const char* name;
  size_t connections;
  size_t streams;
};

struct Figures {
  double server_us = 0;
  double per_second = 0;
};

Figures measure(const ServerProcess& server, const Shape& shape, size_t calls) {
  env::PosixClock clock;
  net::Loop loop(clock);
  std::vector<std::unique_ptr<net::Channel>> channels;
  channels.reserve(shape.connections);
  for (size_t i = 0; i < shape.connections; ++i) {
    channels.push_back(net::Channel::make(loop, "127.0.0.1", server.port()));
  }
  size_t started = 0;
  size_t done = 0;
  size_t goal = 0;
  // Each finished call starts the next on its channel.
  std::function<void(size_t)> next = [&](size_t channel) {
    if (started == goal) return;
    ++started;
    channels[channel]->call(kPath, kRequest, std::chrono::seconds(60),
                            [&, channel](const GrpcStatus& status, ByteView response) {
                              ASSERT(status.ok() && response == kRequest);
                              if (++done == goal) loop.stop();
                              next(channel);
                            });
  };
  const auto run = [&](size_t count) {
    started = done = 0;
    goal = count;
    for (size_t stream = 0; stream < shape.streams; ++stream) {
      for (size_t channel = 0; channel < shape.connections; ++channel) next(channel);
    }
    loop.run();
  };
  run(std::max(calls / 10, shape.connections * shape.streams));
  const Instant begin = clock.now();
  const double cpu_before = server.cpu_microseconds();
  run(calls);
  const double cpu = server.cpu_microseconds() - cpu_before;
  const auto count = static_cast<double>(calls);
  return {.server_us = cpu / count, .per_second = count / (static_cast<double>((clock.now() - begin).count()) / 1e9)};
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Contender {
  std::string name;
  std::unique_ptr<ServerProcess> server;
};

int run(int argc, char** argv) {
  CLI::App app("CPU of a unary call at the server, beside gRPC C++.");
  bool json = false;
  int rounds = 5;
  size_t calls = 40'000;
  app.add_flag("--json", json, "ratios as one line of JSON at the end");
  app.add_option("--rounds", rounds, "of each shape, alternating; the median of their ratios counts")
      ->check(CLI::Range(1, 1000));
  app.add_option("--calls", calls, "in a round")->check(CLI::Range(1000, 10'000'000));
  CLI11_PARSE(app, argc, argv);

  std::vector<Contender> contenders;
  const auto add = [&](const char* name, const std::function<void(const Listening&)>& serve) {
    contenders.push_back({.name = name, .server = std::make_unique<ServerProcess>(serve)});
  };
  add("conclave", [](const Listening& listening) { serve_echo(listening); });
  add("gRPC async", [](const Listening& listening) { serve_grpc_echo(GrpcWay::kAsync, listening); });
  add("gRPC callback", [](const Listening& listening) { serve_grpc_echo(GrpcWay::kCallback, listening); });
  add("gRPC sync", [](const Listening& listening) { serve_grpc_echo(GrpcWay::kSync, listening); });

  const std::array<Shape, 3> shapes = {{{"c1", 1, 1}, {"c8x8", 8, 8}, {"c64", 64, 1}}};
  std::string line;
  fmt::print("{:>14} {:>14} {:>14} {:>12}\n", "conns x str", "", "server us/call", "calls/s");
  for (const Shape& shape : shapes) {
    // By contender, then by round. One call at a time waits for the scheduler: fewer of them tell as much.
    std::vector<std::vector<Figures>> figures(contenders.size());
    for (int round = 0; round < rounds; ++round) {
      for (size_t i = 0; i < contenders.size(); ++i) {
        // Who is first changes from round to round.
        const size_t turn = (i + static_cast<size_t>(round)) % contenders.size();
        figures[turn].push_back(measure(*contenders[turn].server, shape, shape.connections == 1 ? calls / 4 : calls));
      }
    }
    std::vector<double> cpu;
    for (size_t i = 0; i < contenders.size(); ++i) {
      std::vector<double> cpus;
      std::vector<double> rates;
      for (const Figures& one : figures[i]) {
        cpus.push_back(one.server_us);
        rates.push_back(one.per_second);
      }
      cpu.push_back(median(cpus));
      fmt::print("{:>14} {:>14} {:>14.2f} {:>12.0f}\n", fmt::format("{} x {}", shape.connections, shape.streams),
                 contenders[i].name, cpu.back(), median(rates));
    }
    const auto best = static_cast<size_t>(std::min_element(cpu.begin() + 1, cpu.end()) - cpu.begin());
    std::vector<double> ratios;
    ratios.reserve(static_cast<size_t>(rounds));
    for (size_t round = 0; round < static_cast<size_t>(rounds); ++round) {
      ratios.push_back(figures[0][round].server_us / figures[best][round].server_us);
    }
    fmt::print("{:>14} conclave / {}: {:.2f}\n", "", contenders[best].name, median(ratios));
    line += fmt::format("{}\"cpu_ratio_{}\":{:.3f}", line.empty() ? "" : ",", shape.name, median(ratios));
  }
  if (json) fmt::print("{{{}}}\n", line);
  return 0;
}

}  // namespace
}  // namespace conclave::bench

int main(int argc, char** argv) {
  return conclave::bench::run(argc, argv);
}
