#include "sim/snapshot_store.h"

#include <algorithm>
#include <charconv>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mark.h"

namespace conclave::sim {
namespace {

// crc 4, bytes used 4, total bytes of state 8, term 8, index 8, sector number 8.
constexpr size_t kHeaderBytes = 40;
constexpr size_t kDataBytes = kSectorBytes - kHeaderBytes;
// Two at a time: one from the leader, one pulled from a neighbour.
constexpr size_t kTransfersMax = 2;

std::string file_of(Position last, ByteView content) {
  std::string file;
  uint64_t number = 0;
  for (size_t at = 0; at == 0 || at < content.size(); at += kDataBytes) {
    const ByteView piece = content.substr(at, kDataBytes);
    const size_t start = file.size();
    file.resize(start + kSectorBytes);
    char* sector = file.data() + start;
    store_le(sector + 4, static_cast<uint32_t>(piece.size()));
    store_le(sector + 8, uint64_t{content.size()});
    store_le(sector + 16, last.term.value());
    store_le(sector + 24, last.index.value());
    store_le(sector + 32, number++);
    std::memcpy(sector + kHeaderBytes, piece.data(), piece.size());
    store_le(sector, crc32c(ByteView(sector + 4, kSectorBytes - 4)));
  }
  return file;
}

// The data of a sector, or nothing if it is not the one it should be.
bool sector_is_sound(ByteView sector, Position last, uint64_t number) {
  return sector.size() == kSectorBytes && load_le<uint32_t>(&sector.front()) == crc32c(sector.substr(4)) &&
         load_le<uint64_t>(sector.data() + 16) == last.term.value() &&
         load_le<uint64_t>(sector.data() + 24) == last.index.value() &&
         load_le<uint64_t>(sector.data() + 32) == number && load_le<uint32_t>(sector.data() + 4) <= kDataBytes;
}

bool parse_name(std::string_view name, std::string_view kind, Position& last) {
  if (!name.starts_with(kind)) return false;
  name.remove_prefix(kind.size());
  uint64_t index = 0;
  uint64_t term = 0;
  const auto first = std::from_chars(name.data(), name.data() + name.size(), index);
  if (first.ec != std::errc() || first.ptr == name.data() + name.size() || *first.ptr != '-') return false;
  const auto second = std::from_chars(first.ptr + 1, name.data() + name.size(), term);
  last = {.term = Term(term), .index = LogIndex(index)};
  return second.ec == std::errc() && second.ptr == name.data() + name.size();
}

constexpr std::string_view kWhole = "snapshot-";
constexpr std::string_view kPartial = "partial-";

bool is_gone(const Status& status) {
  return status || status.error().code == ErrorCode::kNotFound;
}

}  // namespace

std::string SnapshotStore::name_of(Position last, std::string_view kind) {
  return fmt::format("{}{}-{}", kind, last.index, last.term);
}

Result<std::string> SnapshotStore::check(const std::string& path, Position last, SnapshotMark* mark) {
  ASSIGN_OR_RETURN(const auto file, disk_.open(path, {}));
  ASSIGN_OR_RETURN(const uint64_t size, file->size());
  if (size == 0 || size % kSectorBytes != 0) return fail(ErrorCode::kMalformed, "{}: {} bytes", path, size);
  std::string bytes(size, '\0');
  std::string content;
  for (int attempt = 0;; ++attempt) {
    content.clear();
    // A read may go astray once; damage stays.
    const Status status = file->read(0, std::span<char>(bytes));
    if (!status && status.error().code != ErrorCode::kUnreadable) return std::unexpected(status.error());
    bool sound = status.has_value();
    for (uint64_t number = 0; sound && number * kSectorBytes < size; ++number) {
      const ByteView sector = ByteView(bytes).substr(number * kSectorBytes, kSectorBytes);
      sound = sector_is_sound(sector, last, number);
      if (sound) content += sector.substr(kHeaderBytes, load_le<uint32_t>(sector.data() + 4));
    }
    sound = sound && content.size() == load_le<uint64_t>(bytes.data() + 8);
    if (sound) break;
    if (attempt == 2) return fail(ErrorCode::kMalformed, "{}: damaged", path);
  }
  ByteReader reader(content);
  const ByteView membership = reader.sized();
  ASSIGN_OR_RETURN(const Membership members, Membership::decode(membership));
  if (mark != nullptr) *mark = {.last = last, .membership = members};
  return std::string(reader.rest());
}

Result<std::vector<SnapshotMark>> SnapshotStore::open() {
  std::vector<SnapshotMark> marks;
  partial_.clear();
  ASSIGN_OR_RETURN(const std::vector<std::string> names, disk_.list(""));
  for (const std::string& name : names) {
    Position last;
    const bool whole = parse_name(name, kWhole, last);
    const bool partial = !whole && parse_name(name, kPartial, last);
    if (!whole && !partial) {
      if (name.ends_with(".new")) {
        if (Status removed = disk_.remove(name); !is_gone(removed)) return std::unexpected(removed.error());
      }
      continue;
    }
    // What is in the cache only is made durable before it is believed.
    auto file = disk_.open(name, {.mode = env::OpenMode::kWrite});
    if (!file && file.error().code == ErrorCode::kNotFound) continue;
    if (!file) return std::unexpected(file.error());
    RETURN_IF_ERROR((*file)->sync());
    if (partial) {
      ASSIGN_OR_RETURN(partial_[last], (*file)->size());
      REACHED(sim_snapshot_transfer_found);
      continue;
    }
    SnapshotMark mark;
    if (Result<std::string> state = check(name, last, &mark)) {
      marks.push_back(mark);
    } else if (state.error().code == ErrorCode::kCrashed || state.error().code == ErrorCode::kIo) {
      return std::unexpected(state.error());
    } else {
      REACHED(sim_snapshot_damaged);
      if (Status removed = disk_.remove(name); !is_gone(removed)) return std::unexpected(removed.error());
    }
  }
  RETURN_IF_ERROR(disk_.sync_directory(""));
  std::ranges::sort(marks, {}, [](const SnapshotMark& mark) { return mark.last.index; });
  return marks;
}

Status SnapshotStore::write(const SnapshotMark& mark, ByteView state) {
  ASSERT(!mark.membership.empty());
  std::string content;
  std::string membership;
  mark.membership.encode(membership);
  ByteWriter writer(content);
  writer.sized(membership);
  writer.raw(state);
  const std::string name = name_of(mark.last, kWhole);
  const std::string beside = name + ".new";
  auto write_beside = [&]() -> Status {
    ASSIGN_OR_RETURN(auto file, disk_.open(beside, {.mode = env::OpenMode::kCreate}));
    RETURN_IF_ERROR(file->write(0, file_of(mark.last, content)));
    return file->sync();
  };
  if (Status written = write_beside(); !written) {
    if (written.error().code == ErrorCode::kNoSpace) {
      REACHED(sim_snapshot_no_space);
      if (Status removed = disk_.remove(beside); !is_gone(removed)) return removed;
    }
    return written;
  }
  RETURN_IF_ERROR(disk_.rename(beside, name));
  return disk_.sync_directory("");
}

Result<std::string> SnapshotStore::load(Position last) {
  return check(name_of(last, kWhole), last, nullptr);
}

Result<SnapshotStore::Piece> SnapshotStore::read(Position last, uint64_t offset, uint64_t bytes_max) {
  const std::string name = name_of(last, kWhole);
  ASSIGN_OR_RETURN(const auto file, disk_.open(name, {}));
  Piece piece;
  ASSIGN_OR_RETURN(piece.total, file->size());
  if (offset > piece.total) return fail(ErrorCode::kOutOfRange, "{}: at {} of {}", name, offset, piece.total);
  const uint64_t bytes = std::min(bytes_max, piece.total - offset);
  if (bytes == 0) return piece;
  const uint64_t first = offset / kSectorBytes;
  const uint64_t last_sector = (offset + bytes - 1) / kSectorBytes;
  std::string sectors((last_sector - first + 1) * kSectorBytes, '\0');
  RETURN_IF_ERROR(file->read(first * kSectorBytes, std::span<char>(sectors)));
  for (uint64_t number = first; number <= last_sector; ++number) {
    if (!sector_is_sound(ByteView(sectors).substr((number - first) * kSectorBytes, kSectorBytes), last, number)) {
      return fail(ErrorCode::kMalformed, "{}: sector {} damaged", name, number);
    }
  }
  piece.bytes = sectors.substr(offset - first * kSectorBytes, bytes);
  return piece;
}

Status SnapshotStore::remove(Position last) {
  const Status removed = disk_.remove(name_of(last, kWhole));
  return is_gone(removed) ? Status() : removed;
}

Status SnapshotStore::remove_before(LogIndex index) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, disk_.list(""));
  for (const std::string& name : names) {
    Position last;
    const bool whole = parse_name(name, kWhole, last) && last.index < index;
    const bool partial = !whole && parse_name(name, kPartial, last) && last.index <= index;
    if (!whole && !partial) continue;
    if (partial) partial_.erase(last);
    if (Status removed = disk_.remove(name); !is_gone(removed)) return removed;
  }
  return {};
}

