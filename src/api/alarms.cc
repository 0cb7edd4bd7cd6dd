#include "api/alarms.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/limits.h"
#include "keyspace/requests.h"

namespace conclave::api {
namespace {

using keyspace::CommandKind;
using keyspace::ErrorId;

// What a key costs beside its bytes and its value's; etcd's estimates.
constexpr size_t kKeyOverhead = 256;
constexpr size_t kLeaseBytes = 64;

constexpr std::string_view kNoSpaceRecords = "alarm/nospace/";
constexpr std::string_view kCorruptRecords = "alarm/corrupt/";

template <class Number>
bool parse_number(std::string_view text, int base, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  return error == std::errc() && end == text.data() + text.size();
}

// What hands something on, a claim to the next candidate, deletes as it puts: it is taken for no growth.
size_t growth_of_internal(ByteView body) {
  using Kind = keyspace::InternalOperation::Kind;
  keyspace::InternalCommand command;
  if (keyspace::decode(body, command) != ErrorId::kNone) return 0;
  size_t bytes = 0;
  for (const keyspace::InternalOperation& operation : command.operations) {
    if (operation.kind == Kind::kDelete) return 0;
    if (operation.kind != Kind::kPut && operation.kind != Kind::kRecordPut) continue;
    bytes += operation.key.size() + operation.value.size() + kKeyOverhead;
  }
  return bytes;
}

// What a request may add, at most; zero if it adds nothing.
size_t growth_of(CommandKind kind, ByteView canonical) {
  switch (kind) {
    case CommandKind::kPut:
      return canonical.size() + kKeyOverhead;
    case CommandKind::kLeaseGrant:
      return kLeaseBytes;
    case CommandKind::kTxn: {
      keyspace::Program program;
      if (keyspace::parse(canonical, program) != ErrorId::kNone || program.puts.empty()) return 0;
      size_t bytes = 0;
      for (const keyspace::PutRequest& put : program.puts) bytes += put.key.size() + put.value.size() + kKeyOverhead;
      return bytes;
    }
    case CommandKind::kSessionOpen:
      return canonical.size() + kLeaseBytes;
    case CommandKind::kInternal:
      return growth_of_internal(canonical);
    default:
      return 0;
  }
}

}  // namespace

std::string_view to_string(AlarmKind kind) {
  return kind == AlarmKind::kNoSpace ? "NOSPACE" : "CORRUPT";
}

std::string alarm_record_key(AlarmKind kind, NodeId member) {
  return fmt::format("{}{:016x}", kind == AlarmKind::kNoSpace ? kNoSpaceRecords : kCorruptRecords, member.value());
}

uint64_t live_bytes(const keyspace::Keyspace& keyspace) {
  const keyspace::Store& store = keyspace.store();
  const auto used = static_cast<uint64_t>(store.used_bytes());
  return used - std::min(used, store.history_bytes());
}

void Alarms::refresh(const keyspace::Keyspace& keyspace) {
  standing_.clear();
  const auto& records = keyspace.tables().records();
  const auto take = [&](AlarmKind kind, std::string_view prefix) {
    for (auto at = records.lower_bound(prefix); at != records.end() && at->first.starts_with(prefix); ++at) {
      uint64_t member = 0;
      if (!parse_number(std::string_view(at->first).substr(prefix.size()), 16, member)) continue;
      standing_.push_back({.member = NodeId(member), .kind = kind, .by_server = at->second.value == kRaisedByServer});
    }
  };
  take(AlarmKind::kNoSpace, kNoSpaceRecords);
  take(AlarmKind::kCorrupt, kCorruptRecords);
  const keyspace::Record* quota = keyspace.record(kQuotaRecord);
  if (quota == nullptr || !parse_number(quota->value, 10, quota_bytes_)) quota_bytes_ = kQuotaBytesDefault;
}

bool Alarms::stands(AlarmKind kind) const {
  return std::ranges::any_of(standing_, [kind](const Alarm& alarm) { return alarm.kind == kind; });
}

bool Alarms::fits(const keyspace::Keyspace& keyspace, size_t bytes) const {
  return quota_bytes_ == 0 || live_bytes(keyspace) + bytes <= quota_bytes_;
}

ErrorId Alarms::refuse_growth() {
  REACHED(quota_refused);
  exceeded_ = exceeded_ || !stands(AlarmKind::kNoSpace);
  return ErrorId::kNoSpace;
}

ErrorId Alarms::refusal_of(const keyspace::Keyspace& keyspace, CommandKind kind, ByteView canonical) {
  // Nearly always, and before anything is parsed for it.
  const size_t at_most = canonical.size() + keyspace::kTxnTotalMax * kKeyOverhead;
  if (standing_.empty() && fits(keyspace, at_most)) return ErrorId::kNone;
  if (stands(AlarmKind::kCorrupt)) return ErrorId::kCorrupt;
  const size_t growth = growth_of(kind, canonical);
  if (growth == 0 || (!stands(AlarmKind::kNoSpace) && fits(keyspace, growth))) return ErrorId::kNone;
  return refuse_growth();
}

ErrorId Alarms::refusal_of_growth(const keyspace::Keyspace& keyspace, size_t bytes) {
  if (stands(AlarmKind::kCorrupt)) return ErrorId::kCorrupt;
  if (!stands(AlarmKind::kNoSpace) && fits(keyspace, bytes + kKeyOverhead)) return ErrorId::kNone;
  return refuse_growth();
}

}  // namespace conclave::api
