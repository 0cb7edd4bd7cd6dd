// SessionView: what threads other than the client's see of a session. The client's thread writes; a reader compares
// with the clock itself.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>

#include "conclave/session.h"

namespace conclave::client {

// A caller's time, as one that can be added to an instant: ten years are for ever.
[[nodiscard]] constexpr std::chrono::milliseconds bounded(std::chrono::milliseconds time) {
  constexpr std::chrono::milliseconds kForever = std::chrono::hours(24) * 3650;
  return std::clamp(time, std::chrono::milliseconds::zero(), kForever);
}

struct SessionView {
  // The end of a claim is published before this, and a reader reads this first: who sees a bound that a resumed session
  // got sees as well which of its claims did not survive.
  std::atomic<int64_t> safe_until{0};  // nanoseconds of BootClock
  std::atomic<State> state{State::kOpening};
  std::atomic<bool> close_confirmed{false};
  // The session's number; it is settled when the session is opened.
  std::atomic<int64_t> id{0};

  mutable std::mutex mutex;
  mutable std::condition_variable changed;  // of state and safe_until
  std::string reason;                       // under the mutex

  [[nodiscard]] BootClock::time_point deadline() const {
    return BootClock::time_point(BootClock::duration(safe_until.load(std::memory_order_acquire)));
  }
  [[nodiscard]] State now() const {
    const State published = state.load(std::memory_order_acquire);
    return published == State::kSafe && BootClock::now() >= deadline() ? State::kJeopardy : published;
  }
  [[nodiscard]] std::string why() const {
    const std::lock_guard lock(mutex);
    return reason;
  }
};

}  // namespace conclave::client
