#include "keyspace/interface.h"

#include "base/assert.h"

namespace conclave::keyspace {
namespace {

KeyValue key_value(const Version* version) {
  return {.key = version->key->bytes(),
          .value = version->value(),
          .create = Revision(version->create),
          .mod = Revision(version->mod),
          .version = version->version,
          .lease = LeaseId(version->lease())};
}

}  // namespace

std::optional<KeyValue> KeyspaceView::get(ByteView key) const {
  ASSERT(keyspace_.store().is_published());
  const Version* version = keyspace_.store().live_head(key);
  return version != nullptr ? std::optional(key_value(version)) : std::nullopt;
}

int64_t KeyspaceView::count(const KeyRange& range) const {
  ASSERT(keyspace_.store().is_published());
  return keyspace_.store().tree().totals(range).lives;
}

std::optional<KeyValue> KeyspaceView::oldest(const KeyRange& range, Revision after) const {
  ASSERT(keyspace_.store().is_published());
  std::vector<Key*> first;
  uint32_t units = UINT32_MAX;
  bool known = keyspace_.store().tree().first_by_create(range, {.create_min = after.value() + 1}, 1, units, first);
  ASSERT(known);
  return !first.empty() ? std::optional(key_value(first.front()->head)) : std::nullopt;
}

std::vector<KeyValue> KeyspaceView::oldest_of(const KeyRange& range, size_t count) const {
  ASSERT(keyspace_.store().is_published());
  std::vector<Key*> first;
  uint32_t units = UINT32_MAX;
  bool known = keyspace_.store().tree().first_by_create(range, {}, count, units, first);
  ASSERT(known);
  std::vector<KeyValue> out;
  out.reserve(first.size());
  for (const Key* key : first) out.push_back(key_value(key->head));
  return out;
}

std::optional<std::string> KeyspaceView::scan(const KeyRange& range, size_t keys_max,
                                              const std::function<bool(const KeyValue&)>& visit) const {
  ASSERT(keyspace_.store().is_published());
  size_t looked_at = 0;
  for (KeyTree::Position at = keyspace_.store().tree().lower_bound(range.begin); !at.is_end(); KeyTree::advance(at)) {
    const Key* key = KeyTree::key_at(at);
    if (range.is_before(key->bytes())) return std::nullopt;
    if (looked_at++ == keys_max) return std::string(key->bytes());
    if (!key->head->is_tombstone() && !visit(key_value(key->head))) return std::nullopt;
  }
  return std::nullopt;
}

void KeyspaceView::scan_records(ByteView prefix, ByteView from, size_t count,
                                const std::function<bool(ByteView key, const Record&)>& visit) const {
  const auto& records = keyspace_.tables().records();
  for (auto at = records.lower_bound(std::max(prefix, from)); at != records.end() && count > 0; ++at) {
    if (!at->first.starts_with(prefix)) return;
    // One that hangs on an ended lease is gone, taken apart already or not.
    if (keyspace_.record(at->first) == nullptr) continue;
    if (!visit(at->first, at->second)) return;
    --count;
  }
}

void KeyspaceView::scan_lease_records(LeaseId id, ByteView from, size_t count,
                                      const std::function<bool(ByteView key, const Record&)>& visit) const {
  const Lease* lease = keyspace_.tables().visible_lease(id);
  if (lease == nullptr) return;
  for (auto at = lease->records.lower_bound(from); at != lease->records.end() && count > 0; ++at) {
    const Record* record = keyspace_.record(*at);
    if (record == nullptr || record->lease != id) continue;  // of a command under way
    if (!visit(*at, *record)) return;
    --count;
  }
}

Applied applied_of(Keyspace& keyspace) {
  ASSERT(!keyspace.is_busy());
  const Store& changed = keyspace.store();
  return {.reply = keyspace.reply(),
          .effects = keyspace.effects(),
          .event_count = changed.events_end() - changed.first_event(keyspace.effects().revision_before.value() + 1),
          .events = [&keyspace](const std::function<void(const Version&)>& visit) {
            const Store& store = keyspace.store();
            uint64_t at = store.first_event(keyspace.effects().revision_before.value() + 1);
            for (; at < store.events_end(); ++at) visit(*store.event(at));
          }};
}

}  // namespace conclave::keyspace
