// SimDisk: one machine's data directory in the simulated world, an env::Disk with a past.
//
// Time. A call returns at once and says how long it takes: calls queue one behind another, busy_until() is when the
// last made is done. What a sync promises holds only once that instant has passed: a loss of power before it treats the
// write as unsynced, and calls that had not begun never were. A harness makes its calls, then schedules the completion
// at busy_until().
//
// Loss of power. Sectors written and not synced: any subset stays (changes of a file's size: a prefix). Names made,
// renamed or removed and not synced: for each file any prefix of what happened to its name. No sector is half new and
// half old unless the torn fault says so. Death of the process alone keeps the cache.
//
// Faults are drawn from Decisions with the rates of DiskOptions, or imposed by calls (at rest). Damage to acknowledged
// bytes stands in an overlay (atlas.h): truth() gives the bytes of a sound disk, damage() what reads wrong.
//
// Renaming a directory is not supported (kInvalidArgument): nobody needs it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "env/disk.h"
#include "sim/atlas.h"
#include "sim/decisions.h"
#include "sim/digest.h"
#include "sim/inode.h"
#include "sim/scheduler.h"

namespace conclave::sim {

struct DiskOptions {
  // Mean times, exponential; a call also takes time for its bytes.
  Duration read_mean = std::chrono::microseconds(50);
  Duration write_mean = std::chrono::microseconds(10);
  Duration sync_mean = std::chrono::microseconds(500);
  uint64_t bytes_per_microsecond = 200;
  uint64_t capacity_bytes = uint64_t{1} << 30;
  // Chance per call, out of a million; 0 never. Read: kMisdirectedRead, kUnreadableSector, kCorruptSector. Write:
  // kStaleSector, kMisdirectedWrite, kWriteError. Sync: kSyncError, kLyingSync. Loss of power: kTornWrite. Others:
  // unused.
  PerFault<uint32_t> per_million;
};

enum class CrashMode : uint8_t {
  kPowerLoss,
  kProcessKilled,
};

// What is durable on a disk at one moment: a deep copy, for rolling a disk back and for enumerating crashes.
class DiskImage {
 public:
  DiskImage() = default;
  [[nodiscard]] std::vector<std::string> paths() const;  // of files, sorted
  [[nodiscard]] bool has(std::string_view path) const;
  [[nodiscard]] std::string content(std::string_view path) const;  // of a file that is there; pristine
  // Equal names and contents, as one text: for comparing and counting states.
  [[nodiscard]] std::string fingerprint() const;

 private:
  friend class SimDisk;
  struct Name {
    std::shared_ptr<Inode> inode;  // null: a directory
  };
  std::map<std::string, Name, std::less<>> names_;
  uint64_t disk_ = 0;
};

enum class WholeDiskFault : uint8_t { kNone, kLost, kRolledBack };

class SimDisk final : public env::Disk {
 public:
  // `target` names the disk in decisions. The digest may be null.
  SimDisk(const Scheduler& scheduler, Decisions& decisions, uint64_t target, const DiskOptions& options,
          Digest* digest = nullptr);

  // --- What the product calls. After a crash all of it gives kCrashed until restart(); handles opened before stay
  // dead.
  Result<std::unique_ptr<env::File>> open(std::string_view path, env::OpenOptions options) override;
  Status rename(std::string_view from, std::string_view to) override;
  Status remove(std::string_view path) override;
  Status create_directory(std::string_view path) override;
  Status sync_directory(std::string_view path) override;
  Result<std::vector<std::string>> list(std::string_view path) override;
  Result<std::unique_ptr<env::DirectoryLock>> lock() override;
  Result<uint64_t> free_bytes() override;

  // --- Time.
  // When the calls made so far are done.
  [[nodiscard]] Instant busy_until() const { return busy_until_; }
  // From now until then; zero if they are.
  [[nodiscard]] Duration elapsed() const;

  // --- Life and death.
  // The process ends now, or, where crash_after() fired, at the instant of that call.
  void crash(CrashMode mode);
  // A new process may use the disk. Busy time of the old one is forgotten.
  void restart();
  // The call that changes something after `calls` more such calls dies in the middle: it and all later give kCrashed.
  // Then the owner calls crash(). Calls that change: write, write_durable, sync, resize, open with kCreate, rename,
  // remove, create_directory, sync_directory.
  void crash_after(uint64_t calls);
  [[nodiscard]] bool is_crashed() const { return crashed_; }
  // Where crash_after() fired: true once, until crash().
  [[nodiscard]] bool has_crashed_in_call() const { return crashed_in_call_; }
  // Calls that change something, so far.
  [[nodiscard]] uint64_t mutations() const { return mutations_; }

