// The loads of `conclave bench`.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/random.h"
#include "cli/bench.h"
#include "etcd/lock.pb.h"
#include "etcd/rpc.pb.h"

namespace conclave::cli {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kPutPath = "/etcdserverpb.KV/Put";
constexpr std::string_view kRangePath = "/etcdserverpb.KV/Range";
constexpr std::string_view kGrantPath = "/etcdserverpb.Lease/LeaseGrant";
constexpr std::string_view kLockPath = "/v3lockpb.Lock/Lock";
constexpr std::string_view kUnlockPath = "/v3lockpb.Lock/Unlock";
constexpr std::string_view kWatchPath = "/etcdserverpb.Watch/Watch";

// Longer than any run: nothing here keeps leases alive.
int64_t lease_seconds(const BenchOptions& options) {
  return 120 + std::chrono::ceil<std::chrono::seconds>(options.length).count();
}

// Positive, and hardly ever taken.
int64_t random_lease(Random& random) {
  return static_cast<int64_t>(random.next() >> 1 | 1);
}

std::string grant_request(int64_t lease, int64_t seconds) {
  etcdserverpb::LeaseGrantRequest request;
  request.set_id(lease);
  request.set_ttl(seconds);
  return request.SerializeAsString();
}

// An encoded request with the decimal digits of a key to be overwritten in it.
class KeyedRequest {
 public:
  static constexpr size_t kDigits = 10;
  static std::string key(size_t number) { return fmt::format("bench/{:010}", number); }

  explicit KeyedRequest(std::string encoded) : encoded_(std::move(encoded)) {
    at_ = encoded_.find("bench/") + std::strlen("bench/");
  }
  std::string_view with(uint64_t number) {
    for (size_t i = kDigits; i > 0; --i, number /= 10) encoded_[at_ + i - 1] = static_cast<char>('0' + number % 10);
    return encoded_;
  }

