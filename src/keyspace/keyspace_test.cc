// The keyspace as a whole: what the model test cannot see. Slices of large commands, snapshots under writes,
// compaction's freeing, sessions' windows, the budget of history, texts of refusals.
#include "keyspace/keyspace.h"

#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "keyspace/history_budget.h"
#include "keyspace/internal_command.h"
#include "keyspace/scripts.h"
#include "keyspace/snapshot.h"
#include "keyspace/test_commands.h"

namespace conclave::keyspace {
namespace {

etcdserverpb::RangeResponse everything(Keyspace& keyspace, int64_t revision = 0) {
  std::string body;
  RangeRequest request{.key = ByteView("\0", 1), .range_end = ByteView("\0", 1), .revision = revision};
  EXPECT_EQ(keyspace.range(request, body), ErrorId::kNone);
  etcdserverpb::RangeResponse response;
  EXPECT_TRUE(response.ParseFromString(body));
  return response;
}

std::string snapshot_of(Keyspace& keyspace) {
  SnapshotReader reader(keyspace);
  std::string bytes;
  while (!reader.read(bytes)) {
  }
  return bytes;
}

TEST(Keyspace, StartsAtRevisionOneAndWritesFromTwo) {
  Driver driver;
  EXPECT_EQ(driver.keyspace.revision(), Revision(1));
  EXPECT_EQ(driver.put("a", "1").revision, Revision(2));
  EXPECT_EQ(driver.remove("b").revision, Revision(2));  // of nothing: no revision
  EXPECT_EQ(driver.compact(0).error, ErrorId::kNone);
  EXPECT_EQ(driver.compact(0).error, ErrorId::kCompacted);
  EXPECT_EQ(driver.compact(3).error, ErrorId::kFutureRevision);
}

TEST(Keyspace, ErrorsHaveTheirCodesAndTexts) {
  EXPECT_EQ(grpc_code(ErrorId::kLeaseNotFound), GrpcCode::kNotFound);
  EXPECT_EQ(grpc_code(ErrorId::kLeaseExists), GrpcCode::kFailedPrecondition);
  EXPECT_EQ(grpc_code(ErrorId::kCompacted), GrpcCode::kOutOfRange);
  EXPECT_EQ(grpc_code(ErrorId::kEmptyKey), GrpcCode::kInvalidArgument);
  EXPECT_EQ(grpc_code(ErrorId::kNoSpace), GrpcCode::kResourceExhausted);
  EXPECT_EQ(error_text(ErrorId::kDuplicateKey), "etcdserver: duplicate key given in txn request");
  EXPECT_EQ(error_text(ErrorId::kTimeoutApplied),
            "etcdserver: request timed out, waiting for the applied index took too long");
}

TEST(Keyspace, ALargeDeleteIsSeenWholeOrNotAtAll) {
  Driver driver;
  driver.grant(7, 60'000);
  for (int i = 0; i < 5000; ++i) driver.put(fmt::format("k/{:05}", i), "v", i % 2 == 0 ? 7 : 0);
  driver.put("z", "stays", 7);
  etcdserverpb::DeleteRangeRequest request;
  request.set_key("k/");
  request.set_range_end("k0");
  SharedBytes command = encode_command({.kind = CommandKind::kDeleteRange}, request.SerializeAsString());
  Revision before = driver.keyspace.revision();
  bool done = driver.keyspace.apply(LogIndex(++driver.index), Term(1), command);
  ASSERT_FALSE(done);
  int whole = 0;
  int none = 0;
  while (!done) {
    bool changed = driver.keyspace.revision() != before;
    size_t keys = static_cast<size_t>(everything(driver.keyspace).count());
    EXPECT_EQ(keys, changed ? 1u : 5001u);
    EXPECT_EQ(driver.keyspace.lease_keys(LeaseId(7), {}, SIZE_MAX).size(), changed ? 1u : 2501u);
    EXPECT_EQ(driver.keyspace.applied(), LogIndex(driver.index - 1));
    ++(changed ? whole : none);
    done = driver.keyspace.run_slice();
  }
  EXPECT_GT(whole, 2);
  EXPECT_GT(none, 2);
  etcdserverpb::DeleteRangeResponse response;
  ASSERT_TRUE(response.ParseFromString(driver.keyspace.reply().body));
  EXPECT_EQ(response.deleted(), 5000);
  EXPECT_EQ(driver.keyspace.revision(), before.next());
}

TEST(Keyspace, ALeaseWithManyKeysEndsInOneRevision) {
  Driver driver;
  driver.grant(7, 60'000);
  for (int i = 0; i < 5000; ++i) driver.put(fmt::format("k/{:05}", i * 7919 % 5000), "v", 7);
  int64_t before = driver.keyspace.revision().value();
  driver.revoke(7);
  EXPECT_GT(driver.slices, 5);
  EXPECT_EQ(driver.keyspace.revision().value(), before + 1);
  EXPECT_EQ(everything(driver.keyspace).count(), 0);
  const Store& store = driver.keyspace.store();
  uint64_t first = store.first_event(before + 1);
  EXPECT_EQ(store.events_end() - first, 5000u);
  for (uint64_t at = first; at < store.events_end(); ++at) {
    EXPECT_EQ(store.event(at)->mod, before + 1);
    EXPECT_EQ(store.event(at)->key->bytes(), fmt::format("k/{:05}", at - first));  // sorted
  }
  EXPECT_EQ(driver.revoke(7).error, ErrorId::kLeaseNotFound);
}

// A lease that kept a key would point at its memory after it was freed.
TEST(Keyspace, ALeaseLosesTheKeyThatIsPutWithoutIt) {
  Driver driver;
  driver.grant(7, 60'000);
  driver.grant(8, 60'000);
  for (const char* key : {"a", "b", "c", "d"}) driver.put(key, "1", 7);
  driver.put("a", "2");
  driver.put("b", "2", 8);
  driver.remove("c");
  driver.put("d", "2", 7);
  EXPECT_EQ(driver.keyspace.tables().lease(LeaseId(7))->keys.size(), 1u);
  EXPECT_EQ(driver.keyspace.tables().lease(LeaseId(8))->keys.size(), 1u);
  EXPECT_EQ(driver.keyspace.lease_keys(LeaseId(7), {}, SIZE_MAX), std::vector<std::string>{"d"});
}

TEST(Keyspace, ARevokeOfAnotherTermDoesNothing) {
  Driver driver;
  driver.grant(7, 60'000);
  driver.put("a", "1", 7);
  std::string body;
  encode_expire({LeaseId(7)}, body);
  CommandHeader header{.kind = CommandKind::kLeaseExpire, .term = Term(3)};
  EXPECT_EQ(driver.apply(header, body, 4).error, ErrorId::kPastTerm);
  EXPECT_TRUE(driver.keyspace.lease(LeaseId(7)).has_value());
  EXPECT_EQ(driver.apply(header, body, 3).error, ErrorId::kNone);
  EXPECT_FALSE(driver.keyspace.lease(LeaseId(7)).has_value());
  EXPECT_EQ(everything(driver.keyspace).count(), 0);
}

TEST(Keyspace, SessionsRefuseWhatTheyHaveSeen) {
  Driver driver;
  std::string secret(kSecretHashBytes, 's');
  std::string body;
  encode(SessionOpen{.session = SessionId(9), .lease = LeaseId(90), .ttl_ms = 5000, .secret_hash = secret}, body);
  CommandHeader open{.kind = CommandKind::kSessionOpen};
  EXPECT_EQ(driver.apply(open, body).error, ErrorId::kNone);
  EXPECT_EQ(driver.apply(open, body).error, ErrorId::kNone);  // the same again
  std::string other;
  std::string foreign(kSecretHashBytes, 'x');
  encode(SessionOpen{.session = SessionId(9), .lease = LeaseId(90), .ttl_ms = 5000, .secret_hash = foreign}, other);
  EXPECT_EQ(driver.apply(open, other).error, ErrorId::kSessionExists);

  etcdserverpb::PutRequest put;
  put.set_key("a");
  auto send = [&](uint64_t incarnation, uint64_t sequence) {
    return driver
        .apply({.kind = CommandKind::kPut, .session = SessionId(9), .incarnation = incarnation, .sequence = sequence},
               put.SerializeAsString())
        .error;
  };
  EXPECT_EQ(send(1, 5), ErrorId::kNone);
  EXPECT_EQ(send(1, 5), ErrorId::kRepeated);
  EXPECT_EQ(send(1, 3), ErrorId::kNone);  // out of order, in the window
  EXPECT_EQ(send(2, 6), ErrorId::kNone);
  EXPECT_EQ(send(1, 7), ErrorId::kStaleIncarnation);
  EXPECT_EQ(send(2, 69), ErrorId::kNone);
  EXPECT_EQ(send(2, 5), ErrorId::kRepeated);  // 64 behind: out of the window, so it was answered
  EXPECT_EQ(send(2, 7), ErrorId::kNone);      // 62 behind, never applied
  EXPECT_EQ(send(2, 6), ErrorId::kRepeated);  // 63 behind, applied
  // A refusal is not remembered.
  put.set_lease(1234);
  EXPECT_EQ(send(2, 70), ErrorId::kLeaseNotFound);
  put.clear_lease();
  EXPECT_EQ(send(2, 70), ErrorId::kNone);
  // A mark cancels a sequence.
  std::string mark;
  encode(InternalCommand{}, mark);
  CommandHeader header{.kind = CommandKind::kInternal, .session = SessionId(9), .incarnation = 2, .sequence = 71};
  EXPECT_EQ(driver.apply(header, mark).error, ErrorId::kNone);
  EXPECT_EQ(send(2, 71), ErrorId::kRepeated);
  driver.revoke(90);
  EXPECT_EQ(send(2, 72), ErrorId::kSessionExpired);
  EXPECT_EQ(driver.keyspace.session(SessionId(9)), nullptr);
}

TEST(Keyspace, AnOwnersClaimLingersOnceItsSessionEnds) {
  Driver driver;
  driver.grant(1, 10'000);
  driver.put("lock/1", "owner", 1);
  driver.put("lock2/1", "waits", 1);
  InternalCommand command;
  command.operations.push_back(
      {.kind = InternalOperation::Kind::kLeaseGrant, .lease = LeaseId(2), .milliseconds = 1500});
  command.operations.push_back(
      {.kind = InternalOperation::Kind::kPut, .ignore_value = true, .key = "lock/1", .lease = LeaseId(2)});
  command.operations.push_back({.kind = InternalOperation::Kind::kLeaseRevoke, .lease = LeaseId(1)});
  std::string body;
  encode(command, body);
  int64_t before = driver.keyspace.revision().value();
  ASSERT_EQ(driver.apply({.kind = CommandKind::kInternal, .term = Term(1)}, body).error, ErrorId::kNone);
  EXPECT_EQ(driver.keyspace.revision().value(), before + 1);
  auto left = everything(driver.keyspace);
  ASSERT_EQ(left.kvs_size(), 1);
  EXPECT_EQ(left.kvs(0).key(), "lock/1");
  EXPECT_EQ(left.kvs(0).value(), "owner");
  EXPECT_EQ(left.kvs(0).create_revision(), 2);
  EXPECT_EQ(left.kvs(0).lease(), 2);
  EXPECT_EQ(driver.keyspace.lease(LeaseId(2))->ttl_ms, 1500);
  EXPECT_EQ(driver.keyspace.effects().leases_ended, std::vector<LeaseId>{LeaseId(1)});
  EXPECT_EQ(driver.keyspace.effects().leases_started, std::vector<LeaseId>{LeaseId(2)});
}

TEST(Keyspace, RecordsEndWithTheirLease) {
  Driver driver;
  driver.grant(1, 10'000);
  InternalCommand command;
  command.operations.push_back(
      {.kind = InternalOperation::Kind::kRecordPut, .key = "claim/1", .value = "mode", .lease = LeaseId(1)});
  command.operations.push_back({.kind = InternalOperation::Kind::kRecordPut, .key = "quota", .value = "2"});
  std::string body;
  encode(command, body);
  ASSERT_EQ(driver.apply({.kind = CommandKind::kInternal}, body).error, ErrorId::kNone);
  EXPECT_EQ(driver.keyspace.revision(), Revision(1));  // records move no revision
  EXPECT_EQ(driver.keyspace.record("claim/1")->written_at, LogIndex(driver.index));
  EXPECT_EQ(everything(driver.keyspace).count(), 0);
  driver.revoke(1);
  EXPECT_EQ(driver.keyspace.record("claim/1"), nullptr);
  ASSERT_NE(driver.keyspace.record("quota"), nullptr);
  ASSERT_EQ(driver.keyspace.effects().records.size(), 1u);
  EXPECT_EQ(driver.keyspace.effects().records[0].key, "claim/1");
  EXPECT_TRUE(driver.keyspace.effects().records[0].deleted);
}

TEST(Keyspace, CompactionFreesWhatNobodyCanRead) {
  Driver driver;
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 500; ++i) driver.put(fmt::format("k{}", i), std::string(50, 'v'));
  }
  driver.remove("k", "l");
  size_t full = driver.keyspace.store().used_bytes();
  // A pin holds memory, not the floor.
  driver.keyspace.store().pin(100);
  driver.compact(driver.keyspace.revision().value());
  EXPECT_FALSE(driver.keyspace.store().free_some(1'000'000) && driver.keyspace.store().events_begin() > 200);
  std::string body;
  EXPECT_EQ(driver.keyspace.range({.key = "k1", .revision = 200}, body), ErrorId::kCompacted);
  driver.keyspace.store().unpin(100);
  while (driver.keyspace.run_background()) {
  }
  // The tombstones of the floor's own revision stay: a watch may start there.
  EXPECT_LT(driver.keyspace.store().used_bytes(), full / 2);
  driver.put("other", "1");
  driver.compact(driver.keyspace.revision().value());
  while (driver.keyspace.run_background()) {
  }
  EXPECT_EQ(driver.keyspace.store().tree().size(), 1u);
  EXPECT_LT(driver.keyspace.store().history_bytes(), 100u);
}

TEST(Keyspace, ASnapshotUnderWritesIsTheStateAtItsIndex) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    Random random(seed);
    ScriptWriter writer([&random](uint64_t bound) { return random.below(bound); });
    Comparison first;
    std::vector<Step> script;
    auto run = [&](Comparison& comparison, const Step& step) {
      std::optional<std::string> difference = comparison.run(step);
      ASSERT_FALSE(difference.has_value()) << *difference;
    };
    auto next = [&] {
      Step step = writer.next(first.model());
      while (step.kind == Step::Kind::kReload) step = writer.next(first.model());
      script.push_back(step);
      run(first, step);
    };
    for (int i = 0; i < 800 && !HasFatalFailure(); ++i) next();
    uint64_t digest = first.implementation().digest();
    LogIndex index = first.implementation().applied();
    auto reader = std::make_unique<SnapshotReader>(first.implementation());
    std::string bytes;
    size_t begun = script.size();
    // Writes, compactions and freeing between the slices.
    while (!HasFatalFailure() && !reader->read(bytes, static_cast<uint32_t>(1 + random.below(3)))) next();
    EXPECT_EQ(reader->index(), index);
    reader.reset();
    size_t while_reading = script.size() - begun;
    EXPECT_GT(while_reading, 20u);
    for (int i = 0; i < 300 && !HasFatalFailure(); ++i) next();
    if (HasFatalFailure()) return;
    Keyspace loaded;
    SnapshotLoader loader(loaded);
    ASSERT_TRUE(loader.feed(bytes).has_value());
    ASSERT_TRUE(loader.finish().has_value());
    EXPECT_EQ(loaded.digest(), digest);
    EXPECT_EQ(loaded.applied(), index);
    // Replay from the snapshot equals replay from the start, replies included.
    Keyspace from_start;
    uint64_t at = 0;
    for (const Step& step : script) {
      if (step.kind != Step::Kind::kCommand) continue;
      ErrorId refused = ErrorId::kNone;
      std::optional<SharedBytes> command = command_of(step, refused);
      if (!command) continue;
      ++at;
      bool done = from_start.apply(LogIndex(at), Term(step.entry_term), *command);
      while (!done) done = from_start.run_slice();
      if (LogIndex(at) <= index) continue;
      done = loaded.apply(LogIndex(at), Term(step.entry_term), *command);
      while (!done) done = loaded.run_slice();
      ASSERT_EQ(loaded.reply().body, from_start.reply().body);
      ASSERT_EQ(loaded.reply().error, from_start.reply().error);
      ASSERT_EQ(loaded.digest(), from_start.digest()) << "at " << at;
    }
    EXPECT_EQ(loaded.digest(), first.implementation().digest());
  }
}

// Nothing protects a tombstone below the floor that is a key's newest version: it may go between two slices, and the
// key with it, at whatever place the reader stands.
TEST(Keyspace, ASnapshotOutlivesTheGarbageItPasses) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Random random(seed);
    Driver driver;
    for (int i = 0; i < 200; ++i) driver.put(fmt::format("k{:03}", i), fmt::format("value {}", i));
    for (int i = 0; i < 200; ++i) {
      if (i % 3 == 0) driver.remove(fmt::format("k{:03}", i));
      if (i % 3 == 1) driver.put(fmt::format("k{:03}", i), "second");
    }
    driver.put("k100", "third");
    driver.compact(driver.keyspace.revision().value());
    ASSERT_TRUE(driver.keyspace.store().has_garbage());
    uint64_t digest = driver.keyspace.digest();
    std::string before = everything(driver.keyspace).SerializeAsString();
    SnapshotReader reader(driver.keyspace);
    std::string bytes;
    // Freeing comes up behind the reader, meets it and runs ahead.
    uint32_t units = static_cast<uint32_t>(1 + seed % 3);
    uint64_t pace = 4 + random.below(20);
    int slices = 0;
    while (!reader.read(bytes, units)) {
      ++slices;
      (void)driver.keyspace.store().free_some(static_cast<uint32_t>(random.below(pace)));
    }
    EXPECT_GT(slices, 50);
    Keyspace loaded;
    SnapshotLoader loader(loaded);
    ASSERT_TRUE(loader.feed(bytes).has_value()) << seed;
    ASSERT_TRUE(loader.finish().has_value()) << seed;
    EXPECT_EQ(loaded.digest(), digest);
    EXPECT_EQ(everything(loaded).SerializeAsString(), before);
  }
}

TEST(Keyspace, ADamagedSnapshotIsRefused) {
  Driver driver;
  driver.grant(3, 5000);
  for (int i = 0; i < 40; ++i) driver.put(fmt::format("k{}", i % 25), fmt::format("value {}", i), i % 5 == 0 ? 3 : 0);
  driver.compact(20);
  std::string bytes = snapshot_of(driver.keyspace);
  Random random(5);
  int harmless = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = bytes;
    size_t at = random.below(damaged.size());
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << random.below(8)));
    Keyspace fresh;
    SnapshotLoader loader(fresh);
    bool refused = !loader.feed(damaged) || !loader.finish();
    if (!refused) ++harmless;
  }
  // What the digest does not cover: values of versions that are history by now, and the applied index.
  EXPECT_LT(harmless, 1200);
  for (size_t size = 0; size < bytes.size(); size += 7) {
    Keyspace fresh;
    SnapshotLoader loader(fresh);
    EXPECT_TRUE(!loader.feed(ByteView(bytes).substr(0, size)) || !loader.finish()) << size;
  }
}

