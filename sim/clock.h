// NodeClock: what one machine believes the time is. Runs too fast or too slow against true (the scheduler's) time,
// starts at a zero of its own, and its wall clock jumps without touching the monotonic one.
#pragma once

#include <cstdint>

#include "env/clock.h"
#include "sim/scheduler.h"

namespace conclave::sim {

// What the product promises to bear: clocks of two machines part by at most one per cent.
inline constexpr int32_t kDriftBoundPpm = 10'000;

class NodeClock final : public env::Clock {
 public:
  // `zero`: what the clock shows now. `drift_ppm`: parts per million too fast (or, negative, too slow).
  NodeClock(const Scheduler& scheduler, Instant zero, int32_t drift_ppm);

  Instant now() override { return to_local(scheduler_.now()); }
  int64_t wall_milliseconds() override;

  // What the clock shows, or will show at this rate, at a true instant not before the last change of rate.
  [[nodiscard]] Instant to_local(Instant at) const;
  // The first true instant at which the clock shows `local` or more: a deadline scheduled there is never early. kNever
  // stays kNever; what has passed is in the past.
  [[nodiscard]] Instant to_true(Instant local) const;

  // From now on; what the clock shows does not jump.
  void set_drift(int32_t drift_ppm);
  [[nodiscard]] int32_t drift_ppm() const { return drift_ppm_; }
  // The machine was started anew: the monotonic clock shows `zero`. Only while no process runs on it.
  void restart(Instant zero);
  void jump_wall(Duration by) { wall_offset_ += by; }

 private:
  const Scheduler& scheduler_;
  Instant base_true_;
  Instant base_local_;
  int32_t drift_ppm_;
  Duration wall_offset_{};
};

}  // namespace conclave::sim
