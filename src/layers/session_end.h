// How a session ends whose owned locks have a delay (lock-delay of `Acquire`): by one command instead of the plain end
// of its lease. A linger lease of the delay is granted, the owned claims that have one are moved to it, create revision
// kept, and the session's lease is revoked; so nobody gets the lock before the linger lease has ended by itself.
// Decided by the leader, on what it sees: a claim that waits with a delay goes at once, guarded by that its owner still
// stands.
#pragma once

#include <optional>
#include <string>

#include "base/types.h"
#include "keyspace/interface.h"

namespace conclave::layers {

// Whether anything the lease has may linger; looks at system records only, so at any time.
[[nodiscard]] bool may_linger(const keyspace::View& view, LeaseId lease);
// The body of the internal command; nothing where the plain end is as good.
[[nodiscard]] std::optional<std::string> encode_lingering_end(const keyspace::View& view, LeaseId lease);

}  // namespace conclave::layers
