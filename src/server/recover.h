// Recover: what is left when so many servers are lost for good that the rest is no quorum. Offline: reads the data
// directories that survived, says which one is the most advanced and what may be missing in it, and makes directories
// of a new cluster from it. Nothing of the old directories is changed.
//
// The new cluster has an id of its own, so that no server of the old one is ever taken for one of it; its revisions go
// on far above the old ones, so that no fencing token is ever given out twice.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/entry.h"
#include "base/error.h"
#include "base/membership.h"
#include "server/identity.h"

namespace conclave::server {

// More than any cluster writes in the time its last writes may have been lost in: at a million a second, eleven days.
inline constexpr int64_t kRecoverMargin = 1'000'000'000'000;

// A directory of a server that does not run.
struct Survivor {
  std::string directory;
  Identity identity;
  Certainty certainty = Certainty::kEmpty;
  Term term;              // the newest it has seen
  Position last;          // of its log
  LogIndex readable;      // everything up to here can be read: less than last.index if entries are damaged
  LogIndex commit;        // known as committed, at least
  Membership membership;  // the newest in its log
  // Its state may be wrong: of use only where there is no other.
  [[nodiscard]] bool has_diverged() const { return identity.diverged_at.value() != 0; }
};
// kLocked: its server runs. kNotFound: no server's directory. kMalformed, kUnreadable, kIo.
[[nodiscard]] Result<Survivor> look_at(const std::string& directory);

// The newest in the log, committed or not.
[[nodiscard]] Membership membership_of(const Recovered& recovered);

struct RecoverPlan {
  std::vector<Survivor> survivors;  // the most advanced first
  size_t members = 0;               // voters of the newest membership known
  size_t here = 0;                  // of them, with a directory that remembers what it promised
  // A quorum of the old cluster is here, so the most advanced has everything that was acknowledged. Otherwise what the
  // missing servers alone had after `survivors.front().readable` is lost.
  bool complete = false;
};
// kInvalidArgument: they are not of one cluster, or there is none.
[[nodiscard]] Result<RecoverPlan> plan_recovery(std::vector<Survivor> survivors);

struct RecoverOptions {
  std::string from;  // a survivor's directory
  std::string data;  // the new one; must not exist, or be empty
  std::string name;  // of the server whose directory it will be
  std::string join;  // the new cluster, the same on all its servers
};
struct RecoverOutcome {
  ClusterId cluster;
  LogIndex index;  // the state of the old cluster after this entry
  int64_t revision_before = 0;
  int64_t revision = 0;
};
// Makes the directory of one server of the new cluster. Each is made from the same survivor: the same directory gives
// the same state and the same cluster id everywhere.
[[nodiscard]] Result<RecoverOutcome> recover(const RecoverOptions& options);

}  // namespace conclave::server
