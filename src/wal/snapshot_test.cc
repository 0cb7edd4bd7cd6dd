#include "wal/snapshot.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "base/random.h"
#include "env/posix/disk.h"

namespace conclave::wal {
namespace {

class SnapshotTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "conclave-snapshot-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
    disk_ = env::PosixDisk::open_directory(path_).value();
    Random random(5);
    while (content_.size() < 300'000) content_ += "key " + std::to_string(random.below(1000)) + " ";
  }
  void TearDown() override { std::filesystem::remove_all(path_); }

  static SnapshotHeader header(uint64_t index) {
    const std::array ids = {NodeId(1), NodeId(2)};
    return {.cluster = ClusterId(7),
            .group = GroupId(1),
            .mark = {.last = {.term = Term(3), .index = LogIndex(index)}, .membership = Membership::of_voters(ids)}};
  }
  SnapshotName write(uint64_t index, bool compress) {
    auto writer = SnapshotWriter::begin(*disk_, header(index), compress).value();
    // Pieces of odd sizes.
    ByteView left = content_;
    for (size_t size = 1; !left.empty(); size = size * 3 + 1) {
      const size_t part = std::min(size, left.size());
      EXPECT_TRUE(writer->append(left.substr(0, part)));
      left.remove_prefix(part);
    }
    return writer->finish().value();
  }
  std::string read(const SnapshotName& name) {
    auto reader = SnapshotReader::open(*disk_, name).value();
    std::string all;
    std::string block;
    while (reader->next(block).value()) all += block;
    return all;
  }
  void flip_bit(const SnapshotName& name, size_t bit) {
    std::fstream file(path_ + "/" + snapshot_path(name), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(bit / 8));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(bit / 8));
    file.put(static_cast<char>(byte ^ (1 << (bit % 8))));
  }
  // The file as it lies, as a sender gives it.
  std::string whole(const SnapshotName& name) {
    auto sender = SnapshotSender::open(*disk_, name).value();
    EXPECT_TRUE(sender->find(0).value());
    return sender->read(0, size_t{1} << 30).value();
  }
  std::unique_ptr<SnapshotReceiver> receive(ClusterId cluster, const SnapshotName& name) {
    auto receiver = SnapshotReceiver::begin(*disk_, cluster, name).value();
    while (!receiver->resume().value()) {
    }
    return receiver;
  }
  static Result<SnapshotName> finish(SnapshotReceiver& receiver) {
    for (bool checked = false; !checked;) {
      ASSIGN_OR_RETURN(checked, receiver.check());
    }
    return receiver.finish();
  }
  std::string path_;
  std::unique_ptr<env::PosixDisk> disk_;
  std::string content_;
};

TEST_F(SnapshotTest, WhatIsWrittenIsRead) {
  const SnapshotName plain = write(10, false);
  const SnapshotName packed = write(11, true);
  EXPECT_EQ(read(plain), content_);
  EXPECT_EQ(read(packed), content_);
  EXPECT_LT(std::filesystem::file_size(path_ + "/" + snapshot_path(packed)),
            std::filesystem::file_size(path_ + "/" + snapshot_path(plain)) / 2);
  EXPECT_EQ(SnapshotReader::open(*disk_, packed).value()->header(), header(11));
}

TEST_F(SnapshotTest, TwoAreKept) {
  for (uint64_t index : {10, 20, 30, 40}) write(index, true);
  const SnapshotName oldest = prune_snapshots(*disk_, GroupId(1), LogIndex(40)).value();
  EXPECT_EQ(oldest.last.index, LogIndex(30));
  EXPECT_EQ(list_snapshots(*disk_)->size(), 2U);
  EXPECT_EQ(prune_snapshots(*disk_, GroupId(2), LogIndex(40)).error().code, ErrorCode::kNotFound);
}

// Scenario: (1) the log is lost, snapshots at 30 and 40 stay; (2) the server begins empty and is caught up with; (3) it
// takes a snapshot at 20, which is the one its log must be kept back to, not those.
TEST_F(SnapshotTest, LaterOnesThanTheLogHasReachedNeitherGoNorCount) {
  for (uint64_t index : {10, 20, 30, 40}) write(index, true);
  EXPECT_EQ(prune_snapshots(*disk_, GroupId(1), LogIndex(20)).value().last.index, LogIndex(10));
  EXPECT_EQ(list_snapshots(*disk_)->size(), 4U);
  EXPECT_EQ(prune_snapshots(*disk_, GroupId(1), LogIndex(5)).error().code, ErrorCode::kNotFound);
}