  // --- Faults imposed.
  // Flips bits of one sector. False if the file has no such sector.
  bool corrupt(std::string_view path, uint64_t sector, Random& random);
  bool make_unreadable(std::string_view path, uint64_t sector);
  // Damages up to `count` random sectors of random files with `kind` (kCorruptSector, kUnreadableSector, or
  // kStaleSector: another sector's content in its place). How many were.
  size_t damage_random(FaultKind kind, size_t count, Random& random);
  // The file's name is gone, also after loss of power. False if there is none.
  bool lose_file(std::string_view path);
  // Everything is gone; capacity and rates stay. Only while crashed or not in use.
  void lose_all();
  // A new, sound disk in its place, empty. Only while crashed or not in use.
  void replace();
  // The whole directory as it was. Only while crashed or not in use. False if the image is of the disk before this one.
  bool roll_back(const DiskImage& image);
  // Calls made until `until` are done only after it.
  void hang_until(Instant until) { hung_until_ = until; }
  // Calls begun until `until` take `factor` times as long.
  void slow_until(Instant until, uint64_t factor);
  // Growth beyond is kNoSpace; what is there stays.
  void set_capacity(uint64_t bytes) { options_.capacity_bytes = bytes; }
  [[nodiscard]] uint64_t capacity() const { return options_.capacity_bytes; }
  [[nodiscard]] uint64_t used_bytes() const;
  // Rates from now on.
  PerFault<uint32_t>& per_million() { return options_.per_million; }
  // Nothing hangs or is slow any more and no crash_after() waits; damage stays, calls already made end when they said.
  void heal_episodes();

  // --- The atlas: what is true.
  // Switches damage off and on again: off, reads give pristine bytes and missing files are there.
  void set_faults_visible(bool visible) { faults_visible_ = visible; }
  // Sectors of named files that are on the platter and do not read as they should, in order of path and place;
  // neighbours of one kind joined. Missing files count whole. What was overwritten in the cache since reads well, until
  // it is lost.
  [[nodiscard]] std::vector<DamagedRange> damage() const;
  [[nodiscard]] bool is_damaged(std::string_view path, uint64_t offset, uint64_t bytes) const;
  // Pristine bytes of the cache's view. kNotFound, kOutOfRange.
  [[nodiscard]] Status truth(std::string_view path, uint64_t offset, std::span<char> into) const;
  [[nodiscard]] Result<uint64_t> true_size(std::string_view path) const;
  // Whether a sync that covered this sector was ever reported as done (and the time it takes had passed).
  [[nodiscard]] bool was_acknowledged(std::string_view path, uint64_t sector) const;
  // Whether acknowledged bytes may be gone without a trace in damage().
  [[nodiscard]] WholeDiskFault whole_disk_fault() const { return whole_disk_fault_; }
  // True after any fault that may take or change acknowledged bytes struck this disk.
  [[nodiscard]] bool was_ever_damaged() const { return ever_damaged_; }

  // --- States.
  // What a loss of power now would leave if nothing unsynced stayed.
  [[nodiscard]] DiskImage durable_image() const;
  // Every state a loss of power now may leave (torn sectors aside), each once, in a fixed order. False if there are
  // more than `choices_max` ways to choose: then the states of those tried so far were given.
  bool for_each_crash_state(size_t choices_max, const std::function<void(const DiskImage&)>& visit) const;

 private:
  class Handle;
  class Lock;
  using Names = std::map<std::string, DiskImage::Name, std::less<>>;
  enum class NameChange : uint8_t { kCreate, kRename, kRemove };
  struct NameOperation {
    Instant begins;
    NameChange change;
    std::string path;  // of a rename: the new name
    std::string from;
    std::shared_ptr<Inode> inode;  // null: a directory
    Instant durable_at = kNever;
  };
  // Names and what happened to them, apart from the disk, so that a crash can be tried on a copy.
  struct Tree {
    Names cached;
    Names durable;
    std::vector<NameOperation> operations;
  };

  // Opens a call: its time, whether it changes something. On error the call is over.
  struct Call {
    Instant begins;
    bool dies = false;  // crash_after: carry out, then give kCrashed
  };
  Result<Call> begin(bool mutates);
  void end(const Call& call, Duration mean, uint64_t bytes);
  static std::unexpected<Error> crashed();
  [[nodiscard]] bool draw(FaultKind kind, Decisions::Stream stream);
  void settle();
  [[nodiscard]] std::shared_ptr<Inode> find(std::string_view path) const;
  [[nodiscard]] bool is_directory(std::string_view path) const;
  void trace(uint64_t what, uint64_t first, uint64_t second);

  static void apply(const NameOperation& operation, Names& names);
  static void settle_names(Tree& tree, Instant now);
  static uint64_t lose_names(Tree& tree, Instant at, CrashChooser& chooser);
  static Inode::CrashLosses lose_power(Tree& tree, Instant at, CrashChooser& chooser, uint64_t& names_lost);
  static Tree copy_of(const Tree& tree);
  static std::vector<std::shared_ptr<Inode>> inodes_of(const Tree& tree);

  const Scheduler& scheduler_;
  Decisions& decisions_;
  DiskOptions options_;
  Digest* digest_;
  struct Streams {
    Decisions::Stream misdirected_read, unreadable, corrupt, stale, misdirected_write, write_error, sync_error,
        lying_sync, torn, crash, time;
  } streams_;

  Tree tree_;
  uint64_t next_inode_ = 1;
  std::set<std::string, std::less<>> missing_;  // names of files that were lost
  bool faults_visible_ = true;
  bool ever_damaged_ = false;
  WholeDiskFault whole_disk_fault_ = WholeDiskFault::kNone;

  Instant busy_until_;
  Instant hung_until_{};
  Instant slow_until_{};
  uint64_t slow_factor_ = 1;
  uint64_t mutations_ = 0;
  uint64_t crash_countdown_ = UINT64_MAX;
  bool crashed_ = false;
  bool crashed_in_call_ = false;
  Instant crashed_at_{};
  uint64_t disk_ = 0;  // counts replacements
  uint64_t life_ = 1;  // handles of another life are dead
  uint64_t lock_life_ = 0;
};

}  // namespace conclave::sim
