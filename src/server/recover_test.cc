#include "server/recover.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>

#include <gtest/gtest.h>

#include "env/posix/clock.h"
#include "env/posix/disk.h"
#include "etcd/rpc.pb.h"
#include "keyspace/command.h"
#include "keyspace/interface.h"
#include "keyspace/keyspace.h"
#include "node/storage.h"

namespace conclave::server {
namespace {

constexpr GroupId kGroup{1};
constexpr ClusterId kOld{77};

class RecoverTest : public testing::Test {
 protected:
  RecoverTest() {
    std::string pattern = testing::TempDir() + "conclave-recover-XXXXXX";
    root_ = ::mkdtemp(pattern.data());
    for (const char* name : {"n1", "n2", "n3"}) voters_.push_back(node_id_of(name));
    std::ranges::sort(voters_);
  }
  ~RecoverTest() override { std::filesystem::remove_all(root_); }

  static SharedBytes put(const std::string& key, const std::string& value) {
    etcdserverpb::PutRequest request;
    request.set_key(key);
    request.set_value(value);
    return keyspace::encode_command({.kind = keyspace::CommandKind::kPut}, request.SerializeAsString());
  }

  // A server that knows of `puts` writes, and of no more.
  std::string make(const std::string& name, uint64_t puts, uint64_t term = 3, ClusterId cluster = kOld) {
    const std::string path = root_ + "/" + name;
    std::filesystem::create_directory(path);
    const auto disk = env::PosixDisk::open_directory(path).value();
    const NodeId id = node_id_of(name);
    EXPECT_TRUE(write_identity(*disk, {.cluster = cluster, .node = id, .name = name, .boot = Boot(9)}));
    env::PosixClock clock;
    auto opened = node::Storage::open(
                      *disk, clock, {.owner = {.cluster = cluster, .node = id}, .segment_bytes = wal::kSegmentBytesMin})
                      .value();
    const Membership membership = Membership::of_voters(voters_);
    wal::Batch batch = node::Storage::bootstrap_batch(kGroup, id, membership);
    for (uint64_t i = 0; i < puts; ++i) {
      batch.append(kGroup, {.index = LogIndex(2 + i),
                            .term = Term(term),
                            .type = EntryType::kCommand,
                            .payload = put("key" + std::to_string(i), "value" + std::to_string(i))});
    }
    batch.vote(kGroup, {.term = Term(term), .incarnation = membership.incarnation_of(id)});
    opened.storage->add(node::PersistJob{.group = kGroup, .sequence = WriteSequence(1), .batch = std::move(batch)});
    std::vector<node::StorageResult> results;
    EXPECT_TRUE(opened.storage->work(results));
    return path;
  }
  [[nodiscard]] RecoverOptions options(const std::string& from, const std::string& name) const {
    return {.from = from, .data = root_ + "/new-" + name, .name = name, .join = "a=10.0.0.1:2380,b=10.0.0.2:2380"};
  }

