#include "base/node_id.h"

#include <fmt/format.h>

namespace conclave {

// FNV-1a, then a mix.
uint64_t hash_of_text(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : text) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  hash = mix64(hash);
  return hash == 0 ? 1 : hash;
}

NodeId node_id_of(std::string_view name) {
  return NodeId(hash_of_text(fmt::format("node {}", name)));
}

}  // namespace conclave
