#include "keyspace/key_tree.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <new>

#include "base/assert.h"

namespace conclave::keyspace {

struct KeyTree::Separator {
  uint32_t size;
  // `size` bytes follow.
  [[nodiscard]] ByteView bytes() const { return {reinterpret_cast<const char*>(this + 1), size}; }
};

// The bytes shared by all entries lie in the node, as far as they fit: reading them from an entry would be a cache
// miss.
constexpr uint32_t kPrefixBytes = 32;

// Numbers sorted in the time of one unit.
constexpr uint32_t kSortedPerUnit = 16;

// The create revisions of all live keys under a node whose children are leaves, ascending. A copy of what the leaves
// say: made when first asked for, then kept up. New ones go to the end, since revisions grow.
struct KeyTree::Creates {
  uint32_t count;
  uint32_t capacity;
  [[nodiscard]] int64_t* begin() { return reinterpret_cast<int64_t*>(this + 1); }
  [[nodiscard]] int64_t* end() { return begin() + count; }
};

struct KeyTree::Leaf {
  uint32_t count = 0;
  uint32_t shared = 0;  // bytes all keys here have in common
  char prefix[kPrefixBytes];
  Leaf* next = nullptr;
  Leaf* previous = nullptr;
  uint64_t heads[kFanout];  // the eight bytes behind the shared ones, big-endian, zero-filled
  Key* keys[kFanout];
  int64_t creates[kFanout];
  [[nodiscard]] ByteView bytes(uint32_t at) const { return keys[at]->bytes(); }
};

struct KeyTree::Inner {
  uint32_t count = 0;          // children
  uint32_t shared = 0;         // bytes all separators have in common
  Creates* creates = nullptr;  // or null; always null above other inner nodes
  char prefix[kPrefixBytes];
  uint64_t heads[kFanout];
  Separator* separators[kFanout];  // [i]: no key of child i is below it, none of child i-1 at or above; [0] is unused
  void* children[kFanout];
  Totals totals[kFanout];
  [[nodiscard]] ByteView bytes(uint32_t at) const { return separators[at]->bytes(); }
};

namespace {

uint64_t head_of(ByteView bytes, uint32_t shared) {
  if (bytes.size() <= shared) return 0;
  bytes.remove_prefix(shared);
  // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): 8 are there
  if (bytes.size() >= 8) return __builtin_bswap64(load_le<uint64_t>(bytes.data()));
  uint64_t head = 0;
  for (size_t i = 0; i < bytes.size(); ++i) head |= uint64_t{static_cast<uint8_t>(bytes[i])} << (56 - 8 * i);
  return head;
}

uint32_t shared_prefix(ByteView a, ByteView b) {
  size_t size = std::min(a.size(), b.size());
  size_t at = 0;
  while (at < size && a[at] == b[at]) ++at;
  return static_cast<uint32_t>(at);
}

// Recomputes what all entries from `first` on share, and their heads.
template <class Node>
void rebuild_heads(Node& node, uint32_t first) {
  if (node.count <= first) return;
  node.shared = shared_prefix(node.bytes(first), node.bytes(node.count - 1));
  std::memcpy(node.prefix, node.bytes(first).data(), std::min(node.shared, kPrefixBytes));
  for (uint32_t i = first; i < node.count; ++i) node.heads[i] = head_of(node.bytes(i), node.shared);
}

// How `key` stands to the prefix all entries share: below, within, or above all.
template <class Node>
int against_prefix(const Node& node, uint32_t first, ByteView key) {
  ByteView prefix =
      node.shared <= kPrefixBytes ? ByteView(node.prefix, node.shared) : node.bytes(first).substr(0, node.shared);
  return key.substr(0, node.shared).compare(prefix);
}

// Narrows [begin, end), entries whose heads equal the key's, to the first that is >= key (or, with `after_equal`, >
// key).
template <class Node>
uint32_t among_equal_heads(const Node& node, uint32_t begin, uint32_t end, ByteView key, bool after_equal) {
  while (begin < end) {
    uint32_t middle = begin + (end - begin) / 2;
    int order = node.bytes(middle).compare(key);
    if (order < 0 || (order == 0 && after_equal)) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

// The first entry in [first, count) that is >= key; with `after_equal`, > key.
template <class Node>
uint32_t entry_for(const Node& node, uint32_t first, ByteView key, bool after_equal) {
  if (node.count <= first) return first;
  int order = against_prefix(node, first, key);
  if (order != 0) return order < 0 ? first : node.count;
  uint64_t head = head_of(key, node.shared);
  const uint64_t* begin = std::lower_bound(node.heads + first, node.heads + node.count, head);
  const uint64_t* end = begin;
  while (end != node.heads + node.count && *end == head) ++end;
  return among_equal_heads(node, static_cast<uint32_t>(begin - node.heads), static_cast<uint32_t>(end - node.heads),
                           key, after_equal);
}

template <class Node>
uint32_t lower_entry(const Node& node, uint32_t first, ByteView key) {
  return entry_for(node, first, key, false);
}

// The child of an inner node that holds `key`: the last whose separator is <= key.
template <class Inner>
uint32_t child_for(const Inner& node, ByteView key) {
  return entry_for(node, 1, key, true) - 1;
}

// A search of a node's heads would take its cache misses one after the other; asked for together they overlap.
void prefetch_heads(const void* node) {
  constexpr size_t kLineBytes = 64;
  const char* at = static_cast<const char*>(node);
  for (size_t line = 0; line <= KeyTree::kFanout * sizeof(uint64_t) / kLineBytes; ++line) {
    __builtin_prefetch(at + line * kLineBytes);
  }
}

template <class T>
void open_gap(T* array, uint32_t count, uint32_t at) {
  std::copy_backward(array + at, array + count, array + count + 1);
}
template <class T>
void close_gap(T* array, uint32_t count, uint32_t at) {
  std::copy(array + at + 1, array + count, array + at);
}

}  // namespace

void KeyTree::Totals::add(const Totals& other) {
  lives += other.lives;
  oldest = std::min(oldest, other.oldest);
  newest = std::max(newest, other.newest);
}

KeyTree::KeyTree(Pool& pool) : pool_(pool) {
  root_ = new (pool_.allocate(sizeof(Leaf))) Leaf;
}

// The shortest bytes above `left` and not above `right`.
KeyTree::Separator* KeyTree::separator_between(ByteView left, ByteView right) {
  size_t size = std::min<size_t>(right.size(), shared_prefix(left, right) + size_t{1});
  Separator* separator = static_cast<Separator*>(pool_.allocate(sizeof(Separator) + size));
  separator->size = static_cast<uint32_t>(size);
  std::memcpy(separator + 1, right.data(), size);
  return separator;
}

void KeyTree::free_separator(Separator* separator) {
  pool_.free(separator, sizeof(Separator) + separator->size);
}

Key* KeyTree::find(ByteView key) const {
  const void* node = root_;
  for (uint32_t height = height_; height > 0; --height) {
    const Inner* inner = static_cast<const Inner*>(node);
    node = inner->children[child_for(*inner, key)];
    prefetch_heads(node);
  }
  const Leaf* leaf = static_cast<const Leaf*>(node);
  uint32_t at = lower_entry(*leaf, 0, key);
  return at < leaf->count && leaf->bytes(at) == key ? leaf->keys[at] : nullptr;
}

void KeyTree::find(ByteView key, Path& path) const {
  void* node = root_;
  path.depth_ = 0;
  for (uint32_t height = height_; height > 0; --height) {
    Inner* inner = static_cast<Inner*>(node);
    uint32_t child = child_for(*inner, key);
    path.steps_[path.depth_++] = {inner, child};
    node = inner->children[child];
    prefetch_heads(node);
  }
  path.leaf_ = static_cast<Leaf*>(node);
  path.at_ = lower_entry(*path.leaf_, 0, key);
  path.found_ = path.at_ < path.leaf_->count && path.leaf_->bytes(path.at_) == key;
}

KeyTree::Position KeyTree::lower_bound(ByteView key) const {
  Path path;
  find(key, path);
  if (path.at_ < path.leaf_->count) return {path.leaf_, path.at_};
  return {path.leaf_->next, 0};
}

Key* KeyTree::key_at(Position position) {
  return position.leaf->keys[position.at];
}
int64_t KeyTree::create_at(Position position) {
  return position.leaf->creates[position.at];
}

// A walk reads the key and its head at every step, each a cache miss if nobody asked ahead.
void KeyTree::prefetch_ahead(const Leaf& leaf, uint32_t at) {
  if (at + 8 < leaf.count) __builtin_prefetch(leaf.keys[at + 8]);
  if (at + 4 < leaf.count) {
    const char* head = reinterpret_cast<const char*>(leaf.keys[at + 4]->head);
    __builtin_prefetch(head);
    __builtin_prefetch(head + 64);
  }
}

void KeyTree::advance(Position& position) {
  prefetch_ahead(*position.leaf, position.at);
  if (++position.at < position.leaf->count) return;
  position = {position.leaf->next, 0};
}

KeyTree::Position KeyTree::last_before(std::optional<ByteView> key) const {
  Leaf* leaf = nullptr;
  uint32_t at = 0;
  if (key) {
    Path path;
    find(*key, path);
    leaf = path.leaf_;
    at = path.at_;
  } else {
    void* node = root_;
    for (uint32_t height = height_; height > 0; --height) {
      Inner* inner = static_cast<Inner*>(node);
      node = inner->children[inner->count - 1];
    }
    leaf = static_cast<Leaf*>(node);
    at = leaf->count;
  }
  if (at > 0) return {leaf, at - 1};
  leaf = leaf->previous;
  return leaf == nullptr ? Position{} : Position{leaf, leaf->count - 1};
}

void KeyTree::retreat(Position& position) {
  if (position.at > 0) {
    --position.at;
    return;
  }
  Leaf* leaf = position.leaf->previous;
  position = leaf == nullptr ? Position{} : Position{leaf, leaf->count - 1};
}

bool KeyTree::seek(ByteView key, Path& path) const {
  find(key, path);
  if (path.at_ < path.leaf_->count) {
    path.found_ = true;
    return true;
  }
  path.at_ = path.leaf_->count == 0 ? 0 : path.leaf_->count - 1;
  return path.leaf_->count != 0 && advance(path);
}

bool KeyTree::advance(Path& path) const {
  path.found_ = true;
  prefetch_ahead(*path.leaf_, path.at_);
  if (path.at_ + 1 < path.leaf_->count) {
    ++path.at_;
    return true;
  }
  // Up to the first step with a child to the right, then down its left edge.
  uint32_t level = path.depth_;
  while (level > 0 && path.steps_[level - 1].child + 1 >= path.steps_[level - 1].node->count) --level;
  if (level == 0) return false;
  ++path.steps_[level - 1].child;
  void* node = path.steps_[level - 1].node->children[path.steps_[level - 1].child];
  for (; level < path.depth_; ++level) {
    path.steps_[level] = {static_cast<Inner*>(node), 0};
    node = static_cast<Inner*>(node)->children[0];
  }
  path.leaf_ = static_cast<Leaf*>(node);
  path.at_ = 0;
  return true;
}

KeyTree::Totals KeyTree::node_totals(const void* node, uint32_t height) const {
  Totals sum;
  if (height > 0) {
    const Inner* inner = static_cast<const Inner*>(node);
    for (uint32_t i = 0; i < inner->count; ++i) sum.add(inner->totals[i]);
    return sum;
  }
  const Leaf* leaf = static_cast<const Leaf*>(node);
  for (uint32_t i = 0; i < leaf->count; ++i) {
    if (leaf->creates[i] != 0) sum.add({1, leaf->creates[i], leaf->creates[i]});
  }
  return sum;
}

void KeyTree::free_inner(Inner* inner) {
  free_creates(*inner);
  pool_.free(inner, sizeof(Inner));
}

KeyTree::Creates* KeyTree::allocate_creates(uint32_t capacity) const {
  Creates* creates = static_cast<Creates*>(pool_.allocate(sizeof(Creates) + capacity * sizeof(int64_t)));
  creates->count = 0;
  creates->capacity = capacity;
  return creates;
}

void KeyTree::free_creates(Inner& inner) const {
  if (inner.creates == nullptr) return;
  pool_.free(inner.creates, sizeof(Creates) + inner.creates->capacity * sizeof(int64_t));
  inner.creates = nullptr;
}

void KeyTree::make_creates(Inner& inner) const {
  int64_t lives = 0;
  for (uint32_t i = 0; i < inner.count; ++i) lives += inner.totals[i].lives;
  inner.creates = allocate_creates(static_cast<uint32_t>(lives));
  for (uint32_t i = 0; i < inner.count; ++i) {
    const Leaf* leaf = static_cast<const Leaf*>(inner.children[i]);
    for (uint32_t at = 0; at < leaf->count; ++at) {
      if (leaf->creates[at] != 0) inner.creates->begin()[inner.creates->count++] = leaf->creates[at];
    }
  }
  std::sort(inner.creates->begin(), inner.creates->end());
}

void KeyTree::change_creates(Inner& inner, int64_t before, int64_t create) const {
  Creates* creates = inner.creates;
  if (before != 0) {
    int64_t* at = std::lower_bound(creates->begin(), creates->end(), before);
    ASSERT(at != creates->end() && *at == before);
    std::copy(at + 1, creates->end(), at);
    --creates->count;
  }
  if (create == 0) return;
  if (creates->count == creates->capacity) {
    Creates* larger = allocate_creates(creates->count + creates->count / 2 + 8);
    larger->count = creates->count;
    std::copy(creates->begin(), creates->end(), larger->begin());
    free_creates(inner);
    creates = inner.creates = larger;
  }
  int64_t* at = creates->end();
  if (creates->count > 0 && at[-1] > create) {
    at = std::upper_bound(creates->begin(), creates->end(), create);
    std::copy_backward(at, creates->end(), creates->end() + 1);
  }
  *at = create;
  ++creates->count;
}

void KeyTree::set_create(const Path& path, int64_t create) {
  ASSERT(path.found_);
  int64_t before = path.leaf_->creates[path.at_];
  path.leaf_->creates[path.at_] = create;
  if (path.depth_ > 0 && path.steps_[path.depth_ - 1].node->creates != nullptr) {
    change_creates(*path.steps_[path.depth_ - 1].node, before, create);
  }
  int64_t delta = (create != 0 ? 1 : 0) - (before != 0 ? 1 : 0);
  const void* node = path.leaf_;
  uint32_t height = 0;
  for (uint32_t level = path.depth_; level > 0; --level) {
    const Path::Step& step = path.steps_[level - 1];
    Totals& totals = step.node->totals[step.child];
    if (before != 0 && (totals.oldest == before || totals.newest == before)) {
      totals = node_totals(node, height);
    } else {
      totals.lives += delta;
      if (create != 0) {
        totals.oldest = std::min(totals.oldest, create);
        totals.newest = std::max(totals.newest, create);
      }
    }
    node = step.node;
    ++height;
  }
}

void KeyTree::insert(Path& path, Key* key, int64_t create) {
  ASSERT(!path.found_);
  ++size_;
  Leaf* leaf = path.leaf_;
  if (leaf->count == kFanout) {
    // Keys that come in order leave full leaves behind; others halve them.
    uint32_t keep = path.at_ == kFanout && leaf->next == nullptr ? kFanout - 2 : kFanout / 2;
    Leaf* right = new (pool_.allocate(sizeof(Leaf))) Leaf;
    right->count = kFanout - keep;
    std::copy(leaf->keys + keep, leaf->keys + kFanout, right->keys);
    std::copy(leaf->creates + keep, leaf->creates + kFanout, right->creates);
    leaf->count = keep;
    right->next = leaf->next;
    right->previous = leaf;
    if (right->next != nullptr) right->next->previous = right;
    leaf->next = right;
    rebuild_heads(*leaf, 0);
    rebuild_heads(*right, 0);
    Separator* separator = separator_between(leaf->bytes(keep - 1), right->bytes(0));
    bool goes_right = key->bytes() >= separator->bytes();
    grow(path, path.depth_, leaf, right, separator);
    // The way down changed; a second look-up is rare and simple.
    find(key->bytes(), path);
    ASSERT(!path.found_ && path.leaf_ == (goes_right ? right : leaf));
    leaf = path.leaf_;
  }
  uint32_t at = path.at_;
  ByteView bytes = key->bytes();
  bool fits = leaf->count > 0 && against_prefix(*leaf, 0, bytes) == 0;
  open_gap(leaf->heads, leaf->count, at);
  open_gap(leaf->keys, leaf->count, at);
  open_gap(leaf->creates, leaf->count, at);
  ++leaf->count;
  leaf->keys[at] = key;
  leaf->creates[at] = 0;
  if (fits) {
    leaf->heads[at] = head_of(bytes, leaf->shared);
  } else {
    rebuild_heads(*leaf, 0);
  }
  path.found_ = true;
  if (create != 0) set_create(path, create);
}

// Node `left` at `level` of the path was split; `right` follows it from `separator` on.
void KeyTree::grow(Path& path, uint32_t level, void* left, void* right, Separator* separator) {
  uint32_t height = height_ - level;  // of left and right
  if (level == 0) {
    Inner* root = new (pool_.allocate(sizeof(Inner))) Inner;
    root->count = 2;
    root->children[0] = left;
    root->children[1] = right;
    root->separators[1] = separator;
    root->totals[0] = node_totals(left, height);
    root->totals[1] = node_totals(right, height);
    rebuild_heads(*root, 1);
    root_ = root;
    ++height_;
    ASSERT_CMP(height_, <, Path::kDepthMax);
    return;
  }
  Inner* inner = path.steps_[level - 1].node;
  uint32_t at = path.steps_[level - 1].child + 1;
  inner->totals[at - 1] = node_totals(left, height);
  if (inner->count == kFanout) {
    uint32_t keep = at == kFanout ? kFanout - 2 : kFanout / 2;
    Inner* sibling = new (pool_.allocate(sizeof(Inner))) Inner;
    sibling->count = kFanout - keep;
    std::copy(inner->children + keep, inner->children + kFanout, sibling->children);
    std::copy(inner->separators + keep, inner->separators + kFanout, sibling->separators);
    std::copy(inner->totals + keep, inner->totals + kFanout, sibling->totals);
    Separator* up = inner->separators[keep];
    inner->count = keep;
    free_creates(*inner);
    Inner* target = inner;
    if (at > keep) {
      target = sibling;
      at -= keep;
    }
    open_gap(target->children, target->count, at);
    open_gap(target->separators, target->count, at);
    open_gap(target->totals, target->count, at);
    ++target->count;
    target->children[at] = right;
    target->separators[at] = separator;
    target->totals[at] = node_totals(right, height);
    rebuild_heads(*inner, 1);
    rebuild_heads(*sibling, 1);
    grow(path, level - 1, inner, sibling, up);
    return;
  }
  open_gap(inner->children, inner->count, at);
  open_gap(inner->separators, inner->count, at);
  open_gap(inner->totals, inner->count, at);
  ++inner->count;
  inner->children[at] = right;
  inner->separators[at] = separator;
  inner->totals[at] = node_totals(right, height);
  rebuild_heads(*inner, 1);
}

void KeyTree::erase(Path& path) {
  ASSERT(path.found_);
  Leaf* leaf = path.leaf_;
  ASSERT(leaf->creates[path.at_] == 0);
  --size_;
  close_gap(leaf->heads, leaf->count, path.at_);
  close_gap(leaf->keys, leaf->count, path.at_);
  close_gap(leaf->creates, leaf->count, path.at_);
  --leaf->count;
  path.found_ = false;
  if (path.depth_ == 0) return;
  if (leaf->count == 0) {
    if (leaf->previous != nullptr) leaf->previous->next = leaf->next;
    if (leaf->next != nullptr) leaf->next->previous = leaf->previous;
    pool_.free(leaf, sizeof(Leaf));
    remove_child(path, path.depth_);
  } else if (leaf->count < kFanout / 4) {
    merge_leaf(path);
  }
}

// Takes the child at `level` of the path out of its parent; its memory is the caller's matter.
void KeyTree::remove_child(Path& path, uint32_t level) {
  Inner* inner = path.steps_[level - 1].node;
  uint32_t at = path.steps_[level - 1].child;
  // The first child has no separator of its own: its right neighbour becomes the first and loses its.
  if (inner->count > 1) free_separator(inner->separators[at == 0 ? 1 : at]);
  if (at == 0 && inner->count > 1) {
    close_gap(inner->separators, inner->count, 1);
  } else {
    close_gap(inner->separators, inner->count, at);
  }
  close_gap(inner->children, inner->count, at);
  close_gap(inner->totals, inner->count, at);
  --inner->count;
  if (inner->count == 0) {
    ASSERT_CMP(level, >, 1u);
    free_inner(inner);
    remove_child(path, level - 1);
    return;
  }
  rebuild_heads(*inner, 1);
  if (level == 1 && inner->count == 1) {
    root_ = inner->children[0];
    free_inner(inner);
    --height_;
    // A chain of nodes with one child each collapses as well.
    while (height_ > 0 && static_cast<Inner*>(root_)->count == 1) {
      Inner* lone = static_cast<Inner*>(root_);
      root_ = lone->children[0];
      free_inner(lone);
      --height_;
    }
  }
}

// Joins the path's leaf with its right neighbour under the same parent, if both fit with room to spare.
void KeyTree::merge_leaf(Path& path) {
  Path::Step step = path.steps_[path.depth_ - 1];
  if (step.child + 1 >= step.node->count) return;
  Leaf* left = path.leaf_;
  Leaf* right = static_cast<Leaf*>(step.node->children[step.child + 1]);
  if (left->count + right->count > kFanout * 3 / 4) return;
  std::copy(right->keys, right->keys + right->count, left->keys + left->count);
  std::copy(right->creates, right->creates + right->count, left->creates + left->count);
  left->count += right->count;
  left->next = right->next;
  if (left->next != nullptr) left->next->previous = left;
  rebuild_heads(*left, 0);
  step.node->totals[step.child].add(step.node->totals[step.child + 1]);
  pool_.free(right, sizeof(Leaf));
  ++path.steps_[path.depth_ - 1].child;
  remove_child(path, path.depth_);
}

KeyTree::Totals KeyTree::totals(const KeyRange& range) const {
  Totals sum;
  if (range.is_point()) {
    Path path;
    find(range.begin, path);
    if (path.found_ && path.leaf_->creates[path.at_] != 0) {
      sum.add({1, path.leaf_->creates[path.at_], path.leaf_->creates[path.at_]});
    }
    return sum;
  }
  if (range.kind == KeyRange::Kind::kInterval && range.begin >= range.end) return sum;
  totals_in(root_, height_, range, true, range.kind == KeyRange::Kind::kInterval, sum);
  return sum;
}

// `open_left`: keys of the node may lie below the range's begin; `open_right`: at or above its end.
void KeyTree::totals_in(const void* node, uint32_t height, const KeyRange& range, bool open_left, bool open_right,
                        Totals& sum) const {
  if (height == 0) {
    const Leaf* leaf = static_cast<const Leaf*>(node);
    uint32_t begin = open_left ? lower_entry(*leaf, 0, range.begin) : 0;
    uint32_t end = open_right ? lower_entry(*leaf, 0, range.end) : leaf->count;
    for (uint32_t i = begin; i < end; ++i) {
      if (leaf->creates[i] != 0) sum.add({1, leaf->creates[i], leaf->creates[i]});
    }
    return;
  }
  const Inner* inner = static_cast<const Inner*>(node);
  uint32_t begin = open_left ? child_for(*inner, range.begin) : 0;
  uint32_t last = open_right ? child_for(*inner, range.end) : inner->count - 1;
  for (uint32_t i = begin; i <= last; ++i) {
    bool left = open_left && i == begin;
    bool right = open_right && i == last;
    if (left || right) {
      totals_in(inner->children[i], height - 1, range, left, right, sum);
    } else {
      sum.add(inner->totals[i]);
    }
  }
}

// A key, or a subtree and the best its keys can be.
struct KeyTree::Candidate {
  int64_t rank;  // create revision; negative where the newest comes first: the lowest rank is the best
  void* node;    // null: a key
  Key* key;
  uint32_t height;
  // Keys of the node may lie below the range's begin; at or above its end.
  bool open_left;
  bool open_right;
  // Some key of the whole subtree has this rank; otherwise none has a better one.
  bool exact;

  // For a heap whose front is the best. Nodes go before keys of the same rank: they may hold an earlier key.
  friend bool operator<(const Candidate& a, const Candidate& b) {
    if (a.rank != b.rank) return a.rank > b.rank;
    if (a.node != nullptr || b.node != nullptr) return a.node == nullptr;
    return a.key->bytes() > b.key->bytes();
  }
};

// Best first: whatever comes to the front of the heap is better than all that was not looked at.
struct KeyTree::Search {
  const KeyRange& range;
  const CreateOrder& order;
  size_t count;
  std::vector<Candidate> heap = {};
  std::vector<int64_t> ranks = {};  // a heap of the best `count` keys': what is worse than its front is not wanted

  void push(const Candidate& candidate) {
    if (ranks.size() == count && candidate.rank > ranks.front()) return;
    if (candidate.node == nullptr) {
      ranks.push_back(candidate.rank);
      std::push_heap(ranks.begin(), ranks.end());
      if (ranks.size() > count) {
        std::pop_heap(ranks.begin(), ranks.end());
        ranks.pop_back();
      }
    }
    heap.push_back(candidate);
    std::push_heap(heap.begin(), heap.end());
  }
  Candidate pop() {
    std::pop_heap(heap.begin(), heap.end());
    Candidate best = heap.back();
    heap.pop_back();
    return best;
  }
  void offer(Key* key, int64_t create) {
    if (create < order.create_min || create > order.create_max) return;
    push({.rank = order.descending ? -create : create, .node = nullptr, .key = key});
  }
  void offer(void* node, uint32_t height, const Totals& totals, bool open_left, bool open_right) {
    if (totals.lives == 0 || totals.newest < order.create_min || totals.oldest > order.create_max) return;
    push({.rank =
              order.descending ? -std::min(totals.newest, order.create_max) : std::max(totals.oldest, order.create_min),
          .node = node,
          .key = nullptr,
          .height = height,
          .open_left = open_left,
          .open_right = open_right,
          .exact = order.descending ? totals.newest <= order.create_max : totals.oldest >= order.create_min});
  }
  // The whole of a node above leaves once more, now that its list tells its best exactly.
  void offer_exact(const Candidate& candidate, Creates& creates) {
    Candidate exact = candidate;
    exact.exact = true;
    if (order.descending) {
      const int64_t* at = std::upper_bound(creates.begin(), creates.end(), order.create_max);
      if (at == creates.begin() || at[-1] < order.create_min) return;
      exact.rank = -at[-1];
    } else {
      const int64_t* at = std::lower_bound(creates.begin(), creates.end(), order.create_min);
      if (at == creates.end() || *at > order.create_max) return;
      exact.rank = *at;
    }
    push(exact);
  }
};

bool KeyTree::first_by_create(const KeyRange& range, const CreateOrder& order, size_t count, uint32_t& units,
                              std::vector<Key*>& out) const {
  auto spend = [&units](size_t cost) { units = cost >= units ? 0 : units - static_cast<uint32_t>(cost); };
  out.clear();
  if (count == 0) return true;
  Search search{range, order, count};
  search.heap.reserve(kFanout + count);
  search.ranks.reserve(count + 1);
  if (range.is_point()) {
    Path path;
    find(range.begin, path);
    if (path.found_ && path.leaf_->creates[path.at_] != 0) search.offer(path.key(), path.leaf_->creates[path.at_]);
  } else if (range.kind == KeyRange::Kind::kFrom || range.begin < range.end) {
    expand({.rank = 0,
            .node = root_,
            .key = nullptr,
            .height = height_,
            .open_left = true,
            .open_right = range.kind == KeyRange::Kind::kInterval},
           search);
  }
  spend(1);
  bool made = false;
  while (out.size() < count && !search.heap.empty()) {
    Candidate best = search.pop();
    if (best.node == nullptr) {
      out.push_back(best.key);
      continue;
    }
    if (best.height != 1 || best.exact || best.open_left || best.open_right) {
      expand(best, search);
      spend(1);
      continue;
    }
    Inner* inner = static_cast<Inner*>(best.node);
    if (inner->creates == nullptr) {
      // One at least is made, however much was spent on the way here.
      if (made && units == 0) return false;
      made = true;
      make_creates(*inner);
      spend(inner->count + inner->creates->count / kSortedPerUnit);
    }
    search.offer_exact(best, *inner->creates);
    spend(1);
  }
  return true;
}

void KeyTree::expand(const Candidate& candidate, Search& search) {
  const KeyRange& range = search.range;
  if (candidate.height == 0) {
    const Leaf* leaf = static_cast<const Leaf*>(candidate.node);
    uint32_t begin = candidate.open_left ? lower_entry(*leaf, 0, range.begin) : 0;
    uint32_t end = candidate.open_right ? lower_entry(*leaf, 0, range.end) : leaf->count;
    for (uint32_t i = begin; i < end; ++i) {
      if (leaf->creates[i] != 0) search.offer(leaf->keys[i], leaf->creates[i]);
    }
    return;
  }
  const Inner* inner = static_cast<const Inner*>(candidate.node);
  uint32_t begin = candidate.open_left ? child_for(*inner, range.begin) : 0;
  uint32_t last = candidate.open_right ? child_for(*inner, range.end) : inner->count - 1;
  for (uint32_t i = begin; i <= last; ++i) {
    search.offer(inner->children[i], candidate.height - 1, inner->totals[i], candidate.open_left && i == begin,
                 candidate.open_right && i == last);
  }
}

bool KeyTree::is_sound() const {
  return is_sound_in(root_, height_, nullptr, nullptr);
}

bool KeyTree::is_sound_in(const void* node, uint32_t height, const ByteView* low, const ByteView* high) const {
  auto within = [&](ByteView bytes) { return (low == nullptr || bytes >= *low) && (high == nullptr || bytes < *high); };
  if (height == 0) {
    const Leaf* leaf = static_cast<const Leaf*>(node);
    for (uint32_t i = 0; i < leaf->count; ++i) {
      if (!within(leaf->bytes(i)) || leaf->heads[i] != head_of(leaf->bytes(i), leaf->shared)) return false;
      if (leaf->bytes(i).substr(0, leaf->shared) != leaf->bytes(0).substr(0, leaf->shared)) return false;
      if (i > 0 && leaf->bytes(i - 1) >= leaf->bytes(i)) return false;
      const Version* head = leaf->keys[i]->head;
      if (leaf->creates[i] != (head->is_tombstone() ? 0 : head->create)) return false;
    }
    return true;
  }
  const Inner* inner = static_cast<const Inner*>(node);
  if (inner->creates != nullptr) {
    if (height != 1) return false;
    std::vector<int64_t> wanted;
    for (uint32_t i = 0; i < inner->count; ++i) {
      const Leaf* leaf = static_cast<const Leaf*>(inner->children[i]);
      std::copy_if(leaf->creates, leaf->creates + leaf->count, std::back_inserter(wanted),
                   [](int64_t create) { return create != 0; });
    }
    std::sort(wanted.begin(), wanted.end());
    if (!std::equal(wanted.begin(), wanted.end(), inner->creates->begin(), inner->creates->end())) return false;
  }
  for (uint32_t i = 0; i < inner->count; ++i) {
    ByteView begin = i > 0 ? inner->bytes(i) : ByteView();
    ByteView end = i + 1 < inner->count ? inner->bytes(i + 1) : ByteView();
    if (i > 0 && (!within(begin) || inner->heads[i] != head_of(begin, inner->shared))) return false;
    if (!is_sound_in(inner->children[i], height - 1, i > 0 ? &begin : low, i + 1 < inner->count ? &end : high)) {
      return false;
    }
    Totals totals = node_totals(inner->children[i], height - 1);
    if (totals.lives != inner->totals[i].lives || totals.oldest != inner->totals[i].oldest ||
        totals.newest != inner->totals[i].newest) {
      return false;
    }
  }
  return true;
}

}  // namespace conclave::keyspace
