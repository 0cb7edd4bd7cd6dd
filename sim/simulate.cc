// The command line of the simulator: one seed, a range of seeds, a replay, or the shrinking of a failure.
#include <charconv>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <sstream>

#include <CLI/CLI.hpp>

#include "sim/node_suite.h"
#include "sim/primitives_suite.h"
#include "sim/raft_suite.h"
#include "sim/range.h"
#include "sim/runner.h"
#include "sim/world_suite.h"

namespace conclave::sim {
namespace {

bool parse_range(const std::string& text, uint64_t& first, uint64_t& last) {
  const char* end = text.data() + text.size();
  const auto low = std::from_chars(text.data(), end, first);
  if (low.ec != std::errc()) return false;
  if (low.ptr == end) {
    last = first;
    return true;
  }
  if (*low.ptr != '-') return false;
  const auto high = std::from_chars(low.ptr + 1, end, last);
  return high.ec == std::errc() && high.ptr == end && first <= last;
}

int usage(const std::string& problem) {
  std::fputs((problem + "\n").c_str(), stderr);
  return static_cast<int>(Verdict::kUsage);
}

void print_run(const RunResult& result) {
  for (const auto& [name, count] : result.counts) fmt::print("{:<60}{:>12}\n", name, count);
  fmt::print(
      "{}: seed {}, {} ms simulated, {} events, {} operations ({} acknowledged), {} decisions fired, digest {:016x}\n",
      to_string(result.verdict), result.seed, to_milliseconds(result.simulated), result.events,
      result.operations_attempted, result.operations_acknowledged, result.decisions_fired, result.digest);
}

// In this process, so that a debugger sees it.
Verdict run_single(const RangeOptions& options, uint64_t seed, const Replay* replay) {
  RunContext context = options.context;
  context.seed = seed;
  report_crashes(options, seed);
  RunResult result = run_seed(*options.suite, context, replay);
  if (options.twice && result.verdict == Verdict::kOk) {
    const RunResult again = run_seed(*options.suite, context, replay);
    if (again.digest != result.digest) {
      result.verdict = Verdict::kDiverged;
      result.message = fmt::format("the same seed gave digest {:016x}, then {:016x}", result.digest, again.digest);
    }
  }
  if (result.verdict != Verdict::kOk) fmt::print("{}\n", report_of(options, result));
  fmt::print("world {}\n", result.parameters);
  print_run(result);
  return result.verdict;
}

Verdict shrink_seed(const RangeOptions& options, uint64_t seed, const std::string& path) {
  RunContext context = options.context;
  context.seed = seed;
  Replay all{.suite = options.suite->name,
             .seed = seed,
             .seconds = static_cast<uint64_t>(context.time.count() / 1'000'000'000),
             .mode = ReplayMode::kKeepOnly};
  const auto began = std::chrono::steady_clock::now();
  const Verdict wanted = run_in_child([&] { return run_seed(*options.suite, context).verdict; }, 0, true);
  if (wanted == Verdict::kOk) {
    fmt::print("seed {} does not fail\n", seed);
    return Verdict::kOk;
  }
  const auto took = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - began).count();
  const auto seconds_max = static_cast<unsigned>(took * 10 + 10);
  if (wanted == Verdict::kCrash) {
    all.decisions = fired_before_crash(options, seed);
  } else {
    const RunResult result = run_seed(*options.suite, context, nullptr, &all.decisions);
    if (result.verdict != wanted) return Verdict::kDiverged;
  }
  const size_t before = all.decisions.size();
  uint64_t trials = 0;
  all.decisions = shrink(all.decisions, [&](const std::vector<Decision>& kept) {
    ++trials;
    Replay trial = all;
    trial.decisions = kept;
    return run_in_child([&] { return run_seed(*options.suite, context, &trial).verdict; }, seconds_max, true) == wanted;
  });
  std::ofstream file(path);
  file << to_text(all);
  file.close();
  fmt::print("{}: {} decisions fired, {} are enough, after {} trials\n", to_string(wanted), before,
             all.decisions.size(), trials);
  fmt::print("written to {}; run `{} {} --replay {}`\n", path, options.program, options.suite->name, path);
  return file ? wanted : Verdict::kUsage;
}

int simulate_main(int argc, char** argv) {
  CLI::App app("Runs Conclave in a simulated world.");
  std::string suite = "node";  // the product
  std::string seeds;
  uint64_t seed = 0;
  uint64_t seconds = 60;
  std::string replay_path;
  std::string shrink_path = "decisions.txt";
  std::vector<std::string> settings;
  RangeOptions options;
  bool shrinks = false;
  bool lists = false;
  app.add_option("suite", suite, "what to run");
  app.add_flag("--list", lists, "print the suites");
  app.add_option("--seeds", seeds, "range of seeds, A-B; without, the suite's own");
  CLI::Option* single = app.add_option("--seed", seed, "one seed, in this process");
  app.add_option("--seconds", seconds, "simulated seconds of the phase under faults")->check(CLI::Range(1, 1'000'000));
  app.add_option("--jobs", options.jobs, "worker processes")->check(CLI::Range(1, 256));
  app.add_flag("--twice", options.twice, "run each seed twice and compare digests");
  app.add_flag("--json", options.json, "print one JSON object as the last line");
  app.add_flag("--coverage", options.coverage, "fail if an expected fault or mark never happened");
  app.add_option("--coverage-fires", options.coverage_fires, "how often each expected fault must fire");
  app.add_option("--coverage-seeds", options.coverage_seeds, "in how many seeds");
  app.add_flag("--shrink", shrinks, "find the fewest decisions that make --seed fail");
  app.add_option("--out", shrink_path, "file that --shrink writes");
  app.add_option("--replay", replay_path, "run with the decisions of a file");
  app.add_option("--set", settings, "name=value, for the suite");
  app.add_flag("--verbose", options.context.verbose, "the suite says what happens");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : static_cast<int>(Verdict::kUsage);
  }
  if (lists) {
    for (const Suite& each : all_suites()) fmt::print("{:<16}{}\n", each.name, each.description);
    return 0;
  }
  options.suite = find_suite(suite);
  if (options.suite == nullptr) return usage(fmt::format("no suite '{}'; --list prints them", suite));
  options.program = argv[0];
  for (const std::string& each : settings) {
    const size_t equals = each.find('=');
    if (equals == std::string::npos) return usage(fmt::format("--set {}: not name=value", each));
    options.context.settings[each.substr(0, equals)] = each.substr(equals + 1);
  }
  options.context.time = std::chrono::seconds(seconds);
  if (!replay_path.empty()) {
    std::ifstream file(replay_path);
    std::stringstream text;
    text << file.rdbuf();
    if (!file) return usage(fmt::format("cannot read {}", replay_path));
    const Result<Replay> replay = replay_of_text(text.str());
    if (!replay) return usage(fmt::format("{}: {}", replay_path, replay.error().message));
    if (replay->suite != suite) return usage(fmt::format("{} is of suite {}", replay_path, replay->suite));
    options.context.time = std::chrono::seconds(replay->seconds);
    return static_cast<int>(run_single(options, replay->seed, &*replay));
  }
  if (shrinks) {
    if (single->empty()) return usage("--shrink needs --seed");
    return static_cast<int>(shrink_seed(options, seed, shrink_path));
  }
  if (!single->empty()) return static_cast<int>(run_single(options, seed, nullptr));
  if (seeds.empty()) {
    options.first = 1;
    options.last = options.suite->last_seed;
  } else if (!parse_range(seeds, options.first, options.last)) {
    return usage(fmt::format("--seeds {}: not A-B", seeds));
  }
  return static_cast<int>(run_range(options));
}

}  // namespace
}  // namespace conclave::sim

int main(int argc, char** argv) {
  conclave::sim::add_node_suite();
  conclave::sim::add_primitives_suite();
  conclave::sim::add_world_suites();
  conclave::sim::add_raft_suites();
  conclave::sim::add_raft_graphs_suite();
  return conclave::sim::simulate_main(argc, argv);
}
