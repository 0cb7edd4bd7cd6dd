#include "wal/snapshot.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mark.h"

namespace conclave::wal {
namespace {

constexpr std::string_view kSuffix = ".snapshot";
constexpr std::string_view kUnfinishedSuffix = ".writing";
constexpr std::string_view kReceivedSuffix = ".receiving";
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

// "<16 hex>-<16 hex>-<16 hex>.snapshot": group, index, term.
std::optional<SnapshotName> parse_name(std::string_view name) {
  if (!name.ends_with(kSuffix) || name.size() != 50 + kSuffix.size() || name[16] != '-' || name[33] != '-') {
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
    if (const auto parsed = parse_name(name)) found.push_back(*parsed);
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
  // Newest first; the list is by group and index.
  for (size_t i = names.size(); i > 0; --i) {
    const SnapshotName& name = names[i - 1];
    const bool found = !survey.newest.empty() && survey.newest.back().group == name.group;
    if (found) continue;
    Status good = verify_snapshot(disk, name);
    if (good) {
      ASSIGN_OR_RETURN(const auto reader, SnapshotReader::open(disk, name));
      survey.newest.push_back(reader->header());
      continue;
    }
    REACHED(wal_snapshot_damaged);
    const ErrorCode code = good.error().code;
    if (code == ErrorCode::kIo || code == ErrorCode::kCrashed) return std::unexpected(std::move(good).error());
    survey.damaged.emplace_back(name, std::move(good).error());
  }
  std::ranges::reverse(survey.newest);
  return survey;
}

Result<std::string> read_snapshot_chunk(env::Disk& disk, const SnapshotName& name, uint64_t offset, size_t bytes_max) {
  ASSIGN_OR_RETURN(const auto file, disk.open(snapshot_path(name), {}));
  ASSIGN_OR_RETURN(const uint64_t size, file->size());
  std::string chunk(std::min<uint64_t>(bytes_max, size - std::min(size, offset)), '\0');
  if (!chunk.empty()) RETURN_IF_ERROR(file->read(offset, chunk));
  return chunk;
}

Result<std::unique_ptr<SnapshotReceiver>> SnapshotReceiver::begin(env::Disk& disk, ClusterId cluster,
                                                                  const SnapshotName& name) {
  RETURN_IF_ERROR(ensure_directory(disk));
  auto receiver = std::unique_ptr<SnapshotReceiver>(new SnapshotReceiver(disk, cluster, name));
  const std::string path = received_path(name);
  auto file = disk.open(path, {.mode = env::OpenMode::kWrite});
  if (!file && file.error().code != ErrorCode::kNotFound) return std::unexpected(std::move(file).error());
  if (file) {
    receiver->file_ = std::move(*file);
    if (auto reader = SnapshotReader::open_path(disk, path)) {
      REACHED(wal_snapshot_transfer_resumed);
      // As far as whole good blocks go; a footer is sent again.
      receiver->at_ = (*reader)->offset();
      std::string content;
      for (;;) {
        auto more = (*reader)->next(content);
        if (!more || !*more) break;
        receiver->at_ = (*reader)->offset();
      }
    }
    RETURN_IF_ERROR(receiver->file_->resize(receiver->at_));
  } else {
    ASSIGN_OR_RETURN(receiver->file_, disk.open(path, {.mode = env::OpenMode::kCreate}));
    RETURN_IF_ERROR(disk.sync_directory(kSnapshotDirectory));
  }
  RETURN_IF_ERROR(receiver->file_->sync());
  receiver->durable_ = receiver->at_;
  return receiver;
}

Status SnapshotReceiver::append(uint64_t offset, ByteView chunk) {
  if (offset != at_) return fail(ErrorCode::kOutOfRange, "a chunk at {}, expected at {}", offset, at_);
  RETURN_IF_ERROR(file_->write(at_, chunk));
  at_ += chunk.size();
  if (at_ - durable_ >= kReceiveSyncBytes) {
    RETURN_IF_ERROR(file_->sync());
    durable_ = at_;
  }
  return {};
}

Status SnapshotReceiver::check() {
  ASSIGN_OR_RETURN(const auto reader, SnapshotReader::open_path(disk_, received_path(name_)));
  if (reader->header().cluster != cluster_) {
    return fail(ErrorCode::kForeign, "a snapshot of cluster {}, this is {}", reader->header().cluster, cluster_);
  }
  if (reader->header().group != name_.group || reader->header().mark.last != name_.last) {
    return fail(ErrorCode::kMalformed, "a snapshot of group {} at index {}, not the one asked for",
                reader->header().group, reader->header().mark.last.index);
  }
  std::string content;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, reader->next(content));
    if (!more) return {};
  }
}

Result<SnapshotName> SnapshotReceiver::finish() {
  RETURN_IF_ERROR(file_->sync());
  durable_ = at_;
  Status good = check();
  if (!good) {
    const ErrorCode code = good.error().code;
    if (code != ErrorCode::kMalformed && code != ErrorCode::kForeign && code != ErrorCode::kVersion) {
      return std::unexpected(std::move(good).error());
    }
    REACHED(wal_snapshot_received_damaged);
    RETURN_IF_ERROR(abandon());
    return std::unexpected(std::move(good).error());
  }
  file_.reset();
  RETURN_IF_ERROR(disk_.rename(received_path(name_), snapshot_path(name_)));
  RETURN_IF_ERROR(disk_.sync_directory(kSnapshotDirectory));
  return name_;
}

Status SnapshotReceiver::abandon() {
  file_.reset();
  return disk_.remove(received_path(name_));
}

}  // namespace conclave::wal
