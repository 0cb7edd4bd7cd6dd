// The world failing under the log: full disks, failed writes, verdicts that must outlive a restart.
#include <gtest/gtest.h>

#include "sim/trace_disk.h"
#include "tests/wal/model.h"
#include "wal/log.h"
#include "wal/manifest.h"
#include "wal/queue.h"
#include "wal/record.h"
#include "wal/replay.h"

namespace conclave::wal {
namespace {

using sim::TraceDisk;
using sim::TraceImage;

const Owner kOwner{.cluster = ClusterId(7), .node = NodeId(3)};
const GroupId kGroup(1);
constexpr uint64_t kSegmentBytes = uint64_t{32} << 10;

LogOptions options() {
  return {.owner = kOwner, .segment_bytes = kSegmentBytes};
}

Entry command(uint64_t index, uint64_t term, size_t bytes) {
  return {.index = LogIndex(index),
          .term = Term(term),
          .type = EntryType::kCommand,
          .payload = SharedBytes::copy_of(std::string(bytes, static_cast<char>('a' + index % 26)))};
}

TEST(Faults, AfterAFailedWriteNothingIsTakenEver) {
  // Every storage call of a life fails once, in turn.
  for (uint64_t failing = 0;; ++failing) {
    TraceDisk disk;
    auto opened = Log::open(disk, options()).value();
    disk.fail_after(failing, ErrorCode::kIo);
    Model acknowledged;
    Model next;
    History history(5, {.groups = 2});
    Batch batch;
    bool failed = false;
    for (int i = 0; i < 30; ++i) {
      history.next(batch, next);
      const Status written = opened.log->write(batch);
      if (failed) {
        ASSERT_FALSE(written) << "acknowledged after a failure";
        ASSERT_EQ(written.error().code, ErrorCode::kIo);
        continue;
      }
      if (written) {
        acknowledged = next;
        continue;
      }
      failed = true;
      EXPECT_TRUE(opened.log->failed());
      EXPECT_EQ(opened.log->idle_mark().error().code, ErrorCode::kIo);
      EXPECT_EQ(opened.log->maintain().error().code, ErrorCode::kIo);
    }
    if (!failed) {
      EXPECT_GT(failing, 30U);
      return;
    }
    // What was acknowledged before is there, whatever the failed call left.
    std::vector<bool> kept(disk.unsynced());
    TraceDisk after(disk.crash(kept));
    const auto again = Log::open(after, options());
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(difference(acknowledged, as_model(again->recovery)), "") << "call " << failing;
  }
}

TEST(Faults, AFullDiskRefusesAndRecoversByItself) {
  TraceDisk disk;
  auto opened = Log::open(disk, options()).value();
  Log& log = *opened.log;
  while (log.maintain().value()) {
  }
  const uint64_t had = log.space().live_segments + log.space().spare_segments;
  disk.set_capacity(0);
  Batch batch;
  uint64_t index = 0;
  Status written;
  while (written) {
    batch.clear();
    batch.append(kGroup, command(++index, 1, 2000));
    written = log.write(batch);
    ASSERT_LT(index, 1000U);
  }
  EXPECT_EQ(written.error().code, ErrorCode::kNoSpace);
  EXPECT_FALSE(log.failed());
  EXPECT_TRUE(log.space().full);
  EXPECT_EQ(log.space().spare_segments, 2U) << "the reserve";
  EXPECT_EQ(log.state(kGroup)->last.index, LogIndex(index - 1)) << "nothing of the refused batch";
  // Votes and releases go on out of the reserve.
  batch.clear();
  batch.vote(kGroup, {.term = Term(9), .candidate = NodeId(3), .incarnation = Incarnation(1)});
  batch.set_urgency(Urgency::kUrgent);
  ASSERT_TRUE(log.write(batch));
  batch.clear();
  batch.append(kGroup, command(index, 1, 10));
  batch.set_urgency(Urgency::kUrgent);
  ASSERT_TRUE(log.write(batch));
  EXPECT_EQ(log.oldest_group(), kGroup);
  batch.clear();
  batch.release(kGroup, LogIndex(index - 1));
  batch.set_urgency(Urgency::kUrgent);
  ASSERT_TRUE(log.write(batch));
  // The released segments serve again, and nothing more of the disk is needed.
  while (log.maintain().value()) {
  }
  for (int i = 0; i < 100; ++i) {
    batch.clear();
    batch.append(kGroup, command(++index, 9, 2000));
    batch.release(kGroup, LogIndex(index - 1));
    const Status again = log.write(batch);
    ASSERT_TRUE(again) << again.error().message;
  }
  EXPECT_LE(log.space().live_segments + log.space().spare_segments, had);
}

// A file system that needs space to give some back: it copies on write.
class NoSpaceToRemove final : public env::Disk {
 public:
  explicit NoSpaceToRemove(TraceDisk& disk) : disk_(disk) {}
  bool full = false;
  uint64_t refused = 0;

