// CandidateCheck: who is elected, held against the one history. Where nobody stands in line, or who led goes and nobody
// else does, the best candidate gets the claim: by priority, then by age. The command of an election says up to which
// revision it was looked who stands in line; who was a candidate before that revision and is one yet was looked at.
//
// It says nothing of who is bound behind others, of whom a leader named, and of who came since the look.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "sim/node_check.h"

namespace conclave::sim {

class CandidateCheck {
 public:
  explicit CandidateCheck(NodeCheck& check) : check_(check) {}

  // `revision`: of the state before it. `is_transfer`: whoever leads named the next.
  void on_command(const NodeCheck::Commanded& command, int64_t revision, bool is_transfer);

  // Elections, and candidates who were passed over by right.
  [[nodiscard]] uint64_t elections() const { return elections_; }
  [[nodiscard]] uint64_t passed_over() const { return passed_over_; }
  // Who was bound behind others and became a candidate again.
  [[nodiscard]] uint64_t returned() const { return returned_; }

 private:
  struct Candidate {
    int32_t priority = 0;
    uint64_t since = 0;    // the command that made it one
    int64_t revision = 0;  // of the state with its record
  };

  void check_elected(const std::string& name, int64_t session, int64_t looked_at);

  NodeCheck& check_;
  std::map<std::string, std::map<int64_t, Candidate>> candidates_;  // by name and session
  std::map<std::pair<std::string, int64_t>, Candidate> was_;        // what it was when its record went
  uint64_t commands_ = 0;
  uint64_t elections_ = 0;
  uint64_t passed_over_ = 0;
  uint64_t returned_ = 0;
};

}  // namespace conclave::sim
