#include "sim/minimal_log.h"

#include <algorithm>
#include <map>
#include <span>

#include "base/assert.h"
#include "base/mark.h"

namespace conclave::sim {
namespace {

constexpr std::string_view kPath = "log";
// Reads and the first layout go in pieces of this size.
constexpr uint64_t kPieceSectors = 256;
// A record is read again so often before it counts as damaged: a read may go astray where the record is sound.
constexpr int kReadsMax = 3;
// Damage that changes more bits of a hash than this changes the whole sector.
constexpr int kBitsChangedMax = 8;
// Numbers of batches that recoveries skipped.
constexpr uint64_t kBatchesAhead = 16;

std::string entry_payload(const Entry& entry) {
  std::string payload;
  ByteWriter writer(payload);
  writer.varint(entry.index.value());
  writer.varint(entry.term.value());
  writer.fixed(static_cast<uint8_t>(entry.type));
  writer.sized(entry.payload.view());
  return payload;
}

Result<Entry> entry_of(ByteView payload) {
  ByteReader reader(payload);
  Entry entry;
  entry.index = LogIndex(reader.varint());
  entry.term = Term(reader.varint());
  const auto type = reader.fixed<uint8_t>();
  entry.payload = SharedBytes::copy_of(reader.sized());
  if (!reader.finished() || type > 3) return fail(ErrorCode::kMalformed, "entry of {} bytes", payload.size());
  entry.type = static_cast<EntryType>(type);
  return entry;
}

}  // namespace

// --- The directory.

Term LogDirectory::term_at(LogIndex index) const {
  if (index == last.index) return last.term;
  Term term;
  for (const Run& run : runs) {
    if (run.first > index) break;
    term = run.term;
  }
  return index > last.index ? Term() : term;
}

std::string LogDirectory::encode(size_t bytes_max, size_t runs_max) const {
  std::string out;
  ByteWriter writer(out);
  writer.varint(vote.term.value());
  writer.varint(vote.candidate.value());
  writer.varint(vote.incarnation.value());
  writer.fixed(static_cast<uint8_t>(vote.promises));
  writer.varint(first.value());
  writer.varint(last.term.value());
  writer.varint(last.index.value());
  writer.varint(commit.value());
  writer.varint(snapshot.last.term.value());
  writer.varint(snapshot.last.index.value());
  std::string membership;
  if (!snapshot.membership.empty()) snapshot.membership.encode(membership);
  writer.sized(membership);
  const size_t kept = std::min(runs.size(), runs_max);
  writer.varint(kept);
  for (const Run& run : std::span(runs).last(kept)) {
    writer.varint(run.first.value());
    writer.varint(run.term.value());
  }
  // Floors are good to have; what does not fit is left out.
  std::string all;
  uint8_t count = 0;
  for (const Floor& floor : floors) {
    std::string one;
    ByteWriter floor_writer(one);
    for (uint64_t number : {floor.node.value(), floor.boot.value(), floor.incarnation.value(), floor.term.value(),
                            floor.last.term.value(), floor.last.index.value()}) {
      floor_writer.varint(number);
    }
    if (out.size() + 1 + all.size() + one.size() > bytes_max) break;
    all += one;
    ++count;
  }
  writer.fixed(count);
  writer.raw(all);
  return out;
}

Result<LogDirectory> LogDirectory::decode(ByteView bytes) {
  ByteReader reader(bytes);
  LogDirectory directory;
  directory.vote.term = Term(reader.varint());
  directory.vote.candidate = NodeId(reader.varint());
  directory.vote.incarnation = Incarnation(reader.varint());
  directory.vote.promises = reader.fixed<uint8_t>() == 1;
  directory.first = LogIndex(reader.varint());
  directory.last.term = Term(reader.varint());
  directory.last.index = LogIndex(reader.varint());
  directory.commit = LogIndex(reader.varint());
  directory.snapshot.last.term = Term(reader.varint());
  directory.snapshot.last.index = LogIndex(reader.varint());
  if (const ByteView membership = reader.sized(); !membership.empty()) {
    ASSIGN_OR_RETURN(directory.snapshot.membership, Membership::decode(membership));
  }
  const uint64_t runs = reader.varint();
  for (uint64_t i = 0; i < runs && reader.ok(); ++i) {
    const LogIndex at(reader.varint());
    directory.runs.push_back({.first = at, .term = Term(reader.varint())});
  }
  const auto floors = reader.fixed<uint8_t>();
  for (uint8_t i = 0; i < floors && reader.ok(); ++i) {
    Floor floor;
    floor.node = NodeId(reader.varint());
    floor.boot = Boot(reader.varint());
    floor.incarnation = Incarnation(reader.varint());
    floor.term = Term(reader.varint());
    floor.last.term = Term(reader.varint());
    floor.last.index = LogIndex(reader.varint());
    directory.floors.push_back(floor);
  }
  if (!reader.finished()) return fail(ErrorCode::kMalformed, "directory of {} bytes", bytes.size());
  return directory;
}

// --- Laying out.

std::string MinimalLog::blank_ring(const MinimalLogOptions& options) {
  std::string ring;
  ring.reserve(options.sectors * kSectorBytes);
  for (uint64_t at = 0; at < options.sectors; ++at) {
    LogSector blank{.group = options.group, .node = options.self, .stamp = {.position = at}};
    blank.encode(ring);
  }
  return ring;
}

Status MinimalLog::lay_out(env::Disk& disk, const MinimalLogOptions& options, const Vote& vote,
                           const Membership& membership) {
  auto opened = disk.open(kPath, {.mode = env::OpenMode::kCreate});
  if (!opened && opened.error().code == ErrorCode::kAlreadyExists) {
    opened = disk.open(kPath, {.mode = env::OpenMode::kWrite});
  }
  if (!opened) return std::unexpected(opened.error());
  const std::string ring = blank_ring(options);
  for (uint64_t at = 0; at < ring.size(); at += kPieceSectors * kSectorBytes) {
    RETURN_IF_ERROR((*opened)->write(at, ByteView(ring).substr(at, kPieceSectors * kSectorBytes)));
  }
  RETURN_IF_ERROR((*opened)->sync());
  RETURN_IF_ERROR(disk.sync_directory(""));
  MinimalLog log(std::move(*opened), options, Boot(0));
  log.position_ = log.oldest_ = options.sectors;
  log.batch_ = 1;
  log.directory_ = {.vote = vote, .snapshot = {.membership = membership}, .first = LogIndex(1)};
  return log.put_batch({});
}

// --- Recovery.

enum class SectorState : uint8_t {
  kSound,
  kDamaged,  // or half written, or cannot be read
};

struct MinimalLog::Scan {
  struct Slot {
    SectorState state = SectorState::kDamaged;
    ReadSector read;
    bool readable = true;
  };
  std::vector<Slot> slots;
  uint64_t newest = 0;  // batch, of the sound sectors in their places
  uint64_t astray = 0;  // batch, of sound sectors found elsewhere than they belong
  uint64_t foreign = 0;
};

MinimalLog::Scan MinimalLog::scan(env::File& file, const MinimalLogOptions& options) {
  Scan scan;
  scan.slots.resize(options.sectors);
  std::string piece(kPieceSectors * kSectorBytes, '\0');
  for (uint64_t at = 0; at < options.sectors; ++at) {
    if (at % kPieceSectors == 0) {
      // One bad sector fails the whole read: then each is read by itself.
      if (!file.read(at * kSectorBytes, std::span<char>(piece))) piece.assign(piece.size(), '\0');
    }
    Scan::Slot& slot = scan.slots[at];
    auto look = [&](ByteView bytes) {
      slot.read = decode_sector(bytes);
      return slot.read.sound && slot.read.sector.stamp.position % options.sectors == at &&
             slot.read.sector.group == options.group && slot.read.sector.node == options.self;
    };
    bool sound = look(ByteView(piece).substr(at % kPieceSectors * kSectorBytes, kSectorBytes));
    for (int reads = 1; reads < kReadsMax && !sound; ++reads) {
      char again[kSectorBytes];
      slot.readable = file.read(at * kSectorBytes, again).has_value();
      sound = slot.readable && look(ByteView(again, kSectorBytes));
    }
    if (sound) {
      slot.state = SectorState::kSound;
      scan.newest = std::max(scan.newest, slot.read.sector.stamp.batch);
      continue;
    }
    if (!slot.readable) {
      slot.read = {};
      continue;
    }
    if (slot.read.sound) {
      const LogSector& sector = slot.read.sector;
      if (sector.group != options.group || sector.node != options.self) {
        ++scan.foreign;
      } else {
        scan.astray = std::max(scan.astray, sector.stamp.batch);
      }
      slot.read = {};
    }
  }
  return scan;
}

Result<MinimalLog::Opened> MinimalLog::open(env::Disk& disk, const MinimalLogOptions& options, Boot boot,
                                            const std::vector<SnapshotMark>& snapshots) {
  Opened opened;
  auto file = disk.open(kPath, {.mode = env::OpenMode::kWrite});
  uint64_t bytes = 0;
  if (file) {
    // What an earlier process left in the cache only is made durable before it is believed.
    RETURN_IF_ERROR((*file)->sync());
    ASSIGN_OR_RETURN(bytes, (*file)->size());
  } else if (file.error().code != ErrorCode::kNotFound) {
    return std::unexpected(file.error());
  }
  Scan found;
  if (bytes == options.sectors * kSectorBytes) found = scan(**file, options);
  if (found.newest == 0) {
    if (found.foreign > 0) return fail(ErrorCode::kForeign, "the log of another server");
    REACHED(sim_log_empty);
    file = {};
    RETURN_IF_ERROR(lay_out(disk, options, {}, {}));
    ASSIGN_OR_RETURN(auto again, disk.open(kPath, {.mode = env::OpenMode::kWrite}));
    opened.log.reset(new MinimalLog(std::move(again), options, boot));
    MinimalLog& log = *opened.log;
    // Behind the first batch of the layout.
    log.position_ = log.oldest_ = options.sectors + 2;
    log.previous_ = 1;
    log.batch_ = 2;
    log.directory_.first = LogIndex(1);
    opened.recovered.group = options.group;
    opened.recovered.certainty = Certainty::kEmpty;
    RETURN_IF_ERROR(log.put_batch({}));
    return opened;
  }
  opened.log.reset(new MinimalLog(std::move(*file), options, boot));
  opened.log->recover(found, snapshots, opened);
  RETURN_IF_ERROR(opened.log->put_batch({}));
  return opened;
}

void MinimalLog::recover(const Scan& scan, const std::vector<SnapshotMark>& snapshots, Opened& opened) {
  const uint64_t ring = options_.sectors;
  // The directories, newest last; and where the newest batch lies.
  std::map<uint64_t, LogDirectory> directories;
  uint64_t start = 0;
  uint64_t count = 0;
  uint64_t previous = 0;
  for (const Scan::Slot& slot : scan.slots) {
    if (slot.state != SectorState::kSound) continue;
    const LogSector& sector = slot.read.sector;
    if (sector.stamp.batch == scan.newest) {
      start = sector.stamp.position - sector.number;
      count = sector.count;
      previous = sector.previous;
    }
    if (sector.type != SectorType::kHead && sector.type != SectorType::kTail) continue;
    if (Result<LogDirectory> directory = LogDirectory::decode(sector.payload)) {
      directories.try_emplace(sector.stamp.batch, std::move(*directory));
    }
  }
  // A place of batch `batch` is torn if what stood there before still does, in whole or at its end (log_sector.h).
  const auto is_torn = [&](const Scan::Slot& slot, uint64_t position, uint64_t batch) {
    if (slot.state == SectorState::kSound) return slot.read.sector.stamp.batch < batch;
    if (!slot.readable) return false;
    const ReadSector& read = slot.read;
    if (read.back_is_whole) return read.back_position % ring == position % ring && read.back_batch < batch;
    return read.front.position == position && read.front.batch == batch && read.back_bits_off > kBitsChangedMax;
  };
  bool torn = false;
  for (uint64_t at = start; at < start + count; ++at) {
    torn = torn || is_torn(scan.slots[at % ring], at, scan.newest);
  }
  uint64_t newest_seen = std::max(scan.newest, scan.astray);
  bool uncertain = false;
  // Of a batch behind the newest sound one, no sector is sound: torn, or damaged.
  const uint64_t end = start + count;
  for (uint64_t at = end; at < end + ring / 2; ++at) {
    const Scan::Slot& slot = scan.slots[at % ring];
    if (slot.state == SectorState::kSound) continue;
    if (!slot.readable) {
      uncertain = uncertain || at == end;
      continue;
    }
    const ReadSector& read = slot.read;
    const uint64_t claims[] = {read.front.position == at ? read.front.batch : 0,
                               read.back_position == at ? read.back_batch : 0};
    for (uint64_t claimed : claims) {
      if (claimed <= scan.newest || claimed > scan.newest + kBatchesAhead) continue;
      newest_seen = std::max(newest_seen, claimed);
      // A batch has two sectors at least, and begins here: where the other is an old one, this one's tear was small.
      const uint64_t other = at == end ? end + 1 : end;
      uncertain = uncertain || !(is_torn(slot, at, claimed) || is_torn(scan.slots[other % ring], other, claimed));
    }
  }
  // Damage where something live may be: not in what is cut, nor ahead, where nothing live is.
  uint64_t damaged = 0;
  for (uint64_t at = end + ring / 2; at < end + ring; ++at) {
    const bool cut = torn && at >= start + ring;
    if (scan.slots[at % ring].state != SectorState::kSound && !cut) ++damaged;
  }
  opened.damaged_sectors = damaged;
  const uint64_t kept = torn ? previous : scan.newest;
  // A record that went elsewhere was written, and what was written behind the kept batch may have been acknowledged.
  uncertain = uncertain || scan.astray > kept || !directories.contains(kept);
  opened.torn = torn;
  if (torn) REACHED(sim_log_torn);
  if (uncertain) REACHED(sim_log_uncertain);

  Recovered& recovered = opened.recovered;
  recovered.group = options_.group;
  // Up to the kept batch; what is left of a torn one is not looked at.
  auto newest = directories.upper_bound(kept);
  // Where the log goes on: behind all that lies there, with a number never used.
  batch_ = newest_seen + 1;
  position_ = torn ? start : end;
  if (newest == directories.begin()) {
    // Sectors, and no directory to say what they mean.
    recovered.certainty = Certainty::kEmpty;
    directory_ = {.first = LogIndex(1)};
    previous_ = 0;
    oldest_ = position_;
    return;
  }
  --newest;
  directory_ = newest->second;
  previous_ = newest->first;
  recovered.certainty =
      uncertain ? (scan.newest > newest->first && !torn ? Certainty::kVoteUncertain : Certainty::kLastUncertain)
                : Certainty::kCertain;

  // Which snapshot: the newest file that the log reaches.
  SnapshotMark snapshot = directory_.snapshot;
  if (snapshot.last.index.value() > 0) {
    const auto usable = std::ranges::find_if(snapshots.rbegin(), snapshots.rend(), [&](const SnapshotMark& mark) {
      return mark.last.index <= directory_.snapshot.last.index && mark.last.index.next() >= directory_.first;
    });
    if (usable == snapshots.rend()) {
      // The state up to here is gone from this disk, and with it all that stands on it.
      REACHED(sim_log_no_snapshot);
      recovered.certainty = Certainty::kEmpty;
      recovered.vote = directory_.vote;
      directory_ = {.vote = directory_.vote, .first = LogIndex(1)};
      oldest_ = position_;
      return;
    }
    if (usable->last != snapshot.last) REACHED(sim_log_older_snapshot);
    snapshot = *usable;
  }

  // Entries: by index, whichever sector holds them.
  std::vector<std::vector<std::pair<Entry, uint64_t>>> found;
  if (directory_.last.index >= directory_.first) found.resize(directory_.last.index - directory_.first + 1);
  for (const Scan::Slot& slot : scan.slots) {
    if (slot.state != SectorState::kSound || slot.read.sector.type != SectorType::kEntry) continue;
    if (slot.read.sector.stamp.batch > kept) continue;
    Result<Entry> entry = entry_of(slot.read.sector.payload);
    if (!entry || entry->index < directory_.first || entry->index > directory_.last.index) continue;
    found[entry->index - directory_.first].emplace_back(std::move(*entry), slot.read.sector.stamp.position);
  }
  oldest_ = position_;
  for (size_t i = 0; i < found.size(); ++i) {
    const LogIndex index = directory_.first + i;
    const Term term = directory_.term_at(index);
    Kept kept_entry{.entry = {.index = index, .term = term, .type = EntryType::kHole}};
    std::pair<Entry, uint64_t>* newest_copy = nullptr;
    for (auto& copy : found[i]) {
      if (term.value() != 0 && copy.first.term != term) continue;
      if (newest_copy == nullptr || copy.second > newest_copy->second) newest_copy = &copy;
    }
    // Below the runs, an older copy would be taken for a newer one that is damaged.
    if (term.value() == 0 && damaged > 0) newest_copy = nullptr;
    if (newest_copy != nullptr) {
      kept_entry = {.entry = std::move(newest_copy->first), .position = newest_copy->second};
      oldest_ = std::min(oldest_, kept_entry.position);
    } else {
      REACHED(sim_log_hole);
    }
    entries_.push_back(std::move(kept_entry));
  }
  recovered.vote = directory_.vote;
  recovered.snapshot = snapshot;
  recovered.last =
      std::max(directory_.last.index, snapshot.last.index) == directory_.last.index ? directory_.last : snapshot.last;
  recovered.commit = directory_.commit;
  recovered.floors = directory_.floors;
  for (const Kept& each : entries_) recovered.entries.push_back(each.entry);
  directory_.snapshot = snapshot;
}

// --- Writing.

void MinimalLog::submit(const raft::Write& write, std::vector<Floor> floors) {
  Submitted& copy = submitted_.emplace_back();
  copy.sequence = write.sequence;
  copy.vote = write.vote;
  for (size_t i = 0; i < write.entries.size(); ++i) copy.entries.push_back(write.entries[i]);
  for (size_t i = 0; i < write.fills.size(); ++i) copy.fills.push_back(write.fills[i]);
  copy.snapshot = write.snapshot;
  copy.discard_log = write.discard_log;
  copy.keep_from = write.keep_from;
  copy.commit = write.commit;
  copy.floors = std::move(floors);
}

// In the order step.h says. `changed`: places in entries_ whose content must be written.
void MinimalLog::apply(Submitted& write, std::vector<size_t>& changed) {
  const auto forget_from = [&](size_t slot) { std::erase_if(changed, [&](size_t each) { return each >= slot; }); };
  if (write.discard_log) {
    entries_.clear();
    changed.clear();
  }
  if (entries_.empty() && !write.entries.empty()) directory_.first = write.entries.front().index;
  if (!write.entries.empty()) {
    const LogIndex begin = write.entries.front().index;
    ASSERT_CMP(begin, >=, directory_.first);
    ASSERT_CMP(begin, <=, directory_.first + entries_.size());
    entries_.resize(begin - directory_.first);
    forget_from(entries_.size());
    for (Entry& entry : write.entries) {
      ASSERT_CMP(entry.index, ==, directory_.first + entries_.size());
      changed.push_back(entries_.size());
      entries_.push_back({.entry = std::move(entry)});
    }
  }
  for (Entry& entry : write.fills) {
    // Replaced meanwhile by nothing: a fill is inside the log.
    ASSERT_CMP(entry.index, >=, directory_.first);
    ASSERT_CMP(entry.index, <, directory_.first + entries_.size());
    const size_t slot = entry.index - directory_.first;
    entries_[slot] = {.entry = std::move(entry)};
    if (std::ranges::find(changed, slot) == changed.end()) changed.push_back(slot);
  }
  if (write.snapshot) {
    directory_.snapshot = *write.snapshot;
    size_t dropped = 0;
    while (!entries_.empty() && directory_.first < write.keep_from) {
      entries_.pop_front();
      ++directory_.first;
      ++dropped;
    }
    if (entries_.empty()) directory_.first = std::max(directory_.first, write.keep_from);
    std::erase_if(changed, [&](size_t each) { return each < dropped; });
    for (size_t& each : changed) each -= dropped;
  }
  if (write.vote) directory_.vote = *write.vote;
  directory_.commit = std::max(directory_.commit, write.commit);
  directory_.floors = std::move(write.floors);
  const Position snapshot = directory_.snapshot.last;
  directory_.last =
      entries_.empty() ? snapshot : Position{.term = entries_.back().entry.term, .index = entries_.back().entry.index};
  if (directory_.last.index < snapshot.index) directory_.last = snapshot;
}

void MinimalLog::set_runs() {
  directory_.runs.clear();
  Term term;
  for (const Kept& each : entries_) {
    // The term of a hole may not be known: nothing is said of what lies before.
    if (each.entry.term.value() == 0) {
      directory_.runs.clear();
      term = Term();
      continue;
    }
    if (each.entry.term == term) continue;
    term = each.entry.term;
    directory_.runs.push_back({.first = each.entry.index, .term = term});
  }
}

Result<WriteSequence> MinimalLog::write_batch() {
  ASSERT(!submitted_.empty());
  std::vector<size_t> changed;
  WriteSequence sequence;
  while (!submitted_.empty()) {
    // A batch is a quarter of the ring at most; what is left goes with the next.
    if (changed.size() + submitted_.front().entries.size() + submitted_.front().fills.size() > options_.sectors / 4 &&
        sequence.value() != 0) {
      break;
    }
    apply(submitted_.front(), changed);
    sequence = submitted_.front().sequence;
    submitted_.pop_front();
  }
  set_runs();
  RETURN_IF_ERROR(write_entries(std::move(changed)));
  return sequence;
}

Status MinimalLog::write_mark() {
  return write_entries({});
}

// A batch may be torn, so it may not lie over anything live, nor may any that follows before the next chance to move
// what is live. So a sector that is live stays within three eighths of the ring behind the head: what falls back
// further is written again, in this batch, which then takes half of the ring at most.
Status MinimalLog::write_entries(std::vector<size_t> slots) {
  const uint64_t reach = options_.sectors / 8 * 3;
  if (position_ > oldest_ + reach) {
    oldest_ = position_;
    std::vector<bool> written(entries_.size());
    for (size_t slot : slots) written[slot] = true;
    for (size_t i = 0; i < entries_.size(); ++i) {
      const uint64_t at = entries_[i].position;
      if (at == kNowhere || written[i]) continue;
      if (at + reach >= position_) {
        oldest_ = std::min(oldest_, at);
      } else if (entries_[i].entry.type != EntryType::kHole) {
        REACHED(sim_log_relocated);
        slots.push_back(i);
      }
    }
  }
  ASSERT_CMP(slots.size() + 2, <=, options_.sectors / 8 * 5);
  std::ranges::sort(slots);
  return put_batch(slots);
}

Status MinimalLog::put_batch(const std::vector<size_t>& slots) {
  LogSector sector{.type = SectorType::kHead,
                   .group = options_.group,
                   .node = options_.self,
                   .stamp = {.position = position_, .batch = batch_, .boot = boot_.value()},
                   .previous = previous_,
                   .count = static_cast<uint16_t>(slots.size() + 2)};
  const std::string directory = directory_.encode(LogSector::kPayloadMax, options_.runs_max);
  std::string bytes;
  bytes.reserve((slots.size() + 2) * kSectorBytes);
  sector.payload = directory;
  sector.encode(bytes);
  sector.type = SectorType::kEntry;
  for (size_t slot : slots) {
    ++sector.number;
    entries_[slot].position = ++sector.stamp.position;
    sector.payload = entry_payload(entries_[slot].entry);
    sector.encode(bytes);
  }
  ++sector.number;
  ++sector.stamp.position;
  sector.type = SectorType::kTail;
  sector.payload = directory;
  sector.encode(bytes);
  last_start_ = position_;
  position_ = sector.stamp.position + 1;
  previous_ = batch_++;
  // The ring's end cuts it in two.
  const uint64_t ring = options_.sectors * kSectorBytes;
  const uint64_t at = sector.stamp.position - sector.number;
  const uint64_t offset = at % options_.sectors * kSectorBytes;
  const uint64_t first = std::min<uint64_t>(bytes.size(), ring - offset);
  RETURN_IF_ERROR(file_->write(offset, ByteView(bytes).substr(0, first)));
  if (first < bytes.size()) RETURN_IF_ERROR(file_->write(0, ByteView(bytes).substr(first)));
  return file_->sync();
}

// --- Looking at rest.

uint64_t MinimalLog::sector_of(LogIndex index) const {
  if (index < directory_.first || index >= directory_.first + entries_.size()) return kNowhere;
  const Kept& kept = entries_[index - directory_.first];
  return kept.position == kNowhere || kept.entry.type == EntryType::kHole ? kNowhere : kept.position % options_.sectors;
}

Result<std::vector<LogIndex>> MinimalLog::scrub(size_t count) {
  std::vector<LogIndex> lost;
  for (size_t i = 0; i < count && !entries_.empty(); ++i) {
    const Kept& kept = entries_[scrubbed_++ % entries_.size()];
    if (kept.position == kNowhere || kept.entry.type == EntryType::kHole) continue;
    bool sound = false;
    for (int reads = 0; reads < kReadsMax && !sound; ++reads) {
      char bytes[kSectorBytes];
      const Status status = file_->read(kept.position % options_.sectors * kSectorBytes, bytes);
      if (!status && status.error().code != ErrorCode::kUnreadable) return std::unexpected(status.error());
      if (!status) continue;
      const ReadSector read = decode_sector(ByteView(bytes, kSectorBytes));
      sound = read.sound && read.sector.stamp.position == kept.position;
    }
    if (!sound) lost.push_back(kept.entry.index);
  }
  std::ranges::sort(lost);
  return lost;
}

}  // namespace conclave::sim
