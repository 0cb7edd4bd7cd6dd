#include "env/posix/disk.h"

#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>

#include "env/posix/clock.h"
#include "env/posix/random.h"

namespace conclave::env {
namespace {

class PosixDiskTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "conclave-disk-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
    auto disk = PosixDisk::open_directory(path_);
    ASSERT_TRUE(disk) << disk.error().message;
    disk_ = std::move(*disk);
  }
  void TearDown() override { std::filesystem::remove_all(path_); }
  std::string path_;
  std::unique_ptr<PosixDisk> disk_;
};

TEST_F(PosixDiskTest, WhatIsWrittenIsRead) {
  auto file = disk_->open("a", {.mode = OpenMode::kCreate});
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_TRUE((*file)->write(0, "hello"));
  ASSERT_TRUE((*file)->write_durable(5, " world"));
  ASSERT_TRUE((*file)->sync());
  EXPECT_EQ((*file)->size().value(), 11U);
  std::string text(11, ' ');
  ASSERT_TRUE((*file)->read(0, text));
  EXPECT_EQ(text, "hello world");
  EXPECT_EQ((*file)->read(1, text).error().code, ErrorCode::kOutOfRange);
  ASSERT_TRUE((*file)->resize(4));
  EXPECT_EQ((*file)->size().value(), 4U);
}

TEST_F(PosixDiskTest, NamesAndTheirErrors) {
  EXPECT_EQ(disk_->open("missing", {}).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(disk_->open("b", {.mode = OpenMode::kCreate}));
  EXPECT_EQ(disk_->open("b", {.mode = OpenMode::kCreate}).error().code, ErrorCode::kAlreadyExists);
  ASSERT_TRUE(disk_->create_directory("d"));
  EXPECT_EQ(disk_->create_directory("d").error().code, ErrorCode::kAlreadyExists);
  ASSERT_TRUE(disk_->rename("b", "d/c"));
  ASSERT_TRUE(disk_->sync_directory("d"));
  ASSERT_TRUE(disk_->sync_directory(""));
  EXPECT_EQ(disk_->list("").value(), std::vector<std::string>{"d"});
  EXPECT_EQ(disk_->list("d").value(), std::vector<std::string>{"c"});
  ASSERT_TRUE(disk_->remove("d/c"));
  EXPECT_EQ(disk_->remove("d/c").error().code, ErrorCode::kNotFound);
  EXPECT_GT(disk_->free_bytes().value(), 0U);
}

TEST_F(PosixDiskTest, ADirectoryIsHeldOnce) {
  auto lock = disk_->lock();
  ASSERT_TRUE(lock) << lock.error().message;
  auto second = PosixDisk::open_directory(path_).value();
  EXPECT_EQ(second->lock().error().code, ErrorCode::kLocked);
  lock->reset();
  EXPECT_TRUE(second->lock());
}

TEST_F(PosixDiskTest, DirectWritesWhereTheFileSystemTakesThem) {
  auto file = disk_->open("direct", {.mode = OpenMode::kCreate, .direct = true});
  if (!file) {
    EXPECT_EQ(file.error().code, ErrorCode::kInvalidArgument) << file.error().message;
    GTEST_SKIP() << "this file system takes no direct writes";
  }
  AlignedBuffer buffer(kBlockBytes);
  std::fill_n(buffer.data(), kBlockBytes, 'x');
  ASSERT_TRUE((*file)->write_durable(0, ByteView(buffer.data(), kBlockBytes)));
  EXPECT_EQ((*file)->size().value(), kBlockBytes);
}

TEST(AlignedBuffer, KeepsWhatItWasToldTo) {
  AlignedBuffer buffer(10);
  buffer.data()[0] = 'k';
  buffer.reserve(3 * kBlockBytes, 1);
  EXPECT_EQ(buffer.data()[0], 'k');
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % kBlockBytes, 0U);
}

TEST(PosixClock, MovesForward) {
  PosixClock clock;
  const Instant before = clock.now();
  EXPECT_GE(clock.now(), before);
  EXPECT_GT(clock.wall_milliseconds(), 1'600'000'000'000);
}

TEST(PosixRandom, IsNotConstant) {
  PosixRandom random;
  EXPECT_NE(random.next(), random.next());
}

}  // namespace
}  // namespace conclave::env