 private:
  std::string encoded_;
  size_t at_;
};

class KvLoad final : public BenchLoad {
 public:
  explicit KvLoad(BenchWorld& world) : world_(world), random_(world.options().seed) {
    etcdserverpb::PutRequest put;
    put.set_key(KeyedRequest::key(0));
    put.set_value(std::string(world.options().value_bytes, 'v'));
    put_ = std::make_unique<KeyedRequest>(put.SerializeAsString());
    etcdserverpb::RangeRequest range;
    range.set_key(KeyedRequest::key(0));
    range_ = std::make_unique<KeyedRequest>(range.SerializeAsString());
  }
  void prepare(std::function<void()> ready) override {
    if (world_.options().workload != "get") return ready();
    // A share of the keys is there: reads that find something and reads that do not cost about the same.
    world_.for_each(
        std::min<size_t>(world_.options().keys, 10'000),
        [this](size_t index, std::function<void()> done) {
          world_.call(index, kPutPath, put_->with(index), [done = std::move(done)](bool, ByteView) { done(); });
        },
        std::move(ready));
  }
  void begin() override {
    const std::string& workload = world_.options().workload;
    for (size_t client = 0; client < world_.options().clients; ++client) {
      if (workload == "get") {
        run(client, kRangePath, *range_);
      } else if (workload == "lease") {
        grant(client);
      } else {
        run(client, kPutPath, *put_);
      }
    }
  }

 private:
  void run(size_t client, std::string_view path, KeyedRequest& request) {
    const Instant from = world_.now();
    world_.call(client, path, request.with(random_.below(world_.options().keys)),
                [this, client, path, &request, from](bool ok, ByteView) {
                  if (ok) world_.meter().done(world_.now() - from);
                  run(client, path, request);
                });
  }
  void grant(size_t client) {
    const Instant from = world_.now();
    const int64_t lease = random_lease(random_);
    world_.call(client, kGrantPath, grant_request(lease, lease_seconds(world_.options())),
                [this, client, lease, from](bool ok, ByteView) {
                  if (!ok) return grant(client);
                  etcdserverpb::PutRequest put;
                  put.set_key(KeyedRequest::key(random_.below(world_.options().keys)));
                  put.set_lease(lease);
                  world_.call(client, kPutPath, put.SerializeAsString(), [this, client, from](bool put_ok, ByteView) {
                    if (put_ok) world_.meter().done(world_.now() - from);
                    grant(client);
                  });
                });
  }

  BenchWorld& world_;
  Random random_;
  std::unique_ptr<KeyedRequest> put_;
  std::unique_ptr<KeyedRequest> range_;
};

// Own: an operation is a lock and its unlock. Contended: an operation is a grant, and its latency the time since the
// grant before it: one hand-over.
class LockLoad final : public BenchLoad {
 public:
  explicit LockLoad(BenchWorld& world) : world_(world), contended_(world.options().workload == "contended") {
    Random random(static_cast<uint64_t>(to_nanoseconds(world.now())));
    const uint64_t run = random.next();
    for (size_t i = 0; i < world.options().clients; ++i) {
      Client client{.lease = random_lease(random), .lock = {}, .unlock = {}};
      v3lockpb::LockRequest lock;
      lock.set_name(contended_ ? fmt::format("bench/lock/{:x}", run) : fmt::format("bench/lock/{:x}/{}", run, i));
      lock.set_lease(client.lease);
      v3lockpb::UnlockRequest unlock;
      unlock.set_key(fmt::format("{}/{:x}", lock.name(), static_cast<uint64_t>(client.lease)));
      client.lock = lock.SerializeAsString();
      client.unlock = unlock.SerializeAsString();
      clients_.push_back(std::move(client));
    }
  }
  void prepare(std::function<void()> ready) override {
    world_.for_each(
        clients_.size(),
        [this](size_t index, std::function<void()> done) {
          world_.call(index, kGrantPath, grant_request(clients_[index].lease, lease_seconds(world_.options())),
                      [done = std::move(done)](bool, ByteView) { done(); });
        },
        std::move(ready));
  }
  void begin() override {
    last_grant_ = world_.now();
    for (size_t i = 0; i < clients_.size(); ++i) lock(i);
  }

 private:
  struct Client {
    int64_t lease;
    std::string lock;
    std::string unlock;
  };

  void lock(size_t index) {
    const Instant from = world_.now();
    world_.call(index, kLockPath, clients_[index].lock, [this, index, from](bool ok, ByteView) {
      if (!ok) return lock(index);
      if (contended_) {
        const Instant now = world_.now();
        world_.meter().done(now - std::exchange(last_grant_, now));
      }
      unlock(index, from);
    });
  }
  void unlock(size_t index, Instant from) {
    world_.call(index, kUnlockPath, clients_[index].unlock, [this, index, from](bool ok, ByteView) {
      if (!ok) return unlock(index, from);
      if (!contended_) world_.meter().done(world_.now() - from);
      lock(index);
    });
  }

  BenchWorld& world_;
  const bool contended_;
  std::vector<Client> clients_;
  Instant last_grant_;
};

// Whether an encoded WatchResponse has events (field 11), without decoding them.
bool has_events(ByteView message) {
  ByteReader reader(message);
  while (reader.ok() && !reader.rest().empty()) {
    const uint64_t tag = reader.varint();
    if (tag == (11 << 3 | 2)) return true;
    if ((tag & 7) == 2) {
      reader.sized();
    } else if ((tag & 7) == 0) {
      reader.varint();
    } else {
      return false;
    }
  }
  return false;
}

// The next put follows the last delivery of the one before.
class WatchLoad final : public BenchLoad {
 public:
  explicit WatchLoad(BenchWorld& world) : world_(world) {
    Random random(static_cast<uint64_t>(to_nanoseconds(world.now())));
    key_ = fmt::format("bench/watched/{:x}", random.next());
  }
  void prepare(std::function<void()> ready) override {
    etcdserverpb::WatchRequest create;
    create.mutable_create_request()->set_key(key_);
    request_ = create.SerializeAsString();
    world_.for_each(
        world_.options().watchers,
        [this](size_t index, std::function<void()> done) {
          auto call = world_.channel(index).open(
              kWatchPath, {.on_message =
                               [this, created = false, done = std::move(done)](ByteView message) mutable {
                                 if (!std::exchange(created, true)) return done();
                                 if (has_events(message)) delivered();
                               },
                           .on_finished = [this](const net::GrpcStatus& status) { world_.meter().failed(status); }});
          call->send(request_);
          calls_.push_back(std::move(call));
        },
        std::move(ready));
  }
  void begin() override { put(); }

