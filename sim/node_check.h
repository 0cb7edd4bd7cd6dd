// NodeCheck: what must hold over all servers and clients of a run of the node suite. It keeps the one history there may
// be (what the first server to apply an entry made of it), compares every other server with it, and judges what clients
// were told: writes acknowledged are in it, writes refused are not, none is in it twice, nothing goes back in real
// time, reads and watches show it, no lease ends while its holder may trust it.
//
// It is told what happens and only compares. Keys and values are short texts; a value is written by one operation only.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/entry.h"
#include "base/time.h"
#include "keyspace/keyspace.h"

namespace conclave::sim {

enum class NodeOutcome : uint8_t {
  kUnknown,  // no answer, or one that says so: it took effect, or will, or never
  kDone,
  kRefused,  // known never to take effect
};

struct NodeOperation {
  bool is_read = false;
  std::string key;
  std::string value;  // written; or read, empty if there is no such key
  Instant called{};
  Instant returned{};
  NodeOutcome outcome = NodeOutcome::kUnknown;
  int64_t revision = 0;      // of the answer's header; of a write done: its own
  int64_t mod_revision = 0;  // of the key read
};

class NodeCheck {
 public:
  // The first violation, or empty. Later ones are consequences.
  [[nodiscard]] const std::string& violation() const { return violation_; }
  void violate(std::string what) {
    if (violation_.empty()) violation_ = std::move(what);
  }

  // A server applied an entry; `keyspace` has just done so.
  void note_applied(uint64_t server, Instant now, const Entry& entry, keyspace::Keyspace& keyspace);
  // A server has this state: loaded from a snapshot.
  void note_state(uint64_t server, LogIndex index, uint64_t digest);

  // A holder counts on its lease for `ttl` from `sent`, since the answer to what it sent then has arrived.
  void note_trusted(LeaseId lease, Instant sent, Duration ttl);

  // An event as a watcher of all keys got it; `last` is the newest revision it had before, and is moved on. The watcher
  // asked for everything from last + 1 on.
  void note_event(const std::string& watcher, int64_t& last, int64_t revision, bool is_put, const std::string& key,
                  const std::string& value);

  // Of the whole history; at the end.
  [[nodiscard]] std::string judge(const std::vector<NodeOperation>& operations) const;
  [[nodiscard]] uint64_t entries_applied() const { return digests_.size(); }
  [[nodiscard]] uint64_t leases_expired() const { return ended_.size(); }

 private:
  struct Write {
    std::string key;
    std::string value;
  };
  struct Trust {
    Instant sent{};
    Duration ttl{};
  };
  void check_ended(LeaseId lease);

  std::string violation_;
  std::map<LogIndex, uint64_t> digests_;
  std::map<int64_t, Write> writes_;             // by revision: puts
  std::map<std::string, int64_t> revision_of_;  // by value
  std::map<LeaseId, Trust> trust_;
  std::map<LeaseId, Instant> ended_;  // by expiry: when a server first applied it
};

}  // namespace conclave::sim
