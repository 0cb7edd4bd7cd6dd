#include "node/follower_lag.h"

namespace conclave::node {
namespace {

// Told more often than a leader does, what comes between is passed over: this bounds what is kept.
constexpr Duration kToldApart = kAppliedToldEvery / 5;

}  // namespace

void FollowerLag::note(Instant now, Term term, LogIndex leader_applied) {
  if (term != term_) {
    term_ = term;
    told_.clear();
  }
  while (told_.size() >= 2 && told_[1].at + kLagAfter <= now) told_.pop_front();
  if (!told_.empty() && (leader_applied <= told_.back().index || now < told_.back().at + kToldApart)) return;
  told_.push_back({.at = now, .index = leader_applied});
}

bool FollowerLag::is_lagging(Instant now, Term term, LogIndex applied) const {
  if (term != term_) return false;
  for (const Told& told : told_) {
    if (told.at + kLagAfter > now) return false;
    if (told.index > applied) return true;
  }
  return false;
}

}  // namespace conclave::node
