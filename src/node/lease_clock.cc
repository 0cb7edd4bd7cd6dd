#include "node/lease_clock.h"

#include <algorithm>
#include <utility>

#include "base/mark.h"

namespace conclave::node {
namespace {

constexpr uint64_t kBurstDivisor = 10;
constexpr uint64_t kThousand = 1000;

}  // namespace

// ---- Rates ----

void LeaseClock::Allowance::refill(Instant now) {
  // Thousandths of an end: exact for any rate at microsecond steps.
  const auto passed_us =
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(now - refilled_at).count());
  const uint64_t gained = per_second * std::min<uint64_t>(passed_us, 1'000'000) / kThousand;
  if (gained == 0) return;
  refilled_at = now;
  thousandths = std::min(thousandths + gained, std::max<uint64_t>(per_second / kBurstDivisor, 1) * kThousand);
}

bool LeaseClock::Allowance::has_one() const {
  return thousandths >= kThousand;
}

void LeaseClock::Allowance::take_one() {
  thousandths -= kThousand;
}

void LeaseClock::Allowance::give_one() {
  thousandths += kThousand;
}

// When something that is due at this time may be ended. The next end is earned within a millisecond at any rate above
// 1,000 a second.
Instant LeaseClock::Allowance::next(Instant at) const {
  return has_one() ? at : std::max(at, refilled_at + std::chrono::milliseconds(1));
}

// ---- The heap ----

bool LeaseClock::is_before(const Due& a, const Due& b) {
  return a.at != b.at ? a.at < b.at : a.state->id < b.state->id;
}

void LeaseClock::put(size_t place, Due due) {
  heap_[place] = due;
  due.state->place = static_cast<uint32_t>(place);
}

void LeaseClock::sift_up(size_t place, Due due) {
  while (place > 0 && is_before(due, heap_[(place - 1) / 2])) {
    put(place, heap_[(place - 1) / 2]);
    place = (place - 1) / 2;
  }
  put(place, due);
}

void LeaseClock::sift_down(size_t place, Due due) {
  while (true) {
    size_t child = 2 * place + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && is_before(heap_[child + 1], heap_[child])) ++child;
    if (!is_before(heap_[child], due)) break;
    put(place, heap_[child]);
    place = child;
  }
  put(place, due);
}

void LeaseClock::push(State& state) {
  const Due due{.at = state.deadline, .state = &state};
  heap_.push_back(due);
  sift_up(heap_.size() - 1, due);
}

void LeaseClock::remove(State& state) {
  const size_t place = std::exchange(state.place, kNoPlace);
  if (place == kNoPlace) return;
  const Due last = heap_.back();
  heap_.pop_back();
  if (place == heap_.size()) return;
  if (place > 0 && is_before(last, heap_[(place - 1) / 2])) {
    sift_up(place, last);
  } else {
    sift_down(place, last);
  }
}

// ---- Leases ----

Instant LeaseClock::stretched(int64_t ttl_ms, Instant from) {
  // TTL x 1.021. The longest TTL of etcd's API is 285,000 years; the clock ends in 292.
  const int64_t limit_ms = to_milliseconds(kNever - from) / 2;
  const int64_t bounded = std::min(ttl_ms, limit_ms);
  return from + std::chrono::milliseconds(bounded) + std::chrono::microseconds(bounded * 21);
}

void LeaseClock::lead(Instant now) {
  stop();
  leading_ = true;
  all_ = {.per_second = options_.ends_per_second, .refilled_at = now};
  inherited_ = {.per_second = options_.inherited_ends_per_second, .refilled_at = now};
}

void LeaseClock::stop() {
  leading_ = false;
  heap_.clear();
  leases_.clear();
}

void LeaseClock::start(LeaseId id, int64_t remaining_ms, Instant now, bool inherited) {
  if (!leading_) return;
  State& state = leases_[id];
  remove(state);
  state = {.id = id, .deadline = stretched(std::max<int64_t>(remaining_ms, 0), now), .inherited = inherited};
  push(state);
}

void LeaseClock::end(LeaseId id) {
  const auto found = leases_.find(id);
  if (found == leases_.end()) return;
  remove(found->second);
  leases_.erase(found);
}

bool LeaseClock::renew(LeaseId id, int64_t ttl_ms, Instant now) {
  const auto found = leases_.find(id);
  if (!leading_ || found == leases_.end()) return false;
  State& state = found->second;
  if (state.place == kNoPlace) {
    REACHED(keep_alive_after_expiry_proposed);
    return false;
  }
  // Never earlier than promised before.
  state.deadline = std::max(state.deadline, stretched(ttl_ms, now));
  state.inherited = false;
  return true;
}

void LeaseClock::take_due(Instant now, size_t count_max, std::vector<LeaseId>& due) {
  if (!leading_) return;
  all_.refill(now);
  inherited_.refill(now);
  while (!heap_.empty() && heap_.front().at <= now && due.size() < count_max) {
    State& state = *heap_.front().state;
    if (state.deadline > heap_.front().at) {
      sift_down(0, {.at = state.deadline, .state = &state});
      continue;
    }
    if (!all_.has_one() || (state.inherited && !inherited_.has_one())) {
      REACHED(lease_ends_held_back_by_rate);
      return;
    }
    all_.take_one();
    if (state.inherited) inherited_.take_one();
    remove(state);
    due.push_back(state.id);
  }
}

void LeaseClock::give_back(const std::vector<LeaseId>& leases) {
  for (const LeaseId id : leases) {
    const auto found = leases_.find(id);
    if (found == leases_.end() || found->second.place != kNoPlace) continue;
    push(found->second);
    all_.give_one();
    if (found->second.inherited) inherited_.give_one();
  }
}

Instant LeaseClock::next_deadline() const {
  if (!leading_ || heap_.empty()) return kNever;
  const Due& first = heap_.front();
  const Instant at = all_.next(first.at);
  return first.state->inherited ? std::max(at, inherited_.next(first.at)) : at;
}

std::optional<int64_t> LeaseClock::remaining_ms(LeaseId id, Instant now) const {
  const auto found = leases_.find(id);
  if (found == leases_.end() || found->second.place == kNoPlace) return std::nullopt;
  return std::max<int64_t>(0, to_milliseconds(found->second.deadline - now));
}

}  // namespace conclave::node
