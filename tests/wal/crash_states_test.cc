// A loss of power in the middle of every storage call the log makes, every legal subset of what was not synced: what is
// recovered is what was acknowledged, with or without the batch under way, and nothing else.
#include <algorithm>
#include <array>
#include <set>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "sim/trace_disk.h"
#include "tests/wal/model.h"
#include "wal/log.h"
#include "wal/snapshot.h"

namespace conclave::wal {
namespace {

using sim::TraceDisk;
using sim::TraceImage;

const Owner kOwner{.cluster = ClusterId(7), .node = NodeId(3)};

LogOptions small_segments() {
  return {.owner = kOwner, .segment_bytes = uint64_t{32} << 10};
}

// Up to this many unsynced pieces every subset is tried; beyond, subsets are drawn.
constexpr size_t kEveryPieces = 9;
constexpr size_t kDrawn = 300;

class CrashStates {
 public:
  // `hashes`: of the images seen so far, in all lives.
  CrashStates(uint64_t seed, std::set<uint64_t>& hashes) : random_(seed), hashes_(hashes) {}

  // What recovery may find: one of the two.
  Model acknowledged;
  Model under_way;

  void visit(const TraceDisk& disk, std::string_view call, size_t drawn) {
    const size_t pieces = disk.unsynced();
    std::vector<bool> kept(pieces);
    const auto check_kept = [&] { check(disk.crash(kept), call); };
    if (pieces <= kEveryPieces) {
      for (uint64_t mask = 0; mask < uint64_t{1} << pieces; ++mask) {
        for (size_t i = 0; i < pieces; ++i) kept[i] = ((mask >> i) & 1) != 0;
        check_kept();
      }
    } else {
      for (size_t lost = 0; lost <= pieces; ++lost) {
        // Each prefix, each suffix, all but one, one alone.
        for (size_t i = 0; i < pieces; ++i) kept[i] = i < lost;
        check_kept();
        kept.flip();
        check_kept();
        for (size_t i = 0; i < pieces; ++i) kept[i] = i == lost;
        check_kept();
        kept.flip();
        check_kept();
      }
      for (size_t n = 0; n < drawn; ++n) {
        for (size_t i = 0; i < pieces; ++i) kept[i] = random_.coin();
        check_kept();
      }
    }
    // Within a sector: front or back of it alone is new, the others as they fall.
    static constexpr size_t kCuts[] = {1, 7, 8, 12, 20, 21, 140, 260, 480, 499, 500, 503, 504, 507, 511};
    for (size_t torn = 0; torn < pieces; ++torn) {
      for (const size_t cut : kCuts) {
        const bool others = random_.coin();
        for (size_t i = 0; i < pieces; ++i) kept[i] = others || random_.coin();
        check(disk.crash_torn(kept, torn, cut, random_.coin()), call);
      }
    }
  }

  [[nodiscard]] uint64_t with_batch() const { return with_batch_; }
  [[nodiscard]] uint64_t without_batch() const { return without_batch_; }
  // Storage calls of recovery itself that were crashed in, too.
  [[nodiscard]] uint64_t nested() const { return nested_; }

 private:
  void check(const TraceImage& image, std::string_view call) {
    if (!hashes_.insert(image.hash()).second) return;
    TraceDisk disk(image);
    const bool nest = random_.chance(1, 400);
    if (nest) {
      disk.set_hook([&](std::string_view inner) {
        ++nested_;
        for (int n = 0; n < 6; ++n) {
          std::vector<bool> kept(disk.unsynced());
          for (auto&& keep : kept) keep = random_.coin();
          const TraceImage second = disk.crash(kept);
          if (!hashes_.insert(second.hash()).second) continue;
          TraceDisk again(second);
          judge(again, inner);
        }
      });
    }
    judge(disk, call);
  }

  void judge(TraceDisk& disk, std::string_view call) {
    auto opened = Log::open(disk, small_segments());
    ASSERT_TRUE(opened) << call << ": " << opened.error().message;
    const Recovery& recovery = opened->recovery;
    for (const Recovered& group : recovery.groups) {
      ASSERT_EQ(group.certainty, Certainty::kCertain) << call << ": group " << group.group.value();
    }
    ASSERT_TRUE(recovery.holes.empty()) << call;
    ASSERT_FALSE(recovery.unknown_groups) << call;
    const Model found = as_model(recovery);
    const std::string without = difference(acknowledged, found);
    if (without.empty()) {
      ++without_batch_;
      return;
    }
    const std::string with = difference(under_way, found);
    ASSERT_TRUE(with.empty()) << call << ": neither without the batch under way (" << without << ") nor with it ("
                              << with << ")";
    ++with_batch_;
  }