TEST(Keyspace, OnlyWhoWasAskedAnswers) {
  Keyspace origin;
  Keyspace other;
  Keyspace later;  // the origin's next life
  origin.set_answers({.origin = NodeId(1), .boot = Boot(5)});
  other.set_answers({.origin = NodeId(2), .boot = Boot(5)});
  later.set_answers({.origin = NodeId(1), .boot = Boot(6)});
  Comparison everybody;
  Random random(11);
  ScriptWriter writer([&random](uint64_t bound) { return random.below(bound); });
  uint64_t index = 0;
  int bodies = 0;
  for (int i = 0; i < 3000; ++i) {
    Step step = writer.next(everybody.model());
    if (step.kind != Step::Kind::kCommand) continue;
    step.header.origin = NodeId(1);
    step.header.boot = Boot(5);
    step.header.request = index;
    ErrorId refused = ErrorId::kNone;
    std::optional<SharedBytes> command = command_of(step, refused);
    std::optional<std::string> difference = everybody.run(step);
    ASSERT_FALSE(difference.has_value()) << *difference;
    if (!command) continue;
    ++index;
    for (Keyspace* keyspace : {&origin, &other, &later}) {
      bool done = keyspace->apply(LogIndex(index), Term(step.entry_term), *command);
      while (!done) done = keyspace->run_slice();
      ASSERT_EQ(keyspace->digest(), everybody.implementation().digest());
      ASSERT_EQ(keyspace->reply().error, everybody.implementation().reply().error);
      ASSERT_EQ(keyspace->reply().body, keyspace == &origin ? everybody.implementation().reply().body : "");
    }
    if (!origin.reply().body.empty()) ++bodies;
  }
  EXPECT_GT(bodies, 500);
}

