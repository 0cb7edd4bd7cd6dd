#include "server/crowded_ports.h"

#include <gtest/gtest.h>

namespace conclave::server {
namespace {

using std::chrono::seconds;

Instant at(int64_t s) {
  return Instant(seconds(s));
}

TEST(CrowdedPorts, AreToldWithTheNumbersSinceTheLastLine) {
  CrowdedPorts crowded;
  net::PortCounts client{.accepted = 100, .timeouts = 7};
  net::PortCounts peer;
  EXPECT_FALSE(crowded.look(at(1), client, peer)) << "nothing unusual";
  client.refused = 3;
  client.evicted = 2;
  EXPECT_EQ(crowded.look(at(2), client, peer),
            "more connections than there may be: client port: 3 refused, 2 silent ones closed for new ones");
  client.refused = 1000;
  EXPECT_FALSE(crowded.look(at(6), client, peer)) << "quiet for a while";
  client.refused = 2003;
  peer.evicted = 1;
  peer.failures = 4;
  EXPECT_EQ(crowded.look(at(7), client, peer),
            "more connections than there may be: client port: 2000 refused, 0 silent ones closed for new ones; peer "
            "port: 0 refused, 1 silent ones closed for new ones, 4 times no descriptor was to be had");
  EXPECT_FALSE(crowded.look(at(100), client, peer)) << "told already";
}

}  // namespace
}  // namespace conclave::server
