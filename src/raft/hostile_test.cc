// Peers are authenticated, and still their messages are input like any other: what is malformed is refused with a
// reason and changes nothing, and nothing that a message can say makes a server fail an ASSERT.
#include <gtest/gtest.h>

#include "base/random.h"
#include "raft/describe.h"
#include "raft/invariants.h"
#include "raft/testing/cluster.h"

namespace conclave::raft {
namespace {

// A short text of all that a message could have changed.
std::string fingerprint(Cluster& cluster, uint64_t id) {
  const Raft& raft = cluster.raft(id);
  std::string text = describe(raft.status()) + raft.membership().describe() + describe(raft.snapshot().last);
  for (LogIndex at = raft.log().first_index(); at <= raft.log().last_index(); ++at) {
    text += fmt::format(" {}:{}:{}", raft.entry(at).term, at, raft.entry(at).payload.view());
  }
  text += fmt::format(" vote {} {} {}", raft.vote().term, raft.vote().candidate, raft.vote().incarnation);
  return text;
}

class HostileTest : public testing::Test {
 protected:
  void SetUp() override {
    cluster.elect(1);
    for (const char* command : {"a", "b", "c"}) cluster.propose(1, command);
    cluster.deliver_all();
  }
  Message from_leader(const Body& body) {
    return {.header = {.group = GroupId(7),
                       .from = NodeId(1),
                       .to = NodeId(2),
                       .term = Term(1),
                       .boot = Boot(1),
                       .to_boot = Boot(1),
                       .incarnation = Incarnation(1),
                       .proven = true},
            .body = body};
  }
  void expect_refused(const Message& message, Refusal reason) {
    const std::string before = fingerprint(cluster, message.header.to.value());
    const Output& output = cluster.step(message.header.to.value(), Receive{.message = message});
    EXPECT_EQ(output.refused, reason) << describe(message) << ": " << to_string(output.refused);
    EXPECT_TRUE(output.messages.empty());
    EXPECT_FALSE(output.write.has_value());
    EXPECT_EQ(fingerprint(cluster, message.header.to.value()), before);
  }
  Position last() { return cluster.raft(2).status().last; }

