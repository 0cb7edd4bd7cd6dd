// Log::open: recovery, and the new segment each life of the log begins with.
//
// Why a new segment: what stands behind a torn end is never written over in part, so that no sector of one attempt is
// ever mixed with another's; and the manifest that lists the new segment attests everything kept of the old ones, so
// that a verdict once reached stays.
#include <algorithm>
#include <charconv>
#include <limits>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/mark.h"
#include "base/time.h"
#include "wal/log.h"

namespace conclave::wal {
namespace {

constexpr std::string_view kSegmentPrefix = "segment-";
constexpr std::string_view kProbePath = "wal/probe";

// The slot of "segment-00000012"; nothing for other names.
std::optional<uint32_t> slot_of(std::string_view name) {
  if (!name.starts_with(kSegmentPrefix)) return std::nullopt;
  const std::string_view digits = name.substr(kSegmentPrefix.size());
  uint32_t slot = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), slot);
  if (error != std::errc() || end != digits.data() + digits.size() || digits.size() < 8) return std::nullopt;
  return slot;
}

// What the first block of a file that no live segment has tells: every use begins there.
struct FirstBlock {
  uint64_t highest_number = 0;  // of any whole sector of this owner
  int of_newer_use = 0;         // sectors at their place, whatever file they were written for, from `newer` on
};
Result<FirstBlock> examine_first_block(env::File& file, uint32_t seed, uint64_t newer) {
  SegmentImage image;
  RETURN_IF_ERROR(image.attach(file, kBlockBytes));
  FirstBlock found;
  for (uint32_t place = 0; place < image.sectors(); ++place) {
    const char* sector = image.sector(place);
    uint64_t number = 0;
    // Any slot: two files may have changed their names.
    if (sector == nullptr || !is_whole_sector(sector, seed, load_le<uint32_t>(sector + kSlotAt), place, number))
      continue;
    found.highest_number = std::max(found.highest_number, number);
    if (number >= newer) ++found.of_newer_use;
  }
  RETURN_IF_ERROR(image.status());
  return found;
}

SegmentPlan plan_of(const Manifest& manifest, const ManifestSegment& segment, uint32_t seed) {
  return {.use = {.seed = seed,
                  .slot = segment.slot,
                  .first_number = segment.first_number,
                  .end_number = segment.first_number + manifest.numbers_per_segment()},
          .sequence = segment.sequence,
          .sealed = segment.sealed,
          .end_sector = segment.end_sector};
}

}  // namespace

Result<Log::Opened> Log::open(env::Disk& disk, LogOptions options) {
  if (options.segment_bytes < kSegmentBytesMin || options.segment_bytes % kBlockBytes != 0 ||
      options.segment_bytes >= std::numeric_limits<uint32_t>::max()) {
    return fail(ErrorCode::kInvalidArgument, "segments of {} bytes", options.segment_bytes);
  }
  if (!options.owner.cluster.is_set() || !options.owner.node.is_set()) {
    return fail(ErrorCode::kInvalidArgument, "a log needs the ids of its cluster and its server");
  }
  auto log = std::unique_ptr<Log>(new Log(disk, std::move(options)));
  ASSIGN_OR_RETURN(log->lock_, disk.lock());
  Recovery recovery;
  RETURN_IF_ERROR(log->recover(recovery));
  return Opened{.log = std::move(log), .recovery = std::move(recovery)};
}

Status Log::discard(env::Disk& disk) {
  ASSIGN_OR_RETURN(const auto lock, disk.lock());
  auto names = disk.list(kLogDirectory);
  if (!names) {
    if (names.error().code == ErrorCode::kNotFound) return {};
    return std::unexpected(std::move(names).error());
  }
  // Manifests last: until they are gone, what is left is still known to be the rest of a log.
  for (const bool manifests : {false, true}) {
    for (const std::string& name : *names) {
      if (name.starts_with("manifest-") != manifests) continue;
      RETURN_IF_ERROR(disk.remove(fmt::format("{}/{}", kLogDirectory, name)));
    }
    RETURN_IF_ERROR(disk.sync_directory(kLogDirectory));
  }
  return {};
}

