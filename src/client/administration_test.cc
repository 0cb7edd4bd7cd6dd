// What operators ask, where servers are silent or say what cannot be; tests/client/administration_test.cc has the rest,
// on real servers.
#include <gtest/gtest.h>

#include "client/testing/fake_cluster.h"
#include "client/testing/told.h"
#include "conclave/client.h"
#include "conclave/v1/election.pb.h"
#include "conclave/v1/lock.pb.h"

namespace conclave::client {
namespace {

using namespace std::chrono_literals;

class AdministrationTest : public testing::Test {
 protected:
  size_t asked(const std::string& method) { return cluster.counts().unary["/conclave.v1." + method]; }

  FakeCluster cluster{2};
  Client client = std::move(*Client::open({.endpoints = cluster.endpoints(), .request_timeout = 300ms}));
};

TEST_F(AdministrationTest, AChangeWithoutAnAnswerIsUnknownAndNeverRepeated) {
  ASSERT_TRUE(client.kill_session(1)) << "the connection stands";
  cluster.set_silent(true);
  const auto killed = client.kill_session(1);
  ASSERT_FALSE(killed);
  EXPECT_EQ(killed.error().kind, ErrorKind::kOutcomeUnknown);
  EXPECT_EQ(killed.error().reason, "UNKNOWN_OUTCOME");
  EXPECT_EQ(asked("Sessions/Kill"), 2U);
  EXPECT_EQ(client.request_release("a").error().kind, ErrorKind::kOutcomeUnknown);
  EXPECT_EQ(asked("Locks/RequestRelease"), 1U);
  EXPECT_EQ(client.force_release("a", 7, {.now = true}).error().kind, ErrorKind::kOutcomeUnknown);
  EXPECT_EQ(client.force_release("a", 7, {.timeout = 50ms}).error().kind, ErrorKind::kOutcomeUnknown);
  EXPECT_EQ(asked("Locks/ForceRelease"), 2U);
}

TEST_F(AdministrationTest, AReadWithoutAnAnswerIsAskedElsewhereAndChangesNothing) {
  ASSERT_TRUE(client.describe_lock("a"));
  cluster.set_silent(true);
  const auto lock = client.describe_lock("a");
  ASSERT_FALSE(lock);
  EXPECT_EQ(lock.error().kind, ErrorKind::kNotApplied);
  EXPECT_EQ(lock.error().reason, "NO_SERVER");
  for (const ErrorKind kind : {client.list_locks().error().kind, client.describe_election("e").error().kind,
                               client.list_elections().error().kind, client.describe_session(1).error().kind,
                               client.list_sessions().error().kind}) {
    EXPECT_EQ(kind, ErrorKind::kNotApplied);
  }
}

TEST_F(AdministrationTest, AChangeThatNoServerCouldBeAskedIsNotApplied) {
  cluster.set_silent(true);
  const auto killed = client.kill_session(1);
  ASSERT_FALSE(killed);
  EXPECT_EQ(killed.error().kind, ErrorKind::kNotApplied) << "there is no connection that it was sent on";
  EXPECT_EQ(asked("Sessions/Kill"), 0U);
}

TEST_F(AdministrationTest, ATimeoutBelowNothingIsRejected) {
  const auto backwards = client.force_release("a", 7, {.timeout = -1ms});
  ASSERT_FALSE(backwards);
  EXPECT_EQ(backwards.error().reason, "INVALID_OPTIONS");
  EXPECT_EQ(asked("Locks/ForceRelease"), 0U);
}

TEST_F(AdministrationTest, AnAnswerThatCannotBeReadIsTold) {
  cluster.set_answer("/conclave.v1.Locks/ForceRelease", "\xff");
  const auto forced = client.force_release("a", 7, {.now = true});
  ASSERT_FALSE(forced);
  EXPECT_EQ(forced.error().kind, ErrorKind::kOutcomeUnknown);
  EXPECT_EQ(forced.error().reason, "UNREADABLE");
  cluster.set_answer("/conclave.v1.Locks/Describe", "\xff");
  const auto described = client.describe_lock("a");
  ASSERT_FALSE(described);
  EXPECT_EQ(described.error().kind, ErrorKind::kNotApplied);
  EXPECT_EQ(described.error().reason, "UNREADABLE");
}

// Whoever asks for page after page would never end.
TEST_F(AdministrationTest, APageThatComesNoFurtherIsNone) {
  v1::LockList list;
  list.set_more(true);
  cluster.set_answer("/conclave.v1.Locks/List", list.SerializeAsString());
  EXPECT_EQ(client.list_locks().error().reason, "UNREADABLE") << "there are more, and it has none";
  list.add_locks()->set_name("b");
  cluster.set_answer("/conclave.v1.Locks/List", list.SerializeAsString());
  EXPECT_EQ(client.list_locks({.after = "a"})->next, "b");
  EXPECT_EQ(client.list_locks({.after = "b"}).error().reason, "UNREADABLE");
  list.set_more(false);
  cluster.set_answer("/conclave.v1.Locks/List", list.SerializeAsString());
  EXPECT_FALSE(client.list_locks({.after = "b"})->next);
}

TEST_F(AdministrationTest, NobodyWaitsOnTheClientsThread) {
  Told<std::string> told;
  auto session = client.open_session();
  ASSERT_TRUE(session);
  session->lock("a", {}, [&](std::expected<Hold, Error>) { told.add(client.describe_lock("a").error().reason); });
  EXPECT_TRUE(told.wait_for("ON_CLIENT_THREAD"));
}

TEST_F(AdministrationTest, AClientHasSoManySessionsAndNoMore) {
  Client patient = std::move(*Client::open({.endpoints = cluster.endpoints()}));
  constexpr size_t kMost = 16'384;
  std::vector<Session> sessions;
  sessions.reserve(kMost);
  for (size_t i = 0; i < kMost; ++i) {
    auto session = patient.open_session({.ttl = 1h});
    ASSERT_TRUE(session) << i << ": " << session.error().message;
    sessions.push_back(std::move(*session));
  }
  const auto refused = patient.open_session();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kNotApplied);
  EXPECT_EQ(refused.error().reason, "TOO_MANY_SESSIONS");
  sessions.pop_back();
  const auto next = patient.open_session();
  EXPECT_TRUE(next) << next.error().message;
  EXPECT_EQ(cluster.sessions(), kMost);
}

}  // namespace
}  // namespace conclave::client
