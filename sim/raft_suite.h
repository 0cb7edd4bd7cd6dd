#pragma once

namespace conclave::sim {

// "raft": the consensus core under all faults. "raft-hostile": beside a peer that lies. "raft-graphs": every graph of
// connectivity on four and five servers (raft_graphs_suite.cc).
void add_raft_suites();
void add_raft_graphs_suite();

}  // namespace conclave::sim
