#include "keyspace/watch_registry.h"

#include "base/assert.h"

namespace conclave::keyspace {
namespace {

KeyRange range_of(const RangeGroup& group) {
  return {group.begin, group.end, group.kind};
}

// Whether the range of `a` reaches at least as far as that of `b`.
bool reaches(const RangeGroup* a, const RangeGroup* b) {
  if (a->kind == KeyRange::Kind::kFrom) return true;
  return b->kind != KeyRange::Kind::kFrom && a->end >= b->end;
}

}  // namespace

WatchRegistry::~WatchRegistry() {
  free_tree(root_);
}

void WatchRegistry::free_tree(RangeGroup* root) {
  if (root == nullptr) return;
  free_tree(root->left);
  free_tree(root->right);
  delete root;
}

int WatchRegistry::order(const RangeGroup& group, const KeyRange& range) {
  int begins = ByteView(group.begin).compare(range.begin);
  if (begins != 0) return begins;
  if (group.kind != range.kind) return group.kind < range.kind ? -1 : 1;
  return ByteView(group.end).compare(range.end);
}

void WatchRegistry::add(WatchLinks* watcher, const KeyRange& range) {
  ASSERT(watcher->group == nullptr);
  WatchGroup* group = nullptr;
  if (range.is_point()) {
    auto at = points_.find(range.begin);
    if (at == points_.end()) at = points_.try_emplace(std::string(range.begin)).first;
    group = &at->second;
  } else {
    RangeGroup* node = root_;
    while (node != nullptr) {
      int side = order(*node, range);
      if (side == 0) break;
      node = side > 0 ? node->left : node->right;
    }
    if (node == nullptr) {
      node = new RangeGroup;
      node->begin = std::string(range.begin);
      node->end = std::string(range.end);
      node->kind = range.kind;
      node->priority = mix(++groups_made_, 0x7761746368ULL);
      root_ = insert(root_, node);
    }
    group = node;
  }
  watcher->group = group;
  watcher->previous = nullptr;
  watcher->next = group->first;
  if (watcher->next != nullptr) watcher->next->previous = watcher;
  group->first = watcher;
  ++size_;
}

void WatchRegistry::remove(WatchLinks* watcher, const KeyRange& range) {
  WatchGroup* group = watcher->group;
  ASSERT(group != nullptr);
  if (watcher->next != nullptr) watcher->next->previous = watcher->previous;
  if (watcher->previous != nullptr) {
    watcher->previous->next = watcher->next;
  } else {
    group->first = watcher->next;
  }
  *watcher = {};
  --size_;
  if (group->first != nullptr) return;
  if (range.is_point()) {
    points_.erase(points_.find(range.begin));
  } else {
    RangeGroup* node = static_cast<RangeGroup*>(group);
    root_ = erase(root_, node);
    delete node;
  }
}

void WatchRegistry::update(RangeGroup* group) {
  group->farthest = group;
  if (group->left != nullptr && reaches(group->left->farthest, group->farthest))
    group->farthest = group->left->farthest;
  if (group->right != nullptr && reaches(group->right->farthest, group->farthest)) {
    group->farthest = group->right->farthest;
  }
}

RangeGroup* WatchRegistry::rotate_left(RangeGroup* group) {
  RangeGroup* up = group->right;
  group->right = up->left;
  up->left = group;
  update(group);
  update(up);
  return up;
}

RangeGroup* WatchRegistry::rotate_right(RangeGroup* group) {
  RangeGroup* up = group->left;
  group->left = up->right;
  up->right = group;
  update(group);
  update(up);
  return up;
}

RangeGroup* WatchRegistry::insert(RangeGroup* root, RangeGroup* group) {
  if (root == nullptr) {
    update(group);
    return group;
  }
  if (order(*root, range_of(*group)) > 0) {
    root->left = insert(root->left, group);
    if (root->left->priority > root->priority) return rotate_right(root);
  } else {
    root->right = insert(root->right, group);
    if (root->right->priority > root->priority) return rotate_left(root);
  }
  update(root);
  return root;
}

RangeGroup* WatchRegistry::erase(RangeGroup* root, RangeGroup* group) {
  ASSERT(root != nullptr);
  int side = order(*root, range_of(*group));
  if (side > 0) {
    root->left = erase(root->left, group);
  } else if (side < 0) {
    root->right = erase(root->right, group);
  } else if (root->left == nullptr) {
    return root->right;
  } else if (root->right == nullptr) {
    return root->left;
  } else if (root->left->priority > root->right->priority) {
    root = rotate_right(root);
    root->right = erase(root->right, group);
  } else {
    root = rotate_left(root);
    root->left = erase(root->left, group);
  }
  update(root);
  return root;
}

void WatchRegistry::find_in(RangeGroup* root, ByteView key, std::vector<WatchGroup*>& out) {
  while (root != nullptr) {
    // Nothing below reaches the key.
    if (root->farthest->kind != KeyRange::Kind::kFrom && key >= root->farthest->end) return;
    find_in(root->left, key, out);
    if (key < root->begin) return;
    if (root->kind == KeyRange::Kind::kFrom || key < root->end) out.push_back(root);
    root = root->right;
  }
}

void WatchRegistry::find(ByteView key, std::vector<WatchGroup*>& out) const {
  if (!points_.empty()) {
    auto at = points_.find(key);
    if (at != points_.end()) out.push_back(const_cast<WatchGroup*>(&at->second));
  }
  find_in(root_, key, out);
}

WatchLinks* WatchRegistry::any() const {
  if (root_ != nullptr) return root_->first;
  return points_.empty() ? nullptr : points_.begin()->second.first;
}

}  // namespace conclave::keyspace
