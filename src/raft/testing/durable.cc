#include "raft/testing/durable.h"

#include <algorithm>

namespace conclave::raft {
namespace {

std::vector<Entry> copy(const EntrySlices& slices) {
  std::vector<Entry> entries;
  entries.reserve(slices.size());
  for (size_t i = 0; i < slices.size(); ++i) entries.push_back(slices[i]);
  return entries;
}

}  // namespace

OwnedWrite::OwnedWrite(const Write& write)
    : sequence(write.sequence),
      vote(write.vote),
      entries(copy(write.entries)),
      fills(copy(write.fills)),
      snapshot(write.snapshot),
      discard_log(write.discard_log),
      keep_from(write.keep_from),
      commit(write.commit) {}

Durable Durable::bootstrap(GroupId group, NodeId self, const Membership& membership) {
  Durable durable;
  durable.group = group;
  durable.snapshot.membership = membership;
  durable.vote.incarnation = membership.incarnation_of(self);
  return durable;
}

void Durable::apply(const OwnedWrite& write) {
  if (write.discard_log) entries.clear();
  if (!write.entries.empty()) {
    entries.erase(entries.lower_bound(write.entries.front().index), entries.end());
    for (const Entry& entry : write.entries) entries[entry.index] = entry;
  }
  for (const Entry& entry : write.fills) entries[entry.index] = entry;
  if (write.snapshot) {
    snapshot = *write.snapshot;
    entries.erase(entries.begin(), entries.lower_bound(write.keep_from));
  }
  if (write.vote) vote = *write.vote;
  commit = std::max(commit, write.commit);
}

Recovered Durable::recover(const std::vector<LogIndex>& holes, bool keep_terms) const {
  Recovered recovered{.group = group,
                      .certainty = vote.incarnation.value() == 0 ? Certainty::kEmpty : Certainty::kCertain,
                      .vote = vote,
                      .snapshot = snapshot,
                      .last = snapshot.last,
                      .commit = commit,
                      .floors = floors};
  for (const auto& [index, entry] : entries) {
    recovered.entries.push_back(entry);
    if (std::ranges::find(holes, index) != holes.end()) {
      recovered.entries.back().type = EntryType::kHole;
      recovered.entries.back().payload = {};
      if (!keep_terms) recovered.entries.back().term = Term();
    }
    if (index >= recovered.last.index) recovered.last = {.term = entry.term, .index = index};
  }
  return recovered;
}

}  // namespace conclave::raft
