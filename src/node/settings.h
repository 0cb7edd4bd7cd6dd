// Settings of the cluster: system records that every replica acts on once it has applied them, so that a change has its
// place in the log. What is not set, or not understood, is as by default.
#pragma once

#include <string_view>

#include "keyspace/keyspace.h"

namespace conclave::node {

// Reads may rest on the leader's clock lease (architecture section 1, rule 1). Off by default.
inline constexpr std::string_view kClockLeaseReadsRecord = "setting/clock-lease-reads";
inline constexpr std::string_view kSettingOn = "on";
inline constexpr std::string_view kSettingOff = "off";

[[nodiscard]] inline bool clock_lease_reads(const keyspace::Keyspace& keyspace) {
  const keyspace::Record* record = keyspace.record(kClockLeaseReadsRecord);
  return record != nullptr && record->value == kSettingOn;
}

}  // namespace conclave::node
