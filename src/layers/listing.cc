#include "layers/listing.h"

#include <algorithm>

#include "layers/recipe.h"

namespace conclave::layers {
namespace {

using keyspace::KeyRange;
using keyspace::KeyValue;
using keyspace::Record;
using keyspace::View;

// The number behind the last slash, as leases are written there; zero if it is none.
uint64_t number_in(ByteView key) {
  return parse_hex(key.substr(key.rfind('/') + 1)).value_or(0);
}

// The session a claim belongs to; null if it is somebody's who follows the recipe.
const keyspace::Session* session_of(const View& view, ByteView key) {
  const SessionId session(number_in(key));
  return session.is_set() ? view.session(session) : nullptr;
}

template <class Ordered>
void keep_first(Ordered& all, size_t count) {
  if (all.size() > count) all.erase(std::prev(all.end()));
}

}  // namespace

// ---- One name ----

ClaimRecord claim_record_of(const View& view, ByteView key) {
  ClaimRecord record;
  const Record* found = view.record(claim_record_key(key));
  if (found == nullptr || !decode(found->value, record)) return {};
  return record;
}

std::optional<KeyValue> owner_of(const View& view, ByteView name) {
  const std::string prefix = claim_prefix(name);
  return oldest_child(view, prefix, claim_prefix_end(prefix));
}

bool is_on_its_lease(const KeyValue& claim) {
  return claim.lease.is_set() && claim.key == claim_key(name_of(claim.key), claim.lease);
}

v1::LockValidity validity_of(const View& view, ByteView name, int64_t token) {
  v1::LockValidity validity;
  validity.set_revision(view.revision().value());
  const std::optional<KeyValue> owner = owner_of(view, name);
  validity.set_valid(owner && owner->create.value() == token && is_on_its_lease(*owner));
  return validity;
}

v1::Leadership leadership_of(const View& view, ByteView name) {
  v1::Leadership leadership;
  leadership.set_name(std::string(name));
  const std::optional<KeyValue> owner = owner_of(view, name);
  if (!owner) {
    leadership.set_mod_revision(view.revision().value());
    return leadership;
  }
  leadership.set_token(owner->create.value());
  leadership.set_value(std::string(owner->value));
  leadership.set_lease(owner->lease.value());
  leadership.set_mod_revision(owner->mod.value());
  return leadership;
}

v1::Candidates candidates_of(const View& view, const Elections& elections, const std::string& name) {
  v1::Candidates out;
  out.set_waiting(static_cast<int64_t>(elections.count(name)));
  for (const Candidate& known : elections.candidates(name, kObservedCandidatesMax)) {
    v1::Candidate& candidate = *out.add_best();
    candidate.set_session(lease_of(known.session).value());
    candidate.set_priority(known.priority);
    if (const keyspace::Session* session = view.session(known.session)) {
      candidate.set_description(session->description);
    }
  }
  return out;
}

v1::LockClaim lock_claim_of(const View& view, const KeyValue& claim) {
  v1::LockClaim out;
  out.set_key(std::string(claim.key));
  out.set_token(claim.create.value());
  out.set_lease(claim.lease.value());
  const ClaimRecord record = claim_record_of(view, claim.key);
  out.set_note(record.note);
  out.set_lock_delay_ms(record.lock_delay_ms);
  if (const keyspace::Session* session = session_of(view, claim.key)) {
    out.set_is_session(true);
    out.set_description(session->description);
  }
  return out;
}

LineScan::LineScan(ByteView name)
    : name_(name), prefix_(claim_prefix(name)), prefix_end_(claim_prefix_end(prefix_)), from_(prefix_) {}

bool LineScan::step(const View& view, size_t keys_max) {
  const std::optional<std::string> next =
      view.scan(KeyRange::of(from_, prefix_end_), keys_max, [this](const KeyValue& key) {
        if (!is_child(prefix_, key.key)) return true;
        ++count_;
        oldest_.emplace(key.create, std::string(key.key));
        keep_first(oldest_, kListedWaitersMax + 1);
        return true;
      });
  if (next) from_ = *next;
  return !next;
}

int64_t LineScan::waiting(const std::optional<KeyValue>& owner) const {
  return std::max<int64_t>(0, count_ - (owner ? 1 : 0));
}

v1::LockDescription LineScan::lock(const View& view) const {
  v1::LockDescription out;
  out.set_name(name_);
  out.set_revision(view.revision().value());
  const std::optional<KeyValue> owner = oldest_child(view, prefix_, prefix_end_);
  if (owner) *out.mutable_owner() = lock_claim_of(view, *owner);
  for (const auto& [create, key] : oldest_) {
    const std::optional<KeyValue> claim = view.get(key);
    if (!claim || claim->create != create || (owner && claim->key == owner->key)) continue;
    if (static_cast<size_t>(out.waiters_size()) == kListedWaitersMax) break;
    *out.add_waiters() = lock_claim_of(view, *claim);
  }
  out.set_waiting(std::max<int64_t>(waiting(owner), out.waiters_size()));
  return out;
}

v1::ElectionDescription LineScan::election(const View& view) const {
  v1::ElectionDescription out;
  out.set_name(name_);
  *out.mutable_leader() = leadership_of(view, name_);
  out.set_claims_waiting(waiting(oldest_child(view, prefix_, prefix_end_)));
  return out;
}

CandidateScan::CandidateScan(ByteView name) : name_(name), prefix_(kCandidateRecords) {
  prefix_.append(name).push_back('\0');
  from_ = prefix_;
}

bool CandidateScan::step(const View& view, size_t records_max) {
  size_t looked_at = 0;
  view.scan_records(prefix_, from_, records_max, [&](ByteView key, const Record& record) {
    ++looked_at;
    from_.assign(key).push_back('\0');
    std::string name;
    SessionId session;
    if (!decode_candidate_key(key, name, session)) return true;
    const std::optional<Candidate> candidate = candidate_of(session, record);
    if (!candidate) return true;
    ++count_;
    best_.insert(*candidate);
    keep_first(best_, kListedWaitersMax);
    return true;
  });
  return looked_at < records_max;
}

void CandidateScan::describe(const View& view, v1::ElectionDescription& out) const {
  out.set_waiting(count_);
  for (const Candidate& known : best_) {
    const Record* found = view.record(candidate_record_key(name_, known.session));
    CandidateRecord record;
    if (found == nullptr || !decode(found->value, record)) continue;
    v1::Candidate& candidate = *out.add_candidates();
    candidate.set_session(lease_of(known.session).value());
    candidate.set_priority(record.priority);
    candidate.set_value(std::move(record.value));
    if (const keyspace::Session* session = view.session(known.session)) {
      candidate.set_description(session->description);
    }
  }
}

// ---- Many names ----

NameScan::NameScan(Options options) : options_(std::move(options)), from_(std::max(options_.prefix, options_.after)) {
  candidates_done_ = options_.what == What::kLocks;
}

bool NameScan::step(const View& view, size_t keys_max) {
  if (!candidates_done_) {
    step_candidates(view, keys_max / 8 + 1);
    return false;
  }
  bool stopped = false;
  const std::string end = options_.prefix.empty() ? std::string(1, '\0') : claim_prefix_end(options_.prefix);
  const std::optional<std::string> next = view.scan(KeyRange::of(from_, end), keys_max, [&](const KeyValue& key) {
    if (!bound_.empty() && key.key >= bound_) {
      stopped = true;
      return false;
    }
    const ByteView name = name_of(key.key);
    if (name <= options_.after || !name.starts_with(options_.prefix) || number_in(key.key) == 0) return true;
    const Record* found = view.record(claim_record_key(key.key));
    if (found == nullptr && !is_on_its_lease(key)) return true;
    ClaimRecord record;
    const bool elects = found != nullptr && decode(found->value, record) && record.kind == ClaimKind::kElection;
    if (elects != (options_.what == What::kElections) || why_no_name(name)) return true;
    add(std::string(name), 1);
    return true;
  });
  if (next) from_ = *next;
  return stopped || !next;
}

// A name has many candidates: behind the first, the next name is looked for.
void NameScan::step_candidates(const View& view, size_t names_max) {
  const std::string prefix = std::string(kCandidateRecords) + options_.prefix;
  std::string from = std::string(kCandidateRecords) + from_;
  if (from_ == options_.after && !from_.empty()) from.push_back('\1');
  for (size_t i = 0; i < names_max && !has_more(); ++i) {
    std::string name;
    SessionId session;
    bool found = false;
    view.scan_records(prefix, from, 1, [&](ByteView key, const Record&) {
      found = true;
      from.assign(key).push_back('\0');
      if (decode_candidate_key(key, name, session)) from = std::string(kCandidateRecords) + name + '\1';
      return false;
    });
    if (!found) break;
    from_ = from.substr(kCandidateRecords.size());
    if (name.empty()) continue;
    add(std::move(name), 0);
    if (i + 1 == names_max) return;
  }
  candidates_done_ = true;
  from_ = std::max(options_.prefix, options_.after);
}

void NameScan::add(std::string name, int64_t claims) {
  const auto [at, is_new] = names_.try_emplace(std::move(name), 0);
  at->second += claims;
  if (!is_new || names_.size() <= options_.count) return;
  if (names_.size() > options_.count + 1) names_.erase(std::prev(names_.end()));
  bound_ = end_of(names_.rbegin()->first);
}

// Claims on a name that is the beginning of this one may stand behind this one's: "a/1" behind "a-b/1". All other keys
// behind NAME/... are of higher names.
std::string NameScan::end_of(ByteView name) const {
  size_t length = name.size();
  for (size_t i = std::max<size_t>(options_.prefix.size(), 1); i < name.size(); ++i) {
    if (static_cast<unsigned char>(name[i]) > '/' || name.substr(0, i) <= options_.after) continue;
    length = i;
    break;
  }
  std::string end(name.substr(0, length));
  end.push_back('/' + 1);
  return end;
}

std::vector<NameScan::Found> NameScan::found() const {
  std::vector<Found> out;
  for (const auto& [name, claims] : names_) {
    if (out.size() == options_.count) break;
    out.push_back({.name = name, .claims = claims});
  }
  return out;
}

v1::LockDescription describe_lock(const View& view, const NameScan::Found& name) {
  v1::LockDescription out;
  out.set_name(name.name);
  out.set_revision(view.revision().value());
  const std::optional<KeyValue> owner = owner_of(view, name.name);
  if (owner) *out.mutable_owner() = lock_claim_of(view, *owner);
  out.set_waiting(std::max<int64_t>(0, name.claims - (owner ? 1 : 0)));
  return out;
}

v1::ElectionDescription describe_election(const View& view, const NameScan::Found& name) {
  v1::ElectionDescription out;
  out.set_name(name.name);
  *out.mutable_leader() = leadership_of(view, name.name);
  out.set_claims_waiting(std::max<int64_t>(0, name.claims - (out.leader().token() != 0 ? 1 : 0)));
  return out;
}

// ---- Sessions ----

std::optional<v1::SessionDescription> describe_session(const View& view, SessionId id) {
  const keyspace::Session* session = view.session(id);
  if (session == nullptr) return std::nullopt;
  v1::SessionDescription out;
  out.set_session(lease_of(id).value());
  out.set_description(session->description);
  out.set_incarnation(session->incarnation);
  if (const std::optional<keyspace::LeaseInfo> lease = view.lease(session->lease)) out.set_ttl_ms(lease->ttl_ms);
  return out;
}

SessionScan::SessionScan(SessionId session) : session_(session), lease_(lease_of(session)) {}

bool SessionScan::step(const View& view, size_t claims_max, v1::SessionDescription& out) {
  if (!claims_done_) {
    const std::vector<std::string> keys = view.lease_keys(lease_, from_, claims_max);
    for (const std::string& key : keys) {
      if (!add_claim(view, key, out)) return true;
    }
    claims_done_ = keys.size() < claims_max;
    from_ = claims_done_ ? std::string(kCandidateRecords) : keys.back() + '\0';
    return false;
  }
  size_t looked_at = 0;
  bool more = true;
  view.scan_lease_records(lease_, from_, claims_max, [&](ByteView key, const Record&) {
    ++looked_at;
    from_.assign(key).push_back('\0');
    std::string name;
    SessionId candidate;
    more = key.starts_with(kCandidateRecords) && static_cast<size_t>(out.claims_size()) < kListedClaimsMax;
    if (!more || !decode_candidate_key(key, name, candidate)) return more;
    v1::Claim& claim = *out.add_claims();
    claim.set_name(name);
    claim.set_kind(v1::ELECTION);
    return true;
  });
  return !more || looked_at < claims_max;
}

// False: enough are told.
bool SessionScan::add_claim(const View& view, const std::string& key, v1::SessionDescription& out) const {
  if (static_cast<size_t>(out.claims_size()) == kListedClaimsMax) return false;
  const std::optional<KeyValue> value = view.get(key);
  if (!value || !is_on_its_lease(*value)) return true;
  const ByteView name = name_of(value->key);
  const std::optional<KeyValue> owner = owner_of(view, name);
  v1::Claim& claim = *out.add_claims();
  claim.set_name(std::string(name));
  claim.set_kind(claim_record_of(view, key).kind == ClaimKind::kElection ? v1::ELECTION : v1::LOCK);
  claim.set_token(value->create.value());
  claim.set_granted(owner && owner->key == value->key);
  return true;
}

}  // namespace conclave::layers