Status Log::recover(Recovery& recovery) {
  ASSIGN_OR_RETURN(ManifestFinding found, read_manifests(disk_));
  for (const std::string& damage : found.damage) {
    if (found.present) recovery.findings.push_back({.what = damage});
  }
  if (!found.valid) {
    recovery.created = true;
    recovery.findings.clear();
    return start_empty(recovery);
  }
  if (found.manifest.owner != options_.owner) {
    return fail(ErrorCode::kForeign, "the log is of cluster {} server {}, not of cluster {} server {}",
                found.manifest.owner.cluster, found.manifest.owner.node, options_.owner.cluster, options_.owner.node);
  }
  manifest_ = std::move(found.manifest);
  RETURN_IF_ERROR(make_durable_what_was_read(found.second_damaged ? ManifestOrder::kSecondCopyFirst
                                                                  : ManifestOrder::kFirstCopyFirst));
  bool manifest_lost = false;
  uint64_t highest_number = 0;
  RETURN_IF_ERROR(find_spares(manifest_lost, highest_number));

  Replay replay;
  ScanResult newest;
  RETURN_IF_ERROR(scan_all(replay, newest, recovery));
  replay.finish(newest, manifest_lost);
  RETURN_IF_ERROR(replay.status());

  recovery.torn_tail = newest.tail == TailVerdict::kTorn;
  recovery.unknown_groups = replay.unknown_groups();
  recovery.batches = replay.batches();
  recovery.records = replay.records();
  for (Finding& finding : replay.findings()) recovery.findings.push_back(std::move(finding));
  next_number_ = std::max(manifest_.segments.back().first_number, highest_number) + manifest_.numbers_per_segment();
  RETURN_IF_ERROR(choose_write_path(recovery));
  RETURN_IF_ERROR(begin_after_recovery(replay, newest));
  // Where something is damaged, a later segment's base may be, too: what was read here is then written anew before any
  // old segment goes.
  if (recovery.findings.size() > (recovery.torn_tail ? 1U : 0U)) sound_from_ = manifest_.segments.back().sequence;

  for (auto& [id, replayed] : replay.groups()) {
    recovery.groups.push_back(hand_over(replayed, options_.snapshots));
    for (const auto& [index, hole] : replayed.holes) recovery.holes.push_back(hole);
    groups_.emplace(id, Group{.state = std::move(replayed.state), .index = std::move(replayed.index)});
  }
  return {};
}

// What a process sees at its start may be in the page cache alone: the one before may have been killed between a write
// and its sync. Scenario: (1) a batch is written and the process killed before the sync ends; (2) the next one reads it
// whole and seals its segment behind it; (3) power is lost: the manifest tells of a batch that the disk does not have.
// So nothing that was read is built on before it is synced: both manifests, the names, the newest segment.
Status Log::make_durable_what_was_read(ManifestOrder order) {
  RETURN_IF_ERROR(write_manifests(disk_, manifest_, order));
  RETURN_IF_ERROR(disk_.sync_directory(kLogDirectory));
  const auto newest = disk_.open(segment_path(manifest_.segments.back().slot), {.mode = env::OpenMode::kWrite});
  if (newest) return (*newest)->sync();
  if (newest.error().code == ErrorCode::kNotFound || newest.error().code == ErrorCode::kUnreadable) return {};
  return std::unexpected(newest.error());
}

Status Log::scan_all(Replay& replay, ScanResult& newest, Recovery& recovery) {
  SegmentImage image;
  for (const ManifestSegment& segment : manifest_.segments) {
    const SegmentPlan plan = plan_of(manifest_, segment, seed_);
    replay.begin_segment(plan, segment.doubts, segment.all_uncertain);
    ++recovery.segments;
    auto file = disk_.open(segment_path(segment.slot), {});
    if (file) {
      const uint64_t bytes = segment.sealed ? uint64_t{segment.end_sector} * kSectorBytes : manifest_.segment_bytes;
      RETURN_IF_ERROR(image.attach(**file, bytes));
    } else if (file.error().code == ErrorCode::kNotFound || file.error().code == ErrorCode::kUnreadable) {
      REACHED(wal_segment_missing);
      image.attach_missing();
      recovery.findings.push_back(
          {.sequence = segment.sequence, .slot = segment.slot, .what = "the segment's file is missing"});
    } else {
      return std::unexpected(std::move(file).error());
    }
    ASSIGN_OR_RETURN(newest, scan_segment(image, plan, replay));
    recovery.bytes += uint64_t{newest.end_sector} * kSectorBytes;
    // The newest segment's place is known to have been written to its full size before it was listed: where its end or
    // all of it is gone, batches may be gone with it.
    if (!segment.sealed && uint64_t{image.sectors()} * kSectorBytes < manifest_.segment_bytes &&
        newest.end_sector >= image.sectors()) {
      REACHED(wal_newest_segment_cut);
      newest.tail = TailVerdict::kUncertainLost;
    }
  }
  return {};
}

