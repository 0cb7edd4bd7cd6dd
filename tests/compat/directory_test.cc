// A data directory as a server of level 1 left it: identity, segments with a vote, entries and a commit mark, a
// snapshot. It is written here by the calls that the server makes, so that it can be written again; what lies in
// golden/1/data was written once, and is opened by each later build. server_test.py starts the server itself on it.
#include <gtest/gtest.h>

#include "base/crc32c.h"
#include "keyspace/interface.h"
#include "keyspace/snapshot.h"
#include "node/storage.h"
#include "server/identity.h"
#include "sim/trace_disk.h"
#include "tests/compat/golden.h"
#include "tests/compat/values.h"

namespace conclave::compat {
namespace {

using sim::TraceDisk;
using sim::TraceImage;

constexpr std::string_view kData = "data";
constexpr GroupId kGroup{1};
const NodeId kSelf = node_id_of("n1");
const wal::Owner kOwner{.cluster = ClusterId(0x1122334455667788), .node = kSelf};
constexpr Boot kBoot{1'764'115'200'000};
constexpr Term kVoteTerm{2};
// As many commands as the snapshot holds; those behind it are in the log alone.
constexpr size_t kInSnapshot = 9;
constexpr LogIndex kReleased{4};

class StandingClock final : public env::Clock {
 public:
  [[nodiscard]] Instant now() override { return Instant(); }
  [[nodiscard]] int64_t wall_milliseconds() override { return 0; }
};

Membership alone() {
  return Membership::of_voters({&kSelf, 1});
}

node::StorageOptions options() {
  return {.owner = kOwner, .segment_bytes = wal::kSegmentBytesMin, .compress_snapshots = false};
}

void work(node::Storage& storage, node::StorageJob job) {
  std::vector<node::StorageResult> results;
  storage.add(std::move(job));
  while (storage.has_work()) {
    const Status done = storage.work(results);
    ASSERT_TRUE(done) << done.error().message;
  }
}

Position command_at(size_t i) {
  return {.term = kTerm, .index = kFirstCommand + i};
}

TraceImage write_directory() {
  TraceDisk disk;
  StandingClock clock;
  EXPECT_TRUE(
      server::write_identity(disk, {.cluster = kOwner.cluster, .node = kOwner.node, .name = "n1", .boot = kBoot}));
  {
    auto opened = node::Storage::open(disk, clock, options()).value();
    node::Storage& storage = *opened.storage;
    uint64_t sequence = 0;
    const auto persist = [&](wal::Batch batch) {
      work(storage,
           node::PersistJob{.group = kGroup, .sequence = WriteSequence(++sequence), .batch = std::move(batch)});
    };
    persist(node::Storage::bootstrap_batch(kGroup, kSelf, alone()));
    const std::vector<WrittenCommand> commands = written_commands();
    for (size_t i = 0; i < commands.size(); ++i) {
      if (i == kInSnapshot) {
        keyspace::Keyspace keyspace;
        apply_commands(keyspace, 0, kInSnapshot);
        std::string content;
        keyspace::SnapshotReader reader(keyspace);
        while (!reader.read(content)) {
        }
        const SnapshotMark mark{.last = command_at(i - 1), .membership = alone()};
        work(storage, node::SnapshotBeginJob{.group = kGroup, .mark = mark});
        work(storage, node::SnapshotContentJob{.group = kGroup, .content = std::move(content), .last = true});
        wal::Batch batch;
        batch.snapshot(kGroup, mark);
        batch.commit(kGroup, mark.last.index, {});
        batch.release(kGroup, kReleased);
        persist(std::move(batch));
      }
      wal::Batch batch;
      batch.append(
          kGroup,
          {.index = command_at(i).index, .term = kTerm, .type = EntryType::kCommand, .payload = commands[i].bytes()});
      persist(std::move(batch));
    }
    wal::Batch batch;
    batch.vote(kGroup, {.term = kVoteTerm, .candidate = kSelf, .incarnation = Incarnation(1)});
    batch.append(kGroup, {.index = command_at(commands.size()).index, .term = kVoteTerm, .type = EntryType::kNoop});
    persist(std::move(batch));
    std::vector<node::StorageResult> results;
    while (storage.idle(true, results).value()) {
    }
  }
  return disk.current();
}

TraceImage golden_directory() {
  TraceImage image;
  image.directories = {"wal", "snapshots"};
  image.files = read_golden_directory(kData);
  return image;
}

TEST(Directory, IsWrittenAsItWas) {
  const TraceImage image = write_directory();
  if (is_rewriting()) {
    for (const auto& [path, bytes] : image.files) expect_golden(std::string(kData) + "/" + path, bytes);
  }
  const auto golden = read_golden_directory(kData);
  EXPECT_EQ(golden.size(), image.files.size());
  for (const auto& [path, bytes] : image.files) {
    ASSERT_TRUE(golden.contains(path)) << path;
    EXPECT_TRUE(golden.at(path) == bytes) << path << ": other bytes than were written once";
  }
}

TEST(Directory, WhatWasWrittenIsOpened) {
  TraceDisk disk(golden_directory());
  StandingClock clock;
  const auto identity = server::read_identity(disk);
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->cluster, kOwner.cluster);
  EXPECT_EQ(identity->node, kOwner.node);
  EXPECT_EQ(identity->name, "n1");
  EXPECT_EQ(identity->boot, kBoot);

