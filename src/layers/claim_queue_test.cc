#include "layers/claim_queue.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "keyspace/interface.h"
#include "keyspace/wire.h"
#include "layers/recipe.h"

namespace conclave::layers {
namespace {

using keyspace::CommandKind;
using Outcome = ClaimQueue::Outcome;

// A view that counts how often it is asked for the oldest.
class CountingView final : public keyspace::View {
 public:
  explicit CountingView(const keyspace::Keyspace& keyspace) : view_(keyspace) {}
  LogIndex index() const override { return view_.index(); }
  Revision revision() const override { return view_.revision(); }
  std::optional<keyspace::KeyValue> get(ByteView key) const override { return view_.get(key); }
  int64_t count(const keyspace::KeyRange& range) const override { return view_.count(range); }
  std::optional<keyspace::KeyValue> oldest(const keyspace::KeyRange& range, Revision after) const override {
    ++oldest_asked;
    return view_.oldest(range, after);
  }
  std::vector<keyspace::KeyValue> oldest_of(const keyspace::KeyRange& range, size_t count) const override {
    ++oldest_asked;
    return view_.oldest_of(range, count);
  }
  std::optional<std::string> scan(const keyspace::KeyRange&, size_t,
                                  const std::function<bool(const keyspace::KeyValue&)>&) const override {
    ADD_FAILURE() << "no scans";
    return std::nullopt;
  }
  const keyspace::Record* record(ByteView key) const override { return view_.record(key); }
  void scan_records(ByteView, ByteView, size_t,
                    const std::function<bool(ByteView, const keyspace::Record&)>&) const override {}
  std::optional<keyspace::LeaseInfo> lease(LeaseId id) const override { return view_.lease(id); }
  std::vector<std::string> lease_keys(LeaseId id, ByteView from, size_t count) const override {
    return view_.lease_keys(id, from, count);
  }
  void scan_lease_records(LeaseId, ByteView, size_t,
                          const std::function<bool(ByteView, const keyspace::Record&)>&) const override {}
  const keyspace::Session* session(SessionId id) const override { return view_.session(id); }
  mutable int oldest_asked = 0;

