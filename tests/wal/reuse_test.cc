// Segments used again, and segments let go: no batch number comes twice, so that nothing an earlier use of a slot left
// is taken for what this use wrote; and what only an old segment holds is not lost with it.
#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/random.h"
#include "sim/trace_disk.h"
#include "tests/wal/model.h"
#include "wal/log.h"
#include "wal/manifest.h"
#include "wal/sector.h"

namespace conclave::wal {
namespace {

using sim::TraceDisk;
using sim::TraceImage;

const Owner kOwner{.cluster = ClusterId(7), .node = NodeId(3)};
const GroupId kGroup(1);
constexpr uint64_t kSegmentBytes = uint64_t{32} << 10;
constexpr uint64_t kBlocks = kSegmentBytes / kBlockBytes;

LogOptions options() {
  return {.owner = kOwner, .segment_bytes = kSegmentBytes};
}

Entry command(uint64_t index, uint64_t term) {
  return {.index = LogIndex(index),
          .term = Term(term),
          .type = EntryType::kCommand,
          .payload = SharedBytes::copy_of(std::string(100, static_cast<char>('a' + index % 26)))};
}

Vote vote_of(uint64_t term) {
  return {.term = Term(term), .candidate = NodeId(2), .incarnation = Incarnation(1)};
}

// The sectors of segments that differ, by the batch number they carry now.
std::vector<uint64_t> numbers_written(const TraceImage& before, const TraceImage& now) {
  const uint32_t seed = checksum_seed(kOwner);
  std::vector<uint64_t> numbers;
  for (const auto& [path, content] : now.files) {
    const auto old = before.files.find(path);
    if (!path.starts_with("wal/segment-") || old == before.files.end()) continue;
    for (size_t at = 0; at + kSectorBytes <= std::min(content.size(), old->second.size()); at += kSectorBytes) {
      if (content.compare(at, kSectorBytes, old->second, at, kSectorBytes) == 0) continue;
      numbers.push_back(number_of_stamp(seed, load_le<uint64_t>(content.data() + at)));
    }
  }
  return numbers;
}

TEST(Reuse, NoBatchNumberComesTwice) {
  // Lives of every length, so that a segment is left at every fill, the full one with it.
  TraceDisk disk;
  uint64_t highest = 0;
  uint64_t index = 0;
  uint64_t batches = 0;
  Batch batch;
  for (uint64_t life = 0; life < 40; ++life) {
    auto opened = Log::open(disk, options()).value();
    for (uint64_t i = 0; i <= life % (2 * kBlocks + 3); ++i) {
      while (opened.log->maintain().value()) {
      }
      const TraceImage before = disk.current();
      batch.clear();
      batch.append(kGroup, command(++index, 1));
      if (index > 3) batch.release(kGroup, LogIndex(index - 3));
      ASSERT_TRUE(opened.log->write(batch));
      const std::vector<uint64_t> numbers = numbers_written(before, disk.current());
      ASSERT_EQ(numbers.size(), kSectorsPerBlock);
      for (const uint64_t number : numbers) ASSERT_EQ(number, numbers.front());
      ASSERT_GT(numbers.front(), highest) << "life " << life << " batch " << i;
      highest = numbers.front();
      ++batches;
    }
  }
  EXPECT_GT(batches, 300U);
}

TEST(Reuse, WhatAnEarlierUseLeftAttestsNothing) {
  // A segment filled to its end keeps its size, so it is used again with all it held; starts between the two uses that
  // wrote little bring the numbers of both as near to each other as they can come. In the use that follows, each batch
  // is cut in its middle: what stands behind it must not make it a hole.
  for (uint64_t starts = 0; starts < kBlocks + 2; ++starts) {
    TraceDisk disk;
    uint64_t index = 0;
    Batch batch;
    const auto write = [&](Log& log, bool release) {
      batch.clear();
      batch.append(kGroup, command(++index, 1));
      if (release) batch.release(kGroup, LogIndex(index));
      ASSERT_TRUE(log.write(batch));
    };
    {
      auto opened = Log::open(disk, options()).value();
      for (uint64_t i = 0; i < kBlocks; ++i) write(*opened.log, false);
      ASSERT_EQ(opened.log->space().live_segments, 1U);
    }
    for (uint64_t i = 0; i < starts; ++i) {
      auto opened = Log::open(disk, options()).value();
      write(*opened.log, true);
      // Takes the full segment back: the next start uses it.
      while (opened.log->maintain().value()) {
      }
    }
    auto log = Log::open(disk, options()).value().log;
    for (uint64_t i = 0; i < 4 * kBlocks; ++i) {
      TraceImage torn;
      disk.set_hook([&](std::string_view call) {
        if (call != "write_durable") return;
        // Half of the batch, the head among it.
        std::vector<bool> kept(disk.unsynced());
        for (size_t piece = 0; piece < kept.size() / 2; ++piece) kept[piece] = true;
        torn = disk.crash(kept);
      });
      write(*log, true);
      disk.set_hook({});
      TraceDisk after(torn);
      const auto opened = Log::open(after, options());
      ASSERT_TRUE(opened) << opened.error().message;
      ASSERT_TRUE(opened->recovery.holes.empty()) << starts << " starts, batch " << i;
      ASSERT_FALSE(opened->recovery.unknown_groups) << starts << " starts, batch " << i;
      ASSERT_EQ(opened->recovery.groups.at(0).certainty, Certainty::kCertain) << starts << " starts, batch " << i;
      ASSERT_EQ(opened->recovery.groups.at(0).last.index, LogIndex(index - 1)) << starts << " starts, batch " << i;
    }
  }
}

TEST(Reuse, AVoteOutlivesTheSegmentsItWasWrittenIn) {
  // Nothing here keeps a segment but what only a base repeats. Power is lost at every storage call.
  TraceDisk disk;
  uint64_t acknowledged = 0;
  uint64_t under_way = 0;
  uint64_t crashes = 0;
  std::vector<uint32_t> slots;
  uint64_t let_go = 0;
  Random random(1);
  const auto check = [&](const TraceImage& image, std::string_view call) {
    ++crashes;
    TraceDisk after(image);
    const auto opened = Log::open(after, options());
    ASSERT_TRUE(opened) << call << ": " << opened.error().message;
    if (acknowledged == 0 && opened->recovery.groups.empty()) return;
    ASSERT_EQ(opened->recovery.groups.size(), 1U) << call << " of term " << under_way;
    const Recovered& group = opened->recovery.groups[0];
    ASSERT_EQ(group.certainty, Certainty::kCertain) << call;
    ASSERT_TRUE(group.vote == vote_of(acknowledged) || group.vote == vote_of(under_way)) << call;
  };
  disk.set_hook([&](std::string_view call) {
    if (testing::Test::HasFatalFailure()) return;
    std::vector<bool> kept(disk.unsynced());
    check(disk.crash(kept), call);
    kept.flip();
    check(disk.crash(kept), call);
    for (int n = 0; n < 8; ++n) {
      for (auto&& keep : kept) keep = random.coin();
      check(disk.crash(kept), call);
    }
  });
  std::unique_ptr<Log> log;
  Batch batch;
  for (uint64_t term = 1; term <= 6 * kBlocks && !HasFatalFailure(); ++term) {
    if (log == nullptr || term % 21 == 0) {
      log.reset();
      log = Log::open(disk, options()).value().log;
    }
    if (term % 3 == 0) {
      ASSERT_TRUE(log->maintain());
    }
    under_way = term;
    batch.clear();
    batch.vote(kGroup, vote_of(term));
    ASSERT_TRUE(log->write(batch));
    acknowledged = term;
    const Manifest manifest = decode_manifest(disk.current().files.at("wal/manifest-a")).value();
    std::vector<uint32_t> now;
    now.reserve(manifest.segments.size());
    for (const ManifestSegment& segment : manifest.segments) now.push_back(segment.slot);
    for (const uint32_t slot : slots) let_go += std::ranges::find(now, slot) == now.end() ? 1 : 0;
    slots = now;
  }
  EXPECT_GT(let_go, 3U);
  EXPECT_GT(crashes, 500U);
}

TEST(Reuse, ASegmentStaysWhileTheBaseBehindItCannotBeRead) {
  // The membership stands in the first segment and in the base of the second, which rots. Later batches tell of the
  // vote; of the membership nothing but the first segment does, until a base is written anew.
  const std::array ids = {NodeId(1), NodeId(2), NodeId(3)};
  const SnapshotMark mark{.last = {.term = Term(1), .index = LogIndex(5)}, .membership = Membership::of_voters(ids)};
  TraceDisk disk;
  Batch batch;
  {
    auto opened = Log::open(disk, options()).value();
    batch.install(kGroup, mark);
    batch.vote(kGroup, vote_of(1));
    ASSERT_TRUE(opened.log->write(batch));
  }
  {
    auto opened = Log::open(disk, options()).value();
    for (uint64_t term = 2; term <= 3; ++term) {
      batch.clear();
      batch.vote(kGroup, vote_of(term));
      ASSERT_TRUE(opened.log->write(batch));
    }
  }
  TraceImage image = disk.current();
  const Manifest manifest = decode_manifest(image.files.at("wal/manifest-a")).value();
  ASSERT_EQ(manifest.segments.size(), 2U);
  std::string& second = image.files.at(segment_path(manifest.segments[1].slot));
  for (size_t at = 0; at < kBlockBytes; ++at) second[at] = static_cast<char>(second[at] ^ 0x55);
  TraceDisk rotten(image);
  const auto expect_all = [&](const Recovery& recovery) {
    ASSERT_EQ(recovery.groups.size(), 1U);
    const Recovered& group = recovery.groups[0];
    EXPECT_EQ(group.certainty, Certainty::kCertain);
    EXPECT_EQ(group.vote, vote_of(3));
    EXPECT_EQ(group.snapshot.last, mark.last);
    EXPECT_EQ(group.snapshot.membership, mark.membership);
  };
  {
    auto opened = Log::open(rotten, options()).value();
    expect_all(opened.recovery);
    EXPECT_FALSE(opened.recovery.findings.empty());
    while (opened.log->maintain().value()) {
    }
    EXPECT_EQ(opened.log->space().live_segments, 3U);
  }
  {
    auto opened = Log::open(rotten, options()).value();
    expect_all(opened.recovery);
    // The base written now says it all again: with the next segment begun, the old ones go.
    for (uint64_t i = 0; i <= kBlocks; ++i) {
      batch.clear();
      batch.vote(kGroup, vote_of(3));
      ASSERT_TRUE(opened.log->write(batch));
    }
    EXPECT_EQ(opened.log->space().live_segments, 2U);
  }
  expect_all(Log::open(rotten, options()).value().recovery);
}

}  // namespace
}  // namespace conclave::wal
