#include "sim/raft_history.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include <fmt/format.h>

namespace conclave::sim {
namespace {

std::string name_of(const Operation& operation) {
  return fmt::format("{} {} of client {}", operation.is_read ? "read" : "write", operation.command.sequence,
                     operation.command.client);
}

// No operation may stand before one that had returned when it was called.
std::string judge_real_time(const std::vector<Operation>& operations, const HistoryOptions& options) {
  std::vector<const Operation*> by_call;
  for (const Operation& each : operations) {
    if (each.outcome == Outcome::kDone && (!each.is_read || options.real_time_reads)) by_call.push_back(&each);
  }
  std::vector<const Operation*> by_return = by_call;
  // Ties in the order of the history: the pointers are into one array. (Not stable_sort: its buffer is deprecated.)
  std::ranges::sort(by_call, {}, [](const Operation* each) { return std::pair(each->called, each); });
  std::ranges::sort(by_return, {}, [](const Operation* each) { return std::pair(each->returned, each); });
  size_t over = 0;
  const Operation* highest = nullptr;
  for (const Operation* each : by_call) {
    for (; over < by_return.size() && by_return[over]->returned < each->called; ++over) {
      if (highest == nullptr || by_return[over]->index > highest->index) highest = by_return[over];
    }
    if (highest == nullptr) continue;
    // A write has an index of its own; a read may show what another operation showed.
    const bool behind = each->is_read ? each->index < highest->index : each->index <= highest->index;
    if (behind) {
      return fmt::format("{} stands at index {}, but {}, which had returned before it was called, stands at {}",
                         name_of(*each), each->index, name_of(*highest), highest->index);
    }
  }
  return {};
}

}  // namespace

std::string judge(const std::vector<Operation>& operations, const std::vector<Entry>& committed,
                  const HistoryOptions& options) {
  using CommandId = std::pair<uint32_t, uint64_t>;
  std::vector<const Operation*> done;
  std::map<CommandId, const Operation*> writes;
  for (const Operation& each : operations) {
    if (!each.is_read) {
      const bool first = writes.emplace(CommandId{each.command.client, each.command.sequence}, &each).second;
      if (!first) return fmt::format("{} was called twice", name_of(each));
    }
    if (each.outcome == Outcome::kDone) done.push_back(&each);
  }
  // At one index the write comes first.
  std::ranges::sort(done, {}, [](const Operation* each) { return std::tuple(each->index, each->is_read, each); });
  RegisterMachine machine;
  size_t at = 0;
  std::map<CommandId, LogIndex> effects;
  const auto judge_reads = [&]() -> std::string {
    for (; at < done.size() && done[at]->index == machine.applied(); ++at) {
      const Operation& each = *done[at];
      if (!each.is_read) return fmt::format("{} claims index {}, which is not its own", name_of(each), each.index);
      if (machine.value(each.command.place) != each.value) {
        return fmt::format("{} at index {} gave {} of register {}, which held {}", name_of(each), each.index,
                           each.value, each.command.place, machine.value(each.command.place));
      }
    }
    return {};
  };
  if (std::string wrong = judge_reads(); !wrong.empty()) return wrong;
  for (const Entry& entry : committed) {
    const ApplyResult result = machine.apply(entry);
    const Result<Command> command =
        entry.type == EntryType::kCommand ? decode_command(entry.payload.view()) : fail(ErrorCode::kMalformed, "none");
    if (command && result.effective) {
      const CommandId id{command->client, command->sequence};
      if (const auto [known, first] = effects.emplace(id, entry.index); !first) {
        return fmt::format("command {} of client {} took effect at {} and at {}", id.second, id.first, known->second,
                           entry.index);
      }
      if (const auto write = writes.find(id); write != writes.end()) {
        if (!(write->second->command == *command)) {
          return fmt::format("{} took effect as another command", name_of(*write->second));
        }
        if (write->second->outcome == Outcome::kRefused) {
          return fmt::format("{} was refused for good, and took effect at {}", name_of(*write->second), entry.index);
        }
      }
    }
    if (at < done.size() && done[at]->index == entry.index && !done[at]->is_read) {
      const Operation& write = *done[at++];
      if (!command || !(*command == write.command)) {
        return fmt::format("{} was answered with index {}, where another entry stands", name_of(write), entry.index);
      }
      if (!(result == write.result) || !result.effective) {
        return fmt::format("{} was answered with another result than index {} has", name_of(write), entry.index);
      }
    }
    if (std::string wrong = judge_reads(); !wrong.empty()) return wrong;
  }
  if (at < done.size()) {
    return fmt::format("{} was answered with index {}, but only {} are committed", name_of(*done[at]), done[at]->index,
                       committed.size());
  }
  return judge_real_time(operations, options);
}

}  // namespace conclave::sim
