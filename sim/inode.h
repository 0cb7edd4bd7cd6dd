// One simulated file: what the cache shows, what is on the platter, and the operations in between. The parts of SimDisk
// that are about bytes, without names, time spent or faults drawn. Not used outside the simulated disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/time.h"
#include "sim/atlas.h"

namespace conclave::sim {

// Decides what a loss of power leaves. choose(n) gives 0..n-1.
class CrashChooser {
 public:
  virtual ~CrashChooser() = default;
  // How many of `count` operations in order are considered at all: the rest is gone. 0..count.
  virtual size_t prefix(size_t count) = 0;
  // Whether one unsynced sector write among those reached the platter.
  virtual bool keep_sector() = 0;
  // Whether a sector that did not reach it is half written, and how many of its bytes are new: 0 is none.
  virtual size_t torn_bytes() = 0;
};

// A sector write that goes wrong on its way to the platter.
struct WriteFault {
  FaultKind kind = FaultKind::kCount;  // kStaleSector or kMisdirectedWrite; kCount: none
  uint64_t sector = 0;
  uint64_t other = 0;  // kMisdirectedWrite: where it went instead
};

class Inode {
 public:
  explicit Inode(uint64_t id) : id_(id) {}

  // Content of the cache.
  [[nodiscard]] uint64_t size() const { return cache_size_; }
  [[nodiscard]] const char* cache() const { return cache_.data(); }
  [[nodiscard]] uint64_t id() const { return id_; }

  // All sizes in bytes; `begins` is when the call that makes it starts.
  void write(Instant begins, uint64_t offset, ByteView bytes, const WriteFault& fault);
  void resize(Instant begins, uint64_t bytes);
  // All operations so far are on the platter once `completes` has passed. A lie only says so.
  void sync(Instant completes, bool lie);
  // A failed sync, in a call that begins then: the pages count as clean, what reached the platter is up to the chooser,
  // no later sync covers them.
  void drop_unsynced(Instant begins, CrashChooser& chooser);
  // Carries out what completed by `now`.
  void settle(Instant now);

  struct CrashLosses {
    uint64_t sectors_lost = 0;
    uint64_t sectors_torn = 0;
  };
  // Loss of power at `at`: operations that begin later never were, completed syncs hold, of the rest any legal subset
  // stays. Writes keep any subset, changes of size a prefix, and no write survives a cut before it that did not. Cache
  // is platter afterwards.
  CrashLosses lose_power(Instant at, CrashChooser& chooser);
  // The process ended at `at`: operations that begin later never were, the cache stays.
  void lose_process(Instant at);
  // Cache and platter are one, all of it acknowledged; for images that are loaded.
  void make_settled();

  [[nodiscard]] bool has_unsynced() const { return !operations_.empty(); }
  [[nodiscard]] bool is_pending(uint64_t sector) const;
  [[nodiscard]] uint64_t platter_size() const { return platter_size_; }
  [[nodiscard]] const char* platter() const { return platter_.data(); }
  [[nodiscard]] bool is_acknowledged(uint64_t sector) const {
    return sector < acknowledged_.size() && acknowledged_[sector];
  }
  // What the platter gives for a sector, faults included. `sector` is below the platter's size.
  [[nodiscard]] Sector visible(uint64_t sector) const;
  FaultAtlas& atlas() { return atlas_; }
  [[nodiscard]] const FaultAtlas& atlas() const { return atlas_; }

 private:
  struct Operation {
    Instant begins;
    bool is_resize = false;
    bool is_cut = false;
    bool acknowledged = false;  // a lying sync said it is durable
    uint64_t first_sector = 0;
    uint64_t sectors = 0;
    uint64_t size = 0;   // of a resize
    size_t content = 0;  // of a write: where its sectors stand in content_
    WriteFault fault{};
  };
  struct Barrier {
    size_t operations = 0;  // how many of the list it covers
    Instant completes;
    bool lie = false;
  };

  void apply_size(const Operation& operation);
  void apply_sector(const Operation& operation, uint64_t index);
  void put_on_platter(uint64_t sector, const char* content);
  void erase_front(size_t count);
  void drop_begun_after(Instant at);
  void undo_drop_after(Instant at);
  void rebuild_cache();
  static void set_size(std::vector<char>& image, uint64_t& size, uint64_t wanted);

  uint64_t id_;
  std::vector<char> cache_;  // whole sectors, zeros behind the size
  uint64_t cache_size_ = 0;
  std::vector<char> platter_;
  uint64_t platter_size_ = 0;
  std::vector<Operation> operations_;
  std::string content_;
  std::vector<Barrier> barriers_;
  std::vector<bool> acknowledged_;  // per sector: it was once reported durable
  // As it was before a sync failed, in a call that begins later than now: whoever makes it may end before.
  std::shared_ptr<const Inode> before_drop_;
  Instant dropped_at_{};
  FaultAtlas atlas_;
};

}  // namespace conclave::sim
