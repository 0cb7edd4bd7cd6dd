#include "node/lease_checkpoints.h"

#include <fmt/format.h>

namespace conclave::node {
namespace {

constexpr std::string_view kRecords = "lease-remaining/";
constexpr uint8_t kVersion = 1;

}  // namespace

std::string remaining_record_key(LeaseId lease) {
  return fmt::format("{}{:016x}", kRecords, static_cast<uint64_t>(lease.value()));
}

std::string encode_remaining(int64_t remaining_ms) {
  std::string out;
  ByteWriter writer(out);
  writer.fixed(kVersion);
  writer.varint(static_cast<uint64_t>(remaining_ms));
  return out;
}

std::optional<int64_t> decode_remaining(ByteView value) {
  ByteReader reader(value);
  const uint8_t version = reader.fixed<uint8_t>();
  const uint64_t remaining_ms = reader.varint();
  if (!reader.finished() || version != kVersion || remaining_ms > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return static_cast<int64_t>(remaining_ms);
}

std::optional<LeaseId> lease_of_remaining(ByteView key) {
  if (!key.starts_with(kRecords) || key.size() != kRecords.size() + 16) return std::nullopt;
  const std::optional<uint64_t> number = parse_hex(key.substr(kRecords.size()));
  return number ? std::optional(LeaseId(static_cast<int64_t>(*number))) : std::nullopt;
}

void LeaseCheckpoints::start(LeaseId lease, int64_t ttl_ms, Instant now) {
  if (ttl_ms <= kCheckpointTtlMsAbove) return;
  State& state = leases_[lease];
  due_.erase({state.due_at, lease});
  state = {.ttl_ms = ttl_ms, .due_at = now + std::chrono::milliseconds(ttl_ms / kCheckpointsPerTtl)};
  due_.insert({state.due_at, lease});
}

void LeaseCheckpoints::end(LeaseId lease) {
  under_way_.erase(lease);
  const auto found = leases_.find(lease);
  if (found == leases_.end()) return;
  due_.erase({found->second.due_at, lease});
  leases_.erase(found);
}

void LeaseCheckpoints::stop() {
  leases_.clear();
  due_.clear();
  under_way_.clear();
}

std::vector<LeaseId> LeaseCheckpoints::take_due(Instant now, size_t count) {
  std::vector<LeaseId> out;
  while (!due_.empty() && due_.begin()->first <= now && out.size() < count) {
    const LeaseId lease = due_.begin()->second;
    start(lease, leases_.at(lease).ttl_ms, now);
    out.push_back(lease);
  }
  return out;
}

void LeaseCheckpoints::note_applied(LeaseId lease) {
  const auto found = under_way_.find(lease);
  if (found != under_way_.end() && --found->second == 0) under_way_.erase(found);
}

}  // namespace conclave::node
