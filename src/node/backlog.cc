#include "node/backlog.h"

#include <algorithm>

namespace conclave::node {

void Backlog::note_proposed(Instant now, Term term, LogIndex last, size_t bytes) {
  if (term_ != term) *this = Backlog();
  term_ = term;
  bytes_ += bytes;
  if (proposed_.empty() || now - proposed_.back().at >= kGrain) {
    proposed_.push_back({.at = now, .last = last});
  } else {
    proposed_.back().last = last;
  }
}

void Backlog::note_applied(Term term, LogIndex index, size_t bytes) {
  if (term != term_) return;
  bytes_ -= std::min(bytes_, bytes);
  while (!proposed_.empty() && proposed_.front().last <= index) proposed_.pop_front();
}

Duration Backlog::age(Instant now, Term term) const {
  return term != term_ || proposed_.empty() ? Duration::zero() : now - proposed_.front().at;
}

}  // namespace conclave::node
