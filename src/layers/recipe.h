// The keys and commands of etcd's recipes for locks and elections, so that those who use them natively and those who
// follow the recipe queue together. A claim on NAME is the key NAME/LEASEHEX, attached to that lease; the oldest claim
// under NAME/ by create revision owns. Pure: encodes etcdserverpb.TxnRequests, which the caller puts into the log;
// looks at a view, decides nothing.
#pragma once

#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/types.h"
#include "keyspace/interface.h"
#include "keyspace/requests.h"

namespace conclave::layers {

// A session's lease has its number.
[[nodiscard]] constexpr LeaseId lease_of(SessionId session) {
  return LeaseId(static_cast<int64_t>(session.value()));
}
[[nodiscard]] constexpr SessionId session_of(LeaseId lease) {
  return SessionId(static_cast<uint64_t>(lease.value()));
}

// Where the claims on a name stand: all keys that begin with "NAME/".
[[nodiscard]] std::string claim_prefix(ByteView name);
// The lease in hex without leading zeros, "-" in front if negative, as Go prints it.
[[nodiscard]] std::string claim_key(ByteView name, LeaseId lease);
// The end of the range of all keys that begin with a claim prefix.
[[nodiscard]] std::string claim_prefix_end(ByteView prefix);
// The oldest claim: a range of one key. Views its arguments.
[[nodiscard]] keyspace::RangeRequest oldest_claim(ByteView prefix, ByteView prefix_end);

// The oldest key directly below the prefix: what owns a native lock (locks `orders` and `orders/42` are two). Where
// more than kElderBelowMax keys of deeper names are older than it, the oldest of those is told instead, which errs to
// waiting.
inline constexpr size_t kElderBelowMax = 4096;
[[nodiscard]] std::optional<keyspace::KeyValue> oldest_child(const keyspace::View& view, ByteView prefix,
                                                             ByteView prefix_end);
[[nodiscard]] bool is_child(ByteView prefix, ByteView key);
// NAME of NAME/HEX, by the last slash; empty if there is none.
[[nodiscard]] ByteView name_of(ByteView key);

// Puts the claim if the key does not stand; otherwise changes nothing.
[[nodiscard]] std::string encode_claim(ByteView key, ByteView value, LeaseId lease);
// The same; a claim that stands with another value takes this one and keeps its place.
[[nodiscard]] std::string encode_campaign(ByteView key, ByteView value, LeaseId lease);
// A new value for the claim created at `create`, if it stands. Lease zero: the key keeps the one it has.
[[nodiscard]] std::string encode_proclaim(ByteView key, Revision create, ByteView value, LeaseId lease);
// Ends the claim created at `create`, if it stands.
[[nodiscard]] std::string encode_release(ByteView key, Revision create);

}  // namespace conclave::layers
