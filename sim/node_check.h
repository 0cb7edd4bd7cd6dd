// NodeCheck: what must hold over all servers and clients of a run of the node suite. It keeps the one history there may
// be (what the first server to apply an entry made of it), compares every other server with it, and judges what clients
// were told: writes acknowledged are in it, writes refused are not, none is in it twice, nothing goes back in real
// time, reads and watches show it, no lease ends while its holder may trust it, nor late in a run without faults.
//
// It is told what happens and only compares. Keys and values are short texts; a value is written by one operation only,
// but for the empty one and those that begin with kWrittenAgain.
//
// A restarted server must know what it had made durable, unless its disk was struck; then it must at least not be
// believed under its old identity. Where no peer that answered knew better (docs/internals/raft.md, Floors), that is a
// silent loss: what follows from it is nobody's fault, and the run is over.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "base/entry.h"
#include "base/time.h"
#include "keyspace/keyspace.h"
#include "raft/raft.h"

namespace conclave::sim {

enum class NodeOutcome : uint8_t {
  kUnknown,  // no answer, or one that says so: it took effect, or will, or never
  kDone,
  kRefused,  // known never to take effect
};

// What a client asked for. A swap is a transaction: a put if the key's newest revision is the expected one, otherwise
// it reads the key.
struct NodeOperation {
  enum class Kind : uint8_t { kGet, kPut, kSwap, kDelete } kind = Kind::kGet;
  std::string key;
  std::string value;     // written
  int64_t expected = 0;  // by a swap
  Instant called{};
  Instant returned{};
  NodeOutcome outcome = NodeOutcome::kUnknown;
  int64_t revision = 0;  // of the answer's header; of what changed something: its own
  bool changed = false;  // a put, a swap that found what it expected, a delete of a key that was there
  // Read by a get, or by a swap that changed nothing; empty and zero if there is no such key.
  std::string read;
  int64_t mod_revision = 0;
};

class NodeCheck {
 public:
  struct Options {
    // Clocks may drift beyond their bound: then no promise about leases holds.
    bool clocks_lie = false;
    // Nothing disturbs the run: a lease that is not kept alive ends in time, as seen by its holder.
    bool calm = false;
  };
  explicit NodeCheck(const Options& options) : options_(options) {}

  // The first violation, or empty. Later ones are consequences.
  [[nodiscard]] const std::string& violation() const { return violation_; }
  void violate(std::string what) {
    if (violation_.empty() && !silent_loss_) violation_ = std::move(what);
  }
  [[nodiscard]] bool has_silent_loss() const { return silent_loss_; }

  // --- What a server may have acknowledged.
  struct Kept {
    Vote vote;
    Position last;
  };
  // Handed to the disk; durable once note_durable says so.
  void note_written(uint64_t server, WriteSequence sequence, const Kept& kept);
  void note_durable(uint64_t server, WriteSequence sequence);
  // It starts with what its log found. `struck`: a fault that may destroy durable data has struck its disk.
  void note_found(uint64_t server, const Recovered& recovered, bool struck);
  // What it found is durable, and it goes on from there.
  void note_begun(uint64_t server);
  // After each turn.
  void note_status(uint64_t server, const raft::Status& status);

  // A server applied an entry; `keyspace` has just done so.
  void note_applied(uint64_t server, Instant now, const Entry& entry, keyspace::Keyspace& keyspace);
  // A server has this state: loaded from a snapshot.
  void note_state(uint64_t server, LogIndex index, uint64_t digest);

  // A holder counts on its lease for `ttl` from `sent`, since the answer to what it sent then has arrived.
  void note_trusted(LeaseId lease, Instant sent, Duration ttl);
  // A holder asks for its lease, or for more time, now: its time may begin as late as this arrives.
  void note_asked(LeaseId lease, Instant sent, Duration ttl);
  // A holder was told that its lease is gone.
  void note_gone(LeaseId lease, Instant now);

  // The first byte of values that the servers may write more than once.
  static constexpr char kWrittenAgain = '=';

  // A change of one key, the n-th of its revision.
  struct Event {
    std::string key;
    std::string value;  // put; a deletion has none
    LeaseId lease;      // of a put
    bool is_put = false;
    friend bool operator==(const Event&, const Event&) = default;
  };
  // A change of a system record.
  struct RecordChange {
    std::string key;
    std::string value;
    bool is_put = false;
  };
  // A command in the history.
  struct Commanded {
    Instant now{};  // when a server first applied it
    keyspace::CommandHeader header;
    bool changed = false;  // keys, records or leases
    std::vector<LeaseId> leases_started;
    std::string body;
    std::vector<RecordChange> records;
  };
  // Hears of the one history as it grows: of an entry first what it was, then its events, then the leases it ended.
  class Observer {
   public:
    virtual ~Observer() = default;
    virtual void on_command(const Commanded&) {}
    virtual void on_event(int64_t revision, const Event& event) = 0;
    // `expired`: its time was over, as its leader found.
    virtual void on_lease_ended(LeaseId lease, bool expired) = 0;
  };
  // Before the first entry. Must outlive this.
  void add_observer(Observer& observer) { observers_.push_back(&observer); }

  // How far a watcher of all keys has come: to the end of a revision, or to some event of it.
  struct Place {
    int64_t revision = 1;  // that of an empty keyspace
    size_t events = 0;     // had of it
  };
  // The next event as the watcher got it; `place` is moved on. The watcher asked for everything after `place`.
  void note_event(const std::string& watcher, Place& place, int64_t revision, const Event& event);
  // A watcher was told that it must begin at this revision, since all before is compacted.
  void note_compacted(const std::string& watcher, Place& place, int64_t revision);

  // Of the whole history; at the end.
  [[nodiscard]] std::string judge(const std::vector<NodeOperation>& operations) const;
  // The key that a holder keeps on its lease.
  [[nodiscard]] static std::string leased_key(LeaseId lease);
  [[nodiscard]] uint64_t entries_applied() const { return digests_.size(); }
  [[nodiscard]] uint64_t leases_expired() const { return ended_.size(); }

 private:
  struct Trust {
    Instant sent{};
    Duration ttl{};
  };
  // What is durable, and what was handed over after it.
  struct Disk {
    Kept durable;
    std::deque<std::pair<WriteSequence, Kept>> written;
    Kept found;
    bool lost = false;  // less was found than was durable, under a certain identity
    Incarnation lost_identity;
  };
  void check_ended(LeaseId lease);
  void check_late(LeaseId lease, Instant now);

  const Options options_;
  std::vector<Observer*> observers_;
  std::string violation_;
  bool silent_loss_ = false;
  std::map<uint64_t, Disk> disks_;
  std::map<LogIndex, uint64_t> digests_;
  std::map<int64_t, std::vector<Event>> events_;  // by revision, all there ever were
  int64_t compacted_ = 0;
  std::map<std::string, int64_t> revision_of_;  // by value
  std::map<LeaseId, Trust> trust_;
  std::map<LeaseId, Trust> asked_;
  std::map<LeaseId, Instant> ended_;  // by expiry: when a server first applied it
};

}  // namespace conclave::sim
