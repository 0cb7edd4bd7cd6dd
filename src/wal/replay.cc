#include "wal/replay.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/mark.h"
#include "wal/record.h"
#include "wal/sector.h"

namespace conclave::wal {
namespace {

// The newest index up to which both logs are the same, by log matching; `none` if the told rows do not reach that far
// down.
LogIndex matching_index(const GroupState& ours, const GroupState& told, bool& known) {
  known = true;
  LogIndex at = std::min(ours.last.index, told.last.index);
  while (at.value() > 0) {
    const Term theirs = told.term_at(at);
    if (theirs.value() == 0) {
      known = !told.terms_cut;
      return at;
    }
    const Term term = ours.term_at(at);
    if (term == theirs) return at;
    // Down to where the row of the later term begins: nothing between can agree.
    LogIndex next = at;
    for (const GroupState* state : {&ours, &told}) {
      if (state->term_at(at) != std::max(term, theirs)) continue;
      const auto after = std::ranges::upper_bound(state->terms, at, {}, &TermRow::first);
      if (after != state->terms.begin()) next = std::min(next, std::prev(after)->first);
    }
    at = std::min(at, next).prev();
  }
  return at;
}

}  // namespace

ReplayedGroup& Replay::group(GroupId id) {
  auto [at, fresh] = groups_.try_emplace(id);
  if (fresh) {
    at->second.state.group = id;
    at->second.start = LogIndex(1);
    at->second.in_gap = unknown_groups_;
  }
  return at->second;
}

void Replay::note(uint32_t from_sector, uint32_t to_sector, std::string what) {
  findings_.push_back({.sequence = plan_.sequence,
                       .slot = plan_.use.slot,
                       .from_sector = from_sector,
                       .to_sector = to_sector,
                       .what = std::move(what)});
}

void Replay::begin_segment(const SegmentPlan& plan, std::span<const Doubt> doubts, bool all_uncertain) {
  plan_ = plan;
  for (const Doubt& doubt : doubts) {
    GroupState& state = group(doubt.group).state;
    state.doubt(doubt.certainty);
    state.doubted = doubt.doubted;
  }
  if (!all_uncertain) return;
  unknown_groups_ = true;
  for (auto& [id, replayed] : groups_) replayed.state.doubt(Certainty::kVoteUncertain);
}

void Replay::on_gap(uint32_t from_sector, uint32_t to_sector) {
  if (lost_bytes_ == 0 && lost_sequence_ == 0) lost_sequence_ = plan_.sequence;
  lost_bytes_ += uint64_t{to_sector - from_sector} * kSectorBytes;
  note(from_sector, to_sector, "acknowledged batches that cannot be read");
  unknown_groups_ = true;
  for (auto& [id, replayed] : groups_) replayed.in_gap = true;
}

void Replay::drop_from(ReplayedGroup& group, LogIndex from) {
  if (from <= group.start) {
    group.entries.clear();
    group.start = from;
  } else if (from - group.start < group.entries.size()) {
    group.entries.resize(from - group.start);
  }
  group.holes.erase(group.holes.lower_bound(from), group.holes.end());
  group.index.truncate(from);
}

// Each lost entry was a record in lost bytes.
bool Replay::pay_for_holes(LogIndex from, LogIndex to) {
  if (to - from >= lost_bytes_ / kRecordHeaderBytes) return false;
  lost_bytes_ -= (to - from + 1) * kRecordHeaderBytes;
  return true;
}

void Replay::add_holes(ReplayedGroup& group, LogIndex from, LogIndex to) {
  if (to < from) return;
  if (!pay_for_holes(from, to)) {
    if (status_) {
      status_ = fail(ErrorCode::kMalformed, "group {}: entries {} to {} are lost, more than the lost bytes could hold",
                     group.state.group, from, to);
    }
    return;
  }
  list_holes(group, from, to);
}

void Replay::list_holes(ReplayedGroup& group, LogIndex from, LogIndex to) {
  // The segment of the first lost bytes stays as long as these entries are neither released nor written again: the
  // next start is to know of them by the same account.
  group.index.append(from, to - from + 1, {.sequence = lost_sequence_});
  for (LogIndex index = from; index <= to; ++index) {
    const Term term = group.state.term_at(index);
    put(group, Entry{.index = index, .term = term, .type = EntryType::kHole},
        Hole{.group = group.state.group, .index = index, .term = term});
  }
}

void Replay::put(ReplayedGroup& group, Entry entry, const std::optional<Hole>& hole) {
  const LogIndex index = entry.index;
  if (group.entries.empty()) group.start = index;
  if (index != group.start + group.entries.size()) {
    // Checksums hold and yet this cannot have been written so.
    if (status_) status_ = fail(ErrorCode::kMalformed, "group {}: entry {} does not follow", group.state.group, index);
    return;
  }
  group.entries.push_back(std::move(entry));
  if (hole) group.holes[index] = *hole;
}

void Replay::reconcile(const GroupState& told, bool base) {
  ReplayedGroup& ours = group(told.group);
  GroupState& state = ours.state;
  const bool lost_position = state.last != told.last;
  if (lost_position) {
    const bool first_sight = state.last.index.value() == 0 && ours.entries.empty();
    bool known = true;
    LogIndex match = matching_index(state, told, known);
    // Beyond the rows told: what was committed never changes.
    if (!known) match = std::min(match, state.commit);
    if (!first_sight) {
      REACHED(wal_reconciled);
      const size_t had = ours.entries.size();
      drop_from(ours, match.next());
      // What was read and is given up, where the rows told do not reach, was lost with the rows: it may be told again.
      lost_bytes_ += (had - ours.entries.size()) * kRecordHeaderBytes;
    }
    // Takes over terms and last, so that the holes get their terms; older rows of our own stay where they agree.
    std::vector<TermRow> rows;
    for (const TermRow& row : state.terms) {
      if (!told.terms.empty() && row.first < told.terms.front().first && row.first <= match) rows.push_back(row);
    }
    rows.insert(rows.end(), told.terms.begin(), told.terms.end());
    state.terms_cut = told.terms_cut && rows.size() == told.terms.size();
    state.terms = std::move(rows);
    state.last = told.last;
    if (told.released >= match) {
      ours.entries.clear();
      ours.holes.clear();
      ours.index.clear();
      match = told.released;
      ours.start = match.next();
    }
    if (first_sight && base) {
      // The oldest segment kept: what stood before it was released, or is found missing at the end.
      ours.start = told.last.index.next();
    } else {
      state.mark = told.mark;
      add_holes(ours, match.next(), told.last.index);
    }
  }
  if (state.mark != told.mark && !base) state.membership.clear();
  state.vote = told.vote;
  state.mark = told.mark;
  state.released = told.released;
  state.commit = told.commit;
  state.certainty = told.certainty;
  state.doubted = told.doubted;
  if (base) {
    state.membership = told.membership;
    state.floors = told.floors;
    if (state.terms.empty()) state.terms = told.terms;
  }
  ours.in_gap = false;
}

void Replay::apply(const Change& change) {
  ReplayedGroup& ours = group(change.group);
  switch (change.kind) {
    case ChangeKind::kTruncate:
      if (change.index <= ours.state.last.index) drop_from(ours, change.index);
      break;
    case ChangeKind::kInstall:
      ours.entries.clear();
      ours.holes.clear();
      ours.index.clear();
      ours.start = change.index.next();
      break;
    case ChangeKind::kRelease:
      ours.index.release(change.index);
      break;
    default:
      break;
  }
  ours.state.apply(change);
}

void Replay::take_records(const Change& change, BatchBody& body, uint32_t& ordinal, const BatchPlace& place) {
  ReplayedGroup& ours = group(change.group);
  const auto& records = body.records();
  const bool filling = change.kind == ChangeKind::kFill;
  if (filling) {
    if (change.index >= ours.start) ours.index.fill(change.index, place);
  } else {
    const LogIndex expected = ours.state.last.index.next();
    drop_from(ours, change.index);
    const LogIndex missing = ours.entries.empty() ? expected : ours.start + ours.entries.size();
    if (change.index > missing) {
      // Only behind a gap that no directory has told of.
      REACHED(wal_entries_behind_untold_gap);
      add_holes(ours, missing, change.index.prev());
    }
    ours.state.apply(change);
    ours.index.append(change.index, change.count, place);
  }
  for (uint64_t i = 0; i < change.count; ++i, ++ordinal) {
    const LogIndex index = change.index + i;
    Entry entry{.index = index, .term = change.term, .type = EntryType::kHole};
    std::optional<Hole> hole = Hole{.group = change.group, .index = index, .term = change.term};
    const FoundRecord* record = ordinal < records.size() ? &records[ordinal] : nullptr;
    const bool ours_indeed = record != nullptr && record->header_good && record->header.group == change.group &&
                             record->header.index == index && record->header.term == change.term;
    if (ours_indeed && record->payload_good) {
      entry.type = record->header.type;
      entry.payload = SharedBytes::copy_of(body.payload(*record, scratch_));
      hole.reset();
    } else if (ours_indeed) {
      hole->payload_checksum = record->header.payload_checksum;
      hole->type = record->header.type;
    }
    if (!filling) {
      put(ours, std::move(entry), hole);
      continue;
    }
    const bool here = index >= ours.start && index - ours.start < ours.entries.size();
    if (!here || hole) continue;
    Entry& stands = ours.entries[index - ours.start];
    if (stands.type != EntryType::kHole) continue;
    stands = std::move(entry);
    ours.holes.erase(index);
  }
}

void Replay::on_batch(const Head& head, BatchBody& body, BatchVerdict verdict) {
  if (!status_) return;
  ++batches_;
  records_ += head.records;
  last_number_ = head.number;
  for (const GroupState& told : head.directory) reconcile(told, head.base);
  if (head.full || head.base) {
    unknown_groups_ = false;
    // All groups there were are told: one that is not was made by a batch that is lost, if at all.
    for (auto& [id, replayed] : groups_) replayed.in_gap = false;
  }
  const BatchPlace place{.sequence = plan_.sequence, .start_sector = head.start_sector, .sectors = head.sectors};
  uint32_t ordinal = 0;
  last_touched_.clear();
  for (const Change& change : head.changes) {
    if (std::ranges::find(last_touched_, change.group) == last_touched_.end()) last_touched_.push_back(change.group);
    switch (change.kind) {
      case ChangeKind::kEntries:
      case ChangeKind::kFill:
        take_records(change, body, ordinal, place);
        break;
      case ChangeKind::kConfiguration: {
        // The body's copy was taken just before; if it is lost, this one is not.
        ReplayedGroup& ours = group(change.group);
        const auto hole = ours.holes.find(change.index);
        if (hole == ours.holes.end() || hole->second.term != change.term) break;
        if (change.index < ours.start || change.index - ours.start >= ours.entries.size()) break;
        REACHED(wal_configuration_from_head);
        ours.entries[change.index - ours.start] = Entry{.index = change.index,
                                                        .term = change.term,
                                                        .type = EntryType::kConfiguration,
                                                        .payload = SharedBytes::copy_of(change.bytes)};
        ours.holes.erase(hole);
        break;
      }
      default:
        apply(change);
        break;
    }
  }
  if (verdict == BatchVerdict::kWhole) return;
  note(head.start_sector, head.start_sector + head.sectors,
       verdict == BatchVerdict::kDamaged
           ? fmt::format("batch {}: acknowledged and damaged", head.number)
           : fmt::format("batch {}: the last one, perhaps acknowledged, damaged", head.number));
  if (verdict != BatchVerdict::kUncertain) return;
  for (const Change& change : head.changes) {
    // A fill that is lost leaves the hole it was for: known before, and still. A configuration entry whose record is
    // lost was read from the head.
    if (change.kind != ChangeKind::kEntries) continue;
    ReplayedGroup& ours = group(change.group);
    const auto lost = ours.holes.lower_bound(change.index);
    if (lost != ours.holes.end() && lost->first < change.index + change.count)
      ours.state.doubt(Certainty::kLastUncertain);
  }
}

void Replay::finish(const ScanResult& newest, bool manifest_lost) {
  if (!status_) return;
  if (newest.tail == TailVerdict::kTorn) {
    note(newest.end_sector, newest.end_sector, "a batch whose write did not complete: never acknowledged, left out");
  }
  if (newest.tail == TailVerdict::kUncertainLost) {
    note(newest.end_sector, newest.end_sector, "a batch that may have been acknowledged cannot be read");
  }
  if (manifest_lost) note(0, 0, "the manifest is older than the segments: later segments may be missing");
  const bool all = newest.tail == TailVerdict::kUncertainLost || manifest_lost;
  if (all) unknown_groups_ = true;
  for (auto& [id, replayed] : groups_) {
    if (all || replayed.in_gap) replayed.state.doubt(Certainty::kVoteUncertain);
    // Entries the log should still have, before the first that was found.
    const LogIndex needed = replayed.state.released.next();
    if (replayed.start > needed && replayed.state.last.index >= needed) {
      REACHED(wal_oldest_entries_lost);
      const LogIndex last_lost = std::min(replayed.start.prev(), replayed.state.last.index);
      if (!pay_for_holes(needed, last_lost)) {
        // Scenario: (1) entries are released and their segments go; (2) the newest segment is lost, and with it the
        // word of the release. Not listed one by one: the log begins behind them, and a snapshot must cover them.
        REACHED(wal_oldest_entries_without_bytes);
        note(0, 0, fmt::format("group {}: entries {} to {} are lost, and so is what held them", id, needed, last_lost));
        continue;
      }
      std::vector<Entry> found;
      found.swap(replayed.entries);
      EntryIndex places;
      std::swap(places, replayed.index);
      list_holes(replayed, needed, last_lost);
      replayed.index.join(std::move(places));
      for (Entry& entry : found) replayed.entries.push_back(std::move(entry));
    } else if (replayed.start < needed) {
      const size_t dropped = std::min<size_t>(replayed.entries.size(), needed - replayed.start);
      replayed.entries.erase(replayed.entries.begin(), replayed.entries.begin() + static_cast<ptrdiff_t>(dropped));
      replayed.holes.erase(replayed.holes.begin(), replayed.holes.lower_bound(needed));
      replayed.start = needed;
    }
  }
}

Recovered hand_over(ReplayedGroup& group, std::span<const GoodSnapshot> snapshots) {
  LogIndex snapshot_index;
  for (const GoodSnapshot& snapshot : snapshots) {
    if (snapshot.group != group.state.group || snapshot.last.index <= snapshot_index) continue;
    if (group.state.has_passed(snapshot.last)) snapshot_index = snapshot.last.index;
  }
  // A hole the snapshot covers is none, nor is anything before it of use.
  const auto behind = group.holes.upper_bound(snapshot_index);
  if (behind != group.holes.begin()) {
    REACHED(wal_hole_below_snapshot);
    const LogIndex last_covered = std::prev(behind)->first;
    const size_t dropped = std::min<size_t>(group.entries.size(), last_covered.next() - group.start);
    group.entries.erase(group.entries.begin(), group.entries.begin() + static_cast<ptrdiff_t>(dropped));
    group.start = last_covered.next();
    group.holes.erase(group.holes.begin(), behind);
  }
  Recovered recovered;
  recovered.group = group.state.group;
  recovered.certainty = group.state.certainty;
  recovered.vote = group.state.vote;
  recovered.snapshot.last = group.state.mark;
  if (!group.state.membership.empty()) {
    if (auto membership = Membership::decode(group.state.membership)) recovered.snapshot.membership = *membership;
  }
  recovered.entries.swap(group.entries);
  recovered.last = group.state.last;
  recovered.commit = group.state.commit;
  if (!group.state.floors.empty()) {
    if (auto floors = decode_floors(group.state.floors)) recovered.floors = std::move(*floors);
  }
  return recovered;
}

}  // namespace conclave::wal
