#include "wal/snapshot.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <span>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mark.h"

namespace conclave::wal {
namespace {

constexpr std::string_view kSuffix = ".snapshot";
constexpr std::string_view kUnfinishedSuffix = ".writing";
constexpr std::string_view kReceivedSuffix = ".receiving";
// Headers of blocks a sender looks at in one step: reads of 32 bytes each, a microsecond or so.
constexpr int kHeadersPerStep = 256;
// A transfer is made durable in steps of this: what a crash may cost is sent again.
constexpr uint64_t kReceiveSyncBytes = uint64_t{4} << 20;

std::string base_path(const SnapshotName& name) {
  return fmt::format("{}/{:016x}-{:016x}-{:016x}", kSnapshotDirectory, name.group, name.last.index, name.last.term);
}
std::string unfinished_path(const SnapshotName& name) {
  return base_path(name) + std::string(kUnfinishedSuffix);
}
std::string received_path(const SnapshotName& name) {
  return base_path(name) + std::string(kReceivedSuffix);
}

// "<16 hex>-<16 hex>-<16 hex>" and the suffix: group, index, term.
std::optional<SnapshotName> parse_name(std::string_view name, std::string_view suffix) {
  if (!name.ends_with(suffix) || name.size() != 50 + suffix.size() || name[16] != '-' || name[33] != '-' ||
      name.find_first_of("ABCDEF") != std::string_view::npos) {
    return std::nullopt;
  }
  const auto number = [&](size_t at, uint64_t& value) {
    const char* from = name.data() + at;
    const auto [end, error] = std::from_chars(from, from + 16, value, 16);
    return error == std::errc() && end == from + 16;
  };
  uint64_t group = 0;
  uint64_t index = 0;
  uint64_t term = 0;
  if (!number(0, group) || !number(17, index) || !number(34, term) || group == 0) return std::nullopt;
  return SnapshotName{.group = GroupId(group), .last = {.term = Term(term), .index = LogIndex(index)}};
}

Status ensure_directory(env::Disk& disk) {
  Status made = disk.create_directory(kSnapshotDirectory);
  if (!made && made.error().code == ErrorCode::kAlreadyExists) return {};
  RETURN_IF_ERROR(made);
  return disk.sync_directory("");
}

Result<std::vector<std::string>> names_in_directory(env::Disk& disk) {
  auto names = disk.list(kSnapshotDirectory);
  if (!names && names.error().code == ErrorCode::kNotFound) return std::vector<std::string>();
  return names;
}

Result<std::unique_ptr<env::File>> create_anew(env::Disk& disk, const std::string& path) {
  Status removed = disk.remove(path);
  if (!removed && removed.error().code != ErrorCode::kNotFound) return std::unexpected(std::move(removed).error());
  return disk.open(path, {.mode = env::OpenMode::kCreate});
}

// A step of looking at a file's blocks; false once all of it was good. `good_to` is where the last good block ends.
Result<bool> look_at_blocks(SnapshotReader& reader, uint64_t& good_to) {
  std::string content;
  for (size_t looked = 0; looked < kSnapshotStepBytes; looked += content.size()) {
    ASSIGN_OR_RETURN(const bool more, reader.next(content));
    if (!more) return false;
    good_to = reader.offset();
  }
  return true;
}

bool older(const SnapshotName& a, const SnapshotName& b) {
  return std::pair(a.group, a.last.index) < std::pair(b.group, b.last.index);
}

}  // namespace

std::string snapshot_path(const SnapshotName& name) {
  return base_path(name) + std::string(kSuffix);
}

Result<std::vector<SnapshotName>> list_snapshots(env::Disk& disk) {
  ASSIGN_OR_RETURN(const auto names, names_in_directory(disk));
  std::vector<SnapshotName> found;
  for (const std::string& name : names) {
    if (const auto parsed = parse_name(name, kSuffix)) found.push_back(*parsed);
  }
  std::ranges::sort(found, older);
  return found;
}

Status remove_unfinished_snapshots(env::Disk& disk) {
  ASSIGN_OR_RETURN(const auto names, names_in_directory(disk));
  for (const std::string& name : names) {
    if (name.ends_with(kUnfinishedSuffix)) RETURN_IF_ERROR(disk.remove(fmt::format("{}/{}", kSnapshotDirectory, name)));
  }
  // A process that was killed may have left names in the page cache alone; what is read here will be built on.
  Status synced = disk.sync_directory(kSnapshotDirectory);
  if (!synced && synced.error().code == ErrorCode::kNotFound) return {};
  return synced;
}

Status remove_abandoned_transfers(env::Disk& disk, const SnapshotSurvey& survey) {
  ASSIGN_OR_RETURN(const auto names, names_in_directory(disk));
  // What a transfer must be behind to be of use.
  std::map<GroupId, LogIndex> have;
  for (const SnapshotHeader& good : survey.good) have[good.group] = std::max(have[good.group], good.mark.last.index);
  std::vector<SnapshotName> transfers;
  for (const std::string& name : names) {
    if (const auto parsed = parse_name(name, kReceivedSuffix)) transfers.push_back(*parsed);
  }
  std::ranges::sort(transfers, older);
  for (auto transfer = transfers.rbegin(); transfer != transfers.rend(); ++transfer) {
    LogIndex& newest = have[transfer->group];
    if (transfer->last.index > newest) {
      newest = transfer->last.index;
      continue;
    }
    REACHED(wal_snapshot_transfer_abandoned);
    RETURN_IF_ERROR(disk.remove(received_path(*transfer)));
  }
  return {};
}

Result<SnapshotName> prune_snapshots(env::Disk& disk, GroupId group, LogIndex newest) {
  ASSIGN_OR_RETURN(auto names, list_snapshots(disk));
  std::erase_if(names, [&](const SnapshotName& name) { return name.group != group || name.last.index > newest; });
  if (names.empty()) return fail(ErrorCode::kNotFound, "group {}: no snapshot", group);
  const size_t dropped = names.size() - std::min(names.size(), kSnapshotsKept);
  for (size_t i = 0; i < dropped; ++i) RETURN_IF_ERROR(disk.remove(snapshot_path(names[i])));
  if (dropped > 0) RETURN_IF_ERROR(disk.sync_directory(kSnapshotDirectory));
  return names[dropped];
}

SnapshotWriter::SnapshotWriter(env::Disk& disk, const SnapshotHeader& header, bool compress)
    : disk_(disk), name_{.group = header.group, .last = header.mark.last}, compress_(compress) {}

Result<std::unique_ptr<SnapshotWriter>> SnapshotWriter::begin(env::Disk& disk, const SnapshotHeader& header,
                                                              bool compress) {
  RETURN_IF_ERROR(ensure_directory(disk));
  auto writer = std::unique_ptr<SnapshotWriter>(new SnapshotWriter(disk, header, compress));
  ASSIGN_OR_RETURN(writer->file_, create_anew(disk, unfinished_path(writer->name_)));
  encode_snapshot_header(header, writer->encoded_);
  writer->seed_ = snapshot_seed(writer->encoded_);
  RETURN_IF_ERROR(writer->write_out());
  return writer;
}

Status SnapshotWriter::write_out() {
  RETURN_IF_ERROR(file_->write(at_, encoded_));
  at_ += encoded_.size();
  encoded_.clear();
  return {};
}

Status SnapshotWriter::write_block(ByteView content) {
  encode_snapshot_block(content, footer_.blocks, compress_, seed_, encoded_);
  footer_.content_checksum = crc32c(content, footer_.content_checksum);
  footer_.content_bytes += content.size();
  ++footer_.blocks;
  return write_out();
}

Status SnapshotWriter::append(ByteView content) {
  while (!content.empty()) {
    const size_t part = std::min(content.size(), kSnapshotBlockBytes - content_.size());
    if (content_.empty() && part == kSnapshotBlockBytes) {
      RETURN_IF_ERROR(write_block(content.substr(0, part)));
    } else {
      content_.append(content.substr(0, part));
      if (content_.size() == kSnapshotBlockBytes) {
        RETURN_IF_ERROR(write_block(content_));
        content_.clear();
      }
    }
    content.remove_prefix(part);
  }
  return {};
}

Result<SnapshotName> SnapshotWriter::finish() {
  if (!content_.empty()) RETURN_IF_ERROR(write_block(content_));
  content_.clear();
  encode_snapshot_footer(footer_, seed_, encoded_);
  RETURN_IF_ERROR(write_out());
  RETURN_IF_ERROR(file_->sync());
  file_.reset();
  RETURN_IF_ERROR(disk_.rename(unfinished_path(name_), snapshot_path(name_)));
  RETURN_IF_ERROR(disk_.sync_directory(kSnapshotDirectory));
  return name_;
}

Status SnapshotWriter::abandon() {
  file_.reset();
  return disk_.remove(unfinished_path(name_));
}

Result<std::unique_ptr<SnapshotReader>> SnapshotReader::open(env::Disk& disk, const SnapshotName& name) {
  ASSIGN_OR_RETURN(auto reader, open_path(disk, snapshot_path(name)));
  if (reader->header_.group != name.group || reader->header_.mark.last != name.last) {
    return fail(ErrorCode::kMalformed, "{}: holds the snapshot of group {} at index {}", snapshot_path(name),
                reader->header_.group, reader->header_.mark.last.index);
  }
  return reader;
}

Result<std::unique_ptr<SnapshotReader>> SnapshotReader::open_path(env::Disk& disk, std::string_view path) {
  auto reader = std::unique_ptr<SnapshotReader>(new SnapshotReader);
  ASSIGN_OR_RETURN(reader->file_, disk.open(path, {}));
  ASSIGN_OR_RETURN(reader->size_, reader->file_->size());
  RETURN_IF_ERROR(reader->read(kSnapshotPrefixBytes, reader->bytes_));
  ASSIGN_OR_RETURN(const uint32_t length, snapshot_header_bytes(reader->bytes_));
  RETURN_IF_ERROR(reader->read(length, reader->bytes_));
  ASSIGN_OR_RETURN(reader->header_, decode_snapshot_header(reader->bytes_));
  reader->seed_ = snapshot_seed(reader->bytes_);
  reader->at_ = length;
  return reader;
}

Status SnapshotReader::read(uint64_t bytes, std::string& into) {
  if (bytes > size_ - std::min(size_, at_)) {
    return fail(ErrorCode::kMalformed, "snapshot: cut at {} of block {}", size_, footer_.blocks);
  }
  into.resize(bytes);
  return file_->read(at_, into);
}

Result<bool> SnapshotReader::next(std::string& content) {
  const auto here = [&](Error error) {
    error.message += fmt::format(" (at offset {})", at_);
    return std::unexpected(std::move(error));
  };
  static_assert(kBlockHeaderBytes == kSnapshotFooterBytes);
  if (Status got = read(kBlockHeaderBytes, bytes_); !got) return here(std::move(got).error());
  if (looks_like_footer(bytes_)) {
    auto footer = decode_snapshot_footer(bytes_, seed_);
    if (!footer) return here(std::move(footer).error());
    if (footer->blocks != footer_.blocks || footer->content_bytes != footer_.content_bytes ||
        footer->content_checksum != footer_.content_checksum) {
      return here({ErrorCode::kMalformed, "snapshot: the footer tells of other content"});
    }
    if (at_ + kSnapshotFooterBytes != size_) return here({ErrorCode::kMalformed, "snapshot: bytes behind the footer"});
    return false;
  }
  auto block = decode_block_header(bytes_, footer_.blocks, seed_);
  if (!block) return here(std::move(block).error());
  at_ += kBlockHeaderBytes;
  if (Status got = read(block->stored_bytes, bytes_); !got) return here(std::move(got).error());
  if (Status got = decode_block_content(*block, bytes_, seed_, content); !got) return here(std::move(got).error());
  at_ += block->stored_bytes;
  ++footer_.blocks;
  footer_.content_bytes += content.size();
  footer_.content_checksum = crc32c(content, footer_.content_checksum);
  return true;
}

Status verify_snapshot(env::Disk& disk, const SnapshotName& name) {
  ASSIGN_OR_RETURN(const auto reader, SnapshotReader::open(disk, name));
  std::string content;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, reader->next(content));
    if (!more) return {};
  }
}

