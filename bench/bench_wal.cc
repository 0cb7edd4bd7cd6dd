// What the log costs over what the disk costs: rounds of the log and of a bare loop that makes the same writes and
// syncs, in turns, and the medians of the ratios of each round. Absolute figures of a shared machine say little; ratios
// of neighbours in time do.
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/assert.h"
#include "env/posix/clock.h"
#include "env/posix/disk.h"
#include "wal/log.h"
#include "wal/queue.h"

namespace conclave::wal {
namespace {

const Owner kOwner{.cluster = ClusterId(1), .node = NodeId(1)};
const GroupId kGroup(1);
constexpr uint64_t kSegmentBytes = uint64_t{64} << 20;

double seconds(int64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1e9;
}

template <class T>
T must(Result<T> result) {
  if (!result) {
    fmt::print(stderr, "bench_wal: {}\n", result.error().message);
    std::exit(74);  // NOLINT(concurrency-mt-unsafe): one thread
  }
  return std::move(*result);
}
void must(Status status) {
  if (status) return;
  fmt::print(stderr, "bench_wal: {}\n", status.error().message);
  std::exit(74);  // NOLINT(concurrency-mt-unsafe): one thread
}

template <class T>
T percentile(std::vector<T> values, size_t percent) {
  ASSERT(!values.empty());
  std::ranges::sort(values);
  return values[std::min(values.size() - 1, values.size() * percent / 100)];
}

int64_t thread_cpu_nanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// Takes writes and keeps nothing: what is left is the processor's work.
class NullFile final : public env::File {
 public:
  Status read(uint64_t, std::span<char> into) override {
    std::ranges::fill(into, '\0');
    return {};
  }
  Status write(uint64_t, ByteView) override { return {}; }
  Status write_durable(uint64_t, ByteView) override { return {}; }
  Status sync() override { return {}; }
  Result<uint64_t> size() override { return kSegmentBytes; }
  Status resize(uint64_t) override { return {}; }
};
class NullLock final : public env::DirectoryLock {};
class NullDisk final : public env::Disk {
 public:
  Result<std::unique_ptr<env::File>> open(std::string_view path, env::OpenOptions options) override {
    if (options.mode == env::OpenMode::kRead && path.starts_with("wal/manifest"))
      return fail(ErrorCode::kNotFound, "none");
    return std::make_unique<NullFile>();
  }
  Status rename(std::string_view, std::string_view) override { return {}; }
  Status remove(std::string_view) override { return {}; }
  Status create_directory(std::string_view) override { return {}; }
  Status sync_directory(std::string_view) override { return {}; }
  Result<std::vector<std::string>> list(std::string_view) override { return std::vector<std::string>(); }
  Result<std::unique_ptr<env::DirectoryLock>> lock() override { return std::make_unique<NullLock>(); }
  Result<uint64_t> free_bytes() override { return UINT64_MAX; }
};

struct Bench {
  std::string path;
  std::unique_ptr<env::PosixDisk> disk;
  env::PosixClock clock;
  bool direct = false;
  std::unique_ptr<Log> log;
  uint64_t next_index = 1;
  Queue queue;
  WriteGauge gauge;
  WriteSequence sequence;
  std::vector<Ticket> tickets;
  // What entries hold, each bytes of its own, and somebody keeps: in a server consensus does, for its log.
  static constexpr size_t kContents = 256;
  std::vector<SharedBytes> contents;
  // The bare loop's file, written before as a recycled segment is.
  std::unique_ptr<env::File> bare;
  uint64_t bare_at = 0;
  env::AlignedBuffer bytes{size_t{1} << 20};

  void open_log() {
    auto opened = must(Log::open(
        *disk, {.owner = kOwner, .segment_bytes = kSegmentBytes, .write_path = WritePath::kProbe, .clock = &clock}));
    fmt::print("write path: {}\n", opened.recovery.write_path);
    direct = opened.recovery.write_path.starts_with("direct");
    log = std::move(opened.log);
    while (must(log->maintain())) {
    }
  }

  void open_bare() {
    {
      auto file = must(disk->open("bare", {.mode = env::OpenMode::kCreate}));
      std::fill_n(bytes.data(), bytes.capacity(), 'b');
      for (uint64_t at = 0; at < kSegmentBytes; at += bytes.capacity()) {
        must(file->write(at, ByteView(bytes.data(), bytes.capacity())));
      }
      must(file->sync());
    }
    bare = must(disk->open("bare", {.mode = env::OpenMode::kWrite, .direct = direct}));
  }