 private:
  void put() {
    etcdserverpb::PutRequest request;
    request.set_key(key_);
    request.set_value(fmt::format("{}", ++puts_));
    missing_ = calls_.size();
    from_ = world_.now();
    world_.call(0, kPutPath, request.SerializeAsString(), [this](bool ok, ByteView) {
      if (!ok) put();
    });
  }
  void delivered() {
    if (--missing_ > 0) return;
    world_.meter().done(world_.now() - from_);
    put();
  }

  BenchWorld& world_;
  std::string key_;
  std::string request_;
  std::vector<std::unique_ptr<net::ClientCall>> calls_;
  uint64_t puts_ = 0;
  size_t missing_ = 0;
  Instant from_;
};

// A write at a time; when there is no answer for a while another attempt goes to the next endpoint, and the first
// answer of any ends the gap. So neither a server that is gone nor one that waits for a dead leader hides that another
// serves.
class FailoverLoad final : public BenchLoad {
 public:
  explicit FailoverLoad(BenchWorld& world) : world_(world) {}
  void begin() override {
    last_ = world_.now();
    next();
  }

 private:
  static constexpr Duration kPatience = 20ms;
  static constexpr Duration kAttemptMax = 5s;
  // Gaps from here on are told one by one.
  static constexpr Duration kToldFrom = 50ms;

  void next() {
    ++write_;
    attempt();
  }
  void attempt() {
    etcdserverpb::PutRequest put;
    put.set_key("bench/failover");
    put.set_value(fmt::format("{}", write_));
    const size_t endpoint = endpoint_;
    world_.channel(endpoint).call(kPutPath, put.SerializeAsString(), kAttemptMax,
                                  [this, endpoint, write = write_](const net::GrpcStatus& status, ByteView) {
                                    if (!status.ok() || write != write_) return;
                                    endpoint_ = endpoint;
                                    written();
                                  });
    timer_ = world_.loop().call_at(world_.loop().now() + kPatience, [this] {
      endpoint_ = (endpoint_ + 1) % world_.options().endpoints.size();
      attempt();
    });
  }
  void written() {
    world_.loop().cancel(timer_);
    const Instant now = world_.now();
    const Duration gap = now - std::exchange(last_, now);
    world_.meter().done(gap);
    if (gap >= kToldFrom) {
      fmt::print("gap {:.1f} ms\n", std::chrono::duration<double, std::milli>(gap).count());
      std::fflush(stdout);
    }
    next();
  }

  BenchWorld& world_;
  uint64_t write_ = 0;
  size_t endpoint_ = 0;
  Instant last_;
  net::TimerId timer_ = 0;
};

}  // namespace

std::unique_ptr<BenchLoad> make_kv_load(BenchWorld& world) {
  return std::make_unique<KvLoad>(world);
}
std::unique_ptr<BenchLoad> make_lock_load(BenchWorld& world) {
  return std::make_unique<LockLoad>(world);
}
std::unique_ptr<BenchLoad> make_watch_load(BenchWorld& world) {
  return std::make_unique<WatchLoad>(world);
}
std::unique_ptr<BenchLoad> make_failover_load(BenchWorld& world) {
  return std::make_unique<FailoverLoad>(world);
}

}  // namespace conclave::cli
