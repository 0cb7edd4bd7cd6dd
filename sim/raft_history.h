// RaftHistory: what the clients of a run saw, and whether a register machine that applies the committed log can have
// shown it to them. Every reply carries the index it stands for, so the witness order is given: judging is sorting by
// index, one replay and one sweep for real time, O(n log n).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/entry.h"
#include "base/time.h"
#include "sim/register_machine.h"

namespace conclave::sim {

enum class Outcome : uint8_t {
  kUnknown,  // no answer: it took effect or will, or never
  kDone,
  kRefused,  // known never to take effect
};

struct Operation {
  bool is_read = false;
  Command command;  // of a read: its client, sequence and place count
  Instant called{};
  Instant returned{};  // of one done
  Outcome outcome = Outcome::kUnknown;
  LogIndex index;      // of one done: a write's own entry; a read's: the state after it was read
  ApplyResult result;  // of a write done
  uint64_t value = 0;  // of a read done
};

struct HistoryOptions {
  // Off where clocks may break what is promised: reads are then judged by the state they name alone.
  bool real_time_reads = true;
};

// The first thing that cannot be, or empty. `committed[i]` is the entry at index i + 1; all of them from the first to
// at least the highest index answered.
[[nodiscard]] std::string judge(const std::vector<Operation>& operations, const std::vector<Entry>& committed,
                                const HistoryOptions& options = {});

}  // namespace conclave::sim
