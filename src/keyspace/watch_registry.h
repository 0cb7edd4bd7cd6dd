// Who watches a key: watchers grouped by exactly what they watch, single keys in a hash table, ranges in an interval
// tree. Finding the groups of an event costs a look-up plus the logarithm of the number of distinct ranges plus the
// groups found; how many watchers there are plays no part. Does not own the watchers. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "keyspace/digest.h"
#include "keyspace/requests.h"

namespace conclave::keyspace {

struct WatchGroup;

// What the registry knows of a watcher: its links.
struct WatchLinks {
  WatchGroup* group = nullptr;
  WatchLinks* next = nullptr;
  WatchLinks* previous = nullptr;
};

// All watchers of one key or range in one registry.
struct WatchGroup {
  WatchLinks* first = nullptr;
};

// A node of the interval tree: a treap ordered by (begin, end), each node with the farthest end below it.
struct RangeGroup : WatchGroup {
  std::string begin;
  std::string end;  // of an interval
  KeyRange::Kind kind = KeyRange::Kind::kFrom;
  RangeGroup* left = nullptr;
  RangeGroup* right = nullptr;
  uint64_t priority = 0;
  const RangeGroup* farthest = nullptr;
};

class WatchRegistry {
 public:
  WatchRegistry() = default;
  WatchRegistry(const WatchRegistry&) = delete;
  WatchRegistry& operator=(const WatchRegistry&) = delete;
  ~WatchRegistry();

  void add(WatchLinks* watcher, const KeyRange& range);
  // `range` as it was added.
  void remove(WatchLinks* watcher, const KeyRange& range);
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] size_t size() const { return size_; }
  // Appends the groups whose range holds `key`. They stay valid while they have watchers.
  void find(ByteView key, std::vector<WatchGroup*>& out) const;
  // Some watcher, or nullptr.
  [[nodiscard]] WatchLinks* any() const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(ByteView key) const { return static_cast<size_t>(hash_bytes(key, 0)); }
  };
  [[nodiscard]] static int order(const RangeGroup& group, const KeyRange& range);
  RangeGroup* insert(RangeGroup* root, RangeGroup* group);
  RangeGroup* erase(RangeGroup* root, RangeGroup* group);
  static void update(RangeGroup* group);
  static RangeGroup* rotate_left(RangeGroup* group);
  static RangeGroup* rotate_right(RangeGroup* group);
  static void find_in(RangeGroup* root, ByteView key, std::vector<WatchGroup*>& out);
  static void free_tree(RangeGroup* root);

  // Iterated only by any(): no order reaches an output.
  std::unordered_map<std::string, WatchGroup, Hash, std::equal_to<>> points_;
  RangeGroup* root_ = nullptr;
  uint64_t groups_made_ = 0;
  size_t size_ = 0;
};

}  // namespace conclave::keyspace