Result<SnapshotSurvey> survey_snapshots(env::Disk& disk) {
  ASSIGN_OR_RETURN(const auto names, list_snapshots(disk));
  SnapshotSurvey survey;
  for (const SnapshotName& name : names) {
    Status good = verify_snapshot(disk, name);
    if (good) {
      ASSIGN_OR_RETURN(const auto reader, SnapshotReader::open(disk, name));
      survey.good.push_back(reader->header());
      continue;
    }
    REACHED(wal_snapshot_damaged);
    const ErrorCode code = good.error().code;
    if (code == ErrorCode::kIo || code == ErrorCode::kCrashed) return std::unexpected(std::move(good).error());
    survey.damaged.emplace_back(name, std::move(good).error());
  }
  return survey;
}

// ---- Sending ----

Result<std::unique_ptr<SnapshotSender>> SnapshotSender::open(env::Disk& disk, const SnapshotName& name) {
  // Checks the header and the name.
  ASSIGN_OR_RETURN(const auto reader, SnapshotReader::open(disk, name));
  auto sender = std::unique_ptr<SnapshotSender>(new SnapshotSender);
  ASSIGN_OR_RETURN(sender->file_, disk.open(snapshot_path(name), {}));
  ASSIGN_OR_RETURN(sender->size_, sender->file_->size());
  std::string header(reader->offset(), '\0');
  RETURN_IF_ERROR(sender->file_->read(0, header));
  sender->seed_ = snapshot_seed(header);
  sender->begins_.push_back(header.size());
  return sender;
}

