#include "sim/runner.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/assert.h"
#include "base/mark.h"
#include "sim/range.h"

namespace conclave::sim {
namespace {

std::vector<Suite>& registry() {
  static std::vector<Suite> suites;
  return suites;
}

const Decisions* running = nullptr;

}  // namespace

const Decisions* running_decisions() {
  return running;
}

std::string_view to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kUsage:
      return "usage";
    case Verdict::kSafety:
      return "safety violation";
    case Verdict::kLiveness:
      return "liveness failure";
    case Verdict::kCrash:
      return "crash";
    case Verdict::kCoverage:
      return "coverage";
    case Verdict::kDiverged:
      return "digests differ";
  }
  UNREACHABLE();
}

uint64_t RunContext::setting(const std::string& name, uint64_t otherwise) const {
  const auto it = settings.find(name);
  if (it == settings.end()) return otherwise;
  uint64_t number = 0;
  const char* end = it->second.data() + it->second.size();
  const auto parsed = std::from_chars(it->second.data(), end, number);
  return parsed.ec == std::errc() && parsed.ptr == end ? number : otherwise;
}

bool has_enough_load(const RunResult& result) {
  const Duration loaded = result.loaded == Duration(0) ? result.simulated : result.loaded;
  const auto tenths = static_cast<uint64_t>(to_milliseconds(loaded) / 100);
  return result.operations_attempted >= 5 * tenths && result.operations_acknowledged * 2 >= result.operations_attempted;
}

void add_suite(Suite suite) {
  ASSERT(find_suite(suite.name) == nullptr && suite.run != nullptr);
  registry().push_back(std::move(suite));
}

std::span<const Suite> all_suites() {
  return registry();
}

const Suite* find_suite(std::string_view name) {
  for (const Suite& suite : registry()) {
    if (suite.name == name) return &suite;
  }
  return nullptr;
}

std::vector<const Mark*> sorted_marks() {
  std::vector<const Mark*> marks(all_marks().begin(), all_marks().end());
  std::ranges::sort(marks, [](const Mark* a, const Mark* b) {
    const int names = std::strcmp(a->name, b->name);
    if (names != 0) return names < 0;
    const int files = std::strcmp(a->file, b->file);
    return files != 0 ? files < 0 : a->line < b->line;
  });
  return marks;
}

RunResult run_seed(const Suite& suite, const RunContext& context, const Replay* replay, std::vector<Decision>* fired) {
  const std::vector<const Mark*> marks = sorted_marks();
  std::vector<uint64_t> before;
  before.reserve(marks.size());
  for (const Mark* mark : marks) before.push_back(mark->hits);
  Decisions decisions(context.seed);
  if (replay != nullptr) decisions.set_replay(*replay);
  RunContext mine = context;
  mine.decisions = &decisions;
  running = &decisions;
  RunResult result = suite.run(mine);
  running = nullptr;
  result.seed = context.seed;
  result.faults = decisions.counters();
  result.decisions_fired = decisions.fired_count();
  for (size_t i = 0; i < marks.size(); ++i) result.marks.push_back(marks[i]->hits - before[i]);
  if (fired != nullptr) *fired = decisions.fired();
  return result;
}

void run_two_phases(World& world, Nemesis& nemesis, const TwoPhases& phases, RunResult& result) {
  const Instant began = world.now();
  const auto look = [&] {
    if (!phases.violation) return false;
    result.message = phases.violation();
    if (result.message.empty()) return false;
    result.verdict = Verdict::kSafety;
    return true;
  };
  const auto finish = [&] {
    result.digest = world.digest().value();
    result.simulated = world.now() - began;
    result.events = world.scheduler().events_run();
  };
  nemesis.start();
  const Instant safe_until = began + phases.safety;
  while (world.now() < safe_until) {
    world.run_for(std::min(phases.look_every, Duration(safe_until - world.now())));
    if (look() || (phases.is_over && phases.is_over())) return finish();
  }
  std::vector<bool> core;
  if (phases.choose_core) {
    core = phases.choose_core();
    nemesis.heal(core);
  } else {
    core = nemesis.heal_core();
  }
  if (phases.on_healed) phases.on_healed(core);
  if (!phases.has_converged) return finish();
  const Duration liveness_max = phases.liveness_max + (phases.liveness_extra ? phases.liveness_extra() : Duration());
  const Instant live_until = world.now() + liveness_max;
  while (!phases.has_converged()) {
    if (world.now() >= live_until) {
      result.verdict = Verdict::kLiveness;
      result.message = fmt::format("not converged {} ms after the core was healed{}{}", to_milliseconds(liveness_max),
                                   phases.excuse ? ": " : "", phases.excuse ? phases.excuse() : "");
      return finish();
    }
    world.run_for(phases.look_every);
    if (look() || (phases.is_over && phases.is_over())) return finish();
  }
  finish();
}

}  // namespace conclave::sim
