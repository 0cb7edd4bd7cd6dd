// Many lives of one log on the simulator's disk: power lost in the middle of calls, sectors torn, processes killed; and
// rot at rest, compared with the disk's own atlas of what is true.
#include <array>
#include <map>

#include <gtest/gtest.h>

#include <fmt/format.h>

#include "sim/disk.h"
#include "tests/wal/model.h"
#include "wal/log.h"

namespace conclave::wal {
namespace {

const Owner kOwner{.cluster = ClusterId(7), .node = NodeId(3)};
LogOptions options() {
  return {.owner = kOwner, .segment_bytes = uint64_t{32} << 10};
}

TEST(Lives, PowerAndProcessesEndAtAnyCall) {
  uint64_t lives = 0;
  uint64_t with = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    sim::Scheduler scheduler;
    sim::Decisions decisions(seed);
    decisions.enable(sim::FaultKind::kTornWrite);
    decisions.enable(sim::FaultKind::kUnsyncedLost);
    decisions.enable(sim::FaultKind::kNameLost);
    sim::SimDisk disk(scheduler, decisions, 0, {});
    disk.per_million()[sim::FaultKind::kTornWrite] = 300'000;
    Random random(seed);
    History history(seed, {.groups = 1 + seed % 3, .payload_max = 900});
    Model acknowledged;
    Model under_way;
    Batch batch;
    for (int life = 0; life < 25; ++life) {
      ++lives;
      disk.crash_after(random.below(60));
      auto opened = Log::open(disk, options());
      if (!opened) {
        ASSERT_EQ(opened.error().code, ErrorCode::kCrashed) << seed << ": " << opened.error().message;
      } else {
        const Model found = as_model(opened->recovery);
        for (const Recovered& group : opened->recovery.groups) ASSERT_EQ(group.certainty, Certainty::kCertain) << seed;
        if (const std::string without = difference(acknowledged, found); !without.empty()) {
          ASSERT_EQ(difference(under_way, found), "") << "seed " << seed << " life " << life << ", and not " << without;
          ++with;
          acknowledged = under_way;
        }
        under_way = acknowledged;
        for (;;) {
          history.next(batch, under_way);
          const Status written = opened->log->write(batch);
          if (!written) {
            ASSERT_EQ(written.error().code, ErrorCode::kCrashed) << written.error().message;
            break;
          }
          // The write is acknowledged when its time has passed.
          scheduler.run_until(disk.busy_until());
          acknowledged = under_way;
          if (random.chance(1, 5) && !opened->log->idle_mark()) break;
          scheduler.run_until(disk.busy_until());
        }
        // History goes on from what the log will show: one of the two, known at the next start.
      }
      opened = fail(ErrorCode::kCrashed, "over");
      disk.crash(random.chance(1, 4) ? sim::CrashMode::kProcessKilled : sim::CrashMode::kPowerLoss);
      disk.restart();
    }
  }
  fmt::print("{} lives, {} began with the batch under way when the one before ended\n", lives, with);
  EXPECT_GT(with, 20U);
}

TEST(Lives, RotAtRestIsNeverTakenForData) {
  uint64_t holes = 0;
  uint64_t uncertain = 0;
  uint64_t sound = 0;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    sim::Scheduler scheduler;
    sim::Decisions decisions(seed);
    sim::SimDisk disk(scheduler, decisions, 0, {});
    Random random(seed);
    History history(seed, {.groups = 2, .payload_max = 900});
    Model truth;
    std::map<std::array<uint64_t, 3>, Entry> once;  // all that was ever written, by group, index and term
    Batch batch;
    {
      auto opened = Log::open(disk, options()).value();
      for (uint64_t i = random.between(5, 40); i > 0; --i) {
        history.next(batch, truth);
        for (const Operation& operation : batch.operations()) {
          if (operation.kind != ChangeKind::kEntries) continue;
          once[{operation.group.value(), operation.index.value(), operation.term.value()}] = {
              .index = operation.index, .term = operation.term, .type = operation.type, .payload = operation.payload};
        }
        ASSERT_TRUE(opened.log->write(batch));
      }
      ASSERT_TRUE(opened.log->idle_mark());
      scheduler.run_until(disk.busy_until());
    }
    disk.crash(sim::CrashMode::kPowerLoss);
    disk.restart();
    static constexpr sim::FaultKind kKinds[] = {sim::FaultKind::kCorruptSector, sim::FaultKind::kUnreadableSector,
                                                sim::FaultKind::kStaleSector};
    disk.damage_random(kKinds[random.below(3)], random.between(1, 4), random);
    const auto opened = Log::open(disk, options());
    if (!opened) {
      // Both copies of the manifest, or more: said so.
      ASSERT_EQ(opened.error().code, ErrorCode::kUnreadable) << seed << ": " << opened.error().message;
      continue;
    }
    bool in_doubt = opened->recovery.unknown_groups;
    const Model found = as_model(opened->recovery);
    for (const Recovered& recovered : opened->recovery.groups) {
      const uint64_t id = recovered.group.value();
      const ModelGroup& group = found.groups.at(id);
      const bool certain = recovered.certainty == Certainty::kCertain;
      in_doubt = in_doubt || !certain;
      for (const auto& [index, entry] : group.entries) {
        if (entry.type == EntryType::kHole) continue;
        const auto written = once.find({id, index, entry.term.value()});
        ASSERT_NE(written, once.end()) << seed;
        ASSERT_EQ(written->second, entry) << seed;
        if (!certain) continue;
        ASSERT_TRUE(truth.groups[id].entries.contains(index)) << seed;
        ASSERT_EQ(truth.groups[id].entries[index], entry) << seed;
      }
      if (!certain) continue;
      ASSERT_EQ(group.last, truth.groups[id].last) << seed;
      ASSERT_EQ(group.vote, truth.groups[id].vote) << seed;
      ASSERT_EQ(group.entries.size(), truth.groups[id].entries.size()) << seed;
    }
    uncertain += in_doubt ? 1 : 0;
    holes += !in_doubt && !opened->recovery.holes.empty() ? 1 : 0;
    sound += !in_doubt && opened->recovery.holes.empty() ? 1 : 0;
    if (opened->recovery.holes.empty() && !in_doubt) {
      EXPECT_EQ(difference(truth, found), "") << seed;
    }
  }
  fmt::print("rot at rest: {} sound, {} with holes, {} uncertain\n", sound, holes, uncertain);
  EXPECT_GT(holes, 10U);
}

}  // namespace
}  // namespace conclave::wal