Result<bool> SnapshotSender::find(uint64_t offset) {
  std::array<char, kBlockHeaderBytes> header{};
  for (int step = 0; step < kHeadersPerStep; ++step) {
    const uint64_t at = begins_.back();
    if (footer_found_ || offset < at) return true;
    if (header.size() > size_ - std::min(size_, at)) return fail(ErrorCode::kMalformed, "snapshot: cut at {}", size_);
    RETURN_IF_ERROR(file_->read(at, header));
    const ByteView bytes(header.data(), header.size());
    if (looks_like_footer(bytes)) {
      footer_found_ = true;
      return true;
    }
    ASSIGN_OR_RETURN(const SnapshotBlock block, decode_block_header(bytes, begins_.size() - 1, seed_));
    begins_.push_back(at + kBlockHeaderBytes + block.stored_bytes);
  }
  return false;
}

Result<std::string> SnapshotSender::read(uint64_t offset, size_t bytes_max) {
  if (offset >= size_) return std::string();
  const uint64_t end = offset + std::min<uint64_t>(bytes_max, size_ - offset);
  // From the block that holds the first byte; the header of the file counts as the begin of the first.
  auto number = static_cast<uint64_t>(std::ranges::upper_bound(begins_, offset) - begins_.begin());
  number -= number > 0 ? 1 : 0;
  const uint64_t from = offset < begins_.front() ? 0 : begins_[number];
  std::string bytes;
  const auto read_to = [&](uint64_t to) -> Status {
    if (to > size_) return fail(ErrorCode::kMalformed, "snapshot: cut at {} of block {}", size_, number);
    const size_t had = bytes.size();
    if (to - from <= had) return {};
    bytes.resize(to - from);
    return file_->read(from + had, std::span<char>(bytes).subspan(had));
  };
  RETURN_IF_ERROR(read_to(end));
  uint64_t at = from;
  if (at == 0) {
    at = begins_.front();
    RETURN_IF_ERROR(read_to(at));
    const auto header = decode_snapshot_header(ByteView(bytes).substr(0, at));
    if (!header) return std::unexpected(header.error());
  }
  while (at < end) {
    RETURN_IF_ERROR(read_to(at + kBlockHeaderBytes));
    const ByteView header = ByteView(bytes).substr(at - from, kBlockHeaderBytes);
    if (looks_like_footer(header)) {
      const auto footer = decode_snapshot_footer(header, seed_);
      if (!footer) return std::unexpected(footer.error());
      at += kSnapshotFooterBytes;
      if (at != size_) return fail(ErrorCode::kMalformed, "snapshot: bytes behind the footer");
      break;
    }
    ASSIGN_OR_RETURN(const SnapshotBlock block, decode_block_header(header, number, seed_));
    at += kBlockHeaderBytes + block.stored_bytes;
    RETURN_IF_ERROR(read_to(at));
    const ByteView stored = ByteView(bytes).substr(at - from - block.stored_bytes, block.stored_bytes);
    RETURN_IF_ERROR(check_block_stored(block, stored, seed_));
    ++number;
    if (number == begins_.size()) begins_.push_back(at);
  }
  return bytes.substr(offset - from, end - offset);
}

