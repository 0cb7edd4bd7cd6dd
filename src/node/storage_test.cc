#include "node/storage.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include <gtest/gtest.h>

#include "base/random.h"
#include "env/posix/clock.h"
#include "env/posix/disk.h"
#include "keyspace/command.h"
#include "node/testing/watched_disk.h"

namespace conclave::node {
namespace {

constexpr GroupId kGroup{1};
constexpr ClusterId kCluster{7};

Entry command(uint64_t index, uint64_t term, size_t bytes = 20) {
  return {.index = LogIndex(index),
          .term = Term(term),
          .type = EntryType::kCommand,
          .payload = SharedBytes::copy_of(std::string(bytes, static_cast<char>('a' + index % 26)))};
}

// One server's directory and what runs on it.
class Server {
 public:
  explicit Server(uint64_t id) : id_(id) {
    std::string pattern = ::testing::TempDir() + "conclave-storage-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
    posix_ = env::PosixDisk::open_directory(path_).value();
    disk.emplace(*posix_);
    start();
  }
  ~Server() {
    storage.reset();
    std::filesystem::remove_all(path_);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // The process ends, and another begins.
  void start() {
    storage.reset();
    found.reset();
    auto opened = Storage::open(
        *disk, clock_,
        {.owner = {.cluster = kCluster, .node = NodeId(id_)}, .segment_bytes = segment_bytes, .chunk_bytes = 100'000});
    ASSERT_TRUE(opened) << opened.error().message;
    storage = std::move(opened->storage);
    recovery = std::move(opened->recovery);
    discarded = opened->discarded;
    const auto at = opened->replicas.find(kGroup);
    if (at != opened->replicas.end()) found = std::move(at->second);
  }
  std::vector<StorageResult> work() {
    std::vector<StorageResult> results;
    const Status worked = storage->work(results);
    EXPECT_TRUE(worked || worked.error().code == ErrorCode::kNoSpace) << worked.error().message;
    return results;
  }
  std::vector<StorageResult> finish(StorageJob job) {
    storage->add(std::move(job));
    std::vector<StorageResult> all;
    while (storage->has_work()) {
      for (StorageResult& result : work()) all.push_back(std::move(result));
    }
    return all;
  }
  void persist(wal::Batch batch) {
    finish(PersistJob{.group = kGroup, .sequence = ++sequence, .batch = std::move(batch)});
  }
  void append(uint64_t from, uint64_t to, uint64_t term) {
    for (uint64_t index = from; index <= to; ++index) {
      wal::Batch batch;
      batch.append(kGroup, command(index, term));
      persist(std::move(batch));
    }
  }
  void bootstrap() { persist(Storage::bootstrap_batch(kGroup, NodeId(id_), membership())); }
  static Membership membership() {
    const std::array ids = {NodeId(1), NodeId(2)};
    return Membership::of_voters(ids);
  }
  // A snapshot of a state in which `values` keys stand, of about a KiB each.
  SnapshotMark take_snapshot(uint64_t term, uint64_t index, uint64_t values = 0) {
    keyspace::Keyspace keyspace;
    Random random(3);
    for (uint64_t i = 1; i <= values; ++i) {
      std::string value(1000, '\0');
      for (char& byte : value) byte = static_cast<char>(random.below(256));
      std::string body;
      ByteWriter writer(body);
      writer.fixed<uint8_t>(0x0a);
      writer.sized("key" + std::to_string(i));
      writer.fixed<uint8_t>(0x12);
      writer.sized(value);
      const SharedBytes bytes = keyspace::encode_command({.kind = keyspace::CommandKind::kPut, .term = Term(1)}, body);
      EXPECT_TRUE(keyspace.apply(LogIndex(i), Term(1), bytes));
      EXPECT_EQ(keyspace.reply().error, keyspace::ErrorId::kNone);
    }
    keyspace.skip(LogIndex(index));
    const SnapshotMark mark{.last = {.term = Term(term), .index = LogIndex(index)}, .membership = membership()};
    finish(SnapshotBeginJob{.group = kGroup, .mark = mark});
    keyspace::SnapshotReader reader(keyspace);
    bool stored = false;
    for (bool last = false; !last;) {
      SnapshotContentJob job{.group = kGroup};
      last = job.last = reader.read(job.content);
      for (const StorageResult& result : finish(std::move(job))) {
        stored = stored || std::holds_alternative<SnapshotStored>(result);
      }
    }
    EXPECT_TRUE(stored);
    return mark;
  }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

  std::optional<testing::WatchedDisk> disk;
  std::unique_ptr<Storage> storage;
  std::optional<FoundReplica> found;
  wal::Recovery recovery;
  bool discarded = false;
  WriteSequence sequence;
  uint64_t segment_bytes = uint64_t{256} << 10;

 private:
  uint64_t id_;
  std::string path_;
  env::PosixClock clock_;
  std::unique_ptr<env::PosixDisk> posix_;
};

ChunkRead read_chunk(Server& from, const SnapshotMark& mark, uint64_t offset) {
  auto results = from.finish(ChunkReadJob{.group = kGroup, .mark = mark, .offset = offset, .message = 1});
  EXPECT_EQ(results.size(), 1U);
  return std::get<ChunkRead>(std::move(results.at(0)));
}

// The snapshot is sent as the core's transfer does: chunk by chunk, from where the receiver says. Its install is not
// written.
void transfer(Server& from, Server& to, const SnapshotMark& mark) {
  uint64_t offset = 0;
  for (int chunks = 0; chunks < 1000; ++chunks) {
    const ChunkRead chunk = read_chunk(from, mark, offset);
    ASSERT_TRUE(chunk.found);
    const auto results = to.finish(ChunkStoreJob{.group = kGroup,
                                                 .from = NodeId(1),
                                                 .mark = mark,
                                                 .offset = offset,
                                                 .total = chunk.total,
                                                 .bytes = chunk.bytes});
    ASSERT_EQ(results.size(), 1U);
    const auto& stored = std::get<ChunkStored>(results.at(0));
    offset = stored.offset;
    if (stored.complete) return;
  }
  FAIL() << "the transfer does not end";
}

// (1) An old leader has entries of term 2 that were never committed; (2) the snapshot of the log that took their place
// comes whole; (3) it ends before the install is written.
TEST(Storage, ASnapshotReceivedAndNotInstalledIsNoPastOfAnotherLog) {
  Server leader(1);
  leader.bootstrap();
  const SnapshotMark mark = leader.take_snapshot(5, 9);
  Server follower(2);
  follower.bootstrap();
  follower.append(2, 10, 2);
  transfer(leader, follower, mark);
  follower.start();
  ASSERT_TRUE(follower.found);
  const Recovered& recovered = follower.found->recovered;
  EXPECT_EQ(recovered.snapshot.last, Position());
  EXPECT_EQ(recovered.commit, LogIndex(1));
  EXPECT_EQ(recovered.last, (Position{.term = Term(2), .index = LogIndex(10)}));
  EXPECT_EQ(recovered.entries.size(), 10U);
  EXPECT_EQ(follower.found->keyspace->applied(), LogIndex());
  // Sent again and installed, it counts.
  transfer(leader, follower, mark);
  wal::Batch install;
  install.install(kGroup, mark);
  follower.persist(std::move(install));
  follower.start();
  ASSERT_TRUE(follower.found);
  EXPECT_EQ(follower.found->recovered.snapshot.last, mark.last);
  EXPECT_EQ(follower.found->keyspace->applied(), LogIndex(9));
}

TEST(Storage, ASnapshotOfTheSameLogServesBeforeItIsInstalled) {
  Server leader(1);
  leader.bootstrap();
  const SnapshotMark mark = leader.take_snapshot(2, 9);
  Server follower(2);
  follower.bootstrap();
  follower.append(2, 10, 2);
  transfer(leader, follower, mark);
  follower.start();
  ASSERT_TRUE(follower.found);
  EXPECT_EQ(follower.found->recovered.snapshot.last, mark.last);
  EXPECT_EQ(follower.found->recovered.last.index, LogIndex(10));
}

// The segment's first batch that holds this text gets a wrong bit.
void damage(const std::string& path, const std::string& text) {
  std::ifstream in(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const size_t at = bytes.find(text);
  ASSERT_NE(at, std::string::npos);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  std::ofstream(path, std::ios::binary) << bytes;
}

TEST(Storage, AHoleBelowASnapshotThatTheLogDoesNotReachStaysAHole) {
  for (const uint64_t index : {9, 30}) {
    Server leader(1);
    leader.bootstrap();
    const SnapshotMark mark = leader.take_snapshot(5, index);
    Server follower(2);
    follower.bootstrap();
    follower.append(2, 10, 2);
    transfer(leader, follower, mark);
    follower.storage.reset();
    damage(follower.file("wal/segment-00000001"), std::string(command(4, 2).payload.view()));
    follower.start();
    EXPECT_FALSE(follower.discarded) << index;
    ASSERT_TRUE(follower.found) << index;
    EXPECT_EQ(follower.found->recovered.entries.size(), 10U) << index;
    ASSERT_EQ(follower.recovery.holes.size(), 1U) << index;
    EXPECT_EQ(follower.recovery.holes[0].index, LogIndex(4)) << index;
  }
}

// While anything of a snapshot is done, each call does all writes that wait, and reads little.
class Pieces : public ::testing::Test {
 protected:
  static constexpr uint64_t kValues = 6000;
  static constexpr uint64_t kReadMax = uint64_t{3} << 19;  // a piece, and the block begun

  // Works until `is_done` says so, with a write in every call; how many calls it took.
  template <class IsDone>
  static int work_until(Server& server, uint64_t& index, IsDone is_done) {
    for (int calls = 1; calls < 10'000; ++calls) {
      wal::Batch batch;
      batch.append(kGroup, command(++index, 9));
      server.storage->add(PersistJob{.group = kGroup, .sequence = ++server.sequence, .batch = std::move(batch)});
      server.disk->bytes_read = 0;
      auto results = server.work();
      EXPECT_LE(server.disk->bytes_read, kReadMax);
      EXPECT_FALSE(results.empty());
      EXPECT_TRUE(std::holds_alternative<Persisted>(results.front()));
      for (StorageResult& result : results) {
        if (is_done(result)) return calls;
      }
    }
    ADD_FAILURE() << "does not end";
    return 0;
  }
};

TEST_F(Pieces, LoadingAStateDelaysNoWrite) {
  Server server(1);
  server.bootstrap();
  const SnapshotMark mark = server.take_snapshot(1, kValues + 1, kValues);
  uint64_t index = 1;
  server.storage->add(LoadJob{.group = kGroup, .mark = mark});
  const int calls = work_until(server, index, [&](StorageResult& result) {
    auto* loaded = std::get_if<StateLoaded>(&result);
    if (loaded == nullptr) return false;
    EXPECT_EQ(loaded->keyspace->applied(), mark.last.index);
    EXPECT_EQ(loaded->keyspace->revision().value(), static_cast<int64_t>(kValues) + 1);
    return true;
  });
  EXPECT_GT(calls, 10);
  EXPECT_FALSE(server.storage->has_work());
}

TEST_F(Pieces, ALaterStateTakesThePlaceOfOneBeingLoaded) {
  Server server(1);
  server.bootstrap();
  const SnapshotMark earlier = server.take_snapshot(1, kValues + 1, kValues);
  const SnapshotMark later = server.take_snapshot(1, kValues + 2, kValues);
  server.storage->add(LoadJob{.group = kGroup, .mark = earlier});
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(server.work().empty());
  const auto results = server.finish(LoadJob{.group = kGroup, .mark = later});
  ASSERT_EQ(results.size(), 1U);
  EXPECT_EQ(std::get<StateLoaded>(results[0]).mark, later);
}

TEST_F(Pieces, CheckingAndResumingATransferDelayNoWrite) {
  Server leader(1);
  leader.bootstrap();
  const SnapshotMark mark = leader.take_snapshot(5, kValues + 1, kValues);
  Server follower(2);
  follower.bootstrap();
  uint64_t offset = 0;
  uint64_t total = 1;
  const auto take = [&](StorageResult& result) {
    const auto* stored = std::get_if<ChunkStored>(&result);
    if (stored == nullptr) return false;
    offset = stored->complete ? total : stored->offset;
    return true;
  };
  uint64_t index = 1;
  int most = 0;
  bool restarted = false;
  while (offset < total) {
    const ChunkRead chunk = read_chunk(leader, mark, offset);
    total = chunk.total;
    follower.storage->add(ChunkStoreJob{
        .group = kGroup, .from = NodeId(1), .mark = mark, .offset = offset, .total = total, .bytes = chunk.bytes});
    const int calls = work_until(follower, index, take);
    if (restarted) {
      EXPECT_GT(calls, 5) << "what was there is looked at in pieces";
      restarted = false;
    }
    most = std::max(most, calls);
    if (offset > total * 3 / 4 && follower.recovery.created) {
      // Goes on where it was.
      follower.start();
      restarted = true;
    }
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_GT(most, 10) << "the whole file is checked in pieces";
  size_t files = 0;
  for (const auto& each : std::filesystem::directory_iterator(follower.file("snapshots"))) {
    files += each.path().extension() == ".snapshot" ? 1U : 100U;
  }
  EXPECT_EQ(files, 1U);
}

TEST_F(Pieces, PeersThatPullTheSameFileDoNotPayForEachOther) {
  Server leader(1);
  leader.bootstrap();
  const SnapshotMark mark = leader.take_snapshot(5, kValues + 1, kValues);
  const ChunkRead first = read_chunk(leader, mark, 0);
  const uint64_t total = first.total;
  // One is at the begin again and again while the other is far ahead.
  for (int i = 0; i < 20; ++i) {
    leader.disk->bytes_read = 0;
    const ChunkRead far = read_chunk(leader, mark, total - 50'000);
    EXPECT_TRUE(far.found);
    EXPECT_EQ(far.bytes.size(), 50'000U);
    const ChunkRead again = read_chunk(leader, mark, 0);
    EXPECT_EQ(again.bytes, first.bytes);
    EXPECT_LE(leader.disk->bytes_read, kReadMax);
  }
  // Damage in what one asks for is found, and only there.
  const std::string name = std::filesystem::directory_iterator(leader.file("snapshots"))->path().filename().string();
  damage(leader.file("snapshots/" + name), read_chunk(leader, mark, total / 2).bytes.substr(0, 100));
  EXPECT_FALSE(read_chunk(leader, mark, total / 2).found);
  EXPECT_TRUE(read_chunk(leader, mark, total - 50'000).found);
}

TEST(Storage, AFullDiskIsToldAndItsReserveTakesWhatMayUseIt) {
  Server server(1);
  server.bootstrap();
  std::vector<StorageResult> results;
  while (server.storage->idle(true, results).value()) {
  }
  EXPECT_TRUE(results.empty());
  server.disk->full = true;
  uint64_t index = 1;
  const auto push = [&] {
    wal::Batch batch;
    batch.append(kGroup, command(++index, 2, 60'000));
    server.storage->add(PersistJob{.group = kGroup, .sequence = ++server.sequence, .batch = std::move(batch)});
    return server.work();
  };
  const auto full_in = [](const std::vector<StorageResult>& all) {
    std::optional<bool> full;
    for (const StorageResult& result : all) {
      if (const auto* changed = std::get_if<SpaceChanged>(&result)) full = changed->full;
    }
    return full;
  };
  std::optional<bool> full;
  for (int i = 0; i < 1000 && !server.storage->has_work(); ++i) {
    results = push();
    if (const auto told = full_in(results)) full = told;
  }
  EXPECT_EQ(full, true);
  EXPECT_TRUE(server.storage->space_gauge().full());
  EXPECT_EQ(server.storage->space().spare_segments, 2U) << "the reserve";
  ASSERT_TRUE(server.storage->has_work()) << "waits for space";
  EXPECT_TRUE(server.work().empty()) << "and is told once";
  server.storage->add(UseReserveJob{.group = GroupId(9)});
  EXPECT_TRUE(server.work().empty()) << "another group's";
  server.storage->add(UseReserveJob{.group = kGroup});
  results = server.work();
  ASSERT_EQ(results.size(), 1U);
  EXPECT_EQ(std::get<Persisted>(results[0]).sequence, server.sequence);
  ASSERT_TRUE(server.storage->idle(true, results));
  EXPECT_EQ(server.storage->space_retry(), std::chrono::milliseconds(100));
  ASSERT_TRUE(server.storage->idle(true, results));
  EXPECT_EQ(server.storage->space_retry(), std::chrono::milliseconds(200)) << "ever more rarely";
  server.disk->full = false;
  results.clear();
  while (server.storage->idle(true, results).value()) {
  }
  EXPECT_EQ(full_in(results), false);
  EXPECT_FALSE(server.storage->space_gauge().full());
  EXPECT_FALSE(server.storage->space_retry());
}

}  // namespace
}  // namespace conclave::node
