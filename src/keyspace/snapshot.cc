#include "keyspace/snapshot.h"

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/limits.h"
#include "keyspace/wire.h"

namespace conclave::keyspace {
namespace {

constexpr uint32_t kFormat = 1;

// Types of records; never renumbered.
constexpr uint8_t kHeader = 1;
constexpr uint8_t kTable = 2;
constexpr uint8_t kKey = 3;
constexpr uint8_t kVersion = 4;
constexpr uint8_t kEnd = 5;

// Flags of a version.
constexpr uint8_t kTombstone = 1;

uint64_t bits(int64_t number) {
  return static_cast<uint64_t>(number);
}

}  // namespace

SnapshotReader::SnapshotReader(Keyspace& keyspace)
    : keyspace_(keyspace),
      index_(keyspace.applied()),
      revision_(keyspace.store().visible()),
      floor_(keyspace.store().floor()),
      event_digest_(keyspace.store().event_digest()),
      digest_(keyspace.digest()) {
  keyspace_.store().pin(floor_);
  keyspace_.tables().attach(&shadow_);
}

SnapshotReader::~SnapshotReader() {
  keyspace_.store().unpin(floor_);
  keyspace_.tables().detach(&shadow_);
}

void SnapshotReader::record(std::string& out, uint8_t type, ByteView payload) {
  ByteWriter writer(out);
  writer.fixed(type);
  writer.sized(payload);
  ++records_;
}

bool SnapshotReader::read(std::string& out, uint32_t units) {
  while (stage_ != Stage::kDone) {
    if (units == 0) return false;
    switch (stage_) {
      case Stage::kHeader: {
        scratch_.clear();
        ByteWriter writer(scratch_);
        writer.fixed(kFormat);
        writer.varint(index_.value());
        writer.varint(bits(revision_));
        writer.varint(bits(floor_));
        writer.fixed(event_digest_);
        writer.fixed(digest_);
        record(out, kHeader, scratch_);
        stage_ = Stage::kTables;
        break;
      }
      case Stage::kTables: {
        TableKind kind{};
        std::string encoded;
        if (!keyspace_.tables().next_entry(shadow_, kind, encoded)) {
          stage_ = Stage::kKeys;
          break;
        }
        scratch_.assign(1, static_cast<char>(kind));
        scratch_.append(encoded);
        record(out, kTable, scratch_);
        units -= std::min<uint32_t>(units, 2 + static_cast<uint32_t>(encoded.size() / 1024));
        break;
      }
      case Stage::kKeys:
        if (!read_keys(out, units)) return false;
        stage_ = Stage::kEnd;
        break;
      case Stage::kEnd: {
        scratch_.clear();
        ByteWriter(scratch_).varint(records_);
        record(out, kEnd, scratch_);
        stage_ = Stage::kDone;
        break;
      }
      case Stage::kDone:
        break;
    }
  }
  return true;
}

bool SnapshotReader::read_keys(std::string& out, uint32_t& units) {
  const KeyTree& tree = keyspace_.store().tree();
  KeyTree::Position at = tree.lower_bound(resumed_ ? ByteView(resume_key_) : ByteView());
  for (; !at.is_end(); KeyTree::advance(at)) {
    const Key* key = KeyTree::key_at(at);
    if (units == 0 || !read_key(key, out, units)) {
      resumed_ = true;
      resume_key_.assign(key->bytes());
      return false;
    }
  }
  return true;
}

// All versions of one key that a reader or watcher at the snapshot's floor or above can ask for, newest first.
bool SnapshotReader::read_key(const Key* key, std::string& out, uint32_t& units) {
  const Version* version = walking_;
  if (version == nullptr) {
    version = key->head;
    key_written_ = false;
    floor_written_ = false;
    units -= std::min<uint32_t>(units, 1);
  }
  for (; version != nullptr; version = version->previous) {
    // A key's newest version is looked at in the slice that comes to the key.
    if (units == 0 && version != key->head) {
      walking_ = version;
      return false;
    }
    if (version->mod > revision_) {
      units -= std::min<uint32_t>(units, 1);
      continue;
    }
    bool below = version->mod < floor_;
    // What the floor hides is not written, freed already or not.
    if (below && (floor_written_ || version->is_tombstone())) break;
    if (!key_written_) {
      record(out, kKey, key->bytes());
      key_written_ = true;
    }
    if (version->mod == floor_) floor_written_ = true;
    scratch_.clear();
    ByteWriter writer(scratch_);
    writer.fixed(static_cast<uint8_t>(version->is_tombstone() ? kTombstone : 0));
    writer.varint(bits(version->mod));
    writer.varint(version->sub());
    if (!version->is_tombstone()) {
      writer.varint(bits(version->create));
      writer.varint(bits(version->version));
      writer.varint(bits(version->lease()));
      writer.raw(version->value());
    }
    record(out, kVersion, scratch_);
    units -= std::min<uint32_t>(units, 1 + version->value_size / 1024);
    if (below) break;
  }
  walking_ = nullptr;
  return true;
}

Status SnapshotLoader::feed(ByteView bytes) {
  // Whole records are taken where they lie; only one that is cut is gathered.
  if (!partial_.empty()) {
    partial_.append(bytes);
    bytes = partial_;
  }
  while (true) {
    ByteReader reader(bytes);
    uint8_t type = reader.fixed<uint8_t>();
    uint64_t size = reader.varint();
    // At most 11 bytes of frame: fewer may simply not be here yet.
    if (!reader.ok() && bytes.size() < 11) break;
    if (!reader.ok() || size > kSnapshotRecordBytesMax) {
      return fail(ErrorCode::kMalformed, "snapshot record {}: bad frame", records_);
    }
    if (reader.rest().size() < size) break;
    ByteView payload = reader.raw(size);
    RETURN_IF_ERROR(take(type, payload));
    ++records_;
    bytes = reader.rest();
  }
  partial_ = std::string(bytes);
  return {};
}

Status SnapshotLoader::take(uint8_t type, ByteView payload) {
  auto malformed = [this](const char* what) {
    return fail(ErrorCode::kMalformed, "snapshot record {}: {}", records_, what);
  };
  if (end_seen_) return malformed("after the end");
  if (header_seen_ == (type == kHeader)) return malformed("header out of place");
  ByteReader reader(payload);
  switch (type) {
    case kHeader: {
      if (reader.fixed<uint32_t>() != kFormat) return fail(ErrorCode::kVersion, "snapshot of a format not known here");
      index_ = LogIndex(reader.varint());
      revision_ = static_cast<int64_t>(reader.varint());
      floor_ = static_cast<int64_t>(reader.varint());
      event_digest_ = reader.fixed<uint64_t>();
      digest_ = reader.fixed<uint64_t>();
      if (!reader.finished() || revision_ < 1 || floor_ < -1 || floor_ > revision_) return malformed("bad header");
      if (keyspace_.applied() != LogIndex() || keyspace_.store().tree().size() != 0) {
        return fail(ErrorCode::kInvalidArgument, "the keyspace is not new");
      }
      header_seen_ = true;
      return {};
    }
    case kTable: {
      uint8_t kind = reader.fixed<uint8_t>();
      if (!reader.ok() || key_ != nullptr ||
          !keyspace_.tables_.load_entry(static_cast<TableKind>(kind), reader.rest())) {
        return malformed("bad table entry");
      }
      return {};
    }
    case kKey: {
      RETURN_IF_ERROR(end_key());
      key_ = keyspace_.store_.load_key(payload);
      if (key_ == nullptr) return malformed("key out of order");
      key_has_version_ = false;
      return {};
    }
    case kVersion:
      return take_version(payload);
    case kEnd: {
      RETURN_IF_ERROR(end_key());
      uint64_t records = reader.varint();
      if (!reader.finished() || records != records_) return malformed("bad end");
      end_seen_ = true;
      return {};
    }
    default:
      return malformed("unknown type");
  }
}

Status SnapshotLoader::end_key() {
  if (key_ != nullptr && !key_has_version_) {
    return fail(ErrorCode::kMalformed, "snapshot record {}: key without version", records_);
  }
  return {};
}

Status SnapshotLoader::take_version(ByteView payload) {
  auto malformed = [this] { return fail(ErrorCode::kMalformed, "snapshot record {}: bad version", records_); };
  if (key_ == nullptr) return malformed();
  ByteReader reader(payload);
  Store::LoadedVersion loaded;
  uint8_t flags = reader.fixed<uint8_t>();
  if (flags > kTombstone) return malformed();
  loaded.tombstone = flags == kTombstone;
  loaded.mod = static_cast<int64_t>(reader.varint());
  uint64_t sub = reader.varint();
  if (!reader.ok() || sub >= Version::kSubMax) return malformed();
  loaded.sub = static_cast<uint32_t>(sub);
  if (!loaded.tombstone) {
    loaded.create = static_cast<int64_t>(reader.varint());
    loaded.version = static_cast<int64_t>(reader.varint());
    loaded.lease = static_cast<int64_t>(reader.varint());
    loaded.value = reader.rest();
  } else if (!reader.rest().empty()) {
    return malformed();
  }
  if (!reader.ok() || loaded.value.size() > kEntryBytesMax) return malformed();
  Lease* lease = nullptr;
  if (!key_has_version_ && loaded.lease != 0) {
    lease = keyspace_.tables_.lease(LeaseId(loaded.lease));
    if (lease == nullptr) return malformed();
  }
  if (!keyspace_.store_.load_version(key_, loaded)) return malformed();
  if (lease != nullptr) lease->keys.insert(key_);
  key_has_version_ = true;
  return {};
}

Status SnapshotLoader::finish() {
  if (!end_seen_ || !partial_.empty()) return fail(ErrorCode::kMalformed, "snapshot is cut short");
  if (!keyspace_.store_.finish_load(revision_, floor_, event_digest_)) {
    return fail(ErrorCode::kMalformed, "snapshot: events out of order");
  }
  keyspace_.applied_ = index_;
  keyspace_.applying_ = index_;
  keyspace_.hub_.restart();
  if (keyspace_.digest() != digest_) {
    REACHED(keyspace_snapshot_digest_differs);
    return fail(ErrorCode::kMalformed, "snapshot: the state loaded is not the state written");
  }
  return {};
}

}  // namespace conclave::keyspace
