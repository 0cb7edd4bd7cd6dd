// What a server tells its operator: lines on stderr, written by a thread of their own. Never blocks: where the sink is
// slower than the lines come, the oldest are dropped and counted.
#pragma once

#include <cstdint>
#include <string_view>

namespace conclave::server {

void log_info(std::string_view line);
void log_warning(std::string_view line);
void log_error(std::string_view line);
// Lines dropped so far.
[[nodiscard]] uint64_t log_lines_dropped();
// Waits, for half a second at most, until what was said is written out; at the end of the process, which does not wait
// for it otherwise.
void log_flush();

}  // namespace conclave::server