TEST_F(SnapshotTest, EachRottenBitIsFoundAndTheOlderOneServes) {
  content_.resize(1000);
  write(10, false);
  const SnapshotName name = write(20, false);
  const size_t bits = std::filesystem::file_size(path_ + "/" + snapshot_path(name)) * 8;
  for (size_t bit = 0; bit < bits; bit += 3) {
    flip_bit(name, bit);
    EXPECT_FALSE(verify_snapshot(*disk_, name)) << bit;
    flip_bit(name, bit);
  }
  EXPECT_TRUE(verify_snapshot(*disk_, name));
  EXPECT_EQ(survey_snapshots(*disk_)->good.at(1).mark.last.index, LogIndex(20));
  flip_bit(name, bits / 2);
  const SnapshotSurvey survey = survey_snapshots(*disk_).value();
  ASSERT_EQ(survey.good.size(), 1U);
  EXPECT_EQ(survey.good[0].mark.last.index, LogIndex(10));
  ASSERT_EQ(survey.damaged.size(), 1U);
  EXPECT_EQ(survey.damaged[0].first, name);
}

TEST_F(SnapshotTest, ATransferGoesOnWhereItBroke) {
  const SnapshotName name = write(10, true);
  std::string path = path_ + "/" + snapshot_path(name);
  const std::string bytes = whole(name);
  std::filesystem::remove(path);
  {
    auto receiver = receive(ClusterId(7), name);
    EXPECT_EQ(receiver->offset(), 0U);
    ASSERT_TRUE(receiver->append(0, ByteView(bytes).substr(0, bytes.size() * 2 / 3)));
    EXPECT_EQ(receiver->append(1, "x").error().code, ErrorCode::kOutOfRange);
  }
  {
    auto receiver = receive(ClusterId(7), name);
    EXPECT_GT(receiver->offset(), 0U);
    EXPECT_LE(receiver->offset(), bytes.size() * 2 / 3);
    EXPECT_EQ(receiver->durable_offset(), receiver->offset());
    ASSERT_TRUE(receiver->append(receiver->offset(), ByteView(bytes).substr(receiver->offset())));
    EXPECT_EQ(finish(*receiver).value(), name);
  }
  EXPECT_EQ(read(name), content_);
}

TEST_F(SnapshotTest, WhatWasNotAskedForIsRemoved) {
  const SnapshotName name = write(10, true);
  const std::string bytes = whole(name);
  const SnapshotName other{.group = GroupId(1), .last = {.term = Term(3), .index = LogIndex(11)}};
  auto receiver = receive(ClusterId(7), other);
  ASSERT_TRUE(receiver->append(0, bytes));
  EXPECT_EQ(finish(*receiver).error().code, ErrorCode::kMalformed);
  receiver = receive(ClusterId(8), name);
  EXPECT_EQ(receiver->offset(), 0U);
  ASSERT_TRUE(receiver->append(0, bytes));
  EXPECT_EQ(finish(*receiver).error().code, ErrorCode::kForeign);
  std::string rotten = bytes;
  rotten[rotten.size() / 2] = static_cast<char>(rotten[rotten.size() / 2] ^ 1);
  receiver = receive(ClusterId(7), other);
  ASSERT_TRUE(receiver->append(0, rotten));
  EXPECT_EQ(finish(*receiver).error().code, ErrorCode::kMalformed);
  EXPECT_EQ(list_snapshots(*disk_)->size(), 1U);
}

TEST_F(SnapshotTest, WhatACrashLeftIsRemovedAtStart) {
  {
    auto writer = SnapshotWriter::begin(*disk_, header(10), false).value();
    ASSERT_TRUE(writer->append(content_));
  }
  EXPECT_TRUE(list_snapshots(*disk_)->empty());
  ASSERT_TRUE(remove_unfinished_snapshots(*disk_));
  EXPECT_TRUE(disk_->list(kSnapshotDirectory)->empty());
}

TEST_F(SnapshotTest, OfPartialTransfersTheNewestOfEachGroupStays) {
  write(10, true);
  const auto begin = [&](uint64_t group, uint64_t index) {
    const SnapshotName name{.group = GroupId(group), .last = {.term = Term(3), .index = LogIndex(index)}};
    ASSERT_TRUE(receive(ClusterId(7), name)->append(0, "begun"));
  };
  // Of what is there already, of two marks one of which is older, of another group.
  for (const uint64_t index : {8, 10, 12, 14}) begin(1, index);
  for (const uint64_t index : {2, 5}) begin(9, index);
  const auto partial = [&] {
    const auto names = disk_->list(kSnapshotDirectory).value();
    return std::ranges::count_if(names, [](const std::string& name) { return name.ends_with(".receiving"); });
  };
  ASSERT_EQ(partial(), 6);
  ASSERT_TRUE(remove_abandoned_transfers(*disk_, survey_snapshots(*disk_).value()));
  EXPECT_EQ(partial(), 2);
  const auto names = disk_->list(kSnapshotDirectory).value();
  for (const char* kept : {"0000000000000001-000000000000000e-0000000000000003.receiving",
                           "0000000000000009-0000000000000005-0000000000000003.receiving"}) {
    EXPECT_NE(std::ranges::find(names, kept), names.end()) << kept;
  }
  EXPECT_EQ(list_snapshots(*disk_)->size(), 1U);
}

}  // namespace
}  // namespace conclave::wal
