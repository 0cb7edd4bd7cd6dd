// Each format by itself: what is written is read, what is changed is refused.
#include <gtest/gtest.h>

#include <array>

#include "base/random.h"
#include "wal/head.h"
#include "wal/manifest.h"
#include "wal/record.h"
#include "wal/sector.h"

namespace conclave::wal {
namespace {

constexpr uint32_t kSeed = 0x1234;

TEST(Sector, EachBitCounts) {
  const SegmentUse use{.seed = kSeed, .slot = 4, .first_number = 100, .end_number = 200};
  std::array<char, kSectorBytes> sector{};
  EXPECT_EQ(examine_sector(sector.data(), use, 9).state, SectorState::kUnwritten);
  seal_sector(sector.data(), kSeed, make_stamp(kSeed, 123), 4, 9, kNoRecord);
  const SectorFinding good = examine_sector(sector.data(), use, 9);
  EXPECT_EQ(good.state, SectorState::kGood);
  EXPECT_EQ(good.number, 123U);
  EXPECT_EQ(examine_sector(sector.data(), use, 8).state, SectorState::kBad) << "another place";
  EXPECT_EQ(examine_sector(sector.data(), {.seed = kSeed, .slot = 5, .first_number = 100, .end_number = 200}, 9).state,
            SectorState::kBad)
      << "another file";
  EXPECT_EQ(
      examine_sector(sector.data(), {.seed = kSeed + 1, .slot = 4, .first_number = 100, .end_number = 200}, 9).state,
      SectorState::kBad)
      << "another owner";
  EXPECT_EQ(examine_sector(sector.data(), {.seed = kSeed, .slot = 4, .first_number = 150, .end_number = 250}, 9).state,
            SectorState::kUnwritten)
      << "an earlier use";
  for (size_t bit = 0; bit < kSectorBytes * 8; ++bit) {
    auto rotten = sector;
    rotten[bit / 8] = static_cast<char>(rotten[bit / 8] ^ static_cast<char>(1U << (bit % 8)));
    const SectorFinding found = examine_sector(rotten.data(), use, 9);
    const bool in_stamp = bit / 8 < kSlotAt || bit / 8 >= kStampBackAt;
    // One stamp stands in for the other; nothing else may change.
    EXPECT_EQ(found.state, in_stamp ? SectorState::kGood : SectorState::kBad) << bit;
    EXPECT_EQ(found.number, 123U) << bit;
  }
}

TEST(Sector, ATearIsToldFromDamage) {
  const SegmentUse use{.seed = kSeed, .slot = 4, .first_number = 100, .end_number = 200};
  std::array<char, kSectorBytes> earlier{};
  seal_sector(earlier.data(), kSeed, make_stamp(kSeed, 50), 4, 9, kNoRecord);
  std::array<char, kSectorBytes> written{};
  written[100] = 'x';
  written[450] = 'y';
  seal_sector(written.data(), kSeed, make_stamp(kSeed, 123), 4, 9, kNoRecord);
  for (const auto& before : {earlier, std::array<char, kSectorBytes>{}}) {
    for (size_t cut = 0; cut <= kSectorBytes; ++cut) {
      auto front = before;
      std::copy_n(written.data(), cut, front.data());
      const SectorState with_front = examine_sector(front.data(), use, 9).state;
      EXPECT_TRUE(with_front == SectorState::kTorn || with_front == SectorState::kUnwritten ||
                  with_front == SectorState::kGood)
          << cut;
      auto back = written;
      std::copy_n(before.data(), cut, back.data());
      const SectorState with_back = examine_sector(back.data(), use, 9).state;
      EXPECT_TRUE(with_back == SectorState::kTorn || with_back == SectorState::kUnwritten ||
                  with_back == SectorState::kGood)
          << cut;
    }
  }
}

TEST(Record, ComesBackAsItWas) {
  const RecordHeader header{.payload_bytes = 17,
                            .payload_checksum = 99,
                            .group = GroupId(3),
                            .term = Term(4),
                            .index = LogIndex(5),
                            .ordinal = 6,
                            .type = EntryType::kConfiguration,
                            .kind = ChangeKind::kFill};
  std::array<char, kRecordHeaderBytes> raw{};
  encode_record_header(header, raw.data());
  const ByteView bytes(raw.data(), raw.size());
  EXPECT_EQ(decode_record_header(bytes).value(), header);
  EXPECT_FALSE(decode_record_header(bytes.substr(1)));
  raw[36] = 0;  // a hole is never stored
  EXPECT_FALSE(decode_record_header(bytes));
}

TEST(Head, ComesBackAsItWas) {
  GroupState state;
  state.group = GroupId(3);
  state.vote = {.term = Term(9), .candidate = NodeId(2), .incarnation = Incarnation(1), .promises = true};
  state.mark = {.term = Term(4), .index = LogIndex(40)};
  state.released = LogIndex(30);
  state.last = {.term = Term(8), .index = LogIndex(90)};
  state.commit = LogIndex(88);
  state.terms = {{.first = LogIndex(20), .term = Term(4)}, {.first = LogIndex(60), .term = Term(8)}};
  state.certainty = Certainty::kLastUncertain;
  state.doubted = Incarnation(1);
  state.membership = "m";
  state.floors = "f";
  Head head{.base = true, .full = true, .number = 5, .previous_number = 4, .sequence = 2, .slot = 7};
  head.start_sector = 8;
  head.records = 3;
  head.body_bytes = 3 * kRecordHeaderBytes;
  head.changes.push_back(
      {.kind = ChangeKind::kEntries, .group = GroupId(3), .index = LogIndex(91), .term = Term(9), .count = 3});
  head.changes.push_back({.kind = ChangeKind::kCommit, .group = GroupId(3), .index = LogIndex(90), .bytes = "floors"});
  std::string encoded;
  const std::array<const GroupState*, 1> directory = {&state};
  encode_head(head, directory, kSeed, encoded);
  set_head_sectors(16, kSeed, encoded);
  Head decoded;
  ASSERT_TRUE(decode_head(encoded, kSeed, decoded));
  EXPECT_EQ(decoded.sectors, 16U);
  ASSERT_EQ(decoded.directory.size(), 1U);
  EXPECT_EQ(decoded.directory[0].vote, state.vote);
  EXPECT_EQ(decoded.directory[0].terms, state.terms);
  EXPECT_EQ(decoded.directory[0].floors, "f");
  EXPECT_EQ(decoded.directory[0].certainty, Certainty::kLastUncertain);
  ASSERT_EQ(decoded.changes.size(), 2U);
  EXPECT_EQ(decoded.changes[1].bytes, "floors");
  for (size_t bit = 0; bit < encoded.size() * 8; ++bit) {
    std::string rotten = encoded;
    rotten[bit / 8] = static_cast<char>(rotten[bit / 8] ^ static_cast<char>(1U << (bit % 8)));
    EXPECT_FALSE(decode_head(rotten, kSeed, decoded)) << bit;
  }
}

TEST(Manifest, ComesBackAsItWasAndNoBitMayChange) {
  Manifest manifest{.owner = {.cluster = ClusterId(7), .node = NodeId(3)}, .generation = 12, .segment_bytes = 1 << 20};
  manifest.segments.push_back({.sequence = 3, .slot = 1, .first_number = 10, .sealed = true, .end_sector = 64});
  manifest.segments.push_back({.sequence = 4, .slot = 2, .first_number = 40, .all_uncertain = true});
  manifest.segments.back().doubts.push_back(
      {.group = GroupId(1), .certainty = Certainty::kVoteUncertain, .doubted = Incarnation(2)});
  std::string encoded;
  encode_manifest(manifest, encoded);
  EXPECT_EQ(decode_manifest(encoded).value(), manifest);
  EXPECT_EQ(decode_manifest(encoded + "an older, longer one").value(), manifest);
  for (size_t bit = 0; bit < encoded.size() * 8; ++bit) {
    std::string rotten = encoded;
    rotten[bit / 8] = static_cast<char>(rotten[bit / 8] ^ static_cast<char>(1U << (bit % 8)));
    EXPECT_FALSE(decode_manifest(rotten)) << bit;
  }
  EXPECT_FALSE(decode_manifest(ByteView(encoded).substr(0, encoded.size() - 1)));
}

TEST(GroupState, TermsFollowTheLog) {
  GroupState state;
  state.apply({.kind = ChangeKind::kEntries, .index = LogIndex(1), .term = Term(1), .count = 10});
  state.apply({.kind = ChangeKind::kEntries, .index = LogIndex(11), .term = Term(3), .count = 5});
  EXPECT_EQ(state.term_at(LogIndex(10)), Term(1));
  EXPECT_EQ(state.term_at(LogIndex(15)), Term(3));
  EXPECT_EQ(state.term_at(LogIndex(16)), Term());
  state.apply({.kind = ChangeKind::kTruncate, .index = LogIndex(11)});
  EXPECT_EQ(state.last, (Position{.term = Term(1), .index = LogIndex(10)}));
  state.apply({.kind = ChangeKind::kEntries, .index = LogIndex(8), .term = Term(4), .count = 1});
  EXPECT_EQ(state.term_at(LogIndex(7)), Term(1));
  EXPECT_EQ(state.last, (Position{.term = Term(4), .index = LogIndex(8)}));
  state.apply({.kind = ChangeKind::kInstall, .index = LogIndex(50), .term = Term(6)});
  EXPECT_EQ(state.last, (Position{.term = Term(6), .index = LogIndex(50)}));
  EXPECT_EQ(state.term_at(LogIndex(50)), Term(6));
}

TEST(GroupState, ALaterIncarnationEndsADoubt) {
  GroupState state;
  state.vote = {.term = Term(5), .incarnation = Incarnation(2)};
  state.doubt(Certainty::kLastUncertain);
  state.apply({.kind = ChangeKind::kVote, .term = Term(6), .incarnation = Incarnation()});
  EXPECT_EQ(state.certainty, Certainty::kLastUncertain);
  state.apply({.kind = ChangeKind::kVote, .term = Term(6), .incarnation = Incarnation(2)});
  EXPECT_EQ(state.certainty, Certainty::kLastUncertain);
  state.apply({.kind = ChangeKind::kVote, .term = Term(6), .incarnation = Incarnation(3)});
  EXPECT_EQ(state.certainty, Certainty::kCertain);
}

}  // namespace
}  // namespace conclave::wal
