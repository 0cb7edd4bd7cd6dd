// A peer that holds a server's key and says what no core would say: well-formed messages whose numbers were changed.
#pragma once

#include "base/random.h"
#include "raft/message.h"

namespace conclave::sim {

// Changes one to three numbers of the message, to near or far ones.
void make_hostile(raft::Message& message, Random& random);

}  // namespace conclave::sim
