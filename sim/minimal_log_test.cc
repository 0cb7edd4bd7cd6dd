// The minimal log: what it reports after a loss of power at any moment, and after damage to any sector.
#include "sim/minimal_log.h"

#include <algorithm>
#include <memory>
#include <set>

#include <gtest/gtest.h>

#include "sim/disk.h"
#include "sim/snapshot_store.h"

namespace conclave::sim {
namespace {

class MinimalLogTest : public testing::Test {
 protected:
  static constexpr uint64_t kSectors = 256;
  MinimalLogTest() : disk_(std::make_unique<SimDisk>(scheduler_, decisions_, 0, DiskOptions{})) {
    for (size_t i = 0; i < kFaultKinds; ++i) decisions_.enable(static_cast<FaultKind>(i));
    EXPECT_TRUE(MinimalLog::lay_out(*disk_, options_, {.incarnation = Incarnation(1)}, membership_));
    rest();
  }

  // What was written is durable.
  void rest() { scheduler_.run_until(disk_->busy_until()); }
  MinimalLog::Opened open(SimDisk& disk) {
    auto opened = MinimalLog::open(disk, options_, Boot(++boots_), snapshots_);
    EXPECT_TRUE(opened.has_value()) << (opened ? "" : opened.error().message);
    return opened ? std::move(*opened) : MinimalLog::Opened();
  }
  void open() {
    log_ = open(*disk_).log;
    rest();
  }
  // Entries first..first + count - 1 of `term`, replacing what is there.
  void append(uint64_t first, uint64_t count, uint64_t term) {
    std::vector<Entry> entries;
    entries.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      entries.push_back({.index = LogIndex(first + i),
                         .term = Term(term),
                         .type = EntryType::kCommand,
                         .payload = SharedBytes::copy_of(fmt::format("{}:{}", term, first + i))});
    }
    log_->submit({.sequence = ++sequence_,
                  .vote = Vote{.term = Term(term), .incarnation = Incarnation(1)},
                  .entries = std::span<const Entry>(entries)},
                 {});
    ASSERT_TRUE(log_->write_batch());
  }
  static bool is_content(const Entry& entry) {
    return entry.payload.view() == fmt::format("{}:{}", entry.term, entry.index);
  }
  SimDisk& disk() { return *disk_; }
  void crash_and_open(CrashMode mode) {
    log_.reset();
    disk_->crash(mode);
    disk_->restart();
  }

  Scheduler scheduler_;
  Decisions decisions_{1};
  MinimalLogOptions options_{.group = GroupId(7), .self = NodeId(1), .sectors = kSectors};
  Membership membership_ = Membership::of_voters(std::array{NodeId(1), NodeId(2), NodeId(3)});
  std::vector<SnapshotMark> snapshots_;
  std::unique_ptr<SimDisk> disk_;
  std::unique_ptr<MinimalLog> log_;
  uint64_t boots_ = 0;
  WriteSequence sequence_;
};

TEST_F(MinimalLogTest, ReportsWhatWasWritten) {
  open();
  append(1, 3, 1);
  append(3, 2, 2);
  rest();
  crash_and_open(CrashMode::kPowerLoss);
  const Recovered recovered = open(disk()).recovered;
  EXPECT_EQ(recovered.certainty, Certainty::kCertain);
  EXPECT_EQ(recovered.vote, (Vote{.term = Term(2), .incarnation = Incarnation(1)}));
  EXPECT_EQ(recovered.snapshot.membership, membership_);
  EXPECT_EQ(recovered.last, (Position{.term = Term(2), .index = LogIndex(4)}));
  ASSERT_EQ(recovered.entries.size(), 4);
  EXPECT_EQ(recovered.entries[1].term, Term(1));
  EXPECT_EQ(recovered.entries[2].term, Term(2));
  EXPECT_TRUE(std::ranges::all_of(recovered.entries, is_content));
}

TEST_F(MinimalLogTest, GoesRoundItsRingAndKeepsWhatIsLive) {
  open();
  append(1, 20, 1);
  for (uint64_t i = 0; i < 400; ++i) {
    append(21, 1, 2 + i);
    rest();
  }
  crash_and_open(CrashMode::kPowerLoss);
  const Recovered recovered = open(disk()).recovered;
  EXPECT_EQ(recovered.certainty, Certainty::kCertain);
  ASSERT_EQ(recovered.entries.size(), 21);
  EXPECT_EQ(recovered.last, (Position{.term = Term(401), .index = LogIndex(21)}));
  EXPECT_TRUE(std::ranges::all_of(recovered.entries, is_content));
}

// Whatever a loss of power leaves of a batch under way, the log is as before it or as after it, and certain.
TEST_F(MinimalLogTest, ALossOfPowerDuringABatchLeavesItWholeOrNotAtAll) {
  open();
  append(1, 2, 1);
  rest();
  append(2, 3, 2);  // replaces one, adds two; not durable yet
  size_t before = 0;
  size_t after = 0;
  const bool all = disk().for_each_crash_state(100'000, [&](const DiskImage& image) {
    Scheduler scheduler;
    Decisions decisions(2);
    SimDisk copy(scheduler, decisions, 0, DiskOptions{});
    copy.roll_back(image);
    const Recovered recovered = open(copy).recovered;
    ASSERT_EQ(recovered.certainty, Certainty::kCertain);
    ASSERT_TRUE(std::ranges::all_of(recovered.entries, is_content));
    if (recovered.last == Position{.term = Term(1), .index = LogIndex(2)}) {
      EXPECT_EQ(recovered.vote.term, Term(1));
      EXPECT_EQ(recovered.entries.size(), 2);
      ++before;
    } else {
      ASSERT_EQ(recovered.last, (Position{.term = Term(2), .index = LogIndex(4)}));
      EXPECT_EQ(recovered.vote.term, Term(2));
      EXPECT_EQ(recovered.entries.size(), 4);
      ++after;
    }
  });
  EXPECT_TRUE(all);
  EXPECT_EQ(after, 1);
  EXPECT_GE(before, 31);  // five sectors: every other subset
}

