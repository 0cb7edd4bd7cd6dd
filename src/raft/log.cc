#include "raft/log.h"

#include <algorithm>

#include "base/assert.h"

namespace conclave::raft {

Log::Log(Recovered&& recovered) {
  const Position snapshot = recovered.snapshot.last;
  start_ = snapshot;
  std::vector<Entry>& entries = recovered.entries;
  size_t begin = 0;
  if (!entries.empty()) {
    ASSERT_CMP(entries.front().index, <=, snapshot.index.next());
    // Where a hole lies at or below the snapshot, or the term before the first entry is not known, what the snapshot
    // covers is dropped: a hole there is none.
    bool hole_below = false;
    for (const Entry& entry : entries) {
      if (entry.index > snapshot.index) break;
      hole_below = hole_below || entry.type == EntryType::kHole;
    }
    while (begin < entries.size() && hole_below && entries[begin].index <= snapshot.index) ++begin;
    if (begin == 0 && entries.front().index <= snapshot.index) {
      // The first entry serves as the known place before the others.
      start_ = {.term = entries.front().term, .index = entries.front().index};
      begin = 1;
    }
  }
  for (size_t i = begin; i < entries.size(); ++i) {
    Entry& entry = entries[i];
    ASSERT_CMP(entry.index, ==, last_index().next());
    if (i + 1 == entries.size() && entry.type == EntryType::kHole) entry.term = recovered.last.term;
    if (entry.type == EntryType::kHole) {
      if (!gaps_.empty() && gaps_.back().to.next() == entry.index) {
        gaps_.back().to = entry.index;
      } else {
        gaps_.push_back({.from = entry.index, .to = entry.index});
      }
    }
    entries_.push_back(std::move(entry));
  }
  ASSERT_CMP(last_index(), ==, std::max(recovered.last.index, start_.index));
  // Terms never fall along the log: between two equal ones there is no other.
  Term next;
  for (size_t i = entries_.size(); i-- > 0;) {
    if (entries_[i].term.value() != 0) {
      next = entries_[i].term;
      continue;
    }
    size_t before = i;
    while (before > 0 && entries_[before - 1].term.value() == 0) --before;
    const Term known = before == 0 ? start_.term : entries_[before - 1].term;
    if (known == next) entries_[i].term = known;
  }
}

Position Log::last() const {
  return entries_.empty() ? start_ : Position{.term = entries_.back().term, .index = entries_.back().index};
}

Term Log::term_at(LogIndex index) const {
  if (index == start_.index) return start_.term;
  return entry(index).term;
}

const Entry& Log::entry(LogIndex index) const {
  ASSERT_CMP(index, >, start_.index);
  ASSERT_CMP(index, <=, last_index());
  return entries_[slot(index)];
}

bool Log::matches(Position place) const {
  return place.index >= start_.index && place.index <= contiguous_last() && term_at(place.index) == place.term;
}

Position Log::last_at_or_before(LogIndex at, Term term) const {
  // Terms never fall along the log: a binary search over its contiguous part.
  uint64_t low = start_.index.value();
  uint64_t high = std::max(std::min(at, contiguous_last()), start_.index).value();
  while (low < high) {
    const uint64_t middle = low + (high - low + 1) / 2;
    if (term_at(LogIndex(middle)) <= term) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return position_at(LogIndex(low));
}

EntrySlices Log::slices(LogIndex from, size_t count) const {
  if (count == 0) return {};
  ASSERT_CMP(from, >, start_.index);
  return EntrySlices(entries_.slices(slot(from), count));
}

size_t Log::count_within(LogIndex from, size_t entries_max, size_t bytes_max) const {
  size_t count = 0;
  size_t bytes = 0;
  const LogIndex end = contiguous_last();
  for (LogIndex at = from; at <= end && count < entries_max; ++at) {
    bytes += entry(at).payload.size();
    if (count > 0 && bytes > bytes_max) break;
    ++count;
  }
  return count;
}

Position Log::proof_of_first_gap() const {
  ASSERT(has_gap());
  LogIndex at = gaps_.front().from;
  while (term_at(at).value() == 0) ++at;
  return position_at(at);
}

void Log::append(Entry entry) {
  ASSERT_CMP(entry.index, ==, last_index().next());
  ASSERT_CMP(entry.term, >=, last().term);
  ASSERT(entry.type != EntryType::kHole);
  entries_.push_back(std::move(entry));
}

void Log::truncate_from(LogIndex index) {
  ASSERT_CMP(index, >, start_.index);
  while (last_index() >= index) entries_.pop_back();
  // A gap with nothing behind it is a gap only as far as it has places.
  while (!gaps_.empty() && gaps_.back().from >= index) gaps_.pop_back();
  if (!gaps_.empty() && gaps_.back().to >= index) gaps_.back().to = index.prev();
}

void Log::fill_first(Entry entry) {
  ASSERT(has_gap());
  Gap& gap = gaps_.front();
  ASSERT_CMP(gap.from, <=, gap.to);
  ASSERT_CMP(gap.from, ==, entry.index);
  ASSERT(entry.type != EntryType::kHole);
  entries_[slot(entry.index)] = std::move(entry);
  ++gap.from;
  // Nothing behind: nothing left to prove.
  if (gap.from > last_index()) gaps_.erase(gaps_.begin());
}

void Log::prove_first() {
  ASSERT(has_gap());
  ASSERT(gaps_.front().from > gaps_.front().to);
  gaps_.erase(gaps_.begin());
}

void Log::doubt_first() {
  if (entries_.empty() || (has_gap() && gaps_.front().from == first_index())) return;
  gaps_.insert(gaps_.begin(), {.from = first_index(), .to = start_.index});
}

void Log::mark_hole(LogIndex from, LogIndex to) {
  from = std::max(from, first_index());
  to = std::min(to, last_index());
  if (from > to) return;
  for (LogIndex at = from; at <= to; ++at) {
    Entry& entry = entries_[slot(at)];
    entry.type = EntryType::kHole;
    entry.payload = {};
  }
  gaps_.push_back({.from = from, .to = to});
  std::ranges::sort(gaps_, {}, &Gap::from);
  std::vector<Gap> merged;
  for (const Gap& gap : gaps_) {
    if (!merged.empty() && gap.from <= merged.back().to.next()) {
      merged.back().to = std::max(merged.back().to, gap.to);
    } else {
      merged.push_back(gap);
    }
  }
  gaps_ = std::move(merged);
}

void Log::start_after(Position place) {
  if (place.index <= start_.index) return;
  while (!entries_.empty() && entries_.front().index <= place.index) entries_.pop_front();
  start_ = place;
  while (!gaps_.empty() && gaps_.front().to <= place.index && gaps_.front().from <= place.index)
    gaps_.erase(gaps_.begin());
  if (!gaps_.empty() && gaps_.front().from <= place.index) gaps_.front().from = place.index.next();
}

}  // namespace conclave::raft
