#include "net/loop.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>

#include "base/assert.h"
#include "net/timer_heap.h"

namespace conclave::net {
namespace {

// Completions of one turn: enough that a turn serves every busy connection once, few enough (some microseconds each)
// that deadlines are looked at every few milliseconds.
constexpr size_t kCompletionsPerTurnMax = 512;
constexpr Duration kSleepMax = std::chrono::seconds(60);

// ---- What can wait ----
// One part of so many of the time while others want something.
constexpr int64_t kLeisureParts = 4;
// Saved up at most, and overdrawn at most.
constexpr Duration kLeisureMax = std::chrono::milliseconds(1);
// At once while nobody wants anything: who comes now waits no longer than that, and one call.
constexpr Duration kLeisureTurn = std::chrono::microseconds(250);
// Others are taken to want more for so long after they wanted something: between a client's answer and its next
// request.
constexpr Duration kOthersPatience = std::chrono::milliseconds(2);

}  // namespace

struct Loop::Implementation {
  explicit Implementation(env::Clock& from) : clock(from) {}

  env::Clock& clock;
  // One thread runs it; others only post.
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{context.get_executor()};
  TimerHeap timers;
  std::vector<std::function<void(Instant)>> ends;
  std::vector<std::move_only_function<void()>> last_calls;
  std::vector<std::move_only_function<void()>> last_calls_taken;  // the turn's; kept for its capacity
  std::function<Instant()> deadline;
  bool in_turn = false;
  bool others_asked = false;  // in this turn: something that is not at leisure
  std::deque<std::move_only_function<void()>> leisure;
  Duration leisure_left{};  // of the share
  Instant leisure_since{};  // up to where the share is counted
  Instant others_until{};   // others want something until then
  [[nodiscard]] Instant leisure_next(Instant now);
  std::atomic<bool> stopping{false};

  std::mutex mutex;
  std::vector<std::move_only_function<void()>> posted;  // under the mutex
  bool asleep = false;                                  // under the mutex: the next post must wake the loop
  std::vector<std::move_only_function<void()>> taken;   // the turn's; kept for its capacity
};

// When the next call at leisure may begin.
Instant Loop::Implementation::leisure_next(Instant now) {
  leisure_left = std::min(leisure_left + (now - leisure_since) / kLeisureParts, kLeisureMax);
  leisure_since = now;
  if (leisure_left > Duration::zero() || others_until <= now) return now;
  return std::min(now + (Duration(1) - leisure_left) * kLeisureParts, others_until);
}

Loop::Loop(env::Clock& clock) : implementation_(std::make_unique<Implementation>(clock)), now_(clock.now()) {}

Loop::~Loop() = default;

asio::io_context& Loop::context() {
  return implementation_->context;
}

void Loop::enter() {
  implementation_->others_asked = true;
  enter_at_leisure();
}

void Loop::enter_at_leisure() {
  if (implementation_->in_turn) return;
  implementation_->in_turn = true;
  now_ = implementation_->clock.now();
}

void Loop::at_leisure(std::move_only_function<void()> call) {
  implementation_->leisure.push_back(std::move(call));
}

void Loop::post(std::move_only_function<void()> work) {
  Implementation& self = *implementation_;
  bool wake = false;
  {
    const std::lock_guard lock(self.mutex);
    self.posted.push_back(std::move(work));
    wake = std::exchange(self.asleep, false);
  }
  if (wake) asio::post(self.context, [this] { enter(); });
}

void Loop::at_turn_end(std::move_only_function<void()> call) {
  implementation_->last_calls.push_back(std::move(call));
}

void Loop::add_turn_end(std::function<void(Instant now)> end) {
  implementation_->ends.push_back(std::move(end));
}

void Loop::set_deadline(std::function<Instant()> deadline) {
  implementation_->deadline = std::move(deadline);
}

TimerId Loop::call_at(Instant at, std::move_only_function<void()> call) {
  return implementation_->timers.add(at, std::move(call));
}

void Loop::cancel(TimerId timer) {
  if (timer != 0) implementation_->timers.cancel(timer);
}

void Loop::run() {
  Implementation& self = *implementation_;
  self.context.restart();
  while (!self.stopping.load(std::memory_order_acquire)) {
    wait();
    size_t completions = 0;
    while (completions < kCompletionsPerTurnMax && self.context.poll_one() != 0) ++completions;
    turn();
  }
  self.stopping.store(false, std::memory_order_relaxed);
}

void Loop::wait() {
  Implementation& self = *implementation_;
  self.in_turn = false;
  if (!self.last_calls.empty()) return;
  Instant until = self.timers.next();
  if (self.deadline) until = std::min(until, self.deadline());
  const Instant now = self.clock.now();
  if (!self.leisure.empty()) until = std::min(until, self.leisure_next(now));
  if (until <= now) return;
  {
    const std::lock_guard lock(self.mutex);
    if (!self.posted.empty() || self.stopping.load(std::memory_order_relaxed)) return;
    self.asleep = true;
  }
  const Duration sleep = until == kNever ? kSleepMax : std::min(until - now, kSleepMax);
  self.context.run_one_for(sleep);
  const std::lock_guard lock(self.mutex);
  self.asleep = false;
}

// Runs within a turn, before its ends: what it answers is sent with the rest.
void Loop::run_leisure() {
  Implementation& self = *implementation_;
  Instant now = self.clock.now();
  if (std::exchange(self.others_asked, false)) self.others_until = now + kOthersPatience;
  if (self.leisure.empty()) return;
  const Instant end = now + kLeisureTurn;
  while (!self.leisure.empty() && now < end && self.leisure_next(now) <= now) {
    auto call = std::move(self.leisure.front());
    self.leisure.pop_front();
    call();
    const Instant after = self.clock.now();
    self.leisure_left = std::max(self.leisure_left - (after - now), -kLeisureMax);
    now = after;
  }
}

void Loop::turn() {
  Implementation& self = *implementation_;
  enter_at_leisure();
  // What they add waits for the next turn: neither can hold this one for ever.
  for (size_t due = self.timers.size(); due > 0 && self.timers.next() <= now_; --due) self.timers.take()();
  {
    const std::lock_guard lock(self.mutex);
    std::swap(self.posted, self.taken);
  }
  self.others_asked |= !self.taken.empty();
  for (auto& work : self.taken) work();
  self.taken.clear();
  run_leisure();
  now_ = self.clock.now();
  for (size_t i = 0; i < self.ends.size(); ++i) self.ends[i](now_);
  std::swap(self.last_calls, self.last_calls_taken);
  for (auto& call : self.last_calls_taken) call();
  self.last_calls_taken.clear();
}

void Loop::stop() {
  Implementation& self = *implementation_;
  self.stopping.store(true, std::memory_order_release);
  post([] {});
}

}  // namespace conclave::net