TEST(Keyspace, AnAnswerIsBoundedAndTheCommandTakesEffect) {
  constexpr size_t kBound = 100'000;
  Driver driver;
  driver.keyspace.set_answers({.bytes_max = kBound});
  std::string open;
  std::string secret(kSecretHashBytes, 's');
  encode(SessionOpen{.session = SessionId(9), .lease = LeaseId(90), .ttl_ms = 5000, .secret_hash = secret}, open);
  driver.apply({.kind = CommandKind::kSessionOpen}, open);
  for (int i = 0; i < 100; ++i) driver.put(fmt::format("k{:02}", i), std::string(300, 'v'));
  auto run = [&](const CommandHeader& header, const std::string& body) {
    bool done = driver.keyspace.apply(LogIndex(++driver.index), Term(1), encode_command(header, body), 8);
    while (!done) {
      EXPECT_LE(driver.keyspace.reply().body.size(), kBound);
      done = driver.keyspace.run_slice(8);
    }
    return driver.keyspace.reply().error;
  };
  // 128 times everything, and a nested put behind it.
  etcdserverpb::TxnRequest txn;
  auto* nested = txn.add_success()->mutable_request_txn();
  for (int i = 0; i < 126; ++i) {
    auto* range = nested->add_success()->mutable_request_range();
    range->set_key("k");
    range->set_range_end("l");
  }
  auto* put = nested->add_success()->mutable_request_put();
  put->set_key("last");
  put->set_value("1");
  CommandHeader header{.kind = CommandKind::kTxn, .session = SessionId(9), .incarnation = 1, .sequence = 1};
  int64_t before = driver.keyspace.revision().value();
  EXPECT_EQ(run(header, txn.SerializeAsString()), ErrorId::kAnswerTooLarge);
  EXPECT_TRUE(driver.keyspace.reply().body.empty());
  EXPECT_LT(driver.keyspace.reply().body.capacity(), 1000u);
  EXPECT_EQ(driver.keyspace.revision().value(), before + 1);
  EXPECT_NE(driver.keyspace.store().live_head("last"), nullptr);
  EXPECT_EQ(run(header, txn.SerializeAsString()), ErrorId::kRepeated);
  EXPECT_EQ(error_text(ErrorId::kAnswerTooLarge), "APPLIED_BUT_ANSWER_TOO_LARGE");
  EXPECT_EQ(grpc_code(ErrorId::kAnswerTooLarge), GrpcCode::kOutOfRange);
  // An answer within the bound is whole.
  nested->mutable_success()->DeleteSubrange(2, 125);
  EXPECT_EQ(run({.kind = CommandKind::kTxn}, txn.SerializeAsString()), ErrorId::kNone);
  etcdserverpb::TxnResponse response;
  ASSERT_TRUE(response.ParseFromString(driver.keyspace.reply().body));
  EXPECT_EQ(response.responses(0).response_txn().responses(1).response_range().kvs_size(), 100);
  // What a delete brings back.
  for (int i = 0; i < 400; ++i) driver.put(fmt::format("k{:03}", i), std::string(300, 'v'));
  etcdserverpb::DeleteRangeRequest remove;
  remove.set_key("k");
  remove.set_range_end("l");
  remove.set_prev_kv(true);
  EXPECT_EQ(run({.kind = CommandKind::kDeleteRange}, remove.SerializeAsString()), ErrorId::kAnswerTooLarge);
  EXPECT_TRUE(driver.keyspace.reply().body.empty());
  EXPECT_EQ(everything(driver.keyspace).count(), 1);
}