Status Log::find_spares(bool& manifest_lost, uint64_t& highest_number) {
  manifest_lost = false;
  ASSIGN_OR_RETURN(const auto names, disk_.list(kLogDirectory));
  std::vector<uint32_t> unlisted;
  for (const std::string& name : names) {
    const std::string path = fmt::format("{}/{}", kLogDirectory, name);
    const auto slot = slot_of(name);
    if (!slot) {
      // Segments whose preparation did not end, a probe's file.
      if (!name.starts_with("manifest-")) RETURN_IF_ERROR(disk_.remove(path));
      continue;
    }
    next_slot_ = std::max(next_slot_, *slot + 1);
    const ManifestSegment& newest = manifest_.segments.back();
    const uint64_t newer = newest.first_number + (*slot == newest.slot ? manifest_.numbers_per_segment() : 0);
    ASSIGN_OR_RETURN(const auto file, disk_.open(path, {}));
    ASSIGN_OR_RETURN(const FirstBlock first, examine_first_block(*file, seed_, newer));
    highest_number = std::max(highest_number, first.highest_number);
    // Used after the newest segment the manifest knows, or the newest segment under another name: what is listed is not
    // all there was. One sector alone is a write that went astray. The numbers to come begin above these, so that a
    // file not listed can be a spare as any other.
    if (first.of_newer_use > 1) manifest_lost = true;
    if (std::ranges::find(manifest_.segments, *slot, &ManifestSegment::slot) != manifest_.segments.end()) continue;
    ASSIGN_OR_RETURN(const uint64_t size, file->size());
    if (size == manifest_.segment_bytes) {
      unlisted.push_back(*slot);
    } else {
      RETURN_IF_ERROR(disk_.remove(path));
    }
  }
  for (const ManifestSegment& segment : manifest_.segments) next_slot_ = std::max(next_slot_, segment.slot + 1);
  if (manifest_lost) REACHED(wal_manifest_rolled_back);
  spares_ = std::move(unlisted);
  return {};
}

Status Log::start_empty(Recovery& recovery) {
  Status made = disk_.create_directory(kLogDirectory);
  if (!made && made.error().code != ErrorCode::kAlreadyExists) return made;
  RETURN_IF_ERROR(disk_.sync_directory(""));
  ASSIGN_OR_RETURN(const auto names, disk_.list(kLogDirectory));
  // Segments without a manifest: either the first start of this directory ended early, and nothing was ever written to
  // them, or the manifest is lost.
  for (const std::string& name : names) {
    const auto slot = slot_of(name);
    if (!slot) continue;
    ASSIGN_OR_RETURN(const auto file, disk_.open(segment_path(*slot), {}));
    SegmentImage image;
    RETURN_IF_ERROR(image.attach(*file, kBlockBytes));
    for (uint32_t place = 0; place < image.sectors(); ++place) {
      const char* sector = image.sector(place);
      const bool zero = sector != nullptr && std::all_of(sector, sector + kSectorBytes, [](char c) { return c == 0; });
      if (!zero) return fail(ErrorCode::kUnreadable, "segments are there, and no copy of the manifest can be read");
    }
    RETURN_IF_ERROR(image.status());
  }
  for (const std::string& name : names) RETURN_IF_ERROR(disk_.remove(fmt::format("{}/{}", kLogDirectory, name)));
  manifest_.owner = options_.owner;
  manifest_.segment_bytes = options_.segment_bytes;
  RETURN_IF_ERROR(choose_write_path(recovery));
  RETURN_IF_ERROR(prepare_whole());
  const uint32_t slot = spares_.front();
  spares_.clear();
  Manifest manifest = manifest_;
  manifest.segments.push_back({.sequence = 1, .slot = slot, .first_number = 1});
  RETURN_IF_ERROR(commit_manifest(std::move(manifest)));
  return begin_segment(slot);
}

