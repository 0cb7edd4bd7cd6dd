// What a replica of one group is told when it starts. Times are on the server's own monotonic clock.
#pragma once

#include <cstdint>

#include "base/limits.h"
#include "base/time.h"
#include "base/types.h"

namespace conclave::raft {

struct Options {
  GroupId group;
  NodeId self;
  // Grows with every start of the process; messages of an earlier boot count for nothing.
  Boot boot;
  // Seeds the timeouts. Different on every server, or elections split.
  uint64_t seed = 0;

  // A tenth of the election timeout: several may be lost before anybody campaigns.
  Duration heartbeat_interval = std::chrono::milliseconds(100);
  // Drawn anew each time from [election_timeout, 2 * election_timeout) (dissertation 3.4, 9.3).
  Duration election_timeout = std::chrono::milliseconds(1000);
  // A server that starts, and knows no leader, asks for votes within this time: there is no leader to disturb, and
  // those who know one refuse.
  Duration start_delay_max = std::chrono::milliseconds(100);
  // A follower whose link to the leader broke asks for votes within this time. Large enough that two followers of three
  // rarely collide (a pre-vote and a vote take a few milliseconds), small against the 150 ms a killed leader may cost.
  Duration link_broken_delay_max = std::chrono::milliseconds(40);
  // Clocks may differ from true rate by this much, in parts per million: 1 %.
  uint32_t clock_drift_ppm_max = 10000;

  // One message holds entries up to both bounds, and at least one entry.
  size_t entries_per_message_max = kEntriesPerMessageMax;
  size_t bytes_per_message_max = size_t{256} << 10;
  // Messages with entries under way to one peer before the first is answered. 256 KiB each: 8 MiB, more than a fast
  // disk and a long link hold.
  size_t inflight_messages_max = 32;
  // Proposed and not yet committed; beyond it proposals are refused at once.
  size_t uncommitted_bytes_max = size_t{64} << 20;
  // Linearizable reads waiting for a round, each of them a whole batch of a server's clients.
  size_t reads_pending_max = 1024;

  // A leader whose own write takes longer than this, while a quorum of others acknowledged what came after it, hands
  // over.
  Duration disk_stall_min = std::chrono::milliseconds(500);
  // And then not again for so long, counted by the new leader too: three replicas on one slow disk must not circle.
  Duration disk_handover_interval = std::chrono::seconds(10);
};

}  // namespace conclave::raft
