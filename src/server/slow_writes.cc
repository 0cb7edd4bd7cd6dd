#include "server/slow_writes.h"

#include <fmt/format.h>

namespace conclave::server {
namespace {

double seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

std::optional<std::string> SlowWrites::look(Instant now, const wal::WriteGauge& gauge) {
  const Duration running = gauge.running_for(now);
  if (told_) {
    // The gauge and the clock are read one after the other, so a begin is known to a few microseconds only.
    const bool still = running > Duration(0) && now - running <= *told_ + std::chrono::milliseconds(1);
    if (still) return std::nullopt;
    told_.reset();
    return fmt::format("the log's slow write has ended, the last one took {:.3f} s", seconds(gauge.last()));
  }
  if (running <= kSlow) return std::nullopt;
  told_ = now - running;
  return fmt::format(
      "a write of the log has been running for {:.3f} s: the disk is slow or hangs, and nothing is "
      "acknowledged meanwhile",
      seconds(running));
}

}  // namespace conclave::server
