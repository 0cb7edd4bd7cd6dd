// A snapshot of the keyspace: the state at one applied index, written in slices while later commands are applied, and
// read back. The reader pins what it still needs; nothing is copied but what changes under it. The bytes are a stream
// of records without checksums of their own (the files have those), and yet every bit of what arrives is checked
// against the state's digest. docs/internals/formats/keyspace-snapshot.md has the format.
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "base/types.h"
#include "keyspace/keyspace.h"
#include "keyspace/tables.h"

namespace conclave::keyspace {

class SnapshotReader {
 public:
  // The keyspace must not be busy, and must outlive the reader. While it stands memory of the past is kept.
  explicit SnapshotReader(Keyspace& keyspace);
  SnapshotReader(const SnapshotReader&) = delete;
  SnapshotReader& operator=(const SnapshotReader&) = delete;
  ~SnapshotReader();

  // Appends the next bytes. True when the snapshot is complete. May be called while the keyspace is busy.
  [[nodiscard]] bool read(std::string& out, uint32_t units = kSliceUnits);
  // Of the state: what the snapshot file is named after.
  [[nodiscard]] LogIndex index() const { return index_; }

 private:
  enum class Stage : uint8_t { kHeader, kTables, kKeys, kEnd, kDone };
  bool read_keys(std::string& out, uint32_t& units);
  bool read_key(const Key* key, std::string& out, uint32_t& units);
  void record(std::string& out, uint8_t type, ByteView payload);

  Keyspace& keyspace_;
  LogIndex index_;
  int64_t revision_;
  int64_t floor_;
  uint64_t event_digest_;
  uint64_t digest_;
  Stage stage_ = Stage::kHeader;
  TableShadow shadow_;
  uint64_t records_ = 0;
  std::string scratch_;
  // Where the walk over the keys goes on: at this key, and in it at this version if set. Never a key's newest, which
  // may be a tombstone below the floor: that one, and its key, may be freed between two slices. An older one is freed
  // only with what replaced it, and the walk passes only what the floor keeps.
  bool resumed_ = false;
  std::string resume_key_;
  const Version* walking_ = nullptr;
  bool key_written_ = false;
  bool floor_written_ = false;  // a version of exactly the floor's revision was written of this key
};

class SnapshotLoader {
 public:
  // Into a new keyspace. After a failure the keyspace is of no use.
  explicit SnapshotLoader(Keyspace& keyspace) : keyspace_(keyspace) {}
  // The next bytes, cut anywhere.
  [[nodiscard]] Status feed(ByteView bytes);
  // After the last: fails if something is missing or the state is not what was written.
  [[nodiscard]] Status finish();

 private:
  [[nodiscard]] Status take(uint8_t type, ByteView payload);
  [[nodiscard]] Status take_version(ByteView payload);
  [[nodiscard]] Status end_key();

  Keyspace& keyspace_;
  std::string partial_;
  bool header_seen_ = false;
  bool end_seen_ = false;
  LogIndex index_;
  int64_t revision_ = 0;
  int64_t floor_ = 0;
  uint64_t event_digest_ = 0;
  uint64_t digest_ = 0;
  uint64_t records_ = 0;
  Key* key_ = nullptr;
  bool key_has_version_ = false;
};

}  // namespace conclave::keyspace