  auto opened = node::Storage::open(disk, clock, options());
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_FALSE(opened->discarded) << opened->discard_reason;
  EXPECT_TRUE(opened->recovery.findings.empty());
  EXPECT_GT(opened->recovery.segments, 1U);
  ASSERT_EQ(opened->replicas.size(), 1U);
  node::FoundReplica& found = opened->replicas.at(kGroup);
  const Recovered& recovered = found.recovered;
  const size_t count = written_commands().size();
  EXPECT_EQ(recovered.certainty, Certainty::kCertain);
  EXPECT_EQ(recovered.vote, (Vote{.term = kVoteTerm, .candidate = kSelf, .incarnation = Incarnation(1)}));
  EXPECT_EQ(recovered.snapshot, (SnapshotMark{.last = command_at(kInSnapshot - 1), .membership = alone()}));
  EXPECT_EQ(recovered.commit, command_at(kInSnapshot - 1).index);
  EXPECT_EQ(recovered.last, (Position{.term = kVoteTerm, .index = command_at(count).index}));
  EXPECT_EQ(found.keyspace->applied(), command_at(kInSnapshot - 1).index);

  // The state of the snapshot and the log's entries behind it are the state of all commands.
  for (const Entry& entry : recovered.entries) {
    if (entry.index <= found.keyspace->applied() || entry.type != EntryType::kCommand) continue;
    bool done = found.keyspace->apply(entry.index, entry.term, entry.payload);
    while (!done) done = found.keyspace->run_slice();
    EXPECT_EQ(found.keyspace->reply().error, keyspace::ErrorId::kNone) << entry.index.value();
  }
  keyspace::Keyspace applied;
  apply_commands(applied, 0, count);
  EXPECT_EQ(found.keyspace->digest(), applied.digest());
  EXPECT_EQ(keyspace::KeyspaceView(*found.keyspace).get("last")->value, "the newest");
}

// The checksum behind the manifest's length, made right again as a later build would have it.
void raise_manifest_version(std::string& bytes) {
  ++bytes[4];
  const size_t covered = load_le<uint32_t>(bytes.data() + 8) - 4;
  store_le(bytes.data() + covered, crc32c(ByteView(bytes).substr(0, covered)));
}

// It is not damage, so nothing is thrown away: the build that wrote it goes on.
TEST(Directory, OneOfALaterVersionIsRefusedAndLeftAsItIs) {
  TraceImage image = golden_directory();
  raise_manifest_version(image.files.at("wal/manifest-a"));
  raise_manifest_version(image.files.at("wal/manifest-b"));
  TraceDisk disk(image);
  StandingClock clock;
  const auto opened = node::Storage::open(disk, clock, options());
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kVersion);
  EXPECT_EQ(opened.error().message, "manifest of version 2");
  EXPECT_EQ(disk.current().hash(), image.hash());
}

}  // namespace
}  // namespace conclave::compat
