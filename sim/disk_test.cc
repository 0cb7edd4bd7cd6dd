#include "sim/disk.h"

#include <set>

#include <gtest/gtest.h>

namespace conclave::sim {
namespace {

using env::OpenMode;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::string sectors(size_t count, char fill) {
  return std::string(count * kSectorBytes, fill);
}

// "abbb" as "a1b3": what a test prints stays short.
std::string brief(ByteView bytes) {
  std::string text;
  for (size_t i = 0; i < bytes.size();) {
    const size_t end = std::min(bytes.find_first_not_of(bytes[i], i), bytes.size());
    text += fmt::format("{}{} ", bytes[i] == 0 ? '0' : bytes[i], end - i);
    i = end;
  }
  return text;
}
std::set<std::string> briefs(const std::set<std::string>& all) {
  std::set<std::string> set;
  for (const std::string& each : all) set.insert(brief(each));
  return set;
}

std::set<std::string> states(std::initializer_list<std::string> all) {
  std::set<std::string> set;
  for (const std::string& each : all) set.insert(each == "absent" ? each : brief(each));
  return set;
}

// A disk with fixed times and, unless a test turns one on, without faults.
class SimDiskTest : public testing::Test {
 protected:
  SimDiskTest() {
    for (size_t i = 0; i < kFaultKinds; ++i) decisions_.enable(static_cast<FaultKind>(i));
  }
  std::unique_ptr<env::File> create(std::string_view path) {
    auto file = disk_.open(path, {.mode = OpenMode::kCreate});
    EXPECT_TRUE(file);
    return std::move(*file);
  }
  std::unique_ptr<env::File> open(std::string_view path) {
    auto file = disk_.open(path, {.mode = OpenMode::kWrite});
    EXPECT_TRUE(file) << file.error().message;
    return file ? std::move(*file) : nullptr;
  }
  // A file whose name and bytes are durable.
  std::unique_ptr<env::File> durable(std::string_view path, ByteView bytes) {
    auto file = create(path);
    EXPECT_TRUE(file->write_durable(0, bytes));
    EXPECT_TRUE(disk_.sync_directory(""));
    pass();
    return file;
  }
  void pass() { scheduler_.run_until(disk_.busy_until()); }
  void always(FaultKind kind) { disk_.per_million()[kind] = 1'000'000; }
  void never(FaultKind kind) { disk_.per_million()[kind] = 0; }
  void lose_power() {
    disk_.crash(CrashMode::kPowerLoss);
    disk_.restart();
  }
  std::string read(env::File& file, uint64_t offset, size_t bytes) {
    std::string content(bytes, '?');
    const Status status = file.read(offset, std::span<char>(content));
    return status ? content : "error " + std::string(to_string(status.error().code));
  }
  std::string read_all(std::string_view path) {
    auto file = open(path);
    return file == nullptr ? "none" : read(*file, 0, file->size().value());
  }
  std::set<std::string> crash_states(std::string_view path) {
    std::set<std::string> states;
    EXPECT_TRUE(disk_.for_each_crash_state(100'000, [&](const DiskImage& image) {
      states.insert(image.has(path) ? brief(image.content(path)) : "absent");
    }));
    return states;
  }

