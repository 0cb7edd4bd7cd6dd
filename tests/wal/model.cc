#include "tests/wal/model.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

namespace conclave::wal {

void Model::append(GroupId group, const Entry& entry) {
  ModelGroup& model = groups[group.value()];
  model.entries.erase(model.entries.lower_bound(entry.index.value()), model.entries.end());
  model.entries[entry.index.value()] = entry;
  model.last = {.term = entry.term, .index = entry.index};
}

void Model::truncate(GroupId group, LogIndex from) {
  ModelGroup& model = groups[group.value()];
  if (from > model.last.index) return;
  model.entries.erase(model.entries.lower_bound(from.value()), model.entries.end());
  model.last.index = from.prev();
  const auto at = model.entries.find(model.last.index.value());
  if (at != model.entries.end()) {
    model.last.term = at->second.term;
  } else {
    model.last.term = model.mark.last.index == model.last.index ? model.mark.last.term : Term();
  }
}

void Model::install(GroupId group, const SnapshotMark& mark) {
  ModelGroup& model = groups[group.value()];
  model.entries.clear();
  model.mark = mark;
  model.last = mark.last;
  model.released = mark.last.index;
  model.commit = std::max(model.commit, mark.last.index);
}

void Model::release(GroupId group, LogIndex through) {
  ModelGroup& model = groups[group.value()];
  model.released = std::max(model.released, through);
  model.entries.erase(model.entries.begin(), model.entries.upper_bound(through.value()));
}

void Model::commit(GroupId group, LogIndex index, const std::vector<Floor>& floors) {
  ModelGroup& model = groups[group.value()];
  model.commit = std::max(model.commit, index);
  if (!floors.empty()) model.floors = floors;
}

Model as_model(const Recovery& recovery) {
  Model model;
  for (const Recovered& recovered : recovery.groups) {
    ModelGroup& group = model.groups[recovered.group.value()];
    for (const Entry& entry : recovered.entries) group.entries[entry.index.value()] = entry;
    group.vote = recovered.vote;
    group.mark = recovered.snapshot;
    group.last = recovered.last;
    group.commit = recovered.commit;
    group.floors = recovered.floors;
  }
  return model;
}

std::string difference(const Model& expected, const Model& found) {
  for (const auto& [id, group] : expected.groups) {
    const auto at = found.groups.find(id);
    // A group nothing was ever written of.
    if (at == found.groups.end() && group == ModelGroup{}) continue;
    if (at == found.groups.end()) return fmt::format("group {} is missing", id);
    const ModelGroup& other = at->second;
    if (group.vote != other.vote) return fmt::format("group {}: vote differs", id);
    if (group.mark != other.mark) return fmt::format("group {}: mark differs", id);
    if (group.last != other.last) {
      return fmt::format("group {}: last is {}/{}, should be {}/{}", id, other.last.term, other.last.index,
                         group.last.term, group.last.index);
    }
    if (group.commit != other.commit)
      return fmt::format("group {}: commit is {}, should be {}", id, other.commit, group.commit);
    if (group.floors != other.floors) return fmt::format("group {}: floors differ", id);
    for (const auto& [index, entry] : group.entries) {
      const auto entry_at = other.entries.find(index);
      if (entry_at == other.entries.end()) return fmt::format("group {}: entry {} is missing", id, index);
      if (!(entry_at->second == entry)) return fmt::format("group {}: entry {} differs", id, index);
    }
    if (group.entries.size() != other.entries.size()) return fmt::format("group {}: too many entries", id);
  }
  for (const auto& [id, group] : found.groups) {
    if (!expected.groups.contains(id)) return fmt::format("group {} should not be there", id);
  }
  return {};
}

SharedBytes History::payload() {
  // Few are large, so that records lie in one sector, across two, and over many.
  const size_t size = random_.below(random_.chance(1, 6) ? options_.payload_max + 1 : options_.payload_max / 4 + 1);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random_.below(256));
  return SharedBytes::copy_of(bytes);
}

