#include "keyspace/tables.h"

#include <algorithm>

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/digest.h"

namespace conclave::keyspace {
namespace {

// Big-endian, so that the order of bytes is the order of numbers; a lease's sign is flipped for the same reason.
std::string ordered_key(uint64_t number) {
  std::string key(8, '\0');
  store_le(key.data(), __builtin_bswap64(number));
  return key;
}
uint64_t number_of(const std::string& key) {
  return __builtin_bswap64(load_le<uint64_t>(key.data()));
}
constexpr uint64_t kSignBit = uint64_t{1} << 63;
std::string key_of(LeaseId id) {
  return ordered_key(static_cast<uint64_t>(id.value()) ^ kSignBit);
}
LeaseId lease_of(const std::string& key) {
  return LeaseId(static_cast<int64_t>(number_of(key) ^ kSignBit));
}
std::string key_of(SessionId id) {
  return ordered_key(id.value());
}
SessionId session_of(const std::string& key) {
  return SessionId(number_of(key));
}

}  // namespace

void LeaseKeys::insert(Key* key) {
  if (many_) {
    many_->insert(key);
  } else if (one_ == nullptr) {
    one_ = key;
  } else if (one_ != key) {
    many_ = std::make_unique<std::set<Key*, Order>>();
    many_->insert(one_);
    many_->insert(key);
    one_ = nullptr;
  }
}

void LeaseKeys::erase(Key* key) {
  if (many_) {
    many_->erase(key);
    if (many_->empty()) many_.reset();
  } else if (one_ == key) {
    one_ = nullptr;
  }
}

bool LeaseKeys::drop_some(size_t count) {
  one_ = nullptr;
  if (!many_) return true;
  while (count-- > 0 && !many_->empty()) many_->erase(many_->begin());
  if (!many_->empty()) return false;
  many_.reset();
  return true;
}

bool Session::was_applied(uint64_t sequence) const {
  if (sequence > highest) return false;
  uint64_t age = highest - sequence;
  // Older than the window: the client has its answer, or it would not have sent the newest.
  return age >= kSessionWindow || (window >> age & 1) != 0;
}

void Session::mark_applied(uint64_t sequence) {
  if (sequence > highest) {
    uint64_t shift = sequence - highest;
    window = shift >= kSessionWindow ? 0 : window << shift;
    highest = sequence;
  }
  window |= uint64_t{1} << (highest - sequence);
}

Lease* Tables::lease(LeaseId id) {
  auto at = leases_.find(id);
  return at == leases_.end() || at->second.ending ? nullptr : &at->second;
}

Session* Tables::session(SessionId id) {
  auto at = sessions_.find(id);
  if (at == sessions_.end() || lease(at->second.lease) == nullptr) return nullptr;
  return &at->second;
}

const Lease* Tables::visible_lease(LeaseId id) const {
  auto at = leases_.find(id);
  return at != leases_.end() && is_visible(at->second) ? &at->second : nullptr;
}

const Session* Tables::visible_session(SessionId id) const {
  auto at = sessions_.find(id);
  return at != sessions_.end() && visible_lease(at->second.lease) != nullptr ? &at->second : nullptr;
}

const Record* Tables::visible_record(ByteView key) const {
  auto at = records_.find(key);
  if (at == records_.end()) return nullptr;
  LeaseId lease = at->second.lease;
  return !lease.is_set() || visible_lease(lease) != nullptr ? &at->second : nullptr;
}

Lease& Tables::grant(LeaseId id, int64_t ttl_ms) {
  std::string key = key_of(id);
  before_change(TableKind::kLease, key);
  auto [at, added] = leases_.try_emplace(id);
  ASSERT(added);
  Lease& lease = at->second;
  lease.id = id;
  lease.ttl_ms = ttl_ms;
  lease.starting = true;
  after_change(TableKind::kLease, key);
  return lease;
}

void Tables::started(LeaseId id) {
  auto at = leases_.find(id);
  if (at != leases_.end()) at->second.starting = false;
}

bool Tables::take_apart(LeaseId id, uint32_t& units, std::vector<RecordChange>& changes) {
  auto at = leases_.find(id);
  if (at == leases_.end()) return true;
  Lease& lease = at->second;
  ASSERT(lease.ending);
  while (!lease.records.empty()) {
    if (units == 0) return false;
    --units;
    std::string key = *lease.records.begin();
    erase_record(key);
    changes.push_back({std::move(key), true});
  }
  if (lease.session.is_set()) {
    std::string key = key_of(lease.session);
    before_change(TableKind::kSession, key);
    sessions_.erase(lease.session);
    after_change(TableKind::kSession, key);
  }
  if (lease.keys.size() > 0) garbage_.push_back(std::move(lease.keys));
  std::string key = key_of(id);
  before_change(TableKind::kLease, key);
  leases_.erase(at);
  after_change(TableKind::kLease, key);
  return true;
}

void Tables::open_session(Session session) {
  std::string key = key_of(session.id);
  before_change(TableKind::kSession, key);
  std::string lease_key = key_of(session.lease);
  before_change(TableKind::kLease, lease_key);
  leases_.at(session.lease).session = session.id;
  after_change(TableKind::kLease, lease_key);
  SessionId id = session.id;
  sessions_.insert_or_assign(id, std::move(session));
  after_change(TableKind::kSession, key);
}

void Tables::update_session(Session& session, uint64_t incarnation, std::optional<uint64_t> applied) {
  std::string key = key_of(session.id);
  before_change(TableKind::kSession, key);
  session.incarnation = std::max(session.incarnation, incarnation);
  if (applied) session.mark_applied(*applied);
  after_change(TableKind::kSession, key);
}

void Tables::put_record(ByteView name, ByteView value, LeaseId lease, LogIndex index) {
  std::string key(name);
  before_change(TableKind::kRecord, key);
  Record& record = records_[key];
  if (record.lease != lease) {
    auto old = leases_.find(record.lease);
    if (old != leases_.end()) old->second.records.erase(key);
    if (lease.is_set()) leases_.at(lease).records.insert(key);
  }
  record.value.assign(value);
  record.lease = lease;
  record.written_at = index;
  after_change(TableKind::kRecord, key);
}

void Tables::erase_record(ByteView name) {
  auto at = records_.find(name);
  if (at == records_.end()) return;
  std::string key = at->first;
  before_change(TableKind::kRecord, key);
  auto lease = leases_.find(at->second.lease);
  if (lease != leases_.end()) lease->second.records.erase(key);
  records_.erase(at);
  after_change(TableKind::kRecord, key);
}

bool Tables::free_some(uint32_t units) {
  if (garbage_.empty()) return false;
  if (garbage_.back().drop_some(units)) garbage_.pop_back();
  return true;
}

bool Tables::encode_entry(const TableShadow::Name& name, std::string& out) const {
  out.clear();
  ByteWriter writer(out);
  switch (static_cast<TableKind>(name.first)) {
    case TableKind::kLease: {
      auto at = leases_.find(lease_of(name.second));
      if (at == leases_.end()) return false;
      writer.varint(static_cast<uint64_t>(at->second.id.value()));
      writer.varint(static_cast<uint64_t>(at->second.ttl_ms));
      writer.varint(static_cast<uint64_t>(at->second.ttl_ms));  // in the place of what remains: a new leader gives all
      return true;
    }
    case TableKind::kSession: {
      auto at = sessions_.find(session_of(name.second));
      if (at == sessions_.end()) return false;
      const Session& session = at->second;
      writer.varint(session.id.value());
      writer.varint(static_cast<uint64_t>(session.lease.value()));
      writer.raw({session.secret_hash.data(), session.secret_hash.size()});
      writer.varint(session.incarnation);
      writer.varint(session.highest);
      writer.fixed(session.window);
      writer.sized(session.description);
      return true;
    }
    case TableKind::kRecord: {
      auto at = records_.find(name.second);
      if (at == records_.end()) return false;
      writer.sized(at->first);
      writer.sized(at->second.value);
      writer.varint(static_cast<uint64_t>(at->second.lease.value()));
      writer.varint(at->second.written_at.value());
      return true;
    }
  }
  return false;
}

uint64_t Tables::entry_hash(TableKind kind, const std::string& key) {
  TableShadow::Name name{static_cast<uint8_t>(kind), key};
  return encode_entry(name, scratch_) ? hash_bytes(scratch_, static_cast<uint64_t>(kind)) : 0;
}

void Tables::before_change(TableKind kind, const std::string& key) {
  digest_ -= entry_hash(kind, key);
  if (!shadows_.empty()) preserve(kind, key);
}

void Tables::after_change(TableKind kind, const std::string& key) {
  digest_ += entry_hash(kind, key);
}

void Tables::preserve(TableKind kind, const std::string& key) {
  TableShadow::Name name{static_cast<uint8_t>(kind), key};
  for (TableShadow* shadow : shadows_) {
    if (shadow->finished_ || name <= shadow->done_ || shadow->before_.contains(name)) continue;
    REACHED(keyspace_shadow_preserved);
    std::string encoded;
    bool present = encode_entry(name, encoded);
    shadow->before_.emplace(name, present ? std::optional(std::move(encoded)) : std::nullopt);
  }
}

std::optional<TableShadow::Name> Tables::entry_after(const TableShadow::Name& name) const {
  auto kind = [&](TableKind wanted) { return name.first == static_cast<uint8_t>(wanted); };
  auto named = [](TableKind wanted, std::string key) {
    return TableShadow::Name{static_cast<uint8_t>(wanted), std::move(key)};
  };
  if (name.first <= static_cast<uint8_t>(TableKind::kLease)) {
    auto at = kind(TableKind::kLease) ? leases_.upper_bound(lease_of(name.second)) : leases_.begin();
    if (at != leases_.end()) return named(TableKind::kLease, key_of(at->first));
  }
  if (name.first <= static_cast<uint8_t>(TableKind::kSession)) {
    auto at = kind(TableKind::kSession) ? sessions_.upper_bound(session_of(name.second)) : sessions_.begin();
    if (at != sessions_.end()) return named(TableKind::kSession, key_of(at->first));
  }
  auto at = kind(TableKind::kRecord) ? records_.upper_bound(name.second) : records_.begin();
  if (at != records_.end()) return named(TableKind::kRecord, at->first);
  return std::nullopt;
}

bool Tables::next_entry(TableShadow& shadow, TableKind& kind, std::string& encoded) {
  while (true) {
    std::optional<TableShadow::Name> live = entry_after(shadow.done_);
    auto saved = shadow.before_.begin();
    bool from_saved = saved != shadow.before_.end() && (!live || saved->first <= *live);
    if (!from_saved && !live) {
      shadow.finished_ = true;
      return false;
    }
    if (from_saved) {
      shadow.done_ = saved->first;
      bool present = saved->second.has_value();
      if (present) encoded = std::move(*saved->second);
      shadow.before_.erase(saved);
      if (!present) continue;  // it came after the snapshot began
    } else {
      shadow.done_ = *live;
      bool present = encode_entry(*live, encoded);
      ASSERT(present);
    }
    kind = static_cast<TableKind>(shadow.done_.first);
    return true;
  }
}

bool Tables::load_entry(TableKind kind, ByteView encoded) {
  ByteReader reader(encoded);
  switch (kind) {
    case TableKind::kLease: {
      LeaseId id(static_cast<int64_t>(reader.varint()));
      uint64_t ttl_ms = reader.varint();
      uint64_t remaining_ms = reader.varint();
      if (!reader.finished() || !id.is_set() || ttl_ms > static_cast<uint64_t>(kLeaseTtlMsMax) ||
          remaining_ms != ttl_ms || leases_.contains(id)) {
        return false;
      }
      grant(id, static_cast<int64_t>(ttl_ms)).starting = false;
      return true;
    }
    case TableKind::kSession: {
      Session session;
      session.id = SessionId(reader.varint());
      session.lease = LeaseId(static_cast<int64_t>(reader.varint()));
      ByteView hash = reader.raw(kSecretHashBytes);
      session.incarnation = reader.varint();
      session.highest = reader.varint();
      session.window = reader.fixed<uint64_t>();
      session.description = std::string(reader.sized());
      auto lease = leases_.find(session.lease);
      if (!reader.finished() || !session.id.is_set() || lease == leases_.end() || lease->second.session.is_set() ||
          sessions_.contains(session.id) || session.description.size() > kSessionDescriptionBytesMax ||
          session.highest > kProtocolNumberMax || session.incarnation > kProtocolNumberMax) {
        return false;
      }
      std::copy(hash.begin(), hash.end(), session.secret_hash.begin());
      open_session(std::move(session));
      return true;
    }
    case TableKind::kRecord: {
      ByteView key = reader.sized();
      ByteView value = reader.sized();
      LeaseId lease(static_cast<int64_t>(reader.varint()));
      LogIndex index(reader.varint());
      if (!reader.finished() || key.empty() || records_.find(key) != records_.end() ||
          (lease.is_set() && !leases_.contains(lease))) {
        return false;
      }
      put_record(key, value, lease, index);
      return true;
    }
  }
  return false;
}

}  // namespace conclave::keyspace
