#include "sim/disk.h"

#include <algorithm>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mark.h"

namespace conclave::sim {
namespace {

std::string_view parent_of(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

// Draws the fate of unsynced operations: mostly an even chance each, often all, none or a prefix, since those are the
// states real machines leave most.
class RandomCrash final : public CrashChooser {
 public:
  RandomCrash(Decisions& decisions, Decisions::Stream torn, uint64_t torn_per_million, Random random)
      : decisions_(decisions),
        torn_(torn),
        torn_per_million_(torn_per_million),
        random_(random),
        style_(random_.below(4)) {}
  size_t prefix(size_t count) override {
    if (style_ == 0) return 0;
    if (style_ == 1 || (style_ == 3 && random_.coin())) return count;
    return random_.below(count + 1);
  }
  bool keep_sector() override { return style_ != 3 || random_.coin(); }
  size_t torn_bytes() override {
    if (!decisions_.decide(torn_, torn_per_million_, 1'000'000)) return 0;
    return 1 + decisions_.detail(torn_).below(kSectorBytes - 1);
  }

 private:
  Decisions& decisions_;
  Decisions::Stream torn_;
  uint64_t torn_per_million_;
  Random random_;
  uint64_t style_;
};

class KeepNothing final : public CrashChooser {
 public:
  size_t prefix(size_t) override { return 0; }
  bool keep_sector() override { return false; }
  size_t torn_bytes() override { return 0; }
};

// Gives every sequence of choices, one a pass: the last that can grow grows, those after it start again.
class EveryCrash final : public CrashChooser {
 public:
  // All operations are considered: which sectors stay is chosen one by one, which covers the prefixes. For sizes and
  // names the prefix is the choice.
  size_t prefix(size_t count) override { return choose(count + 1); }
  bool keep_sector() override { return choose(2) == 1; }
  size_t torn_bytes() override { return 0; }
  bool next() {
    while (!path_.empty() && path_.back().chosen + 1 == path_.back().bound) path_.pop_back();
    if (path_.empty()) return false;
    ++path_.back().chosen;
    depth_ = 0;
    return true;
  }

 private:
  struct Choice {
    size_t chosen;
    size_t bound;
  };
  size_t choose(size_t bound) {
    if (depth_ == path_.size()) path_.push_back({0, bound});
    return path_[depth_++].chosen;
  }
  std::vector<Choice> path_;
  size_t depth_ = 0;
};

}  // namespace

// An open file. Dead once the life of the process that opened it is over.
class SimDisk::Handle final : public env::File {
 public:
  Handle(SimDisk& disk, std::shared_ptr<Inode> inode, std::string path, env::OpenOptions options)
      : disk_(disk), inode_(std::move(inode)), path_(std::move(path)), options_(options), life_(disk.life_) {}

  Status read(uint64_t offset, std::span<char> into) override {
    ASSIGN_OR_RETURN(const Call call, begin(false));
    disk_.end(call, disk_.options_.read_mean, into.size());
    if (offset > inode_->size() || into.size() > inode_->size() - offset) {
      return fail(ErrorCode::kOutOfRange, "read {} at {}: past the end", path_, offset);
    }
    if (into.empty()) return {};
    const uint64_t first = offset / kSectorBytes;
    const uint64_t last = (offset + into.size() - 1) / kSectorBytes;
    latent_faults(first, last);
    std::memcpy(into.data(), inode_->cache() + offset, into.size());
    if (disk_.faults_visible_ && !inode_->atlas().empty()) {
      for (const SectorFault& fault : inode_->atlas().between(first, last + 1)) {
        if (inode_->is_pending(fault.sector)) continue;  // the cache has newer bytes
        if (fault.kind == FaultKind::kUnreadableSector) {
          return fail(ErrorCode::kUnreadable, "read {}: sector {} unreadable", path_, fault.sector);
        }
        overlay(offset, into, fault.sector, fault.content);
      }
    }
    if (disk_.draw(FaultKind::kMisdirectedRead, disk_.streams_.misdirected_read)) {
      Random detail = disk_.decisions_.detail(disk_.streams_.misdirected_read);
      const uint64_t wanted = first + detail.below(last - first + 1);
      const uint64_t given = detail.below((inode_->size() + kSectorBytes - 1) / kSectorBytes);
      Sector content;
      std::memcpy(content.data(), inode_->cache() + given * kSectorBytes, kSectorBytes);
      overlay(offset, into, wanted, content);
      disk_.ever_damaged_ = true;
    }
    return {};
  }

