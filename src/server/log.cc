#include "server/log.h"

#include <chrono>
#include <memory>
#include <thread>

#include <spdlog/async.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace conclave::server {
namespace {

// Some seconds of the busiest server's lines.
constexpr size_t kLinesMax = 8192;
// At the end: a sink that takes nothing for so long is left to itself.
constexpr std::chrono::milliseconds kFlushPatience{500};

struct Sink {
  std::shared_ptr<spdlog::details::thread_pool> pool = std::make_shared<spdlog::details::thread_pool>(kLinesMax, 1);
  std::shared_ptr<spdlog::async_logger> logger =
      std::make_shared<spdlog::async_logger>("conclave", std::make_shared<spdlog::sinks::stderr_sink_mt>(), pool,
                                             spdlog::async_overflow_policy::overrun_oldest);
  Sink() { logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc); }
};

// Never destroyed: its thread may stand in a write that nobody reads, and the process must end all the same.
Sink& sink() {
  static Sink* const sink = new Sink();
  return *sink;
}

}  // namespace

void log_info(std::string_view line) {
  sink().logger->info(line);
}
void log_warning(std::string_view line) {
  sink().logger->warn(line);
}
void log_error(std::string_view line) {
  sink().logger->error(line);
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