// Half a record on top of an older one, cut at each byte.
TEST_F(MinimalLogTest, ATornRecordIsCut) {
  open();
  append(1, 1, 1);
  rest();
  std::string whole(disk().true_size("log").value(), '\0');
  ASSERT_TRUE(disk().truth("log", 0, std::span<char>(whole)));
  append(2, 1, 1);
  rest();
  std::string newer(whole.size(), '\0');
  ASSERT_TRUE(disk().truth("log", 0, std::span<char>(newer)));
  size_t first = 0;
  while (whole.substr(first * kSectorBytes, kSectorBytes) == newer.substr(first * kSectorBytes, kSectorBytes)) ++first;
  for (size_t cut = 0; cut <= 3 * kSectorBytes; ++cut) {
    Scheduler scheduler;
    Decisions decisions(3);
    SimDisk copy(scheduler, decisions, 0, DiskOptions{});
    auto file = copy.open("log", {.mode = env::OpenMode::kCreate});
    ASSERT_TRUE(file);
    const size_t bytes = first * kSectorBytes + cut;
    ASSERT_TRUE((*file)->write(0, newer.substr(0, bytes) + whole.substr(bytes)));
    const MinimalLog::Opened opened = open(copy);
    ASSERT_EQ(opened.recovered.certainty, Certainty::kCertain) << cut;
    // The last bytes of the tail say nothing the head does not: then the batch is whole.
    const uint64_t last = opened.recovered.last.index.value();
    if (cut < 3 * kSectorBytes - 24) {
      ASSERT_EQ(last, 1) << cut;
    } else {
      ASSERT_TRUE(last == 1 || last == 2) << cut;
    }
    if (cut == 3 * kSectorBytes) {
      ASSERT_EQ(last, 2);
    }
  }
}

// One sector damaged at a time, in every way: what was acknowledged is there, or a hole says that it was, or the log
// says that it is not sure. It never just ends earlier.
TEST_F(MinimalLogTest, DamageIsNeverTakenForATear) {
  open();
  append(1, 3, 1);
  append(2, 4, 2);
  append(5, 2, 3);
  rest();
  const DiskImage image = disk().durable_image();
  size_t holes = 0;
  Random random(5);
  for (uint64_t sector = 0; sector < kSectors; ++sector) {
    for (int way = 0; way < 8; ++way) {
      Scheduler scheduler;
      Decisions decisions(4);
      SimDisk copy(scheduler, decisions, 0, DiskOptions{});
      copy.roll_back(image);
      if (way == 0) {
        ASSERT_TRUE(copy.make_unreadable("log", sector));
      } else {
        ASSERT_TRUE(copy.corrupt("log", sector, random));
      }
      ASSERT_FALSE(copy.damage().empty());
      const MinimalLog::Opened opened = open(copy);
      const Recovered& recovered = opened.recovered;
      if (recovered.certainty != Certainty::kCertain) {
        // Only right behind the last batch a sector that cannot be read may have been one.
        ASSERT_EQ(way, 0) << sector;
        continue;
      }
      ASSERT_EQ(recovered.last, (Position{.term = Term(3), .index = LogIndex(6)})) << sector << ' ' << way;
      ASSERT_EQ(recovered.vote.term, Term(3));
      ASSERT_EQ(recovered.entries.size(), 6);
      const uint64_t terms[] = {1, 2, 2, 2, 3, 3};
      for (size_t i = 0; i < 6; ++i) {
        ASSERT_EQ(recovered.entries[i].term, Term(terms[i]));
        if (recovered.entries[i].type == EntryType::kHole) {
          ++holes;
        } else {
          ASSERT_TRUE(is_content(recovered.entries[i]));
        }
      }
    }
  }
  EXPECT_EQ(holes, 6 * 8) << "each live entry's sector, each way";
}