  Status write(uint64_t offset, ByteView bytes) override {
    ASSIGN_OR_RETURN(const Call call, begin(true));
    RETURN_IF_ERROR(put(call, offset, bytes));
    disk_.end(call, disk_.options_.write_mean, bytes.size());
    if (call.dies) return crashed();
    return {};
  }

  Status write_durable(uint64_t offset, ByteView bytes) override {
    if (options_.direct) {
      ASSERT(offset % kBlockBytes == 0 && bytes.size() % kBlockBytes == 0);
      ASSERT(reinterpret_cast<uintptr_t>(bytes.data()) % kBlockBytes == 0);
    }
    ASSIGN_OR_RETURN(const Call call, begin(true));
    RETURN_IF_ERROR(put(call, offset, bytes));
    return flush(call, bytes.size());
  }

  Status sync() override {
    ASSIGN_OR_RETURN(const Call call, begin(true));
    return flush(call, 0);
  }

  Result<uint64_t> size() override {
    RETURN_IF_ERROR(alive());
    return inode_->size();
  }

  Status resize(uint64_t bytes) override {
    ASSIGN_OR_RETURN(const Call call, begin(true));
    if (options_.mode == env::OpenMode::kRead) return fail(ErrorCode::kInvalidArgument, "resize {}: read only", path_);
    RETURN_IF_ERROR(room(call, bytes));
    disk_.trace(2, inode_->id(), bytes);
    if (bytes != inode_->size()) inode_->resize(call.begins, bytes);
    disk_.end(call, disk_.options_.write_mean, 0);
    if (call.dies) return crashed();
    return {};
  }

 private:
  [[nodiscard]] Status alive() const {
    if (disk_.crashed_ || life_ != disk_.life_) return crashed();
    return {};
  }

  Result<Call> begin(bool mutates) {
    RETURN_IF_ERROR(alive());
    ASSIGN_OR_RETURN(const Call call, disk_.begin(mutates));
    inode_->settle(disk_.scheduler_.now());
    return call;
  }

  // An error if the file may not grow to `bytes`.
  Status room(const Call& call, uint64_t bytes) {
    if (bytes <= inode_->size()) return {};
    const uint64_t used = disk_.used_bytes();
    if (bytes - inode_->size() <= disk_.options_.capacity_bytes - std::min(used, disk_.options_.capacity_bytes))
      return {};
    disk_.end(call, disk_.options_.write_mean, 0);
    if (call.dies) return crashed();
    return fail(ErrorCode::kNoSpace, "write {}: no space", path_);
  }

  Status put(const Call& call, uint64_t offset, ByteView bytes) {
    if (options_.mode == env::OpenMode::kRead) return fail(ErrorCode::kInvalidArgument, "write {}: read only", path_);
    RETURN_IF_ERROR(room(call, offset + bytes.size()));
    disk_.trace(1, inode_->id() ^ (offset << 16), crc32c(bytes));
    if (bytes.empty()) return {};
    if (disk_.draw(FaultKind::kWriteError, disk_.streams_.write_error)) {
      // A part may have arrived.
      const uint64_t part = disk_.decisions_.detail(disk_.streams_.write_error).below(bytes.size() + 1);
      inode_->write(call.begins, offset, bytes.substr(0, part), {});
      disk_.end(call, disk_.options_.write_mean, bytes.size());
      return fail(ErrorCode::kIo, "write {}: input/output error", path_);
    }
    WriteFault fault;
    const uint64_t first = offset / kSectorBytes;
    const uint64_t sectors = (offset + bytes.size() - 1) / kSectorBytes - first + 1;
    if (disk_.draw(FaultKind::kStaleSector, disk_.streams_.stale)) {
      fault.kind = FaultKind::kStaleSector;
      fault.sector = first + disk_.decisions_.detail(disk_.streams_.stale).below(sectors);
      disk_.ever_damaged_ = true;
    } else if (disk_.draw(FaultKind::kMisdirectedWrite, disk_.streams_.misdirected_write)) {
      Random detail = disk_.decisions_.detail(disk_.streams_.misdirected_write);
      fault.kind = FaultKind::kMisdirectedWrite;
      fault.sector = first + detail.below(sectors);
      const uint64_t end = std::max(inode_->size(), offset + bytes.size());
      fault.other = detail.below((end + kSectorBytes - 1) / kSectorBytes);
      // Its own place would be no fault, and the rest of this write would cover it again.
      if (fault.other >= first && fault.other < first + sectors) fault.kind = FaultKind::kStaleSector;
      disk_.ever_damaged_ = true;
    }
    inode_->write(call.begins, offset, bytes, fault);
    return {};
  }

