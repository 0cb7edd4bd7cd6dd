#include "wal/inspect.h"

#include <algorithm>

namespace conclave::wal {
namespace {

// Counts what goes by on its way to the replay.
class Counter final : public ScanVisitor {
 public:
  Counter(Replay& replay, InspectedSegment& segment) : replay_(replay), segment_(segment) {}
  void on_batch(const Head& head, BatchBody& body, BatchVerdict verdict) override {
    ++segment_.batches;
    segment_.idle_marks += head.idle ? 1 : 0;
    segment_.records += head.records;
    segment_.damaged_batches += body.whole() && verdict == BatchVerdict::kWhole ? 0 : 1;
    replay_.on_batch(head, body, verdict);
  }
  void on_gap(uint32_t from_sector, uint32_t to_sector) override {
    ++segment_.gaps;
    replay_.on_gap(from_sector, to_sector);
  }

 private:
  Replay& replay_;
  InspectedSegment& segment_;
};

}  // namespace

std::string_view to_string(TailVerdict verdict) {
  switch (verdict) {
    case TailVerdict::kClean:
      return "clean";
    case TailVerdict::kTorn:
      return "torn";
    case TailVerdict::kUncertain:
      return "uncertain";
    case TailVerdict::kUncertainLost:
      return "unreadable";
  }
  return "unknown";
}

bool LogInspection::damaged() const {
  const auto is_damaged = [](const InspectedSegment& segment) {
    return segment.file_missing || segment.damaged_batches > 0 || segment.gaps > 0 ||
           segment.tail == TailVerdict::kUncertain || segment.tail == TailVerdict::kUncertainLost;
  };
  const auto is_uncertain = [](const InspectedGroup& group) {
    return !group.holes.empty() || group.state.certainty != Certainty::kCertain;
  };
  return !manifest_damage.empty() || unknown_groups || std::ranges::any_of(segments, is_damaged) ||
         std::ranges::any_of(groups, is_uncertain);
}

namespace {

Result<LogInspection> replay_log(env::Disk& disk, Replay& replay) {
  ASSIGN_OR_RETURN(ManifestFinding found, read_manifests(disk));
  if (!found.valid) {
    if (!found.present) return fail(ErrorCode::kNotFound, "no log here: neither copy of the manifest exists");
    return fail(ErrorCode::kUnreadable, "no copy of the manifest can be read");
  }
  LogInspection inspection;
  inspection.manifest = found.manifest;
  inspection.manifest_damage = found.damage;
  const uint32_t seed = checksum_seed(found.manifest.owner);
  SegmentImage image;
  ScanResult scanned;
  for (const ManifestSegment& listed : found.manifest.segments) {
    InspectedSegment& segment = inspection.segments.emplace_back();
    segment.listed = listed;
    const SegmentPlan plan{.use = {.seed = seed,
                                   .slot = listed.slot,
                                   .first_number = listed.first_number,
                                   .end_number = listed.first_number + found.manifest.numbers_per_segment()},
                           .sequence = listed.sequence,
                           .sealed = listed.sealed,
                           .end_sector = listed.end_sector};
    const auto file = disk.open(segment_path(listed.slot), {});
    if (file) {
      RETURN_IF_ERROR(image.attach(**file, found.manifest.segment_bytes));
    } else {
      segment.file_missing = true;
      image.attach_missing();
    }
    replay.begin_segment(plan, listed.doubts, listed.all_uncertain);
    Counter counter(replay, segment);
    ASSIGN_OR_RETURN(scanned, scan_segment(image, plan, counter));
    if (segment.file_missing && !listed.sealed) scanned.tail = TailVerdict::kUncertainLost;
    segment.end_sector = scanned.end_sector;
    segment.tail = scanned.tail;
  }
  replay.finish(scanned, false);
  RETURN_IF_ERROR(replay.status());
  inspection.findings = std::move(replay.findings());
  inspection.unknown_groups = replay.unknown_groups();
  for (auto& [id, replayed] : replay.groups()) {
    InspectedGroup& group = inspection.groups.emplace_back();
    group.state = replayed.state;
    group.entries = replayed.entries.size();
    if (!replayed.entries.empty()) group.first = replayed.entries.front().index;
    for (const auto& [index, hole] : replayed.holes) group.holes.push_back(hole);
  }
  return inspection;
}

}  // namespace

Result<LogInspection> inspect_log(env::Disk& disk) {
  Replay replay;
  return replay_log(disk, replay);
}

Result<LogContent> read_log(env::Disk& disk, std::span<const GoodSnapshot> snapshots) {
  Replay replay;
  LogContent content;
  ASSIGN_OR_RETURN(content.inspection, replay_log(disk, replay));
  for (auto& [id, replayed] : replay.groups()) {
    content.groups.push_back(hand_over(replayed, snapshots));
  }
  return content;
}

}  // namespace conclave::wal
