#include "node/lease_clock.h"

#include <algorithm>
#include <limits>

#include "base/mark.h"

namespace conclave::node {
namespace {

// A tenth of a second's worth may be saved up: expiries come in rounds, not one by one.
constexpr uint64_t kBurstDivisor = 10;
constexpr uint64_t kThousand = 1000;

}  // namespace

Instant LeaseClock::stretched(int64_t ttl_ms, Instant from) {
  // TTL x 1.021. The longest TTL of etcd's API is 285,000 years; the clock ends in 292.
  const int64_t limit_ms = to_milliseconds(kNever - from) / 2;
  const int64_t bounded = std::min(ttl_ms, limit_ms);
  return from + std::chrono::milliseconds(bounded) + std::chrono::microseconds(bounded * 21);
}

void LeaseClock::lead(Instant now) {
  stop();
  leading_ = true;
  led_since_ = now;
  refilled_at_ = now;
}

void LeaseClock::stop() {
  leading_ = false;
  leases_.clear();
  queue_ = {};
  allowance_ = 0;
}

void LeaseClock::start(LeaseId id, int64_t remaining_ms, Instant now) {
  if (!leading_) return;
  const Instant deadline = stretched(std::max<int64_t>(remaining_ms, 0), now);
  leases_[id] = {.deadline = deadline};
  queue_.push({.at = deadline, .id = id});
}

bool LeaseClock::renew(LeaseId id, int64_t ttl_ms, Instant now) {
  const auto found = leases_.find(id);
  if (!leading_ || found == leases_.end()) return false;
  if (found->second.proposed) {
    REACHED(keep_alive_after_expiry_proposed);
    return false;
  }
  // Never earlier than promised before.
  found->second.deadline = std::max(found->second.deadline, stretched(ttl_ms, now));
  return true;
}

void LeaseClock::refill(Instant now) {
  const bool changed = now < led_since_ + options_.after_change;
  const uint64_t rate = changed ? options_.ends_per_second_after_change : options_.ends_per_second;
  // Thousandths of an end: exact for any rate at microsecond steps.
  const auto passed_us =
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(now - refilled_at_).count());
  const uint64_t gained = rate * std::min<uint64_t>(passed_us, 1'000'000) / kThousand;
  if (gained == 0) return;
  refilled_at_ = now;
  allowance_ = std::min(allowance_ + gained, std::max<uint64_t>(rate / kBurstDivisor, 1) * kThousand);
}

void LeaseClock::take_due(Instant now, size_t count_max, std::vector<LeaseId>& due) {
  if (!leading_) return;
  refill(now);
  while (!queue_.empty() && queue_.top().at <= now && due.size() < count_max) {
    const Due top = queue_.top();
    const auto found = leases_.find(top.id);
    if (found == leases_.end() || found->second.proposed) {
      queue_.pop();
      continue;
    }
    if (found->second.deadline > top.at) {
      queue_.pop();
      queue_.push({.at = found->second.deadline, .id = top.id});
      continue;
    }
    if (allowance_ < kThousand) {
      REACHED(lease_ends_held_back_by_rate);
      return;
    }
    allowance_ -= kThousand;
    queue_.pop();
    found->second.proposed = true;
    due.push_back(top.id);
  }
}

void LeaseClock::give_back(const std::vector<LeaseId>& leases) {
  for (const LeaseId id : leases) {
    const auto found = leases_.find(id);
    if (found == leases_.end() || !found->second.proposed) continue;
    found->second.proposed = false;
    queue_.push({.at = found->second.deadline, .id = id});
  }
}

Instant LeaseClock::next_deadline() const {
  if (!leading_ || queue_.empty()) return kNever;
  if (allowance_ >= kThousand) return queue_.top().at;
  // The next end is earned within a millisecond at any rate above 1,000 a second.
  return std::max(queue_.top().at, refilled_at_ + std::chrono::milliseconds(1));
}

std::optional<int64_t> LeaseClock::remaining_ms(LeaseId id, Instant now) const {
  const auto found = leases_.find(id);
  if (found == leases_.end() || found->second.proposed) return std::nullopt;
  return std::max<int64_t>(0, to_milliseconds(found->second.deadline - now));
}

}  // namespace conclave::node