TEST_F(MinimalLogTest, BothDirectoriesOfTheLastBatchDamagedIsUncertain) {
  open();
  append(1, 1, 1);
  rest();
  Random random(1);
  const uint64_t entry = log_->sector_of(LogIndex(1));
  ASSERT_TRUE(disk().corrupt("log", entry - 1, random));
  ASSERT_TRUE(disk().corrupt("log", entry + 1, random));
  crash_and_open(CrashMode::kPowerLoss);
  EXPECT_EQ(open(disk()).recovered.certainty, Certainty::kVoteUncertain);
}

TEST_F(MinimalLogTest, AMarkAttestsTheLastBatch) {
  open();
  append(1, 1, 1);
  rest();
  ASSERT_TRUE(log_->write_mark());
  rest();
  Random random(1);
  const uint64_t entry = log_->sector_of(LogIndex(1));
  ASSERT_TRUE(disk().corrupt("log", entry - 1, random));
  ASSERT_TRUE(disk().corrupt("log", entry + 1, random));
  crash_and_open(CrashMode::kPowerLoss);
  const Recovered recovered = open(disk()).recovered;
  EXPECT_EQ(recovered.certainty, Certainty::kCertain);
  EXPECT_EQ(recovered.last.index, LogIndex(1));
}

TEST_F(MinimalLogTest, NothingThereIsEmptyAndAnothersIsForeign) {
  open();
  crash_and_open(CrashMode::kPowerLoss);
  options_.self = NodeId(2);
  const auto foreign = MinimalLog::open(disk(), options_, Boot(1), {});
  ASSERT_FALSE(foreign);
  EXPECT_EQ(foreign.error().code, ErrorCode::kForeign);
  disk().replace();
  EXPECT_EQ(open(disk()).recovered.certainty, Certainty::kEmpty);
  rest();
  // And once laid out again it goes on as a log.
  crash_and_open(CrashMode::kPowerLoss);
  open();
  append(1, 1, 1);
  rest();
  EXPECT_EQ(log_->directory().last.index, LogIndex(1));
}

TEST_F(MinimalLogTest, WithoutItsSnapshotTheLogIsEmptyAndWithTheOlderItIsNot) {
  open();
  append(1, 10, 1);
  const SnapshotMark older{.last = {.term = Term(1), .index = LogIndex(3)}, .membership = membership_};
  const SnapshotMark newer{.last = {.term = Term(1), .index = LogIndex(6)}, .membership = membership_};
  log_->submit({.sequence = ++sequence_, .snapshot = newer, .keep_from = LogIndex(4)}, {});
  ASSERT_TRUE(log_->write_batch());
  rest();
  const DiskImage image = disk().durable_image();
  for (const int sound : {0, 1, 2}) {
    disk().crash(CrashMode::kPowerLoss);
    disk().roll_back(image);
    disk().restart();
    snapshots_.clear();
    if (sound > 0) snapshots_.push_back(older);
    if (sound > 1) snapshots_.push_back(newer);
    const Recovered recovered = open(disk()).recovered;
    EXPECT_EQ(recovered.certainty, sound == 0 ? Certainty::kEmpty : Certainty::kCertain);
    EXPECT_EQ(recovered.vote.term, Term(1));
    if (sound > 0) {
      EXPECT_EQ(recovered.snapshot, sound == 1 ? older : newer);
      EXPECT_EQ(recovered.entries.front().index, LogIndex(4));
    }
  }
}

TEST_F(MinimalLogTest, AFailedWriteIsTheEndAndAProcessThatDiedLeavesTheCache) {
  open();
  append(1, 1, 1);  // in the cache; its sync has not come back
  crash_and_open(CrashMode::kProcessKilled);
  EXPECT_LE(open(disk()).recovered.last.index, LogIndex(1));
  rest();
  const DiskImage durable = disk().durable_image();
  // What that recovery believed it also made durable.
  disk().crash(CrashMode::kPowerLoss);
  disk().restart();
  const Recovered again = open(disk()).recovered;
  EXPECT_EQ(again.certainty, Certainty::kCertain);
}

