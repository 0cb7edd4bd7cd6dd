#include "keyspace/store.h"

#include <algorithm>

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/digest.h"
#include "keyspace/wire.h"

namespace conclave::keyspace {
namespace {

uint64_t hash_version(const Version* version) {
  uint64_t hash = hash_bytes(version->key->bytes(), static_cast<uint64_t>(version->mod));
  if (version->is_tombstone()) return mix(hash, version->sub());
  hash = hash_bytes(version->value(), hash);
  hash = mix(hash, static_cast<uint64_t>(version->create));
  hash = mix(hash, static_cast<uint64_t>(version->version));
  return mix(hash, static_cast<uint64_t>(version->lease()) ^ 0x6c65617365ULL);
}

}  // namespace

Store::Store() : tree_(pool_) {}

Version* Store::make_version(Key* key, const NewVersion& fields) {
  size_t lease_bytes = fields.lease != 0 ? sizeof(int64_t) : 0;
  Version* version = static_cast<Version*>(pool_.allocate(sizeof(Version) + lease_bytes + fields.value.size()));
  version->mod = fields.mod;
  version->create = fields.create;
  version->version = fields.version;
  version->previous = nullptr;
  version->key = key;
  version->value_size = static_cast<uint32_t>(fields.value.size());
  version->sub_and_flags =
      fields.sub | (fields.tombstone ? Version::kTombstoneFlag : 0) | (fields.lease != 0 ? Version::kHasLeaseFlag : 0);
  if (lease_bytes != 0) std::memcpy(version->tail(), &fields.lease, lease_bytes);
  if (!fields.value.empty()) std::memcpy(version->tail() + lease_bytes, fields.value.data(), fields.value.size());
  return version;
}

Key* Store::make_key(ByteView bytes) {
  Key* key = static_cast<Key*>(pool_.allocate(sizeof(Key) + bytes.size()));
  key->head = nullptr;
  key->size = static_cast<uint32_t>(bytes.size());
  key->unused = 0;
  std::memcpy(key + 1, bytes.data(), bytes.size());
  return key;
}

void Store::free_version(Version* version) {
  history_bytes_ -= version->record_bytes();
  pool_.free(version, version->record_bytes());
}

uint32_t Store::next_sub(int64_t revision) {
  ASSERT_CMP(revision, >, visible_);
  ASSERT_CMP(revision, >=, written_);
  if (revision != written_) {
    written_ = revision;
    sub_ = 0;
  }
  ASSERT_CMP(sub_, <, Version::kSubMax);
  return sub_++;
}

void Store::log_event(Version* version) {
  events_.push_back(version);
  event_digest_ = mix(event_digest_, hash_version(version));
}

Version* Store::put(ByteView key, ByteView value, int64_t lease, int64_t revision) {
  tree_.find(key, path_);
  return append(path_, key, value, lease, revision);
}

Version* Store::put_keeping_value(ByteView key, int64_t lease, int64_t revision) {
  tree_.find(key, path_);
  Key* record = path_.key();
  ByteView value = record != nullptr && !record->head->is_tombstone() ? record->head->value() : ByteView();
  return append(path_, key, value, lease, revision);
}

Version* Store::append(KeyTree::Path& path, ByteView key_bytes, ByteView value, int64_t lease, int64_t revision) {
  uint32_t sub = next_sub(revision);
  Key* key = path.key();
  Version* before = key != nullptr ? key->head : nullptr;
  bool lives = before != nullptr && !before->is_tombstone();
  bool is_new = key == nullptr;
  if (is_new) key = make_key(key_bytes);
  Version* version = make_version(key, {.mod = revision,
                                        .create = lives ? before->create : revision,
                                        .version = lives ? before->version + 1 : 1,
                                        .lease = lease,
                                        .sub = sub,
                                        .tombstone = false,
                                        .value = value});
  version->previous = before;
  key->head = version;
  if (is_new) {
    tree_.insert(path, key, revision);
  } else if (!lives) {
    tree_.set_create(path, revision);
  }
  if (lives) {
    live_digest_ -= hash_version(before);
    history_bytes_ += before->record_bytes();
  }
  uint64_t hash = hash_version(version);
  live_digest_ += hash;
  events_.push_back(version);
  event_digest_ = mix(event_digest_, hash);
  return version;
}

Version* Store::end_key(const KeyTree::Path& path, int64_t revision) {
  Key* key = path.key();
  ASSERT(key != nullptr);
  Version* before = key->head;
  ASSERT(!before->is_tombstone());
  Version* version = make_version(key, {.mod = revision,
                                        .create = 0,
                                        .version = 0,
                                        .lease = 0,
                                        .sub = next_sub(revision),
                                        .tombstone = true,
                                        .value = {}});
  version->previous = before;
  key->head = version;
  live_digest_ -= hash_version(before);
  history_bytes_ += before->record_bytes() + version->record_bytes();
  tree_.set_create(path, 0);
  log_event(version);
  return version;
}

void Store::publish(int64_t revision) {
  ASSERT_CMP(revision, >=, written_);
  visible_ = revision;
  written_ = revision;
  sub_ = 0;
}

const Version* Store::live_head(ByteView key) const {
  const Key* record = tree_.find(key);
  return record != nullptr && !record->head->is_tombstone() ? record->head : nullptr;
}

const Version* Store::at_revision(const Key* key, int64_t revision) {
  const Version* version = key->head;
  while (version != nullptr && version->mod > revision) version = version->previous;
  return version != nullptr && !version->is_tombstone() ? version : nullptr;
}

uint64_t Store::first_event(int64_t revision) const {
  auto at = std::lower_bound(events_.begin(), events_.end(), revision,
                             [](const Version* event, int64_t wanted) { return event->mod < wanted; });
  return events_base_ + static_cast<uint64_t>(at - events_.begin());
}

const Version* Store::before_event(const Version* event) const {
  // The revision before is compacted, and whether its versions are freed already must not show.
  if (event->mod <= floor_) return nullptr;
  const Version* version = event->previous;
  while (version != nullptr && version->mod == event->mod) version = version->previous;
  return version != nullptr && !version->is_tombstone() ? version : nullptr;
}

int64_t Store::free_limit() const {
  if (pins_.empty()) return floor_;
  return std::min(floor_, pins_.front().first);
}

bool Store::has_garbage() const {
  return !events_.empty() && events_.front()->mod < free_limit();
}

bool Store::free_some(uint32_t units) {
  int64_t limit = free_limit();
  bool worked = false;
  while (units > 0 && !events_.empty() && events_.front()->mod < limit) {
    Version* event = events_.front();
    events_.pop_front();
    ++events_base_;
    free_event(event);
    --units;
    worked = true;
  }
  return worked;
}

// Nobody may read below this event's revision any more. What it replaced goes; it stays itself while it is what a
// reader at the floor sees, and if it is the end of a key nobody wrote since, the key goes too. A tombstone that was
// written over goes with the event that did so.
void Store::free_event(Version* event) {
  if (event->previous != nullptr) {
    ASSERT(event->previous->previous == nullptr);
    free_version(event->previous);
    event->previous = nullptr;
  }
  if (!event->is_tombstone() || event->key->head != event) return;
  Key* key = event->key;
  tree_.find(key->bytes(), path_);
  ASSERT(path_.key() == key);
  tree_.erase(path_);
  free_version(event);
  pool_.free(key, key->record_bytes());
}

int64_t Store::middle_revision() const {
  if (events_.empty()) return floor_;
  return events_[events_.size() / 2]->mod;
}

void Store::pin(int64_t revision) {
  auto at = std::lower_bound(pins_.begin(), pins_.end(), std::pair(revision, uint32_t{0}));
  if (at == pins_.end() || at->first != revision) at = pins_.insert(at, {revision, 0});
  ++at->second;
}

void Store::unpin(int64_t revision) {
  auto at = std::lower_bound(pins_.begin(), pins_.end(), std::pair(revision, uint32_t{0}));
  ASSERT(at != pins_.end() && at->first == revision);
  if (--at->second == 0) pins_.erase(at);
}

Key* Store::load_key(ByteView bytes) {
  if (bytes.empty() || (tree_.size() > 0 && bytes <= loaded_key_)) return nullptr;
  loaded_key_.assign(bytes);
  loaded_tail_ = nullptr;
  return make_key(bytes);
}

bool Store::load_version(Key* key, const LoadedVersion& loaded) {
  bool fits =
      loaded_tail_ == nullptr || std::pair(loaded.mod, loaded.sub) < std::pair(loaded_tail_->mod, loaded_tail_->sub());
  if (!fits || loaded.mod < 2 || loaded.sub >= Version::kSubMax ||
      (loaded.tombstone ? loaded.create != 0 || loaded.version != 0 || loaded.lease != 0 || !loaded.value.empty()
                        : loaded.create < 2 || loaded.create > loaded.mod || loaded.version < 1)) {
    return false;
  }
  Version* version = make_version(key, {.mod = loaded.mod,
                                        .create = loaded.create,
                                        .version = loaded.version,
                                        .lease = loaded.lease,
                                        .sub = loaded.sub,
                                        .tombstone = loaded.tombstone,
                                        .value = loaded.value});
  if (loaded_tail_ == nullptr) {
    key->head = version;
    tree_.find(key->bytes(), path_);
    tree_.insert(path_, key, loaded.create);
    if (!loaded.tombstone) live_digest_ += hash_version(version);
  } else {
    loaded_tail_->previous = version;
  }
  if (loaded_tail_ != nullptr || loaded.tombstone) history_bytes_ += version->record_bytes();
  loaded_tail_ = version;
  loaded_events_.push_back(version);
  return true;
}

bool Store::finish_load(int64_t visible, int64_t floor, uint64_t event_digest) {
  struct Ordered {
    int64_t mod;
    uint32_t sub;
    Version* version;
  };
  std::vector<Ordered> ordered;
  for (Version* version : loaded_events_) {
    // What the floor left standing is no event any more.
    if (version->mod >= floor) ordered.push_back({version->mod, version->sub(), version});
  }
  std::sort(ordered.begin(), ordered.end(),
            [](const Ordered& a, const Ordered& b) { return a.mod != b.mod ? a.mod < b.mod : a.sub < b.sub; });
  for (size_t i = 0; i < ordered.size(); ++i) {
    if (ordered[i].mod > visible) return false;
    if (i > 0 && ordered[i].mod == ordered[i - 1].mod && ordered[i].sub == ordered[i - 1].sub) return false;
    events_.push_back(ordered[i].version);
  }
  loaded_events_ = {};
  loaded_key_ = {};
  loaded_tail_ = nullptr;
  visible_ = visible;
  written_ = visible;
  floor_ = floor;
  event_digest_ = event_digest;
  return true;
}

void append_key_value(std::string& out, uint32_t field, const Version* version, bool keys_only) {
  ByteView key = version->key->bytes();
  ByteView value = keys_only ? ByteView() : version->value();
  int64_t lease = version->lease();
  auto number_size = [](int64_t number) { return number == 0 ? 0 : 1 + varint_size(static_cast<uint64_t>(number)); };
  size_t size = 1 + varint_size(key.size()) + key.size() + number_size(version->create) + number_size(version->mod) +
                number_size(version->version) + number_size(lease);
  if (!value.empty()) size += 1 + varint_size(value.size()) + value.size();
  append_varint(out, (uint64_t{field} << 3) | static_cast<uint64_t>(WireType::kBytes));
  append_varint(out, size);
  append_message_field(out, 1, key);
  append_int64_field(out, 2, version->create);
  append_int64_field(out, 3, version->mod);
  append_int64_field(out, 4, version->version);
  append_bytes_field(out, 5, value);
  append_int64_field(out, 6, lease);
}

}  // namespace conclave::keyspace