  void fill(Batch& batch, uint64_t entries, size_t payload) {
    batch.clear();
    if (contents.empty() || contents.front().size() != payload) {
      contents.clear();
      for (size_t i = 0; i < kContents; ++i) {
        contents.push_back(SharedBytes::copy_of(std::string(payload, static_cast<char>('a' + i % 26))));
      }
    }
    for (uint64_t i = 0; i < entries; ++i) {
      batch.append(kGroup, {.index = LogIndex(next_index),
                            .term = Term(1),
                            .type = EntryType::kCommand,
                            .payload = contents[next_index % kContents]});
      ++next_index;
    }
  }

  // Everything but the last entries is released: segments are recycled, as in a server that takes snapshots.
  void release(Batch& batch) {
    if (next_index > 10'000) batch.release(kGroup, LogIndex(next_index - 10'000));
  }

  // What a server does with so many entries outstanding: each pushed in a batch of its own, all in one durable write;
  // nanoseconds.
  int64_t write_log(std::vector<Batch>& batches) {
    for (Batch& batch : batches) fill(batch, 1, 64);
    release(batches.back());
    tickets.clear();
    const Instant before = clock.now();
    for (Batch& batch : batches) queue.push(batch, {.group = kGroup, .sequence = ++sequence});
    must(queue.flush(*log, tickets, clock, &gauge));
    const int64_t took = (clock.now() - before).count();
    ASSERT_CMP(tickets.size(), ==, batches.size());
    return took;
  }

