// Snapshot files of one data directory. A file is written beside, synced, renamed, and its directory synced: under its
// name it is whole or damaged later, never half. Two of each group are kept, and the log back to the older one, so that
// a rotten newest snapshot costs nothing but time.
//
// Thread: one, the disk's. Nothing here is shared with Log; both may be used by the same thread in turns.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "env/disk.h"
#include "wal/snapshot_format.h"

namespace conclave::wal {

inline constexpr std::string_view kSnapshotDirectory = "snapshots";
inline constexpr size_t kSnapshotsKept = 2;
// Content looked at in one step where a whole file must be: some hundred microseconds, between two writes of the log.
inline constexpr size_t kSnapshotStepBytes = size_t{512} << 10;

// A file under its final name, by what the name says.
struct SnapshotName {
  GroupId group;
  Position last;
  friend auto operator<=>(const SnapshotName&, const SnapshotName&) = default;
};
[[nodiscard]] std::string snapshot_path(const SnapshotName& name);

// All of them by group and index. Removes nothing. Empty if there is no directory yet.
[[nodiscard]] Result<std::vector<SnapshotName>> list_snapshots(env::Disk& disk);
// At start, before any other: removes what a crash left (files that were being written; partial transfers stay) and
// makes the names that are there durable.
[[nodiscard]] Status remove_unfinished_snapshots(env::Disk& disk);
struct SnapshotSurvey;
// At start, behind the survey: of partial transfers those stay that may be gone on with, the newest of each group if it
// is of a later state than the group's newest good snapshot.
[[nodiscard]] Status remove_abandoned_transfers(env::Disk& disk, const SnapshotSurvey& survey);
// Of the group's snapshots up to `newest` all but the last kSnapshotsKept are removed. Returns the oldest kept: the log
// may be released up to there. Later ones stay: received and not installed yet, or of a log that was lost and is being
// caught up with. kNotFound if there is none up to `newest`.
[[nodiscard]] Result<SnapshotName> prune_snapshots(env::Disk& disk, GroupId group, LogIndex newest);

// Takes content in pieces of any size; memory is one block.
class SnapshotWriter {
 public:
  // kIo as for every write: after it nothing more may be acknowledged. kNoSpace: abandon() it, nothing was promised.
  [[nodiscard]] static Result<std::unique_ptr<SnapshotWriter>> begin(env::Disk& disk, const SnapshotHeader& header,
                                                                     bool compress);
  [[nodiscard]] Status append(ByteView content);
  // Durable under its name when this returns. Replaces a file of the same name.
  [[nodiscard]] Result<SnapshotName> finish();
  // Removes what was written.
  [[nodiscard]] Status abandon();
  [[nodiscard]] uint64_t content_bytes() const { return footer_.content_bytes; }
  [[nodiscard]] uint64_t file_bytes() const { return at_; }

 private:
  SnapshotWriter(env::Disk& disk, const SnapshotHeader& header, bool compress);
  Status write_block(ByteView content);
  Status write_out();

  env::Disk& disk_;
  SnapshotName name_;
  bool compress_;
  uint32_t seed_ = 0;
  std::unique_ptr<env::File> file_;
  std::string content_;
  std::string encoded_;
  uint64_t at_ = 0;
  SnapshotFooter footer_;
};

// Gives the content block by block, each checked before it is given.
class SnapshotReader {
 public:
  // kNotFound, kUnreadable, kMalformed, kVersion.
  [[nodiscard]] static Result<std::unique_ptr<SnapshotReader>> open(env::Disk& disk, const SnapshotName& name);
  // The same of any path, as inspection needs it; the name is not compared.
  [[nodiscard]] static Result<std::unique_ptr<SnapshotReader>> open_path(env::Disk& disk, std::string_view path);

  [[nodiscard]] const SnapshotHeader& header() const { return header_; }
  // The next block's content; false once all was given and the footer agrees. kMalformed and kUnreadable name the block
  // and its offset.
  [[nodiscard]] Result<bool> next(std::string& content);
  [[nodiscard]] uint64_t offset() const { return at_; }
  [[nodiscard]] uint64_t blocks() const { return footer_.blocks; }
  [[nodiscard]] uint64_t content_bytes() const { return footer_.content_bytes; }

