#include "sim/range.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "base/assert.h"
#include "base/bytes.h"
#include "sim/digest.h"

#ifndef CONCLAVE_COMMIT
#define CONCLAVE_COMMIT "unknown"
#endif

namespace conclave::sim {
namespace {

// --- What a worker tells its parent: records of a length and a body. A crash leaves a seed begun and not ended.

void write_all(int descriptor, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(descriptor, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) _exit(static_cast<int>(Verdict::kCrash));
    bytes.remove_prefix(static_cast<size_t>(put));
  }
}

void tell(int descriptor, ByteView body) {
  std::string record;
  ByteWriter writer(record);
  writer.fixed(static_cast<uint32_t>(body.size()));
  writer.raw(body);
  write_all(descriptor, record);
}

constexpr uint8_t kBegun = 1;
constexpr uint8_t kEnded = 2;
constexpr uint8_t kCrashed = 3;

std::string encode(const RunResult& result) {
  std::string body;
  ByteWriter writer(body);
  writer.fixed(kEnded);
  writer.varint(result.seed);
  writer.fixed(static_cast<uint8_t>(result.verdict));
  writer.sized(result.message);
  writer.sized(result.parameters);
  writer.fixed(result.digest);
  writer.varint(result.operations_attempted);
  writer.varint(result.operations_acknowledged);
  writer.varint(result.counts.size());
  for (const auto& [name, count] : result.counts) {
    writer.sized(name);
    writer.varint(count);
  }
  writer.varint(static_cast<uint64_t>(result.simulated.count()));
  writer.varint(static_cast<uint64_t>(result.loaded.count()));
  writer.varint(result.events);
  writer.varint(result.decisions_fired);
  for (size_t i = 0; i < kFaultKinds; ++i) writer.varint(result.faults[static_cast<FaultKind>(i)]);
  writer.varint(result.marks.size());
  for (uint64_t hits : result.marks) writer.varint(hits);
  return body;
}

RunResult decode(ByteReader& reader) {
  RunResult result;
  result.seed = reader.varint();
  result.verdict = static_cast<Verdict>(reader.fixed<uint8_t>());
  result.message = reader.sized();
  result.parameters = reader.sized();
  result.digest = reader.fixed<uint64_t>();
  result.operations_attempted = reader.varint();
  result.operations_acknowledged = reader.varint();
  const uint64_t counts = reader.varint();
  for (uint64_t i = 0; i < counts && reader.ok(); ++i) {
    const ByteView name = reader.sized();
    result.counts[std::string(name)] = reader.varint();
  }
  result.simulated = Duration(static_cast<int64_t>(reader.varint()));
  result.loaded = Duration(static_cast<int64_t>(reader.varint()));
  result.events = reader.varint();
  result.decisions_fired = reader.varint();
  for (size_t i = 0; i < kFaultKinds; ++i) result.faults[static_cast<FaultKind>(i)] = reader.varint();
  const uint64_t marks = reader.varint();
  for (uint64_t i = 0; i < marks && reader.ok(); ++i) result.marks.push_back(reader.varint());
  ASSERT(reader.finished());
  return result;
}

// --- Crashes. What the handlers need stands ready: they may not allocate.

struct CrashReport {
  int worker_pipe = -1;  // of a worker: the parent prints
  uint64_t seed = 0;
  std::string text;  // of a single run: the report without its last line
};
CrashReport crash_report;

void on_assertion(const std::string& message) {
  if (crash_report.worker_pipe >= 0) {
    std::string body;
    ByteWriter writer(body);
    writer.fixed(kCrashed);
    writer.varint(crash_report.seed);
    writer.sized(message);
    tell(crash_report.worker_pipe, body);
  } else {
    std::fputs((crash_report.text + message + "\n").c_str(), stdout);
    std::fflush(stdout);
  }
  _exit(static_cast<int>(Verdict::kCrash));
}

void on_signal(int signal) {
  // In a worker the parent sees by what it died.
  if (crash_report.worker_pipe < 0) {
    static constexpr char kText[] = "a fatal signal\n";
    (void)!::write(STDOUT_FILENO, crash_report.text.data(), crash_report.text.size());
    (void)!::write(STDOUT_FILENO, kText, sizeof(kText) - 1);
    _exit(static_cast<int>(Verdict::kCrash));
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void install_crash_handlers() {
  set_assertion_hook(&on_assertion);
  for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) std::signal(signal, &on_signal);
}

RunResult run_one(const RangeOptions& options, uint64_t seed) {
  RunContext context = options.context;
  context.seed = seed;
  RunResult result = run_seed(*options.suite, context);
  if (!options.twice || result.verdict != Verdict::kOk) return result;
  const RunResult again = run_seed(*options.suite, context);
  if (again.digest == result.digest && again.verdict == result.verdict) return result;
  result.verdict = Verdict::kDiverged;
  result.message = fmt::format("the same seed gave digest {:016x}, then {:016x}", result.digest, again.digest);
  return result;
}

struct Worker {
  pid_t process = -1;
  int pipe = -1;
  std::string received;
  uint64_t next = 0;  // first seed not begun
  uint64_t stride = 1;
  bool in_seed = false;
  uint64_t seed = 0;
  bool ended = false;
};

[[noreturn]] void work(const RangeOptions& options, uint64_t first, uint64_t stride, int pipe) {
  crash_report.worker_pipe = pipe;
  install_crash_handlers();
  for (uint64_t seed = first; seed <= options.last; seed += stride) {
    crash_report.seed = seed;
    std::string begun;
    ByteWriter writer(begun);
    writer.fixed(kBegun);
    writer.varint(seed);
    tell(pipe, begun);
    tell(pipe, encode(run_one(options, seed)));
    if (options.last - seed < stride) break;
  }
  std::fflush(nullptr);
  _exit(0);
}

void launch(const RangeOptions& options, Worker& worker) {
  int ends[2];
  ASSERT(::pipe(ends) == 0);
  std::fflush(nullptr);
  worker.process = ::fork();
  ASSERT(worker.process >= 0);
  if (worker.process == 0) {
    ::close(ends[0]);
    work(options, worker.next, worker.stride, ends[1]);
  }
  ::close(ends[1]);
  worker.pipe = ends[0];
  worker.in_seed = false;
  worker.received.clear();
}

// Takes whole records out of what was received.
void take_records(Worker& worker, std::map<uint64_t, RunResult>& results) {
  size_t at = 0;
  while (worker.received.size() - at >= 4) {
    const auto size = load_le<uint32_t>(worker.received.data() + at);
    if (worker.received.size() - at - 4 < size) break;
    ByteReader reader(ByteView(worker.received).substr(at + 4, size));
    at += 4 + size;
    const auto kind = reader.fixed<uint8_t>();
    if (kind == kBegun) {
      worker.seed = reader.varint();
      worker.in_seed = true;
      worker.next = worker.seed + worker.stride;
    } else if (kind == kEnded) {
      RunResult result = decode(reader);
      worker.in_seed = false;
      results[result.seed] = std::move(result);
    } else {
      RunResult result;
      result.seed = reader.varint();
      result.message = reader.sized();
      result.verdict = Verdict::kCrash;
      worker.in_seed = false;
      results[result.seed] = std::move(result);
    }
  }
  worker.received.erase(0, at);
}

// The worker's pipe is at its end. Another takes over after a crash.
void bury(const RangeOptions& options, Worker& worker, std::map<uint64_t, RunResult>& results) {
  ::close(worker.pipe);
  worker.pipe = -1;
  int status = 0;
  while (::waitpid(worker.process, &status, 0) < 0 && errno == EINTR) {
  }
  if (worker.in_seed) {
    RunResult result;
    result.seed = worker.seed;
    result.verdict = Verdict::kCrash;
    result.message = WIFSIGNALED(status) ? fmt::format("the run died of signal {}", WTERMSIG(status))
                                         : fmt::format("the run ended the process with code {}", WEXITSTATUS(status));
    results[worker.seed] = std::move(result);
  }
  const bool finished = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (finished || worker.next > options.last) {
    worker.ended = true;
  } else {
    launch(options, worker);
  }
}

std::map<uint64_t, RunResult> run_workers(const RangeOptions& options) {
  std::map<uint64_t, RunResult> results;
  const uint64_t count = std::min(options.jobs, options.last - options.first + 1);
  std::vector<Worker> workers(count);
  for (uint64_t i = 0; i < count; ++i) {
    workers[i].next = options.first + i;
    workers[i].stride = count;
    launch(options, workers[i]);
  }
  for (;;) {
    std::vector<pollfd> polled;
    std::vector<size_t> owners;
    for (size_t i = 0; i < workers.size(); ++i) {
      if (workers[i].ended) continue;
      polled.push_back({.fd = workers[i].pipe, .events = POLLIN});
      owners.push_back(i);
    }
    if (polled.empty()) return results;
    if (::poll(polled.data(), polled.size(), -1) < 0) continue;
    for (size_t i = 0; i < polled.size(); ++i) {
      if (polled[i].revents == 0) continue;
      Worker& worker = workers[owners[i]];
      char chunk[65536];
      const ssize_t got = ::read(worker.pipe, chunk, sizeof(chunk));
      if (got > 0) {
        worker.received.append(chunk, static_cast<size_t>(got));
        take_records(worker, results);
      } else if (got == 0 || errno != EINTR) {
        bury(options, worker, results);
      }
    }
  }
}

// --- The summary.

struct Summary {
  uint64_t runs = 0;
  uint64_t failed = 0;
  uint64_t invalid = 0;
  uint64_t attempted = 0;
  uint64_t acknowledged = 0;
  uint64_t events = 0;
  Duration simulated{};
  FaultCounters fires;
  FaultCounters seeds;
  std::vector<uint64_t> marks;
  uint64_t digest = 0;
  std::map<std::string, uint64_t> counts;
  std::vector<std::string> uncovered;
};

Summary sum_up(const RangeOptions& options, const std::map<uint64_t, RunResult>& results) {
  Summary sum;
  Digest digest;
  const std::vector<const Mark*> marks = sorted_marks();
  sum.marks.assign(marks.size(), 0);
  for (const auto& [seed, result] : results) {
    ++sum.runs;
    sum.failed += result.verdict == Verdict::kOk ? 0 : 1;
    sum.invalid += options.suite->demands_load && result.verdict == Verdict::kOk && !has_enough_load(result) ? 1 : 0;
    sum.attempted += result.operations_attempted;
    sum.acknowledged += result.operations_acknowledged;
    sum.events += result.events;
    sum.simulated += result.simulated;
    for (const auto& [name, count] : result.counts) sum.counts[name] += count;
    digest.add(seed);
    digest.add(result.digest);
    for (size_t i = 0; i < kFaultKinds; ++i) {
      const auto kind = static_cast<FaultKind>(i);
      sum.fires[kind] += result.faults[kind];
      sum.seeds[kind] += result.faults[kind] > 0 ? 1 : 0;
    }
    for (size_t i = 0; i < result.marks.size(); ++i) sum.marks[i] += result.marks[i];
  }
  sum.digest = digest.value();
  for (size_t i = 0; i < kFaultKinds; ++i) {
    const auto kind = static_cast<FaultKind>(i);
    if (!options.suite->expected[kind]) continue;
    if (sum.fires[kind] < options.coverage_fires || sum.seeds[kind] < options.coverage_seeds) {
      sum.uncovered.push_back(
          fmt::format("fault {} fired {} times in {} seeds", to_string(kind), sum.fires[kind], sum.seeds[kind]));
    }
  }
  for (size_t i = 0; i < marks.size(); ++i) {
    const bool expected = std::ranges::any_of(options.suite->mark_files, [&](const std::string& part) {
      return std::string_view(marks[i]->file).find(part) != std::string_view::npos;
    });
    const bool waived = sum.runs < kLongRange &&
                        std::ranges::find(options.suite->rare_marks, marks[i]->name) != options.suite->rare_marks.end();
    if (expected && !waived && sum.marks[i] == 0)
      sum.uncovered.push_back(fmt::format("mark {} was never reached", marks[i]->name));
  }
  if (sum.invalid > 0) sum.uncovered.push_back(fmt::format("{} runs with too few operations to count", sum.invalid));
  return sum;
}

// With three digits behind the point, without floating point.
std::string thousandths(uint64_t value) {
  return fmt::format("{}.{:03}", value / 1000, value % 1000);
}

std::string escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out;
}

void print_summary(const RangeOptions& options, const std::map<uint64_t, RunResult>& results, const Summary& sum,
                   uint64_t wall_milliseconds, Verdict verdict) {
  const auto simulated_ms = static_cast<uint64_t>(to_milliseconds(sum.simulated));
  const uint64_t speed = simulated_ms / std::max<uint64_t>(wall_milliseconds, 1);
  const uint64_t per_second = simulated_ms == 0 ? 0 : sum.attempted * 1000 / simulated_ms;
  fmt::print("suite {} seeds {}-{} commit {}\n", options.suite->name, options.first, options.last, build_commit());
  fmt::print(
      "simulated {} s, wall {} s, {} x real time, {} events, {} operations ({} acknowledged, {} a simulated second)\n",
      thousandths(simulated_ms), thousandths(wall_milliseconds), speed, sum.events, sum.attempted, sum.acknowledged,
      per_second);
  fmt::print("{:<24}{:>12}{:>8}\n", "fault", "fired", "seeds");
  for (size_t i = 0; i < kFaultKinds; ++i) {
    const auto kind = static_cast<FaultKind>(i);
    if (sum.fires[kind] == 0 && !options.suite->expected[kind]) continue;
    fmt::print("{:<24}{:>12}{:>8}\n", to_string(kind), sum.fires[kind], sum.seeds[kind]);
  }
  const std::vector<const Mark*> marks = sorted_marks();
  if (!marks.empty()) fmt::print("{:<44}{:>12}\n", "mark", "reached");
  for (size_t i = 0; i < marks.size(); ++i) fmt::print("{:<44}{:>12}\n", marks[i]->name, sum.marks[i]);
  for (const auto& [name, count] : sum.counts) fmt::print("{:<60}{:>12}\n", name, count);
  for (const std::string& missing : sum.uncovered) fmt::print("uncovered: {}\n", missing);
  if (options.json) {
    std::string json = fmt::format(
        R"({{"suite":"{}","commit":"{}","first":{},"last":{},"runs":{},"failed":{},"invalid":{},"verdict":"{}","simulated_ms":{},)"
        R"("wall_ms":{},"speed":{},"events":{},"operations":{},"acknowledged":{},"digest":"{:016x}","faults":{{)",
        options.suite->name, build_commit(), options.first, options.last, sum.runs, sum.failed, sum.invalid,
        to_string(verdict), simulated_ms, wall_milliseconds, speed, sum.events, sum.attempted, sum.acknowledged,
        sum.digest);
    for (size_t i = 0; i < kFaultKinds; ++i) {
      const auto kind = static_cast<FaultKind>(i);
      json += fmt::format(R"({}"{}":[{},{}])", i == 0 ? "" : ",", to_string(kind), sum.fires[kind], sum.seeds[kind]);
    }
    json += "},\"marks\":{";
    // Marks of one name (the same branch in several places) are one to the reader.
    std::map<std::string, uint64_t> by_name;
    for (size_t i = 0; i < marks.size(); ++i) by_name[marks[i]->name] += sum.marks[i];
    bool first = true;
    for (const auto& [name, hits] : by_name) {
      json += fmt::format(R"({}"{}":{})", first ? "" : ",", name, hits);
      first = false;
    }
    json += "},\"counts\":{";
    first = true;
    for (const auto& [name, count] : sum.counts) {
      json += fmt::format(R"({}"{}":{})", first ? "" : ",", escaped(name), count);
      first = false;
    }
    json += "},\"failures\":[";
    first = true;
    for (const auto& [seed, result] : results) {
      if (result.verdict == Verdict::kOk) continue;
      json += fmt::format(R"({}{{"seed":{},"verdict":"{}","message":"{}"}})", first ? "" : ",", seed,
                          to_string(result.verdict), escaped(result.message));
      first = false;
    }
    fmt::print("{}]}}\n", json);
    return;
  }
  fmt::print(
      "{}: suite {}, {} seeds, {} failed, {} invalid, {} s simulated in {} s ({} x), {} operations, digest {:016x}\n",
      to_string(verdict), options.suite->name, sum.runs, sum.failed, sum.invalid, thousandths(simulated_ms),
      thousandths(wall_milliseconds), speed, sum.attempted, sum.digest);
}

}  // namespace

