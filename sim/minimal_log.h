// MinimalLog: a small and honest durable log for the simulated world, over env::Disk, until the real one comes. One
// file, laid out once, used as a ring of 512-byte sectors. What is written together is a batch: a head, a sector for
// each entry, and a tail. Head and tail are the same directory: the vote, the last position, the runs of terms, the
// snapshot's mark, commit and floors, as they stand after the batch. So everything but the entries' content stands
// twice in every batch.
//
// One batch is under way at a time; what is submitted meanwhile goes out with the next. So a batch attests all before
// it. While nothing follows, write_mark() does it.
//
// What recovery says, all of it from one look at every sector:
//  - The newest batch of which a sector is missing or half written, and none says otherwise, is torn: cut. It cannot
//    have been acknowledged.
//  - An entry that the directory names and no sound sector holds is a hole. Which sector holds it does not matter:
//    (index, term) names one entry of the whole cluster.
//  - Where the newest batch is there and its directory is damaged twice, what it said is uncertain.
//  - No directory at all: empty. A sound directory of another server or group: foreign.
//
// What no log on one disk can tell by itself: an acknowledged last batch of which the disk kept a sector's old content
// (kStaleSector, kLyingSync), and a directory rolled back as a whole. These look like a tear or like the past; floors
// are for that.
//
// All calls are synchronous; when they are durable is the disk's to say. One thread.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/entry.h"
#include "env/disk.h"
#include "raft/step.h"
#include "sim/log_sector.h"

namespace conclave::sim {

struct MinimalLogOptions {
  GroupId group;
  NodeId self;
  // Of the ring, a multiple of 256. Live entries may take a quarter.
  uint64_t sectors = 4096;
  // Terms that a directory on the disk names, the newest. Of holes below them the term is not known.
  size_t runs_max = 16;
};

// What a head says: everything durable but the content of entries.
struct LogDirectory {
  // The first index with this term or a later one up to the next run.
  struct Run {
    LogIndex first;
    Term term;
    friend bool operator==(const Run&, const Run&) = default;
  };
  Vote vote;
  SnapshotMark snapshot;
  LogIndex first;  // of the entries kept
  Position last;
  LogIndex commit;
  std::vector<Run> runs;  // ascending; on the disk only the newest
  std::vector<Floor> floors;

  // Zero where it is not known.
  [[nodiscard]] Term term_at(LogIndex index) const;
  [[nodiscard]] std::string encode(size_t bytes_max, size_t runs_max) const;
  [[nodiscard]] static Result<LogDirectory> decode(ByteView bytes);
};

class MinimalLog {
 public:
  struct Opened {
    std::unique_ptr<MinimalLog> log;
    Recovered recovered;
    // For people and tests.
    uint64_t damaged_sectors = 0;
    bool torn = false;
  };

  // The files of a new server that knows `vote` and `membership`; durable once the disk is done.
  static Status lay_out(env::Disk& disk, const MinimalLogOptions& options, const Vote& vote,
                        const Membership& membership);
  // `snapshots`: marks of the sound snapshot files there are, ascending. Syncs what it finds before it believes it, and
  // writes the boot's first batch. kForeign; any other error ends the process.
  static Result<Opened> open(env::Disk& disk, const MinimalLogOptions& options, Boot boot,
                             const std::vector<SnapshotMark>& snapshots);

  // Copies the write; it is durable once a batch that holds it is.
  void submit(const raft::Write& write, std::vector<Floor> floors);
  [[nodiscard]] bool has_submitted() const { return !submitted_.empty(); }
  // Writes all that was submitted as one batch and syncs; durable once the disk is done. Not before the last is.
  // The sequence up to which writes are then durable.
  Result<WriteSequence> write_batch();
  // A batch without content: attests the last.
  Status write_mark();

  // Looks at up to `count` sectors that hold entries, from where the last look ended. Indexes of those whose content is
  // gone; kCrashed or kIo as the disk says.
  Result<std::vector<LogIndex>> scrub(size_t count);

  static constexpr uint64_t kNowhere = UINT64_MAX;
  // The sector of the file that holds this entry, or kNowhere.
  [[nodiscard]] uint64_t sector_of(LogIndex index) const;

  // The sectors of the file that hold the newest directory, twice.
  [[nodiscard]] std::pair<uint64_t, uint64_t> directory_sectors() const {
    return {last_start_ % options_.sectors, (position_ - 1) % options_.sectors};
  }

  // As of the last batch written (durable or not).
  [[nodiscard]] const LogDirectory& directory() const { return directory_; }
  [[nodiscard]] uint64_t live_entries() const { return entries_.size(); }
  [[nodiscard]] bool is_nearly_full() const { return entries_.size() > options_.sectors / 4; }

 private:
  struct Kept {
    Entry entry;
    uint64_t position = kNowhere;  // of its sector
  };
  struct Submitted {
    WriteSequence sequence;
    std::optional<Vote> vote;
    std::vector<Entry> entries;
    std::vector<Entry> fills;
    std::optional<SnapshotMark> snapshot;
    bool discard_log = false;
    LogIndex keep_from;
    LogIndex commit;
    std::vector<Floor> floors;
  };
  struct Scan;

  MinimalLog(std::unique_ptr<env::File> file, const MinimalLogOptions& options, Boot boot)
      : file_(std::move(file)), options_(options), boot_(boot) {}

  static std::string blank_ring(const MinimalLogOptions& options);
  static Scan scan(env::File& file, const MinimalLogOptions& options);
  void recover(const Scan& scan, const std::vector<SnapshotMark>& snapshots, Opened& opened);
  void apply(Submitted& write, std::vector<size_t>& changed);
  void set_runs();
  Status write_entries(std::vector<size_t> slots);
  Status put_batch(const std::vector<size_t>& slots);

  std::unique_ptr<env::File> file_;
  MinimalLogOptions options_;
  Boot boot_;
  LogDirectory directory_;
  std::deque<Kept> entries_;  // from directory_.first on
  std::deque<Submitted> submitted_;
  uint64_t position_ = 0;    // of the next sector
  uint64_t last_start_ = 0;  // of the last batch
  uint64_t batch_ = 0;       // the next
  uint64_t previous_ = 0;
  uint64_t oldest_ = 0;  // no live sector is before it
  size_t scrubbed_ = 0;
};

}  // namespace conclave::sim
