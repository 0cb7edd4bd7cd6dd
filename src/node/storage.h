// Storage: everything a server does on its disk, for all its replicas: the log, snapshot files, transfers. Jobs go in,
// results come out, values both. Writes of the log go first and together (group commit); snapshot work is cut into
// pieces that delay a write by about a millisecond.
//
// Life: Storage::open recovers; then work() by the disk's one thread, in the server a thread of its own, in simulation
// the world. After an error of work() nothing more is acknowledged and the process must end.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/entry.h"
#include "base/error.h"
#include "env/clock.h"
#include "env/disk.h"
#include "keyspace/keyspace.h"
#include "wal/inspect.h"
#include "wal/log.h"
#include "wal/queue.h"
#include "wal/snapshot.h"

namespace conclave::node {

// ---- Jobs ----

// Make durable, in order of sequence.
struct PersistJob {
  GroupId group;
  WriteSequence sequence;
  wal::Batch batch;
};
// A snapshot of our own state: begun, given its content in pieces, then ended. One of a group at a time.
struct SnapshotBeginJob {
  GroupId group;
  SnapshotMark mark;
};
struct SnapshotContentJob {
  GroupId group;
  std::string content;
  bool last = false;
};
// What is being written is of no use any more.
struct SnapshotAbandonJob {
  GroupId group;
};
// Bytes of a snapshot file for a peer. `message` is handed back.
struct ChunkReadJob {
  GroupId group;
  SnapshotMark mark;
  uint64_t offset = 0;
  uint64_t message = 0;
};
// A peer's chunk of a snapshot.
struct ChunkStoreJob {
  GroupId group;
  NodeId from;
  SnapshotMark mark;
  uint64_t offset = 0;
  uint64_t total = 0;
  std::string bytes;
};
// Read the snapshot into a new keyspace.
struct LoadJob {
  GroupId group;
  SnapshotMark mark;
};
using StorageJob = std::variant<PersistJob, SnapshotBeginJob, SnapshotContentJob, SnapshotAbandonJob, ChunkReadJob,
                                ChunkStoreJob, LoadJob>;

// ---- Results ----

struct Persisted {
  GroupId group;
  WriteSequence sequence;  // this and all before it are durable
};
struct SnapshotContentTaken {
  GroupId group;
  size_t bytes = 0;
};
struct SnapshotStored {
  GroupId group;
  SnapshotMark mark;
  LogIndex keep_from;  // entries before it are covered by the older of the two snapshots kept
  uint64_t file_bytes = 0;
};
// For want of space: nothing is lost, another is taken later.
struct SnapshotNotStored {
  GroupId group;
};
struct ChunkRead {
  GroupId group;
  SnapshotMark mark;
  uint64_t message = 0;
  bool found = false;  // otherwise the file is gone or damaged
  std::string bytes;
  uint64_t total = 0;
};
struct ChunkStored {
  GroupId group;
  NodeId from;
  SnapshotMark mark;
  uint64_t offset = 0;    // what is there of it
  bool complete = false;  // whole, checked and durable under its name
};
struct StateLoaded {
  GroupId group;
  SnapshotMark mark;
  std::unique_ptr<keyspace::Keyspace> keyspace;
};
using StorageResult = std::variant<Persisted, SnapshotContentTaken, SnapshotStored, SnapshotNotStored, ChunkRead,
                                   ChunkStored, StateLoaded>;

[[nodiscard]] GroupId group_of(const StorageResult& result);

struct StorageOptions {
  wal::Owner owner;
  uint64_t segment_bytes = wal::kSegmentBytesDefault;
  wal::WritePath write_path = wal::WritePath::kBuffered;
  size_t chunk_bytes = size_t{256} << 10;  // of a snapshot sent
  bool compress_snapshots = true;
};

// A replica as found on the disk.
struct FoundReplica {
  Recovered recovered;
  std::unique_ptr<keyspace::Keyspace> keyspace;  // the state of recovered.snapshot
};

class Storage {
 public:
  struct Opened {
    std::unique_ptr<Storage> storage;
    wal::Recovery recovery;  // its groups are moved to `replicas`
    std::map<GroupId, FoundReplica> replicas;
    bool discarded =
        false;  // the log or the state was beyond use: the directory begins anew, as one that lost its disk
    std::string discard_reason;
  };
  // Recovers the log and loads each replica's newest good snapshot. kLocked, kForeign, kVersion, kIo, kNoSpace.
  [[nodiscard]] static Result<Opened> open(env::Disk& disk, env::Clock& clock, const StorageOptions& options);
  // The same of a directory that is only looked at: nothing is written, no storage is there to go on with.
  struct Seen {
    wal::LogContent log;  // its groups are moved to `replicas`
    std::map<GroupId, FoundReplica> replicas;
  };
  [[nodiscard]] static Result<Seen> look(env::Disk& disk, env::Clock& clock, ClusterId cluster);
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  // What a member of a new cluster begins with: the first membership as the committed entry 1 of term 1, and the right
  // to vote in it. The same on every member, so that nothing has to be agreed (docs/internals/architecture.md).
  [[nodiscard]] static wal::Batch bootstrap_batch(GroupId group, NodeId self, const Membership& membership);
  // The same as recovered.
  [[nodiscard]] static Recovered bootstrap_state(GroupId group, NodeId self, const Membership& membership);