std::string_view build_commit() {
  return CONCLAVE_COMMIT;
}

std::string command_of(const RangeOptions& options, uint64_t seed) {
  std::string command = fmt::format("{} {} --seed {} --seconds {}", options.program, options.suite->name, seed,
                                    options.context.time.count() / 1'000'000'000);
  for (const auto& [name, value] : options.context.settings) command += fmt::format(" --set {}={}", name, value);
  if (options.twice) command += " --twice";
  return command;
}

std::string report_of(const RangeOptions& options, const RunResult& result) {
  std::string report = fmt::format("FAILED: {}\n  commit {}\n  seed {}\n  run `{}`\n", to_string(result.verdict),
                                   build_commit(), result.seed, command_of(options, result.seed));
  if (!result.parameters.empty()) report += fmt::format("  world {}\n", result.parameters);
  return report + fmt::format("  violated: {}\n", result.message);
}

void report_crashes(const RangeOptions& options, uint64_t seed) {
  RunResult result;
  result.seed = seed;
  result.verdict = Verdict::kCrash;
  crash_report.worker_pipe = -1;
  crash_report.seed = seed;
  crash_report.text = report_of(options, result);
  crash_report.text.pop_back();  // the message follows on the last line
  install_crash_handlers();
}

Verdict run_in_child(const std::function<Verdict()>& body, unsigned seconds_max, bool quiet) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  ASSERT(child >= 0);
  if (child == 0) {
    if (quiet) {
      const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
      ASSERT(null >= 0);
      ::dup2(null, STDOUT_FILENO);
      ::dup2(null, STDERR_FILENO);
    }
    if (seconds_max > 0) ::alarm(seconds_max);
    const Verdict verdict = body();
    std::fflush(nullptr);
    _exit(static_cast<int>(verdict));
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? static_cast<Verdict>(WEXITSTATUS(status)) : Verdict::kCrash;
}

std::vector<Decision> fired_before_crash(const RangeOptions& options, uint64_t seed) {
  int ends[2];
  ASSERT(::pipe(ends) == 0);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  ASSERT(child >= 0);
  if (child == 0) {
    ::close(ends[0]);
    crash_report.worker_pipe = ends[1];
    // Encoding allocates, which a signal handler should not: at worst this child dies of it and nothing is heard.
    static constexpr auto kTell = [] {
      const Decisions* decisions = running_decisions();
      if (decisions != nullptr) {
        write_all(crash_report.worker_pipe, to_text({.suite = "crashed", .decisions = decisions->fired()}));
      }
      _exit(static_cast<int>(Verdict::kCrash));
    };
    set_assertion_hook([](const std::string&) { kTell(); });
    for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) std::signal(signal, [](int) { kTell(); });
    RunContext context = options.context;
    context.seed = seed;
    (void)run_seed(*options.suite, context);
    _exit(0);
  }
  ::close(ends[1]);
  std::string text;
  char chunk[65536];
  for (;;) {
    const ssize_t got = ::read(ends[0], chunk, sizeof(chunk));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text.append(chunk, static_cast<size_t>(got));
  }
  ::close(ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  Result<Replay> replay = replay_of_text(text);
  return replay ? std::move(replay->decisions) : std::vector<Decision>();
}

Verdict run_range(const RangeOptions& options) {
  const auto began = std::chrono::steady_clock::now();
  const std::map<uint64_t, RunResult> results = run_workers(options);
  const auto wall = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began);
  const Summary sum = sum_up(options, results);
  Verdict verdict = Verdict::kOk;
  // Ten say enough; the summary counts all.
  size_t printed = 0;
  for (const auto& [seed, result] : results) {
    if (result.verdict == Verdict::kOk) continue;
    if (verdict == Verdict::kOk) verdict = result.verdict;
    if (printed++ < 10) fmt::print("{}\n", report_of(options, result));
  }
  if (verdict == Verdict::kOk && options.coverage && !sum.uncovered.empty()) verdict = Verdict::kCoverage;
  print_summary(options, results, sum, static_cast<uint64_t>(wall.count()), verdict);
  return verdict;
}

}  // namespace conclave::sim
