#include "keyspace/keyspace.h"

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/digest.h"
#include "keyspace/validate.h"

namespace conclave::keyspace {

Keyspace::Keyspace() : hub_(store_), execution_(store_, tables_, hub_) {}

void Keyspace::set_answers(const AnswerOptions& options) {
  ASSERT(!is_busy());
  execution_.set_answers(options);
}

bool Keyspace::apply(LogIndex index, Term term, const SharedBytes& command, uint32_t units) {
  ASSERT(!is_busy());
  ASSERT_CMP(index, >, applied_);
  applying_ = index;
  execution_.begin(index, term, command);
  if (run_slice(units)) return true;
  REACHED(keyspace_large_command);
  return false;
}

bool Keyspace::run_slice(uint32_t units) {
  if (!execution_.run(units)) return false;
  applied_ = applying_;
  return true;
}

void Keyspace::skip(LogIndex index) {
  ASSERT(!is_busy());
  ASSERT_CMP(index, >, applied_);
  applied_ = index;
}

ErrorId Keyspace::range(const RangeRequest& request, std::string& body) {
  ErrorId error = validate(request);
  if (error != ErrorId::kNone) return error;
  RangeRead read;
  error = read.begin(store_, request);
  if (error != ErrorId::kNone) return error;
  uint32_t units = UINT32_MAX;
  while (!read.step(units, body)) units = UINT32_MAX;
  return ErrorId::kNone;
}

std::optional<LeaseInfo> Keyspace::lease(LeaseId id) const {
  const Lease* lease = tables_.visible_lease(id);
  if (lease == nullptr) return std::nullopt;
  return LeaseInfo{lease->id, lease->ttl_ms, lease->session};
}

std::vector<LeaseInfo> Keyspace::leases(LeaseId after, size_t count) const {
  std::vector<LeaseInfo> out;
  for (auto at = tables_.leases().upper_bound(after); at != tables_.leases().end() && out.size() < count; ++at) {
    const Lease& lease = at->second;
    if (tables_.is_visible(lease)) out.push_back({lease.id, lease.ttl_ms, lease.session});
  }
  return out;
}

std::vector<std::string> Keyspace::lease_keys(LeaseId id, ByteView from, size_t count) const {
  std::vector<std::string> out;
  const Lease* lease = tables_.visible_lease(id);
  if (lease == nullptr || count == 0) return out;
  lease->keys.each_from(from, [&](Key* key) {
    // The set may be ahead of what is visible, or behind what was.
    const Version* version = Store::at_revision(key, store_.visible());
    if (version != nullptr && version->lease() == id.value()) out.emplace_back(key->bytes());
    return out.size() < count;
  });
  return out;
}

bool Keyspace::run_background(uint32_t units) {
  bool worked = store_.free_some(units);
  worked |= tables_.free_some(units);
  if (!is_busy()) worked |= hub_.sweep(units);
  return worked;
}

void Keyspace::continue_above(int64_t by) {
  ASSERT(!is_busy() && by > 0);
  store_.publish(store_.visible() + by);
  store_.set_floor(store_.visible());
}

uint64_t Keyspace::digest() const {
  ASSERT(!is_busy());
  uint64_t digest = mix(static_cast<uint64_t>(store_.visible()), static_cast<uint64_t>(store_.floor()));
  digest = mix(digest, store_.live_digest());
  digest = mix(digest, store_.event_digest());
  return mix(digest, tables_.digest());
}

}  // namespace conclave::keyspace
