#include "net/timer_heap.h"

#include <utility>

#include "base/assert.h"

namespace conclave::net {

uint64_t TimerHeap::add(Instant at, Call call) {
  if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  const uint32_t slot = free_.back();
  free_.pop_back();
  slots_[slot].at = at;
  slots_[slot].call = std::move(call);
  heap_.push_back(slot);
  put(heap_.size() - 1, slot);
  rise(heap_.size() - 1);
  return static_cast<uint64_t>(slots_[slot].use) << 32 | slot;
}

bool TimerHeap::cancel(uint64_t id) {
  const auto slot = static_cast<uint32_t>(id);
  if (slot >= slots_.size() || slots_[slot].use != id >> 32) return false;
  remove(slots_[slot].place);
  release(slot);
  return true;
}

Instant TimerHeap::next() const {
  return heap_.empty() ? kNever : slots_[heap_.front()].at;
}

TimerHeap::Call TimerHeap::take() {
  ASSERT(!heap_.empty());
  const uint32_t slot = heap_.front();
  Call call = std::move(slots_[slot].call);
  remove(0);
  release(slot);
  return call;
}

void TimerHeap::put(size_t place, uint32_t slot) {
  heap_[place] = slot;
  slots_[slot].place = static_cast<uint32_t>(place);
}

void TimerHeap::rise(size_t place) {
  const uint32_t slot = heap_[place];
  while (place > 0) {
    const size_t parent = (place - 1) / 2;
    if (!earlier(slot, heap_[parent])) break;
    put(place, heap_[parent]);
    place = parent;
  }
  put(place, slot);
}

void TimerHeap::sink(size_t place) {
  const uint32_t slot = heap_[place];
  for (;;) {
    size_t child = 2 * place + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && earlier(heap_[child + 1], heap_[child])) ++child;
    if (!earlier(heap_[child], slot)) break;
    put(place, heap_[child]);
    place = child;
  }
  put(place, slot);
}

void TimerHeap::remove(size_t place) {
  const uint32_t last = heap_.back();
  heap_.pop_back();
  if (place == heap_.size()) return;
  put(place, last);
  rise(place);
  sink(slots_[last].place);
}

void TimerHeap::release(uint32_t slot) {
  slots_[slot].call = nullptr;
  // Zero is skipped when the count wraps: no id is zero.
  if (++slots_[slot].use == 0) slots_[slot].use = 1;
  free_.push_back(slot);
}

}  // namespace conclave::net
