// Golden files of the log: bytes that were written once must be read forever, and the same calls must write the same
// bytes. After a deliberate change of a format: CONCLAVE_REWRITE_GOLDEN=1 rewrites them; look at the difference.
#include <array>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "sim/trace_disk.h"
#include "wal/log.h"
#include "wal/snapshot.h"

namespace conclave::wal {
namespace {

using sim::TraceDisk;
using sim::TraceImage;

const Owner kOwner{.cluster = ClusterId(0x1122334455667788), .node = NodeId(3)};
constexpr uint64_t kSegmentBytes = uint64_t{16} << 10;
constexpr std::array kFiles = {"wal/segment-00000001", "wal/manifest-a", "wal/manifest-b",
                               "snapshots/0000000000000001-0000000000000003-0000000000000002.snapshot"};

// The name under tests/format/wal.
std::string stored_path(const std::string& file) {
  return "wal/" + file.substr(file.rfind('/') + 1) + ".golden";
}

std::string read_stored(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

Entry entry(uint64_t index, uint64_t term, EntryType type, std::string_view payload) {
  return {.index = LogIndex(index), .term = Term(term), .type = type, .payload = SharedBytes::copy_of(payload)};
}

Membership membership() {
  const std::array ids = {NodeId(1), NodeId(2), NodeId(3)};
  return Membership::of_voters(ids);
}

// Every kind of record once.
TraceImage write_all() {
  TraceDisk disk;
  {
    auto opened = Log::open(disk, {.owner = kOwner, .segment_bytes = kSegmentBytes}).value();
    Batch batch;
    const GroupId group(1);
    std::string encoded;
    membership().encode(encoded);
    batch.vote(group, {.term = Term(2), .candidate = NodeId(3), .incarnation = Incarnation(1), .promises = true});
    batch.append(group, entry(1, 1, EntryType::kNoop, ""));
    batch.append(group, entry(2, 2, EntryType::kConfiguration, encoded));
    batch.append(group, entry(3, 2, EntryType::kCommand, std::string(1000, 'c')));
    batch.append(GroupId(0xabcdef), entry(1, 1, EntryType::kCommand, "another group"));
    EXPECT_TRUE(opened.log->write(batch));
    batch.clear();
    const std::array floors = {Floor{.node = NodeId(2),
                                     .incarnation = Incarnation(1),
                                     .term = Term(2),
                                     .last = {.term = Term(2), .index = LogIndex(3)}}};
    batch.commit(group, LogIndex(3), floors);
    batch.snapshot(group, {.last = {.term = Term(2), .index = LogIndex(3)}, .membership = membership()});
    batch.append(group, entry(4, 2, EntryType::kCommand, "four"));
    batch.append(group, entry(5, 2, EntryType::kCommand, "five"));
    batch.truncate(group, LogIndex(5));
    batch.release(group, LogIndex(2));
    batch.fill(group, entry(3, 2, EntryType::kCommand, std::string(1000, 'c')));
    batch.install(GroupId(5), {.last = {.term = Term(7), .index = LogIndex(70)}, .membership = membership()});
    EXPECT_TRUE(opened.log->write(batch));
    EXPECT_TRUE(opened.log->idle_mark());
  }
  auto writer =
      SnapshotWriter::begin(disk,
                            {.cluster = kOwner.cluster,
                             .group = GroupId(1),
                             .mark = {.last = {.term = Term(2), .index = LogIndex(3)}, .membership = membership()}},
                            false)
          .value();
  EXPECT_TRUE(writer->append("the state of the keyspace, in slices"));
  EXPECT_TRUE(writer->finish());
  return disk.current();
}

TEST(WalFormat, TheSameCallsWriteTheSameBytes) {
  const TraceImage image = write_all();
  for (const std::string file : kFiles) {
    ASSERT_TRUE(image.files.contains(file)) << file;
    if (std::getenv("CONCLAVE_REWRITE_GOLDEN") != nullptr) {  // NOLINT(concurrency-mt-unsafe): one thread
      std::ofstream(stored_path(file), std::ios::binary) << image.files.at(file);
    }
    EXPECT_EQ(read_stored(stored_path(file)), image.files.at(file)) << file;
  }
}

TEST(WalFormat, StoredBytesAreRead) {
  TraceImage image;
  image.directories = {"wal", "snapshots"};
  for (const std::string file : kFiles) {
    image.files[file] = read_stored(stored_path(file));
    ASSERT_FALSE(image.files[file].empty()) << file;
  }
  TraceDisk disk(image);
  const auto survey = survey_snapshots(disk);
  ASSERT_TRUE(survey) << survey.error().message;
  ASSERT_EQ(survey->good.size(), 1U);
  EXPECT_EQ(survey->good[0].mark.membership, membership());
  auto reader = SnapshotReader::open(disk, list_snapshots(disk)->at(0)).value();
  std::string content;
  ASSERT_TRUE(reader->next(content).value());
  EXPECT_EQ(content, "the state of the keyspace, in slices");

  const auto opened = Log::open(disk, {.owner = kOwner, .segment_bytes = kSegmentBytes});
  ASSERT_TRUE(opened) << opened.error().message;
  const Recovery& recovery = opened->recovery;
  EXPECT_TRUE(recovery.findings.empty());
  ASSERT_EQ(recovery.groups.size(), 3U);
  const Recovered& group = recovery.groups[0];
  EXPECT_EQ(group.certainty, Certainty::kCertain);
  EXPECT_EQ(group.vote,
            (Vote{.term = Term(2), .candidate = NodeId(3), .incarnation = Incarnation(1), .promises = true}));
  ASSERT_EQ(group.entries.size(), 2U);
  EXPECT_EQ(group.entries[0], entry(3, 2, EntryType::kCommand, std::string(1000, 'c')));
  EXPECT_EQ(group.entries[1], entry(4, 2, EntryType::kCommand, "four"));
  EXPECT_EQ(group.snapshot.membership, membership());
  EXPECT_EQ(group.commit, LogIndex(3));
  EXPECT_EQ(group.floors.at(0).last.index, LogIndex(3));
  EXPECT_EQ(recovery.groups[1].last, (Position{.term = Term(7), .index = LogIndex(70)}));
  EXPECT_EQ(recovery.groups[2].entries.at(0).payload.view(), "another group");
}

}  // namespace
}  // namespace conclave::wal
