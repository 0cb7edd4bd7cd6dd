// Introduction: a server's word on who the members are and where, to a peer that may have been away: its leader may be
// one it never heard of, which it would refuse and could not answer. What it is told counts only until it has a leader.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "net/peer_links.h"

namespace conclave::server {

// In front of the frame; beside the kinds of node/frame.h and bootstrap.h.
inline constexpr char kIntroductionFrame = 0x41;

[[nodiscard]] std::string encode_introduction(const std::vector<net::PeerAddress>& members);
// kMalformed. At most kMembersMax, each with an id and an address.
[[nodiscard]] Result<std::vector<net::PeerAddress>> decode_introduction(ByteView frame);

}  // namespace conclave::server
