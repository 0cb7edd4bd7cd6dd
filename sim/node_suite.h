// The suite of the whole node: simulate node.
#pragma once

namespace conclave::sim {

void add_node_suite();

}  // namespace conclave::sim