 private:
  keyspace::KeyspaceView view_;
};

class ClaimQueueTest : public testing::Test {
 protected:
  void apply(const keyspace::CommandHeader& header, const std::string& body) {
    bool done = keyspace_.apply(LogIndex(++index_), Term(1), encode_command(header, body));
    while (!done) done = keyspace_.run_slice();
    ASSERT_EQ(keyspace_.reply().error, keyspace::ErrorId::kNone);
    queue_.on_applied(view_, keyspace::applied_of(keyspace_));
  }
  // A claim of that lease, and a waiter by the number of the lease.
  Outcome claim(const std::string& name, uint64_t waiter) {
    const LeaseId lease(static_cast<int64_t>(waiter));
    apply({.kind = CommandKind::kLeaseGrant, .lease = lease, .ttl_ms = 60'000}, "");
    put(claim_key(name, lease), lease);
    return wait(name, waiter);
  }
  Outcome wait(const std::string& name, uint64_t waiter, uint64_t as = 0) {
    const std::string key = claim_key(name, LeaseId(static_cast<int64_t>(waiter)));
    return queue_.wait(view_, as != 0 ? as : waiter, claim_prefix(name), key, view_.get(key)->create);
  }
  void put(const std::string& key, LeaseId lease) { apply({.kind = CommandKind::kTxn}, encode_claim(key, "", lease)); }
  void release(const std::string& key) {
    apply({.kind = CommandKind::kTxn}, encode_release(key, view_.get(key)->create));
  }
  void revoke(uint64_t lease) {
    std::string body;
    keyspace::append_int64_field(body, 1, static_cast<int64_t>(lease));
    apply({.kind = CommandKind::kLeaseRevoke}, body);
  }
  // "1+ 2-": waiter 1 granted, waiter 2 lost.
  std::string decisions() {
    std::string text;
    for (const ClaimQueue::Decision& decision : queue_.take_decisions()) {
      if (!text.empty()) text += " ";
      text += std::to_string(decision.waiter) + (decision.outcome == Outcome::kGranted ? "+" : "-");
    }
    return text;
  }

  keyspace::Keyspace keyspace_;
  CountingView view_{keyspace_};
  ClaimQueue queue_{ClaimQueue::Line::kAllBelow};
  uint64_t index_ = 0;
};

TEST_F(ClaimQueueTest, GrantsInTheOrderOfClaims) {
  EXPECT_EQ(claim("a", 9), Outcome::kGranted);
  EXPECT_EQ(claim("a", 5), Outcome::kWaiting);
  EXPECT_EQ(claim("a", 7), Outcome::kWaiting);
  EXPECT_EQ(claim("b", 8), Outcome::kGranted) << "another name";
  release("a/9");
  EXPECT_EQ(decisions(), "5+");
  release("b/8");
  EXPECT_EQ(decisions(), "");
  release("a/5");
  EXPECT_EQ(decisions(), "7+");
  EXPECT_EQ(queue_.waiters(), 0U);
}

TEST_F(ClaimQueueTest, AWaiterWhoseClaimEndsHasLost) {
  (void)claim("a", 1);
  (void)claim("a", 2);
  (void)claim("a", 3);
  revoke(2);
  EXPECT_EQ(decisions(), "2-");
  revoke(1);
  EXPECT_EQ(decisions(), "3+");
  // Owner and waiter at once.
  (void)claim("b", 4);
  (void)claim("b", 5);
  (void)claim("b", 6);
  std::string both;
  keyspace::append_bytes_field(both, 1, "b/4");
  keyspace::append_bytes_field(both, 2, "b/6");
  apply({.kind = CommandKind::kDeleteRange}, both);
  EXPECT_EQ(decisions(), "5- 6+");
}

TEST_F(ClaimQueueTest, AClaimPutAgainIsAnotherOne) {
  (void)claim("a", 1);
  (void)claim("a", 2);
  const Revision create = view_.get("a/2")->create;
  release("a/2");
  EXPECT_EQ(decisions(), "2-");
  put("a/2", LeaseId(2));
  EXPECT_EQ(queue_.wait(view_, 2, "a/", "a/2", create), Outcome::kLost);
  EXPECT_EQ(queue_.waiters(), 0U);
}

TEST_F(ClaimQueueTest, ForeignClaimsAreWaitedFor) {
  put("a/foreign", LeaseId());
  put("a/foreign2", LeaseId());
  EXPECT_EQ(claim("a", 3), Outcome::kWaiting);
  release("a/foreign");
  EXPECT_EQ(decisions(), "");
  release("a/foreign2");
  EXPECT_EQ(decisions(), "3+");
}

TEST_F(ClaimQueueTest, WhoForgetsHearsNothing) {
  (void)claim("a", 1);
  (void)claim("a", 2);
  (void)claim("a", 3);
  queue_.forget(2);
  queue_.forget(77);
  release("a/1");
  EXPECT_EQ(decisions(), "") << "claim 2 stands, unattended";
  release("a/2");
  EXPECT_EQ(decisions(), "3+");
}

TEST_F(ClaimQueueTest, TwoWaitersOfOneClaimHearTheSame) {
  (void)claim("a", 1);
  (void)claim("a", 2);
  EXPECT_EQ(wait("a", 2, 12), Outcome::kWaiting);
  release("a/1");
  EXPECT_EQ(decisions(), "2+ 12+");
}

TEST_F(ClaimQueueTest, NamesMayLieWithinEachOther) {
  EXPECT_EQ(claim("a/b", 1), Outcome::kGranted);
  EXPECT_EQ(claim("a", 2), Outcome::kWaiting) << "a recipe's prefix covers what lies below";
  EXPECT_EQ(claim("a/b", 3), Outcome::kWaiting);
  release("a/b/1");
  EXPECT_EQ(decisions(), "2+ 3+");
}

TEST_F(ClaimQueueTest, ClaimsOfOneTransactionAreNeverOwnersTogether) {
  (void)claim("a", 1);
  // Both created in one revision.
  std::string txn;
  for (const std::string key : {"a/2", "a/3"}) {
    std::string put;
    keyspace::append_bytes_field(put, 1, key);
    std::string operation;
    keyspace::append_message_field(operation, 2, put);
    keyspace::append_message_field(txn, 2, operation);
  }
  apply({.kind = CommandKind::kTxn}, txn);
  EXPECT_EQ(wait("a", 3), Outcome::kWaiting);
  EXPECT_EQ(wait("a", 2), Outcome::kWaiting);
  release("a/1");
  EXPECT_EQ(decisions(), "2+");
  release("a/2");
  EXPECT_EQ(decisions(), "3+");
}

TEST_F(ClaimQueueTest, AReleaseCostsTheSameHoweverManyWait) {
  put("a/owner", LeaseId());
  constexpr uint64_t kWaiters = 20'000;
  for (uint64_t i = 1; i <= kWaiters; ++i) ASSERT_EQ(claim("a", i), Outcome::kWaiting);
  (void)claim("other", kWaiters + 1);
  view_.oldest_asked = 0;
  for (int i = 0; i < 100; ++i) put("elsewhere/" + std::to_string(i), LeaseId());
  release("elsewhere/5");
  EXPECT_EQ(view_.oldest_asked, 0) << "events that concern nobody";
  release("a/owner");
  EXPECT_EQ(decisions(), "1+");
  for (uint64_t i = 1; i < 50; ++i) {
    release(claim_key("a", LeaseId(static_cast<int64_t>(i))));
    EXPECT_EQ(decisions(), std::to_string(i + 1) + "+");
  }
  EXPECT_LE(view_.oldest_asked, 50 * 2) << "one to grant, one to wait on it";
}

TEST_F(ClaimQueueTest, ARecheckFindsWhatWasNotHeard) {
  (void)claim("a", 1);
  (void)claim("a", 2);
  (void)claim("a", 3);
  (void)claim("b", 4);
  (void)claim("b", 5);
  // Applied without telling the queue.
  auto unheard = [this](const std::string& key) {
    ASSERT_TRUE(keyspace_.apply(
        LogIndex(++index_), Term(1),
        keyspace::encode_command({.kind = CommandKind::kTxn}, encode_release(key, view_.get(key)->create))));
  };
  unheard("a/1");
  unheard("a/3");
  unheard("b/4");
  queue_.begin_recheck();
  int steps = 1;
  while (!queue_.recheck(view_, 1)) ++steps;
  EXPECT_GE(steps, 3);
  EXPECT_EQ(decisions(), "2+ 3- 5+");
  EXPECT_EQ(queue_.waiters(), 0U);
}

// Against what is true by definition: a waiter is granted exactly when its claim is the oldest.
TEST_F(ClaimQueueTest, RandomClaimsAndEnds) {
  int grants = 0;
  int losses = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Random random(seed);
    std::map<uint64_t, std::pair<std::string, Revision>> waiting;  // waiter -> key
    std::set<std::string> standing;
    uint64_t next = seed * 1'000;
    for (int i = 0; i < 400; ++i) {
      if (random.chance(1, 2)) {
        const std::string name = "s" + std::to_string(seed) + (random.coin() ? "/x" : "");
        const std::string key = claim_key(name, LeaseId(static_cast<int64_t>(++next)));
        standing.insert(key);
        if (claim(name, next) == Outcome::kWaiting) waiting[next] = {key, view_.get(key)->create};
      } else if (!standing.empty()) {
        auto at = standing.begin();
        std::advance(at, static_cast<ptrdiff_t>(random.below(standing.size())));
        release(*at);
        standing.erase(at);
      }
      for (const ClaimQueue::Decision& decision : queue_.take_decisions()) {
        const std::string& key = waiting.at(decision.waiter).first;
        ASSERT_EQ(standing.contains(key), decision.outcome == Outcome::kGranted);
        (decision.outcome == Outcome::kGranted ? grants : losses)++;
        waiting.erase(decision.waiter);
      }
      for (const auto& [waiter, claim] : waiting) {
        ASSERT_TRUE(standing.contains(claim.first));
        const std::string prefix = claim.first.substr(0, claim.first.rfind('/') + 1);
        const std::string end = claim_prefix_end(prefix);
        ASSERT_NE(view_.oldest(keyspace::KeyRange::of(prefix, end), Revision())->key, claim.first);
      }
    }
    ASSERT_EQ(queue_.waiters(), waiting.size());
    for (const auto& [waiter, claim] : waiting) queue_.forget(waiter);
    ASSERT_EQ(queue_.waiters(), 0U);
  }
  EXPECT_GT(grants, 500);
  EXPECT_GT(losses, 500);
}

}  // namespace
}  // namespace conclave::layers
