#include "sim/trace_disk.h"

#include <algorithm>

#include "base/assert.h"
#include "base/crc32c.h"

namespace conclave::sim {
namespace {

std::string directory_of(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string() : std::string(path.substr(0, slash));
}

constexpr size_t kNoPiece = SIZE_MAX;

}  // namespace

uint64_t TraceImage::hash() const {
  uint64_t hash = 0x9e3779b97f4a7c15ULL;
  const auto mix = [&](uint64_t value) {
    hash ^= value;
    hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9ULL;
    hash ^= hash >> 27;
  };
  const auto mix_bytes = [&](ByteView bytes) {
    mix(bytes.size());
    // Two checksums of different seeds: one alone is linear, and images differ by few bytes.
    mix((uint64_t{crc32c(bytes, 1)} << 32) | crc32c(bytes, 0x5bd1e995));
  };
  for (const auto& [path, content] : files) {
    mix_bytes(path);
    mix_bytes(content);
  }
  for (const std::string& path : directories) mix_bytes(path);
  return hash;
}

class TraceFile final : public env::File {
 public:
  TraceFile(TraceDisk& disk, std::shared_ptr<TraceDisk::Inode> inode, std::string_view path)
      : disk_(disk), inode_(std::move(inode)), path_(path) {}

  Status read(uint64_t offset, std::span<char> into) override {
    if (offset > inode_->current.size() || into.size() > inode_->current.size() - offset) {
      return fail(ErrorCode::kOutOfRange, "read past the end");
    }
    const auto bad = disk_.unreadable_.lower_bound({path_, offset / kSectorBytes});
    if (bad != disk_.unreadable_.end() && bad->first == path_ && bad->second * kSectorBytes < offset + into.size()) {
      return fail(ErrorCode::kUnreadable, "sector {} of {}", bad->second, path_);
    }
    inode_->current.copy(into.data(), into.size(), offset);
    return {};
  }
  Status write(uint64_t offset, ByteView bytes) override {
    RETURN_IF_ERROR(put(offset, bytes));
    return disk_.begin("write");
  }
  Status write_durable(uint64_t offset, ByteView bytes) override {
    RETURN_IF_ERROR(put(offset, bytes));
    RETURN_IF_ERROR(disk_.begin("write_durable"));
    settle();
    return {};
  }
  Status sync() override {
    RETURN_IF_ERROR(disk_.begin("sync"));
    settle();
    return {};
  }
  Result<uint64_t> size() override { return inode_->current.size(); }
  Status resize(uint64_t bytes) override {
    inode_->current.resize(bytes, '\0');
    inode_->unsynced_size = true;
    return disk_.begin("resize");
  }

 private:
  Status put(uint64_t offset, ByteView bytes) {
    const uint64_t end = offset + bytes.size();
    if (end > inode_->current.size()) {
      if (disk_.used() + (end - inode_->current.size()) > disk_.capacity_)
        return fail(ErrorCode::kNoSpace, "disk full");
      inode_->current.resize(end, '\0');
      inode_->unsynced_size = true;
    }
    bytes.copy(inode_->current.data() + offset, bytes.size());
    for (size_t sector = offset / kSectorBytes; sector * kSectorBytes < end; ++sector)
      inode_->unsynced_sectors.insert(sector);
    return {};
  }
  void settle() {
    inode_->durable = inode_->current;
    inode_->unsynced_sectors.clear();
    inode_->unsynced_size = false;
  }

