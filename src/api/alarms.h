// Alarms and the quota: what the cluster will not take any more, and why. Both stand in the state as system records
// (alarm/nospace/ or alarm/corrupt/ and a member's id in 16 hex digits; setting/quota-bytes), so every server knows
// them; each refuses by the state it has, before the log: what is under way when an alarm is raised is still taken.
//
// The quota is on what lives: keys and values that can be read now, without the past. The server that refuses the first
// request for it raises the alarm, and the leader clears it by itself once there is room again (alarm_keeper.h); one
// that a client has raised stays until a client takes it back. Deletes, compactions, reads, and all about leases but a
// grant pass a full quota; a corrupt cluster takes reads alone, until somebody has looked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/types.h"
#include "keyspace/keyspace.h"

namespace conclave::api {

inline constexpr std::string_view kAlarmRecords = "alarm/";
// Decimal; zero: none. Without the record kQuotaBytesDefault.
inline constexpr std::string_view kQuotaRecord = "setting/quota-bytes";
inline constexpr uint64_t kQuotaBytesDefault = uint64_t{2} << 30;  // etcd's
inline constexpr uint64_t kQuotaBytesMin = uint64_t{1} << 20;
// What such a record says.
inline constexpr std::string_view kRaisedByServer = "server";
inline constexpr std::string_view kRaisedByClient = "client";

enum class AlarmKind : uint8_t { kNoSpace, kCorrupt };
[[nodiscard]] std::string_view to_string(AlarmKind kind);  // "NOSPACE", "CORRUPT"

struct Alarm {
  NodeId member;
  AlarmKind kind = AlarmKind::kNoSpace;
  bool by_server = false;
  friend bool operator==(const Alarm&, const Alarm&) = default;
};
[[nodiscard]] std::string alarm_record_key(AlarmKind kind, NodeId member);

// Keys, values, and what their place costs.
[[nodiscard]] uint64_t live_bytes(const keyspace::Keyspace& keyspace);

class Alarms {
 public:
  // Whether it is about what stands in a record of this key.
  [[nodiscard]] static bool is_record(ByteView key) { return key.starts_with(kAlarmRecords) || key == kQuotaRecord; }
  // After such a record may have changed, or the whole state.
  void refresh(const keyspace::Keyspace& keyspace);

  [[nodiscard]] const std::vector<Alarm>& standing() const { return standing_; }
  [[nodiscard]] bool stands(AlarmKind kind) const;
  [[nodiscard]] uint64_t quota_bytes() const { return quota_bytes_; }

  // Of a client's request that is to enter the log: of one of etcd's kinds, or of a session.
  [[nodiscard]] keyspace::ErrorId refusal_of(const keyspace::Keyspace& keyspace, keyspace::CommandKind kind,
                                             ByteView canonical);
  // Of one key with its value, or a lease, in so many bytes.
  [[nodiscard]] keyspace::ErrorId refusal_of_growth(const keyspace::Keyspace& keyspace, size_t bytes);
  // Whether anything was refused for the quota while no alarm stood, since it was last asked.
  [[nodiscard]] bool take_exceeded() { return std::exchange(exceeded_, false); }

 private:
  // Whether so much fits, whatever it is.
  [[nodiscard]] bool fits(const keyspace::Keyspace& keyspace, size_t bytes) const;
  [[nodiscard]] keyspace::ErrorId refuse_growth();

  std::vector<Alarm> standing_;  // by kind, then member
  uint64_t quota_bytes_ = kQuotaBytesDefault;
  bool exceeded_ = false;
};

}  // namespace conclave::api
