// For tests of the client's public face, whose callbacks come on another thread: what they told, and waits that end.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

#include "conclave/clock.h"

namespace conclave::client {

// Longer than anything here takes: what has not happened by then does not.
inline constexpr auto kLimit = std::chrono::seconds(20);

// What callbacks told, and a wait for more of it.
template <class T>
class Told {
 public:
  void add(T value) {
    const std::lock_guard lock(mutex_);
    all_.push_back(std::move(value));
    more_.notify_all();
  }
  [[nodiscard]] bool wait(const std::function<bool(const std::vector<T>&)>& enough) {
    std::unique_lock lock(mutex_);
    return more_.wait_for(lock, kLimit, [&] { return enough(all_); });
  }
  [[nodiscard]] bool wait_for(const T& value) {
    return wait([&](const std::vector<T>& all) { return std::ranges::find(all, value) != all.end(); });
  }
  [[nodiscard]] std::vector<T> all() {
    const std::lock_guard lock(mutex_);
    return all_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable more_;
  std::vector<T> all_;
};

// True once the token fired.
inline bool fires(const std::stop_token& token) {
  Told<int> told;
  const std::stop_callback callback(token, [&] { told.add(1); });
  return told.wait_for(1);
}

// Whether it came true.
inline bool eventually(const std::function<bool()>& condition) {
  const auto end = BootClock::now() + kLimit;
  while (!condition() && BootClock::now() < end) std::this_thread::yield();
  return condition();
}

}  // namespace conclave::client
