// CrowdedPorts: what an operator is to hear of connections that could not be taken, or that others had to make room
// for: one line for both ports of the process, with the numbers since the last, and then none for a while, however
// many come.
#pragma once

#include <optional>
#include <string>

#include "base/time.h"
#include "net/port_counts.h"

namespace conclave::server {

class CrowdedPorts {
 public:
  static constexpr Duration kQuiet = std::chrono::seconds(5);

  // A line for the log, if there is something to tell.
  [[nodiscard]] std::optional<std::string> look(Instant now, const net::PortCounts& client,
                                                const net::PortCounts& peer);

 private:
  // What was told of.
  net::PortCounts client_;
  net::PortCounts peer_;
  std::optional<Instant> told_at_;
};

}  // namespace conclave::server