 private:
  SnapshotReader() = default;
  Status read(uint64_t bytes, std::string& into);

  std::unique_ptr<env::File> file_;
  uint64_t size_ = 0;
  SnapshotHeader header_;
  uint32_t seed_ = 0;
  uint64_t at_ = 0;
  SnapshotFooter footer_;  // of what was read so far
  std::string bytes_;
};

// Reads a whole file. Nothing else says that a snapshot is good.
[[nodiscard]] Status verify_snapshot(env::Disk& disk, const SnapshotName& name);

// The good snapshots, by group and index; what is damaged is told and stays.
struct SnapshotSurvey {
  std::vector<SnapshotHeader> good;
  std::vector<std::pair<SnapshotName, Error>> damaged;
};
[[nodiscard]] Result<SnapshotSurvey> survey_snapshots(env::Disk& disk);

// The sending side of a transfer: pieces of one file as it lies. All blocks that a piece touches are checked before it
// leaves, so that no peer is given damage for ever. Any number of peers at any offsets, each paying for its own piece.
class SnapshotSender {
 public:
  // kNotFound, kUnreadable, kMalformed, kVersion.
  [[nodiscard]] static Result<std::unique_ptr<SnapshotSender>> open(env::Disk& disk, const SnapshotName& name);
  // Of the whole file.
  [[nodiscard]] uint64_t file_bytes() const { return size_; }
  // Learns from the blocks' headers where those up to `offset` begin, in steps: false if there is more to do. Once
  // learned it is known for all.
  [[nodiscard]] Result<bool> find(uint64_t offset);
  // `bytes_max` bytes from `offset`, fewer at the file's end, none behind it. Only where find() said true.
  [[nodiscard]] Result<std::string> read(uint64_t offset, size_t bytes_max);

 private:
  SnapshotSender() = default;

  std::unique_ptr<env::File> file_;
  uint64_t size_ = 0;
  uint32_t seed_ = 0;
  // Where each block begins, in order; at the last of these stands the first that was not looked at, or the footer. A
  // block is 64 KiB of content, so a GiB of them takes 128 KiB here.
  std::vector<uint64_t> begins_;
  bool footer_found_ = false;
};

// The receiving side of a transfer, resumed across restarts: the partial file says by its own checksums how far it is
// good. What takes a look at the whole file goes in steps of kSnapshotStepBytes. Life: begin, resume until it is true,
// append to the end, check until it is true, finish.
class SnapshotReceiver {
 public:
  // Begins anew or takes up what an earlier try left.
  [[nodiscard]] static Result<std::unique_ptr<SnapshotReceiver>> begin(env::Disk& disk, ClusterId cluster,
                                                                       const SnapshotName& name);
  // A step towards where the last good block of an earlier try ends; true once offset() is there.
  [[nodiscard]] Result<bool> resume();
  // Where the next chunk must begin. Only once resume() said true.
  [[nodiscard]] uint64_t offset() const { return at_; }
  // What is durable of it: what a sender may forget.
  [[nodiscard]] uint64_t durable_offset() const { return durable_; }
  // kOutOfRange: not the chunk that comes next; offset() tells which does. kNoSpace, kIo.
  [[nodiscard]] Status append(uint64_t offset, ByteView chunk);
  // A step of checking all of it; true once it is known as good. kMalformed, kForeign, kVersion, kUnreadable: it is
  // not what was asked for, or damaged, and was removed; begin again.
  [[nodiscard]] Result<bool> check();
  // Makes it durable under its name. Only once check() said true.
  [[nodiscard]] Result<SnapshotName> finish();
  // Removes what was received.
  [[nodiscard]] Status abandon();

 private:
  SnapshotReceiver(env::Disk& disk, ClusterId cluster, const SnapshotName& name)
      : disk_(disk), cluster_(cluster), name_(name) {}
  Status begin_check();

  env::Disk& disk_;
  ClusterId cluster_;
  SnapshotName name_;
  std::unique_ptr<env::File> file_;
  uint64_t at_ = 0;
  uint64_t durable_ = 0;
  bool resumed_ = false;
  bool checked_ = false;
  std::unique_ptr<SnapshotReader> reader_;  // of resume() or check() under way
};

}  // namespace conclave::wal