  Random random_;
  std::set<uint64_t>& hashes_;
  uint64_t with_batch_ = 0;
  uint64_t without_batch_ = 0;
  uint64_t nested_ = 0;
};

// A life of the log, with restarts, rolls, releases and recycling, crashed at every call.
void live(uint64_t seed, CrashStates& states, int batches, size_t drawn) {
  TraceDisk disk;
  History history(seed, {.groups = 1 + seed % 3, .payload_max = seed % 2 == 0 ? 300U : 900U});
  Random random(seed);
  states.acknowledged = {};
  states.under_way = {};
  disk.set_hook([&](std::string_view call) {
    if (!testing::Test::HasFatalFailure()) states.visit(disk, call, drawn);
  });
  std::unique_ptr<Log> log;
  Batch batch;
  for (int i = 0; i < batches && !testing::Test::HasFatalFailure(); ++i) {
    if (log == nullptr || random.chance(1, 25)) {
      log.reset();
      auto opened = Log::open(disk, small_segments());
      ASSERT_TRUE(opened) << opened.error().message;
      log = std::move(opened->log);
    }
    history.next(batch, states.under_way);
    const Status written = log->write(batch);
    ASSERT_TRUE(written) << written.error().message;
    states.acknowledged = states.under_way;
    if (random.chance(1, 6)) {
      ASSERT_TRUE(log->idle_mark());
    }
    if (random.chance(1, 10)) {
      ASSERT_TRUE(log->maintain());
    }
  }
}

TEST(CrashStates, EveryStorageCallOfSmallLogs) {
  std::set<uint64_t> hashes;
  uint64_t with = 0;
  uint64_t without = 0;
  uint64_t nested = 0;
  for (uint64_t seed = 1; hashes.size() < 120'000; ++seed) {
    CrashStates states(seed, hashes);
    live(seed, states, 40, kDrawn);
    ASSERT_FALSE(HasFatalFailure()) << "seed " << seed;
    with += states.with_batch();
    without += states.without_batch();
    nested += states.nested();
  }
  fmt::print("crash states: {} distinct images, {} with the batch under way, {} without; {} calls of recovery itself\n",
             hashes.size(), with, without, nested);
  EXPECT_GE(hashes.size(), 100'000U);
  EXPECT_GT(with, 1000U);
  EXPECT_GT(without, 1000U);
  EXPECT_GT(nested, 100U);
}

// Snapshots written, received in two tries and pruned, crashed at every call: one that finish() returned is whole under
// its name, an older one stays until two newer are, and what is listed is never half.
TEST(CrashStates, EveryStorageCallOfSnapshots) {
  const std::string content(3000, 's');
  const auto header = [](uint64_t index) {
    const std::array ids = {NodeId(1), NodeId(2), NodeId(3)};
    return SnapshotHeader{
        .cluster = ClusterId(7),
        .group = GroupId(1),
        .mark = {.last = {.term = Term(1), .index = LogIndex(index)}, .membership = Membership::of_voters(ids)}};
  };
  TraceDisk disk;
  std::set<uint64_t> durable;  // indexes that finish() returned and no prune took
  std::set<uint64_t> pruning;  // that a prune under way may take
  std::set<uint64_t> hashes;
  Random random(3);
  const auto check = [&](const TraceImage& image, std::string_view call) {
    if (!hashes.insert(image.hash()).second) return;
    TraceDisk crashed(image);
    ASSERT_TRUE(remove_unfinished_snapshots(crashed)) << call;
    std::set<uint64_t> found;
    const auto names = list_snapshots(crashed);
    ASSERT_TRUE(names) << call;
    for (const SnapshotName& name : *names) {
      const Status good = verify_snapshot(crashed, name);
      ASSERT_TRUE(good) << call << ": " << good.error().message;
      found.insert(name.last.index.value());
    }
    for (const uint64_t index : durable) ASSERT_TRUE(found.contains(index) || pruning.contains(index)) << call << index;
  };
  disk.set_hook([&](std::string_view call) {
    if (testing::Test::HasFatalFailure()) return;
    const size_t pieces = disk.unsynced();
    for (int n = 0; n < 200 || (pieces < 12 && n < 1 << pieces); ++n) {
      std::vector<bool> kept(pieces);
      for (size_t i = 0; i < pieces; ++i) kept[i] = pieces < 12 ? ((n >> i) & 1) != 0 : random.coin();
      check(disk.crash(kept), call);
    }
  });
  for (const uint64_t index : {10, 20, 30, 40}) {
    auto writer = SnapshotWriter::begin(disk, header(index), index % 20 == 0);
    ASSERT_TRUE(writer);
    ASSERT_TRUE((*writer)->append(content));
    ASSERT_TRUE((*writer)->finish());
    durable.insert(index);
    if (durable.size() > kSnapshotsKept) pruning = {*durable.begin()};
    ASSERT_TRUE(prune_snapshots(disk, GroupId(1), LogIndex(index)));
    while (durable.size() > kSnapshotsKept) durable.erase(durable.begin());
    pruning.clear();
  }
  const SnapshotName sent{.group = GroupId(1), .last = {.term = Term(1), .index = LogIndex(40)}};
  const std::string bytes = SnapshotSender::open(disk, sent).value()->read(0, 1U << 20).value();
  durable.erase(40);
  ASSERT_TRUE(disk.remove(snapshot_path(sent)));
  ASSERT_TRUE(disk.sync_directory(kSnapshotDirectory));
  for (const size_t up_to : {bytes.size() / 2, bytes.size()}) {
    auto receiver = SnapshotReceiver::begin(disk, ClusterId(7), sent);
    ASSERT_TRUE(receiver);
    ASSERT_TRUE((*receiver)->resume().value());
    const uint64_t from = (*receiver)->offset();
    ASSERT_TRUE((*receiver)->append(from, ByteView(bytes).substr(from, up_to - from)));
    if (up_to < bytes.size()) continue;
    ASSERT_TRUE((*receiver)->check().value());
    ASSERT_TRUE((*receiver)->finish());
    durable.insert(40);
  }
  ASSERT_TRUE(disk.sync_directory(kSnapshotDirectory));
  ASSERT_FALSE(HasFatalFailure());
  fmt::print("crash states of snapshots: {} distinct images\n", hashes.size());
  EXPECT_GT(hashes.size(), 500U);
}

}  // namespace
}  // namespace conclave::wal
