// What the system says of this process, for /metrics. Reads one small file of /proc; where there is none, zero.
#pragma once

#include "api/metrics.h"

namespace conclave::server {

// CPU and memory; the rest is left to who knows it.
[[nodiscard]] api::ProcessMetrics process_metrics();

}  // namespace conclave::server
