#include "sim/scheduler.h"

#include <algorithm>

#include "base/assert.h"

namespace conclave::sim {

void Gate::open() {
  ASSERT(!open_);
  open_ = true;
  frozen_ = false;
  ++life_;
}

void Gate::close() {
  open_ = false;
  frozen_ = false;
  drop_waiting();
}

void Gate::freeze() {
  ASSERT(open_);
  frozen_ = true;
}

void Gate::thaw() {
  if (!frozen_) return;
  frozen_ = false;
  for (uint32_t slot : waiting_) {
    if (!scheduler_.slots_[slot].callback) {
      scheduler_.release(slot);  // cancelled while it waited
      if (scheduler_.cancelled_ > 0) --scheduler_.cancelled_;
    } else {
      scheduler_.push(scheduler_.now_, slot);
    }
  }
  waiting_.clear();
}

void Gate::drop_waiting() {
  for (uint32_t slot : waiting_) {
    if (scheduler_.slots_[slot].callback) --scheduler_.live_;
    scheduler_.release(slot);
  }
  waiting_.clear();
}

EventHandle Scheduler::add(Instant at, Gate* gate, Callback callback) {
  if (at == kNever) return {};
  ASSERT(gate == nullptr || gate->open_);
  uint32_t slot = free_;
  if (slot == UINT32_MAX) {
    slot = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    free_ = slots_[slot].next_free;
  }
  Slot& made = slots_[slot];
  made.callback = std::move(callback);
  made.gate = gate;
  made.life = gate == nullptr ? 0 : gate->life_;
  push(std::max(at, now_), slot);
  ++live_;
  return {slot, made.generation};
}

void Scheduler::push(Instant at, uint32_t slot) {
  heap_.push_back({at, sequence_++, slot});
  std::ranges::push_heap(heap_, later);
}

void Scheduler::release(uint32_t slot) {
  Slot& freed = slots_[slot];
  freed.callback.reset();
  ++freed.generation;
  freed.next_free = free_;
  free_ = slot;
}

bool Scheduler::cancel(EventHandle handle) {
  if (handle.slot >= slots_.size()) return false;
  Slot& slot = slots_[handle.slot];
  if (slot.generation != handle.generation || !slot.callback) return false;
  // The slot is freed when its turn comes: taking it out of the middle of the heap would cost more.
  slot.callback.reset();
  --live_;
  ++cancelled_;
  if (cancelled_ > 1024 && cancelled_ > heap_.size() / 2) sweep_cancelled();
  return true;
}

void Scheduler::sweep_cancelled() {
  std::erase_if(heap_, [this](const Entry& entry) {
    if (slots_[entry.slot].callback) return false;
    release(entry.slot);
    return true;
  });
  std::ranges::make_heap(heap_, later);
  cancelled_ = 0;
}

bool Scheduler::run_one(Instant end) {
  while (!heap_.empty() && heap_.front().at <= end) {
    std::ranges::pop_heap(heap_, later);
    const Entry entry = heap_.back();
    heap_.pop_back();
    Slot& slot = slots_[entry.slot];
    if (!slot.callback) {
      release(entry.slot);
      if (cancelled_ > 0) --cancelled_;
      continue;
    }
    if (Gate* gate = slot.gate; gate != nullptr) {
      if (gate->life_ != slot.life || !gate->open_) {
        release(entry.slot);
        --live_;
        continue;
      }
      if (gate->frozen_) {
        gate->waiting_.push_back(entry.slot);
        continue;
      }
    }
    now_ = entry.at;
    // Out of its slot first: the callback may schedule, and the slots may move.
    Callback callback = std::move(slot.callback);
    release(entry.slot);
    --live_;
    ++events_run_;
    callback();
    return true;
  }
  return false;
}

void Scheduler::run_until(Instant end) {
  while (run_one(end)) {
  }
  now_ = std::max(now_, end);
}

}  // namespace conclave::sim
