#include "server/bootstrap.h"

#include <deque>
#include <memory>

#include <gtest/gtest.h>

namespace conclave::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Servers in one thread, with frames in the test's hands.
struct Cluster {
  struct Member {
    BootstrapState state = BootstrapState::kEmpty;
    bool up = true;
    int begins = 0;
    std::unique_ptr<Bootstrap> bootstrap;
  };
  std::map<uint64_t, Member> members;
  std::deque<std::tuple<uint64_t, uint64_t, std::string>> mail;
  Instant now{seconds(100)};

  explicit Cluster(uint64_t count) {
    for (uint64_t id = 1; id <= count; ++id) restart(id, count);
  }
  void restart(uint64_t id, uint64_t count) {
    std::vector<std::pair<NodeId, std::string>> peers;
    for (uint64_t peer = 1; peer <= count; ++peer) {
      if (peer != id) peers.emplace_back(NodeId(peer), "n" + std::to_string(peer));
    }
    Member& member = members[id];
    member.bootstrap = std::make_unique<Bootstrap>(
        NodeId(id), std::move(peers), ++lives_ << 16,
        Bootstrap::World{
            .send = [this, id](NodeId to, std::string frame) { mail.emplace_back(id, to.value(), std::move(frame)); },
            .state = [&member] { return member.state; },
            .begin =
                [&member] {
                  ++member.begins;
                  member.state = BootstrapState::kBegun;
                }});
  }
  // Delivers everything; a beginning is durable at once.
  void settle() {
    while (true) {
      for (auto& [id, member] : members) {
        if (member.up && member.begins > told_[id]) {
          told_[id] = member.begins;
          member.bootstrap->begun();
        }
      }
      if (mail.empty()) return;
      auto [from, to, frame] = std::move(mail.front());
      mail.pop_front();
      if (members[to].up) members[to].bootstrap->on_frame(NodeId(from), frame);
    }
  }
  Bootstrap::Outcome init(uint64_t at) {
    std::optional<Bootstrap::Outcome> outcome;
    members[at].bootstrap->init(now, [&](const Bootstrap::Outcome& result) { outcome = result; });
    for (int i = 0; i < 100 && !outcome; ++i) {
      settle();
      now += milliseconds(200);
      for (auto& [id, member] : members) member.bootstrap->tick(now);
    }
    EXPECT_TRUE(outcome.has_value());
    return outcome.value_or(Bootstrap::Outcome{});
  }

 private:
  uint64_t lives_ = 0;
  std::map<uint64_t, int> told_;
};

TEST(BootstrapTest, AllBeginOnce) {
  Cluster cluster(3);
  const Bootstrap::Outcome outcome = cluster.init(2);
  EXPECT_EQ(outcome.error, "");
  EXPECT_FALSE(outcome.already);
  for (auto& [id, member] : cluster.members) EXPECT_EQ(member.begins, 1) << id;
  EXPECT_TRUE(cluster.init(1).already);
  for (auto& [id, member] : cluster.members) EXPECT_EQ(member.begins, 1) << id;
}

TEST(BootstrapTest, ASilentServerIsNamedAndNothingBegins) {
  Cluster cluster(3);
  cluster.members[3].up = false;
  const Bootstrap::Outcome outcome = cluster.init(1);
  EXPECT_NE(outcome.error.find("n3"), std::string::npos) << outcome.error;
  EXPECT_TRUE(outcome.unreachable);
  for (auto& [id, member] : cluster.members) EXPECT_EQ(member.begins, 0) << id;
}

// The one who was asked ended when only some had begun: asked again, the rest begins.
TEST(BootstrapTest, ABeginningCutShortIsFinishedByTheNextInit) {
  Cluster cluster(3);
  cluster.members[1].state = BootstrapState::kBegun;
  const Bootstrap::Outcome outcome = cluster.init(2);
  EXPECT_EQ(outcome.error, "");
  EXPECT_EQ(cluster.members[1].begins, 0);
  EXPECT_EQ(cluster.members[2].begins, 1);
  EXPECT_EQ(cluster.members[3].begins, 1);
}

// A server whose disk was lost is empty like a new one. The others have seen an election: it does not begin.
TEST(BootstrapTest, AfterAnElectionNobodyBegins) {
  Cluster cluster(3);
  cluster.members[1].state = BootstrapState::kLed;
  for (const uint64_t at : {1, 2, 3}) EXPECT_TRUE(cluster.init(at).already) << at;
  for (auto& [id, member] : cluster.members) EXPECT_EQ(member.begins, 0) << id;
}

// Told to begin in answer to a question of its life before: it may have lost its disk since.
TEST(BootstrapTest, ABeginOfAnEarlierLifeIsIgnored) {
  Cluster cluster(2);
  std::optional<Bootstrap::Outcome> outcome;
  cluster.members[1].bootstrap->init(cluster.now, [&](const Bootstrap::Outcome& result) { outcome = result; });
  // The question and the answer pass; server 2 starts again before it is told.
  for (int i = 0; i < 2; ++i) {
    auto [from, to, frame] = std::move(cluster.mail.front());
    cluster.mail.pop_front();
    cluster.members[to].bootstrap->on_frame(NodeId(from), frame);
  }
  cluster.restart(2, 2);
  cluster.settle();
  EXPECT_EQ(cluster.members[2].begins, 0);
}

TEST(BootstrapTest, RubbishIsIgnored) {
  Cluster cluster(2);
  for (const std::string& frame : {std::string(1, kBootstrapFrame), std::string("\x40\x03short", 7),
                                   std::string(11, '\xff'), std::string(40, '\x40')}) {
    cluster.members[1].bootstrap->on_frame(NodeId(2), frame);
  }
  EXPECT_TRUE(cluster.mail.empty());
  EXPECT_EQ(cluster.members[1].begins, 0);
}

}  // namespace
}  // namespace conclave::server