void History::operation(GroupId group, Batch& batch, Model& model) {
  ModelGroup& state = model.groups[group.value()];
  const auto term_now = std::max(state.last.term, state.vote.term);
  const auto entry_at = [&](LogIndex index, Term term) {
    Entry entry{.index = index, .term = term, .type = EntryType::kCommand, .payload = payload()};
    if (random_.chance(1, 8)) entry.type = EntryType::kNoop;
    if (random_.chance(1, 8)) {
      entry.type = EntryType::kConfiguration;
      const std::array ids = {NodeId(1), NodeId(2), NodeId(3 + random_.below(5))};
      std::string membership;
      Membership::of_voters(ids).encode(membership);
      entry.payload = SharedBytes::copy_of(membership);
    }
    return entry;
  };
  const auto append = [&](LogIndex index, Term term) {
    const Entry entry = entry_at(index, term);
    batch.append(group, entry);
    model.append(group, entry);
  };
  const Term term = term_now.value() == 0 ? Term(1) : term_now;
  static constexpr std::array<uint32_t, 9> kWeights = {40, 8, 8, 8, 6, 3, 6, 6, 10};
  switch (random_.weighted(kWeights)) {
    case 0:
      for (uint64_t i = random_.between(1, 3); i > 0; --i) append(state.last.index.next(), term);
      return;
    case 1: {
      const Vote vote{.term = term.next(),
                      .candidate = NodeId(random_.below(4)),
                      .incarnation = Incarnation(1),
                      .promises = random_.coin()};
      batch.vote(group, vote);
      model.vote(group, vote);
      return;
    }
    case 2: {
      // A conflict: a new leader's entries over ours, never over what is committed.
      if (state.last.index <= state.commit || state.last.index <= state.released)
        return append(state.last.index.next(), term);
      const uint64_t from =
          random_.between(std::max(state.commit, state.released).value() + 1, state.last.index.value());
      return append(LogIndex(from), term.next());
    }
    case 3: {
      if (state.last.index <= state.commit || state.last.index <= state.released.next()) return;
      const LogIndex from(
          random_.between(std::max(state.commit, state.released).value() + 1, state.last.index.value()));
      if (from.prev() <= state.released) return;
      batch.truncate(group, from);
      model.truncate(group, from);
      // What comes next is of a later term: no term has two entries at one index.
      const Vote vote{.term = term.next(), .incarnation = Incarnation(1)};
      batch.vote(group, vote);
      model.vote(group, vote);
      return;
    }
    case 4: {
      if (state.commit.value() == 0 || !state.entries.contains(state.commit.value())) return;
      const std::array ids = {NodeId(1), NodeId(2), NodeId(3)};
      const SnapshotMark mark{.last = {.term = state.entries[state.commit.value()].term, .index = state.commit},
                              .membership = Membership::of_voters(ids)};
      batch.snapshot(group, mark);
      model.snapshot(group, mark);
      return;
    }
    case 5: {
      const std::array ids = {NodeId(1), NodeId(2), NodeId(4)};
      const SnapshotMark mark{.last = {.term = term, .index = state.last.index + random_.between(1, 5)},
                              .membership = Membership::of_voters(ids)};
      batch.install(group, mark);
      model.install(group, mark);
      return;
    }
    case 6: {
      if (state.mark.last.index <= state.released.next()) return;
      const LogIndex through(random_.between(state.released.value() + 1, state.mark.last.index.value() - 1));
      batch.release(group, through);
      model.release(group, through);
      return;
    }
    case 7: {
      // As if it had been a hole: what is written is what stands there, so the model stays as it is.
      if (state.entries.empty()) return;
      auto filled = state.entries.begin();
      std::advance(filled, random_.below(state.entries.size()));
      batch.fill(group, filled->second);
      return;
    }
    default: {
      if (state.last.index.value() == 0) return;
      const LogIndex index(random_.between(std::min(state.commit, state.last.index).value(), state.last.index.value()));
      std::vector<Floor> floors;
      if (random_.coin()) {
        floors.push_back(
            {.node = NodeId(2), .incarnation = Incarnation(1), .term = term, .last = {.term = term, .index = index}});
      }
      batch.commit(group, index, floors);
      model.commit(group, index, floors);
      return;
    }
  }
}

void History::next(Batch& batch, Model& model) {
  batch.clear();
  while (batch.empty()) {
    for (uint64_t i = random_.between(1, options_.operations_max); i > 0; --i) {
      operation(GroupId(random_.between(1, options_.groups)), batch, model);
    }
  }
}

}  // namespace conclave::wal
