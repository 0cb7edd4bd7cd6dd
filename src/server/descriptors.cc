#include "server/descriptors.h"

#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <system_error>

namespace conclave::server {
namespace {

// 64 links that peers made and 32 to them, a few dozen files of log and snapshots, and as much again.
constexpr uint64_t kReserved = 256;
// An idle connection costs some 20 KiB, with TLS twice as much (bench_connections): at this many, memory is what runs
// out first.
constexpr uint64_t kConnectionsMax = 100'000;

// Half a millisecond for a list, on the loop.
constexpr size_t kListedConnectionsMax = 1'000;

}  // namespace

uint64_t DescriptorCount::count(size_t connections) {
  if (connections <= kListedConnectionsMax || others_ == 0) {
    std::error_code error;
    const std::filesystem::directory_iterator listed("/proc/self/fd", error);
    if (error) return connections;
    // The list itself is one of them.
    const auto open = static_cast<uint64_t>(std::distance(begin(listed), end(listed))) - 1;
    others_ = open - std::min<uint64_t>(open, connections);
  }
  return others_ + connections;
}

uint64_t raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  rlimit raised = limit;
  raised.rlim_cur = raised.rlim_max;
  return ::setrlimit(RLIMIT_NOFILE, &raised) == 0 ? raised.rlim_cur : limit.rlim_cur;
}

size_t connections_max_of(uint64_t descriptors) {
  // Of very few, half: such a server serves little, but it works.
  const uint64_t reserved = std::min(kReserved, descriptors / 2);
  return std::clamp<uint64_t>(descriptors - reserved, 1, kConnectionsMax);
}

}  // namespace conclave::server