TEST(Keyspace, ReservedNumbersAreRefused) {
  Driver driver;
  driver.grant(7, 60'000);
  uint64_t digest = driver.keyspace.digest();
  std::string checked = "\x01\x07\x05";  // what kind 8 once carried
  EXPECT_EQ(driver.apply({.kind = static_cast<CommandKind>(8)}, checked).error, ErrorId::kUnknownCommand);
  InternalCommand command;
  command.operations.push_back(
      {.kind = static_cast<InternalOperation::Kind>(7), .lease = LeaseId(7), .milliseconds = 1});
  std::string body;
  encode(command, body);
  EXPECT_EQ(driver.apply({.kind = CommandKind::kInternal}, body).error, ErrorId::kMalformed);
  EXPECT_EQ(driver.keyspace.digest(), digest);
}

TEST(Keyspace, HistoryHasABudget) {
  Driver driver;
  HistoryBudget budget({.age_max = std::chrono::minutes(60), .bytes_max = 100'000});
  Instant now{};
  EXPECT_FALSE(budget.due(now, driver.keyspace).has_value());
  for (int i = 0; i < 2000; ++i) driver.put("a", std::string(100, 'v'));
  std::optional<Revision> due = budget.due(now, driver.keyspace);
  ASSERT_TRUE(due.has_value());
  EXPECT_GT(*due, Revision(500));
  EXPECT_LT(*due, Revision(1500));
  driver.compact(due->value());
  EXPECT_FALSE(budget.due(now, driver.keyspace).has_value());  // still being freed
  while (driver.keyspace.run_background()) {
  }
  HistoryBudget by_age;
  Revision marked = driver.keyspace.revision();
  EXPECT_FALSE(by_age.due(now, driver.keyspace).has_value());
  driver.put("a", "new");
  now += std::chrono::minutes(59);
  EXPECT_FALSE(by_age.due(now, driver.keyspace).has_value());
  now += std::chrono::minutes(2);
  EXPECT_EQ(by_age.due(now, driver.keyspace), marked);
}

// Keys 2 to 20,001 by create revision, in three orders of their names.
std::string name_in_order(int order, int i) {
  return fmt::format("lock/{:05}", order == 0 ? i : (order == 1 ? 20'000 - i : i * 7919 % 20'000));
}

TEST(Keyspace, FirstByCreateRevisionIsNoScan) {
  for (int order = 0; order < 3; ++order) {
    Driver driver;
    for (int i = 0; i < 20'000; ++i) driver.put(name_in_order(order, i), "");
    struct Case {
      bool newest;
      int64_t min;
      int64_t max;
      int64_t first;
    };
    for (const Case& c : {Case{false, 0, 0, 2}, Case{true, 0, 0, 20'001}, Case{true, 0, 15'000, 15'000},
                          Case{false, 7'000, 0, 7'000}, Case{true, 15'001, 15'002, 15'002}}) {
      RangeRequest request{.key = "lock/",
                           .range_end = "lock0",
                           .limit = 1,
                           .min_create_revision = c.min,
                           .max_create_revision = c.max,
                           .sort_order = c.newest ? SortOrder::kDescend : SortOrder::kAscend,
                           .sort_target = SortTarget::kCreate};
      // The first time it may have to make its lists.
      for (bool again : {false, true}) {
        RangeRead read;
        ASSERT_EQ(read.begin(driver.keyspace.store(), request), ErrorId::kNone);
        uint32_t given = again ? 300 : 5000;  // a scan would need 20,000
        std::string body;
        EXPECT_TRUE(read.step(given, body)) << order << " " << c.first;
        etcdserverpb::RangeResponse response;
        ASSERT_TRUE(response.ParseFromString(body));
        EXPECT_EQ(response.count(), 20'000);
        EXPECT_TRUE(response.more());
        ASSERT_EQ(response.kvs_size(), 1);
        EXPECT_EQ(response.kvs(0).create_revision(), c.first);
      }
    }
  }
}

TEST(Keyspace, ALimitWithoutAnOrderIsOfTheFirstKeys) {
  Driver driver;
  for (const std::string key : {"d", "c", "b", "a"}) driver.put(key, "");
  const auto keys = [&driver](const RangeRequest& request) {
    RangeRead read;
    EXPECT_EQ(read.begin(driver.keyspace.store(), request), ErrorId::kNone);
    std::string body;
    for (uint32_t units = 1000; !read.step(units, body);) units = 1000;
    etcdserverpb::RangeResponse response;
    EXPECT_TRUE(response.ParseFromString(body));
    EXPECT_EQ(response.count(), 4);
    EXPECT_TRUE(response.more());
    std::string all;
    for (const auto& kv : response.kvs()) all += kv.key();
    return all;
  };
  RangeRequest request{.key = "a", .range_end = "z", .limit = 2, .sort_target = SortTarget::kCreate};
  EXPECT_EQ(keys(request), "cb") << "a, b and c by age, and of them two";
  request.revision = 5;
  EXPECT_EQ(keys(request), "cb");
  request.min_mod_revision = 1;
  EXPECT_EQ(keys(request), "dc") << "with a filter, all by age";
  request.min_mod_revision = 0;
  request.sort_order = SortOrder::kAscend;
  EXPECT_EQ(keys(request), "dc") << "with an order too";
}

TEST(Keyspace, ASearchByCreateRevisionIsOfItsRevision) {
  Driver driver;
  for (int i = 0; i < 20'000; ++i) driver.put(name_in_order(2, i), "");
  RangeRequest request{.key = "lock/",
                       .range_end = "lock0",
                       .limit = 2,
                       .max_create_revision = 15'000,
                       .sort_order = SortOrder::kDescend,
                       .sort_target = SortTarget::kCreate};
  RangeRead read;
  ASSERT_EQ(read.begin(driver.keyspace.store(), request), ErrorId::kNone);
  std::string body;
  uint32_t units = 1;
  ASSERT_FALSE(read.step(units, body));
  // What it looks for ends, and lives again, between two slices.
  driver.remove(name_in_order(2, 14'998));
  driver.put(name_in_order(2, 14'998), "again");
  for (units = 1000; !read.step(units, body);) units = 1000;
  etcdserverpb::RangeResponse response;
  ASSERT_TRUE(response.ParseFromString(body));
  ASSERT_EQ(response.kvs_size(), 2);
  EXPECT_EQ(response.kvs(0).create_revision(), 15'000);
  EXPECT_EQ(response.kvs(1).create_revision(), 14'999);
  EXPECT_EQ(response.count(), 20'000);
}

TEST(Keyspace, AReadOfAnOldRevisionOfAHotKeyIsSliced) {
  Driver driver;
  for (int i = 0; i < 5000; ++i) driver.put("hot", fmt::format("{}", i));
  RangeRead read;
  ASSERT_EQ(read.begin(driver.keyspace.store(), {.key = "hot", .revision = 10}), ErrorId::kNone);
  std::string body;
  int slices = 1;
  for (uint32_t units = 100; !read.step(units, body); units = 100) ++slices;
  EXPECT_GT(slices, 40);
  etcdserverpb::RangeResponse response;
  ASSERT_TRUE(response.ParseFromString(body));
  EXPECT_EQ(response.kvs(0).value(), "8");
}

}  // namespace
}  // namespace conclave::keyspace
