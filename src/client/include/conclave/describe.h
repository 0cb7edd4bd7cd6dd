// For operators: what locks, elections and sessions there are, who holds them and who waits; and what an end by
// decision is told. See Client::describe_lock() and what follows it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conclave/election.h"

namespace conclave::client {

// ---- Locks ----

// Of one who owns a lock, or waits for it.
struct LockClaim {
  std::string key{};  // of the claim, below the lock's name
  int64_t token = 0;  // its create revision
  // On which it stands: the session's number, or the lease of somebody who follows etcd's recipe; zero: none.
  int64_t lease = 0;
  // Of a session. Somebody of the recipe cannot be asked to release; nor can a session that has expired, and whose lock
  // is held back by its delay.
  bool is_session = false;
  std::string note{};         // what it is held for
  std::string description{};  // of the session
  std::chrono::milliseconds lock_delay{0};
};

struct LockDescription {
  std::string name{};
  std::optional<LockClaim> owner{};  // nothing: it is free
  // Those next in line, in order: at most 100. None in a list.
  std::vector<LockClaim> waiters{};
  int64_t waiting = 0;   // how many wait
  int64_t revision = 0;  // of the state that was looked at
};

// Pages of names, in order.
struct ListOptions {
  std::string prefix{};  // of the names
  std::string after{};   // names above this one only: what `next` of the page before says
  uint32_t count = 0;    // on a page: 1 to 1,000; zero: 100
};

struct LockPage {
  std::vector<LockDescription> locks{};
  std::optional<std::string> next{};  // `after` of the page behind this one; nothing: this is the last
};

struct ForceReleaseOptions {
  // Told to the owner, who is asked to release and is told of the loss. At most 256 bytes.
  std::string reason{};
  // At once. Otherwise the owner is asked first, and has as long as its session's TTL (or its lease's) from then on.
  bool now = false;
  // How long to wait for the outcome; zero: the client's request_timeout and, without `now`, 60 s more. When it is over
  // nothing is forced any more: without `now` it must be longer than that TTL.
  std::chrono::milliseconds timeout{0};
};

// ---- Elections ----

struct ElectionDescription {
  std::string name{};
  Leader leader{};  // token zero: nobody leads
  // In the order in which they would be elected: at most 100. None in a list.
  std::vector<Candidate> candidates{};
  int64_t waiting = 0;  // how many candidates there are; zero in a list
  // Claims in line behind the leader: of etcd's recipe, and of sessions that were put behind those.
  int64_t claims_waiting = 0;
};

struct ElectionPage {
  std::vector<ElectionDescription> elections{};
  std::optional<std::string> next{};  // as of LockPage
};

// ---- Sessions ----

// What a session owns or waits for.
struct SessionClaim {
  enum class Kind : uint8_t { kLock, kElection };
  std::string name{};
  Kind kind = Kind::kLock;
  int64_t token = 0;  // zero: a candidate
  bool granted = false;
};

struct SessionDescription {
  int64_t session = 0;
  std::string description{};
  std::chrono::milliseconds ttl{0};
  // Of its time, by the leader's clock; nothing in a list.
  std::optional<std::chrono::milliseconds> remaining{};
  uint64_t incarnation = 0;            // counted up whenever its client attaches it anew
  std::vector<SessionClaim> claims{};  // at most 1,000; none in a list
};

// Pages of sessions, in order of their numbers.
struct SessionListOptions {
  int64_t after = 0;   // sessions above this number only: what `next` of the page before says
  uint32_t count = 0;  // on a page: 1 to 1,000; zero: 1,000
};

struct SessionPage {
  std::vector<SessionDescription> sessions{};
  std::optional<int64_t> next{};  // as of LockPage
};

}  // namespace conclave::client
