// `conclave bench`: the verbs, the run of a load, and what is printed.
#include "cli/bench.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/common.h"
#include "cli/json.h"
#include "cli/verbs.h"

namespace conclave::cli {
namespace {

using namespace std::chrono_literals;

// After a failed call: a server that is away is not asked ten thousand times a second.
constexpr Duration kPauseAfterFailure = 10ms;
constexpr Duration kCallTimeout = 30s;
constexpr size_t kPreparedAtOnce = 256;
// Something that has not prepared itself by then never will.
constexpr Duration kPrepareMax = 60s;

double milliseconds(Duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

// The measured time follows a first part in which connections are made and caches fill.
Duration warm_up(const BenchOptions& options) {
  return std::clamp<Duration>(options.length / 10, 200ms, 2s);
}

void print(const BenchOptions& options, const BenchMeter& meter, bool json) {
  const double seconds = std::chrono::duration<double>(options.length).count();
  const double rate = static_cast<double>(meter.operations) / seconds;
  const auto at = [&](double share) { return milliseconds(meter.latency.at(share)); };
  fmt::print("{}: {:.0f}/s in {:.1f} s; p50 {:.3f} ms, p90 {:.3f}, p99 {:.3f}, p99.9 {:.3f}, max {:.3f}; {} errors\n",
             options.workload, rate, seconds, at(0.5), at(0.9), at(0.99), at(0.999), milliseconds(meter.latency.max()),
             meter.errors);
  if (meter.errors > 0) fmt::print("first error: {}\n", meter.first_error);
  if (!json) return;
  fmt::print(
      "{{\"workload\":{},\"ops_per_s\":{:.1f},\"operations\":{},\"p50_ms\":{:.4f},\"p90_ms\":{:.4f},\"p99_ms\":{:.4f},"
      "\"p999_ms\":{:.4f},\"max_ms\":{:.4f},\"errors\":{}}}\n",
      json_text(options.workload), rate, meter.operations, at(0.5), at(0.9), at(0.99), at(0.999),
      milliseconds(meter.latency.max()), meter.errors);
}

int run(const BenchOptions& options, bool json, std::unique_ptr<BenchLoad> (*make)(BenchWorld&)) {
  BenchWorld world(options);
  const std::unique_ptr<BenchLoad> load = make(world);
  net::Loop& loop = world.loop();
  bool prepared = false;
  const net::TimerId too_long = loop.call_at(loop.now() + kPrepareMax, [&] { loop.stop(); });
  loop.post([&] {
    load->prepare([&] {
      prepared = true;
      loop.cancel(too_long);
      load->begin();
      const Instant from = loop.now() + warm_up(options);
      loop.call_at(from, [&] { world.meter().measuring = true; });
      loop.call_at(from + options.length, [&] {
        world.meter().measuring = false;
        loop.stop();
      });
    });
  });
  loop.run();
  if (!prepared) {
    return report({kUnavailable, fmt::format("the load could not be prepared: {}", world.meter().first_error), ""});
  }
  print(options, world.meter(), json);
  return world.meter().operations == 0 ? kUnavailable : kOk;
}

struct Arguments {
  Common common;
  BenchOptions options;
  bool json = false;
};

}  // namespace

void BenchMeter::failed(const net::GrpcStatus& status) {
  if (first_error.empty()) first_error = fmt::format("{} (gRPC code {})", status.message, status.code);
  if (measuring) ++errors;
}

BenchWorld::BenchWorld(const BenchOptions& options) : options_(options) {
  for (size_t i = 0; i < options_.connections; ++i) {
    const Endpoint& endpoint = options_.endpoints[i % options_.endpoints.size()];
    channels_.push_back(net::Channel::make(loop_, endpoint.host, endpoint.port, endpoint.tls));
  }
}

void BenchWorld::call(size_t client, std::string_view path, std::string_view request,
                      std::move_only_function<void(bool ok, ByteView response)> next) {
  channel(client).call(path, request, kCallTimeout,
                       [this, next = std::move(next)](const net::GrpcStatus& status, ByteView response) mutable {
                         if (status.ok()) return next(true, response);
                         meter_.failed(status);
                         loop_.call_at(loop_.now() + kPauseAfterFailure,
                                       [next = std::move(next)]() mutable { next(false, {}); });
                       });
}

void BenchWorld::for_each(size_t count, std::function<void(size_t index, std::function<void()> done)> make,
                          std::function<void()> ready) {
  struct State {
    size_t started = 0;
    size_t finished = 0;
    std::function<void(size_t, std::function<void()>)> make;
    std::function<void()> ready;
  };
  const auto state = std::make_shared<State>(State{.make = std::move(make), .ready = std::move(ready)});
  const auto start_one = std::make_shared<std::function<void()>>();
  *start_one = [this, state, count, weak = std::weak_ptr(start_one)] {
    const auto self = weak.lock();
    state->make(state->started++, [this, state, count, self] {
      if (++state->finished == count) return loop_.post(state->ready);
      if (state->started < count) (*self)();
    });
  };
  const size_t first = std::min(count, kPreparedAtOnce);
  for (size_t i = 0; i < first; ++i) (*start_one)();
}

void add_bench(CLI::App& app, int& exit_code) {
  CLI::App* bench = app.add_subcommand("bench", "measure a cluster; it is written to under bench/");
  bench->require_subcommand(1);
  const auto arguments = std::make_shared<Arguments>();
  BenchOptions& options = arguments->options;
  const auto verb = [&](const char* name, const char* text, std::unique_ptr<BenchLoad> (*make)(BenchWorld&)) {
    CLI::App* added = bench->add_subcommand(name, text);
    add_common(*added, arguments->common);
    add_duration(*added, "--for", options.length,
                 "how long it is measured, after a tenth of it to warm up (default 10s)");
    added->add_option("--connections", options.connections, "connections, spread over the endpoints (default 16)")
        ->check(CLI::Range(1, 10'000));
    added->add_flag("--json", arguments->json, "figures as one line of JSON at the end");
    added->callback([arguments, make, name, &exit_code] {
      auto parsed = load_endpoints(arguments->common);
      if (!parsed) {
        exit_code = report(usage_failure(parsed.error()));
        return;
      }
      BenchOptions& given = arguments->options;
      given.endpoints = std::move(*parsed);
      if (given.workload.empty()) given.workload = name;
      if (given.length <= Duration::zero()) {
        exit_code = report({kUsage, "--for must be more than nothing", ""});
        return;
      }
      exit_code = run(given, arguments->json, make);
    });
    return added;
  };
  const auto clients = [&](CLI::App* added) {
    added->add_option("--clients", options.clients, "clients in a closed loop each (default 16)")
        ->check(CLI::Range(1, 100'000));
  };
  CLI::App* kv = verb("kv", "puts, linearizable gets, or leases with a key each", make_kv_load);
  clients(kv);
  kv->add_option("--workload", options.workload, "put, get or lease")->check(CLI::IsMember({"put", "get", "lease"}));
  kv->add_option("--keys", options.keys, "how many keys are used (default 100000)")->check(CLI::Range(1, 100'000'000));
  kv->add_option("--value-bytes", options.value_bytes, "bytes of a value (default 64)")->check(CLI::Range(0, 1 << 20));
  CLI::App* lock = verb("lock", "locks by etcd's lock service: each client its own, or all the same", make_lock_load);
  clients(lock);
  lock->add_option("--workload", options.workload, "own or contended")->check(CLI::IsMember({"own", "contended"}));
  CLI::App* locks =
      verb("locks", "locks by sessions of Conclave's own, many on a connection: each its own, or all the same",
           make_session_lock_load);
  locks->add_option("--clients", options.clients, "sessions in a closed loop each (default 16)")
      ->check(CLI::Range(1, 100'000));
  locks->add_option("--workload", options.workload, "own or contended")->check(CLI::IsMember({"own", "contended"}));
  CLI::App* watch = verb("watch", "one key, many watchers: from the put to the last delivery", make_watch_load);
  watch->add_option("--watchers", options.watchers, "watchers, a stream each (default 1000)")
      ->check(CLI::Range(1, 100'000));
  verb("failover", "writes through any endpoint without pause; the longest wait between two is `max`",
       make_failover_load);
}

}  // namespace conclave::cli
