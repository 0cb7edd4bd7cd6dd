#include "wal/group_state.h"

#include <algorithm>

#include "base/assert.h"

namespace conclave::wal {

void GroupState::truncate(LogIndex from) {
  if (from > last.index) return;
  while (!terms.empty() && terms.back().first >= from) terms.pop_back();
  last.index = from.prev();
  last.term = term_at(last.index);
}

void GroupState::extend(LogIndex first, uint64_t count, Term term) {
  if (count == 0) return;
  truncate(first);
  if (terms.empty() || terms.back().term != term) terms.push_back({.first = first, .term = term});
  last = {.term = term, .index = first + (count - 1)};
}

Term GroupState::term_at(LogIndex index) const {
  if (index == mark.index) return mark.term;
  if (index > last.index) return {};
  const auto after = std::ranges::upper_bound(terms, index, {}, &TermRow::first);
  return after == terms.begin() ? Term() : std::prev(after)->term;
}

bool GroupState::has_passed(const Position& snapshot) const {
  if (snapshot.index > last.index) return false;
  return snapshot.index <= std::max(mark.index, commit) || term_at(snapshot.index) == snapshot.term;
}

void GroupState::doubt(Certainty why) {
  // Of two reasons the graver stays: a lost vote is more than a lost position.
  if (certainty == Certainty::kCertain) doubted = vote.incarnation;
  if (certainty == Certainty::kCertain || why > certainty) certainty = why;
}

void GroupState::forget_old_terms() {
  size_t unneeded = 0;
  while (unneeded + 1 < terms.size() && terms[unneeded + 1].first <= released) ++unneeded;
  terms.erase(terms.begin(), terms.begin() + static_cast<ptrdiff_t>(unneeded));
}

void GroupState::apply(const Change& change) {
  switch (change.kind) {
    case ChangeKind::kEntries:
      extend(change.index, change.count, change.term);
      return;
    case ChangeKind::kTruncate:
      truncate(change.index);
      return;
    case ChangeKind::kVote:
      vote = {.term = change.term,
              .candidate = change.candidate,
              .incarnation = change.incarnation,
              .promises = change.promises};
      if (certainty != Certainty::kCertain && vote.incarnation > doubted) {
        certainty = Certainty::kCertain;
        doubted = Incarnation();
      }
      return;
    case ChangeKind::kSnapshot:
      mark = {.term = change.term, .index = change.index};
      membership.assign(change.bytes);
      return;
    case ChangeKind::kInstall:
      mark = {.term = change.term, .index = change.index};
      membership.assign(change.bytes);
      terms.assign(1, {.first = change.index, .term = change.term});
      last = mark;
      released = change.index;
      commit = std::max(commit, change.index);
      return;
    case ChangeKind::kRelease:
      released = std::max(released, change.index);
      forget_old_terms();
      return;
    case ChangeKind::kCommit:
      commit = std::max(commit, change.index);
      if (!change.bytes.empty()) floors.assign(change.bytes);
      return;
    case ChangeKind::kFill:
    case ChangeKind::kConfiguration:
      return;
  }
}

}  // namespace conclave::wal
