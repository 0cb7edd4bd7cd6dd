#include "sim/clock.h"

#include "base/assert.h"

namespace conclave::sim {
namespace {

__extension__ using Wide = __int128;
constexpr int64_t kMillion = 1'000'000;
// 2026-01-01T00:00:00Z: a wall clock must show something believable.
constexpr int64_t kWallStartMilliseconds = 1'767'225'600'000;

}  // namespace

NodeClock::NodeClock(const Scheduler& scheduler, Instant zero, int32_t drift_ppm)
    : scheduler_(scheduler), base_true_(scheduler.now()), base_local_(zero), drift_ppm_(drift_ppm) {
  ASSERT(drift_ppm > -kMillion);
}

Instant NodeClock::to_local(Instant at) const {
  const Wide passed = (at - base_true_).count();
  ASSERT(passed >= 0);
  return base_local_ + Duration(static_cast<int64_t>(passed * (kMillion + drift_ppm_) / kMillion));
}

Instant NodeClock::to_true(Instant local) const {
  if (local == kNever) return kNever;
  if (local <= base_local_) return base_true_;
  const Wide wanted = (local - base_local_).count();
  const Wide rate = kMillion + drift_ppm_;
  // Rounded up: to_local rounds down, so this is the first instant that shows `wanted`.
  const Wide passed = (wanted * kMillion + rate - 1) / rate;
  if (passed >= (kNever - base_true_).count()) return kNever;
  return base_true_ + Duration(static_cast<int64_t>(passed));
}

int64_t NodeClock::wall_milliseconds() {
  return kWallStartMilliseconds + to_milliseconds(scheduler_.now() - Scheduler::kStart + wall_offset_);
}

void NodeClock::set_drift(int32_t drift_ppm) {
  ASSERT(drift_ppm > -kMillion);
  base_local_ = to_local(scheduler_.now());
  base_true_ = scheduler_.now();
  drift_ppm_ = drift_ppm;
}

void NodeClock::restart(Instant zero) {
  base_local_ = zero;
  base_true_ = scheduler_.now();
}

}  // namespace conclave::sim
