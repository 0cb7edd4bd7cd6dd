// A range of seeds: worker processes, what they report, and the summary of all. Results are put in order of their
// seeds, so that the summary does not depend on the number of workers.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/mark.h"
#include "sim/runner.h"

namespace conclave::sim {

// By name, then file, then line.
[[nodiscard]] std::vector<const Mark*> sorted_marks();

struct RangeOptions {
  const Suite* suite = nullptr;
  RunContext context;  // but for the seed
  uint64_t first = 1;
  uint64_t last = 1;
  uint64_t jobs = 1;
  bool twice = false;  // run each seed again and compare
  bool coverage = false;
  uint64_t coverage_fires = 1;  // each expected kind must fire so often
  uint64_t coverage_seeds = 1;  // in so many seeds
  bool json = false;
  std::string program;  // as called, for the line that reproduces
};

// The line that runs this seed again.
[[nodiscard]] std::string command_of(const RangeOptions& options, uint64_t seed);
// Commit this was built from, or "unknown".
[[nodiscard]] std::string_view build_commit();
// What a failing run prints: commit, seed, command, first violated invariant.
[[nodiscard]] std::string report_of(const RangeOptions& options, const RunResult& result);

// Runs `body` in a child process; its exit code, or kCrash if it died of a signal or of an alarm after `seconds_max`
// (0: no alarm). Output of the child goes to the null device if `quiet`.
[[nodiscard]] Verdict run_in_child(const std::function<Verdict()>& body, unsigned seconds_max, bool quiet);

// What fired in a run that ends in a crash. Empty if nothing was heard of it.
[[nodiscard]] std::vector<Decision> fired_before_crash(const RangeOptions& options, uint64_t seed);

// Installs what turns an ASSERT or a fatal signal into the report and exit code 4.
void report_crashes(const RangeOptions& options, uint64_t seed);

// Runs all; prints failures and the summary to stdout; the verdict of the first seed that failed, else of coverage.
[[nodiscard]] Verdict run_range(const RangeOptions& options);

}  // namespace conclave::sim