  void add(StorageJob job);
  // Does all writes that wait, and then one piece of other work; appends what is done. kNoSpace: some writes wait for
  // space, call again later. Any other error: the process must end.
  [[nodiscard]] Status work(std::vector<StorageResult>& results);
  [[nodiscard]] bool has_work() const { return !queue_.empty() || !others_.empty(); }
  // Upkeep for when there is no work: the idle mark if nothing was written for 20 ms, spare segments. True if there is
  // more to do at once.
  [[nodiscard]] Result<bool> idle(bool quiet);
  [[nodiscard]] bool wants_idle_mark() const { return log_->wants_idle_mark(); }

  [[nodiscard]] wal::Space space() const { return log_->space(); }
  [[nodiscard]] const wal::WriteGauge& gauge() const { return gauge_; }

 private:
  Storage(env::Disk& disk, env::Clock& clock, const StorageOptions& options)
      : disk_(disk), clock_(clock), options_(options) {}

  static Result<Opened> try_open(env::Disk& disk, env::Clock& clock, const StorageOptions& options);
  Status restore(Recovered&& recovered, std::map<GroupId, FoundReplica>& replicas) const;
  [[nodiscard]] Result<std::unique_ptr<keyspace::Keyspace>> load(GroupId group, const SnapshotMark& mark) const;

  Status run(const SnapshotBeginJob& job, std::vector<StorageResult>& results);
  Status run(const SnapshotContentJob& job, std::vector<StorageResult>& results);
  Status run(const SnapshotAbandonJob& job, std::vector<StorageResult>& results);
  Status run(const ChunkReadJob& job, std::vector<StorageResult>& results);
  Status run(const ChunkStoreJob& job, std::vector<StorageResult>& results);
  Status run(const LoadJob& job, std::vector<StorageResult>& results);
  Status run(const PersistJob&, std::vector<StorageResult>&) { return {}; }
  [[nodiscard]] Result<std::string> read_chunk(const ChunkReadJob& job, uint64_t& total);
  Status no_space_for_snapshot(GroupId group, std::vector<StorageResult>& results);

  struct Writing {
    SnapshotMark mark;
    std::unique_ptr<wal::SnapshotWriter> writer;
  };
  // A snapshot being sent: checked up to where it was read, so that no peer is given damage for ever.
  struct Sending {
    SnapshotMark mark;
    std::unique_ptr<wal::SnapshotReader> checked;
    bool whole = false;
  };
  struct Receiving {
    SnapshotMark mark;
    std::unique_ptr<wal::SnapshotReceiver> receiver;
  };

  env::Disk& disk_;
  env::Clock& clock_;
  StorageOptions options_;
  std::unique_ptr<wal::Log> log_;
  wal::Queue queue_;
  wal::WriteGauge gauge_;
  std::vector<wal::Ticket> tickets_;
  std::deque<StorageJob> others_;
  std::map<GroupId, Writing> writing_;
  std::map<GroupId, Sending> sending_;
  std::map<GroupId, Receiving> receiving_;
};

}  // namespace conclave::node
