// OperatorCheck: what operators do to sessions and their claims (sim/session_operator.h), held against the one history:
// nothing is ended by decision, and nobody asked to release, but as an operator asked; whoever loses a claim that was
// forced is told so, and by whose words. PrimitivesCheck asks it which ends were decided.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "client/session_core.h"
#include "sim/node_check.h"

namespace conclave::sim {

class OperatorCheck {
 public:
  explicit OperatorCheck(NodeCheck& check) : check_(check) {}

  // --- What operators ask: each may happen from now on, or never.
  void note_kill(int64_t session) { kills_.insert(session); }
  void note_force(const std::string& name, int64_t token, const std::string& reason) {
    forces_[{name, token}].insert(reason);
  }
  void note_request(const std::string& name, const std::string& note) { requests_.insert({name, note}); }

  // --- The history.
  void on_command(const NodeCheck::Commanded& command);
  // The command that was told last kills sessions: their time is not over.
  [[nodiscard]] bool is_kill() const { return is_kill_; }
  [[nodiscard]] bool is_force_asked(const std::string& name, int64_t token) const {
    return forces_.contains({name, token});
  }

  // --- What clients are told.
  void check_lost(int64_t session, const client::ClaimLost& lost);
  void check_wanted(int64_t session, const client::ReleaseWanted& wanted);

  [[nodiscard]] uint64_t killed() const { return killed_; }
  [[nodiscard]] uint64_t forced() const { return forced_.size(); }
  [[nodiscard]] uint64_t told_forced() const { return told_forced_; }

 private:
  using Claim = std::pair<std::string, int64_t>;  // name and token

  NodeCheck& check_;
  std::set<int64_t> kills_;
  std::map<Claim, std::set<std::string>> forces_;  // with the reasons
  std::set<std::pair<std::string, std::string>> requests_;
  std::map<Claim, std::string> forced_;                // with the reason
  std::set<std::pair<Claim, std::string>> requested_;  // with the note
  bool is_kill_ = false;
  uint64_t killed_ = 0;
  uint64_t told_forced_ = 0;
};

}  // namespace conclave::sim