TEST_F(MinimalLogTest, ScrubbingFindsWhatIsDamagedAndNothingElse) {
  open();
  append(1, 5, 1);
  rest();
  EXPECT_TRUE(log_->scrub(10).value().empty());
  Random random(9);
  ASSERT_TRUE(disk().corrupt("log", log_->sector_of(LogIndex(4)), random));
  EXPECT_EQ(log_->scrub(5).value(), std::vector<LogIndex>{LogIndex(4)});
}

// --- Snapshots.

class SnapshotStoreTest : public testing::Test {
 protected:
  static Position at(uint64_t index) { return {.term = Term(1), .index = LogIndex(index)}; }
  SnapshotMark mark(uint64_t index) { return {.last = at(index), .membership = membership_}; }
  Scheduler scheduler_;
  Decisions decisions_{1};
  SimDisk disk_{scheduler_, decisions_, 0, DiskOptions{}};
  Membership membership_ = Membership::of_voters(std::array{NodeId(1), NodeId(2)});
  SnapshotStore store_{disk_};
  std::string state_ = std::string(2000, 's') + "end";
};

TEST_F(SnapshotStoreTest, IsSentInPiecesAndResumedAfterARestart) {
  ASSERT_TRUE(store_.write(mark(5), state_));
  SimDisk other_disk(scheduler_, decisions_, 1, DiskOptions{});
  auto other = std::make_unique<SnapshotStore>(other_disk);
  ASSERT_TRUE(other->open());
  for (int pieces = 0; pieces < 100; ++pieces) {
    const uint64_t have = other->received(at(5));
    const auto piece = store_.read(at(5), have, 100);
    ASSERT_TRUE(piece);
    const Result<bool> whole = other->receive(mark(5), have, piece->total, piece->bytes);
    ASSERT_TRUE(whole);
    if (*whole) break;
    if (pieces % 5 == 0) {
      scheduler_.run_until(other_disk.busy_until());
      other = std::make_unique<SnapshotStore>(other_disk);
      ASSERT_TRUE(other->open());
      EXPECT_EQ(other->received(at(5)), have + piece->bytes.size());
    }
  }
  EXPECT_EQ(other->load(at(5)).value(), state_);
  EXPECT_EQ(other->open().value(), std::vector<SnapshotMark>{mark(5)});
}

TEST_F(SnapshotStoreTest, DamageIsNeitherServedNorLoadedNorInstalled) {
  ASSERT_TRUE(store_.write(mark(5), state_));
  const auto good = store_.read(at(5), 0, 10'000);
  ASSERT_TRUE(good);
  scheduler_.run_until(disk_.busy_until());
  Random random(3);
  ASSERT_TRUE(disk_.corrupt("snapshot-5-1", 2, random));
  EXPECT_TRUE(store_.read(at(5), 0, 1024));
  EXPECT_FALSE(store_.read(at(5), 1000, 100));
  EXPECT_FALSE(store_.load(at(5)));
  EXPECT_TRUE(store_.open().value().empty());
  // A transfer that went wrong on the way starts again.
  std::string bad = good->bytes;
  bad[700] = static_cast<char>(bad[700] ^ 1);
  EXPECT_FALSE(store_.receive(mark(5), 0, bad.size(), bad));
  EXPECT_EQ(store_.received(at(5)), 0);
  EXPECT_TRUE(store_.receive(mark(5), 0, good->bytes.size(), good->bytes).value());
}

TEST_F(SnapshotStoreTest, ALossOfPowerLeavesAWholeSnapshotOrNone) {
  ASSERT_TRUE(store_.write(mark(5), state_));
  scheduler_.run_until(disk_.busy_until());
  ASSERT_TRUE(store_.write(mark(9), state_ + "9"));
  // At every moment on the way: what has not begun never was.
  std::set<std::string> states;
  for (const Instant end = disk_.busy_until(); scheduler_.now() < end;
       scheduler_.run_until(scheduler_.now() + std::chrono::microseconds(5))) {
    disk_.for_each_crash_state(1000, [&](const DiskImage& image) {
      if (!states.insert(image.fingerprint()).second) return;
      SimDisk copy(scheduler_, decisions_, 0, DiskOptions{});
      copy.roll_back(image);
      SnapshotStore store(copy);
      const auto marks = store.open();
      ASSERT_TRUE(marks);
      ASSERT_FALSE(marks->empty());
      EXPECT_EQ(marks->front(), mark(5));
      for (const SnapshotMark& each : *marks) {
        EXPECT_EQ(store.load(each.last).value(), each.last == at(5) ? state_ : state_ + "9");
      }
    });
  }
  EXPECT_GT(states.size(), 16);
}

}  // namespace
}  // namespace conclave::sim