  Result<std::unique_ptr<env::File>> open(std::string_view path, env::OpenOptions options) override {
    return disk_.open(path, options);
  }
  Status rename(std::string_view from, std::string_view to) override { return disk_.rename(from, to); }
  Status remove(std::string_view path) override {
    if (!full) return disk_.remove(path);
    ++refused;
    return fail(ErrorCode::kNoSpace, "remove {}: no space", path);
  }
  Status create_directory(std::string_view path) override { return disk_.create_directory(path); }
  Status sync_directory(std::string_view path) override { return disk_.sync_directory(path); }
  Result<std::vector<std::string>> list(std::string_view path) override { return disk_.list(path); }
  Result<std::unique_ptr<env::DirectoryLock>> lock() override { return disk_.lock(); }
  Result<uint64_t> free_bytes() override { return full ? Result<uint64_t>(0) : disk_.free_bytes(); }

 private:
  TraceDisk& disk_;
};

// (1) A batch makes the log roll, which releases more segments than are kept as spares: the rest is removed; (2) a
// removal finds no space; (3) smaller batches follow, which the segment before would still have held.
TEST(Faults, NoSpaceInTheMiddleOfARollLosesNothing) {
  TraceDisk memory;
  NoSpaceToRemove disk(memory);
  auto opened = Log::open(disk, options()).value();
  Log& log = *opened.log;
  Model acknowledged;
  Batch batch;
  uint64_t index = 0;
  const auto write = [&](size_t bytes) {
    const Entry entry = command(index + 1, 1, bytes);
    batch.clear();
    batch.append(kGroup, entry);
    const Status written = log.write(batch);
    if (!written) return written;
    ++index;
    acknowledged.append(kGroup, entry);
    return written;
  };
  while (log.space().live_segments < 10) ASSERT_TRUE(write(2000));
  while (log.maintain().value()) {
  }
  batch.clear();
  batch.release(kGroup, LogIndex(index - 1));
  ASSERT_TRUE(log.write(batch));
  acknowledged.release(kGroup, LogIndex(index - 1));
  disk.full = true;
  for (int i = 0; i < 60; ++i) {
    // A refusal is no failure; what is taken is.
    const Status written = write(i % 2 == 0 ? 3000 : 10);
    ASSERT_TRUE(written || written.error().code == ErrorCode::kNoSpace) << written.error().message;
  }
  EXPECT_GT(disk.refused, 0U);
  EXPECT_FALSE(log.failed());
  opened = {};
  const auto again = Log::open(memory, options());
  ASSERT_TRUE(again) << again.error().message;
  Model found = as_model(again->recovery);
  found.groups[kGroup.value()].released = acknowledged.groups[kGroup.value()].released;
  EXPECT_EQ(difference(acknowledged, found), "");
}

// A disk whose last batch was whole on the disk and then rotted in its body, before anything attested it.
TraceImage with_rotten_last_batch() {
  TraceDisk disk;
  {
    auto opened = Log::open(disk, options()).value();
    Batch batch;
    batch.vote(kGroup, {.term = Term(1), .candidate = NodeId(3), .incarnation = Incarnation(1)});
    batch.append(kGroup, command(1, 1, 100));
    EXPECT_TRUE(opened.log->write(batch));
    batch.clear();
    batch.append(kGroup, command(2, 1, 1500));
    EXPECT_TRUE(opened.log->write(batch));
  }
  TraceImage image = disk.current();
  // The second batch begins at the second block; its body reaches into the third sector.
  image.files["wal/segment-00000001"][kBlockBytes + 2 * kSectorBytes + 100] ^= 1;
  return image;
}

TEST(Faults, AnUncertainEndStaysUncertainUntilALaterIncarnation) {
  TraceDisk disk(with_rotten_last_batch());
  for (int restart = 0; restart < 3; ++restart) {
    auto opened = Log::open(disk, options()).value();
    const Recovered& group = opened.recovery.groups.at(0);
    EXPECT_EQ(group.certainty, Certainty::kLastUncertain) << restart;
    EXPECT_EQ(group.last.index, LogIndex(2));
    ASSERT_EQ(opened.recovery.holes.size(), 1U);
    EXPECT_EQ(opened.recovery.holes[0].index, LogIndex(2));
    EXPECT_EQ(opened.recovery.holes[0].term, Term(1));
    EXPECT_TRUE(opened.recovery.holes[0].payload_checksum) << "its header was readable";
    // Something is written in the second life: then the base carries it.
    if (restart == 1) {
      Batch batch;
      batch.vote(kGroup, {.term = Term(2)});
      ASSERT_TRUE(opened.log->write(batch));
    }
  }
  {
    auto opened = Log::open(disk, options()).value();
    Batch batch;
    batch.fill(kGroup, command(2, 1, 1500));
    batch.vote(kGroup, {.term = Term(2), .incarnation = Incarnation(2)});
    ASSERT_TRUE(opened.log->write(batch));
  }
  const auto opened = Log::open(disk, options()).value();
  EXPECT_EQ(opened.recovery.groups.at(0).certainty, Certainty::kCertain);
  EXPECT_TRUE(opened.recovery.holes.empty());
  EXPECT_EQ(opened.recovery.groups.at(0).entries.at(1), command(2, 1, 1500));
}

TEST(Faults, AnIdleMarkMakesTheSameDamageAHole) {
  TraceImage image = with_rotten_last_batch();
  image.files["wal/segment-00000001"][kBlockBytes + 2 * kSectorBytes + 100] ^= 1;  // whole again
  TraceDisk disk(image);
  {
    auto opened = Log::open(disk, options()).value();
    Batch batch;
    batch.append(kGroup, command(3, 1, 1500));
    ASSERT_TRUE(opened.log->write(batch));
    EXPECT_TRUE(opened.log->wants_idle_mark());
    ASSERT_TRUE(opened.log->idle_mark());
    EXPECT_FALSE(opened.log->wants_idle_mark());
  }
  TraceImage rotten = disk.current();
  const Manifest manifest = decode_manifest(rotten.files["wal/manifest-a"]).value();
  rotten.files[segment_path(manifest.segments.back().slot)][2 * kSectorBytes + 100] ^= 1;
  TraceDisk again(rotten);
  const auto opened = Log::open(again, options()).value();
  EXPECT_EQ(opened.recovery.groups.at(0).certainty, Certainty::kCertain);
  ASSERT_EQ(opened.recovery.holes.size(), 1U);
  EXPECT_EQ(opened.recovery.holes[0].index, LogIndex(3));
}

TEST(Faults, AFilledHoleKeepsWhatStandsBehindIt) {
  TraceDisk disk;
  {
    auto opened = Log::open(disk, options()).value();
    for (uint64_t i = 1; i <= 4; ++i) {
      Batch batch;
      batch.append(kGroup, command(i, 1, 1500));
      ASSERT_TRUE(opened.log->write(batch));
    }
  }
  TraceImage rotten = disk.current();
  rotten.files["wal/segment-00000001"][kBlockBytes + 2 * kSectorBytes + 100] ^= 1;
  TraceDisk again(rotten);
  {
    auto opened = Log::open(again, options()).value();
    ASSERT_EQ(opened.recovery.holes.size(), 1U);
    ASSERT_EQ(opened.recovery.holes[0].index, LogIndex(2));
    EXPECT_EQ(opened.log->read(kGroup, LogIndex(2), LogIndex(2), 1).error().code, ErrorCode::kUnreadable);
    Batch batch;
    batch.fill(kGroup, command(2, 1, 1500));
    ASSERT_TRUE(opened.log->write(batch));
    EXPECT_EQ(opened.log->read(kGroup, LogIndex(1), LogIndex(4), 1U << 20)->size(), 4U);
  }
  const auto opened = Log::open(again, options()).value();
  EXPECT_TRUE(opened.recovery.holes.empty());
  ASSERT_EQ(opened.recovery.groups.at(0).entries.size(), 4U);
  for (uint64_t i = 1; i <= 4; ++i) EXPECT_EQ(opened.recovery.groups.at(0).entries[i - 1], command(i, 1, 1500));
}

TEST(Faults, AHoleThatAGoodSnapshotCoversIsNone) {
  TraceDisk disk(with_rotten_last_batch());
  LogOptions with_snapshot = options();
  with_snapshot.snapshots = {{.group = kGroup, .last = {.term = Term(1), .index = LogIndex(2)}}};
  const auto opened = Log::open(disk, with_snapshot).value();
  EXPECT_TRUE(opened.recovery.holes.empty());
  EXPECT_TRUE(opened.recovery.groups.at(0).entries.empty());
  EXPECT_EQ(opened.recovery.groups.at(0).last.index, LogIndex(2));
}

TEST(Faults, MoreLostEntriesThanLostBytesCouldHoldAreNotBelieved) {
  // One block is lost; the batch behind it tells of a group's last index.
  const auto tell = [](uint64_t last) {
    Replay replay;
    replay.begin_segment({.use = {.seed = 1, .slot = 1, .first_number = 1, .end_number = 9}, .sequence = 1}, {}, false);
    replay.on_gap(0, kSectorsPerBlock);
    Head head{.full = true, .number = 2, .start_sector = kSectorsPerBlock, .sectors = kSectorsPerBlock};
    GroupState told;
    told.group = kGroup;
    told.last = {.term = Term(1), .index = LogIndex(last)};
    told.terms = {{.first = LogIndex(1), .term = Term(1)}};
    head.directory.push_back(told);
    BatchBody body;
    replay.on_batch(head, body, BatchVerdict::kWhole);
    replay.finish({}, false);
    return replay.status() ? replay.groups()[kGroup].holes.size() : SIZE_MAX;
  };
  constexpr uint64_t kMost = kBlockBytes / kRecordHeaderBytes;
  EXPECT_EQ(tell(kMost), kMost);
  EXPECT_EQ(tell(kMost + 1), SIZE_MAX);
  EXPECT_EQ(tell(uint64_t{1} << 22), SIZE_MAX);
}

TEST(Faults, AHoleWhoseBatchIsLostIsToldAgainAfterTheSegmentsAroundItWereReleased) {
  TraceDisk disk;
  {
    auto opened = Log::open(disk, options()).value();
    Batch batch;
    for (uint64_t i = 1; i <= 30; ++i) {
      batch.clear();
      batch.append(kGroup, command(i, 1, 1500));
      ASSERT_TRUE(opened.log->write(batch));
    }
  }
  // All of one batch, both copies of its head.
  TraceImage rotten = disk.current();
  std::string& segment = rotten.files["wal/segment-00000001"];
  std::fill_n(segment.begin() + 2 * kBlockBytes, kBlockBytes, '\x55');
  TraceDisk again(rotten);
  uint64_t last = 30;
  for (int start = 0; start < 4; ++start) {
    auto opened = Log::open(again, options()).value();
    ASSERT_EQ(opened.recovery.holes.size(), 1U) << start;
    EXPECT_EQ(opened.recovery.holes[0].index, LogIndex(3));
    EXPECT_EQ(opened.recovery.holes[0].term, Term(1));
    const Recovered& group = opened.recovery.groups.at(0);
    EXPECT_EQ(group.certainty, Certainty::kCertain);
    EXPECT_EQ(group.entries.front().index, LogIndex(start == 0 ? 1 : 3));
    EXPECT_EQ(group.last.index, LogIndex(last));
    EXPECT_EQ(opened.log->read(kGroup, LogIndex(3), LogIndex(3), 1).error().code, ErrorCode::kUnreadable);
    Batch batch;
    batch.release(kGroup, LogIndex(2));
    for (int i = 0; i < 20; ++i) {
      batch.append(kGroup, command(++last, 1, 1500));
      ASSERT_TRUE(opened.log->write(batch));
      batch.clear();
    }
  }
  // Filled and released, its segment goes with the others.
  auto opened = Log::open(again, options()).value();
  Batch batch;
  batch.fill(kGroup, command(3, 1, 1500));
  batch.release(kGroup, LogIndex(last));
  ASSERT_TRUE(opened.log->write(batch));
  while (opened.log->maintain().value()) {
  }
  EXPECT_LE(opened.log->space().live_segments, 2U);
}

TEST(Faults, FloorsAndCommitSurviveTheReleaseOfTheirSegment) {
  TraceDisk disk;
  {
    auto opened = Log::open(disk, options()).value();
    Batch batch;
    const std::vector<Floor> floors = {{.node = NodeId(2),
                                        .incarnation = Incarnation(1),
                                        .term = Term(1),
                                        .last = {.term = Term(1), .index = LogIndex(1)}}};
    batch.append(kGroup, command(1, 1, 10));
    batch.commit(kGroup, LogIndex(1), floors);
    batch.vote(kGroup, {.term = Term(4), .candidate = NodeId(2), .incarnation = Incarnation(1)});
    ASSERT_TRUE(opened.log->write(batch));
    for (uint64_t i = 2; i < 200; ++i) {
      batch.clear();
      batch.append(kGroup, command(i, 4, 1000));
      batch.release(kGroup, LogIndex(i - 1));
      ASSERT_TRUE(opened.log->write(batch));
    }
    EXPECT_LE(opened.log->space().live_segments, 3U);
  }
  const auto opened = Log::open(disk, options()).value();
  const Recovered& group = opened.recovery.groups.at(0);
  EXPECT_EQ(group.vote.candidate, NodeId(2));
  EXPECT_EQ(group.commit, LogIndex(1));
  ASSERT_EQ(group.floors.size(), 1U);
}

class StepClock final : public env::Clock {
 public:
  Instant now() override { return Instant(Duration(++now_ * 1000)); }
  int64_t wall_milliseconds() override { return 0; }