// ---- Receiving ----

Result<std::unique_ptr<SnapshotReceiver>> SnapshotReceiver::begin(env::Disk& disk, ClusterId cluster,
                                                                  const SnapshotName& name) {
  RETURN_IF_ERROR(ensure_directory(disk));
  auto receiver = std::unique_ptr<SnapshotReceiver>(new SnapshotReceiver(disk, cluster, name));
  const std::string path = received_path(name);
  auto file = disk.open(path, {.mode = env::OpenMode::kWrite});
  if (!file && file.error().code != ErrorCode::kNotFound) return std::unexpected(std::move(file).error());
  if (file) {
    receiver->file_ = std::move(*file);
    return receiver;
  }
  ASSIGN_OR_RETURN(receiver->file_, disk.open(path, {.mode = env::OpenMode::kCreate}));
  RETURN_IF_ERROR(disk.sync_directory(kSnapshotDirectory));
  RETURN_IF_ERROR(receiver->file_->sync());
  receiver->resumed_ = true;
  return receiver;
}

Result<bool> SnapshotReceiver::resume() {
  if (resumed_) return true;
  bool more = false;
  if (reader_ == nullptr) {
    if (auto reader = SnapshotReader::open_path(disk_, received_path(name_))) {
      REACHED(wal_snapshot_transfer_resumed);
      reader_ = std::move(*reader);
      at_ = reader_->offset();
    }
  }
  if (reader_ != nullptr) {
    // As far as whole good blocks go; a footer is sent again.
    const auto looked = look_at_blocks(*reader_, at_);
    more = looked && *looked;
  }
  if (more) return false;
  reader_.reset();
  RETURN_IF_ERROR(file_->resize(at_));
  RETURN_IF_ERROR(file_->sync());
  durable_ = at_;
  resumed_ = true;
  return true;
}

