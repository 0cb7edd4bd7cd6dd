// Durations as people write them, the same in every flag: 250ms, 10s, 1m30s, 2h. A bare number is refused: nobody
// remembers which unit it was.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/time.h"

namespace conclave::cli {

// Not negative, at most a year.
[[nodiscard]] Result<Duration> parse_duration(std::string_view text);
[[nodiscard]] std::string describe(Duration duration);
// As parse_duration takes it.
[[nodiscard]] std::string flag_text(Duration duration);

}  // namespace conclave::cli
