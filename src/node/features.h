// Feature levels: what may stand in the log and in snapshots. A build knows levels 1 to kFeatureLevelMax; each later
// command, record or field adds one. The cluster's level is a system record, raised by the leader once every member's
// build knows the next (features.cc): two versions must never apply one entry differently, so nothing of a level is
// proposed before the record says it. It never falls. A server whose build knows less than the cluster's level ends.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "keyspace/keyspace.h"

namespace conclave::node {

// 1: all that the first release of the formats has.
inline constexpr uint64_t kFeatureLevelMax = 1;

inline constexpr std::string_view kFeatureLevelRecord = "feature-level";

[[nodiscard]] std::string encode_feature_level(uint64_t level);
// The cluster's, 1 where none is recorded. Nothing: the record cannot be read, so it is of a build that knows more.
[[nodiscard]] std::optional<uint64_t> feature_level(const keyspace::Keyspace& keyspace);

}  // namespace conclave::node
