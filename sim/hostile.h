// A peer that holds a server's key and says what no core would say: well-formed messages whose numbers were changed.
#pragma once

#include <vector>

#include "base/random.h"
#include "raft/message.h"

namespace conclave::sim {

// Changes one to three numbers of the message or of its entries, to near or far ones. Changed entries are put into
// `entries`, which must live as long as the message is used.
void make_hostile(raft::Message& message, std::vector<Entry>& entries, Random& random);

}  // namespace conclave::sim
