// What servers say to each other, as it was frozen: consensus messages, the node's frames, the link's hello and frames,
// and the wiring's two kinds of frames. Each kind has at least one golden value.
#include <array>
#include <set>
#include <tuple>

#include <gtest/gtest.h>

#include "net/peer_frame.h"
#include "node/frame.h"
#include "node/replica.h"
#include "raft/codec.h"
#include "server/bootstrap.h"
#include "server/introduction.h"
#include "server/round_trips.h"
#include "tests/compat/golden.h"
#include "tests/compat/values.h"

namespace conclave::compat {
namespace {

constexpr NodeId kServer{0x8000000000000003};
constexpr Boot kBoot{1'764'115'200'000};
constexpr GroupId kGroup{1};

// ---- Consensus ----

const std::string kMessages = "messages.txt";
constexpr std::string_view kMessagesAre = "Messages of consensus: docs/internals/formats/peer.md";

Position place(uint64_t term, uint64_t index) {
  return {.term = Term(term), .index = LogIndex(index)};
}

Floor floor_of(uint64_t node) {
  return {.node = NodeId(node),
          .boot = kBoot,
          .incarnation = Incarnation(2),
          .term = Term(129),
          .last = place(128, 70'000)};
}

// The entries that the messages point into.
const std::array kEntries = {
    Entry{.index = LogIndex(70'001), .term = Term(128), .type = EntryType::kNoop},
    Entry{.index = LogIndex(70'002),
          .term = Term(129),
          .type = EntryType::kCommand,
          .payload = SharedBytes::copy_of("a command")},
    Entry{.index = LogIndex(70'003),
          .term = Term(129),
          .type = EntryType::kConfiguration,
          .payload = SharedBytes::copy_of(std::string("\x00\x80\xff", 3))},
};

std::vector<std::pair<std::string, raft::Message>> written_messages() {
  const raft::Header full{.group = kGroup,
                          .from = kServer,
                          .to = NodeId(2),
                          .term = Term(129),
                          .boot = kBoot,
                          .to_boot = Boot(1'764'115'200'001),
                          .incarnation = Incarnation(2),
                          .proven = true};
  const raft::Header least{.group = GroupId(300), .from = NodeId(1), .to = NodeId(2), .boot = Boot(1)};
  raft::AppendRequest append{.prev = place(128, 70'000),
                             .commit = LogIndex(69'999),
                             .round = ReadId(16'384),
                             .promise = std::chrono::milliseconds(1500),
                             .entries = std::span<const Entry>(kEntries)};
  append.floors.items[0] = floor_of(1);
  append.floors.items[1] = floor_of(0xffffffffffffffff);
  append.floors.size = 2;
  std::vector<std::pair<std::string, raft::Message>> all{
      {"hello", {full, raft::Hello{.last = place(128, 70'000)}}},
      {"hello_answer", {full, raft::Hello{.last = place(128, 70'000), .answer = true, .floor = floor_of(2)}}},
      {"hello_of_an_empty_server", {least, raft::Hello{}}},
      {"vote_request", {full, raft::VoteRequest{.campaign_term = Term(129), .last = place(128, 70'000)}}},
      {"vote_request_pre", {full, raft::VoteRequest{.pre = true, .campaign_term = Term(130), .last = place(128, 1)}}},
      {"vote_request_transfer",
       {full, raft::VoteRequest{.transfer = true, .campaign_term = Term(130), .last = place(128, 1)}}},
      {"vote_reply", {full, raft::VoteReply{.campaign_term = Term(129), .granted = true, .last = place(127, 5)}}},
      {"append_request", {full, append}},
      {"append_request_heartbeat", {full, raft::AppendRequest{.prev = place(128, 70'000), .commit = LogIndex(1)}}},
      {"append_reply",
       {full, raft::AppendReply{.ok = true, .promised = true, .round = ReadId(16'384), .match = LogIndex(70'003)}}},
      {"append_reply_rejected",
       {full, raft::AppendReply{.round = ReadId(1), .rejected = LogIndex(70'000), .hint = place(127, 300)}}},
      {"snapshot_chunk",
       {full, raft::SnapshotChunk{.mark = {.last = place(128, 70'000), .membership = joint_membership()},
                                  .commit = LogIndex(70'001),
                                  .offset = 262'144,
                                  .total = 1'000'000,
                                  .bytes = "a piece of it"}}},
      {"snapshot_chunk_pulled",
       {full, raft::SnapshotChunk{.pull = 17, .mark = {.last = place(128, 1), .membership = three_voters()}}}},
      {"snapshot_reply",
       {full, raft::SnapshotReply{.pull = 17, .last = place(128, 70'000), .offset = 262'144, .installed = true}}},
      {"read_request", {full, raft::ReadRequest{.id = ReadId(77)}}},
      {"read_reply", {full, raft::ReadReply{.id = ReadId(77), .ok = true, .index = LogIndex(70'000)}}},
      {"timeout_now", {full, raft::TimeoutNow{}}},
      {"pull_request", {full, raft::PullRequest{.id = 18, .prev = place(127, 300), .proof = place(128, 400)}}},
      {"pull_reply",
       {full, raft::PullReply{.id = 18,
                              .ok = true,
                              .prev = place(128, 70'000),
                              .last = place(129, 70'003),
                              .entries = std::span<const Entry>(kEntries)}}},
      {"pull_reply_refused", {full, raft::PullReply{.id = 18, .prev = place(127, 299), .last = place(127, 350)}}},
  };
  for (uint8_t refusal = 1; refusal <= static_cast<uint8_t>(raft::VoteRefusal::kMayNotVote); ++refusal) {
    all.emplace_back("vote_reply_refused_" + std::to_string(refusal),
                     raft::Message{full, raft::VoteReply{.pre = true,
                                                         .campaign_term = Term(130),
                                                         .refusal = static_cast<raft::VoteRefusal>(refusal),
                                                         .last = place(128, 70'000)}});
  }
  return all;
}

TEST(Messages, AreWrittenAsTheyWere) {
  Named written;
  std::set<size_t> kinds;
  for (const auto& [name, message] : written_messages()) {
    raft::encode(message, written.emplace_back(name, "").second);
    kinds.insert(message.body.index());
  }
  EXPECT_EQ(kinds.size(), std::variant_size_v<raft::Body>) << "a kind of message has no golden value";
  expect_golden_text(kMessages, kMessagesAre, written);
}

TEST(Messages, WhatWasWrittenIsRead) {
  const auto golden = read_golden_text(kMessages);
  for (const auto& [name, message] : written_messages()) {
    ASSERT_TRUE(golden.contains(name)) << name;
    const auto decoded = raft::OwnedMessage::decode(golden.at(name));
    ASSERT_TRUE(decoded) << name << ": " << decoded.error().message;
    EXPECT_TRUE(decoded->message() == message) << name;
  }
}

TEST(Messages, ALaterVersionIsRefused) {
  for (auto [name, bytes] : read_golden_text(kMessages)) {
    ++bytes[0];
    const auto decoded = raft::OwnedMessage::decode(bytes);
    ASSERT_FALSE(decoded) << name;
    EXPECT_EQ(decoded.error().code, ErrorCode::kVersion);
    EXPECT_EQ(decoded.error().message, "peer message of version 2");
  }
}

// ---- Frames of the node ----

const std::string kFrames = "frames.txt";
constexpr std::string_view kFramesAre = "Frames of the node: docs/internals/formats/peer.md";

std::vector<std::pair<std::string, node::Frame>> written_frames() {
  std::vector<std::pair<std::string, node::Frame>> all{
      {"forward",
       node::Forward{
           .group = kGroup, .term = Term(129), .boot = kBoot, .first = 300, .commands = {"one", "", "another"}}},
      {"forward_reply", node::ForwardReply{.group = kGroup,
                                           .term = Term(129),
                                           .boot = kBoot,
                                           .next = 303,
                                           .refused_first = 301,
                                           .refused_count = 2,
                                           .no_space = true}},
      {"forward_reply_asks_again", node::ForwardReply{.group = kGroup, .term = Term(129), .boot = kBoot, .next = 1}},
      {"keep_alive", node::KeepAlive{.group = kGroup,
                                     .term = Term(129),
                                     .boot = kBoot,
                                     .id = 500,
                                     .leases = {LeaseId(7), LeaseId(-15), LeaseId(INT64_MAX)}}},
      {"keep_alive_asks",
       node::KeepAlive{
           .group = kGroup, .term = Term(129), .boot = kBoot, .id = 501, .renews = false, .leases = {LeaseId(7)}}},
      {"keep_alive_reply",
       node::KeepAliveReply{.group = kGroup, .boot = kBoot, .id = 500, .ok = true, .ttl_ms = {3'600'000, 0, 1}}},
      {"keep_alive_reply_refused", node::KeepAliveReply{.group = kGroup, .boot = kBoot, .id = 500}},
      {"state_digest", node::StateDigest{.group = kGroup, .index = LogIndex(70'000), .digest = 0x0123456789abcdef}},
      {"feature_query", node::FeatureQuery{.group = kGroup, .term = Term(129)}},
      {"features", node::Features{.group = kGroup, .term = Term(129), .level = 1}},
  };
  for (uint8_t kind = 1; kind <= static_cast<uint8_t>(node::MemberChangeKind::kReplace); ++kind) {
    node::MemberChange change{.kind = static_cast<node::MemberChangeKind>(kind), .id = kServer};
    if (change.kind == node::MemberChangeKind::kReplace) change.replaced = NodeId(2);
    all.emplace_back(
        "change_" + std::to_string(kind),
        node::ChangeRequest{.group = kGroup, .term = Term(129), .boot = kBoot, .id = 600, .change = change});
  }
  for (uint8_t refusal = 0; refusal <= static_cast<uint8_t>(node::ChangeRefusal::kChangePending); ++refusal) {
    all.emplace_back(
        "change_reply_" + std::to_string(refusal),
        node::ChangeReply{
            .group = kGroup, .boot = kBoot, .id = 600, .refusal = static_cast<node::ChangeRefusal>(refusal)});
  }
  return all;
}

// Of each kind all fields, to be compared.
auto fields(const node::Forward& frame) {
  return std::tie(frame.group, frame.term, frame.boot, frame.first, frame.commands);
}
auto fields(const node::ForwardReply& frame) {
  return std::tie(frame.group, frame.term, frame.boot, frame.next, frame.refused_first, frame.refused_count,
                  frame.no_space);
}
auto fields(const node::KeepAlive& frame) {
  return std::tie(frame.group, frame.term, frame.boot, frame.id, frame.renews, frame.leases);
}
auto fields(const node::KeepAliveReply& frame) {
  return std::tie(frame.group, frame.boot, frame.id, frame.ok, frame.ttl_ms);
}
auto fields(const node::StateDigest& frame) {
  return std::tie(frame.group, frame.index, frame.digest);
}
auto fields(const node::ChangeRequest& frame) {
  return std::tie(frame.group, frame.term, frame.boot, frame.id, frame.change);
}
auto fields(const node::ChangeReply& frame) {
  return std::tie(frame.group, frame.boot, frame.id, frame.refusal);
}
auto fields(const node::FeatureQuery& frame) {
  return std::tie(frame.group, frame.term);
}
auto fields(const node::Features& frame) {
  return std::tie(frame.group, frame.term, frame.level);
}
auto fields(const node::AppliedUpTo& frame) {
  return std::tie(frame.group, frame.term, frame.index);
}

// These came after the level was frozen: who does not know them passes them over, and nothing hangs on them.
const std::string kLaterFrames = "later-frames.txt";
constexpr std::string_view kLaterFramesAre =
    "Frames of the node that builds may not know: docs/internals/formats/peer.md";

std::vector<std::pair<std::string, node::Frame>> later_frames() {
  return {{"applied_up_to", node::AppliedUpTo{.group = kGroup, .term = Term(129), .index = LogIndex(70'000)}}};
}

TEST(Frames, AreWrittenAsTheyWere) {
  Named written;
  Named later;
  std::set<size_t> kinds;
  for (const auto& [name, frame] : written_frames()) {
    written.emplace_back(name, node::encode(frame));
    kinds.insert(frame.index());
  }
  for (const auto& [name, frame] : later_frames()) {
    later.emplace_back(name, node::encode(frame));
    kinds.insert(frame.index());
  }
  EXPECT_EQ(kinds.size(), std::variant_size_v<node::Frame>) << "a kind of frame has no golden value";
  expect_golden_text(kFrames, kFramesAre, written);
  expect_golden_text(kLaterFrames, kLaterFramesAre, later);
}

TEST(Frames, WhatWasWrittenIsRead) {
  auto golden = read_golden_text(kFrames);
  golden.merge(read_golden_text(kLaterFrames));
  auto frames = written_frames();
  std::ranges::move(later_frames(), std::back_inserter(frames));
  for (const auto& [name, frame] : frames) {
    ASSERT_TRUE(golden.contains(name)) << name;
    const auto decoded = node::decode_frame(golden.at(name));
    ASSERT_TRUE(decoded) << name << ": " << decoded.error().message;
    ASSERT_EQ(decoded->index(), frame.index()) << name;
    std::visit(
        [&](const auto& expected) {
          EXPECT_TRUE(fields(std::get<std::decay_t<decltype(expected)>>(*decoded)) == fields(expected)) << name;
        },
        frame);
  }
}

// They have no version of their own: a kind that is not known is what a later one would add.
TEST(Frames, AKindThatIsNotKnownIsRefused) {
  const auto decoded = node::decode_frame(std::string("\x0c\x01", 2));
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().message, "frame of kind 12");
}

TEST(Frames, AConsensusMessageStandsBehindItsKind) {
  const auto golden = read_golden_text(kMessages);
  EXPECT_TRUE(node::is_from_leader(std::string(1, '\x01') + golden.at("append_request")));
  EXPECT_FALSE(node::is_from_leader(std::string(1, '\x01') + golden.at("hello")));
}

// ---- The link ----

const std::string kLink = "link.txt";
constexpr std::string_view kLinkIs = "Hellos and frames of a link: docs/internals/formats/peer.md";
constexpr std::string_view kPayload = "what a frame carries";

std::vector<std::pair<std::string, net::PeerHello>> written_hellos() {
  const net::PeerHello hello{.cluster = ClusterId(0x1122334455667788),
                             .member = kServer,
                             .boot = kBoot,
                             .receiver = NodeId(0xfedcba9876543210),
                             .features = {.lowest = 1, .highest = 0x0302}};
  std::vector<std::pair<std::string, net::PeerHello>> all{{"hello", hello}};
  for (uint8_t verdict = 0; verdict <= static_cast<uint8_t>(net::PeerVerdict::kFeatures); ++verdict) {
    net::PeerHello answer = hello;
    answer.is_answer = true;
    answer.verdict = static_cast<net::PeerVerdict>(verdict);
    all.emplace_back("answer_" + std::to_string(verdict), answer);
  }
  return all;
}

std::string lane_name(env::Lane lane) {
  return "frame_in_lane_" + std::to_string(static_cast<int>(lane));
}

constexpr std::array kLanes = {env::Lane::kConsensus, env::Lane::kForward, env::Lane::kBulk};

TEST(Link, IsWrittenAsItWas) {
  Named written;
  for (const auto& [name, hello] : written_hellos()) written.emplace_back(name, net::encode(hello));
  for (const env::Lane lane : kLanes) {
    const auto head = net::encode_peer_frame_head(lane, kPayload);
    written.emplace_back(lane_name(lane), std::string(head.data(), head.size()) + std::string(kPayload));
  }
  expect_golden_text(kLink, kLinkIs, written);
}

TEST(Link, WhatWasWrittenIsRead) {
  const auto golden = read_golden_text(kLink);
  for (const auto& [name, hello] : written_hellos()) {
    const auto decoded = net::decode_peer_hello(golden.at(name));
    ASSERT_TRUE(decoded) << name << ": " << decoded.error().message;
    EXPECT_EQ(decoded->is_answer, hello.is_answer) << name;
    EXPECT_EQ(decoded->verdict, hello.verdict) << name;
    EXPECT_EQ(decoded->cluster, hello.cluster) << name;
    EXPECT_EQ(decoded->member, hello.member) << name;
    EXPECT_EQ(decoded->boot, hello.boot) << name;
    EXPECT_EQ(decoded->receiver, hello.receiver) << name;
    EXPECT_EQ(decoded->features, hello.features) << name;
  }
  net::PeerFrameReader reader;
  for (const env::Lane lane : kLanes) {
    const std::string& bytes = golden.at(lane_name(lane));
    reader.feed(bytes);
    net::PeerFrame frame;
    ASSERT_EQ(reader.next(frame), net::PeerFrameReader::Next::kFrame);
    EXPECT_EQ(frame.lane, lane);
    EXPECT_EQ(frame.payload, kPayload);
    ASSERT_EQ(reader.next(frame), net::PeerFrameReader::Next::kMore);
  }
}

TEST(Link, ALaterVersionIsRefused) {
  for (auto [name, bytes] : read_golden_text(kLink)) {
    if (bytes.size() != net::kPeerHelloBytes) continue;
    ++bytes[4];
    const auto decoded = net::decode_peer_hello(bytes);
    ASSERT_FALSE(decoded) << name;
    EXPECT_EQ(decoded.error().code, ErrorCode::kVersion);
    EXPECT_EQ(decoded.error().message, "link of version 2");
  }
}

// ---- The wiring's frames ----

const std::string kWiring = "wiring.txt";
constexpr std::string_view kWiringIs = "Beginning a cluster, and introductions: docs/internals/formats/peer.md";

// One of two servers that begin a cluster, with what it says.
struct Beginner {
  server::BootstrapState state = server::BootstrapState::kEmpty;
  std::vector<std::string> said;
  bool begins = false;
  server::Bootstrap bootstrap;
  Beginner(uint64_t id, uint64_t peer)
      : bootstrap(NodeId(id), {{NodeId(peer), "peer"}}, uint64_t{0x0102030405060700},
                  {.send = [this](NodeId, std::string frame) { said.push_back(std::move(frame)); },
                   .state = [this] { return state; },
                   .begin =
                       [this] {
                         begins = true;
                         state = server::BootstrapState::kBegun;
                       }}) {}
  // The newest frame.
  [[nodiscard]] std::string last() const { return said.empty() ? "" : said.back(); }
};

std::vector<net::PeerAddress> introduced() {
  return {{.id = kServer, .host = "n1.example.org", .port = 2380, .name = "n1"},
          {.id = NodeId(2), .host = "192.0.2.7", .port = 65'535, .name = ""}};
}

// Of a whole beginning, and of one who was asked too late.
Named written_wiring() {
  Named written;
  Beginner first(1, 2);
  Beginner second(2, 1);
  first.bootstrap.init(Instant(), [](const server::Bootstrap::Outcome&) {});
  written.emplace_back("query", first.last());
  second.bootstrap.on_frame(NodeId(1), first.last());
  written.emplace_back("state_empty", second.last());
  first.bootstrap.on_frame(NodeId(2), second.last());
  written.emplace_back("begin", first.last());
  second.bootstrap.on_frame(NodeId(1), first.last());
  second.bootstrap.begun();
  written.emplace_back("state_begun", second.last());
  second.state = server::BootstrapState::kLed;
  second.bootstrap.on_frame(NodeId(1), written.front().second);
  written.emplace_back("state_led", second.last());
  written.emplace_back("introduction", server::encode_introduction(introduced()));
  written.emplace_back("introduction_of_nobody", server::encode_introduction({}));
  return written;
}

// Pings came after the level was frozen: who does not know them passes them over, and nothing hangs on them.
const std::string kPings = "pings.txt";
constexpr std::string_view kPingsAre = "Pings and their answers: docs/internals/formats/peer.md";

struct Pinger {
  std::vector<std::string> said;
  server::RoundTrips round_trips{uint64_t{0x0102030405060700},
                                 [this](NodeId, std::string frame) { said.push_back(std::move(frame)); }};
};

TEST(Wiring, PingsAreWrittenAsTheyWereAndAnswered) {
  Pinger first;
  Pinger second;
  first.round_trips.on_link_up(Instant(), NodeId(2));
  second.round_trips.on_frame(Instant(), NodeId(1), first.said.at(0));
  expect_golden_text(kPings, kPingsAre, {{"ping", first.said.at(0)}, {"answer", second.said.at(0)}});
  const auto golden = read_golden_text(kPings);
  Pinger third;
  third.round_trips.on_frame(Instant(), NodeId(1), golden.at("ping"));
  EXPECT_EQ(third.said, std::vector{golden.at("answer")});
  first.round_trips.on_frame(Instant() + std::chrono::milliseconds(1), NodeId(2), golden.at("answer"));
  EXPECT_EQ(first.round_trips.metrics().at(0).count(), 1U);
}

TEST(Wiring, IsWrittenAsItWas) {
  expect_golden_text(kWiring, kWiringIs, written_wiring());
}

TEST(Wiring, WhatWasWrittenBeginsACluster) {
  const auto golden = read_golden_text(kWiring);
  Beginner first(1, 2);
  Beginner second(2, 1);
  std::optional<server::Bootstrap::Outcome> outcome;
  first.bootstrap.init(Instant(), [&](const server::Bootstrap::Outcome& done) { outcome = done; });
  second.bootstrap.on_frame(NodeId(1), golden.at("query"));
  EXPECT_EQ(second.last(), golden.at("state_empty"));
  first.bootstrap.on_frame(NodeId(2), golden.at("state_empty"));
  EXPECT_TRUE(first.begins);
  second.bootstrap.on_frame(NodeId(1), golden.at("begin"));
  EXPECT_TRUE(second.begins);
  EXPECT_FALSE(outcome);
  first.bootstrap.on_frame(NodeId(2), golden.at("state_begun"));
  ASSERT_TRUE(outcome);
  EXPECT_FALSE(outcome->already);
  EXPECT_EQ(outcome->error, "");

  Beginner late(1, 2);
  late.bootstrap.init(Instant(), [&](const server::Bootstrap::Outcome& done) { outcome = done; });
  late.bootstrap.on_frame(NodeId(2), golden.at("state_led"));
  EXPECT_TRUE(outcome->already);
}

TEST(Wiring, WhatWasWrittenIntroduces) {
  const auto golden = read_golden_text(kWiring);
  const auto members = server::decode_introduction(golden.at("introduction"));
  ASSERT_TRUE(members) << members.error().message;
  ASSERT_EQ(members->size(), introduced().size());
  for (size_t i = 0; i < members->size(); ++i) {
    EXPECT_EQ((*members)[i].id, introduced()[i].id);
    EXPECT_EQ((*members)[i].host, introduced()[i].host);
    EXPECT_EQ((*members)[i].port, introduced()[i].port);
    EXPECT_EQ((*members)[i].name, introduced()[i].name);
  }
  EXPECT_TRUE(server::decode_introduction(golden.at("introduction_of_nobody"))->empty());
}

}  // namespace
}  // namespace conclave::compat
