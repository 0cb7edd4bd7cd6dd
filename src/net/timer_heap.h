// TimerHeap: callbacks by time, for one thread. Owns no clock. A timeout of a call that is answered in time costs one
// add and one cancel and leaves nothing behind, whatever its length.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/time.h"

namespace conclave::net {

class TimerHeap {
 public:
  using Call = std::move_only_function<void()>;

  // Never zero.
  uint64_t add(Instant at, Call call);
  // False if it was taken or cancelled before.
  bool cancel(uint64_t id);
  // kNever if there is none.
  [[nodiscard]] Instant next() const;
  // Removes the earliest; only if next() is not kNever.
  [[nodiscard]] Call take();
  [[nodiscard]] size_t size() const { return heap_.size(); }

 private:
  // An id is the slot and how often the slot was used: a late cancel never hits a newer timer.
  struct Slot {
    Instant at{};
    uint32_t place = 0;  // in heap_
    uint32_t use = 1;
    Call call;
  };
  [[nodiscard]] bool earlier(uint32_t a, uint32_t b) const { return slots_[a].at < slots_[b].at; }
  void put(size_t place, uint32_t slot);
  void rise(size_t place);
  void sink(size_t place);
  void remove(size_t place);
  void release(uint32_t slot);

  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> heap_;  // slots; each no later than its two children
};

}  // namespace conclave::net