  Status flush(const Call& call, uint64_t bytes) {
    disk_.trace(3, inode_->id(), bytes);
    disk_.end(call, disk_.options_.sync_mean, bytes);
    if (call.dies) return crashed();
    if (disk_.draw(FaultKind::kSyncError, disk_.streams_.sync_error)) {
      RandomCrash chooser(disk_.decisions_, disk_.streams_.torn, 0, disk_.decisions_.detail(disk_.streams_.sync_error));
      inode_->drop_unsynced(call.begins, chooser);
      return fail(ErrorCode::kIo, "sync {}: input/output error", path_);
    }
    const bool lie = inode_->has_unsynced() && disk_.draw(FaultKind::kLyingSync, disk_.streams_.lying_sync);
    if (lie) disk_.ever_damaged_ = true;
    inode_->sync(disk_.busy_until_, lie);
    return {};
  }

  // Damage found by reading: it was there already, nobody had looked.
  void latent_faults(uint64_t first, uint64_t last) {
    if (disk_.draw(FaultKind::kCorruptSector, disk_.streams_.corrupt)) {
      Random detail = disk_.decisions_.detail(disk_.streams_.corrupt);
      disk_.corrupt(path_, first + detail.below(last - first + 1), detail);
    }
    if (disk_.draw(FaultKind::kUnreadableSector, disk_.streams_.unreadable)) {
      Random detail = disk_.decisions_.detail(disk_.streams_.unreadable);
      disk_.make_unreadable(path_, first + detail.below(last - first + 1));
    }
  }

  static void overlay(uint64_t offset, std::span<char> into, uint64_t sector, const Sector& content) {
    const uint64_t start = std::max(offset, sector * kSectorBytes);
    const uint64_t end = std::min(offset + into.size(), (sector + 1) * kSectorBytes);
    std::memcpy(into.data() + (start - offset), content.data() + (start - sector * kSectorBytes), end - start);
  }

