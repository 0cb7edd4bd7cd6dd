// CPU of a unary call at the server, system calls included, beside the same echo served by gRPC C++: each server a
// process of its own, under the same load from here, in alternating rounds. gRPC's servers are written in three ways;
// the one that costs it least at a shape is what we are compared with there.
#include <algorithm>
#include <array>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/assert.h"
#include "bench/grpc_echo.h"
#include "bench/loopback.h"

namespace conclave::bench {
namespace {

constexpr std::string_view kPath = "/conclave.bench.Echo/Call";
// A Blob of 98 bytes, as the request of a small put is.
const std::string kRequest = std::string("\x0a\x62", 2) + std::string(98, 'r');

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

// One of the contenders.
class EchoProcess {
 public:
  explicit EchoProcess(const std::function<void(const Listening&)>& serve)
      : process_([&](int to_parent) {
          serve([&](uint16_t port) { ASSERT(::write(to_parent, &port, sizeof(port)) == sizeof(port)); });
        }) {
    ASSERT(::read(process_.from(), &port_, sizeof(port_)) == sizeof(port_));
    ASSERT(::clock_getcpuclockid(process_.pid(), &clock_) == 0);
  }
  [[nodiscard]] uint16_t port() const { return port_; }
  // Of all its threads, user and system.
  [[nodiscard]] double cpu_microseconds() const {
    timespec time{};
    ASSERT(::clock_gettime(clock_, &time) == 0);
    return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
  }

 private:
  ServerProcess process_;
  clockid_t clock_{};
  uint16_t port_ = 0;
};

struct Figures {
  double server_us = 0;
  double per_second = 0;
};

Figures measure(const EchoProcess& server, const Shape& shape, size_t calls) {
  EchoLoad load(server.port(), shape, std::string(kPath), kRequest);
  load.warm(calls);
  const double cpu_before = server.cpu_microseconds();
  const Duration took = load.run(calls);
  const double cpu = server.cpu_microseconds() - cpu_before;
  const auto count = static_cast<double>(calls);
  return {.server_us = cpu / count, .per_second = count / (static_cast<double>(took.count()) / 1e9)};
}

struct Contender {
  std::string name;
  std::unique_ptr<EchoProcess> server;
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
    contenders.push_back({.name = name, .server = std::make_unique<EchoProcess>(serve)});
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
      cpu.push_back(median(figures[i], &Figures::server_us));
      fmt::print("{:>14} {:>14} {:>14.2f} {:>12.0f}\n", fmt::format("{} x {}", shape.connections, shape.streams),
                 contenders[i].name, cpu.back(), median(figures[i], &Figures::per_second));
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
