// Messages, writes and states as short text: for traces of scripts, for the log of a failed simulation.
#pragma once

#include <string>

#include "raft/message.h"
#include "raft/raft.h"
#include "raft/step.h"

namespace conclave::raft {

[[nodiscard]] std::string describe(Position place);              // "2:7", term:index
[[nodiscard]] std::string describe(const EntrySlices& entries);  // "[5..7 t2]"
[[nodiscard]] std::string describe(const Message& message);      // "1->2 t3 append prev 2:7 commit 5 round 4 [8..9 t3]"
[[nodiscard]] std::string describe(const Write& write);
[[nodiscard]] std::string describe(const Status& status);

}  // namespace conclave::raft
