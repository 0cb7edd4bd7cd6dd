// LeaderCheck: what observers of elections are shown (client::LeaderSeen), held against the one history: leaders come
// in order, each with the value it had then, none is left out and no vacancy, unless it is said that there may have
// been others between; and at the end each observer has seen the last of it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "client/session_core.h"
#include "sim/claim_history.h"
#include "sim/node_check.h"

namespace conclave::sim {

class LeaderCheck {
 public:
  LeaderCheck(NodeCheck& check, const ClaimHistory& claims) : check_(check), claims_(claims) {}

  void note_observing(int64_t session, const std::string& name) { places_[{session, name}] = {}; }
  void note_stopped(int64_t session, const std::string& name) { places_.erase({session, name}); }
  void note_gone(int64_t session);
  // Before it saw anything.
  void note_renamed(int64_t session, int64_t renamed);
  void note_seen(int64_t session, const client::LeaderSeen& seen);

  // Of an observer that has not seen who leads, or that nobody does; empty if there is none.
  [[nodiscard]] std::string who_is_behind() const;
  [[nodiscard]] uint64_t leaders_seen() const { return leaders_; }
  [[nodiscard]] uint64_t vacancies_seen() const { return vacancies_; }
  [[nodiscard]] uint64_t skips() const { return skips_; }

 private:
  static constexpr size_t kNothing = SIZE_MAX;
  struct Place {
    size_t at = kNothing;  // among the owners of the name
  };

  NodeCheck& check_;
  const ClaimHistory& claims_;
  std::map<std::pair<int64_t, std::string>, Place> places_;
  uint64_t leaders_ = 0;
  uint64_t vacancies_ = 0;
  uint64_t skips_ = 0;
};

}  // namespace conclave::sim