uint64_t SnapshotStore::received(Position last) const {
  const auto it = partial_.find(last);
  return it == partial_.end() ? 0 : it->second;
}

Result<bool> SnapshotStore::receive(const SnapshotMark& mark, uint64_t offset, uint64_t total, ByteView bytes) {
  const std::string name = name_of(mark.last, kPartial);
  const uint64_t have = received(mark.last);
  if (offset != have && have <= total) return false;
  if (have == 0) {
    while (partial_.size() >= kTransfersMax) {
      const Position oldest = partial_.begin()->first;
      if (Status removed = disk_.remove(name_of(oldest, kPartial)); !is_gone(removed)) {
        return std::unexpected(removed.error());
      }
      partial_.erase(oldest);
    }
  }
  if (have <= total) {
    auto file = disk_.open(name, {.mode = env::OpenMode::kWrite});
    if (!file && file.error().code == ErrorCode::kNotFound) {
      file = disk_.open(name, {.mode = env::OpenMode::kCreate});
      // The name was lost under a transfer that had begun.
      if (have > 0) partial_[mark.last] = 0;
      if (have > 0 && file) return false;
    }
    if (!file) return std::unexpected(file.error());
    RETURN_IF_ERROR((*file)->write(offset, bytes));
    RETURN_IF_ERROR((*file)->sync());
    partial_[mark.last] = have + bytes.size();
    if (have + bytes.size() < total) return false;
  }
  SnapshotMark found;
  Result<std::string> state = check(name, mark.last, &found);
  if (state && !(found == mark)) state = fail(ErrorCode::kMalformed, "{}: another membership", name);
  if (!state) {
    if (state.error().code == ErrorCode::kCrashed || state.error().code == ErrorCode::kIo) {
      return std::unexpected(state.error());
    }
    REACHED(sim_snapshot_transfer_damaged);
    partial_.erase(mark.last);
    if (Status removed = disk_.remove(name); !is_gone(removed)) return std::unexpected(removed.error());
    return fail(ErrorCode::kMalformed, "{}", state.error().message);
  }
  partial_.erase(mark.last);
  RETURN_IF_ERROR(disk_.rename(name, name_of(mark.last, kWhole)));
  RETURN_IF_ERROR(disk_.sync_directory(""));
  return true;
}

}  // namespace conclave::sim