Status SnapshotReceiver::append(uint64_t offset, ByteView chunk) {
  ASSERT(resumed_);
  if (offset != at_) return fail(ErrorCode::kOutOfRange, "a chunk at {}, expected at {}", offset, at_);
  RETURN_IF_ERROR(file_->write(at_, chunk));
  at_ += chunk.size();
  if (at_ - durable_ >= kReceiveSyncBytes) {
    RETURN_IF_ERROR(file_->sync());
    durable_ = at_;
  }
  return {};
}

Status SnapshotReceiver::begin_check() {
  ASSIGN_OR_RETURN(reader_, SnapshotReader::open_path(disk_, received_path(name_)));
  if (reader_->header().cluster != cluster_) {
    return fail(ErrorCode::kForeign, "a snapshot of cluster {}, this is {}", reader_->header().cluster, cluster_);
  }
  if (reader_->header().group != name_.group || reader_->header().mark.last != name_.last) {
    return fail(ErrorCode::kMalformed, "a snapshot of group {} at index {}, not the one asked for",
                reader_->header().group, reader_->header().mark.last.index);
  }
  return {};
}

Result<bool> SnapshotReceiver::check() {
  ASSERT(resumed_);
  if (checked_) return true;
  if (durable_ != at_) {
    RETURN_IF_ERROR(file_->sync());
    durable_ = at_;
  }
  Result<bool> more = true;
  if (reader_ == nullptr) {
    if (Status begun = begin_check(); !begun) more = std::unexpected(std::move(begun).error());
  }
  uint64_t good_to = 0;
  if (more) more = look_at_blocks(*reader_, good_to);
  if (!more) {
    const ErrorCode code = more.error().code;
    if (code == ErrorCode::kMalformed || code == ErrorCode::kForeign || code == ErrorCode::kVersion ||
        code == ErrorCode::kUnreadable) {
      REACHED(wal_snapshot_received_damaged);
      RETURN_IF_ERROR(abandon());
    }
    return std::unexpected(std::move(more).error());
  }
  if (*more) return false;
  reader_.reset();
  checked_ = true;
  return true;
}

Result<SnapshotName> SnapshotReceiver::finish() {
  ASSERT(checked_);
  file_.reset();
  RETURN_IF_ERROR(disk_.rename(received_path(name_), snapshot_path(name_)));
  RETURN_IF_ERROR(disk_.sync_directory(kSnapshotDirectory));
  return name_;
}

Status SnapshotReceiver::abandon() {
  reader_.reset();
  file_.reset();
  return disk_.remove(received_path(name_));
}

}  // namespace conclave::wal
