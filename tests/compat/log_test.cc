// The log and the snapshot files, as they were frozen: bytes that were written once must be read for ever, and the same
// calls must write the same bytes.
#include <algorithm>
#include <array>

#include <gtest/gtest.h>

#include "base/crc32c.h"
#include "sim/trace_disk.h"
#include "tests/compat/golden.h"
#include "tests/compat/values.h"
#include "wal/head.h"
#include "wal/inspect.h"
#include "wal/log.h"
#include "wal/record.h"
#include "wal/snapshot.h"

namespace conclave::compat {
namespace {

using namespace wal;  // NOLINT(google-build-using-namespace): all that is tested here is of it
using sim::TraceDisk;
using sim::TraceImage;

const Owner kOwner{.cluster = ClusterId(0x1122334455667788), .node = NodeId(3)};
constexpr uint64_t kSegmentBytes = uint64_t{16} << 10;
constexpr std::array kFiles = {"wal/segment-00000001", "wal/manifest-a", "wal/manifest-b",
                               "snapshots/0000000000000001-0000000000000003-0000000000000002.snapshot"};

// The name under golden/1.
std::string golden_name(const std::string& file) {
  return "log/" + file.substr(file.rfind('/') + 1);
}

Entry entry(uint64_t index, uint64_t term, EntryType type, std::string_view payload) {
  return {.index = LogIndex(index), .term = Term(term), .type = type, .payload = SharedBytes::copy_of(payload)};
}

// Every kind of record once.
TraceImage write_all() {
  TraceDisk disk;
  {
    auto opened = Log::open(disk, {.owner = kOwner, .segment_bytes = kSegmentBytes}).value();
    Batch batch;
    const GroupId group(1);
    std::string encoded;
    three_voters().encode(encoded);
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
    batch.snapshot(group, {.last = {.term = Term(2), .index = LogIndex(3)}, .membership = three_voters()});
    batch.append(group, entry(4, 2, EntryType::kCommand, "four"));
    batch.append(group, entry(5, 2, EntryType::kCommand, "five"));
    batch.truncate(group, LogIndex(5));
    batch.release(group, LogIndex(2));
    batch.fill(group, entry(3, 2, EntryType::kCommand, std::string(1000, 'c')));
    batch.install(GroupId(5), {.last = {.term = Term(7), .index = LogIndex(70)}, .membership = three_voters()});
    EXPECT_TRUE(opened.log->write(batch));
    EXPECT_TRUE(opened.log->idle_mark());
  }
  auto writer =
      SnapshotWriter::begin(disk,
                            {.cluster = kOwner.cluster,
                             .group = GroupId(1),
                             .mark = {.last = {.term = Term(2), .index = LogIndex(3)}, .membership = three_voters()}},
                            false)
          .value();
  EXPECT_TRUE(writer->append("the state of the keyspace, in slices"));
  EXPECT_TRUE(writer->finish());
  return disk.current();
}

TEST(Log, TheSameCallsWriteTheSameBytes) {
  const TraceImage image = write_all();
  for (const std::string file : kFiles) {
    ASSERT_TRUE(image.files.contains(file)) << file;
    expect_golden(golden_name(file), image.files.at(file));
  }
}

TEST(Log, StoredBytesAreRead) {
  TraceImage image;
  image.directories = {"wal", "snapshots"};
  for (const std::string file : kFiles) {
    image.files[file] = read_golden(golden_name(file));
    ASSERT_FALSE(image.files[file].empty()) << file;
  }
  TraceDisk disk(image);
  const auto survey = survey_snapshots(disk);
  ASSERT_TRUE(survey) << survey.error().message;
  ASSERT_EQ(survey->good.size(), 1U);
  EXPECT_EQ(survey->good[0].mark.membership, three_voters());
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
  EXPECT_EQ(group.snapshot.membership, three_voters());
  EXPECT_EQ(group.commit, LogIndex(3));
  EXPECT_EQ(group.floors.at(0).last.index, LogIndex(3));
  EXPECT_EQ(recovery.groups[1].last, (Position{.term = Term(7), .index = LogIndex(70)}));
  EXPECT_EQ(recovery.groups[2].entries.at(0).payload.view(), "another group");
}

// ---- Parts of the log that the calls above do not show ----

const std::string kParts = "log/parts.txt";
constexpr std::string_view kPartsAre =
    "Heads, manifests, records and floors: docs/internals/formats/log.md, manifest.md";
constexpr uint32_t kSeed = 0x1234;

Manifest written_manifest() {
  Manifest manifest{.owner = kOwner, .generation = 12, .segment_bytes = uint64_t{64} << 20};
  manifest.segments.push_back({.sequence = 300, .slot = 1, .first_number = 70'000, .sealed = true, .end_sector = 640});
  manifest.segments.push_back({.sequence = 301, .slot = 200, .first_number = 90'000, .all_uncertain = true});
  manifest.segments.back().doubts.push_back(
      {.group = GroupId(1), .certainty = Certainty::kLastUncertain, .doubted = Incarnation(2)});
  manifest.segments.back().doubts.push_back(
      {.group = GroupId(300), .certainty = Certainty::kRolledBack, .doubted = Incarnation(1'764'115'200'000)});
  return manifest;
}

GroupState written_group() {
  GroupState state;
  state.group = GroupId(300);
  state.vote = {.term = Term(129), .candidate = NodeId(0x8000000000000003), .incarnation = Incarnation(2)};
  state.mark = {.term = Term(100), .index = LogIndex(40'000)};
  state.released = LogIndex(30'000);
  state.last = {.term = Term(128), .index = LogIndex(70'000)};
  state.commit = LogIndex(69'999);
  state.terms = {{.first = LogIndex(20'000), .term = Term(100)}, {.first = LogIndex(60'000), .term = Term(128)}};
  state.terms_cut = true;
  state.certainty = Certainty::kVoteUncertain;
  state.doubted = Incarnation(2);
  state.membership = "a membership";
  state.floors = "floors";
  return state;
}

// A change of each kind.
Head written_head(bool base) {
  Head head{.base = base, .full = base, .number = 90'001, .previous_number = 90'000, .sequence = 301, .slot = 200};
  head.start_sector = 16;
  head.sectors = 8;
  head.records = 4;
  head.body_bytes = 1000;
  const GroupId group(300);
  const LogIndex index(70'001);
  const Term term(129);
  head.changes = {
      {.kind = ChangeKind::kEntries, .group = group, .index = index, .term = term, .count = 3},
      {.kind = ChangeKind::kFill, .group = group, .index = LogIndex(50'000), .term = Term(100), .count = 1},
      {.kind = ChangeKind::kTruncate, .group = group, .index = LogIndex(70'003)},
      {.kind = ChangeKind::kVote,
       .group = group,
       .term = term,
       .candidate = NodeId(2),
       .incarnation = Incarnation(3),
       .promises = true},
      {.kind = ChangeKind::kSnapshot, .group = group, .index = index, .term = term, .bytes = "a membership"},
      {.kind = ChangeKind::kInstall, .group = group, .index = index, .term = term, .bytes = "another"},
      {.kind = ChangeKind::kRelease, .group = group, .index = LogIndex(40'000)},
      {.kind = ChangeKind::kCommit, .group = group, .index = index, .bytes = "floors"},
      {.kind = ChangeKind::kConfiguration, .group = group, .index = index, .term = term, .bytes = "a configuration"},
  };
  return head;
}

constexpr RecordHeader kRecord{.payload_bytes = 17,
                               .payload_checksum = 0x12345678,
                               .group = GroupId(300),
                               .term = Term(129),
                               .index = LogIndex(70'001),
                               .ordinal = 2,
                               .type = EntryType::kConfiguration,
                               .kind = ChangeKind::kFill};

std::vector<Floor> written_floors() {
  return {{.node = NodeId(2),
           .boot = Boot(1'764'115'200'000),
           .incarnation = Incarnation(2),
           .term = Term(129),
           .last = {.term = Term(128), .index = LogIndex(70'000)}},
          {.node = NodeId(0x8000000000000003)}};
}

Named written_parts() {
  Named parts;
  encode_manifest(written_manifest(), parts.emplace_back("manifest", "").second);
  const GroupState group = written_group();
  const std::array<const GroupState*, 1> directory = {&group};
  encode_head(written_head(false), directory, kSeed, parts.emplace_back("head", "").second);
  encode_head(written_head(true), directory, kSeed, parts.emplace_back("head_base", "").second);
  std::array<char, kRecordHeaderBytes> record{};
  encode_record_header(kRecord, record.data());
  parts.emplace_back("record", std::string(record.data(), record.size()));
  encode_floors(written_floors(), parts.emplace_back("floors", "").second);
  return parts;
}

TEST(LogParts, AreWrittenAsTheyWere) {
  expect_golden_text(kParts, kPartsAre, written_parts());
}

void expect_group(const GroupState& group, bool base) {
  const GroupState written = written_group();
  EXPECT_EQ(group.group, written.group);
  EXPECT_EQ(group.vote, written.vote);
  EXPECT_EQ(group.mark, written.mark);
  EXPECT_EQ(group.released, written.released);
  EXPECT_EQ(group.last, written.last);
  EXPECT_EQ(group.commit, written.commit);
  EXPECT_EQ(group.terms, written.terms);
  EXPECT_EQ(group.terms_cut, written.terms_cut);
  EXPECT_EQ(group.certainty, written.certainty);
  EXPECT_EQ(group.doubted, written.doubted);
  EXPECT_EQ(group.membership, base ? written.membership : "");
  EXPECT_EQ(group.floors, base ? written.floors : "");
}

void expect_change(const Change& change, const Change& written) {
  EXPECT_EQ(change.kind, written.kind);
  EXPECT_EQ(change.group, written.group);
  EXPECT_EQ(change.index, written.index);
  EXPECT_EQ(change.term, written.term);
  EXPECT_EQ(change.count, written.count);
  EXPECT_EQ(change.candidate, written.candidate);
  EXPECT_EQ(change.incarnation, written.incarnation);
  EXPECT_EQ(change.promises, written.promises);
  EXPECT_EQ(change.bytes, written.bytes);
}

TEST(LogParts, WhatWasWrittenIsRead) {
  const auto golden = read_golden_text(kParts);
  EXPECT_EQ(decode_manifest(golden.at("manifest")).value(), written_manifest());
  EXPECT_EQ(decode_record_header(golden.at("record")).value(), kRecord);
  EXPECT_EQ(decode_floors(golden.at("floors")).value(), written_floors());
  for (const bool base : {false, true}) {
    const Head written = written_head(base);
    Head head;
    const Status decoded = decode_head(golden.at(base ? "head_base" : "head"), kSeed, head);
    ASSERT_TRUE(decoded) << decoded.error().message;
    EXPECT_EQ(head.base, written.base);
    EXPECT_EQ(head.full, written.full);
    EXPECT_FALSE(head.idle);
    EXPECT_EQ(head.number, written.number);
    EXPECT_EQ(head.previous_number, written.previous_number);
    EXPECT_EQ(head.sequence, written.sequence);
    EXPECT_EQ(head.slot, written.slot);
    EXPECT_EQ(head.start_sector, written.start_sector);
    EXPECT_EQ(head.sectors, written.sectors);
    EXPECT_EQ(head.body_bytes, written.body_bytes);
    EXPECT_EQ(head.records, written.records);
    ASSERT_EQ(head.directory.size(), 1U);
    expect_group(head.directory.front(), base);
    ASSERT_EQ(head.changes.size(), written.changes.size());
    for (size_t i = 0; i < head.changes.size(); ++i) expect_change(head.changes[i], written.changes[i]);
  }
}

// The checksum made right again, as a later build would have it.
void seal(std::string& bytes, uint32_t seed) {
  const size_t covered = bytes.size() - 4;
  store_le(bytes.data() + covered, crc32c(ByteView(bytes).substr(0, covered), seed));
}

TEST(LogParts, ALaterVersionIsRefused) {
  const auto golden = read_golden_text(kParts);
  std::string bytes = golden.at("manifest");
  ++bytes[4];
  seal(bytes, 0);
  const auto manifest = decode_manifest(bytes);
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, ErrorCode::kVersion);
  EXPECT_EQ(manifest.error().message, "manifest of version 2");
  bytes = golden.at("head");
  ++bytes[8];
  seal(bytes, kSeed);
  Head head;
  const Status decoded = decode_head(bytes, kSeed, head);
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().code, ErrorCode::kVersion);
  EXPECT_EQ(decoded.error().message, "head of version 2");
}

// ---- Snapshot files ----

SnapshotHeader snapshot_header() {
  return {.cluster = kOwner.cluster,
          .group = GroupId(1),
          .mark = {.last = {.term = Term(2), .index = LogIndex(3)}, .membership = joint_membership()}};
}
constexpr std::string_view kCompressed = "log/compressed.snapshot";
// Two blocks and a part of one, which shrink to little.
std::string snapshot_content() {
  std::string content;
  while (content.size() < 2 * kSnapshotBlockBytes + 1000) content += "the state of the keyspace, again and again; ";
  return content;
}

// What a compressor makes of the content may change with its version, so these bytes are only read.
TEST(SnapshotFile, ACompressedOneIsRead) {
  if (is_rewriting()) {
    TraceDisk disk;
    auto writer = SnapshotWriter::begin(disk, snapshot_header(), true).value();
    EXPECT_TRUE(writer->append(snapshot_content()));
    EXPECT_TRUE(writer->finish());
    expect_golden(kCompressed, disk.current().files.at(kFiles.back()));
  }
  TraceImage image;
  image.directories = {"snapshots"};
  image.files[kFiles.back()] = read_golden(kCompressed);
  TraceDisk disk(image);
  const auto reader = SnapshotReader::open_path(disk, kFiles.back());
  ASSERT_TRUE(reader) << reader.error().message;
  EXPECT_EQ((*reader)->header(), snapshot_header());
  std::string content;
  std::string block;
  while ((*reader)->next(block).value()) content += block;
  EXPECT_TRUE(content == snapshot_content());
  EXPECT_LT(image.files[kFiles.back()].size(), snapshot_content().size() / 10);
}

TEST(SnapshotFile, ALaterVersionIsRefused) {
  TraceImage image;
  image.directories = {"snapshots"};
  image.files[kFiles.back()] = read_golden(kCompressed);
  ++image.files[kFiles.back()][4];
  TraceDisk disk(image);
  const auto reader = SnapshotReader::open_path(disk, kFiles.back());
  ASSERT_FALSE(reader);
  EXPECT_EQ(reader.error().code, ErrorCode::kVersion);
  EXPECT_NE(reader.error().message.find("snapshot of version 2"), std::string::npos) << reader.error().message;
}

}  // namespace
}  // namespace conclave::compat
