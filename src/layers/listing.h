// What people ask of locks, elections and sessions: who is in line for a name, which names there are, who waits to be
// elected. Looks at the state only, some of it at a time; entries may be applied between two steps, so what many steps
// found is not of one moment, and is looked at again where that is cheap.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "conclave/v1/election.pb.h"
#include "conclave/v1/lock.pb.h"
#include "conclave/v1/session.pb.h"
#include "keyspace/interface.h"
#include "layers/claim_record.h"
#include "layers/elections.h"

namespace conclave::layers {

// How many of those that wait are told by name.
inline constexpr size_t kListedWaitersMax = 100;
// To observers, again and again.
inline constexpr size_t kObservedCandidatesMax = 32;
// Locks or elections of one answer, and sessions.
inline constexpr uint32_t kListedNamesMax = 1000;
inline constexpr uint32_t kListedNames = 100;  // where none is asked for
inline constexpr uint32_t kListedSessionsMax = 1000;
// Of one session, told by name.
inline constexpr size_t kListedClaimsMax = 1000;

// ---- One name ----

// Of a native claim, by its key; a lock's, without a note, where there is none.
[[nodiscard]] ClaimRecord claim_record_of(const keyspace::View& view, ByteView key);
// What owns the name, whoever's it is.
[[nodiscard]] std::optional<keyspace::KeyValue> owner_of(const keyspace::View& view, ByteView name);
// Whether the claim is on the lease that its key names. It is not after its session expired, while the lock is held
// back for those who may still act on it.
[[nodiscard]] bool is_on_its_lease(const keyspace::KeyValue& claim);
[[nodiscard]] v1::LockValidity validity_of(const keyspace::View& view, ByteView name, int64_t token);
[[nodiscard]] v1::Leadership leadership_of(const keyspace::View& view, ByteView name);
// Of the candidates that an election has; without values.
[[nodiscard]] v1::Candidates candidates_of(const keyspace::View& view, const Elections& elections,
                                           const std::string& name);
[[nodiscard]] v1::LockClaim lock_claim_of(const keyspace::View& view, const keyspace::KeyValue& claim);

// Who is in line for one name, the owner among them: the keys directly below it.
class LineScan {
 public:
  explicit LineScan(ByteView name);
  // Looks at up to so many keys. True: all were looked at, and what follows may be asked.
  bool step(const keyspace::View& view, size_t keys_max);
  [[nodiscard]] v1::LockDescription lock(const keyspace::View& view) const;
  // Without candidates.
  [[nodiscard]] v1::ElectionDescription election(const keyspace::View& view) const;

 private:
  [[nodiscard]] int64_t waiting(const std::optional<keyspace::KeyValue>& owner) const;

  std::string name_;
  std::string prefix_;
  std::string prefix_end_;
  std::string from_;
  // The oldest, with one more than is told: the owner.
  std::set<std::pair<Revision, std::string>> oldest_;
  int64_t count_ = 0;
};

// Who waits to be elected.
class CandidateScan {
 public:
  explicit CandidateScan(ByteView name);
  bool step(const keyspace::View& view, size_t records_max);
  void describe(const keyspace::View& view, v1::ElectionDescription& out) const;

 private:
  std::string name_;
  std::string prefix_;
  std::string from_;
  std::set<Candidate> best_;
  int64_t count_ = 0;
};

// ---- Many names ----

// Names of locks or elections that begin with a prefix and are above `after`, in order. A name is one where a claim
// stands: a key on the lease that it names, or with a record; of elections those with a candidate too.
class NameScan {
 public:
  enum class What : uint8_t { kLocks, kElections };
  struct Options {
    What what = What::kLocks;
    std::string prefix;
    std::string after;
    size_t count = kListedNames;
  };
  explicit NameScan(Options options);
  bool step(const keyspace::View& view, size_t keys_max);
  struct Found {
    std::string name;
    int64_t claims = 0;
  };
  [[nodiscard]] std::vector<Found> found() const;
  [[nodiscard]] bool has_more() const { return names_.size() > options_.count; }

 private:
  void add(std::string name, int64_t claims);
  void step_candidates(const keyspace::View& view, size_t names_max);
  // Keys from here on belong to names above this one.
  [[nodiscard]] std::string end_of(ByteView name) const;

  const Options options_;
  std::map<std::string, int64_t> names_;  // the lowest, one more than are told; with their claims
  std::string bound_;                     // end_of() the last of them, once there are so many
  bool candidates_done_ = false;
  std::string from_;
};

[[nodiscard]] v1::LockDescription describe_lock(const keyspace::View& view, const NameScan::Found& name);
[[nodiscard]] v1::ElectionDescription describe_election(const keyspace::View& view, const NameScan::Found& name);

// ---- Sessions ----

// Without claims and what is left of its time; nothing if there is no such session.
[[nodiscard]] std::optional<v1::SessionDescription> describe_session(const keyspace::View& view, SessionId session);
// What it owns and waits for.
class SessionScan {
 public:
  explicit SessionScan(SessionId session);
  bool step(const keyspace::View& view, size_t claims_max, v1::SessionDescription& out);

 private:
  [[nodiscard]] bool add_claim(const keyspace::View& view, const std::string& key, v1::SessionDescription& out) const;

  SessionId session_;
  LeaseId lease_;
  std::string from_;
  bool claims_done_ = false;
};

}  // namespace conclave::layers
