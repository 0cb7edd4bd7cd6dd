// What threads other than the log's may read of its work at any time: how long writes take and what space there is.
// Each number by itself is true; two read one after the other may be of different moments.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/time.h"

namespace conclave::wal {

// Writes of the log, each with its sync. A disk that hangs cannot say so itself: the one under way is here, too.
class WriteGauge {
 public:
  // Writes are counted by how long they took: up to 1 ms, 2 ms, and so on doubled; the last counts all that took longer
  // than 8.192 s. The bounds are those of etcd's histogram of syncs.
  static constexpr size_t kBounds = 14;
  static constexpr Duration kFirstBound = std::chrono::milliseconds(1);

  void begin(Instant now) { began_.store(to_nanoseconds(now) + 1, std::memory_order_relaxed); }
  void end(Instant now) {
    const int64_t began = began_.exchange(0, std::memory_order_relaxed);
    if (began == 0) return;
    const int64_t took = to_nanoseconds(now) + 1 - began;
    last_.store(took, std::memory_order_relaxed);
    size_t bucket = 0;
    while (bucket < kBounds && Duration(took) > kFirstBound * (int64_t{1} << bucket)) ++bucket;
    counts_[bucket].fetch_add(1, std::memory_order_relaxed);
    sum_.fetch_add(took, std::memory_order_relaxed);
  }
  // Zero if no write is under way.
  [[nodiscard]] Duration running_for(Instant now) const {
    const int64_t began = began_.load(std::memory_order_relaxed);
    return began == 0 ? Duration(0) : Duration(to_nanoseconds(now) + 1 - began);
  }
  // Of the last write that ended.
  [[nodiscard]] Duration last() const { return Duration(last_.load(std::memory_order_relaxed)); }
  // Writes that took at most the bound of this number, and longer than the one before.
  [[nodiscard]] uint64_t count(size_t bucket) const { return counts_[bucket].load(std::memory_order_relaxed); }
  // Of all writes that ended.
  [[nodiscard]] Duration sum() const { return Duration(sum_.load(std::memory_order_relaxed)); }

 private:
  std::atomic<int64_t> began_{0};
  std::atomic<int64_t> last_{0};
  std::array<std::atomic<uint64_t>, kBounds + 1> counts_{};
  std::atomic<int64_t> sum_{0};
};

// The space of the log, as of the end of its last piece of work.
class SpaceGauge {
 public:
  void set(uint64_t live_bytes, uint64_t spare_bytes, bool full) {
    live_bytes_.store(live_bytes, std::memory_order_relaxed);
    spare_bytes_.store(spare_bytes, std::memory_order_relaxed);
    full_.store(full, std::memory_order_relaxed);
  }
  [[nodiscard]] uint64_t live_bytes() const { return live_bytes_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint64_t spare_bytes() const { return spare_bytes_.load(std::memory_order_relaxed); }
  [[nodiscard]] bool full() const { return full_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> live_bytes_{0};
  std::atomic<uint64_t> spare_bytes_{0};
  std::atomic<bool> full_{false};
};

}  // namespace conclave::wal
