// Suites that prove the world itself: `world` runs simple nodes that append to a log, keep a snapshot and echo each
// other, and holds the world to its promises; `canary` is the same with nodes that acknowledge before their sync, and
// must fail.
#pragma once

namespace conclave::sim {

void add_world_suites();

}  // namespace conclave::sim
