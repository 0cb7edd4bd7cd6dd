// Decisions: every fault of a run is drawn here, so that a failing run can be replayed with fewer of them.
//
// A stream is a place where faults are drawn (a site, for a target such as a node or a link). The n-th draw of a stream
// depends only on (seed, site, target, n): suppressing one decision shifts no other. Those that fire are recorded. A
// run can be replayed keeping only a list of them (what is not on the list does not happen), which is what the shrinker
// does.
//
// Two levels: a kind of fault is on or off for the whole run (enable), then each draw fires or not (decide).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "base/time.h"
#include "sim/faults.h"

namespace conclave::sim {

// One decision that fired. Its name is (site, target, ordinal); when it fired is for people.
struct Decision {
  std::string site;
  uint64_t target = 0;
  uint64_t ordinal = 0;
  Instant at{};
  friend bool operator==(const Decision& a, const Decision& b) {
    return a.site == b.site && a.target == b.target && a.ordinal == b.ordinal;
  }
};

enum class ReplayMode : uint8_t {
  kAll,       // what is drawn happens
  kKeepOnly,  // only the decisions listed happen
  kSuppress,  // the decisions listed do not happen
};

// How a run's decisions are taken; what a file of decisions holds.
struct Replay {
  std::string suite;
  uint64_t seed = 0;
  uint64_t seconds = 0;
  ReplayMode mode = ReplayMode::kAll;
  std::vector<Decision> decisions;
};

// The text form: a line for each field, then a line "site target ordinal" for each decision; '#' starts a comment.
[[nodiscard]] std::string to_text(const Replay& replay);
// kMalformed with the line that is wrong.
[[nodiscard]] Result<Replay> replay_of_text(std::string_view text);

class Decisions {
 public:
  enum class Stream : uint32_t {};

  explicit Decisions(uint64_t seed) : seed_(seed) {}
  Decisions(const Decisions&) = delete;
  Decisions& operator=(const Decisions&) = delete;

  // Before the first stream is made.
  void set_replay(const Replay& replay);
  // Stamps the decisions recorded; the instant must outlive this. Null: unstamped.
  void set_clock(const Instant* now) { now_ = now; }
  // Off unless enabled.
  void enable(const FaultSet& kinds) { enabled_ = kinds; }
  void enable(FaultKind kind, bool on = true) { enabled_[kind] = on; }
  [[nodiscard]] bool is_enabled(FaultKind kind) const { return enabled_[kind]; }
  // From now on nothing fires: the second phase of a run.
  void stop() { stopped_ = true; }
  [[nodiscard]] bool is_stopped() const { return stopped_; }

  // The same site and target give the same stream. Site: letters, digits, '-', '.'.
  Stream stream(FaultKind kind, std::string_view site, uint64_t target = 0);

  // True `numerator` times in `denominator`, if the kind is on and the replay lets it. Counts the kind.
  bool decide(Stream stream, uint64_t numerator, uint64_t denominator);
  // A generator for the particulars of the stream's latest decision: which sector, how long. Belongs to that decision
  // alone.
  [[nodiscard]] Random detail(Stream stream) const;
  // Chance that is no fault (the usual delay of a link): never suppressed, not recorded.
  uint64_t choose(Stream stream, uint64_t bound);
  Duration exponential(Stream stream, Duration mean);

  // A generator for what is not drawn here at all (a workload, a node's own randomness).
  [[nodiscard]] Random generator(std::string_view site, uint64_t target = 0) const;

  // A fault that is a consequence and was not drawn.
  void count(FaultKind kind, uint64_t times = 1) { counters_[kind] += times; }
  // A decision fired and met nothing it could strike: not counted as a fault, though still listed.
  void had_no_effect(FaultKind kind) { --counters_[kind]; }
  [[nodiscard]] const FaultCounters& counters() const { return counters_; }
  // In the order they fired.
  [[nodiscard]] std::vector<Decision> fired() const;
  [[nodiscard]] size_t fired_count() const { return records_.size(); }

 private:
  struct StreamState {
    std::string site;
    uint64_t target;
    FaultKind kind;
    uint64_t key;
    uint64_t draws = 0;
    uint64_t choices = 0;
    const std::vector<uint64_t>* listed = nullptr;  // ordinals the replay names, sorted
  };
  struct Record {
    Stream stream;
    uint64_t ordinal;
    Instant at;
  };
  using Key = std::pair<std::string, uint64_t>;

  [[nodiscard]] uint64_t key_of(std::string_view site, uint64_t target) const;

  const uint64_t seed_;
  const Instant* now_ = nullptr;
  bool stopped_ = false;
  FaultSet enabled_;
  FaultCounters counters_;
  ReplayMode mode_ = ReplayMode::kAll;
  std::map<Key, std::vector<uint64_t>> listed_;
  std::map<Key, Stream> by_name_;
  std::vector<StreamState> streams_;
  std::vector<Record> records_;
};

}  // namespace conclave::sim
