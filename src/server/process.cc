#include "server/process.h"

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

namespace conclave::server {
namespace {

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

}  // namespace

api::ProcessMetrics process_metrics() {
  api::ProcessMetrics metrics;
  rusage used{};
  if (::getrusage(RUSAGE_SELF, &used) == 0) metrics.cpu_seconds = seconds(used.ru_utime) + seconds(used.ru_stime);
  // In pages: the whole address space, then what is resident.
  std::ifstream file("/proc/self/statm");
  uint64_t whole = 0;
  uint64_t resident = 0;
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  if (file >> whole >> resident) {
    metrics.virtual_bytes = whole * page;
    metrics.resident_bytes = resident * page;
  }
  return metrics;
}

}  // namespace conclave::server
