// Loads that measure a cluster: closed loops of clients over channels, all on one event loop in one thread, so light
// that the generator is not what is measured: requests are encoded once, answers are counted and not read.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/endpoints.h"
#include "cli/histogram.h"
#include "env/posix/clock.h"
#include "net/client.h"
#include "net/loop.h"

namespace conclave::cli {

struct BenchOptions {
  std::vector<Endpoint> endpoints;
  std::string workload;
  size_t clients = 16;
  size_t connections = 16;
  Duration length = std::chrono::seconds(10);
  size_t keys = 100'000;
  size_t value_bytes = 64;
  size_t watchers = 1000;
  uint64_t seed = 1;
};

// What was measured: nothing counts outside of the measured time.
struct BenchMeter {
  Histogram latency;
  uint64_t operations = 0;
  uint64_t errors = 0;
  std::string first_error;
  bool measuring = false;

  void done(Duration took) {
    if (!measuring) return;
    ++operations;
    latency.add(took);
  }
  void failed(const net::GrpcStatus& status);
};

// The channels of a load and what it shares. One thread.
class BenchWorld {
 public:
  explicit BenchWorld(const BenchOptions& options);
  [[nodiscard]] const BenchOptions& options() const { return options_; }
  // The client's connection; connections are spread over the endpoints in turn.
  [[nodiscard]] net::Channel& channel(size_t client) { return *channels_[client % channels_.size()]; }
  [[nodiscard]] net::Loop& loop() { return loop_; }
  [[nodiscard]] Instant now() { return clock_.now(); }
  [[nodiscard]] BenchMeter& meter() { return meter_; }
  // A call whose answer is only counted as good or bad; after a failure `next` comes a little later.
  void call(size_t client, std::string_view path, std::string_view request,
            std::move_only_function<void(bool ok, ByteView response)> next);
  // `make` for each of `count` numbers, at most some hundreds at a time; `ready` when all have answered.
  void for_each(size_t count, std::function<void(size_t index, std::function<void()> done)> make,
                std::function<void()> ready);

 private:
  const BenchOptions options_;
  env::PosixClock clock_;
  net::Loop loop_{clock_};
  std::vector<std::unique_ptr<net::Channel>> channels_;
  BenchMeter meter_;
};

class BenchLoad {
 public:
  virtual ~BenchLoad() = default;
  // Leases, watches: whatever must stand before it begins.
  // NOLINTNEXTLINE(performance-unnecessary-value-param): others keep it
  virtual void prepare(std::function<void()> ready) { ready(); }
  virtual void begin() = 0;
};

[[nodiscard]] std::unique_ptr<BenchLoad> make_kv_load(BenchWorld& world);
[[nodiscard]] std::unique_ptr<BenchLoad> make_lock_load(BenchWorld& world);
[[nodiscard]] std::unique_ptr<BenchLoad> make_session_lock_load(BenchWorld& world);
[[nodiscard]] std::unique_ptr<BenchLoad> make_watch_load(BenchWorld& world);
// Attempts at writing through every endpoint in turn; each gap between two acknowledged writes is a latency.
[[nodiscard]] std::unique_ptr<BenchLoad> make_failover_load(BenchWorld& world);

}  // namespace conclave::cli
