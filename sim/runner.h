// Runs: a suite is a function from a seed to a result; the runner takes it over a range of seeds, in worker processes,
// and sums up. Also the shape most suites share: a phase of safety under faults, then a core is healed and must be
// live.
//
// A suite builds its World from RunContext and never looks at anything else: the same context gives the same result.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "sim/decisions.h"
#include "sim/faults.h"
#include "sim/nemesis.h"
#include "sim/world.h"

namespace conclave::sim {

// Also the exit code of `simulate`.
enum class Verdict : uint8_t {
  kOk = 0,
  kUsage = 1,
  kSafety = 2,
  kLiveness = 3,
  kCrash = 4,     // an ASSERT or a signal
  kCoverage = 5,  // of a range: something never happened, or runs were too quiet to count
  kDiverged = 6,  // of a seed run twice: the digests differ
};
[[nodiscard]] std::string_view to_string(Verdict verdict);

struct RunContext {
  uint64_t seed = 0;
  // Simulated time of the phase under faults.
  Duration time = std::chrono::seconds(60);
  bool verbose = false;  // the suite may print what happens to stderr
  // `--set name=value`, for what a suite lets one choose (a planted bug).
  std::map<std::string, std::string> settings;
  // Made for this run; the suite gives it to its World.
  Decisions* decisions = nullptr;

  // The number of a setting, or `otherwise`.
  [[nodiscard]] uint64_t setting(const std::string& name, uint64_t otherwise) const;
};

struct RunResult {
  Verdict verdict = Verdict::kOk;
  std::string message;     // of a failure: the first violated invariant; one line
  std::string parameters;  // describe() of the swarm
  uint64_t digest = 0;
  uint64_t operations_attempted = 0;
  uint64_t operations_acknowledged = 0;
  Duration simulated{};  // true time that passed
  // Time in which operations were attempted; zero: all of it.
  Duration loaded{};
  uint64_t events = 0;
  // What else the suite counts; summed by name over a range and printed.
  std::map<std::string, uint64_t> counts;

  // Filled in by the runner.
  uint64_t seed = 0;
  FaultCounters faults;
  uint64_t decisions_fired = 0;
  std::vector<uint64_t> marks;  // hits of each, in the order of sorted_marks()
};

// False for a run that proves nothing: fewer than 50 operations a simulated second, or less than half acknowledged.
[[nodiscard]] bool has_enough_load(const RunResult& result);

inline constexpr uint64_t kLongRange = 1000;

struct Suite {
  std::string name;
  std::string description;
  RunResult (*run)(RunContext& context) = nullptr;
  // For --coverage: kinds that must fire, and marks that must be hit (those whose file contains one of these texts).
  FaultSet expected;
  std::vector<std::string> mark_files;
  // Marks that only a long range must hit (kLongRange seeds or more).
  std::vector<std::string> rare_marks;
  // Runs without enough load count as invalid.
  bool demands_load = false;
  // The range of seeds if none is given, from 1.
  uint64_t last_seed = 10;
};

// For main(): all suites, in the order they were added. Names are unique.
void add_suite(Suite suite);
[[nodiscard]] std::span<const Suite> all_suites();
[[nodiscard]] const Suite* find_suite(std::string_view name);

// --- Two phases.

struct TwoPhases {
  Duration safety = std::chrono::seconds(60);
  // After the core is healed, all must have converged within this, and what the amount of state alone costs: asked when
  // the core is healed. May be empty.
  Duration liveness_max = std::chrono::seconds(30);
  std::function<Duration()> liveness_extra;
  // How often is_violated and has_converged are asked. Checks that must see each event belong into the harness.
  Duration look_every = std::chrono::milliseconds(50);
  // The first violated invariant, or empty.
  std::function<std::string()> violation;
  // Between the phases, with the core just healed: the harness demands its last operations from now on. May be empty.
  std::function<void(const std::vector<bool>& core)> on_healed;
  // Everything that must complete did. Empty: no liveness is demanded.
  std::function<bool()> has_converged;
  // Why not, for the report. May be empty.
  std::function<std::string()> excuse;
  // Who is healed; empty: the nemesis chooses.
  std::function<std::vector<bool>()> choose_core;
  // The run ends here and is good so far: what would follow proves nothing. May be empty.
  std::function<bool()> is_over;
};
// Runs the world through both phases. Sets verdict, message, digest, simulated, events.
void run_two_phases(World& world, Nemesis& nemesis, const TwoPhases& phases, RunResult& result);

// --- Pieces of the command, for tests.

// One run in this process. With a replay its decisions hold; `fired` receives what fired, if not null.
[[nodiscard]] RunResult run_seed(const Suite& suite, const RunContext& context, const Replay* replay = nullptr,
                                 std::vector<Decision>* fired = nullptr);

// Those of the run that is going on in this process; null between runs. For the report of a crash.
[[nodiscard]] const Decisions* running_decisions();

// The smallest list the search finds for which `fails` is still true, given that it is for all of them: delta debugging
// (each trial leaves out a part, parts get smaller), 1-minimal at its end. Order is kept.
[[nodiscard]] std::vector<Decision> shrink(std::vector<Decision> decisions,
                                           const std::function<bool(const std::vector<Decision>&)>& fails,
                                           uint64_t trials_max = 10'000);

}  // namespace conclave::sim
