// Budget: how often a peer may do what costs us more than it. A burst, refilled at a rate.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/time.h"

namespace conclave::net {

class Budget {
 public:
  Budget(int64_t burst, int64_t per_second) : burst_(burst), per_second_(per_second), left_(burst) {}

  // False: overdrawn.
  [[nodiscard]] bool spend(Instant now, int64_t amount = 1) {
    if (left_ < burst_) refill(now);
    if (left_ == burst_) since_ = now;
    left_ -= amount;
    return left_ >= 0;
  }
  void restore() { left_ = burst_; }

 private:
  void refill(Instant now) {
    const int64_t gained =
        std::min<int64_t>((now - since_) / std::chrono::milliseconds(1), 1'000'000) * per_second_ / 1000;
    if (gained <= 0) return;
    left_ = std::min(burst_, left_ + gained);
    since_ = now;
  }

  int64_t burst_;
  int64_t per_second_;
  int64_t left_;
  Instant since_{};
};

}  // namespace conclave::net
