// RegisterMachine: the state machine the simulated servers replicate: a few registers, each a number, written by put,
// compare-and-set and append, and one setting of the cluster. Small enough to be its own model: the history of a run is
// judged by replaying the committed log through another instance.
//
// A command carries (client, sequence): one applied before, or overtaken by a later one of its client, does nothing. So
// a frame that the network delivers twice is no second effect.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/entry.h"
#include "base/error.h"

namespace conclave::sim {

inline constexpr size_t kRegisters = 6;
// Clients of one run; a command of another does nothing.
inline constexpr size_t kRegisterClientsMax = 64;

enum class CommandKind : uint8_t {
  kPut = 1,
  kCompareAndSet = 2,
  kAppend = 3,      // the register becomes a hash of what it was and the value: its number tells all that was appended
  kClockLease = 4,  // value 1: reads on the leader's clock lease are on
};

struct Command {
  uint32_t client = 0;
  uint64_t sequence = 0;  // of the client, growing
  CommandKind kind = CommandKind::kPut;
  uint8_t place = 0;      // which register
  uint64_t value = 0;     // unique in the run
  uint64_t expected = 0;  // of compare-and-set
  friend bool operator==(const Command&, const Command&) = default;
};

[[nodiscard]] std::string encode(const Command& command);
// kMalformed.
[[nodiscard]] Result<Command> decode_command(ByteView bytes);

struct ApplyResult {
  bool effective = false;  // false: repeated, overtaken or not a command
  bool success = false;    // compare-and-set: it was as expected
  uint64_t before = 0;     // the register's number before
  friend bool operator==(const ApplyResult&, const ApplyResult&) = default;
};

class RegisterMachine {
 public:
  // Entries in the order of their indexes, each once.
  ApplyResult apply(const Entry& entry);

  [[nodiscard]] LogIndex applied() const { return applied_; }
  [[nodiscard]] uint64_t value(size_t place) const { return registers_[place]; }
  [[nodiscard]] bool clock_lease() const { return clock_lease_; }
  // Of the whole state but the index.
  [[nodiscard]] uint64_t digest() const;

  // The same bytes on every server at the same index.
  [[nodiscard]] std::string encode_state() const;
  [[nodiscard]] static Result<RegisterMachine> decode_state(ByteView bytes);

 private:
  LogIndex applied_;
  std::array<uint64_t, kRegisters> registers_{};
  std::vector<uint64_t> sequences_;  // newest applied, by client
  bool clock_lease_ = false;
};

}  // namespace conclave::sim
