#include "server/identity.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "env/posix/disk.h"

namespace conclave::server {
namespace {

class IdentityTest : public testing::Test {
 protected:
  IdentityTest() {
    std::string pattern = testing::TempDir() + "conclave-identity-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
    disk_ = std::move(*env::PosixDisk::open_directory(path_));
  }
  ~IdentityTest() override { std::filesystem::remove_all(path_); }
  static Identity expected(const std::string& name) {
    return {.cluster = ClusterId(7), .node = node_id_of(name), .name = name};
  }
  std::string path_;
  std::unique_ptr<env::PosixDisk> disk_;
};

TEST_F(IdentityTest, EachLifeHasABootOfItsOwn) {
  const Identity first = begin_life(*disk_, expected("n1"), std::nullopt, 1000).value();
  EXPECT_EQ(first.boot, Boot(1000));
  EXPECT_EQ(first.cluster, ClusterId(7));
  // The wall clock stood still, or went back.
  EXPECT_EQ(begin_life(*disk_, expected("n1"), std::nullopt, 1000)->boot, Boot(1001));
  EXPECT_EQ(begin_life(*disk_, expected("n1"), std::nullopt, 10)->boot, Boot(1002));
  EXPECT_EQ(begin_life(*disk_, expected("n1"), std::nullopt, 5000)->boot, Boot(5000));
}

TEST_F(IdentityTest, TheClusterOnceWrittenStays) {
  ASSERT_TRUE(begin_life(*disk_, expected("n1"), std::nullopt, 1));
  Identity other = expected("n1");
  other.cluster = ClusterId(8);
  EXPECT_EQ(begin_life(*disk_, other, std::nullopt, 2)->cluster, ClusterId(7));
}

TEST_F(IdentityTest, AnotherServersDirectoryIsRefused) {
  ASSERT_TRUE(begin_life(*disk_, expected("n1"), std::nullopt, 1));
  EXPECT_EQ(begin_life(*disk_, expected("n2"), std::nullopt, 2).error().code, ErrorCode::kForeign);
}

TEST_F(IdentityTest, AnotherClustersDirectoryIsRefusedWhereTheClusterIsNamed) {
  ASSERT_TRUE(begin_life(*disk_, expected("n1"), ClusterId(7), 1));
  EXPECT_TRUE(begin_life(*disk_, expected("n1"), ClusterId(7), 2));
  EXPECT_EQ(begin_life(*disk_, expected("n1"), ClusterId(8), 3).error().code, ErrorCode::kForeign);
}

TEST_F(IdentityTest, WhatTheFileSaysHolds) {
  Identity joined = expected("n4");
  joined.node = node_id_of("127.0.0.1:2680");
  ASSERT_TRUE(begin_life(*disk_, joined, ClusterId(7), 1));
  const Identity again = begin_life(*disk_, expected("n4"), std::nullopt, 2).value();
  EXPECT_EQ(again.node, joined.node);
  EXPECT_FALSE(again.removed);
}

TEST_F(IdentityTest, WhoWasRemovedDoesNotStartAgain) {
  Identity identity = begin_life(*disk_, expected("n1"), std::nullopt, 1).value();
  identity.removed = true;
  ASSERT_TRUE(write_identity(*disk_, identity));
  EXPECT_TRUE(read_identity(*disk_)->removed);
  const auto refused = begin_life(*disk_, expected("n1"), std::nullopt, 2);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kForeign);
  EXPECT_NE(refused.error().message.find("was removed from the cluster"), std::string::npos);
}

TEST_F(IdentityTest, WhoseStateDivergedDoesNotStartAgain) {
  Identity identity = begin_life(*disk_, expected("n1"), std::nullopt, 1).value();
  identity.diverged_at = LogIndex(4096);
  ASSERT_TRUE(write_identity(*disk_, identity));
  EXPECT_EQ(read_identity(*disk_)->diverged_at, LogIndex(4096));
  const auto refused = begin_life(*disk_, expected("n1"), std::nullopt, 2);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnreadable);
  EXPECT_NE(refused.error().message.find("differed from that of a majority after entry 4096"), std::string::npos);
}

TEST_F(IdentityTest, EveryDamagedByteIsSeen) {
  ASSERT_TRUE(begin_life(*disk_, expected("n1"), std::nullopt, 1));
  std::ifstream in(path_ + "/identity", std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(in), {}};
  ASSERT_GT(whole.size(), 60U);
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    std::ofstream(path_ + "/identity", std::ios::binary | std::ios::trunc) << damaged;
    EXPECT_EQ(begin_life(*disk_, expected("n1"), std::nullopt, 2).error().code, ErrorCode::kMalformed) << at;
  }
}

TEST_F(IdentityTest, ALaterVersionIsToldAndLeftAsItIs) {
  const std::string later = "conclave identity 2\nsomething else\n";
  std::ofstream(path_ + "/identity", std::ios::binary) << later;
  const auto refused = begin_life(*disk_, expected("n1"), std::nullopt, 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kVersion);
  EXPECT_EQ(refused.error().message, "the file identity is of version 2: a later build wrote it");
  std::ifstream in(path_ + "/identity", std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), later);
}

TEST(JoinTest, IsParsedAndSorted) {
  const auto servers = parse_join("n2=127.0.0.1:2,n1=localhost:1").value();
  ASSERT_EQ(servers.size(), 2U);
  EXPECT_EQ(servers[0], (JoinEntry{.name = "n1", .host = "localhost", .port = 1}));
  EXPECT_EQ(cluster_id_of(servers), cluster_id_of(parse_join("n1=localhost:1,n2=127.0.0.1:2").value()));
  EXPECT_NE(cluster_id_of(servers), cluster_id_of(parse_join("n1=localhost:1,n2=127.0.0.1:3").value()));
  for (const char* bad : {"n1", "n1=", "=h:1", "n1=h", "n1=h:0", "n1=h:65536", "n1=h:x", "n1=h:1,n1=h:2", "n1=:1"}) {
    EXPECT_EQ(parse_join(bad).error().code, ErrorCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace conclave::server
