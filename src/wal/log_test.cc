#include "wal/log.h"

#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>

#include "env/posix/clock.h"
#include "env/posix/disk.h"

namespace conclave::wal {
namespace {

const Owner kOwner{.cluster = ClusterId(7), .node = NodeId(3)};
const GroupId kGroup(1);

Entry command(uint64_t index, uint64_t term, std::string_view text) {
  return {
      .index = LogIndex(index), .term = Term(term), .type = EntryType::kCommand, .payload = SharedBytes::copy_of(text)};
}

class LogTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "conclave-wal-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
    disk_ = env::PosixDisk::open_directory(path_).value();
  }
  void TearDown() override { std::filesystem::remove_all(path_); }
  Result<Log::Opened> open(LogOptions options = {}) {
    if (!options.owner.cluster.is_set()) options.owner = kOwner;
    options.segment_bytes = uint64_t{64} << 10;
    return Log::open(*disk_, options);
  }
  std::string path_;
  std::unique_ptr<env::PosixDisk> disk_;
};

TEST_F(LogTest, WhatWasWrittenIsThereAgain) {
  {
    auto opened = open();
    ASSERT_TRUE(opened) << opened.error().message;
    EXPECT_TRUE(opened->recovery.created);
    EXPECT_TRUE(opened->recovery.groups.empty());
    Batch batch;
    batch.vote(kGroup, {.term = Term(2), .candidate = NodeId(3), .incarnation = Incarnation(1), .promises = true});
    batch.append(kGroup, command(1, 2, "one"));
    batch.append(kGroup, command(2, 2, std::string(5000, 'x')));
    batch.append(GroupId(9), command(1, 1, ""));
    const std::vector<Floor> floors = {{.node = NodeId(2),
                                        .boot = Boot(9),
                                        .incarnation = Incarnation(4),
                                        .term = Term(2),
                                        .last = {.term = Term(2), .index = LogIndex(1)}}};
    batch.commit(kGroup, LogIndex(1), floors);
    ASSERT_TRUE(opened->log->write(batch));
    ASSERT_TRUE(opened->log->idle_mark());
  }
  auto opened = open();
  ASSERT_TRUE(opened) << opened.error().message;
  const Recovery& recovery = opened->recovery;
  EXPECT_FALSE(recovery.created);
  EXPECT_TRUE(recovery.findings.empty());
  ASSERT_EQ(recovery.groups.size(), 2U);
  const Recovered& group = recovery.groups[0];
  EXPECT_EQ(group.certainty, Certainty::kCertain);
  EXPECT_EQ(group.vote.term, Term(2));
  EXPECT_EQ(group.vote.candidate, NodeId(3));
  EXPECT_EQ(group.vote.incarnation, Incarnation(1));
  EXPECT_TRUE(group.vote.promises);
  ASSERT_EQ(group.entries.size(), 2U);
  EXPECT_EQ(group.entries[1].payload.view(), std::string(5000, 'x'));
  EXPECT_EQ(group.last, (Position{.term = Term(2), .index = LogIndex(2)}));
  EXPECT_EQ(group.commit, LogIndex(1));
  ASSERT_EQ(group.floors.size(), 1U);
  // Of the life before this one, or a server would be told that it forgot what it has acknowledged since it started.
  EXPECT_EQ(group.floors[0].boot, Boot(9));
  EXPECT_EQ(group.floors[0].incarnation, Incarnation(4));
  EXPECT_EQ(recovery.groups[1].entries.size(), 1U);
}

TEST_F(LogTest, ALaterEntryReplacesWhatStoodThereAndBehind) {
  {
    auto opened = open().value();
    Batch batch;
    for (uint64_t i = 1; i <= 5; ++i) batch.append(kGroup, command(i, 1, "old"));
    ASSERT_TRUE(opened.log->write(batch));
    batch.clear();
    batch.append(kGroup, command(3, 2, "new"));
    ASSERT_TRUE(opened.log->write(batch));
  }
  const auto opened = open().value();
  const Recovered& group = opened.recovery.groups.at(0);
  ASSERT_EQ(group.entries.size(), 3U);
  EXPECT_EQ(group.entries[1].term, Term(1));
  EXPECT_EQ(group.entries[2].payload.view(), "new");
  EXPECT_EQ(group.last, (Position{.term = Term(2), .index = LogIndex(3)}));
}

TEST_F(LogTest, AForeignOrTwiceOpenedDirectoryIsRefused) {
  auto opened = open();
  ASSERT_TRUE(opened);
  auto second_disk = env::PosixDisk::open_directory(path_).value();
  EXPECT_EQ(Log::open(*second_disk, {.owner = kOwner}).error().code, ErrorCode::kLocked);
  opened->log.reset();
  LogOptions other_node{.owner = {.cluster = ClusterId(7), .node = NodeId(4)}};
  EXPECT_EQ(open(other_node).error().code, ErrorCode::kForeign);
  LogOptions other_cluster{.owner = {.cluster = ClusterId(8), .node = NodeId(3)}};
  EXPECT_EQ(open(other_cluster).error().code, ErrorCode::kForeign);
  EXPECT_TRUE(open());
}