  TraceDisk& disk_;
  std::shared_ptr<TraceDisk::Inode> inode_;
  std::string path_;
};

TraceDisk::TraceDisk(const TraceImage& image)
    : durable_directories_(image.directories), directories_(image.directories) {
  for (const auto& [path, content] : image.files) {
    auto inode = std::make_shared<Inode>();
    inode->durable = content;
    inode->current = content;
    names_[path] = inode;
    durable_names_[path] = inode;
  }
}

Status TraceDisk::begin(std::string_view call) {
  ++calls_;
  if (fail_in_ >= 0) {
    const bool fails = fail_in_ == 0;
    --fail_in_;
    if (fails) return fail(fail_code_, "{}: made to fail", call);
  }
  if (hook_) hook_(call);
  return {};
}

uint64_t TraceDisk::used() const {
  uint64_t bytes = 0;
  for (const auto& [path, inode] : names_) bytes += inode->current.size();
  return bytes;
}

void TraceDisk::apply(const NameChange& change, Names& names, std::set<std::string>& directories) {
  switch (change.kind) {
    case NameChange::Kind::kCreate:
      names[change.path] = change.inode;
      return;
    case NameChange::Kind::kRename: {
      // The file's first name may not have been kept: the new one may be, alone.
      names.erase(change.path);
      names[change.to] = change.inode;
      return;
    }
    case NameChange::Kind::kRemove:
      names.erase(change.path);
      return;
    case NameChange::Kind::kDirectory:
      directories.insert(change.path);
      return;
  }
}

// Files that a kept name can lead to, in a fixed order.
std::vector<std::shared_ptr<TraceDisk::Inode>> TraceDisk::unsynced_inodes() const {
  std::vector<std::shared_ptr<Inode>> inodes;
  const auto add = [&](const std::shared_ptr<Inode>& inode) {
    if (!inode || (inode->unsynced_sectors.empty() && !inode->unsynced_size)) return;
    if (std::ranges::find(inodes, inode) == inodes.end()) inodes.push_back(inode);
  };
  for (const auto& [path, inode] : durable_names_) add(inode);
  for (const NameChange& change : changes_) add(change.inode);
  return inodes;
}

size_t TraceDisk::unsynced() const {
  size_t pieces = changes_.size();
  for (const auto& inode : unsynced_inodes()) pieces += inode->unsynced_sectors.size() + (inode->unsynced_size ? 1 : 0);
  return pieces;
}

TraceImage TraceDisk::build(const std::vector<bool>& kept, size_t torn, size_t cut, bool keep_front) const {
  ASSERT_CMP(kept.size(), ==, unsynced());
  size_t piece = 0;
  Names names = durable_names_;
  TraceImage image;
  image.directories = durable_directories_;
  for (const NameChange& change : changes_) {
    if (kept[piece++]) apply(change, names, image.directories);
  }
  std::map<const Inode*, std::string> contents;
  for (const auto& inode : unsynced_inodes()) {
    std::string content = inode->durable;
    // Sectors written beyond the durable size are reached only if the new size was kept.
    const bool size_kept = inode->unsynced_size && kept[piece];
    if (inode->unsynced_size) ++piece;
    if (size_kept) content.resize(inode->current.size(), '\0');
    for (const size_t sector : inode->unsynced_sectors) {
      const size_t which = piece++;
      if (!kept[which] && which != torn) continue;
      const size_t at = sector * kSectorBytes;
      if (at >= content.size() || at >= inode->current.size()) continue;
      size_t from = 0;
      size_t to = std::min({kSectorBytes, content.size() - at, inode->current.size() - at});
      if (which == torn) {
        if (keep_front) {
          to = std::min(to, cut);
        } else {
          from = std::min(to, cut);
        }
      }
      content.replace(at + from, to - from, inode->current, at + from, to - from);
    }
    contents[inode.get()] = std::move(content);
  }
  for (const auto& [path, inode] : names) {
    if (!directory_of(path).empty() && !image.directories.contains(directory_of(path))) continue;
    const auto found = contents.find(inode.get());
    image.files[path] = found == contents.end() ? inode->durable : found->second;
  }
  return image;
}

TraceImage TraceDisk::crash(const std::vector<bool>& kept) const {
  return build(kept, kNoPiece, 0, true);
}

TraceImage TraceDisk::crash_torn(const std::vector<bool>& kept, size_t torn, size_t cut, bool keep_front) const {
  return build(kept, torn, cut, keep_front);
}

TraceImage TraceDisk::current() const {
  TraceImage image;
  image.directories = directories_;
  for (const auto& [path, inode] : names_) image.files[path] = inode->current;
  return image;
}

Result<std::unique_ptr<env::File>> TraceDisk::open(std::string_view path, env::OpenOptions options) {
  if (options.direct) return fail(ErrorCode::kInvalidArgument, "no direct writes here");
  const auto found = names_.find(std::string(path));
  if (options.mode != env::OpenMode::kCreate) {
    if (found == names_.end()) return fail(ErrorCode::kNotFound, "open {}: no such file", path);
    return std::make_unique<TraceFile>(*this, found->second, path);
  }
  if (found != names_.end()) return fail(ErrorCode::kAlreadyExists, "open {}: exists", path);
  auto inode = std::make_shared<Inode>();
  changes_.push_back({.kind = NameChange::Kind::kCreate, .path = std::string(path), .inode = inode});
  apply(changes_.back(), names_, directories_);
  RETURN_IF_ERROR(begin("create"));
  return std::make_unique<TraceFile>(*this, inode, path);
}

Status TraceDisk::rename(std::string_view from, std::string_view to) {
  const auto found = names_.find(std::string(from));
  if (found == names_.end()) return fail(ErrorCode::kNotFound, "rename {}: no such file", from);
  changes_.push_back(
      {.kind = NameChange::Kind::kRename, .path = std::string(from), .to = std::string(to), .inode = found->second});
  apply(changes_.back(), names_, directories_);
  return begin("rename");
}

Status TraceDisk::remove(std::string_view path) {
  const auto found = names_.find(std::string(path));
  if (found == names_.end()) return fail(ErrorCode::kNotFound, "remove {}: no such file", path);
  changes_.push_back({.kind = NameChange::Kind::kRemove, .path = std::string(path), .inode = found->second});
  apply(changes_.back(), names_, directories_);
  return begin("remove");
}

Status TraceDisk::create_directory(std::string_view path) {
  if (directories_.contains(std::string(path))) return fail(ErrorCode::kAlreadyExists, "mkdir {}: exists", path);
  changes_.push_back({.kind = NameChange::Kind::kDirectory, .path = std::string(path)});
  apply(changes_.back(), names_, directories_);
  return begin("create_directory");
}

Status TraceDisk::sync_directory(std::string_view path) {
  RETURN_IF_ERROR(begin("sync_directory"));
  std::vector<NameChange> left;
  for (const NameChange& change : changes_) {
    if (directory_of(change.path) == path) {
      apply(change, durable_names_, durable_directories_);
    } else {
      left.push_back(change);
    }
  }
  changes_ = std::move(left);
  return {};
}

Result<std::vector<std::string>> TraceDisk::list(std::string_view path) {
  if (!path.empty() && !directories_.contains(std::string(path)))
    return fail(ErrorCode::kNotFound, "list {}: none", path);
  std::vector<std::string> names;
  for (const auto& [file, inode] : names_) {
    if (directory_of(file) == path) names.push_back(file.substr(path.empty() ? 0 : path.size() + 1));
  }
  return names;
}

namespace {
class TraceLock final : public env::DirectoryLock {
 public:
  explicit TraceLock(bool& locked) : locked_(locked) { locked_ = true; }
  ~TraceLock() override { locked_ = false; }
  TraceLock(const TraceLock&) = delete;
  TraceLock& operator=(const TraceLock&) = delete;

 private:
  bool& locked_;
};
}  // namespace

Result<std::unique_ptr<env::DirectoryLock>> TraceDisk::lock() {
  if (locked_) return fail(ErrorCode::kLocked, "the directory is held");
  return std::make_unique<TraceLock>(locked_);
}

Result<uint64_t> TraceDisk::free_bytes() {
  return capacity_ - std::min(capacity_, used());
}

}  // namespace conclave::sim
