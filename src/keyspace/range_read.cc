#include "keyspace/range_read.h"

#include <algorithm>

#include "base/mark.h"
#include "keyspace/wire.h"

namespace conclave::keyspace {
namespace {

// Up to this limit "first by create revision" is answered by a search of the tree, about one walk down per key; beyond,
// a scan and a heap are cheaper.
constexpr int64_t kByCreateLimitMax = 16;

void spend(uint32_t& units, size_t cost) {
  units = cost >= units ? 0 : units - static_cast<uint32_t>(cost);
}

size_t copy_cost(const Version* version) {
  return 1 + version->value_size / 1024;
}

}  // namespace

ErrorId RangeRead::begin(Store& store, const RangeRequest& request) {
  if (request.revision > store.visible()) return ErrorId::kFutureRevision;
  if (request.revision > 0 && request.revision < store.floor()) return ErrorId::kCompacted;
  int64_t revision = request.revision > 0 ? request.revision : store.visible();
  bool newest = revision == store.visible() && store.is_published();
  start(store, request, revision, newest);
  if (stage_ != Stage::kDone) {
    store.pin(revision_);
    pinned_ = true;
  }
  return ErrorId::kNone;
}

void RangeRead::begin_inside(Store& store, const RangeRequest& request) {
  bool old = request.revision > 0 && request.revision <= store.visible();
  start(store, request, old ? request.revision : kHeadRevision, !old);
}

void RangeRead::release() {
  if (pinned_) store_->unpin(revision_);
  pinned_ = false;
}

void RangeRead::start(Store& store, const RangeRequest& request, int64_t revision, bool heads) {
  release();
  store_ = &store;
  request_ = request;
  range_ = KeyRange::of(request.key, request.range_end);
  revision_ = revision;
  descending_ = request.sort_order == SortOrder::kDescend;
  in_key_order_ = request.sort_target == SortTarget::kKey;
  const bool filters = request.min_mod_revision != 0 || request.max_mod_revision != 0 ||
                       request.min_create_revision != 0 || request.max_create_revision != 0;
  limits_first_ = request.limit > 0 && request.sort_order == SortOrder::kNone && !in_key_order_ && !filters;
  count_ = 0;
  kept_ = 0;
  resumed_ = false;
  walking_ = nullptr;
  candidates_.clear();
  emitted_ = 0;
  stage_ = Stage::kWalk;
  counted_ = heads && !range_.is_point();
  if (counted_) count_ = store.tree().totals(range_).lives;
  bool by_create = request.sort_target == SortTarget::kCreate && request.limit > 0 &&
                   request.limit <= kByCreateLimitMax && request.min_mod_revision == 0 &&
                   request.max_mod_revision == 0 && !limits_first_;
  if (counted_ && by_create && !request.count_only) stage_ = Stage::kByCreate;
}

// Everything limit + 1 needs, straight from the tree. False if units ran out.
bool RangeRead::gather_by_create(uint32_t& units) {
  // The tree knows the newest only. If that is not what is to be read any more, the walk finds it.
  if (pinned_ && (store_->visible() != revision_ || !store_->is_published())) {
    REACHED(keyspace_by_create_overtaken);
    stage_ = Stage::kWalk;
    return true;
  }
  KeyTree::CreateOrder order{.descending = descending_};
  if (request_.min_create_revision != 0) order.create_min = request_.min_create_revision;
  if (request_.max_create_revision != 0) order.create_max = request_.max_create_revision;
  size_t wanted = static_cast<size_t>(request_.limit) + 1;
  if (!store_->tree().first_by_create(range_, order, wanted, units, by_create_)) return false;
  for (const Key* key : by_create_) candidates_.push_back(key->head);
  kept_ = static_cast<int64_t>(candidates_.size());
  stage_ = Stage::kEmit;
  return true;
}

bool RangeRead::step(uint32_t& units, std::string& out) {
  while (stage_ != Stage::kDone) {
    if (units == 0) return false;
    switch (stage_) {
      case Stage::kByCreate:
        if (!gather_by_create(units)) return false;
        break;
      case Stage::kWalk:
        if (!walk(units, out)) return false;
        unsorted_ = candidates_.size();
        stage_ = in_key_order_ || request_.count_only ? Stage::kDone : Stage::kSort;
        break;
      case Stage::kSort: {
        auto order = [this](const Version* a, const Version* b) { return precedes(a, b); };
        while (unsorted_ > 1) {
          if (units == 0) return false;
          std::pop_heap(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(unsorted_), order);
          --unsorted_;
          spend(units, 4);
        }
        stage_ = Stage::kEmit;
        break;
      }
      case Stage::kEmit: {
        size_t end = candidates_.size();
        if (request_.limit > 0) end = std::min(end, static_cast<size_t>(request_.limit));
        while (emitted_ < end) {
          if (units == 0) return false;
          const Version* version = candidates_[emitted_++];
          append_key_value(out, 2, version, request_.keys_only);
          spend(units, copy_cost(version));
        }
        stage_ = Stage::kDone;
        break;
      }
      case Stage::kDone:
        break;
    }
    if (stage_ == Stage::kDone) finish(out);
  }
  return true;
}

void RangeRead::finish(std::string& out) {
  release();
  append_bool_field(out, 3, request_.limit > 0 && kept_ > request_.limit);
  append_int64_field(out, 4, count_);
}

// Goes over the keys in their order, or backwards. True when the walk is over.
bool RangeRead::walk(uint32_t& units, std::string& out) {
  // Nothing but the count is wanted, and it is known.
  if (counted_ && request_.count_only) return true;
  bool backwards = in_key_order_ && descending_ && !range_.is_point();
  KeyTree::Position at;
  if (!backwards) {
    at = store_->tree().lower_bound(resumed_ ? ByteView(resume_key_) : range_.begin);
  } else if (resumed_) {
    // The key itself may have gone, if it had ended before the pinned revision; then the one before it is next.
    at = store_->tree().lower_bound(resume_key_);
    if (at.is_end() || KeyTree::key_at(at)->bytes() != resume_key_) at = store_->tree().last_before(resume_key_);
  } else if (range_.kind == KeyRange::Kind::kFrom) {
    at = store_->tree().last_before(std::nullopt);
  } else {
    at = store_->tree().last_before(range_.end);
  }
  while (!at.is_end()) {
    const Key* key = KeyTree::key_at(at);
    if (backwards ? key->bytes() < range_.begin : range_.is_before(key->bytes())) return true;
    if (units == 0) {
      resumed_ = true;
      resume_key_.assign(key->bytes());
      return false;
    }
    // The key's place in its versions, step by step: a key written a million times must not hold the turn.
    const Version* version = walking_ != nullptr ? walking_ : key->head;
    while (version != nullptr && version->mod > revision_ && units > 0) {
      version = version->previous;
      --units;
    }
    if (version != nullptr && version->mod > revision_) {
      walking_ = version;
      continue;
    }
    walking_ = nullptr;
    spend(units, 1);
    if (version != nullptr && !version->is_tombstone() && !visit(version, units, out)) return true;
    if (backwards) {
      KeyTree::retreat(at);
    } else {
      KeyTree::advance(at);
    }
  }
  return true;
}

// A live key of the range. False if the walk may end here.
bool RangeRead::visit(const Version* version, uint32_t& units, std::string& out) {
  if (!counted_) ++count_;
  if (request_.count_only) return true;
  if (!passes(version)) return true;
  if (!in_key_order_) {
    if (limits_first_ && kept_ > request_.limit) return !counted_;
    keep(version);
    return true;
  }
  bool full = request_.limit > 0 && kept_ >= request_.limit;
  if (kept_ <= request_.limit || request_.limit <= 0) ++kept_;
  if (!full) {
    append_key_value(out, 2, version, request_.keys_only);
    spend(units, copy_cost(version));
    return true;
  }
  // The one more was seen; only an unknown count makes the walk go on.
  return !counted_;
}

bool RangeRead::passes(const Version* version) const {
  const RangeRequest& r = request_;
  if (r.max_mod_revision != 0 && version->mod > r.max_mod_revision) return false;
  if (r.min_mod_revision != 0 && version->mod < r.min_mod_revision) return false;
  if (r.max_create_revision != 0 && version->create > r.max_create_revision) return false;
  return r.min_create_revision == 0 || version->create >= r.min_create_revision;
}

// Equal ones keep the order of keys, in both directions.
bool RangeRead::precedes(const Version* a, const Version* b) const {
  int order = 0;
  auto compare = [](int64_t x, int64_t y) { return x < y ? -1 : (x > y ? 1 : 0); };
  switch (request_.sort_target) {
    case SortTarget::kKey:
      break;
    case SortTarget::kVersion:
      order = compare(a->version, b->version);
      break;
    case SortTarget::kCreate:
      order = compare(a->create, b->create);
      break;
    case SortTarget::kMod:
      order = compare(a->mod, b->mod);
      break;
    case SortTarget::kValue:
      order = a->value().compare(b->value());
      break;
  }
  if (order == 0) return a->key->bytes() < b->key->bytes();
  return descending_ ? order > 0 : order < 0;
}

void RangeRead::keep(const Version* version) {
  auto order = [this](const Version* a, const Version* b) { return precedes(a, b); };
  if (request_.limit > 0 && kept_ > request_.limit) {
    // One more than the limit is held; the last in order gives way.
    if (!precedes(version, candidates_.front())) return;
    std::pop_heap(candidates_.begin(), candidates_.end(), order);
    candidates_.back() = version;
    std::push_heap(candidates_.begin(), candidates_.end(), order);
    return;
  }
  candidates_.push_back(version);
  std::push_heap(candidates_.begin(), candidates_.end(), order);
  ++kept_;
}

}  // namespace conclave::keyspace
