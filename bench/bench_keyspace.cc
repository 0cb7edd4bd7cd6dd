// What the keyspace costs, on one thread, in thread CPU time: throughput as medians over rounds, memory as resident
// size, turns as the longest ones seen. Last line with --json: one JSON object.
#include <malloc.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "etcd/rpc.pb.h"
#include "keyspace/digest.h"
#include "keyspace/internal_command.h"
#include "keyspace/keyspace.h"
#include "keyspace/snapshot.h"
#include "keyspace/watch_stream.h"

namespace conclave::keyspace {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kValueBytes = 64;
constexpr size_t kBatch = 20'000;  // commands encoded ahead, outside the measured time

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double resident_bytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  long total = 0;
  long resident = 0;
  int read = std::fscanf(file, "%ld %ld", &total, &resident);
  std::fclose(file);
  return read == 2 ? static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) : 0;
}

// Of the allocator: what later rounds take may come from pages that are resident already.
double allocated_bytes() {
  return static_cast<double>(mallinfo2().uordblks + mallinfo2().hblkhd);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

double quantile(std::vector<double>& values, double q) {
  std::sort(values.begin(), values.end());
  if (values.empty()) return 0;
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

// Keys in no order, sharing a prefix, all of one size.
std::string key_of(uint64_t i) {
  return fmt::format("bench/{:016x}{:010x}", mix(i, 1), mix(i, 2) & 0xffffffffffULL).substr(0, kKeyBytes);
}

template <class Message>
SharedBytes command(CommandKind kind, const Message& message) {
  return encode_command({.kind = kind, .origin = NodeId(1), .boot = Boot(1), .request = 7},
                        message.SerializeAsString());
}

SharedBytes put_command(const std::string& key, int64_t lease = 0) {
  etcdserverpb::PutRequest request;
  request.set_key(key);
  request.set_value(std::string(kValueBytes, 'v'));
  request.set_lease(lease);
  return command(CommandKind::kPut, request);
}

class Bench {
 public:
  explicit Bench(uint64_t keys) : keys_(keys) {}

  // Applies, in slices if need be; the longest slice in seconds.
  double apply(const SharedBytes& bytes) {
    double longest = 0;
    double before = thread_seconds();
    bool done = keyspace_->apply(++index_, Term(1), bytes);
    while (!done) {  // NOLINT(bugprone-infinite-loop): run_slice() ends it
      double now = thread_seconds();
      longest = std::max(longest, now - before);
      before = now;
      done = keyspace_->run_slice();
    }
    return std::max(longest, thread_seconds() - before);
  }

  // Commands made by make(i) for i in [begin, end), per second.
  template <class Make>
  double rate(uint64_t begin, uint64_t end, Make make) {
    double spent = 0;
    std::vector<SharedBytes> batch;
    for (uint64_t at = begin; at < end;) {
      batch.clear();
      for (; at < end && batch.size() < kBatch; ++at) batch.push_back(make(at));
      double before = thread_seconds();
      for (const SharedBytes& bytes : batch) {
        bool done = keyspace_->apply(++index_, Term(1), bytes);
        while (!done) done = keyspace_->run_slice();
      }
      spent += thread_seconds() - before;
    }
    return static_cast<double>(end - begin) / spent;
  }

  void fill() {
    keyspace_ = std::make_unique<Keyspace>();
    index_ = LogIndex();
    (void)rate(0, keys_, [](uint64_t i) { return put_command(key_of(i)); });
  }

  void compact() {
    etcdserverpb::CompactionRequest request;
    request.set_revision(keyspace_->revision().value());
    (void)apply(command(CommandKind::kCompact, request));
    while (keyspace_->run_background()) {
    }
  }

  void run(bool json);

 private:
  void puts();
  void reads();
  void churn();
  void snapshot_and_compaction();
  void large_delete();
  void leases();
  void watchers();

  uint64_t keys_;
  std::unique_ptr<Keyspace> keyspace_ = std::make_unique<Keyspace>();
  LogIndex index_;
  double puts_per_s_ = 0;
  double overhead_ = 0;
  double put_p999_ms_ = 0;
  double load_s_ = 0;
  double dispatch_ns_ = 0;
};

void Bench::puts() {
  // The first fill warms the allocator of nobody else: resident size is measured on it.
  double before = resident_bytes();
  std::vector<double> fills;
  fill();
  double after = resident_bytes();
  overhead_ = (after - before) / static_cast<double>(keys_) - static_cast<double>(kKeyBytes + kValueBytes);
  fmt::print("{} keys: {:.1f} bytes each beyond key and value (resident); {:.1f} in use\n", keys_, overhead_,
             static_cast<double>(keyspace_->store().used_bytes()) / static_cast<double>(keys_) -
                 static_cast<double>(kKeyBytes + kValueBytes));
  std::vector<double> rates;
  std::vector<double> updates;
  for (int round = 0; round < 3; ++round) {
    keyspace_ = std::make_unique<Keyspace>();
    index_ = LogIndex();
    rates.push_back(rate(0, keys_, [](uint64_t i) { return put_command(key_of(i)); }));
    updates.push_back(rate(0, keys_ / 2, [this](uint64_t i) { return put_command(key_of(mix(i, 3) % keys_)); }));
    compact();
  }
  puts_per_s_ = median(updates);
  fmt::print("puts of new keys: {:.0f}/s; of standing keys: {:.0f}/s\n", median(rates), puts_per_s_);
  puts_per_s_ = std::min(puts_per_s_, median(rates));
}

void Bench::reads() {
  std::vector<double> gets;
  std::vector<double> txns;
  std::vector<double> ranges;
  for (int round = 0; round < 3; ++round) {
    std::vector<std::string> keys;
    keys.reserve(100'000);
    for (uint64_t i = 0; i < 100'000; ++i) keys.push_back(key_of(mix(i, 4 + static_cast<uint64_t>(round)) % keys_));
    std::string body;
    double before = thread_seconds();
    for (const std::string& key : keys) {
      body.clear();
      if (keyspace_->range({.key = key}, body) != ErrorId::kNone) std::abort();
    }
    gets.push_back(100'000 / (thread_seconds() - before));
    txns.push_back(rate(0, 100'000, [this](uint64_t i) {
      etcdserverpb::TxnRequest request;
      std::string key = key_of(mix(i, 5) % keys_);
      etcdserverpb::Compare* compare = request.add_compare();
      compare->set_key(key);
      compare->set_target(etcdserverpb::Compare::MOD);
      compare->set_result(etcdserverpb::Compare::GREATER);
      compare->set_mod_revision(0);
      etcdserverpb::PutRequest* put = request.add_success()->mutable_request_put();
      put->set_key(key);
      put->set_value(std::string(kValueBytes, 't'));
      request.add_success()->mutable_request_range()->set_key(key);
      return command(CommandKind::kTxn, request);
    }));
    before = thread_seconds();
    for (uint64_t i = 0; i < 200; ++i) {
      body.clear();
      std::string key = key_of(mix(i, 6) % keys_).substr(0, 12);
      if (keyspace_->range({.key = key, .range_end = ByteView("\0", 1), .limit = 1000}, body) != ErrorId::kNone) {
        std::abort();
      }
    }
    ranges.push_back(200 / (thread_seconds() - before));
  }
  fmt::print("gets: {:.0f}/s; transactions (compare, put, get): {:.0f}/s; ranges of 1,000: {:.0f}/s\n", median(gets),
             median(txns), median(ranges));
  // A lock with a tenth of a million waiters.
  for (uint64_t i = 0; i < 100'000; ++i) (void)apply(put_command(fmt::format("lock/{:016x}", mix(i, 7))));
  std::string body;
  double before = thread_seconds();
  for (int i = 0; i < 1000; ++i) {
    body.clear();
    RangeRequest request{.key = "lock/", .range_end = "lock0", .limit = 1, .sort_target = SortTarget::kCreate};
    if (keyspace_->range(request, body) != ErrorId::kNone) std::abort();
  }
  fmt::print("first by create revision of 100,000: {:.1f} us\n", (thread_seconds() - before) * 1e3);
}

void Bench::churn() {
  std::vector<double> rates;
  for (int round = 0; round < 3; ++round) {
    rates.push_back(rate(0, 400'000, [](uint64_t i) {
      std::string key = fmt::format("churn/{:08}", i / 2 % 10'000);
      if (i % 2 == 0) return put_command(key);
      etcdserverpb::DeleteRangeRequest request;
      request.set_key(key);
      return command(CommandKind::kDeleteRange, request);
    }));
    compact();
  }
  fmt::print("churn of put and delete: {:.0f} commands/s\n", median(rates));
}

void Bench::snapshot_and_compaction() {
  fill();
  // History for the compaction to take away.
  (void)rate(0, keys_ / 2, [this](uint64_t i) { return put_command(key_of(mix(i, 8) % keys_)); });
  etcdserverpb::CompactionRequest request;
  request.set_revision(keyspace_->revision().value());
  auto reader = std::make_unique<SnapshotReader>(*keyspace_);
  (void)apply(command(CommandKind::kCompact, request));
  std::string snapshot;
  std::string chunk;
  std::vector<double> turns;
  bool reading = true;
  bool freeing = true;
  for (uint64_t i = 0; reading || freeing; ++i) {
    SharedBytes bytes = put_command(key_of(mix(i, 9) % keys_));
    // A put waits for the one slice of background work that may stand before it.
    chunk.clear();
    double before = thread_seconds();
    if (reading) {
      reading = !reader->read(chunk);
      if (!reading) reader.reset();
    } else {
      freeing = keyspace_->run_background();
    }
    if (!keyspace_->apply(++index_, Term(1), bytes)) std::abort();
    turns.push_back((thread_seconds() - before) * 1e3);
    snapshot += chunk;  // to its file, elsewhere
  }
  put_p999_ms_ = quantile(turns, 0.999);
  fmt::print(
      "put behind a slice of snapshot or compaction: p50 {:.3f} ms p99.9 {:.3f} ms longest {:.3f} ms ({} puts)\n",
      quantile(turns, 0.5), put_p999_ms_, turns.back(), turns.size());
  std::vector<double> loads;
  keyspace_ = std::make_unique<Keyspace>();
  for (int round = 0; round < 3; ++round) {
    auto fresh = std::make_unique<Keyspace>();
    double before = thread_seconds();
    SnapshotLoader loader(*fresh);
    for (size_t at = 0; at < snapshot.size(); at += 1 << 20) {
      if (!loader.feed(ByteView(snapshot).substr(at, 1 << 20))) std::abort();
    }
    if (!loader.finish()) std::abort();
    loads.push_back(thread_seconds() - before);
  }
  load_s_ = median(loads);
  fmt::print("load of a snapshot of {} keys and half as many events ({} MiB): {:.2f} s\n", keys_, snapshot.size() >> 20,
             load_s_);
}

void Bench::large_delete() {
  fill();
  etcdserverpb::DeleteRangeRequest request;
  request.set_key(std::string(1, '\0'));
  request.set_range_end(std::string(1, '\0'));
  double before = thread_seconds();
  double longest = apply(command(CommandKind::kDeleteRange, request));
  double all = thread_seconds() - before;
  compact();
  fmt::print("delete of {} keys: longest slice {:.2f} ms, {:.2f} s in all\n", keys_, longest * 1e3, all);
}

void Bench::leases() {
  keyspace_ = std::make_unique<Keyspace>();
  index_ = LogIndex();
  double before = allocated_bytes();
  double granted = rate(0, keys_, [](uint64_t i) {
    CommandHeader header{
        .kind = CommandKind::kLeaseGrant, .lease = LeaseId(static_cast<int64_t>(mix(i, 11) >> 1)), .ttl_ms = 10'000};
    etcdserverpb::LeaseGrantRequest request;
    request.set_ttl(10);
    request.set_id(header.lease.value());
    return encode_command(header, request.SerializeAsString());
  });
  double per_lease = (allocated_bytes() - before) / static_cast<double>(keys_);
  (void)rate(0, keys_ / 10, [](uint64_t i) {
    return put_command(fmt::format("leased/{:016x}", i), static_cast<int64_t>(mix(i, 11) >> 1));
  });
  double longest = 0;
  double begin = thread_seconds();
  uint64_t ending = keys_ / 10;
  for (uint64_t at = 0; at < ending;) {
    std::vector<LeaseId> leases;
    for (; at < ending && leases.size() < 1000; ++at) leases.emplace_back(static_cast<int64_t>(mix(at, 11) >> 1));
    std::string body;
    encode_expire(leases, body);
    longest = std::max(longest, apply(encode_command({.kind = CommandKind::kLeaseExpire, .term = Term(1)}, body)));
  }
  double ended = static_cast<double>(ending) / (thread_seconds() - begin);
  fmt::print(
      "leases: {:.0f} grants/s, {:.0f} bytes each; {} ending with a key each: {:.0f}/s, longest slice {:.2f} ms\n",
      granted, per_lease, ending, ended, longest * 1e3);
}

void Bench::watchers() {
  fill();
  auto updates = [this](uint64_t round) {
    return 1e9 /
           rate(0, 200'000, [this, round](uint64_t i) { return put_command(key_of(mix(i, 20 + round) % keys_)); });
  };
  std::vector<double> without;
  without.reserve(3);
  for (uint64_t round = 0; round < 3; ++round) without.push_back(updates(round));
  double before = allocated_bytes();
  std::vector<std::unique_ptr<WatchStream>> streams;
  WatchResponse response;
  auto drain = [&] {
    uint64_t responses = 0;
    for (WatchStream* stream : keyspace_->watches().take_ready()) {
      uint32_t units = UINT32_MAX;
      while (stream->next(units, response)) {
        ++responses;
        units = UINT32_MAX;
      }
    }
    return responses;
  };
  double begin = thread_seconds();
  for (uint64_t i = 0; i < keys_; ++i) {
    if (i % 1000 == 0) streams.push_back(std::make_unique<WatchStream>(keyspace_->watches()));
    std::string key = key_of(i);
    streams.back()->create({.key = key});
    if (i % 1000 == 999) (void)drain();
  }
  (void)drain();
  double made = (thread_seconds() - begin) / static_cast<double>(keys_);
  double bytes = (allocated_bytes() - before) / static_cast<double>(keys_);
  std::vector<double> with;
  double sent_ns = 0;
  for (uint64_t round = 0; round < 3; ++round) {
    with.push_back(updates(round + 10));
    double from = thread_seconds();
    uint64_t responses = drain();
    sent_ns = (thread_seconds() - from) * 1e9 / static_cast<double>(std::max<uint64_t>(responses, 1));
  }
  dispatch_ns_ = std::max(0.0, median(with) - median(without));
  fmt::print(
      "{} watchers on distinct keys: {:.0f} bytes and {:.2f} us each to make; an event costs {:.0f} ns more, its "
      "response {:.0f} ns\n",
      keys_, bytes, made * 1e6, dispatch_ns_, sent_ns);
  streams.clear();
  for (uint64_t i = 0; i < 10'000; ++i) {
    if (i % 100 == 0) streams.push_back(std::make_unique<WatchStream>(keyspace_->watches()));
    streams.back()->create({.key = "hot"});
  }
  (void)drain();
  std::vector<double> turns;
  for (int i = 0; i < 50; ++i) {
    double from = thread_seconds();
    (void)apply(put_command("hot"));
    (void)drain();
    turns.push_back((thread_seconds() - from) * 1e3);
  }
  fmt::print("an event to 10,000 watchers of one key, responses made: {:.2f} ms\n", median(turns));
}

void Bench::run(bool json) {
  puts();
  reads();
  churn();
  snapshot_and_compaction();
  large_delete();
  leases();
  watchers();
  if (json) {
    fmt::print(
        "{{\"puts_per_s\":{:.0f},\"bytes_per_key_overhead\":{:.1f},\"put_p999_ms_during_snapshot\":{:.4f},"
        "\"load_million_s\":{:.3f},\"event_dispatch_ns_million_watchers\":{:.1f}}}\n",
        puts_per_s_, overhead_, put_p999_ms_, load_s_, dispatch_ns_);
  }
}

}  // namespace
}  // namespace conclave::keyspace

int main(int argc, char** argv) {
  bool json = false;
  uint64_t keys = 1'000'000;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) {
      json = true;
    } else if (std::strcmp(argv[i], "--keys") == 0 && i + 1 < argc) {
      keys = std::strtoull(argv[++i], nullptr, 10);
    } else {
      fmt::print(stderr, "usage: bench_keyspace [--keys N] [--json]\n");
      return 2;
    }
  }
  if (keys < 1000) keys = 1000;
  conclave::keyspace::Bench(keys).run(json);
  return 0;
}
