// Storage: everything a server does on its disk, for all its replicas: the log, snapshot files, transfers. Jobs go in,
// results come out, values both. Writes of the log go first and together (group commit); snapshot work is cut into
// pieces that delay a write by about a millisecond. What takes many pieces (loading a state, looking through a whole
// file) is a task: tasks go on in turns, and other jobs are done between their pieces.
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
#include "keyspace/snapshot.h"
#include "wal/gauges.h"
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
// What waits of this group for space may use the log's reserve.
struct UseReserveJob {
  GroupId group;
};
using StorageJob = std::variant<PersistJob, SnapshotBeginJob, SnapshotContentJob, SnapshotAbandonJob, ChunkReadJob,
                                ChunkStoreJob, LoadJob, UseReserveJob>;

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
// The log has begun, or ceased, to find no space for another segment (wal::Space::full).
struct SpaceChanged {
  GroupId group;  // zero: all of the server's
  bool full = false;
};
using StorageResult = std::variant<Persisted, SnapshotContentTaken, SnapshotStored, SnapshotNotStored, ChunkRead,
                                   ChunkStored, StateLoaded, SpaceChanged>;

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
  [[nodiscard]] bool has_work() const { return !queue_.empty() || has_pieces(); }
  // Work that is no write: it goes on while writes wait for space, and may be what makes some.
  [[nodiscard]] bool has_pieces() const { return !others_.empty() || !tasks_.empty(); }
  // Upkeep for when there is no work: the idle mark if nothing was written for 20 ms, spare segments. Appends what
  // there is to tell. True if there is more to do at once.
  [[nodiscard]] Result<bool> idle(bool quiet, std::vector<StorageResult>& results);
  [[nodiscard]] bool wants_idle_mark() const { return log_->wants_idle_mark(); }
  // While the disk is full: idle() is to be called again after this, to see that there is space. Nothing else may come
  // of itself: what a leader refuses for want of space is no work here. Ever more rarely, since a disk with a quota
  // does not say that it is full before most of a segment was written.
  [[nodiscard]] std::optional<Duration> space_retry() const {
    return log_->full() ? std::optional(space_retry_) : std::nullopt;
  }

  [[nodiscard]] wal::Space space() const { return log_->space(); }
  // These two may be read by other threads.
  [[nodiscard]] const wal::WriteGauge& gauge() const { return gauge_; }
  [[nodiscard]] const wal::SpaceGauge& space_gauge() const { return space_gauge_; }

 private:
  Storage(env::Disk& disk, env::Clock& clock, const StorageOptions& options)
      : disk_(disk), clock_(clock), options_(options) {}

  struct Writing {
    SnapshotMark mark;
    std::unique_ptr<wal::SnapshotWriter> writer;
  };
  struct Sending {
    GroupId group;
    SnapshotMark mark;
    std::unique_ptr<wal::SnapshotSender> sender;
  };
  struct Receiving {
    SnapshotMark mark;
    std::unique_ptr<wal::SnapshotReceiver> receiver;
  };

  // ---- Tasks: what takes more than one piece ----

  // A state being read into a keyspace. One of a group at a time: a later one takes the place of an earlier.
  struct Load {
    GroupId group;
    SnapshotMark mark;
    std::unique_ptr<wal::SnapshotReader> reader;
    std::unique_ptr<keyspace::Keyspace> keyspace;
    std::unique_ptr<keyspace::SnapshotLoader> loader;
  };
  // A chunk to be read whose place in the file is being looked for.
  struct Seek {
    ChunkReadJob job;
  };
  // A chunk that came while it is being looked at what an earlier try left. One of a group and mark at a time.
  struct Resume {
    ChunkStoreJob job;
  };
  // A file that came whole and is being checked. One of a group and mark at a time.
  struct Check {
    GroupId group;
    NodeId from;
    SnapshotMark mark;
    std::unique_ptr<wal::SnapshotReceiver> receiver;
  };
  using Task = std::variant<Load, Seek, Resume, Check>;

  static Result<Opened> try_open(env::Disk& disk, env::Clock& clock, const StorageOptions& options);
  Status restore(Recovered&& recovered, const wal::GroupState& log, const wal::SnapshotSurvey& survey,
                 std::map<GroupId, FoundReplica>& replicas) const;
  [[nodiscard]] Result<Load> begin_load(GroupId group, const SnapshotMark& mark) const;
  // A piece of it; true once the keyspace holds all.
  [[nodiscard]] static Result<bool> go_on(Load& load);

  Status run(const SnapshotBeginJob& job, std::vector<StorageResult>& results);
  Status run(const SnapshotContentJob& job, std::vector<StorageResult>& results);
  Status run(const SnapshotAbandonJob& job, std::vector<StorageResult>& results);
  Status run(const ChunkReadJob& job, std::vector<StorageResult>& results);
  Status run(const ChunkStoreJob& job, std::vector<StorageResult>& results);
  Status run(const LoadJob& job, std::vector<StorageResult>& results);
  // Done as they are added.
  Status run(const PersistJob&, std::vector<StorageResult>&) { return {}; }
  Status run(const UseReserveJob&, std::vector<StorageResult>&) { return {}; }
  // A piece; true once the task is over.
  [[nodiscard]] Result<bool> step(Load& task, std::vector<StorageResult>& results);
  [[nodiscard]] Result<bool> step(Seek& task, std::vector<StorageResult>& results);
  [[nodiscard]] Result<bool> step(Resume& task, std::vector<StorageResult>& results);
  [[nodiscard]] Result<bool> step(Check& task, std::vector<StorageResult>& results);
  Status run_piece(std::vector<StorageResult>& results);
  [[nodiscard]] bool is_under_way(GroupId group, const SnapshotMark& mark) const;
  [[nodiscard]] Result<Sending*> sending(GroupId group, const SnapshotMark& mark);
  // True once the chunk was read, or cannot be.
  [[nodiscard]] bool read_chunk(const ChunkReadJob& job, std::vector<StorageResult>& results);
  Status store_chunk(const ChunkStoreJob& job, std::vector<StorageResult>& results);
  Status no_space_for_snapshot(GroupId group, std::vector<StorageResult>& results);
  void tell_space(std::vector<StorageResult>& results);

  env::Disk& disk_;
  env::Clock& clock_;
  StorageOptions options_;
  std::unique_ptr<wal::Log> log_;
  wal::Queue queue_;
  wal::WriteGauge gauge_;
  wal::SpaceGauge space_gauge_;
  bool told_full_ = false;
  Duration space_retry_{};  // set by idle()
  std::vector<wal::Ticket> tickets_;
  std::deque<StorageJob> others_;
  std::deque<Task> tasks_;
  bool task_is_next_ = false;
  std::map<GroupId, Writing> writing_;
  std::deque<Sending> sending_;  // at most kSendingMax, the newest last
  std::map<GroupId, Receiving> receiving_;
};

}  // namespace conclave::node
