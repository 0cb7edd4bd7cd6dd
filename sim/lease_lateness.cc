#include "sim/lease_lateness.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

}  // namespace

Duration lateness_max(Duration ttl) {
  return std::max<Duration>(milliseconds(100), ttl / 20);
}

std::string LeaseLateness::look(const Look& look) {
  if (!look.able) able_since_ = look.now;
  const auto is_due = [](const Lease& lease) { return lease.remaining_ms && *lease.remaining_ms == 0; };
  const auto due = static_cast<size_t>(std::ranges::count_if(look.leases, is_due));
  std::map<LeaseId, State> known = std::exchange(leases_, {});
  for (const Lease& lease : look.leases) {
    if (!lease.remaining_ms) continue;
    // One more for the rounding to milliseconds.
    if (*lease.remaining_ms > lease.ttl_ms + lease.ttl_ms * 21 / 1000 + 1) {
      return fmt::format("lease {} of {} ms has {} ms to go", lease.id, lease.ttl_ms, *lease.remaining_ms);
    }
    State& state = leases_[lease.id];
    if (*lease.remaining_ms > 0) {
      state = {.deadline = look.now + milliseconds(*lease.remaining_ms + 1)};
      continue;
    }
    const auto before = known.find(lease.id);
    if (before != known.end()) state = before->second;
    if (!std::exchange(state.due, true)) {
      state.deadline = std::min(state.deadline, look.now);
      state.before = due;
    }
    // One that was inherited holds up those behind it: all go at its rate. One end more, since the last may just have
    // been used up.
    const auto rate = static_cast<int64_t>(std::min(options_.ends_per_second, options_.inherited_ends_per_second));
    const Duration held_back = Duration(seconds(static_cast<int64_t>(state.before) + 1)) / rate;
    const Duration bound = lateness_max(milliseconds(lease.ttl_ms)) + held_back;
    const Duration late = look.now - std::max(state.deadline, able_since_);
    if (late > bound) {
      return fmt::format("lease {} of {} ms is due for {} us and its end is not proposed", lease.id, lease.ttl_ms,
                         late.count() / 1000);
    }
  }
  return {};
}

}  // namespace conclave::sim