TEST_F(LogTest, OldEntriesAreReadFromTheSegments) {
  auto opened = open().value();
  Batch batch;
  for (uint64_t i = 1; i <= 300; ++i) {
    batch.append(kGroup, command(i, 1 + i / 100, std::string(i, static_cast<char>('a' + i % 26))));
    if (i % 7 == 0) {
      ASSERT_TRUE(opened.log->write(batch));
      batch.clear();
    }
  }
  ASSERT_TRUE(opened.log->write(batch));
  EXPECT_GT(opened.log->space().live_segments, 1U);
  const auto some = opened.log->read(kGroup, LogIndex(90), LogIndex(110), 1U << 20);
  ASSERT_TRUE(some) << some.error().message;
  ASSERT_EQ(some->size(), 21U);
  EXPECT_EQ(some->front().index, LogIndex(90));
  EXPECT_EQ(some->back().term, Term(2));
  EXPECT_EQ(some->back().payload.view(), std::string(110, static_cast<char>('a' + 110 % 26)));
  EXPECT_EQ(opened.log->read(kGroup, LogIndex(90), LogIndex(110), 200)->size(), 2U);
  EXPECT_EQ(opened.log->read(kGroup, LogIndex(90), LogIndex(110), 0)->size(), 1U);
  EXPECT_EQ(opened.log->read(kGroup, LogIndex(301), LogIndex(302), 1).error().code, ErrorCode::kOutOfRange);
  EXPECT_EQ(opened.log->read(GroupId(5), LogIndex(1), LogIndex(2), 1).error().code, ErrorCode::kOutOfRange);
}

TEST_F(LogTest, ReleasedSegmentsAreUsedAgain) {
  auto opened = open().value();
  Batch batch;
  for (uint64_t i = 1; i <= 2000; ++i) {
    batch.clear();
    batch.append(kGroup, command(i, 1, std::string(300, 'x')));
    if (i > 10) batch.release(kGroup, LogIndex(i - 10));
    ASSERT_TRUE(opened.log->write(batch));
  }
  const Space space = opened.log->space();
  EXPECT_LE(space.live_segments, 3U);
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path_ + "/wal"))
    files += entry.is_regular_file() ? 1 : 0;
  EXPECT_LE(files, 2U + 6U) << "two manifests, live and spare segments";
  opened.log.reset();
  const auto again = open().value();
  EXPECT_EQ(again.recovery.groups.at(0).entries.size(), 10U);
  EXPECT_EQ(again.recovery.groups.at(0).last.index, LogIndex(2000));
}

TEST_F(LogTest, TheProbeChoosesAndTells) {
  env::PosixClock clock;
  auto opened = open({.write_path = WritePath::kProbe, .clock = &clock});
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_NE(opened->recovery.write_path, "");
  Batch batch;
  batch.append(kGroup, command(1, 1, "direct or not"));
  ASSERT_TRUE(opened->log->write(batch));
  opened->log.reset();
  EXPECT_EQ(open()->recovery.groups.at(0).entries.at(0).payload.view(), "direct or not");
}

TEST_F(LogTest, ABatchThatFitsInNoSegmentIsRefusedAndHarmless) {
  auto opened = open().value();
  Batch batch;
  batch.append(kGroup, command(1, 1, std::string(100'000, 'x')));
  EXPECT_EQ(opened.log->write(batch).error().code, ErrorCode::kInvalidArgument);
  batch.clear();
  batch.append(kGroup, command(1, 1, "small"));
  EXPECT_TRUE(opened.log->write(batch));
  EXPECT_EQ(opened.log->state(kGroup)->last.index, LogIndex(1));
}

TEST_F(LogTest, DiscardLeavesAnEmptyDirectory) {
  {
    auto opened = open().value();
    Batch batch;
    batch.append(kGroup, command(1, 1, "gone"));
    ASSERT_TRUE(opened.log->write(batch));
  }
  ASSERT_TRUE(Log::discard(*disk_));
  const auto opened = open().value();
  EXPECT_TRUE(opened.recovery.created);
}

TEST_F(LogTest, WhenNoManifestReadsTheSegmentsAreNotTakenForEmpty) {
  {
    auto opened = open().value();
    Batch batch;
    batch.append(kGroup, command(1, 1, "kept"));
    ASSERT_TRUE(opened.log->write(batch));
  }
  std::filesystem::remove(path_ + "/wal/manifest-a");
  std::filesystem::remove(path_ + "/wal/manifest-b");
  EXPECT_EQ(open().error().code, ErrorCode::kUnreadable);
}

}  // namespace
}  // namespace conclave::wal
