// Unary echo over loopback: calls per second, and the CPU time of the server's thread for each call, system calls
// included. Server and clients run a loop each in a thread of their own. The request is that of a small put.
#include <ctime>

#include <future>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/assert.h"
#include "bench/loopback.h"

namespace conclave::bench {
namespace {

constexpr size_t kRequestBytes = 100;

double cpu_microseconds() {
  timespec time{};
  ASSERT(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
}

// A server in its own thread.
class ServerThread {
 public:
  ServerThread() {
    std::promise<uint16_t> port;
    thread_ = std::thread([this, &port]() noexcept {
      auto server = net::Server::listen(loop_, service_, {});
      ASSERT(server.has_value());
      loop_.add_turn_end([&](Instant) {
        (*server)->flush();
        ++turns_;
      });
      port.set_value((*server)->port());
      loop_.run();
    });
    port_ = port.get_future().get();
  }
  ServerThread(const ServerThread&) = delete;
  ServerThread& operator=(const ServerThread&) = delete;
  ~ServerThread() {
    loop_.stop();
    thread_.join();
  }
  [[nodiscard]] uint16_t port() const { return port_; }
  struct Usage {
    double cpu = 0;
    uint64_t turns = 0;
  };
  Usage usage() {
    std::promise<Usage> usage;
    loop_.post([&] { usage.set_value({.cpu = cpu_microseconds(), .turns = turns_}); });
    return usage.get_future().get();
  }

 private:
  env::PosixClock clock_;
  net::Loop loop_{clock_};
  EchoService service_;
  std::thread thread_;
  uint16_t port_ = 0;
  uint64_t turns_ = 0;
};

struct Figures {
  double per_second = 0;
  double server_us = 0;
  double client_us = 0;
  double calls_per_turn = 0;
};

Figures measure(const Shape& shape, size_t calls) {
  ServerThread server;
  EchoLoad load(server.port(), shape, "/etcdserverpb.KV/Put", std::string(kRequestBytes, 'r'));
  load.warm(calls);
  const ServerThread::Usage server_before = server.usage();
  const double client_before = cpu_microseconds();
  const Duration took = load.run(calls);
  const double client_us = cpu_microseconds() - client_before;
  const ServerThread::Usage server_after = server.usage();
  const auto count = static_cast<double>(calls);
  return {.per_second = count / (static_cast<double>(took.count()) / 1e9),
          .server_us = (server_after.cpu - server_before.cpu) / count,
          .client_us = client_us / count,
          .calls_per_turn = count / static_cast<double>(server_after.turns - server_before.turns)};
}

int run(int argc, char** argv) {
  CLI::App app("Unary echo over loopback: calls per second, CPU per call.");
  bool json = false;
  int rounds = 5;
  size_t calls = 100'000;
  app.add_flag("--json", json, "figures as one line of JSON at the end");
  app.add_option("--rounds", rounds, "of each shape, alternating; the median counts")->check(CLI::Range(1, 1000));
  app.add_option("--calls", calls, "in a round")->check(CLI::Range(1000, 10'000'000));
  CLI11_PARSE(app, argc, argv);

  const std::vector<Shape> shapes = {{"1x64", 1, 64}, {"8x32", 8, 32}, {"64x1", 64, 1}, {"1x1", 1, 1}};
  std::vector<std::vector<Figures>> figures(shapes.size());
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < shapes.size(); ++i) {
      // One call at a time waits for the scheduler, not for us: fewer of them tell as much.
      figures[i].push_back(measure(shapes[i], shapes[i].connections * shapes[i].streams == 1 ? calls / 10 : calls));
    }
  }
  fmt::print("{:>12} {:>12} {:>14} {:>14} {:>16}\n", "conns x str", "calls/s", "server us/call", "client us/call",
             "calls per turn");
  std::string line;
  for (size_t i = 0; i < shapes.size(); ++i) {
    const double per_second = median(figures[i], &Figures::per_second);
    const double server_us = median(figures[i], &Figures::server_us);
    const double client_us = median(figures[i], &Figures::client_us);
    const double per_turn = median(figures[i], &Figures::calls_per_turn);
    fmt::print("{:>12} {:>12.0f} {:>14.2f} {:>14.2f} {:>16.1f}\n", shapes[i].name, per_second, server_us, client_us,
               per_turn);
    line += fmt::format("{}\"calls_per_s_{}\":{:.0f},\"server_us_{}\":{:.2f},\"client_us_{}\":{:.2f}",
                        line.empty() ? "" : ",", shapes[i].name, per_second, shapes[i].name, server_us, shapes[i].name,
                        client_us);
  }
  if (json) fmt::print("{{{}}}\n", line);
  return 0;
}

}  // namespace
}  // namespace conclave::bench

int main(int argc, char** argv) {
  return conclave::bench::run(argc, argv);
}