  int64_t write_bare(uint64_t size) {
    if (bare_at + size > kSegmentBytes) bare_at = 0;
    // Fresh bytes each time, as anybody's are who has something to write: the device reads them from this core's cache.
    std::fill_n(bytes.data(), size, static_cast<char>('a' + bare_at / kBlockBytes % 26));
    const Instant before = clock.now();
    must(bare->write_durable(bare_at, ByteView(bytes.data(), size)));
    bare_at += size;
    return (clock.now() - before).count();
  }
};

struct Ratios {
  double p50 = 0;
  double p99 = 0;
  double syncs = 0;
  double log_p50_us = 0;
  double bare_p50_us = 0;
  double log_syncs = 0;
};

Ratios compare(Bench& bench, uint64_t outstanding, int rounds, int writes) {
  // The bytes a batch of this size takes: the bare loop writes the same.
  Batch batch;
  bench.fill(batch, outstanding, 64);
  const uint64_t size = [&] {
    Head head{.full = true, .number = 1};
    GroupState state;
    state.group = kGroup;
    const std::array<const GroupState*, 1> directory = {&state};
    BatchEncoder encoder;
    return must(encoder.measure(head, directory, batch.operations(), 1));
  }();
  must(bench.log->write(batch));
  std::vector<Batch> batches(outstanding);
  std::vector<double> p50;
  std::vector<double> p99;
  std::vector<double> syncs;
  std::vector<double> log_p50;
  std::vector<double> bare_p50;
  std::vector<double> log_syncs;
  for (int round = 0; round < rounds; ++round) {
    std::vector<int64_t> log_times;
    std::vector<int64_t> bare_times;
    int64_t log_sum = 0;
    int64_t bare_sum = 0;
    // In turns within a round too: a slow moment of the host hits both.
    for (int i = 0; i < writes; i += 20) {
      for (int k = 0; k < 20; ++k) {
        log_times.push_back(bench.write_log(batches));
        log_sum += log_times.back();
      }
      while (must(bench.log->maintain())) {
      }
      for (int k = 0; k < 20; ++k) {
        bare_times.push_back(bench.write_bare(size));
        bare_sum += bare_times.back();
      }
    }
    const auto log_middle = static_cast<double>(percentile(log_times, 50));
    const auto bare_middle = static_cast<double>(percentile(bare_times, 50));
    p50.push_back(log_middle / bare_middle);
    p99.push_back(static_cast<double>(percentile(log_times, 99)) / static_cast<double>(percentile(bare_times, 99)));
    syncs.push_back(static_cast<double>(bare_sum) / static_cast<double>(log_sum));
    log_p50.push_back(log_middle / 1000);
    bare_p50.push_back(bare_middle / 1000);
    log_syncs.push_back(static_cast<double>(log_times.size()) / seconds(log_sum));
  }
  Ratios ratios{.p50 = percentile(p50, 50),
                .p99 = percentile(p99, 50),
                .syncs = percentile(syncs, 50),
                .log_p50_us = percentile(log_p50, 50),
                .bare_p50_us = percentile(bare_p50, 50),
                .log_syncs = percentile(log_syncs, 50)};
  fmt::print(
      "{:4} outstanding, {} bytes: p50 {:.0f} us, bare {:.0f} us; ratio of p50 {:.3f}, of p99 {:.3f}, of syncs/s "
      "{:.3f}; "
      "{:.0f} entries/s\n",
      outstanding, size, ratios.log_p50_us, ratios.bare_p50_us, ratios.p50, ratios.p99, ratios.syncs,
      ratios.log_syncs * static_cast<double>(outstanding));
  return ratios;
}

double recovery_speed(Bench& bench, uint64_t bytes, size_t payload) {
  bench.log.reset();
  must(Log::discard(*bench.disk));
  bench.open_log();
  Batch batch;
  uint64_t written = 0;
  bench.next_index = 1;
  while (written < bytes) {
    batch.clear();
    const std::string text(payload, 'r');
    const SharedBytes content = SharedBytes::copy_of(text);
    for (int i = 0; i < 256; ++i) {
      batch.append(
          kGroup,
          {.index = LogIndex(bench.next_index++), .term = Term(1), .type = EntryType::kCommand, .payload = content});
    }
    must(bench.log->write(batch));
    written = bench.log->space().live_bytes;
  }
  std::vector<double> speeds;
  for (int round = 0; round < 5; ++round) {
    bench.log.reset();
    const Instant before = bench.clock.now();
    auto opened = must(Log::open(*bench.disk, {.owner = kOwner, .segment_bytes = kSegmentBytes}));
    const double took = seconds((bench.clock.now() - before).count());
    ASSERT_CMP(opened.recovery.groups.at(0).last.index.value(), ==, bench.next_index - 1);
    ASSERT_CMP(opened.recovery.groups.at(0).entries.size(), ==, bench.next_index - 1);
    // The first round reads what is not yet in the page cache.
    if (round > 0) speeds.push_back(static_cast<double>(opened.recovery.bytes) / took / static_cast<double>(1U << 30));
    bench.log = std::move(opened.log);
  }
  const double speed = percentile(speeds, 50);
  fmt::print("recovery of {} MiB, {} entries of {} bytes: {:.2f} GiB/s\n", written >> 20, bench.next_index - 1, payload,
             speed);
  return speed;
}

double cpu_per_record() {
  NullDisk disk;
  auto opened = must(Log::open(disk, {.owner = kOwner, .segment_bytes = kSegmentBytes}));
  Bench bench;
  Batch batch;
  std::vector<double> costs;
  for (int round = 0; round < 9; ++round) {
    constexpr int kBatches = 2000;
    constexpr uint64_t kEntries = 256;
    int64_t cost = 0;
    for (int i = 0; i < kBatches; ++i) {
      bench.fill(batch, kEntries, 64);
      const int64_t before = thread_cpu_nanoseconds();
      must(opened.log->write(batch));
      cost += thread_cpu_nanoseconds() - before;
    }
    costs.push_back(static_cast<double>(cost) / kBatches / static_cast<double>(kEntries));
  }
  const double cost = percentile(costs, 50);
  fmt::print("CPU: {:.0f} ns per 64-byte record, 256 in a batch\n", cost);
  return cost;
}

int run(int argc, char** argv) {
  CLI::App app("The log against a bare loop of the same writes and syncs.");
  bool json = false;
  std::string directory = ".";
  int rounds = 9;
  int writes = 400;
  uint64_t recovery_mib = 1024;
  app.add_flag("--json", json, "figures as one line of JSON at the end");
  app.add_option("--dir", directory, "where the files go (default: here)");
  app.add_option("--rounds", rounds, "alternating rounds")->check(CLI::Range(1, 1000));
  app.add_option("--writes", writes, "writes of each kind in a round")->check(CLI::Range(20, 100000));
  app.add_option("--recovery-mib", recovery_mib, "size of the log that is recovered")->check(CLI::Range(64, 1 << 20));
  CLI11_PARSE(app, argc, argv);

  Bench bench;
  std::string pattern = directory + "/bench-wal-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) {
    fmt::print(stderr, "bench_wal: {} cannot be written to\n", directory);
    return 74;
  }
  bench.path = pattern;
  bench.disk = must(env::PosixDisk::open_directory(bench.path));
  bench.open_log();
  bench.open_bare();
  const Ratios one = compare(bench, 1, rounds, writes);
  compare(bench, 16, rounds, writes / 2);
  const Ratios many = compare(bench, 256, rounds, writes / 2);
  const double cpu = cpu_per_record();
  const double recovery = recovery_speed(bench, recovery_mib << 20, 1024);
  bench.log.reset();
  bench.disk.reset();
  std::filesystem::remove_all(bench.path);
  if (json) {
    fmt::print(
        "{{\"append_p50_ratio\":{:.3f},\"syncs_per_s_ratio_256\":{:.3f},\"recovery_gib_per_s\":{:.3f},\"cpu_ns_per_"
        "record\":{:.1f}}}\n",
        one.p50, many.syncs, recovery, cpu);
  }
  return 0;
}

}  // namespace
}  // namespace conclave::wal

int main(int argc, char** argv) {
  return conclave::wal::run(argc, argv);
}
