#include "layers/session_end.h"

#include <map>
#include <vector>

#include "base/mark.h"
#include "layers/claim_record.h"
#include "layers/command_builder.h"
#include "layers/recipe.h"

namespace conclave::layers {
namespace {

// Of a session's claims at most so many linger: what a session may have (SessionsOptions) is less.
constexpr size_t kClaimsMax = 4000;

// The delays of a lease's claims, by key.
std::map<std::string, uint32_t> delays_of(const keyspace::View& view, LeaseId lease, size_t count) {
  std::map<std::string, uint32_t> out;
  view.scan_lease_records(lease, kClaimRecords, kClaimsMax, [&](ByteView key, const keyspace::Record& record) {
    if (!key.starts_with(kClaimRecords)) return false;
    ClaimRecord claim;
    if (decode(record.value, claim) && claim.lock_delay_ms > 0) {
      out.emplace(key.substr(kClaimRecords.size()), claim.lock_delay_ms);
    }
    return out.size() < count;
  });
  return out;
}

// A number nobody else has, as long as the guard says so: another one with each entry applied.
LeaseId linger_lease(LeaseId lease, LogIndex index, uint32_t delay_ms) {
  const uint64_t mixed = mix64(static_cast<uint64_t>(lease.value()) ^ index.value() * 0x9e3779b97f4a7c15ULL ^ delay_ms);
  return LeaseId(static_cast<int64_t>(mixed >> 1 | 1));
}

}  // namespace

bool may_linger(const keyspace::View& view, LeaseId lease) {
  return !delays_of(view, lease, 1).empty();
}

std::optional<std::string> encode_lingering_end(const keyspace::View& view, LeaseId lease) {
  CommandBuilder command;
  command.if_lease(lease);
  std::map<uint32_t, std::vector<std::string>> owned;  // by delay
  for (const auto& [key, delay_ms] : delays_of(view, lease, kClaimsMax)) {
    const std::string prefix = claim_prefix(name_of(key));
    const std::optional<keyspace::KeyValue> owner = oldest_child(view, prefix, claim_prefix_end(prefix));
    const std::optional<keyspace::KeyValue> own = view.get(key);
    if (!owner || !own || own->lease != lease) continue;
    command.if_created(owner->key, owner->create);
    if (owner->key == key) owned[delay_ms].push_back(key);
  }
  if (owned.empty()) return std::nullopt;
  REACHED(session_end_lingers);
  for (const auto& [delay_ms, keys] : owned) {
    const LeaseId linger = linger_lease(lease, view.index(), delay_ms);
    command.if_no_lease(linger);
    command.grant(linger, delay_ms);
    for (const std::string& key : keys) command.move(key, linger);
  }
  command.revoke(lease);
  return command.build();
}

}  // namespace conclave::layers
