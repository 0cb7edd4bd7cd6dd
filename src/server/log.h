// What a server tells its operator: lines on stderr, written by a thread of their own. Never blocks: where the sink is
// slower than the lines come, the oldest are dropped and counted. A line has the time (UTC), its level, a sentence for
// people, the event's name, which stays the same for who searches and counts, and what belongs to it by name:
//
//   2026-11-26T08:15:00.123Z info n2 leads event=leader_changed term=4 leader=9f3a
//   {"time":"2026-11-26T08:15:00.123Z","level":"info","message":"n2 leads","event":"leader_changed","term":"4",...}
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace conclave::server {

enum class LogFormat : uint8_t { kText, kJson };
enum class LogLevel : uint8_t { kInfo, kWarning, kError };

// The name is ours: lower case letters and underscores. The value may be anybody's words.
struct LogField {
  std::string_view name;
  std::string value;
};
using LogFields = std::vector<LogField>;

// For the whole process; before the first line. Lines below `least` are not written.
void set_log(LogFormat format, LogLevel least);
// Any thread, at any time.
void set_log_level(LogLevel least);
[[nodiscard]] LogLevel log_level();
[[nodiscard]] std::string_view to_string(LogLevel level);

void log_info(std::string_view event, std::string_view text, const LogFields& fields = {});
void log_warning(std::string_view event, std::string_view text, const LogFields& fields = {});
void log_error(std::string_view event, std::string_view text, const LogFields& fields = {});
// Lines dropped so far.
[[nodiscard]] uint64_t log_lines_dropped();
// Waits, for half a second at most, until what was said is written out; at the end of the process, which does not wait
// for it otherwise.
void log_flush();

// A line without its time and level, and whatever the words are it stays one line: of JSON the members of an object.
[[nodiscard]] std::string log_line(LogFormat format, std::string_view event, std::string_view text,
                                   std::span<const LogField> fields);

}  // namespace conclave::server