  SimDisk& disk_;
  std::shared_ptr<Inode> inode_;
  std::string path_;
  env::OpenOptions options_;
  uint64_t life_;
};

class SimDisk::Lock final : public env::DirectoryLock {
 public:
  explicit Lock(SimDisk& disk) : disk_(disk), life_(disk.life_) { disk_.lock_life_ = life_; }
  ~Lock() override {
    if (disk_.lock_life_ == life_) disk_.lock_life_ = 0;
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  SimDisk& disk_;
  uint64_t life_;
};

SimDisk::SimDisk(const Scheduler& scheduler, Decisions& decisions, uint64_t target, const DiskOptions& options,
                 Digest* digest)
    : scheduler_(scheduler), decisions_(decisions), options_(options), digest_(digest), busy_until_(scheduler.now()) {
  streams_ = {
      .misdirected_read = decisions.stream(FaultKind::kMisdirectedRead, "disk.read.misdirected", target),
      .unreadable = decisions.stream(FaultKind::kUnreadableSector, "disk.read.unreadable", target),
      .corrupt = decisions.stream(FaultKind::kCorruptSector, "disk.read.corrupt", target),
      .stale = decisions.stream(FaultKind::kStaleSector, "disk.write.stale", target),
      .misdirected_write = decisions.stream(FaultKind::kMisdirectedWrite, "disk.write.misdirected", target),
      .write_error = decisions.stream(FaultKind::kWriteError, "disk.write.error", target),
      .sync_error = decisions.stream(FaultKind::kSyncError, "disk.sync.error", target),
      .lying_sync = decisions.stream(FaultKind::kLyingSync, "disk.sync.lying", target),
      .torn = decisions.stream(FaultKind::kTornWrite, "disk.crash.torn", target),
      .crash = decisions.stream(FaultKind::kUnsyncedLost, "disk.crash", target),
      .time = decisions.stream(FaultKind::kSlowDisk, "disk.time", target),
  };
}

// --- Calls.

std::unexpected<Error> SimDisk::crashed() {
  return fail(ErrorCode::kCrashed, "the machine lost power");
}

bool SimDisk::draw(FaultKind kind, Decisions::Stream stream) {
  return decisions_.decide(stream, options_.per_million[kind], 1'000'000);
}

void SimDisk::trace(uint64_t what, uint64_t first, uint64_t second) {
  if (digest_ == nullptr) return;
  digest_->add(what);
  digest_->add(first);
  digest_->add(second);
}

Result<SimDisk::Call> SimDisk::begin(bool mutates) {
  if (crashed_) return crashed();
  settle_names(tree_, scheduler_.now());
  Call call{.begins = std::max(scheduler_.now(), busy_until_)};
  if (!mutates) return call;
  ++mutations_;
  if (crash_countdown_ == UINT64_MAX) return call;
  if (crash_countdown_-- > 0) return call;
  crash_countdown_ = UINT64_MAX;
  call.dies = true;
  crashed_ = crashed_in_call_ = true;
  crashed_at_ = call.begins;
  REACHED(sim_crash_in_disk_call);
  return call;
}

void SimDisk::end(const Call& call, Duration mean, uint64_t bytes) {
  Duration takes = decisions_.exponential(streams_.time, mean) +
                   std::chrono::microseconds(static_cast<int64_t>(bytes / options_.bytes_per_microsecond));
  if (call.begins < slow_until_) takes *= static_cast<int64_t>(slow_factor_);
  Instant starts = call.begins;
  if (starts < hung_until_) starts = hung_until_;
  busy_until_ = starts + takes;
}

Duration SimDisk::elapsed() const {
  return std::max(Duration(0), busy_until_ - scheduler_.now());
}

std::shared_ptr<Inode> SimDisk::find(std::string_view path) const {
  if (faults_visible_ && missing_.contains(path)) return nullptr;
  const auto it = tree_.cached.find(path);
  return it == tree_.cached.end() ? nullptr : it->second.inode;
}

bool SimDisk::is_directory(std::string_view path) const {
  if (path.empty()) return true;
  const auto it = tree_.cached.find(path);
  return it != tree_.cached.end() && it->second.inode == nullptr;
}

Result<std::unique_ptr<env::File>> SimDisk::open(std::string_view path, env::OpenOptions options) {
  ASSIGN_OR_RETURN(const Call call, begin(options.mode == env::OpenMode::kCreate));
  end(call, options_.write_mean, 0);
  std::shared_ptr<Inode> inode = find(path);
  if (options.mode != env::OpenMode::kCreate) {
    if (inode == nullptr) return fail(ErrorCode::kNotFound, "open {}: not there", path);
    return std::make_unique<Handle>(*this, std::move(inode), std::string(path), options);
  }
  if (inode != nullptr || is_directory(path)) return fail(ErrorCode::kAlreadyExists, "open {}: exists", path);
  if (!is_directory(parent_of(path))) return fail(ErrorCode::kNotFound, "open {}: no such directory", path);
  trace(4, crc32c(path), 0);
  if (auto lost = missing_.find(path); lost != missing_.end()) missing_.erase(lost);
  inode = std::make_shared<Inode>(next_inode_++);
  tree_.operations.push_back({call.begins, NameChange::kCreate, std::string(path), {}, inode});
  apply(tree_.operations.back(), tree_.cached);
  if (call.dies) return crashed();
  return std::make_unique<Handle>(*this, std::move(inode), std::string(path), options);
}

Status SimDisk::rename(std::string_view from, std::string_view to) {
  ASSIGN_OR_RETURN(const Call call, begin(true));
  end(call, options_.write_mean, 0);
  if (is_directory(from) || is_directory(to)) return fail(ErrorCode::kInvalidArgument, "rename {}: a directory", from);
  std::shared_ptr<Inode> inode = find(from);
  if (inode == nullptr || !is_directory(parent_of(to))) return fail(ErrorCode::kNotFound, "rename {}: not there", from);
  trace(5, crc32c(from), crc32c(to));
  if (auto lost = missing_.find(to); lost != missing_.end()) missing_.erase(lost);
  if (from != to) {
    tree_.operations.push_back(
        {call.begins, NameChange::kRename, std::string(to), std::string(from), std::move(inode)});
    apply(tree_.operations.back(), tree_.cached);
  }
  if (call.dies) return crashed();
  return {};
}

Status SimDisk::remove(std::string_view path) {
  ASSIGN_OR_RETURN(const Call call, begin(true));
  end(call, options_.write_mean, 0);
  std::shared_ptr<Inode> inode = find(path);
  if (inode == nullptr && is_directory(path)) return fail(ErrorCode::kInvalidArgument, "remove {}: a directory", path);
  if (inode == nullptr) return fail(ErrorCode::kNotFound, "remove {}: not there", path);
  trace(6, crc32c(path), 0);
  tree_.operations.push_back({call.begins, NameChange::kRemove, std::string(path), {}, std::move(inode)});
  apply(tree_.operations.back(), tree_.cached);
  if (call.dies) return crashed();
  return {};
}

Status SimDisk::create_directory(std::string_view path) {
  ASSIGN_OR_RETURN(const Call call, begin(true));
  end(call, options_.write_mean, 0);
  if (is_directory(path) || find(path) != nullptr) return fail(ErrorCode::kAlreadyExists, "mkdir {}: exists", path);
  if (!is_directory(parent_of(path))) return fail(ErrorCode::kNotFound, "mkdir {}: no such directory", path);
  trace(7, crc32c(path), 0);
  tree_.operations.push_back({call.begins, NameChange::kCreate, std::string(path), {}, nullptr});
  apply(tree_.operations.back(), tree_.cached);
  if (call.dies) return crashed();
  return {};
}

Status SimDisk::sync_directory(std::string_view path) {
  ASSIGN_OR_RETURN(const Call call, begin(true));
  if (!is_directory(path)) return fail(ErrorCode::kNotFound, "fsync {}: no such directory", path);
  trace(8, crc32c(path), 0);
  end(call, options_.sync_mean, 0);
  if (call.dies) return crashed();
  if (draw(FaultKind::kSyncError, streams_.sync_error))
    return fail(ErrorCode::kIo, "fsync {}: input/output error", path);
  for (size_t i = 0; i < tree_.operations.size(); ++i) {
    NameOperation& operation = tree_.operations[i];
    if (parent_of(operation.path) != path) continue;
    operation.durable_at = std::min(operation.durable_at, busy_until_);
    // What happened to the same file before it is durable with it: names of one file keep their order.
    if (operation.inode == nullptr) continue;
    for (size_t k = 0; k < i; ++k) {
      NameOperation& before = tree_.operations[k];
      if (before.inode == operation.inode) before.durable_at = std::min(before.durable_at, operation.durable_at);
    }
  }
  return {};
}

Result<std::vector<std::string>> SimDisk::list(std::string_view path) {
  ASSIGN_OR_RETURN(const Call call, begin(false));
  end(call, options_.read_mean, 0);
  if (!is_directory(path)) return fail(ErrorCode::kNotFound, "list {}: no such directory", path);
  std::vector<std::string> names;
  for (const auto& [name, entry] : tree_.cached) {
    if (parent_of(name) != path || (faults_visible_ && missing_.contains(name))) continue;
    names.emplace_back(path.empty() ? name : name.substr(path.size() + 1));
  }
  std::ranges::sort(names);
  return names;
}

Result<std::unique_ptr<env::DirectoryLock>> SimDisk::lock() {
  if (crashed_) return crashed();
  if (lock_life_ == life_) return fail(ErrorCode::kLocked, "the data directory is in use");
  return std::make_unique<Lock>(*this);
}

Result<uint64_t> SimDisk::free_bytes() {
  if (crashed_) return crashed();
  const uint64_t used = used_bytes();
  return options_.capacity_bytes - std::min(used, options_.capacity_bytes);
}

uint64_t SimDisk::used_bytes() const {
  uint64_t used = 0;
  for (const auto& [name, entry] : tree_.cached) {
    if (entry.inode != nullptr) used += entry.inode->size();
  }
  return used;
}

// --- Names.

void SimDisk::apply(const NameOperation& operation, Names& names) {
  switch (operation.change) {
    case NameChange::kCreate:
      names[operation.path] = {operation.inode};
      return;
    case NameChange::kRename:
      if (auto from = names.find(operation.from); from != names.end() && from->second.inode == operation.inode) {
        names.erase(from);
      }
      names[operation.path] = {operation.inode};
      return;
    case NameChange::kRemove:
      if (auto it = names.find(operation.path); it != names.end() && it->second.inode == operation.inode)
        names.erase(it);
      return;
  }
}

void SimDisk::settle_names(Tree& tree, Instant now) {
  std::erase_if(tree.operations, [&](const NameOperation& operation) {
    if (operation.durable_at > now) return false;
    apply(operation, tree.durable);
    return true;
  });
}

uint64_t SimDisk::lose_names(Tree& tree, Instant at, CrashChooser& chooser) {
  settle_names(tree, at);
  std::erase_if(tree.operations, [at](const NameOperation& operation) { return operation.begins > at; });
  // For each file, in the order of its first change, how many of its changes stay. A directory is its own "file".
  const auto same = [](const NameOperation& a, const NameOperation& b) {
    return a.inode == b.inode && (a.inode != nullptr || a.path == b.path);
  };
  std::vector<bool> kept(tree.operations.size(), false);
  std::vector<bool> seen(tree.operations.size(), false);
  for (size_t i = 0; i < tree.operations.size(); ++i) {
    if (seen[i]) continue;
    std::vector<size_t> changes;
    for (size_t k = i; k < tree.operations.size(); ++k) {
      if (!same(tree.operations[i], tree.operations[k])) continue;
      seen[k] = true;
      changes.push_back(k);
    }
    const size_t stay = chooser.prefix(changes.size());
    for (size_t k = 0; k < stay; ++k) kept[changes[k]] = true;
  }
  uint64_t lost = 0;
  for (size_t i = 0; i < tree.operations.size(); ++i) {
    if (kept[i]) {
      apply(tree.operations[i], tree.durable);
    } else {
      ++lost;
    }
  }
  // A file whose directory did not survive is nowhere. A directory's name sorts before those in it.
  for (auto it = tree.durable.begin(); it != tree.durable.end();) {
    const std::string_view parent = parent_of(it->first);
    it = parent.empty() || tree.durable.contains(parent) ? std::next(it) : tree.durable.erase(it);
  }
  tree.operations.clear();
  tree.cached = tree.durable;
  return lost;
}

std::vector<std::shared_ptr<Inode>> SimDisk::inodes_of(const Tree& tree) {
  std::vector<std::shared_ptr<Inode>> inodes;
  for (const auto& [name, entry] : tree.durable) inodes.push_back(entry.inode);
  for (const auto& [name, entry] : tree.cached) inodes.push_back(entry.inode);
  for (const NameOperation& operation : tree.operations) inodes.push_back(operation.inode);
  std::erase(inodes, nullptr);
  std::ranges::sort(inodes, {}, [](const auto& inode) { return inode->id(); });
  const auto repeated = std::ranges::unique(inodes);
  inodes.erase(repeated.begin(), repeated.end());
  return inodes;
}

Inode::CrashLosses SimDisk::lose_power(Tree& tree, Instant at, CrashChooser& chooser, uint64_t& names_lost) {
  Inode::CrashLosses losses;
  for (const std::shared_ptr<Inode>& inode : inodes_of(tree)) {
    const Inode::CrashLosses lost = inode->lose_power(at, chooser);
    losses.sectors_lost += lost.sectors_lost;
    losses.sectors_torn += lost.sectors_torn;
  }
  names_lost = lose_names(tree, at, chooser);
  return losses;
}

SimDisk::Tree SimDisk::copy_of(const Tree& tree) {
  std::map<uint64_t, std::shared_ptr<Inode>> copies;
  for (const std::shared_ptr<Inode>& inode : inodes_of(tree)) copies[inode->id()] = std::make_shared<Inode>(*inode);
  Tree copy = tree;
  const auto replace = [&](std::shared_ptr<Inode>& inode) {
    if (inode != nullptr) inode = copies[inode->id()];
  };
  for (auto& [name, entry] : copy.durable) replace(entry.inode);
  for (auto& [name, entry] : copy.cached) replace(entry.inode);
  for (NameOperation& operation : copy.operations) replace(operation.inode);
  return copy;
}

// --- Life and death.

void SimDisk::crash_after(uint64_t calls) {
  crash_countdown_ = calls;
}

void SimDisk::crash(CrashMode mode) {
  const Instant at = crashed_in_call_ ? std::max(crashed_at_, scheduler_.now()) : scheduler_.now();
  if (mode == CrashMode::kPowerLoss) {
    // Chance, not a fault: which legal state it is. That something was lost is counted.
    RandomCrash chooser(decisions_, streams_.torn, options_.per_million[FaultKind::kTornWrite],
                        Random(decisions_.choose(streams_.crash, UINT64_MAX)));
    uint64_t names_lost = 0;
    const Inode::CrashLosses losses = lose_power(tree_, at, chooser, names_lost);
    if (losses.sectors_lost > 0) decisions_.count(FaultKind::kUnsyncedLost);
    if (names_lost > 0) decisions_.count(FaultKind::kNameLost);
    if (losses.sectors_torn > 0) ever_damaged_ = true;
    trace(9, losses.sectors_lost, names_lost);
  } else {
    for (const std::shared_ptr<Inode>& inode : inodes_of(tree_)) inode->lose_process(at);
    settle_names(tree_, at);
    const size_t begun = tree_.operations.size();
    std::erase_if(tree_.operations, [at](const NameOperation& operation) { return operation.begins > at; });
    if (tree_.operations.size() != begun) {
      tree_.cached = tree_.durable;
      for (const NameOperation& operation : tree_.operations) apply(operation, tree_.cached);
    }
    trace(10, begun, tree_.operations.size());
  }
  crashed_ = true;
  crashed_in_call_ = false;
  crash_countdown_ = UINT64_MAX;
  ++life_;
  lock_life_ = 0;
}

void SimDisk::restart() {
  if (!crashed_) return;
  crashed_ = crashed_in_call_ = false;
  crash_countdown_ = UINT64_MAX;
  busy_until_ = scheduler_.now();
}

// --- Faults imposed.

void SimDisk::slow_until(Instant until, uint64_t factor) {
  slow_until_ = until;
  slow_factor_ = factor;
}

void SimDisk::heal_episodes() {
  hung_until_ = slow_until_ = Instant{};
  crash_countdown_ = UINT64_MAX;
}

bool SimDisk::corrupt(std::string_view path, uint64_t sector, Random& random) {
  const std::shared_ptr<Inode> inode = find(path);
  if (inode == nullptr) return false;
  inode->settle(scheduler_.now());
  if (sector * kSectorBytes >= inode->platter_size()) return false;
  SectorFault fault{.sector = sector, .kind = FaultKind::kCorruptSector, .content = inode->visible(sector)};
  // One bit, a few, or the whole sector: checksums differ in which of these they find. Only bytes the file has.
  const uint64_t bytes = std::min<uint64_t>(kSectorBytes, inode->platter_size() - sector * kSectorBytes);
  const uint64_t style = random.below(3);
  const uint64_t flips = style == 0 ? 1 : style == 1 ? 2 + random.below(7) : bytes;
  for (uint64_t i = 0; i < flips; ++i) {
    char& byte = fault.content[random.below(bytes)];
    byte = static_cast<char>(static_cast<unsigned char>(byte) ^ (1U << random.below(8)));
  }
  // Two flips of one bit undo each other.
  if (std::memcmp(fault.content.data(), inode->platter() + sector * kSectorBytes, bytes) == 0) {
    fault.content[0] = static_cast<char>(static_cast<unsigned char>(fault.content[0]) ^ 1U);
  }
  inode->atlas().put(fault);
  ever_damaged_ = true;
  return true;
}

bool SimDisk::make_unreadable(std::string_view path, uint64_t sector) {
  const std::shared_ptr<Inode> inode = find(path);
  if (inode == nullptr) return false;
  inode->settle(scheduler_.now());
  if (sector * kSectorBytes >= inode->platter_size()) return false;
  inode->atlas().put({.sector = sector, .kind = FaultKind::kUnreadableSector});
  ever_damaged_ = true;
  return true;
}

size_t SimDisk::damage_random(FaultKind kind, size_t count, Random& random) {
  std::vector<std::pair<std::string, uint64_t>> files;  // with sectors on the platter
  uint64_t sectors = 0;
  for (const auto& [name, entry] : tree_.cached) {
    if (entry.inode == nullptr || missing_.contains(name)) continue;
    entry.inode->settle(scheduler_.now());
    if (entry.inode->platter_size() == 0) continue;
    files.emplace_back(name, (entry.inode->platter_size() + kSectorBytes - 1) / kSectorBytes);
    sectors += files.back().second;
  }
  if (sectors == 0) return 0;
  size_t damaged = 0;
  for (size_t i = 0; i < count; ++i) {
    uint64_t place = random.below(sectors);
    size_t file = 0;
    while (place >= files[file].second) place -= files[file++].second;
    const auto& [path, size] = files[file];
    if (kind == FaultKind::kUnreadableSector) {
      damaged += make_unreadable(path, place) ? 1 : 0;
    } else if (kind == FaultKind::kStaleSector) {
      const std::shared_ptr<Inode> inode = find(path);
      const SectorFault fault{.sector = place, .kind = kind, .content = inode->visible(random.below(size))};
      if (std::memcmp(fault.content.data(), inode->platter() + place * kSectorBytes, kSectorBytes) == 0) continue;
      inode->atlas().put(fault);
      ever_damaged_ = true;
      ++damaged;
    } else {
      damaged += corrupt(path, place, random) ? 1 : 0;
    }
  }
  return damaged;
}

bool SimDisk::lose_file(std::string_view path) {
  if (find(path) == nullptr) return false;
  missing_.emplace(path);
  ever_damaged_ = true;
  return true;
}

void SimDisk::lose_all() {
  tree_ = {};
  missing_.clear();
  ever_damaged_ = true;
  whole_disk_fault_ = WholeDiskFault::kLost;
}

void SimDisk::replace() {
  lose_all();
  ++disk_;
  ever_damaged_ = false;
  whole_disk_fault_ = WholeDiskFault::kNone;
}

bool SimDisk::roll_back(const DiskImage& image) {
  if (image.disk_ != disk_) return false;
  Tree tree;
  tree.durable = tree.cached = image.names_;
  tree_ = copy_of(tree);
  missing_.clear();
  ever_damaged_ = true;
  whole_disk_fault_ = WholeDiskFault::kRolledBack;
  return true;
}

// --- What is true.

std::vector<DamagedRange> SimDisk::damage() const {
  std::vector<DamagedRange> ranges;
  for (const auto& [name, entry] : tree_.cached) {
    if (entry.inode == nullptr) continue;
    Inode& inode = *entry.inode;
    inode.settle(scheduler_.now());
    if (missing_.contains(name)) {
      ranges.push_back({name, 0, inode.size(), FaultKind::kMissingFile, inode.is_acknowledged(0)});
      continue;
    }
    for (const SectorFault& fault : inode.atlas().all()) {
      if (inode.is_pending(fault.sector)) continue;
      const bool acknowledged = inode.is_acknowledged(fault.sector);
      const uint64_t offset = fault.sector * kSectorBytes;
      if (offset >= inode.size()) continue;
      const uint64_t bytes = std::min<uint64_t>(kSectorBytes, inode.size() - offset);
      // A replacement equal to the truth harms nobody.
      if (fault.kind != FaultKind::kUnreadableSector &&
          std::memcmp(fault.content.data(), inode.platter() + offset, bytes) == 0) {
        continue;
      }
      if (!ranges.empty() && ranges.back().path == name && ranges.back().kind == fault.kind &&
          ranges.back().acknowledged == acknowledged && ranges.back().offset + ranges.back().bytes == offset) {
        ranges.back().bytes += bytes;
      } else {
        ranges.push_back({name, offset, bytes, fault.kind, acknowledged});
      }
    }
  }
  return ranges;
}

bool SimDisk::is_damaged(std::string_view path, uint64_t offset, uint64_t bytes) const {
  return std::ranges::any_of(damage(), [&](const DamagedRange& range) {
    return range.path == path && range.offset < offset + bytes && offset < range.offset + range.bytes;
  });
}

Status SimDisk::truth(std::string_view path, uint64_t offset, std::span<char> into) const {
  const auto it = tree_.cached.find(path);
  if (it == tree_.cached.end() || it->second.inode == nullptr) return fail(ErrorCode::kNotFound, "{}: not there", path);
  const Inode& inode = *it->second.inode;
  if (offset > inode.size() || into.size() > inode.size() - offset)
    return fail(ErrorCode::kOutOfRange, "{}: past the end", path);
  if (!into.empty()) std::memcpy(into.data(), inode.cache() + offset, into.size());
  return {};
}

Result<uint64_t> SimDisk::true_size(std::string_view path) const {
  const auto it = tree_.cached.find(path);
  if (it == tree_.cached.end() || it->second.inode == nullptr) return fail(ErrorCode::kNotFound, "{}: not there", path);
  return it->second.inode->size();
}

bool SimDisk::was_acknowledged(std::string_view path, uint64_t sector) const {
  const auto it = tree_.cached.find(path);
  if (it == tree_.cached.end() || it->second.inode == nullptr) return false;
  it->second.inode->settle(scheduler_.now());
  return it->second.inode->is_acknowledged(sector);
}

// --- States.

DiskImage SimDisk::durable_image() const {
  Tree copy = copy_of(tree_);
  KeepNothing nothing;
  uint64_t names_lost = 0;
  lose_power(copy, scheduler_.now(), nothing, names_lost);
  DiskImage image;
  image.names_ = std::move(copy.durable);
  image.disk_ = disk_;
  return image;
}

bool SimDisk::for_each_crash_state(size_t choices_max, const std::function<void(const DiskImage&)>& visit) const {
  EveryCrash chooser;
  std::set<std::string> seen;
  for (size_t tried = 0; tried < choices_max; ++tried) {
    Tree copy = copy_of(tree_);
    uint64_t names_lost = 0;
    lose_power(copy, scheduler_.now(), chooser, names_lost);
    DiskImage image;
    image.names_ = std::move(copy.durable);
    image.disk_ = disk_;
    if (seen.insert(image.fingerprint()).second) visit(image);
    if (!chooser.next()) return true;
  }
  return false;
}

std::vector<std::string> DiskImage::paths() const {
  std::vector<std::string> paths;
  for (const auto& [name, entry] : names_) {
    if (entry.inode != nullptr) paths.push_back(name);
  }
  return paths;
}

bool DiskImage::has(std::string_view path) const {
  return names_.contains(path);
}

std::string DiskImage::content(std::string_view path) const {
  const auto it = names_.find(path);
  ASSERT(it != names_.end() && it->second.inode != nullptr);
  return std::string(it->second.inode->platter(), it->second.inode->platter_size());
}

std::string DiskImage::fingerprint() const {
  std::string text;
  ByteWriter writer(text);
  for (const auto& [name, entry] : names_) {
    writer.sized(name);
    writer.fixed<uint8_t>(entry.inode == nullptr ? 0 : 1);
    if (entry.inode != nullptr) writer.sized(content(name));
  }
  return text;
}

}  // namespace conclave::sim
