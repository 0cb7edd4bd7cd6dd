// The event core: what happens next, and when. One heap ordered by (time, order of scheduling), so that a run is the
// same every time. Owns virtual time; knows nothing of nodes but their gates.
//
// A Gate is the life of one node as its events see it: events scheduled through a gate are dropped when that life ends
// and wait while the node is frozen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/time.h"

namespace conclave::sim {

// A move-only function without arguments. What it captures lies inside it up to 48 bytes, so that an event costs no
// allocation.
class Callback {
 public:
  Callback() = default;
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, Callback> && std::is_invocable_v<F&>)
  Callback(
      F&& function) {  // NOLINT(bugprone-forwarding-reference-overload,google-explicit-constructor): a lambda is one
    using Function = std::remove_cvref_t<F>;
    if constexpr (sizeof(Function) <= kInlineBytes && alignof(Function) <= alignof(void*) &&
                  std::is_nothrow_move_constructible_v<Function>) {
      ::new (static_cast<void*>(storage_)) Function(std::forward<F>(function));
      operations_ = &kInline<Function>;
    } else {
      ::new (static_cast<void*>(storage_)) Function*(new Function(std::forward<F>(function)));
      operations_ = &kHeap<Function>;
    }
  }
  Callback(Callback&& other) noexcept : operations_(other.operations_) {
    if (operations_ != nullptr) operations_->move(storage_, other.storage_);
    other.operations_ = nullptr;
  }
  Callback& operator=(Callback&& other) noexcept {
    if (this != &other) {
      reset();
      operations_ = other.operations_;
      if (operations_ != nullptr) operations_->move(storage_, other.storage_);
      other.operations_ = nullptr;
    }
    return *this;
  }
  Callback(const Callback&) = delete;
  Callback& operator=(const Callback&) = delete;
  ~Callback() { reset(); }

  void operator()() { operations_->invoke(storage_); }
  explicit operator bool() const { return operations_ != nullptr; }
  void reset() {
    if (operations_ != nullptr) operations_->destroy(storage_);
    operations_ = nullptr;
  }

 private:
  static constexpr size_t kInlineBytes = 48;
  struct Operations {
    void (*invoke)(void*);
    void (*move)(void* to, void* from);  // leaves `from` destroyed
    void (*destroy)(void*);
  };
  template <class Function>
  static constexpr Operations kInline = {
      [](void* at) { (*static_cast<Function*>(at))(); },
      [](void* to, void* from) {
        ::new (to) Function(std::move(*static_cast<Function*>(from)));
        static_cast<Function*>(from)->~Function();
      },
      [](void* at) { static_cast<Function*>(at)->~Function(); },
  };
  template <class Function>
  static constexpr Operations kHeap = {
      [](void* at) { (**static_cast<Function**>(at))(); },
      [](void* to, void* from) { ::new (to) Function*(*static_cast<Function**>(from)); },
      [](void* at) { delete *static_cast<Function**>(at); },
  };

  alignas(void*) unsigned char storage_[kInlineBytes];
  const Operations* operations_ = nullptr;
};

// Names an event that was scheduled. A handle of an event that ran, was cancelled or was dropped is harmless.
struct EventHandle {
  uint32_t slot = UINT32_MAX;
  uint32_t generation = 0;
};

class Scheduler;

// One node's life. Starts closed; outlives every event scheduled through it.
class Gate {
 public:
  explicit Gate(Scheduler& scheduler) : scheduler_(scheduler) {}
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // A new life; must not be open.
  void open();
  // The life ends: its events never run. Also thaws.
  void close();
  // Events of this life wait. The clock goes on.
  void freeze();
  // Those that waited run now, in their old order, before anything scheduled later.
  void thaw();

  [[nodiscard]] bool is_open() const { return open_; }
  [[nodiscard]] bool is_frozen() const { return frozen_; }
  // Grows with each open(); 0 before the first.
  [[nodiscard]] uint64_t life() const { return life_; }
  [[nodiscard]] size_t waiting() const { return waiting_.size(); }

 private:
  friend class Scheduler;
  void drop_waiting();

  Scheduler& scheduler_;
  bool open_ = false;
  bool frozen_ = false;
  uint64_t life_ = 0;
  std::vector<uint32_t> waiting_;  // slots whose time came while frozen
};

class Scheduler {
 public:
  // Not zero, so that an instant forgotten at zero is seen; the same in each run.
  static constexpr Instant kStart = Instant(Duration(int64_t{1'000'000'000'000}));

  Scheduler() = default;
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  [[nodiscard]] Instant now() const { return now_; }
  // Where now() stands, for those who only stamp.
  [[nodiscard]] const Instant* now_address() const { return &now_; }
  // At `at`, or now if that has passed; events of one instant run in the order they were scheduled. kNever is never: no
  // event is made.
  EventHandle schedule(Instant at, Callback callback) { return add(at, nullptr, std::move(callback)); }
  // The same for a node: dropped if the life that scheduled it has ended, waits while it is frozen. The gate must be
  // open.
  EventHandle schedule(Gate& gate, Instant at, Callback callback) { return add(at, &gate, std::move(callback)); }
  // True if the event had still been to come.
  bool cancel(EventHandle handle);

  // Runs the next event if it is due at or before `end`; false if there is none.
  bool run_one(Instant end);
  // Runs all that is due at or before `end`; time is `end` afterwards.
  void run_until(Instant end);
  [[nodiscard]] uint64_t events_run() const { return events_run_; }
  // Events to come, those waiting at frozen gates included.
  [[nodiscard]] size_t pending() const { return live_; }

 private:
  friend class Gate;
  struct Entry {
    Instant at;
    uint64_t sequence;
    uint32_t slot;
  };
  struct Slot {
    Callback callback;  // empty: cancelled or free
    Gate* gate = nullptr;
    uint64_t life = 0;
    uint32_t generation = 0;
    uint32_t next_free = UINT32_MAX;
  };

  EventHandle add(Instant at, Gate* gate, Callback callback);
  static bool later(const Entry& a, const Entry& b) { return a.at != b.at ? a.at > b.at : a.sequence > b.sequence; }
  void push(Instant at, uint32_t slot);
  void release(uint32_t slot);
  void sweep_cancelled();

  Instant now_ = kStart;
  uint64_t sequence_ = 0;
  uint64_t events_run_ = 0;
  size_t live_ = 0;
  size_t cancelled_ = 0;  // entries of the heap whose event was cancelled
  std::vector<Entry> heap_;
  std::vector<Slot> slots_;
  uint32_t free_ = UINT32_MAX;
};

}  // namespace conclave::sim