  std::string root_;
  std::vector<NodeId> voters_;
};

TEST_F(RecoverTest, TheMostAdvancedComesFirstAndAQuorumMissesNothing) {
  std::vector<Survivor> survivors = {look_at(make("n1", 5)).value(), look_at(make("n2", 7)).value()};
  const RecoverPlan plan = plan_recovery(survivors).value();
  EXPECT_EQ(plan.survivors.front().identity.name, "n2");
  EXPECT_EQ(plan.survivors.front().readable, LogIndex(8));
  EXPECT_EQ(plan.members, 3U);
  EXPECT_EQ(plan.here, 2U);
  EXPECT_TRUE(plan.complete);
  survivors.pop_back();
  EXPECT_FALSE(plan_recovery(survivors)->complete) << "one of three";
}

TEST_F(RecoverTest, ALaterTermIsMoreAdvancedThanALongerLog) {
  const RecoverPlan plan =
      plan_recovery({look_at(make("n1", 9, 3)).value(), look_at(make("n2", 2, 4)).value()}).value();
  EXPECT_EQ(plan.survivors.front().identity.name, "n2");
}

TEST_F(RecoverTest, WhoseStateDivergedComesLast) {
  Survivor longer = look_at(make("n1", 9)).value();
  longer.identity.diverged_at = LogIndex(8);
  const Survivor shorter = look_at(make("n2", 7)).value();
  EXPECT_EQ(plan_recovery({longer, shorter})->survivors.front().identity.name, "n2");
  EXPECT_FALSE(plan_recovery({longer, shorter})->complete) << "the longer log may hold what was acknowledged";
  longer.last = shorter.last;
  longer.readable = shorter.readable;
  EXPECT_TRUE(plan_recovery({longer, shorter})->complete) << "what it promised it remembers";
  EXPECT_FALSE(plan_recovery({longer})->complete);
}

TEST_F(RecoverTest, ServersOfTwoClustersAreNotMixed) {
  const auto plan = plan_recovery({look_at(make("n1", 1)).value(), look_at(make("n2", 1, 3, ClusterId(78))).value()});
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, ErrorCode::kInvalidArgument);
}

TEST_F(RecoverTest, ANewClusterHasTheStateFarAboveTheOldRevisions) {
  const std::string from = make("n1", 5);
  const RecoverOutcome a = recover(options(from, "a")).value();
  const RecoverOutcome b = recover(options(from, "b")).value();
  EXPECT_EQ(a.cluster, b.cluster);
  EXPECT_NE(a.cluster, kOld);
  EXPECT_NE(a.cluster, cluster_id_of(parse_join(options(from, "a").join).value()));
  EXPECT_EQ(a.revision_before, 6);
  EXPECT_EQ(a.revision, 6 + kRecoverMargin);
  std::set<uint64_t> digests;
  for (const std::string name : {"a", "b"}) {
    const auto disk = env::PosixDisk::open_directory(root_ + "/new-" + name).value();
    const Identity identity = read_identity(*disk).value();
    EXPECT_EQ(identity.node, node_id_of(name));
    EXPECT_EQ(identity.cluster, a.cluster);
    env::PosixClock clock;
    auto opened = node::Storage::open(*disk, clock, {.owner = {.cluster = a.cluster, .node = identity.node}}).value();
    node::FoundReplica& found = opened.replicas.at(kGroup);
    EXPECT_EQ(found.recovered.certainty, Certainty::kCertain);
    EXPECT_EQ(found.recovered.last, (Position{.term = Term(4), .index = LogIndex(6)}));
    EXPECT_EQ(found.recovered.commit, LogIndex(6));
    EXPECT_TRUE(found.recovered.snapshot.membership.is_voter(identity.node, found.recovered.vote.incarnation));
    EXPECT_EQ(found.recovered.snapshot.membership.members().size(), 2U);
    keyspace::Keyspace& keyspace = *found.keyspace;
    EXPECT_EQ(keyspace.revision().value(), a.revision);
    EXPECT_EQ(keyspace.compacted(), a.revision);
    EXPECT_EQ(keyspace::KeyspaceView(keyspace).get("key4")->value, "value4");
    digests.insert(keyspace.digest());
  }
  EXPECT_EQ(digests.size(), 1U) << "every server of the new cluster begins with the same state";
}

TEST_F(RecoverTest, WhatCannotBeDoneIsSaidAndNothingIsTouched) {
  const std::string from = make("n1", 1);
  EXPECT_EQ(look_at(root_ + "/none").error().code, ErrorCode::kNotFound);
  RecoverOptions unnamed = options(from, "c");
  EXPECT_EQ(recover(unnamed).error().code, ErrorCode::kInvalidArgument);
  RecoverOptions onto_itself = options(from, "a");
  onto_itself.data = from;
  EXPECT_EQ(recover(onto_itself).error().code, ErrorCode::kInvalidArgument);
  const auto disk = env::PosixDisk::open_directory(from).value();
  const auto lock = disk->lock().value();
  EXPECT_EQ(look_at(from).error().code, ErrorCode::kLocked);
}

}  // namespace
}  // namespace conclave::server
