// What is left of long leases, kept over changes of the leader. A new leader gives every lease its full time, which for
// one of hours would put its end off by hours; so the leader writes down what is left of each long lease, every
// twentieth of its time, as a system record that hangs on it. Owns when the next is due, which are under way, and the
// record's form.
//
// Safe: a renewal is acknowledged only once no such record stands and none is under way; what a later
// leader reads was true when it was written, and nothing was acknowledged after it.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/time.h"
#include "base/types.h"

namespace conclave::node {

// Leases of at most this are not kept: after a change of the leader they end so much later at most.
inline constexpr int64_t kCheckpointTtlMsAbove = 600'000;
inline constexpr int64_t kCheckpointsPerTtl = 20;

[[nodiscard]] std::string remaining_record_key(LeaseId lease);
[[nodiscard]] std::string encode_remaining(int64_t remaining_ms);
// Nothing if it is no such record's value.
[[nodiscard]] std::optional<int64_t> decode_remaining(ByteView value);
// Of a key of that form.
[[nodiscard]] std::optional<LeaseId> lease_of_remaining(ByteView key);

class LeaseCheckpoints {
 public:
  // It has its full time, or what was written, from now on. Short ones are passed over.
  void start(LeaseId lease, int64_t ttl_ms, Instant now);
  void end(LeaseId lease);
  // This server leads no more.
  void stop();

  // Those due, at most `count`; each is due again a twentieth later.
  [[nodiscard]] std::vector<LeaseId> take_due(Instant now, size_t count);
  [[nodiscard]] Instant next_deadline() const { return due_.empty() ? kNever : due_.begin()->first; }

  // A command that writes or erases the record of this lease was proposed; applied.
  void note_proposed(LeaseId lease) { ++under_way_[lease]; }
  void note_applied(LeaseId lease);
  [[nodiscard]] bool is_under_way(LeaseId lease) const { return under_way_.contains(lease); }

 private:
  struct State {
    int64_t ttl_ms = 0;
    Instant due_at{};
  };
  std::map<LeaseId, State> leases_;
  std::set<std::pair<Instant, LeaseId>> due_;
  std::map<LeaseId, uint32_t> under_way_;
};

}  // namespace conclave::node
