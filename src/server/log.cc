#include "server/log.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>

#include <fmt/format.h>
#include <spdlog/async.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace conclave::server {
namespace {

// Some seconds of the busiest server's lines.
constexpr size_t kLinesMax = 8192;
// At the end: a sink that takes nothing for so long is left to itself.
constexpr std::chrono::milliseconds kFlushPatience{500};

constexpr const char* kTextPattern = "%Y-%m-%dT%H:%M:%S.%eZ %l %v";
constexpr const char* kJsonPattern = R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v})";

struct Sink {
  std::shared_ptr<spdlog::details::thread_pool> pool = std::make_shared<spdlog::details::thread_pool>(kLinesMax, 1);
  std::shared_ptr<spdlog::async_logger> logger =
      std::make_shared<spdlog::async_logger>("conclave", std::make_shared<spdlog::sinks::stderr_sink_mt>(), pool,
                                             spdlog::async_overflow_policy::overrun_oldest);
  LogFormat format = LogFormat::kText;
  Sink() { logger->set_pattern(kTextPattern, spdlog::pattern_time_type::utc); }
};

// Never destroyed: its thread may stand in a write that nobody reads, and the process must end all the same.
Sink& sink() {
  static Sink* const sink = new Sink();
  return *sink;
}

spdlog::level::level_enum level_of(LogLevel level) {
  switch (level) {
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      break;
  }
  return spdlog::level::err;
}

void log(LogLevel level, std::string_view event, std::string_view text, const LogFields& fields) {
  sink().logger->log(level_of(level), log_line(sink().format, event, text, fields));
}

// Bytes above 0x7f pass: words of people are UTF-8, and who reads lines shows the rest as it can.
void append_escaped(std::string_view text, std::string_view special, std::string& out) {
  for (const char c : text) {
    if (special.find(c) != std::string_view::npos) {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += c;
    }
  }
}

void append_quoted(std::string_view text, std::string& out) {
  out += '"';
  append_escaped(text, "\"\\", out);
  out += '"';
}

// Needs no quotes.
bool is_plain(std::string_view value) {
  return !value.empty() && std::ranges::all_of(value, [](char c) {
    return static_cast<unsigned char>(c) > 0x20 && c != 0x7f && c != '"' && c != '\\' && c != '=';
  });
}

}  // namespace

std::string log_line(LogFormat format, std::string_view event, std::string_view text,
                     std::span<const LogField> fields) {
  std::string line;
  if (format == LogFormat::kJson) {
    line += R"("message":)";
    append_quoted(text, line);
    line += fmt::format(R"(,"event":"{}")", event);
    for (const LogField& field : fields) {
      line += fmt::format(R"(,"{}":)", field.name);
      append_quoted(field.value, line);
    }
    return line;
  }
  append_escaped(text, "", line);
  line += fmt::format(" event={}", event);
  for (const LogField& field : fields) {
    line += fmt::format(" {}=", field.name);
    if (is_plain(field.value)) {
      line += field.value;
    } else {
      append_quoted(field.value, line);
    }
  }
  return line;
}

void set_log(LogFormat format, LogLevel least) {
  sink().format = format;
  sink().logger->set_pattern(format == LogFormat::kJson ? kJsonPattern : kTextPattern, spdlog::pattern_time_type::utc);
  set_log_level(least);
}

void set_log_level(LogLevel least) {
  sink().logger->set_level(level_of(least));
}

LogLevel log_level() {
  const spdlog::level::level_enum level = sink().logger->level();
  return level <= spdlog::level::info   ? LogLevel::kInfo
         : level == spdlog::level::warn ? LogLevel::kWarning
                                        : LogLevel::kError;
}

std::string_view to_string(LogLevel level) {
  switch (level) {
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      break;
  }
  return "error";
}

void log_info(std::string_view event, std::string_view text, const LogFields& fields) {
  log(LogLevel::kInfo, event, text, fields);
}
void log_warning(std::string_view event, std::string_view text, const LogFields& fields) {
  log(LogLevel::kWarning, event, text, fields);
}
void log_error(std::string_view event, std::string_view text, const LogFields& fields) {
  log(LogLevel::kError, event, text, fields);
}
uint64_t log_lines_dropped() {
  return sink().pool->overrun_counter();
}
void log_flush() {
  // Its one thread takes this after all lines before it are out.
  sink().logger->flush();
  const auto give_up = std::chrono::steady_clock::now() + kFlushPatience;
  while (sink().pool->queue_size() > 0 && std::chrono::steady_clock::now() < give_up) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace conclave::server
