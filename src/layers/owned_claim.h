// What an operator does to whoever owns a name: asks for its release, or ends its claim by decision. The commands, made
// from a look at the state; each has an effect only while the claim that was looked at stands. Decides nothing.
#pragma once

#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/types.h"
#include "keyspace/interface.h"

namespace conclave::layers {

// The claim that owns a name, as it was looked at.
struct OwnedClaim {
  std::string key;
  Revision create;
  LeaseId lease;
  bool is_session = false;  // otherwise somebody's who follows the recipe
};
[[nodiscard]] std::optional<OwnedClaim> owned_claim_of(const keyspace::View& view, ByteView name);
// The session of the claim is told, while it stands. Of a session's claim.
[[nodiscard]] std::string encode_release_request(const OwnedClaim& claim, const std::string& note);
// The claim goes; its session, if it is one's, is told why.
[[nodiscard]] std::string encode_forced_release(const OwnedClaim& claim, const std::string& reason);

}  // namespace conclave::layers
