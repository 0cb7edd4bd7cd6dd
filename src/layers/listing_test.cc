#include "layers/listing.h"

#include <algorithm>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "keyspace/keyspace.h"
#include "keyspace/wire.h"
#include "layers/claim_record.h"
#include "layers/command_builder.h"
#include "layers/recipe.h"
#include "layers/session_end.h"

namespace conclave::layers {
namespace {

using keyspace::CommandKind;

class ListingTest : public testing::Test {
 protected:
  void apply(const keyspace::CommandHeader& header, const std::string& body) {
    bool done = keyspace_.apply(LogIndex(++index_), Term(1), encode_command(header, body));
    while (!done) done = keyspace_.run_slice();
    ASSERT_EQ(keyspace_.reply().error, keyspace::ErrorId::kNone);
  }
  void apply(const CommandBuilder& command) { apply({.kind = CommandKind::kInternal}, command.build()); }
  void open(uint64_t session, const std::string& description = "") {
    const std::string hash(keyspace::kSecretHashBytes, 'h');
    std::string body;
    keyspace::encode({.session = SessionId(session),
                      .lease = LeaseId(static_cast<int64_t>(session)),
                      .ttl_ms = 10'000,
                      .secret_hash = hash,
                      .description = description},
                     body);
    apply({.kind = CommandKind::kSessionOpen}, body);
  }
  void grant(int64_t lease) {
    apply({.kind = CommandKind::kLeaseGrant, .lease = LeaseId(lease), .ttl_ms = 60'000}, "");
  }
  std::string claim(const std::string& name, int64_t lease, const std::string& value = "") {
    std::string key = claim_key(name, LeaseId(lease));
    CommandBuilder command;
    command.put(key, value, LeaseId(lease));
    apply(command);
    return key;
  }
  void remember(const std::string& key, const ClaimRecord& record, int64_t lease) {
    CommandBuilder command;
    command.put_record(claim_record_key(key), encode(record), LeaseId(lease));
    apply(command);
  }
  void stand(const std::string& name, uint64_t session, int32_t priority, const std::string& value = "") {
    CommandBuilder command;
    command.put_record(candidate_record_key(name, SessionId(session)),
                       encode(CandidateRecord{.priority = priority, .value = value}),
                       LeaseId(static_cast<int64_t>(session)));
    apply(command);
  }
  std::vector<NameScan::Found> list(const NameScan::Options& options, size_t step = 7, bool* more = nullptr) {
    NameScan scan(options);
    int steps = 0;
    while (!scan.step(view_, step)) {
      EXPECT_LT(++steps, 100'000);
    }
    if (more != nullptr) *more = scan.has_more();
    return scan.found();
  }
  v1::LockDescription lock(const std::string& name, size_t step = 3) {
    LineScan scan(name);
    while (!scan.step(view_, step)) {
    }
    return scan.lock(view_);
  }

  keyspace::Keyspace keyspace_;
  keyspace::KeyspaceView view_{keyspace_};
  uint64_t index_ = 0;
};

TEST_F(ListingTest, ALineIsWhatStandsDirectlyBelow) {
  open(1, "one");
  open(2, "two");
  grant(0xabc);
  const std::string first = claim("orders", 2);
  claim("orders", 1);
  claim("orders/42", 1);
  claim("orders", 0xabc);
  claim("orders-old", 1);
  remember(first, {.lock_delay_ms = 700, .note = "why"}, 2);
  const v1::LockDescription description = lock("orders");
  EXPECT_EQ(description.owner().key(), "orders/2");
  EXPECT_EQ(description.owner().description(), "two");
  EXPECT_EQ(description.owner().note(), "why");
  EXPECT_EQ(description.owner().lock_delay_ms(), 700U);
  EXPECT_EQ(description.waiting(), 2);
  ASSERT_EQ(description.waiters_size(), 2);
  EXPECT_EQ(description.waiters(0).key(), "orders/1");
  EXPECT_TRUE(description.waiters(0).is_session());
  EXPECT_EQ(description.waiters(1).key(), "orders/abc");
  EXPECT_FALSE(description.waiters(1).is_session());
  EXPECT_FALSE(lock("order").has_owner());
  EXPECT_EQ(lock("order").waiting(), 0);
}

TEST_F(ListingTest, WhatEndedBetweenTwoStepsIsNotTold) {
  grant(0xa);
  grant(0xb);
  grant(0xc);
  for (const int64_t lease : {0xa, 0xb, 0xc}) claim("l", lease);
  LineScan scan("l");
  while (!scan.step(view_, 1)) {
  }
  CommandBuilder command;
  command.erase("l/a").erase("l/c");
  apply(command);
  const v1::LockDescription description = scan.lock(view_);
  EXPECT_EQ(description.owner().key(), "l/b");
  EXPECT_EQ(description.waiters_size(), 0);
  command = CommandBuilder();
  command.erase("l/b");
  apply(command);
  EXPECT_FALSE(scan.lock(view_).has_owner());
}

TEST_F(ListingTest, ALockThatIsHeldBackIsNobodysByItsToken) {
  open(1);
  const std::string key = claim("l", 1);
  remember(key, {.lock_delay_ms = 1000}, 1);
  const int64_t token = view_.get(key)->create.value();
  EXPECT_TRUE(validity_of(view_, "l", token).valid());
  EXPECT_FALSE(validity_of(view_, "l", token + 1).valid());
  EXPECT_FALSE(validity_of(view_, "m", token).valid());
  const std::optional<std::string> end = encode_lingering_end(view_, LeaseId(1));
  ASSERT_TRUE(end);
  apply({.kind = CommandKind::kInternal}, *end);
  ASSERT_EQ(owner_of(view_, "l")->create.value(), token) << "its claim stands";
  EXPECT_FALSE(validity_of(view_, "l", token).valid()) << "its session is gone";
  EXPECT_EQ(validity_of(view_, "l", token).revision(), view_.revision().value());
}

TEST_F(ListingTest, LeadersAndVacancies) {
  v1::Leadership leadership = leadership_of(view_, "e");
  EXPECT_EQ(leadership.name(), "e");
  EXPECT_EQ(leadership.token(), 0);
  EXPECT_EQ(leadership.mod_revision(), view_.revision().value());
  grant(0xa);
  const std::string key = claim("e", 0xa, "first");
  claim("e", 0xa, "second");
  leadership = leadership_of(view_, "e");
  EXPECT_EQ(leadership.value(), "second");
  EXPECT_EQ(leadership.lease(), 0xa);
  EXPECT_EQ(leadership.token(), view_.get(key)->create.value());
  EXPECT_EQ(leadership.mod_revision(), view_.get(key)->mod.value());
}

TEST_F(ListingTest, CandidatesStandInTheOrderOfTheirElection) {
  const int32_t priorities[] = {INT32_MIN, 0, 5, 5, INT32_MAX};
  for (uint64_t i = 0; i < 5; ++i) {
    open(i + 1, fmt::format("host {}", i + 1));
    stand("e", i + 1, priorities[i], fmt::format("value {}", i + 1));
    stand("e/deeper", i + 1, 0);
  }
  CandidateScan scan("e");
  while (!scan.step(view_, 2)) {
  }
  v1::ElectionDescription description;
  scan.describe(view_, description);
  EXPECT_EQ(description.waiting(), 5);
  std::vector<int64_t> order;
  for (const v1::Candidate& candidate : description.candidates()) order.push_back(candidate.session());
  EXPECT_EQ(order, (std::vector<int64_t>{5, 3, 4, 2, 1}));
  EXPECT_EQ(description.candidates(0).description(), "host 5");
  EXPECT_EQ(description.candidates(0).value(), "value 5");
  EXPECT_EQ(description.candidates(4).priority(), INT32_MIN);
}

TEST_F(ListingTest, OnlyTheFirstHundredAreTold) {
  for (uint64_t i = 1; i <= 150; ++i) {
    open(i);
    stand("e", i, static_cast<int32_t>(i));
    claim("l", static_cast<int64_t>(i));
  }
  CandidateScan candidates("e");
  while (!candidates.step(view_, 64)) {
  }
  v1::ElectionDescription description;
  candidates.describe(view_, description);
  EXPECT_EQ(description.waiting(), 150);
  ASSERT_EQ(description.candidates_size(), 100);
  EXPECT_EQ(description.candidates(0).priority(), 150);
  const v1::LockDescription line = lock("l", 64);
  EXPECT_EQ(line.waiting(), 149);
  ASSERT_EQ(line.waiters_size(), 100);
  EXPECT_EQ(line.waiters(99).lease(), 101);
}

TEST_F(ListingTest, WhatIsAClaimAndWhatIsNot) {
  grant(0xa);
  open(0xb);
  claim("lock", 0xa);
  remember(claim("election", 0xb), {.kind = ClaimKind::kElection}, 0xb);
  CommandBuilder command;
  command
      .put("config/a", "", LeaseId())           // on no lease
      .put("config/b", "", LeaseId(0xa))        // on another
      .put("config/zz", "", LeaseId(0xa))       // no number
      .put("/a", "", LeaseId(0xa))              // no name
      .put("a", "", LeaseId(0xa))               // no slash
      .put("/.conclave/x/a", "", LeaseId(0xa))  // not theirs
      .put("\xff\xfe/a", "", LeaseId(0xa));     // not UTF-8
  apply(command);
  const auto locks = list({.what = NameScan::What::kLocks});
  ASSERT_EQ(locks.size(), 1U);
  EXPECT_EQ(locks[0].name, "lock");
  const auto elections = list({.what = NameScan::What::kElections});
  ASSERT_EQ(elections.size(), 1U);
  EXPECT_EQ(elections[0].name, "election");
  EXPECT_EQ(elections[0].claims, 1);
  stand("waiting only", 0xb, 0);
  EXPECT_EQ(list({.what = NameScan::What::kElections}).size(), 2U);
  const auto after = list({.what = NameScan::What::kElections, .after = "election"});
  ASSERT_EQ(after.size(), 1U);
  EXPECT_EQ(describe_election(view_, after[0]).leader().token(), 0);
  EXPECT_EQ(describe_election(view_, elections[0]).leader().lease(), 0xb);
  EXPECT_EQ(describe_lock(view_, locks[0]).owner().key(), "lock/a");
}

// Names that are beginnings of each other, of characters around the slash, whose keys do not stand in the order of the
// names.
TEST_F(ListingTest, PagesOfNamesInAnyStep) {
  Random random(11);
  std::map<std::string, int64_t> locks;
  std::map<std::string, int64_t> elections;
  grant(0xa);
  for (uint64_t session = 1; session <= 4; ++session) open(session);
  constexpr std::string_view kLetters = "a-/0";
  for (int i = 0; i < 400; ++i) {
    std::string name;
    for (uint64_t length = random.below(5) + 1; length > 0; --length) name += kLetters[random.below(kLetters.size())];
    switch (random.below(3)) {
      case 0:
        if (!view_.get(claim_key(name, LeaseId(0xa)))) ++locks[name];
        claim(name, 0xa);
        break;
      case 1: {
        const auto session = static_cast<int64_t>(random.below(4) + 1);
        if (!view_.get(claim_key(name, LeaseId(session)))) ++elections[name];
        remember(claim(name, session), {.kind = ClaimKind::kElection}, session);
        break;
      }
      default:
        stand(name, random.below(4) + 1, 0);
        elections.try_emplace(name, 0);
    }
  }
  for (const auto& [what, names] :
       {std::pair(NameScan::What::kLocks, locks), std::pair(NameScan::What::kElections, elections)}) {
    for (int i = 0; i < 3000; ++i) {
      NameScan::Options options{.what = what, .count = random.below(12) + 1};
      for (uint64_t length = random.below(3); length > 0; --length) {
        options.prefix += kLetters[random.below(kLetters.size())];
      }
      for (uint64_t length = random.below(5); length > 0; --length) {
        options.after += kLetters[random.below(kLetters.size())];
      }
      std::vector<std::pair<std::string, int64_t>> expected;
      for (const auto& [name, claims] : names) {
        if (name.starts_with(options.prefix) && name > options.after) expected.emplace_back(name, claims);
      }
      bool more = false;
      const auto found = list(options, random.below(40) + 1, &more);
      EXPECT_EQ(more, expected.size() > options.count) << options.prefix << " " << options.after;
      expected.resize(std::min(expected.size(), options.count));
      ASSERT_EQ(found.size(), expected.size()) << options.prefix << " " << options.after;
      for (size_t at = 0; at < found.size(); ++at) {
        ASSERT_EQ(found[at].name, expected[at].first) << options.prefix << " " << options.after;
        ASSERT_EQ(found[at].claims, expected[at].second) << found[at].name;
      }
    }
  }
}

TEST_F(ListingTest, ASessionAndWhatItHas) {
  EXPECT_FALSE(describe_session(view_, SessionId(7)));
  open(7, "a host");
  open(8);
  claim("owned", 7);
  claim("waited for", 8);
  claim("waited for", 7);
  remember(claim("led", 7), {.kind = ClaimKind::kElection}, 7);
  for (int i = 0; i < 5; ++i) stand(fmt::format("candidate {}", i), 7, 0);
  CommandBuilder command;
  command.put("something/else", "", LeaseId(7)).put_record("zzz", "of a later kind", LeaseId(7));
  apply(command);
  std::optional<v1::SessionDescription> session = describe_session(view_, SessionId(7));
  ASSERT_TRUE(session);
  EXPECT_EQ(session->description(), "a host");
  EXPECT_EQ(session->ttl_ms(), 10'000);
  SessionScan scan{SessionId(7)};
  int steps = 1;
  while (!scan.step(view_, 2, *session)) ++steps;
  EXPECT_GT(steps, 2);
  ASSERT_EQ(session->claims_size(), 8);
  EXPECT_EQ(session->claims(0).name(), "led");
  EXPECT_EQ(session->claims(0).kind(), v1::ELECTION);
  EXPECT_TRUE(session->claims(0).granted());
  EXPECT_EQ(session->claims(1).name(), "owned");
  EXPECT_EQ(session->claims(1).kind(), v1::LOCK);
  EXPECT_FALSE(session->claims(2).granted());
  EXPECT_EQ(session->claims(3).name(), "candidate 0");
  EXPECT_EQ(session->claims(3).token(), 0);
}

}  // namespace
}  // namespace conclave::layers
