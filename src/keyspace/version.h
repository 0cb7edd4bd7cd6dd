// The two records everything hangs on: a key, and one version of it. Each is one allocation with its bytes behind it.
// Owned by Store; views of their bytes live as long as the record.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/assert.h"
#include "base/bytes.h"

namespace conclave::keyspace {

struct Key;

// What one revision did to one key: a value, or (a tombstone) its end. Linked to the version before; never changed but
// for that link, which compaction cuts.
struct Version {
  int64_t mod;      // revision that wrote it
  int64_t create;   // revision the key's present life began with; 0 for a tombstone
  int64_t version;  // writes in this life, 1 for the first; 0 for a tombstone
  Version* previous;
  Key* key;
  uint32_t value_size;
  uint32_t sub_and_flags;  // place among the events of its revision; two flags on top
  // If kHasLeaseFlag, eight bytes of lease id; then the value.

  static constexpr uint32_t kTombstoneFlag = uint32_t{1} << 31;
  static constexpr uint32_t kHasLeaseFlag = uint32_t{1} << 30;
  static constexpr uint32_t kSubMax = kHasLeaseFlag - 1;

  [[nodiscard]] bool is_tombstone() const { return (sub_and_flags & kTombstoneFlag) != 0; }
  [[nodiscard]] uint32_t sub() const { return sub_and_flags & kSubMax; }
  [[nodiscard]] int64_t lease() const {
    if ((sub_and_flags & kHasLeaseFlag) == 0) return 0;
    int64_t lease;
    std::memcpy(&lease, tail(), sizeof(lease));
    return lease;
  }
  [[nodiscard]] ByteView value() const { return {tail() + lease_bytes(), value_size}; }
  [[nodiscard]] size_t record_bytes() const { return sizeof(Version) + lease_bytes() + value_size; }
  [[nodiscard]] char* tail() { return reinterpret_cast<char*>(this + 1); }
  [[nodiscard]] const char* tail() const { return reinterpret_cast<const char*>(this + 1); }

 private:
  [[nodiscard]] size_t lease_bytes() const { return (sub_and_flags & kHasLeaseFlag) != 0 ? sizeof(int64_t) : 0; }
};
static_assert(sizeof(Version) == 48, "bytes per key are a promise");

struct Key {
  Version* head;  // the newest version; never null while the key is in the tree
  uint32_t size;
  uint32_t unused;
  // `size` bytes follow.

  [[nodiscard]] ByteView bytes() const { return {reinterpret_cast<const char*>(this + 1), size}; }
  [[nodiscard]] size_t record_bytes() const { return sizeof(Key) + size; }
};
static_assert(sizeof(Key) == 16, "bytes per key are a promise");

// Newest of all: how a command sees its own writes.
inline constexpr int64_t kHeadRevision = INT64_MAX;

}  // namespace conclave::keyspace