Status Log::begin_after_recovery(Replay& replay, const ScanResult& newest) {
  Manifest manifest = manifest_;
  const ManifestSegment old = manifest.segments.back();
  manifest.segments.back().sealed = true;
  manifest.segments.back().end_sector = newest.end_sector;
  if (newest.end_sector == 0) {
    // Nothing in it: used again at once, under another use.
    REACHED(wal_newest_segment_empty);
    manifest.segments.pop_back();
    auto file = disk_.open(segment_path(old.slot), {});
    if (file) {
      ASSIGN_OR_RETURN(const uint64_t size, (*file)->size());
      if (size == manifest.segment_bytes) spares_.insert(spares_.begin(), old.slot);
    }
  }
  if (spares_.empty()) RETURN_IF_ERROR(prepare_whole());
  ManifestSegment& begun = manifest.segments.emplace_back();
  begun.sequence = old.sequence + 1;
  begun.slot = spares_.front();
  begun.first_number = next_number_;
  begun.all_uncertain = replay.unknown_groups();
  for (const auto& [id, replayed] : replay.groups()) {
    if (replayed.state.certainty == Certainty::kCertain) continue;
    begun.doubts.push_back({.group = id, .certainty = replayed.state.certainty, .doubted = replayed.state.doubted});
  }
  const uint32_t slot = begun.slot;
  spares_.erase(spares_.begin());
  RETURN_IF_ERROR(commit_manifest(std::move(manifest)));
  previous_number_ = replay.last_number();
  touched_.assign(replay.last_touched().begin(), replay.last_touched().end());
  // The rest of the old segment will not be written again: its space goes back, so that starting often does not fill
  // the disk. A segment whose end is in doubt is left as it is, for people to look at.
  const bool settled = newest.tail == TailVerdict::kClean || newest.tail == TailVerdict::kTorn;
  if (newest.end_sector > 0 && settled) {
    ASSIGN_OR_RETURN(const auto file, disk_.open(segment_path(old.slot), {.mode = env::OpenMode::kWrite}));
    ASSIGN_OR_RETURN(const uint64_t size, file->size());
    const uint64_t used = uint64_t{newest.end_sector} * kSectorBytes;
    if (size > used) RETURN_IF_ERROR(file->resize(used));
  }
  return begin_segment(slot);
}

Status Log::choose_write_path(Recovery& recovery) {
  if (options_.write_path == WritePath::kBuffered) {
    recovery.write_path = "buffered writes and fdatasync, as configured";
    return {};
  }
  // A file of its own, of zeros: nothing that is measured here can be taken for a log.
  constexpr uint64_t kProbeBytes = uint64_t{256} << 10;
  constexpr int kRounds = 16;
  env::AlignedBuffer zeros(kProbeBytes);
  std::memset(zeros.data(), 0, kProbeBytes);
  Status removed = disk_.remove(kProbePath);
  if (!removed && removed.error().code != ErrorCode::kNotFound) return removed;
  {
    ASSIGN_OR_RETURN(const auto file, disk_.open(kProbePath, {.mode = env::OpenMode::kCreate}));
    RETURN_IF_ERROR(file->write_durable(0, ByteView(zeros.data(), kProbeBytes)));
  }
  const auto measure = [&](env::File& file) -> Result<int64_t> {
    int64_t best = std::numeric_limits<int64_t>::max();
    for (int round = 0; round < kRounds; ++round) {
      const Instant before = options_.clock->now();
      RETURN_IF_ERROR(
          file.write_durable(static_cast<uint64_t>(round) * kBlockBytes, ByteView(zeros.data(), kBlockBytes)));
      best = std::min(best, static_cast<int64_t>((options_.clock->now() - before).count()));
    }
    return best;
  };
  auto direct = disk_.open(kProbePath, {.mode = env::OpenMode::kWrite, .direct = true});
  if (!direct) {
    if (direct.error().code != ErrorCode::kInvalidArgument) return std::unexpected(std::move(direct).error());
    options_.write_path = WritePath::kBuffered;
    recovery.write_path = "buffered writes and fdatasync: the file system takes no direct ones";
  } else if (options_.write_path == WritePath::kDirect) {
    recovery.write_path = "direct writes, as configured";
  } else if (options_.clock == nullptr) {
    options_.write_path = WritePath::kDirect;
    recovery.write_path = "direct writes: the file system takes them";
  } else {
    ASSIGN_OR_RETURN(const auto buffered, disk_.open(kProbePath, {.mode = env::OpenMode::kWrite}));
    ASSIGN_OR_RETURN(const int64_t buffered_time, measure(*buffered));
    ASSIGN_OR_RETURN(const int64_t direct_time, measure(**direct));
    options_.write_path = direct_time <= buffered_time ? WritePath::kDirect : WritePath::kBuffered;
    recovery.write_path =
        fmt::format("{} writes: of 4 KiB the best of {} took {} direct and {} with fdatasync (us)",
                    to_string(options_.write_path), kRounds, direct_time / 1000, buffered_time / 1000);
  }
  return disk_.remove(kProbePath);
}

}  // namespace conclave::wal