  Cluster cluster{3};
};

TEST_F(HostileTest, HeadersThatCannotBe) {
  Message message = from_leader(AppendRequest{.prev = last()});
  message.header.group = GroupId(8);
  expect_refused(message, Refusal::kWrongGroup);
  message = from_leader(AppendRequest{.prev = last()});
  message.header.from = NodeId(2);
  expect_refused(message, Refusal::kFromSelf);
  message = from_leader(AppendRequest{.prev = last()});
  message.header.from = NodeId();
  expect_refused(message, Refusal::kUnknownSender);
  message = from_leader(AppendRequest{.prev = last()});
  message.header.term = Term(UINT64_MAX);
  expect_refused(message, Refusal::kBadNumber);
  message = from_leader(AppendRequest{.prev = last()});
  message.header.boot = Boot();
  expect_refused(message, Refusal::kBadNumber);
  message = from_leader(AppendReply{.ok = true});
  message.header.to_boot = Boot(9);
  expect_refused(message, Refusal::kStaleBoot);
}

TEST_F(HostileTest, AMessageForAnotherServer) {
  Message message = from_leader(AppendRequest{.prev = last()});
  message.header.to = NodeId(3);
  const std::string before = fingerprint(cluster, 2);
  const Output& output = cluster.step(2, Receive{.message = message});
  EXPECT_EQ(output.refused, Refusal::kWrongReceiver);
  EXPECT_EQ(fingerprint(cluster, 2), before);
}

TEST_F(HostileTest, EntriesThatCannotBe) {
  Entry entry{
      .index = last().index.next(), .term = Term(1), .type = EntryType::kCommand, .payload = SharedBytes::copy_of("x")};
  auto with = [&](auto change) {
    static std::vector<Entry> entries;
    entries = {entry};
    change(entries[0]);
    return from_leader(AppendRequest{.prev = last(), .entries = EntrySlices(entries)});
  };
  expect_refused(with([](Entry& e) { ++e.index; }), Refusal::kBadEntries);
  expect_refused(with([](Entry& e) { e.term = Term(2); }), Refusal::kBadEntries);
  expect_refused(with([](Entry& e) { e.term = Term(0); }), Refusal::kBadEntries);
  expect_refused(with([](Entry& e) { e.type = EntryType::kHole; }), Refusal::kBadEntries);
  expect_refused(with([](Entry& e) { e.type = EntryType::kConfiguration; }), Refusal::kBadMembershipEntry);
}

TEST_F(HostileTest, WhatContradictsTheCommitted) {
  const std::vector<Entry> other{{.index = LogIndex(2), .term = Term(1), .type = EntryType::kCommand},
                                 {.index = LogIndex(3), .term = Term(2), .type = EntryType::kCommand}};
  Message message =
      from_leader(AppendRequest{.prev = {.term = Term(1), .index = LogIndex(1)}, .entries = EntrySlices(other)});
  message.header.term = Term(1);
  expect_refused(message, Refusal::kBadEntries);
  message = from_leader(AppendRequest{.prev = {.term = Term(0), .index = LogIndex(2)}});
  expect_refused(message, Refusal::kConflictsWithCommitted);
}

TEST_F(HostileTest, ASecondLeaderOfOneTerm) {
  Message message = from_leader(AppendRequest{.prev = last()});
  message.header.from = NodeId(3);
  expect_refused(message, Refusal::kSecondLeader);
  message.header.to = NodeId(1);
  expect_refused(message, Refusal::kSecondLeader);
  message = from_leader(TimeoutNow{});
  message.header.from = NodeId(3);
  expect_refused(message, Refusal::kSecondLeader);
}

TEST_F(HostileTest, AcknowledgementsOfWhatWasNeverSent) {
  auto to_leader = [&](const Body& body) {
    Message message = from_leader(body);
    message.header.from = NodeId(2);
    message.header.to = NodeId(1);
    return message;
  };
  expect_refused(to_leader(AppendReply{.ok = true, .match = LogIndex(1000)}), Refusal::kBeyondLog);
  expect_refused(to_leader(AppendReply{.ok = true, .round = ReadId(1000), .match = LogIndex(1)}), Refusal::kBeyondLog);
  Message stranger = to_leader(AppendReply{.ok = true});
  stranger.header.from = NodeId(9);
  expect_refused(stranger, Refusal::kUnknownSender);
  expect_refused(to_leader(PullReply{.id = 5}), Refusal::kUnexpected);
  expect_refused(to_leader(SnapshotReply{.last = {.term = Term(1), .index = LogIndex(2)}}), Refusal::kUnexpected);
  expect_refused(to_leader(ReadReply{.id = ReadId(3), .ok = true}), Refusal::kUnexpected);
}

TEST_F(HostileTest, SnapshotsThatCannotBe) {
  SnapshotChunk chunk{
      .mark = {.last = {.term = Term(1), .index = LogIndex(9)}, .membership = cluster.raft(1).membership()},
      .commit = LogIndex(9),
      .offset = 0,
      .total = 4,
      .bytes = "abcd"};
  SnapshotChunk bad = chunk;
  bad.offset = 2;
  expect_refused(from_leader(bad), Refusal::kBadNumber);
  bad = chunk;
  bad.commit = LogIndex(8);
  expect_refused(from_leader(bad), Refusal::kBadNumber);
  bad = chunk;
  bad.mark.membership = Membership();
  expect_refused(from_leader(bad), Refusal::kBadMembershipEntry);
  bad = chunk;
  bad.pull = 77;
  expect_refused(from_leader(bad), Refusal::kUnexpected);
}

// What lies before the log's start is not compared; the start is. Entries of another log must not go on behind it.
TEST_F(HostileTest, EntriesThatPassTheLogsStartWithAnotherTerm) {
  cluster.elect(3);
  for (const char* command : {"d", "e"}) cluster.propose(3, command);
  cluster.deliver_all();
  cluster.snapshot(2, 0);
  const Position start = cluster.raft(2).log().start();
  ASSERT_EQ(start, last());
  ASSERT_EQ(start.term, Term(2));
  std::vector<Entry> entries;
  for (LogIndex index = start.index.prev(); index <= start.index.next(); index = index.next()) {
    entries.push_back({.index = index, .term = Term(1), .type = EntryType::kCommand});
  }
  Message message = from_leader(
      AppendRequest{.prev = {.term = Term(1), .index = start.index.prev().prev()}, .entries = EntrySlices(entries)});
  message.header.from = NodeId(3);
  message.header.term = Term(2);
  expect_refused(message, Refusal::kConflictsWithCommitted);
}

// A leader's snapshot cannot be of another log than what it appended itself.
TEST_F(HostileTest, ASnapshotThatContradictsItsLeadersEntries) {
  SnapshotChunk chunk{.mark = {.last = last(), .membership = cluster.raft(1).membership()},
                      .commit = last().index,
                      .offset = 0,
                      .total = 4,
                      .bytes = "abcd"};
  chunk.mark.last.term = Term(0);
  expect_refused(from_leader(chunk), Refusal::kBadNumber);
  // Appended by the leader of term 2, and not committed as far as this server knows.
  cluster.elect(3);
  cluster.set_filter([](const Message& message) { return message.header.to == NodeId(3); });
  cluster.propose(3, "d");
  cluster.deliver_all();
  ASSERT_GT(last().index, cluster.raft(2).status().commit);
  ASSERT_EQ(last().term, Term(2));
  chunk.mark.last = {.term = Term(1), .index = last().index};
  chunk.commit = last().index;
  Message message = from_leader(chunk);
  message.header.from = NodeId(3);
  message.header.term = Term(2);
  expect_refused(message, Refusal::kConflictsWithCommitted);
}

// A message that was on its way while its sender took a new identity does not bring the old one back.
TEST_F(HostileTest, AnIdentityIsNotTakenBackWithinALife) {
  auto hello = [](uint64_t incarnation) {
    return Message{.header = {.group = GroupId(7),
                              .from = NodeId(3),
                              .to = NodeId(1),
                              .term = Term(1),
                              .boot = Boot(5),
                              .to_boot = Boot(1),
                              .incarnation = Incarnation(incarnation),
                              .proven = incarnation == 5},
                   .body = Hello{}};
  };
  auto peer = [&] { return *std::ranges::find(cluster.raft(1).peers(), NodeId(3), &Peer::id); };
  cluster.step(1, Receive{.message = hello(1)});
  EXPECT_EQ(peer().incarnation, Incarnation(1));
  EXPECT_FALSE(peer().proven);
  cluster.step(1, Receive{.message = hello(5)});
  EXPECT_EQ(peer().incarnation, Incarnation(5));
  cluster.step(1, Receive{.message = hello(1)});
  EXPECT_EQ(peer().incarnation, Incarnation(5));
  EXPECT_TRUE(peer().proven);
}

// Well-formed messages with numbers drawn at random around the true ones, from every member: whatever they say, no
// server fails, its own state stays sound, and what was refused changed nothing.
TEST(HostileFuzz, RandomBelievableMessages) {
  Random random(11);
  std::map<Refusal, int> reasons;
  int accepted = 0;
  int pulls = 0;
  for (int round = 0; round < 600; ++round) {
    Cluster cluster(3);
    cluster.elect(1);
    for (const char* command : {"a", "b", "c", "d"}) cluster.propose(1, command);
    cluster.deliver_all();
    if (round % 3 == 1) {
      // Logs that begin behind a snapshot, with something uncommitted on the second server.
      for (uint64_t id = 1; id <= 3; ++id) cluster.snapshot(id, random.below(2));
      if (random.coin()) {
        cluster.isolate(1);
        cluster.stop_disk(3);
        cluster.propose(1, "e");
        cluster.deliver_all();
      }
    } else if (round % 3 == 2) {
      // A hole, and its repair under way.
      cluster.set_filter([](const Message& message) {
        return std::holds_alternative<PullReply>(message.body) || std::holds_alternative<AppendRequest>(message.body);
      });
      cluster.crash(2);
      cluster.restart(2, {LogIndex(2), LogIndex(3)}, random.coin());
      cluster.advance(std::chrono::milliseconds(300));
      pulls += cluster.raft(2).status().has_gap ? 1 : 0;
    }
    auto number = [&] { return random.chance(1, 20) ? random.next() : random.below(10); };
    auto place = [&] { return Position{.term = Term(random.below(3)), .index = LogIndex(number())}; };
    for (int i = 0; i < 200; ++i) {
      const uint64_t to = random.between(1, 3);
      std::vector<Entry> entries;
      Body body;
      const Position prev = place();
      for (uint64_t n = random.below(4); n-- > 0;) {
        std::string payload(random.below(5), 'p');
        EntryType type = EntryType::kCommand;
        if (random.chance(1, 8)) {
          type = EntryType::kConfiguration;
          payload.clear();
          cluster.raft(1).membership().encode(payload);
          if (random.coin() && !payload.empty())
            payload[random.below(payload.size())] = static_cast<char>(random.below(6));
        }
        entries.push_back({.index = prev.index + (entries.size() + 1),
                           .term = Term(random.below(4)),
                           .type = type,
                           .payload = SharedBytes::copy_of(payload)});
      }
      switch (random.below(12)) {
        case 0:
          body = Hello{.last = place(), .answer = random.coin(), .floor = {.node = NodeId(to), .term = Term(number())}};
          break;
        case 1:
          body = VoteRequest{
              .pre = random.coin(), .transfer = random.coin(), .campaign_term = Term(number()), .last = place()};
          break;
        case 2:
          body = VoteReply{
              .pre = random.coin(), .campaign_term = Term(number()), .granted = random.coin(), .last = place()};
          break;
        case 3:
        case 4:
          body = AppendRequest{
              .prev = prev, .commit = LogIndex(number()), .round = ReadId(number()), .entries = EntrySlices(entries)};
          break;
        case 5:
          body = AppendReply{.ok = random.coin(),
                             .promised = random.coin(),
                             .round = ReadId(number()),
                             .match = LogIndex(number()),
                             .rejected = LogIndex(number()),
                             .hint = place()};
          break;
        case 6:
          body = SnapshotChunk{.pull = random.below(2),
                               .mark = {.last = place(), .membership = cluster.raft(1).membership()},
                               .commit = LogIndex(number()),
                               .offset = 0,
                               .total = 1,
                               .bytes = "x"};
          break;
        case 7:
          body =
              SnapshotReply{.pull = random.below(3), .last = place(), .offset = number(), .installed = random.coin()};
          break;
        case 8:
          body = ReadRequest{.id = ReadId(number())};
          break;
        case 9:
          body = TimeoutNow{};
          break;
        case 10:
          body = PullRequest{.id = number(), .prev = place(), .proof = place()};
          break;
        default:
          body = PullReply{
              .id = number(), .ok = random.coin(), .prev = prev, .last = place(), .entries = EntrySlices(entries)};
      }
      const uint64_t claimed = random.chance(1, 10) ? random.below(12) : (to % 3) + 1;
      const Message message{.header = {.group = GroupId(7),
                                       .from = NodeId(claimed),
                                       .to = NodeId(to),
                                       .term = Term(number()),
                                       .boot = Boot(random.chance(1, 10) ? number() : random.between(uint64_t{1}, 2)),
                                       .to_boot = Boot(random.below(3)),
                                       .incarnation = Incarnation(random.below(3)),
                                       .proven = random.coin()},
                            .body = body};
      const std::string before = fingerprint(cluster, to);
      const Output& output = cluster.step(to, Receive{.message = message});
      if (output.refused != Refusal::kNone) {
        ++reasons[output.refused];
        ASSERT_EQ(fingerprint(cluster, to), before) << describe(message) << " " << to_string(output.refused);
        ASSERT_TRUE(output.messages.empty() && !output.write);
      } else {
        ++accepted;
      }
      const std::string violation = Invariants::check(cluster.raft(to));
      ASSERT_EQ(violation, "") << "round " << round << ": " << describe(message);
    }
  }
  EXPECT_GT(accepted, 10'000);
  EXPECT_EQ(pulls, 200);
  EXPECT_GE(reasons.size(), 8U) << "too few kinds of refusal reached";
}

TEST(CodecTest, EveryMessageComesBackAsItWas) {
  // The messages of a lively cluster, through bytes and back.
  Cluster cluster(3);
  size_t seen = 0;
  cluster.set_filter([&](const Message& message) {
    std::string bytes;
    encode(message, bytes);
    Result<OwnedMessage> decoded = OwnedMessage::decode(bytes);
    EXPECT_TRUE(decoded && decoded->message() == message) << describe(message);
    ++seen;
    return false;
  });
  cluster.elect(1);
  cluster.crash(3);
  for (const char* command : {"a", "b", "c"}) cluster.propose(1, command);
  cluster.deliver_all();
  cluster.snapshot(1);
  cluster.restart(3);
  cluster.advance(std::chrono::seconds(1));
  cluster.step(1, Transfer{.to = NodeId(2)});
  cluster.read(3, 1);
  cluster.advance(std::chrono::seconds(1));
  EXPECT_GT(seen, 50U);
}

TEST(CodecTest, BrokenBytesAreRefused) {
  Random random(3);
  std::vector<std::string> samples;
  Cluster cluster(3);
  cluster.set_filter([&](const Message& message) {
    if (samples.size() < 200) encode(message, samples.emplace_back());
    return false;
  });
  cluster.elect(1);
  for (const char* command : {"a", "b", "c"}) cluster.propose(1, command);
  cluster.advance(std::chrono::seconds(2));
  size_t refused = 0;
  for (const std::string& sample : samples) {
    for (size_t cut = 0; cut < sample.size(); ++cut) {
      EXPECT_FALSE(OwnedMessage::decode(ByteView(sample).substr(0, cut))) << cut;
    }
    EXPECT_FALSE(OwnedMessage::decode(sample + "x"));
    for (int i = 0; i < 50; ++i) {
      std::string bytes = sample;
      bytes[random.below(bytes.size())] = static_cast<char>(random.next());
      refused += OwnedMessage::decode(bytes) ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 100U);
  // A count of entries far beyond the bytes reserves nothing.
  EXPECT_FALSE(
      OwnedMessage::decode(std::string("\x01\x04\x07\x01\x02\x01\x01\x01\x01\x01", 10) + std::string(9, '\xff')));
}

}  // namespace
}  // namespace conclave::raft
