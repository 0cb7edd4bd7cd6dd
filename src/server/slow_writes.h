// SlowWrites: which writes of the log an operator is to hear of: one that runs for more than a second, once; and once
// more when it has ended. The disk's thread cannot tell while it hangs, so the loop's looks at its gauge from time to
// time.
#pragma once

#include <optional>
#include <string>

#include "base/time.h"
#include "wal/gauges.h"

namespace conclave::server {

class SlowWrites {
 public:
  // Ten heartbeats and more: by now others notice.
  static constexpr Duration kSlow = std::chrono::seconds(1);

  // A line for the log, if there is something to tell.
  [[nodiscard]] std::optional<std::string> look(Instant now, const wal::WriteGauge& gauge);

 private:
  // When the write that was told of began; another one began later.
  std::optional<Instant> told_;
};

}  // namespace conclave::server
