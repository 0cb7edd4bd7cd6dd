// One range, read in slices: etcd's options exactly. Reads at a pinned revision while commands go on, or, inside a
// command, the newest versions. Owns its place and what it gathered; appends the fields of a RangeResponse (kvs, more,
// count) to a string that may grow between slices.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "keyspace/requests.h"
#include "keyspace/store.h"

namespace conclave::keyspace {

class RangeRead {
 public:
  RangeRead() = default;
  RangeRead(const RangeRead&) = delete;
  RangeRead& operator=(const RangeRead&) = delete;
  ~RangeRead() { release(); }

  // kCompacted or kFutureRevision if the request's revision cannot be read at `store.visible()`; then nothing is begun.
  // The bytes the request views must outlive the read.
  [[nodiscard]] ErrorId begin(Store& store, const RangeRequest& request);
  // Inside a command: a request without a revision sees what the command wrote.
  void begin_inside(Store& store, const RangeRequest& request);
  // True when done; `units` is reduced by the work, and a step begins only while some are left.
  [[nodiscard]] bool step(uint32_t& units, std::string& out);

  // Keys that matched the filters and were returned; for callers that read on. Valid when done.
  [[nodiscard]] int64_t count() const { return count_; }

 private:
  enum class Stage : uint8_t { kByCreate, kWalk, kSort, kEmit, kDone };
  void start(Store& store, const RangeRequest& request, int64_t revision, bool heads);
  void release();
  bool walk(uint32_t& units, std::string& out);
  bool visit(const Version* version, uint32_t& units, std::string& out);
  void keep(const Version* version);
  [[nodiscard]] bool passes(const Version* version) const;
  [[nodiscard]] bool precedes(const Version* a, const Version* b) const;
  bool gather_by_create(uint32_t& units);
  void finish(std::string& out);

  Store* store_ = nullptr;
  RangeRequest request_;
  KeyRange range_;
  int64_t revision_ = 0;
  bool pinned_ = false;
  bool counted_ = false;  // count_ is known beforehand
  bool in_key_order_ = false;
  bool descending_ = false;
  // A limit without an order or filters, though sorted by something: etcd takes the first keys, one more than the
  // limit, and sorts those.
  bool limits_first_ = false;
  Stage stage_ = Stage::kDone;
  int64_t count_ = 0;
  int64_t kept_ = 0;  // matches returned or held, at most limit + 1
  // Where the walk goes on: at this key, if set; in the middle of its versions, if walking_ is.
  bool resumed_ = false;
  std::string resume_key_;
  const Version* walking_ = nullptr;
  std::vector<Key*> by_create_;
  std::vector<const Version*> candidates_;  // a heap whose front is the last in order; sorted in place
  size_t unsorted_ = 0;
  size_t emitted_ = 0;
};

}  // namespace conclave::keyspace
