// TraceDisk: a small disk in memory that stops at every storage call and can show every state a loss of power at that
// moment may leave: any subset of the sectors written since the last sync of their file, any of the names not synced,
// any change of size not synced. For enumerating crashes of small logs; the simulator's own disk (disk.h) draws faults
// instead.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "env/disk.h"

namespace conclave::sim {

// What lies on the disk: contents by path, directories apart.
struct TraceImage {
  std::map<std::string, std::string> files;
  std::set<std::string> directories;

  // 64 bits over names and contents: two images with the same are counted as one.
  [[nodiscard]] uint64_t hash() const;
};

class TraceDisk final : public env::Disk {
 public:
  TraceDisk() = default;
  // All of the image is durable.
  explicit TraceDisk(const TraceImage& image);

  // Called in the middle of each storage call: its effect is under way and nothing of it is promised. Not called by
  // reads.
  void set_hook(std::function<void(std::string_view call)> hook) { hook_ = std::move(hook); }

  // What a loss of power now may or may not keep, one bit each: sectors, names, sizes.
  [[nodiscard]] size_t unsynced() const;
  // The disk after a loss of power that kept the unsynced pieces for which `kept` has a true. Sizes follow the sectors
  // kept.
  [[nodiscard]] TraceImage crash(const std::vector<bool>& kept) const;
  // As above, but of the unsynced piece `torn` only bytes before `cut` are new (or only those from `cut` on). Nothing
  // where that piece is no sector.
  [[nodiscard]] TraceImage crash_torn(const std::vector<bool>& kept, size_t torn, size_t cut, bool keep_front) const;
  // Everything as the running program sees it.
  [[nodiscard]] TraceImage current() const;
  // Storage calls made so far, reads apart.
  [[nodiscard]] uint64_t calls() const { return calls_; }
  // Bytes free from now on; writes that need more fail with kNoSpace.
  void set_capacity(uint64_t bytes) { capacity_ = bytes; }
  // Reads that touch this sector fail with kUnreadable.
  void make_unreadable(std::string_view path, size_t sector) { unreadable_.emplace(std::string(path), sector); }
  // The storage call after `count` more fails with this; the disk then keeps whatever was under way.
  void fail_after(uint64_t count, ErrorCode code) {
    fail_in_ = static_cast<int64_t>(count);
    fail_code_ = code;
  }

  [[nodiscard]] Result<std::unique_ptr<env::File>> open(std::string_view path, env::OpenOptions options) override;
  [[nodiscard]] Status rename(std::string_view from, std::string_view to) override;
  [[nodiscard]] Status remove(std::string_view path) override;
  [[nodiscard]] Status create_directory(std::string_view path) override;
  [[nodiscard]] Status sync_directory(std::string_view path) override;
  [[nodiscard]] Result<std::vector<std::string>> list(std::string_view path) override;
  [[nodiscard]] Result<std::unique_ptr<env::DirectoryLock>> lock() override;
  [[nodiscard]] Result<uint64_t> free_bytes() override;

 private:
  friend class TraceFile;
  struct Inode {
    std::string durable;
    std::string current;
    std::set<size_t> unsynced_sectors;
    bool unsynced_size = false;
  };
  // A name not synced: exactly one of these.
  struct NameChange {
    enum class Kind : uint8_t { kCreate, kRename, kRemove, kDirectory } kind = Kind::kCreate;
    std::string path;
    std::string to;
    std::shared_ptr<Inode> inode;
  };
  using Names = std::map<std::string, std::shared_ptr<Inode>>;

  Status begin(std::string_view call);
  [[nodiscard]] uint64_t used() const;
  static void apply(const NameChange& change, Names& names, std::set<std::string>& directories);
  [[nodiscard]] std::vector<std::shared_ptr<Inode>> unsynced_inodes() const;
  [[nodiscard]] TraceImage build(const std::vector<bool>& kept, size_t torn, size_t cut, bool keep_front) const;

  Names durable_names_;
  Names names_;
  std::set<std::string> durable_directories_;
  std::set<std::string> directories_;
  std::vector<NameChange> changes_;
  std::function<void(std::string_view)> hook_;
  uint64_t calls_ = 0;
  uint64_t capacity_ = UINT64_MAX;
  int64_t fail_in_ = -1;
  ErrorCode fail_code_ = ErrorCode::kIo;
  bool locked_ = false;
  std::set<std::pair<std::string, size_t>> unreadable_;
};

}  // namespace conclave::sim
