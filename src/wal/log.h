// Log: the write-ahead log of one data directory, for all the groups of one server. Formats and rules:
// docs/internals/formats/log.md.
//
// Life: Log::open recovers what is there and begins a new segment; then write() makes batches durable, one after the
// other. After the first failed write every call fails with kIo: nothing may be acknowledged any more and the process
// must end. Thread: one, the disk's; it never sleeps and owns no thread. All memory of what is durable is in it; raft
// holds the entries themselves.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/entry.h"
#include "env/clock.h"
#include "env/disk.h"
#include "wal/batch.h"
#include "wal/batch_encoder.h"
#include "wal/entry_index.h"
#include "wal/group_state.h"
#include "wal/manifest.h"
#include "wal/replay.h"

namespace conclave::wal {

// A write of 64 KiB costs little more than one of 4 KiB here; beyond some hundred segments recovery and release are
// cheap either way. Large enough that rolling (some syncs) is rare, small enough that a spare is written in a tenth of
// a second.
inline constexpr uint64_t kSegmentBytesDefault = uint64_t{64} << 20;
// The smallest that holds a base and a batch; simulations use small ones to roll often.
inline constexpr uint64_t kSegmentBytesMin = uint64_t{16} << 10;

enum class WritePath : uint8_t {
  kProbe,     // measure both and take the faster; needs a clock
  kDirect,    // O_DIRECT | O_DSYNC on a recycled segment
  kBuffered,  // write and fdatasync on a recycled segment
};
[[nodiscard]] std::string_view to_string(WritePath path);

struct LogOptions {
  Owner owner;
  uint64_t segment_bytes = kSegmentBytesDefault;  // a multiple of kBlockBytes; of an existing log, its own counts
  // Segments kept ready that only urgent batches may use when the disk is full. Two: what frees space again (a
  // snapshot's mark, a release) must find room behind votes, keep-alives and deletes that have begun the first.
  uint32_t reserve_segments = 2;
  WritePath write_path = WritePath::kBuffered;  // becomes what was chosen
  env::Clock* clock = nullptr;                  // for the probe only
  // All good snapshots, as their files tell: a hole at or below one that the log has passed is none.
  std::vector<GoodSnapshot> snapshots;
};

struct Recovery {
  bool created = false;  // there was nothing: groups are empty and may vote nowhere but in a new cluster
  bool unknown_groups =
      false;  // groups may be missing from the list altogether: treat an unlisted one as kVoteUncertain
  std::vector<Recovered> groups;  // by id
  std::vector<Hole> holes;        // by group and index
  std::vector<Finding> findings;  // for people
  bool torn_tail = false;         // a write that did not complete was left out
  uint64_t segments = 0;
  uint64_t batches = 0;
  uint64_t records = 0;
  uint64_t bytes = 0;
  std::string write_path;  // which one and why, for the server's log
};

struct Space {
  uint64_t live_bytes = 0;   // of segments that hold something needed, whole files
  uint64_t spare_bytes = 0;  // ready to be used
  uint32_t live_segments = 0;
  uint32_t spare_segments = 0;
  bool full = false;  // the last try to make a segment found no space: normal batches are refused at a segment's end
};

class Log {
 public:
  struct Opened {
    std::unique_ptr<Log> log;
    Recovery recovery;
  };
  // Takes the directory's lock. kLocked: another process has it. kForeign: of another cluster or server. kUnreadable:
  // both copies of the manifest are lost though segments are there; kMalformed: more is lost than can be told: the
  // directory is of no more use, discard() it and be re-admitted. kVersion, kIo, kNoSpace.
  [[nodiscard]] static Result<Opened> open(env::Disk& disk, LogOptions options);
  // Removes every file of the log: a server that is to begin again empty, as one that may not vote. `disk` must not be
  // open elsewhere.
  [[nodiscard]] static Status discard(env::Disk& disk);

  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  // All of the batch is durable when this returns; in one write unless a segment must be begun first. kNoSpace: nothing
  // was written, try again later. kInvalidArgument: it fits in no segment, nothing was written. kIo: see above.
  [[nodiscard]] Status write(const Batch& batch);
  // Attests the last batch, if nothing does yet. Called when nothing was written for 20 ms.
  [[nodiscard]] Status idle_mark();
  // True if an idle mark would do something.
  [[nodiscard]] bool wants_idle_mark() const { return !attested_ && !failed_; }

