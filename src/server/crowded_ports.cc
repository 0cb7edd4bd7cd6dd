#include "server/crowded_ports.h"

#include <string_view>

#include <fmt/format.h>

namespace conclave::server {
namespace {

void add(std::string_view port, const net::PortCounts& before, const net::PortCounts& counts, std::string& line) {
  const uint64_t refused = counts.refused - before.refused;
  const uint64_t evicted = counts.evicted - before.evicted;
  const uint64_t failures = counts.failures - before.failures;
  if (refused + evicted + failures == 0) return;
  line += line.empty() ? "more connections than there may be: " : "; ";
  line += fmt::format("{} port: {} refused, {} silent ones closed for new ones", port, refused, evicted);
  if (failures > 0) line += fmt::format(", {} times no descriptor was to be had", failures);
}

}  // namespace

std::optional<std::string> CrowdedPorts::look(Instant now, const net::PortCounts& client, const net::PortCounts& peer) {
  if (told_at_ && now < *told_at_ + kQuiet) return std::nullopt;
  std::string line;
  add("client", client_, client, line);
  add("peer", peer_, peer, line);
  if (line.empty()) return std::nullopt;
  client_ = client;
  peer_ = peer;
  told_at_ = now;
  return line;
}

}  // namespace conclave::server
