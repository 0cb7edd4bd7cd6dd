// What the API's service is told when it is made.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "api/metrics.h"
#include "base/time.h"
#include "base/types.h"

namespace conclave::api {

// A server as clients see it in member lists.
struct MemberAttributes {
  NodeId id;
  std::string name;
  std::vector<std::string> peer_urls;
  std::vector<std::string> client_urls;
};

struct ServiceOptions {
  ClusterId cluster;
  NodeId self;
  std::string name;
  std::vector<std::string> client_urls;
  std::vector<std::string> peer_urls;
  // What clients are told they talk to: etcd's version whose API this is.
  std::string version = "3.6.0";
  // The version all members speak: the same without its patch.
  [[nodiscard]] std::string cluster_version() const { return version.substr(0, version.rfind('.')) + ".0"; }
  // Of the other servers, as configuration knows them; what they publish themselves is preferred.
  std::vector<MemberAttributes> peers;
  // Chooses lease ids: different on every server and every start, or grants collide.
  uint64_t seed = 0;
  // Asked by /metrics. May be null: nothing is told of the disk then.
  std::function<DiskMetrics()> disk;
  // Likewise.
  std::function<NetworkMetrics()> network;
  std::function<ProcessMetrics()> process;
  // etcd's. Zero: no notes.
  Duration watch_progress_interval = std::chrono::minutes(10);
};

}  // namespace conclave::api