  // One bounded step (a MiB of zeros at most) towards having spare segments ready, and taking back released ones. True
  // if there is more to do. Called between writes when there is time. kNoSpace is not an error here but space().full.
  [[nodiscard]] Result<bool> maintain();

  // Entries from..to of the group, as far as they stand contiguous and fit in bytes_max; at least one. kOutOfRange: not
  // in the log. kUnreadable: damaged since; a hole now.
  [[nodiscard]] Result<std::vector<Entry>> read(GroupId group, LogIndex from, LogIndex to, uint64_t bytes_max);

  [[nodiscard]] Space space() const;
  // As space().full, for asking after every write.
  [[nodiscard]] bool full() const { return full_; }
  // What the log knows of a group; null if nothing.
  [[nodiscard]] const GroupState* state(GroupId group) const;
  // The group whose entries keep the oldest segment from being reused: the one to take a snapshot of when space is
  // short.
  [[nodiscard]] std::optional<GroupId> oldest_group() const;
  [[nodiscard]] uint64_t segment_bytes() const { return manifest_.segment_bytes; }
  [[nodiscard]] bool failed() const { return failed_; }

 private:
  struct Group {
    GroupState state;
    EntryIndex index;
  };
  // A spare segment being written with zeros.
  struct Preparation {
    std::unique_ptr<env::File> file;
    uint32_t slot = 0;
    uint64_t written = 0;
  };

  Log(env::Disk& disk, LogOptions options);

  // open.cc
  Status recover(Recovery& recovery);
  Status make_durable_what_was_read(ManifestOrder order);
  Status scan_all(Replay& replay, ScanResult& newest, Recovery& recovery);
  Status find_spares(bool& manifest_lost, uint64_t& highest_number);
  Status start_empty(Recovery& recovery);
  Status begin_after_recovery(Replay& replay, const ScanResult& newest);
  Status choose_write_path(Recovery& recovery);

  // log.cc
  Status fail_for_good(Error error);
  Status settle(Status status);
  Status write_idle_mark();
  Status write_operations(std::span<const Operation> operations, Urgency urgency, bool idle);
  void begin_head(bool idle);
  void account(const BatchPlace& place);
  Result<std::unique_ptr<env::File>> open_for_writing(uint32_t slot);
  Status roll(Urgency urgency);
  std::vector<uint32_t> drop_released(Manifest& manifest, bool newest_has_base) const;
  Status release_now();
  Status take_back(std::span<const uint32_t> slots);
  Status commit_manifest(Manifest manifest);
  Status prepare_step(uint64_t bytes_max);
  Status prepare_whole();
  Status begin_segment(uint32_t slot);

  env::Disk& disk_;
  LogOptions options_;
  uint32_t seed_ = 0;
  std::unique_ptr<env::DirectoryLock> lock_;
  Manifest manifest_;
  std::vector<uint32_t> spares_;
  Preparation preparation_;
  uint32_t next_slot_ = 1;
  bool full_ = false;

  std::unique_ptr<env::File> file_;  // of the newest segment
  uint32_t at_sector_ = 0;           // where its next batch goes
  uint64_t next_number_ = 1;
  uint64_t previous_number_ = 0;
  bool attested_ = true;     // nothing, an idle mark or a sealing stands behind the last batch that carried something
  uint64_t sound_from_ = 0;  // segments from this use on have a base that was seen or written whole
  bool failed_ = false;
  std::string failure_;

  std::map<GroupId, Group> groups_;
  std::vector<GroupId> touched_;  // by the batch before
  std::vector<const GroupState*> directory_;
  BatchEncoder encoder_;
  Head head_;

  // Reading of old entries.
  std::unique_ptr<env::File> read_file_;
  uint64_t read_sequence_ = 0;
};

}  // namespace conclave::wal