  Scheduler scheduler_;
  Decisions decisions_{11};
  SimDisk disk_{scheduler_, decisions_, 0, {}};
};

TEST_F(SimDiskTest, BehavesAsADirectoryOfFiles) {
  EXPECT_EQ(disk_.open("a", {}).error().code, ErrorCode::kNotFound);
  auto file = create("a");
  EXPECT_EQ(disk_.open("a", {.mode = OpenMode::kCreate}).error().code, ErrorCode::kAlreadyExists);
  EXPECT_TRUE(file->write(700, "hello"));
  EXPECT_EQ(file->size(), 705U);
  EXPECT_EQ(read(*file, 698, 7), std::string("\0\0hello", 7));
  EXPECT_EQ(read(*file, 700, 6), "error " + std::string(to_string(ErrorCode::kOutOfRange)));
  EXPECT_TRUE(file->resize(702));
  EXPECT_TRUE(file->resize(710));
  EXPECT_EQ(read(*file, 700, 10), std::string("he\0\0\0\0\0\0\0\0", 10));
  EXPECT_TRUE(disk_.create_directory("d"));
  EXPECT_EQ(disk_.create_directory("d").error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(disk_.open("e/x", {.mode = OpenMode::kCreate}).error().code, ErrorCode::kNotFound);
  create("d/x");
  EXPECT_TRUE(disk_.rename("a", "d/b"));
  EXPECT_EQ(disk_.list("").value(), std::vector<std::string>({"d"}));
  EXPECT_EQ(disk_.list("d").value(), std::vector<std::string>({"b", "x"}));
  EXPECT_TRUE(disk_.remove("d/x"));
  EXPECT_EQ(disk_.remove("d/x").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(disk_.rename("d", "f").error().code, ErrorCode::kInvalidArgument);
  auto reader = disk_.open("d/b", {}).value();
  EXPECT_EQ(reader->write(0, "x").error().code, ErrorCode::kInvalidArgument);
}

TEST_F(SimDiskTest, TheLockEndsWithItsHolderOrItsProcess) {
  auto lock = disk_.lock();
  ASSERT_TRUE(lock);
  EXPECT_EQ(disk_.lock().error().code, ErrorCode::kLocked);
  lock->reset();
  auto again = disk_.lock();
  ASSERT_TRUE(again);
  lose_power();
  auto third = disk_.lock();
  EXPECT_TRUE(third);
  again->reset();  // of a dead process: must not free what the living one holds
  EXPECT_EQ(disk_.lock().error().code, ErrorCode::kLocked);
}

TEST_F(SimDiskTest, UnsyncedSectorsKeepAnySubsetAndNeverTear) {
  auto file = durable("f", sectors(3, 'a'));
  ASSERT_TRUE(file->write(0, sectors(2, 'b')));
  ASSERT_TRUE(file->write(kSectorBytes, sectors(1, 'c')));
  pass();
  std::set<std::string> expected;
  for (char first : {'a', 'b'}) {
    for (char second : {'a', 'b', 'c'}) expected.insert(sectors(1, first) + sectors(1, second) + sectors(1, 'a'));
  }
  EXPECT_EQ(crash_states("f"), briefs(expected));
  ASSERT_TRUE(file->sync());
  pass();
  EXPECT_EQ(crash_states("f"), states({sectors(1, 'b') + sectors(1, 'c') + sectors(1, 'a')}));
}

TEST_F(SimDiskTest, ASyncHoldsOnlyOnceItsTimeHasPassed) {
  auto file = durable("f", sectors(1, 'a'));
  ASSERT_TRUE(file->write_durable(0, sectors(1, 'b')));
  EXPECT_GT(disk_.elapsed(), Duration(0));
  EXPECT_EQ(crash_states("f"), states({sectors(1, 'a'), sectors(1, 'b')}));
  // A call that has not begun when power is lost never was.
  ASSERT_TRUE(file->write_durable(0, sectors(1, 'c')));
  EXPECT_EQ(crash_states("f"), states({sectors(1, 'a'), sectors(1, 'b')}));
  EXPECT_FALSE(disk_.is_damaged("f", 0, 512));
  pass();
  EXPECT_EQ(disk_.elapsed(), Duration(0));
  EXPECT_EQ(crash_states("f"), states({sectors(1, 'c')}));
}

TEST_F(SimDiskTest, SizesKeepAPrefixAndWritesNeverOutliveALostCut) {
  auto file = durable("f", sectors(2, 'a'));
  ASSERT_TRUE(file->resize(0));
  ASSERT_TRUE(file->write(0, sectors(1, 'b')));
  pass();
  // Uncut; cut; cut and grown, with or without the write: never the write over the uncut file.
  EXPECT_EQ(crash_states("f"), states({sectors(2, 'a'), "", sectors(1, '\0'), sectors(1, 'b')}));
}

TEST_F(SimDiskTest, NamesAreDurableOnlyWithTheirDirectory) {
  auto file = create("new");
  ASSERT_TRUE(file->write_durable(0, "bytes"));
  pass();
  EXPECT_EQ(crash_states("new"), states({"absent", "bytes"}));
  ASSERT_TRUE(disk_.sync_directory(""));
  pass();
  EXPECT_EQ(crash_states("new"), states({"bytes"}));
  ASSERT_TRUE(disk_.rename("new", "name"));
  std::set<std::string> lists;
  EXPECT_TRUE(disk_.for_each_crash_state(1000, [&](const DiskImage& image) {
    std::string list;
    for (const std::string& path : image.paths()) list += path + " ";
    lists.insert(list);
  }));
  EXPECT_EQ(lists, std::set<std::string>({"new ", "name "}));  // never both, never none
  ASSERT_TRUE(disk_.remove("name"));
  EXPECT_EQ(crash_states("name"), states({"absent", "bytes"}));
  ASSERT_TRUE(disk_.sync_directory(""));
  pass();
  EXPECT_EQ(disk_.durable_image().paths(), std::vector<std::string>());
}

TEST_F(SimDiskTest, AFileInADirectoryThatWasLostIsLostWithIt) {
  ASSERT_TRUE(disk_.create_directory("d"));
  auto file = create("d/f");
  ASSERT_TRUE(file->write_durable(0, "x"));
  ASSERT_TRUE(disk_.sync_directory("d"));
  pass();
  EXPECT_EQ(crash_states("d/f"), states({"absent", "x"}));
  ASSERT_TRUE(disk_.sync_directory(""));
  pass();
  EXPECT_TRUE(disk_.durable_image().has("d"));
}

TEST_F(SimDiskTest, ReplacingByRenameIsAtomic) {
  durable("f", "old");
  auto file = create("f.new");
  ASSERT_TRUE(file->write_durable(0, "new"));
  pass();
  ASSERT_TRUE(disk_.rename("f.new", "f"));
  EXPECT_EQ(crash_states("f"), states({"old", "new"}));
}

TEST_F(SimDiskTest, ARealLossOfPowerLeavesOneOfTheStatesListed) {
  std::set<std::string> seen;
  for (int round = 0; round < 60; ++round) {
    if (round > 0) {
      ASSERT_TRUE(disk_.remove("f"));
    }
    auto file = durable("f", sectors(3, 'a'));
    ASSERT_TRUE(file->write(0, sectors(1, 'b')));
    ASSERT_TRUE(file->write(1024, sectors(2, 'c')));
    pass();
    const std::set<std::string> listed = crash_states("f");
    lose_power();
    const std::string found = brief(read_all("f"));
    EXPECT_TRUE(listed.contains(found)) << found;
    seen.insert(found);
    EXPECT_TRUE(disk_.damage().empty());
  }
  EXPECT_GE(seen.size(), 6U);  // none, all and several between
}

TEST_F(SimDiskTest, TheDeathOfAProcessKeepsTheCacheButNotCallsToCome) {
  auto file = durable("f", sectors(1, 'a'));
  ASSERT_TRUE(file->write(0, sectors(1, 'b')));
  pass();
  ASSERT_TRUE(file->sync());
  ASSERT_TRUE(file->write(0, sectors(1, 'c')));
  disk_.crash(CrashMode::kProcessKilled);
  EXPECT_EQ(file->read(0, {}).error().code, ErrorCode::kCrashed);
  EXPECT_EQ(disk_.list("").error().code, ErrorCode::kCrashed);
  disk_.restart();
  EXPECT_EQ(file->sync().error().code, ErrorCode::kCrashed);  // a handle of another life
  EXPECT_EQ(read_all("f"), sectors(1, 'b'));
}

TEST_F(SimDiskTest, ASyncOfTheNextProcessDoesNotWaitForOneThatHangs) {
  // 1. The disk hangs, a process syncs and is killed. 2. The hang ends early for the next process, which syncs as well.
  // 3. Power is lost before the first sync would have been done: what the second promised is there.
  auto file = durable("f", sectors(2, 'a'));
  disk_.hang_until(scheduler_.now() + seconds(10));
  ASSERT_TRUE(file->write_durable(0, sectors(1, 'b')));
  ASSERT_TRUE(file->sync());
  disk_.crash(CrashMode::kProcessKilled);
  disk_.heal_episodes();
  disk_.restart();
  file = open("f");
  ASSERT_TRUE(file->write_durable(512, sectors(1, 'c')));
  pass();
  lose_power();
  EXPECT_EQ(brief(read_all("f")), brief(sectors(1, 'b') + sectors(1, 'c')));
}

TEST_F(SimDiskTest, CrashAfterEndsTheCallThatComesThen) {
  auto file = durable("f", sectors(1, 'a'));
  disk_.crash_after(1);
  EXPECT_TRUE(file->write(0, sectors(1, 'b')));
  EXPECT_EQ(file->sync().error().code, ErrorCode::kCrashed);
  EXPECT_TRUE(disk_.has_crashed_in_call());
  EXPECT_EQ(file->write(0, "x").error().code, ErrorCode::kCrashed);
  // At this instant the write has begun, the sync has not.
  EXPECT_EQ(crash_states("f"), states({sectors(1, 'a'), sectors(1, 'b')}));
  lose_power();
  EXPECT_FALSE(disk_.is_crashed());
  const std::string found = read_all("f");
  EXPECT_TRUE(found == sectors(1, 'a') || found == sectors(1, 'b'));
}

TEST_F(SimDiskTest, CorruptionIsInTheAtlasAndCanBeSwitchedOff) {
  auto file = durable("f", sectors(4, 'a'));
  Random random(1);
  ASSERT_TRUE(disk_.corrupt("f", 2, random));
  EXPECT_FALSE(disk_.corrupt("f", 4, random));
  EXPECT_FALSE(disk_.corrupt("g", 0, random));
  EXPECT_NE(read(*file, 1024, 512), sectors(1, 'a'));
  EXPECT_EQ(read(*file, 512, 512), sectors(1, 'a'));
  EXPECT_EQ(disk_.damage(), (std::vector<DamagedRange>{{"f", 1024, 512, FaultKind::kCorruptSector, true}}));
  EXPECT_TRUE(disk_.is_damaged("f", 1500, 1));
  EXPECT_FALSE(disk_.is_damaged("f", 1536, 512));
  std::string truth(512, '?');
  ASSERT_TRUE(disk_.truth("f", 1024, truth));
  EXPECT_EQ(truth, sectors(1, 'a'));
  disk_.set_faults_visible(false);
  EXPECT_EQ(read(*file, 1024, 512), sectors(1, 'a'));
  disk_.set_faults_visible(true);
  // Written over, it is whole again, and stays so once durable.
  ASSERT_TRUE(file->write_durable(1024, sectors(1, 'z')));
  EXPECT_EQ(read(*file, 1024, 512), sectors(1, 'z'));
  pass();
  EXPECT_TRUE(disk_.damage().empty());
  lose_power();
  EXPECT_EQ(read_all("f"), sectors(2, 'a') + sectors(1, 'z') + sectors(1, 'a'));
}

TEST_F(SimDiskTest, UnreadableSectorsFailTheReadThatMeetsThem) {
  auto file = durable("f", sectors(3, 'a'));
  ASSERT_TRUE(disk_.make_unreadable("f", 1));
  std::string into(3 * 512, '?');
  EXPECT_EQ(file->read(0, into).error().code, ErrorCode::kUnreadable);
  EXPECT_EQ(read(*file, 0, 512), sectors(1, 'a'));
  EXPECT_EQ(disk_.damage().size(), 1U);
}

TEST_F(SimDiskTest, ALostWriteLeavesTheOldContent) {
  auto file = durable("f", sectors(1, 'a'));
  always(FaultKind::kStaleSector);
  ASSERT_TRUE(file->write_durable(0, sectors(1, 'b')));
  never(FaultKind::kStaleSector);
  pass();
  EXPECT_EQ(disk_.damage(), (std::vector<DamagedRange>{{"f", 0, 512, FaultKind::kStaleSector, true}}));
  EXPECT_EQ(read(*file, 0, 512), sectors(1, 'a'));
  std::string truth(512, '?');
  ASSERT_TRUE(disk_.truth("f", 0, truth));
  EXPECT_EQ(truth, sectors(1, 'b'));
}

TEST_F(SimDiskTest, AMisdirectedWriteDamagesTwoPlaces) {
  auto file = durable("f", sectors(16, 'a'));
  always(FaultKind::kMisdirectedWrite);
  ASSERT_TRUE(file->write_durable(0, sectors(1, 'b')));
  never(FaultKind::kMisdirectedWrite);
  pass();
  const std::vector<DamagedRange> damage = disk_.damage();
  EXPECT_EQ(read(*file, 0, 512), sectors(1, 'a'));
  ASSERT_EQ(damage.size(), 2U);
  EXPECT_EQ(damage[0].kind, FaultKind::kMisdirectedWrite);
  EXPECT_EQ(read(*file, damage[1].offset, 512), sectors(1, 'b'));
}

TEST_F(SimDiskTest, AMisdirectedReadGivesOtherBytesOnce) {
  std::string content;
  for (char c = 'a'; c < 'q'; ++c) content += sectors(1, c);
  auto file = durable("f", content);
  always(FaultKind::kMisdirectedRead);
  bool wrong = false;
  for (int i = 0; i < 5; ++i) wrong = wrong || read(*file, 0, 512) != sectors(1, 'a');
  EXPECT_TRUE(wrong);
  never(FaultKind::kMisdirectedRead);
  EXPECT_EQ(read(*file, 0, 512), sectors(1, 'a'));
  EXPECT_TRUE(disk_.damage().empty());
}

TEST_F(SimDiskTest, ALyingSyncIsBelievedUntilPowerIsLost) {
  auto file = durable("f", sectors(4, 'a'));
  always(FaultKind::kLyingSync);
  ASSERT_TRUE(file->write_durable(0, sectors(4, 'b')));
  never(FaultKind::kLyingSync);
  pass();
  EXPECT_TRUE(disk_.damage().empty());
  EXPECT_EQ(disk_.durable_image().content("f"), sectors(4, 'b'));  // pristine: what was promised
  lose_power();
  // What is lost, and only that, is in the atlas; the truth is what was promised.
  const std::string found = read_all("f");
  for (size_t sector = 0; sector < 4; ++sector) {
    EXPECT_EQ(disk_.is_damaged("f", sector * 512, 512), found[sector * 512] == 'a') << sector;
  }
  std::string truth(4 * 512, '?');
  ASSERT_TRUE(disk_.truth("f", 0, truth));
  EXPECT_EQ(truth, sectors(4, 'b'));
}

TEST_F(SimDiskTest, AfterAFailedSyncTheNextSucceedsAndMeansNothing) {
  auto file = durable("f", sectors(8, 'a'));
  ASSERT_TRUE(file->write(0, sectors(8, 'b')));
  always(FaultKind::kSyncError);
  EXPECT_EQ(file->sync().error().code, ErrorCode::kIo);
  never(FaultKind::kSyncError);
  EXPECT_TRUE(file->sync());
  pass();
  EXPECT_EQ(read(*file, 0, 8 * 512), sectors(8, 'b'));  // the cache still shows it
  const std::string durable_bytes = disk_.durable_image().content("f");
  lose_power();
  EXPECT_EQ(read_all("f"), durable_bytes);
  EXPECT_TRUE(disk_.damage().empty());  // never promised: no fault excuses who trusted the second sync
}

// Seed 1000214 of suite node: a manifest of the time to come stood on the disk of a server that had been killed before.
TEST_F(SimDiskTest, ASyncThatWasNeverBegunCannotFail) {
  for (const CrashMode mode : {CrashMode::kProcessKilled, CrashMode::kPowerLoss}) {
    const std::string name = mode == CrashMode::kProcessKilled ? "p" : "q";
    auto file = durable(name, sectors(8, 'a'));
    // The one before takes its time, so the next begins later than now.
    ASSERT_TRUE(disk_.sync_directory(""));
    ASSERT_TRUE(file->write(0, sectors(8, 'b')));
    always(FaultKind::kSyncError);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(file->sync().error().code, ErrorCode::kIo);
    never(FaultKind::kSyncError);
    disk_.crash(mode);
    disk_.restart();
    EXPECT_EQ(read_all(name), sectors(8, 'a'));
  }
}

TEST_F(SimDiskTest, ATornSectorIsHalfNewAndOnlyWithTheFault) {
  always(FaultKind::kTornWrite);
  bool torn = false;
  for (int round = 0; round < 40 && !torn; ++round) {
    if (round > 0) {
      ASSERT_TRUE(disk_.remove("f"));
    }
    auto file = durable("f", sectors(1, 'a'));
    ASSERT_TRUE(file->write(0, sectors(1, 'b')));
    lose_power();
    const std::string found = read_all("f");
    const size_t split = found.find('a');
    torn = found != sectors(1, 'a') && found != sectors(1, 'b');
    if (!torn) continue;
    EXPECT_EQ(found, std::string(split, 'b') + std::string(512 - split, 'a'));
    EXPECT_EQ(disk_.damage(), (std::vector<DamagedRange>{{"f", 0, 512, FaultKind::kTornWrite, true}}));
  }
  EXPECT_TRUE(torn);
}

TEST_F(SimDiskTest, AFullDiskRefusesGrowthOnlyAndRecovers) {
  auto file = durable("f", sectors(2, 'a'));
  disk_.set_capacity(disk_.used_bytes() + 512);
  EXPECT_EQ(disk_.free_bytes(), 512U);
  EXPECT_TRUE(file->write(0, sectors(3, 'b')));
  EXPECT_EQ(file->write(3 * 512, "x").error().code, ErrorCode::kNoSpace);
  EXPECT_EQ(file->resize(4 * 512).error().code, ErrorCode::kNoSpace);
  EXPECT_TRUE(file->write_durable(0, sectors(3, 'c')));
  disk_.set_capacity(1U << 20);
  EXPECT_TRUE(file->write(3 * 512, "x"));
}

TEST_F(SimDiskTest, HungAndSlowDisksTakeTheirTime) {
  auto file = durable("f", sectors(1, 'a'));
  const Instant until = scheduler_.now() + seconds(10);
  disk_.hang_until(until);
  ASSERT_TRUE(file->write_durable(0, sectors(1, 'b')));
  EXPECT_GE(disk_.busy_until(), until);
  EXPECT_LT(disk_.busy_until(), until + milliseconds(100));
  pass();
  disk_.slow_until(scheduler_.now() + seconds(100), 1000);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(file->write_durable(0, sectors(1, 'c')));
  EXPECT_GT(disk_.elapsed(), milliseconds(500));
  disk_.heal_episodes();
  pass();
  ASSERT_TRUE(file->write_durable(0, sectors(1, 'd')));
  EXPECT_LT(disk_.elapsed(), milliseconds(50));
}

TEST_F(SimDiskTest, WriteErrorsLeaveAPart) {
  auto file = durable("f", sectors(4, 'a'));
  always(FaultKind::kWriteError);
  EXPECT_EQ(file->write(0, sectors(4, 'b')).error().code, ErrorCode::kIo);
  never(FaultKind::kWriteError);
  const std::string found = read(*file, 0, 4 * 512);
  const size_t split = std::min(found.find('a'), found.size());
  EXPECT_EQ(found, std::string(split, 'b') + std::string(found.size() - split, 'a'));
}

TEST_F(SimDiskTest, MissingLostAndRolledBack) {
  auto file = durable("f", "one");
  const DiskImage image = disk_.durable_image();
  ASSERT_TRUE(file->write_durable(0, "two"));
  pass();
  EXPECT_EQ(image.content("f"), "one");  // a deep copy
  ASSERT_TRUE(disk_.lose_file("f"));
  EXPECT_EQ(disk_.open("f", {}).error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(disk_.list("").value().empty());
  EXPECT_EQ(disk_.damage(), (std::vector<DamagedRange>{{"f", 0, 3, FaultKind::kMissingFile, true}}));
  EXPECT_EQ(disk_.whole_disk_fault(), WholeDiskFault::kNone);
  disk_.crash(CrashMode::kPowerLoss);
  disk_.roll_back(image);
  disk_.restart();
  EXPECT_EQ(read_all("f"), "one");
  EXPECT_EQ(disk_.whole_disk_fault(), WholeDiskFault::kRolledBack);
  disk_.crash(CrashMode::kPowerLoss);
  disk_.lose_all();
  disk_.restart();
  EXPECT_TRUE(disk_.list("").value().empty());
  EXPECT_EQ(disk_.whole_disk_fault(), WholeDiskFault::kLost);
  EXPECT_TRUE(disk_.was_ever_damaged());
}

TEST_F(SimDiskTest, RandomDamageStaysWithinFilesAndIsAllListed) {
  durable("a", sectors(5, 'a'));
  durable("b", sectors(1, 'x') + sectors(2, 'y'));
  Random random(3);
  for (FaultKind kind : {FaultKind::kCorruptSector, FaultKind::kUnreadableSector, FaultKind::kStaleSector}) {
    EXPECT_LE(disk_.damage_random(kind, 3, random), 3U);
  }
  uint64_t bytes = 0;
  for (const DamagedRange& range : disk_.damage()) bytes += range.bytes;
  EXPECT_GT(bytes, 0U);
  for (const auto& [path, count] : {std::pair("a", 5), std::pair("b", 3)}) {
    auto file = open(path);
    for (int sector = 0; sector < count; ++sector) {
      const auto offset = static_cast<uint64_t>(sector) * 512;
      std::string truth(512, '?');
      ASSERT_TRUE(disk_.truth(path, offset, truth));
      EXPECT_EQ(read(*file, offset, 512) != truth, disk_.is_damaged(path, offset, 512)) << path << sector;
    }
  }
}

TEST_F(SimDiskTest, AcknowledgedIsWhatASyncCovered) {
  auto file = create("f");
  ASSERT_TRUE(file->write(0, sectors(2, 'a')));
  pass();
  EXPECT_FALSE(disk_.was_acknowledged("f", 0));
  ASSERT_TRUE(file->sync());
  EXPECT_FALSE(disk_.was_acknowledged("f", 0));  // its time has not passed
  pass();
  EXPECT_TRUE(disk_.was_acknowledged("f", 1));
  EXPECT_FALSE(disk_.was_acknowledged("f", 2));
}

}  // namespace
}  // namespace conclave::sim
