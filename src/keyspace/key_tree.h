// All keys in order: a B+-tree of Key records whose nodes also carry, per subtree, how many keys live and the oldest
// and newest create revision among them. So a count, and the oldest or newest by create revision under a prefix, cost a
// walk down the tree and no scan, in whatever order the keys came. These numbers follow the newest versions, a
// half-applied command's included.
//
// They say nothing of "the newest created before X" in the middle of a subtree's time, which a waiter of a lock asks
// whose predecessor has gone. For that the nodes above the leaves keep the create revisions of their some 2,000 keys
// sorted, once they were asked: a search looks at one number in each of them.
//
// Nodes hold eight bytes of each key, taken behind the prefix all keys of the node share, so that a look-up compares
// integers and reads one or two keys. One thread. Does not own the keys; its nodes are the pool's and end with it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "keyspace/pool.h"
#include "keyspace/requests.h"
#include "keyspace/version.h"

namespace conclave::keyspace {

class KeyTree {
 public:
  static constexpr uint32_t kFanout = 64;  // 8 cache lines of heads: six steps of search, 2% of nodes inner
  // Keys and their numbers under one node. No live key: lives 0, oldest INT64_MAX, newest 0.
  struct Totals {
    int64_t lives = 0;
    int64_t oldest = INT64_MAX;
    int64_t newest = 0;
    void add(const Totals& other);
  };

  struct Leaf;
  struct Inner;
  // A place in the leaves. Valid until a key is added or removed.
  struct Position {
    Leaf* leaf = nullptr;
    uint32_t at = 0;
    [[nodiscard]] bool is_end() const { return leaf == nullptr; }
  };

  explicit KeyTree(Pool& pool);
  KeyTree(const KeyTree&) = delete;
  KeyTree& operator=(const KeyTree&) = delete;

  [[nodiscard]] Key* find(ByteView key) const;
  // The first key >= `key`.
  [[nodiscard]] Position lower_bound(ByteView key) const;
  [[nodiscard]] static Key* key_at(Position position);
  // Create revision of the newest version, 0 if that is a tombstone: read without touching the key.
  [[nodiscard]] static int64_t create_at(Position position);
  static void advance(Position& position);
  // The last key < `key`; of an empty view: the last key.
  [[nodiscard]] Position last_before(std::optional<ByteView> key) const;
  static void retreat(Position& position);

  // A look-up that remembers its way down, for what follows it. Valid until the next insert or erase.
  class Path {
   public:
    [[nodiscard]] Key* key() const { return found_ ? key_at({leaf_, at_}) : nullptr; }

   private:
    friend class KeyTree;
    static constexpr uint32_t kDepthMax = 12;
    struct Step {
      Inner* node;
      uint32_t child;
    };
    std::array<Step, kDepthMax> steps_;
    uint32_t depth_ = 0;
    Leaf* leaf_ = nullptr;
    uint32_t at_ = 0;
    bool found_ = false;
  };
  void find(ByteView key, Path& path) const;
  // Puts a key that is not there at the place a look-up of it ended, with the create revision of its head.
  void insert(Path& path, Key* key, int64_t create);
  // The key of `path` began or ended a life: its create revision is now `create`, 0 for none.
  void set_create(const Path& path, int64_t create);
  // Takes out a key whose create revision is 0.
  void erase(Path& path);
  // Moves `path` to the next key; false at the end. Only for paths whose key was found or that stand on a key.
  [[nodiscard]] bool advance(Path& path) const;
  // Positions `path` at the first key >= `key`; false if there is none.
  [[nodiscard]] bool seek(ByteView key, Path& path) const;

  // Of all keys in `range`.
  [[nodiscard]] Totals totals(const KeyRange& range) const;

  // An order of live keys by create revision, of those created in [create_min, create_max]; equal ones in key order,
  // either way.
  struct CreateOrder {
    bool descending = false;
    int64_t create_min = 1;
    int64_t create_max = INT64_MAX;
  };
  // Sets `out` to the first `count` keys of `range` in that order, or all there are. `units` is reduced by the work:
  // one for each node or sorted list looked at, more for a list that had to be made. False if they ran out with more
  // lists to make; those made stay, so that asking again gets there.
  [[nodiscard]] bool first_by_create(const KeyRange& range, const CreateOrder& order, size_t count, uint32_t& units,
                                     std::vector<Key*>& out) const;

  [[nodiscard]] size_t size() const { return size_; }
  // Checks every invariant; for tests.
  [[nodiscard]] bool is_sound() const;

 private:
  static void prefetch_ahead(const Leaf& leaf, uint32_t at);
  struct Separator;
  struct Creates;
  struct Candidate;
  struct Search;
  void grow(Path& path, uint32_t level, void* left, void* right, Separator* separator);
  void remove_child(Path& path, uint32_t level);
  void merge_leaf(Path& path);
  [[nodiscard]] Separator* separator_between(ByteView left, ByteView right);
  void free_separator(Separator* separator);
  [[nodiscard]] Totals node_totals(const void* node, uint32_t height) const;
  void totals_in(const void* node, uint32_t height, const KeyRange& range, bool open_left, bool open_right,
                 Totals& sum) const;
  void free_inner(Inner* inner);
  [[nodiscard]] Creates* allocate_creates(uint32_t capacity) const;
  void free_creates(Inner& inner) const;
  void make_creates(Inner& inner) const;
  void change_creates(Inner& inner, int64_t before, int64_t create) const;
  static void expand(const Candidate& candidate, Search& search);
  bool is_sound_in(const void* node, uint32_t height, const ByteView* low, const ByteView* high) const;

  Pool& pool_;
  void* root_ = nullptr;
  uint32_t height_ = 0;  // 0: the root is a leaf
  size_t size_ = 0;
};

}  // namespace conclave::keyspace
