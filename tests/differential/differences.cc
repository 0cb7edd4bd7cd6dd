#include "tests/differential/differences.h"

#include <algorithm>

namespace conclave::differential {

std::array<Difference, static_cast<size_t>(Differs::kCount)>& differences() {
  static constexpr std::array<Difference, static_cast<size_t>(Differs::kCount)> kListed = {{
      {.what = "header.cluster_id, member_id, raft_term", .why = "another cluster; that there are any is compared"},
      {.what = "Lease: an id that the server chose",
       .why = "chosen by chance; known by the same name on both from then on"},
      {.what = "LeaseTimeToLive: a TTL above zero", .why = "time passes between the two answers"},
      {.what = "LeaseRevoke of the shortest lease more than a second after its grant",
       .why = "it may have ended meanwhile: not compared"},
      {.what = "LeaseTimeToLive: order of keys", .why = "etcd's is that of a hash table"},
      {.what = "LeaseLeases: order", .why = "etcd's is that of their ends, ours that of their ids"},
      {.what = "Range: order of those that are equal in what is sorted by, where more than 12 are sorted",
       .why = "Go's sort keeps the order of so few and of no more; asked again without limit, it must be the order of "
              "a sort"},
      {.what = "Range: whom of the last equals a limit leaves, where more than 12 are sorted",
       .why =
           "as above; asked again without limit, each must be one of these equals. Not of a Txn: what it saw is gone"},
      // Not asked from here on. The generator ends such a delete behind its last key instead.
      {.what = "Txn: a put within a delete of everything from a key on",
       .why = "etcd takes the end \"\\0\" for a key, sees no duplicate, and puts and deletes in one revision"},
      {.what = "JSON: an error's empty \"details\"", .why = "of etcd since 3.6, beside the fields of those before"},
      {.what = "JSON: HTTP's status of a failed precondition",
       .why = "412 from etcd 3.4, 400 from those since and from us"},
      {.what = "JSON: HashKV, not asked", .why = "etcd 3.4 has one path for it and Hash, and answers it as Hash"},
      {.what = "Watch: the id of a watcher that a compaction ended, not asked for",
       .why = "free here, taken on etcd until it is canceled as well"},
      {.what = "Watch: a stream with a watcher from the past that had nothing to say, ended before a compaction",
       .why = "etcd looks after such ones ten times a second: it may be past what is compacted or not"},
      {.what = "Watch: from the compacted revision where that deleted something, asked from the next one",
       .why = "etcd 3.4's compaction takes this deletion away; that of 3.6, as ours, keeps it"},
      {.what = "JSON: further requests of a stream beyond the first 500 bytes, not asked",
       .why = "etcd's HTTP server drops what is unread of a body when the answer begins"},
  }};
  static_assert(std::ranges::none_of(kListed, [](const Difference& each) { return each.why.empty(); }));
  static std::array<Difference, static_cast<size_t>(Differs::kCount)> all = kListed;
  return all;
}

}  // namespace conclave::differential
