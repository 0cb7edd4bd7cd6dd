// The suite of sessions, locks and elections: simulate primitives.
#pragma once

namespace conclave::sim {

void add_primitives_suite();

}  // namespace conclave::sim