 private:
  int64_t now_ = 0;
};

TEST(Queue, WhatWaitedGoesOutInOneWriteAndInOrder) {
  TraceDisk disk;
  auto opened = Log::open(disk, options()).value();
  StepClock clock;
  WriteGauge gauge;
  Queue queue;
  Batch batch;
  for (uint64_t i = 1; i <= 5; ++i) {
    batch.append(kGroup, command(i, 1, 10));
    queue.push(batch, {.group = kGroup, .sequence = WriteSequence(i)});
    EXPECT_TRUE(batch.empty());
  }
  EXPECT_GT(queue.bytes(), 0U);
  const uint64_t calls = disk.calls();
  std::vector<Ticket> done;
  ASSERT_TRUE(queue.flush(*opened.log, done, clock, &gauge));
  EXPECT_EQ(disk.calls(), calls + 1) << "one write for all";
  ASSERT_EQ(done.size(), 5U);
  for (uint64_t i = 0; i < 5; ++i) EXPECT_EQ(done[i].sequence, WriteSequence(i + 1));
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.bytes(), 0U);
  EXPECT_EQ(gauge.running_for(clock.now()), Duration(0));
  EXPECT_GT(gauge.last(), Duration(0));
  gauge.begin(clock.now());
  EXPECT_GT(gauge.running_for(clock.now()), Duration(0));
}

TEST(Queue, OnAFullDiskUrgentOnesPassOthersOfOtherGroups) {
  TraceDisk disk;
  auto opened = Log::open(disk, options()).value();
  StepClock clock;
  while (opened.log->maintain().value()) {
  }
  disk.set_capacity(0);
  Batch batch;
  uint64_t index = 0;
  do {
    batch.clear();
    batch.append(kGroup, command(++index, 1, 2000));
  } while (opened.log->write(batch));
  Queue queue;
  std::vector<Ticket> done;
  const auto push = [&](GroupId group, uint64_t sequence, Urgency urgency) {
    batch.clear();
    batch.vote(group, {.term = Term(sequence), .incarnation = Incarnation(1)});
    batch.set_urgency(urgency);
    queue.push(batch, {.group = group, .sequence = WriteSequence(sequence)});
  };
  batch.set_urgency(Urgency::kNormal);
  queue.push(batch, {.group = kGroup, .sequence = WriteSequence(1)});  // the entries that were refused
  push(kGroup, 2, Urgency::kUrgent);
  push(GroupId(2), 3, Urgency::kUrgent);
  EXPECT_EQ(queue.flush(*opened.log, done, clock, nullptr).error().code, ErrorCode::kNoSpace);
  ASSERT_EQ(done.size(), 1U) << "behind a refused one of its own group nothing passes";
  EXPECT_EQ(done[0].sequence, WriteSequence(3));
  disk.set_capacity(UINT64_MAX);
  ASSERT_TRUE(queue.flush(*opened.log, done, clock, nullptr));
  ASSERT_EQ(done.size(), 3U);
  EXPECT_EQ(done[1].sequence, WriteSequence(1));
  EXPECT_EQ(opened.log->state(kGroup)->vote.term, Term(2));
}

}  // namespace
}  // namespace conclave::wal
