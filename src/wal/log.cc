#include "wal/log.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/mark.h"

namespace conclave::wal {
namespace {

// Zeros written in one step of preparing a segment: a millisecond of the disk.
constexpr uint64_t kPrepareStepBytes = uint64_t{1} << 20;
// Spare segments kept beyond the reserve; more are given back to the file system.
constexpr size_t kSparesBeyondReserve = 2;

std::string unfinished_path(uint32_t slot) {
  return segment_path(slot) + ".new";
}

}  // namespace

std::string_view to_string(WritePath path) {
  switch (path) {
    case WritePath::kProbe:
      return "probe";
    case WritePath::kDirect:
      return "direct";
    case WritePath::kBuffered:
      return "buffered";
  }
  return "unknown";
}

Log::Log(env::Disk& disk, LogOptions options)
    : disk_(disk), options_(std::move(options)), seed_(checksum_seed(options_.owner)) {}

Log::~Log() = default;

Status Log::fail_for_good(Error error) {
  if (!failed_) {
    REACHED(wal_failed_for_good);
    failed_ = true;
    failure_ = error.message;
  }
  // The first error keeps its code: the simulator's loss of power is not a device's error.
  if (error.code != ErrorCode::kCrashed) error.code = ErrorCode::kIo;
  return std::unexpected(std::move(error));
}

void Log::begin_head(bool idle) {
  const ManifestSegment& segment = manifest_.segments.back();
  head_.base = at_sector_ == 0;
  head_.full = head_.base || groups_.size() <= kDirectoryGroupsMax;
  head_.idle = idle;
  head_.number = next_number_;
  head_.previous_number = previous_number_;
  head_.sequence = segment.sequence;
  head_.slot = segment.slot;
  head_.start_sector = at_sector_;
  directory_.clear();
  if (head_.full) {
    for (const auto& [id, group] : groups_) directory_.push_back(&group.state);
  } else {
    for (const GroupId id : touched_) directory_.push_back(&groups_[id].state);
  }
}

void Log::account(const BatchPlace& place) {
  touched_.clear();
  for (const Change& change : head_.changes) {
    Group& group = groups_[change.group];
    group.state.group = change.group;
    switch (change.kind) {
      case ChangeKind::kEntries:
        group.index.append(change.index, change.count, place);
        break;
      case ChangeKind::kFill:
        group.index.fill(change.index, place);
        break;
      case ChangeKind::kTruncate:
        group.index.truncate(change.index);
        break;
      case ChangeKind::kInstall:
        group.index.clear();
        break;
      case ChangeKind::kRelease:
        group.index.release(change.index);
        break;
      default:
        break;
    }
    group.state.apply(change);
    if (touched_.empty() || touched_.back() != change.group) touched_.push_back(change.group);
  }
  std::ranges::sort(touched_);
  const auto repeated = std::ranges::unique(touched_);
  touched_.erase(repeated.begin(), repeated.end());
}

Status Log::write_operations(std::span<const Operation> operations, Urgency urgency, bool idle) {
  if (failed_) return fail(ErrorCode::kIo, "the log has failed before and takes nothing more: {}", failure_);
  begin_head(idle);
  ASSIGN_OR_RETURN(size_t bytes, encoder_.measure(head_, directory_, operations, seed_));
  const auto fits = [&] { return uint64_t{at_sector_} * kSectorBytes + bytes <= manifest_.segment_bytes; };
  if (!fits() && at_sector_ > 0) {
    if (bytes > manifest_.segment_bytes) {
      return fail(ErrorCode::kInvalidArgument, "batch of {} bytes: a segment has {}", bytes, manifest_.segment_bytes);
    }
    RETURN_IF_ERROR(roll(urgency));
    begin_head(idle);
    ASSIGN_OR_RETURN(bytes, encoder_.measure(head_, directory_, operations, seed_));
  }
  if (!fits()) {
    return fail(ErrorCode::kInvalidArgument, "batch of {} bytes: a segment has {}", bytes, manifest_.segment_bytes);
  }
  const ByteView encoded = encoder_.encode(head_, operations, seed_);
  if (Status written = file_->write_durable(uint64_t{at_sector_} * kSectorBytes, encoded); !written) {
    return fail_for_good(std::move(written).error());
  }
  account({.sequence = head_.sequence, .start_sector = at_sector_, .sectors = head_.sectors});
  at_sector_ += head_.sectors;
  previous_number_ = next_number_;
  ++next_number_;
  attested_ = idle;
  return {};
}

Status Log::settle(Status status) {
  if (status || failed_) return status;
  const ErrorCode code = status.error().code;
  // These two leave everything as it was.
  if (code == ErrorCode::kNoSpace || code == ErrorCode::kInvalidArgument) return status;
  return fail_for_good(std::move(status).error());
}

Status Log::write(const Batch& batch) {
  if (batch.empty() && !failed_) return {};
  return settle(write_operations(batch.operations(), batch.urgency(), false));
}

Status Log::idle_mark() {
  if (failed_) return fail(ErrorCode::kIo, "the log has failed before and takes nothing more: {}", failure_);
  return attested_ ? Status() : settle(write_idle_mark());
}

Status Log::write_idle_mark() {
  if (uint64_t{at_sector_} * kSectorBytes + kBlockBytes > manifest_.segment_bytes) {
    // No room: the sealing of the segment attests as well.
    Status rolled = roll(Urgency::kUrgent);
    if (!rolled && rolled.error().code == ErrorCode::kNoSpace) return {};
    return rolled;
  }
  Status marked = write_operations({}, Urgency::kUrgent, true);
  if (!marked && marked.error().code == ErrorCode::kNoSpace) return {};
  return marked;
}

Result<std::unique_ptr<env::File>> Log::open_for_writing(uint32_t slot) {
  return disk_.open(segment_path(slot),
                    {.mode = env::OpenMode::kWrite, .direct = options_.write_path == WritePath::kDirect});
}

Status Log::commit_manifest(Manifest manifest) {
  ++manifest.generation;
  if (Status written = write_manifests(disk_, manifest); !written) return fail_for_good(std::move(written).error());
  manifest_ = std::move(manifest);
  return {};
}

std::vector<uint32_t> Log::drop_released(Manifest& manifest, bool newest_has_base) const {
  uint64_t needed = UINT64_MAX;
  for (const auto& [id, group] : groups_) needed = std::min(needed, group.index.oldest_sequence().value_or(UINT64_MAX));
  // What stays must begin with a base: votes and marks of the segments that go are only there.
  size_t keep_from = 0;
  for (size_t i = 1; i < manifest.segments.size(); ++i) {
    if (manifest.segments[i - 1].sequence >= needed) break;
    const bool newest = i + 1 == manifest.segments.size();
    const bool has_base = newest ? newest_has_base : manifest.segments[i].end_sector > 0;
    if (has_base && manifest.segments[i].sequence >= sound_from_) keep_from = i;
  }
  std::vector<uint32_t> slots;
  slots.reserve(keep_from);
  for (size_t i = 0; i < keep_from; ++i) slots.push_back(manifest.segments[i].slot);
  manifest.segments.erase(manifest.segments.begin(), manifest.segments.begin() + static_cast<ptrdiff_t>(keep_from));
  return slots;
}

Status Log::take_back(std::span<const uint32_t> slots) {
  for (const uint32_t slot : slots) {
    const std::string path = segment_path(slot);
    auto file = disk_.open(path, {});
    // A segment that was missing or cut is no spare; nothing in it is needed.
    uint64_t size = 0;
    if (file) {
      ASSIGN_OR_RETURN(size, (*file)->size());
    } else if (file.error().code != ErrorCode::kNotFound) {
      return std::unexpected(std::move(file).error());
    } else {
      continue;
    }
    if (size == manifest_.segment_bytes && spares_.size() < options_.reserve_segments + kSparesBeyondReserve) {
      spares_.push_back(slot);
      full_ = false;
      continue;
    }
    Status removed = disk_.remove(path);
    if (removed) continue;
    if (removed.error().code != ErrorCode::kNoSpace) return removed;
    // A file system that copies on write needs space to give some back. What stays is one more spare; or, cut, a file
    // that the next start removes.
    REACHED(wal_no_space_to_remove);
    if (size == manifest_.segment_bytes) spares_.push_back(slot);
  }
  return {};
}

Status Log::release_now() {
  Manifest manifest = manifest_;
  const std::vector<uint32_t> slots = drop_released(manifest, at_sector_ > 0);
  if (slots.empty()) return {};
  REACHED(wal_segments_released);
  RETURN_IF_ERROR(commit_manifest(std::move(manifest)));
  return take_back(slots);
}

Status Log::begin_segment(uint32_t slot) {
  ASSIGN_OR_RETURN(file_, open_for_writing(slot));
  at_sector_ = 0;
  attested_ = true;
  return {};
}

Status Log::roll(Urgency urgency) {
  ASSERT_CMP(at_sector_, >, 0U);
  if (spares_.size() <= options_.reserve_segments) RETURN_IF_ERROR(release_now());
  while (spares_.size() <= options_.reserve_segments) {
    Status prepared = prepare_whole();
    if (!prepared && prepared.error().code == ErrorCode::kNoSpace) break;
    RETURN_IF_ERROR(prepared);
  }
  const size_t untouchable = urgency == Urgency::kUrgent ? 0 : options_.reserve_segments;
  if (spares_.size() <= untouchable) {
    REACHED(wal_full);
    return fail(ErrorCode::kNoSpace, "no space for another segment of {} bytes", manifest_.segment_bytes);
  }
  if (spares_.size() <= options_.reserve_segments) REACHED(wal_reserve_used);
  const uint32_t slot = spares_.front();
  Manifest manifest = manifest_;
  manifest.segments.back().sealed = true;
  manifest.segments.back().end_sector = at_sector_;
  manifest.segments.push_back(
      {.sequence = manifest.segments.back().sequence + 1, .slot = slot, .first_number = next_number_});
  const std::vector<uint32_t> slots = drop_released(manifest, false);
  RETURN_IF_ERROR(commit_manifest(std::move(manifest)));
  // At once: from here on nothing may be written to the segment before, which is sealed. Scenario: (1) the manifest
  // moves; (2) something fails for want of space, and what was to be written is refused as if nothing had happened; (3)
  // a smaller batch still fits into the sealed segment and is acknowledged; (4) recovery reads no further than its end.
  spares_.erase(spares_.begin());
  if (Status begun = begin_segment(slot); !begun) return fail_for_good(std::move(begun).error());
  return take_back(slots);
}

Status Log::prepare_step(uint64_t bytes_max) {
  if (!preparation_.file) {
    ASSIGN_OR_RETURN(const uint64_t free, disk_.free_bytes());
    if (free < manifest_.segment_bytes) {
      full_ = true;
      return fail(ErrorCode::kNoSpace, "{} bytes are free, a segment takes {}", free, manifest_.segment_bytes);
    }
    preparation_.slot = next_slot_++;
    preparation_.written = 0;
    auto file = disk_.open(unfinished_path(preparation_.slot), {.mode = env::OpenMode::kCreate});
    if (!file) {
      if (file.error().code == ErrorCode::kNoSpace) full_ = true;
      return std::unexpected(std::move(file).error());
    }
    preparation_.file = std::move(*file);
  }
  // Written, not only extended: a later write must find blocks that are allocated and initialised.
  const auto step = [&]() -> Status {
    static constexpr std::array<char, size_t{64} << 10> kZeros{};
    const uint64_t end = std::min(manifest_.segment_bytes, preparation_.written + bytes_max);
    while (preparation_.written < end) {
      const uint64_t part = std::min<uint64_t>(kZeros.size(), end - preparation_.written);
      RETURN_IF_ERROR(preparation_.file->write(preparation_.written, ByteView(kZeros.data(), part)));
      preparation_.written += part;
    }
    if (preparation_.written < manifest_.segment_bytes) return {};
    return preparation_.file->sync();
  };
  const std::string path = unfinished_path(preparation_.slot);
  if (Status stepped = step(); !stepped) {
    if (stepped.error().code != ErrorCode::kNoSpace) return fail_for_good(std::move(stepped).error());
    // Nothing was promised in this file: it goes, and the log stays as it is.
    REACHED(wal_no_space_for_segment);
    full_ = true;
    preparation_.file.reset();
    RETURN_IF_ERROR(disk_.remove(path));
    return stepped;
  }
  if (preparation_.written < manifest_.segment_bytes) return {};
  preparation_.file.reset();
  if (Status named = disk_.rename(path, segment_path(preparation_.slot)); !named) {
    return fail_for_good(std::move(named).error());
  }
  if (Status synced = disk_.sync_directory(kLogDirectory); !synced) return fail_for_good(std::move(synced).error());
  spares_.push_back(preparation_.slot);
  full_ = false;
  return {};
}

Status Log::prepare_whole() {
  const size_t before = spares_.size();
  while (spares_.size() == before) RETURN_IF_ERROR(prepare_step(kPrepareStepBytes));
  return {};
}

Result<bool> Log::maintain() {
  if (failed_) return fail(ErrorCode::kIo, "the log has failed before and takes nothing more: {}", failure_);
  if (spares_.size() > options_.reserve_segments) {
    full_ = false;
    return false;
  }
  RETURN_IF_ERROR(settle(release_now()));
  if (spares_.size() > options_.reserve_segments) return false;
  if (Status stepped = settle(prepare_step(kPrepareStepBytes)); !stepped) {
    if (stepped.error().code == ErrorCode::kNoSpace) return false;
    return std::unexpected(std::move(stepped).error());
  }
  return spares_.size() <= options_.reserve_segments;
}

Result<std::vector<Entry>> Log::read(GroupId group, LogIndex from, LogIndex to, uint64_t bytes_max) {
  const auto found = groups_.find(group);
  if (found == groups_.end() || from <= found->second.state.released || from > found->second.state.last.index ||
      to < from) {
    return fail(ErrorCode::kOutOfRange, "group {}: entries {} to {} are not in the log", group, from, to);
  }
  const Group& known = found->second;
  std::vector<Entry> entries;
  uint64_t bytes = 0;
  SegmentImage image;
  Head head;
  std::string text;
  std::string scratch;
  BatchBody body;
  std::optional<BatchPlace> loaded;
  for (LogIndex index = from; index <= std::min(to, known.state.last.index); ++index) {
    const auto place = known.index.find(index);
    // The first entry must come; whatever keeps a later one away ends the answer.
    const auto stop = [&](std::string_view why) -> Result<std::vector<Entry>> {
      if (!entries.empty()) return std::move(entries);
      return fail(ErrorCode::kUnreadable, "group {} entry {}: {}", group, index, why);
    };
    if (!place || place->sectors == 0) return stop("a hole");
    if (place != loaded) {
      const auto segment = std::ranges::find(manifest_.segments, place->sequence, &ManifestSegment::sequence);
      ASSERT(segment != manifest_.segments.end());
      if (!read_file_ || read_sequence_ != place->sequence) {
        ASSIGN_OR_RETURN(read_file_, disk_.open(segment_path(segment->slot), {}));
        read_sequence_ = place->sequence;
      }
      RETURN_IF_ERROR(image.attach_window(*read_file_, place->start_sector, place->sectors));
      const SegmentPlan plan{.use = {.seed = seed_,
                                     .slot = segment->slot,
                                     .first_number = segment->first_number,
                                     .end_number = segment->first_number + manifest_.numbers_per_segment()},
                             .sequence = segment->sequence,
                             .sealed = true,
                             .end_sector = place->start_sector + place->sectors};
      const auto head_size = find_batch(image, plan, place->start_sector, head, text);
      if (!head_size) {
        if (head_size.error().code != ErrorCode::kUnreadable) return std::unexpected(head_size.error());
        return stop(head_size.error().message);
      }
      body.attach(image, plan.use, head, *head_size);
      loaded = place;
    }
    const Term term = known.state.term_at(index);
    const auto& records = body.records();
    const auto record = std::ranges::find_if(records, [&](const FoundRecord& candidate) {
      return candidate.payload_good && candidate.header.group == group && candidate.header.index == index &&
             candidate.header.term == term;
    });
    if (record == records.end()) return stop("its record cannot be read");
    if (!entries.empty() && bytes + record->header.payload_bytes > bytes_max) break;
    bytes += record->header.payload_bytes;
    entries.push_back({.index = index,
                       .term = term,
                       .type = record->header.type,
                       .payload = SharedBytes::copy_of(body.payload(*record, scratch))});
  }
  return entries;
}

Space Log::space() const {
  Space space;
  space.live_segments = static_cast<uint32_t>(manifest_.segments.size());
  space.spare_segments = static_cast<uint32_t>(spares_.size());
  space.spare_bytes = spares_.size() * manifest_.segment_bytes;
  for (const ManifestSegment& segment : manifest_.segments) {
    space.live_bytes += segment.sealed ? uint64_t{segment.end_sector} * kSectorBytes : manifest_.segment_bytes;
  }
  space.full = full_;
  return space;
}

const GroupState* Log::state(GroupId group) const {
  const auto found = groups_.find(group);
  return found == groups_.end() ? nullptr : &found->second.state;
}

std::optional<GroupId> Log::oldest_group() const {
  std::optional<GroupId> oldest;
  uint64_t sequence = UINT64_MAX;
  for (const auto& [id, group] : groups_) {
    const uint64_t needed = group.index.oldest_sequence().value_or(UINT64_MAX);
    if (needed < sequence) {
      sequence = needed;
      oldest = id;
    }
  }
  return oldest;
}

}  // namespace conclave::wal
