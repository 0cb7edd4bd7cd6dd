// What must hold of every state of a replica, and of the step between two states. The simulator and every test check it
// after each step; figure 3.2 of the dissertation for what concerns one server, and what this core adds.
#pragma once

#include <string>

#include "raft/raft.h"

namespace conclave::raft {

class Invariants {
 public:
  // What is remembered of a state to judge the next one.
  struct State {
    Role role = Role::kFollower;
    Vote vote;
    Position last;
    LogIndex commit;
    Term commit_term;  // zero: not in the log any more
    LogIndex durable;
    SnapshotMark snapshot;
    WriteSequence last_write;
    bool started = false;
  };
  [[nodiscard]] static State capture(const Raft& raft);
  // The first violation in words, or empty.
  [[nodiscard]] static std::string check(const Raft& raft);
  [[nodiscard]] static std::string check_step(const State& before, const Raft& raft, const Output& output);
};

}  // namespace conclave::raft
