// Ids made of names: the same wherever they are computed, so that nobody has to hand them out.
#pragma once

#include <string_view>

#include "base/types.h"

namespace conclave {

// Never zero; similar texts differ in more than a few bits.
[[nodiscard]] uint64_t hash_of_text(std::string_view text);

// Of a server: of its name where the cluster began with it, of its peers' address, "HOST:PORT", where it was added to a
// running one.
[[nodiscard]] NodeId node_id_of(std::string_view name);

}  // namespace conclave
