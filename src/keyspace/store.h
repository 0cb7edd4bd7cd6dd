// Revisioned keys: every version since the floor, in key order and in the order of revisions. Owns the memory of all
// versions, what is visible, the compaction floor and the freeing behind it. Knows nothing of leases, sessions or
// watches.
//
// Life: a command writes versions of one or more revisions above the visible one, then publishes; until then readers at
// the visible revision see none of it. One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "base/types.h"
#include "keyspace/key_tree.h"
#include "keyspace/pool.h"
#include "keyspace/requests.h"
#include "keyspace/version.h"

namespace conclave::keyspace {

class Store {
 public:
  Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // The newest published revision. An empty keyspace is at 1, so the first write is 2, as in etcd.
  [[nodiscard]] int64_t visible() const { return visible_; }
  // Reads below are refused. -1 until the first compaction, so that compacting at 0 succeeds once, as in etcd.
  [[nodiscard]] int64_t floor() const { return floor_; }
  // False while a command has written what is not published: then newest versions are not what readers may see.
  [[nodiscard]] bool is_published() const { return written_ == visible_; }

  // The newest revision written, published or not.
  [[nodiscard]] int64_t written() const { return written_; }

  // Writing. `revision` is above visible and never below the last one written; events of one revision are numbered
  // here. The new version; its `previous` is what it replaced, null if the key is new.
  Version* put(ByteView key, ByteView value, int64_t lease, int64_t revision);
  // With the value of its live newest version, whatever lease: an ignore_value put.
  Version* put_keeping_value(ByteView key, int64_t lease, int64_t revision);
  // Ends the key of `path`, whose newest version must live.
  Version* end_key(const KeyTree::Path& path, int64_t revision);
  // All that was written becomes visible. Revisions without events are allowed.
  void publish(int64_t revision);

  // The newest live version, published or not; nullptr if there is none.
  [[nodiscard]] const Version* live_head(ByteView key) const;
  // What a reader at `revision` sees of a key: a live version or nullptr. Cost: versions newer than `revision`.
  [[nodiscard]] static const Version* at_revision(const Key* key, int64_t revision);
  [[nodiscard]] const KeyTree& tree() const { return tree_; }
  [[nodiscard]] KeyTree& tree() { return tree_; }

  // Events by ordinal, oldest first. [events_begin, events_end); ordinals of freed events are gone.
  [[nodiscard]] uint64_t events_begin() const { return events_base_; }
  [[nodiscard]] uint64_t events_end() const { return events_base_ + events_.size(); }
  [[nodiscard]] const Version* event(uint64_t ordinal) const { return events_[ordinal - events_base_]; }
  // The first event at or after `revision`; events_end() if none.
  [[nodiscard]] uint64_t first_event(int64_t revision) const;
  // What the key was before the revision of `event`: live, or nullptr if it was not or its revision is compacted.
  [[nodiscard]] const Version* before_event(const Version* event) const;

  // Compaction. The floor moves at once; memory follows in free_some, never past a pin.
  void set_floor(int64_t revision) { floor_ = revision; }
  // Frees at most `units` events' worth. False if nothing was left to do.
  bool free_some(uint32_t units);
  [[nodiscard]] bool has_garbage() const;
  // Bytes that live for the past only: replaced versions, tombstones, the event log.
  [[nodiscard]] uint64_t history_bytes() const { return history_bytes_ + events_.size() * sizeof(Version*); }
  // A revision about half way through the retained events; what compacting there would free is about half the history.
  [[nodiscard]] int64_t middle_revision() const;
  [[nodiscard]] size_t used_bytes() const { return pool_.used_bytes() + events_.size() * sizeof(Version*); }

  // While it stands, nothing visible at `revision` or later is freed.
  void pin(int64_t revision);
  void unpin(int64_t revision);

  // Of all live keys (order plays no part) and of all events ever (order does). Equal state, equal numbers.
  [[nodiscard]] uint64_t live_digest() const { return live_digest_; }
  [[nodiscard]] uint64_t event_digest() const { return event_digest_; }

  // Loading, into an empty store: keys in order, each with its versions newest first; then finish_load.
  struct LoadedVersion {
    int64_t mod = 0;
    int64_t create = 0;
    int64_t version = 0;
    int64_t lease = 0;
    uint32_t sub = 0;
    bool tombstone = false;
    ByteView value;
  };
  // Nullptr if the key does not follow the last one or is empty.
  [[nodiscard]] Key* load_key(ByteView key);
  // The first version becomes the head. False if it does not fit what came before.
  [[nodiscard]] bool load_version(Key* key, const LoadedVersion& loaded);
  // False if the events are not one order. Afterwards live_digest() is computed from what was loaded.
  [[nodiscard]] bool finish_load(int64_t visible, int64_t floor, uint64_t event_digest);

 private:
  struct NewVersion {
    int64_t mod;
    int64_t create;
    int64_t version;
    int64_t lease;
    uint32_t sub;
    bool tombstone;
    ByteView value;
  };
  Version* make_version(Key* key, const NewVersion& fields);
  Key* make_key(ByteView bytes);
  void free_version(Version* version);
  Version* append(KeyTree::Path& path, ByteView key_bytes, ByteView value, int64_t lease, int64_t revision);
  void log_event(Version* version);
  void free_event(Version* event);
  [[nodiscard]] int64_t free_limit() const;
  uint32_t next_sub(int64_t revision);

  Pool pool_;
  KeyTree tree_;
  std::deque<Version*> events_;
  uint64_t events_base_ = 0;
  int64_t visible_ = 1;
  int64_t written_ = 1;
  int64_t floor_ = -1;
  uint32_t sub_ = 0;
  uint64_t history_bytes_ = 0;
  uint64_t live_digest_ = 0;
  uint64_t event_digest_ = 0;
  // In order of revision, each with how often it is pinned. Few, and without an allocation for each read.
  std::vector<std::pair<int64_t, uint32_t>> pins_;
  // Loading only.
  std::vector<Version*> loaded_events_;
  std::string loaded_key_;
  Version* loaded_tail_ = nullptr;
  KeyTree::Path path_;
};

// Appends a mvccpb.KeyValue as field `field`. A tombstone is its key and mod revision.
void append_key_value(std::string& out, uint32_t field, const Version* version, bool keys_only);

}  // namespace conclave::keyspace
