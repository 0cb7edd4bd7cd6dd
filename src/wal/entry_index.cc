#include "wal/entry_index.h"

#include <algorithm>

namespace conclave::wal {

void EntryIndex::append(LogIndex first, uint64_t count, const BatchPlace& place) {
  truncate(first);
  if (count > 0) runs_.push_back({.first = first, .count = count, .place = place});
}

void EntryIndex::fill(LogIndex index, const BatchPlace& place) {
  fills_[index] = place;
}

void EntryIndex::truncate(LogIndex from) {
  while (!runs_.empty() && runs_.back().first >= from) runs_.pop_back();
  if (!runs_.empty()) runs_.back().count = std::min(runs_.back().count, from - runs_.back().first);
  fills_.erase(fills_.lower_bound(from), fills_.end());
}

void EntryIndex::release(LogIndex through) {
  while (!runs_.empty() && runs_.front().first + runs_.front().count <= through.next()) runs_.pop_front();
  fills_.erase(fills_.begin(), fills_.upper_bound(through));
}

void EntryIndex::clear() {
  runs_.clear();
  fills_.clear();
}

void EntryIndex::join(EntryIndex&& behind) {
  runs_.insert(runs_.end(), behind.runs_.begin(), behind.runs_.end());
  fills_.merge(behind.fills_);
  behind.clear();
}

std::optional<BatchPlace> EntryIndex::find(LogIndex index) const {
  if (const auto filled = fills_.find(index); filled != fills_.end()) return filled->second;
  const auto after = std::ranges::upper_bound(runs_, index, {}, &Run::first);
  if (after == runs_.begin()) return std::nullopt;
  const Run& run = *std::prev(after);
  if (index - run.first >= run.count) return std::nullopt;
  return run.place;
}

std::optional<uint64_t> EntryIndex::oldest_sequence() const {
  std::optional<uint64_t> oldest;
  if (!runs_.empty()) oldest = runs_.front().place.sequence;
  for (const auto& [index, place] : fills_) oldest = oldest ? std::min(*oldest, place.sequence) : place.sequence;
  return oldest;
}

}  // namespace conclave::wal
