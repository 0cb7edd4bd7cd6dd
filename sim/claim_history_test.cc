#include "sim/claim_history.h"

#include <gtest/gtest.h>

namespace conclave::sim {
namespace {

void put(ClaimHistory& claims, int64_t revision, const std::string& key, const std::string& value = "",
         int64_t lease = 0) {
  claims.on_event(revision, {.key = key, .value = value, .lease = LeaseId(lease), .is_put = true});
}
void remove(ClaimHistory& claims, int64_t revision, const std::string& key) {
  claims.on_event(revision, {.key = key});
}

TEST(ClaimHistoryTest, AKeyIsTheNameAndTheSessionInHex) {
  EXPECT_EQ(ClaimHistory::key_of("a", 255), "a/ff");
  EXPECT_EQ(ClaimHistory::name_of("a/1/ff"), "a/1");
  EXPECT_EQ(ClaimHistory::session_of("a/1/ff"), 255);
  EXPECT_EQ(ClaimHistory::session_of("a/x"), 0);
  EXPECT_EQ(ClaimHistory::name_of("key7"), "");
}

TEST(ClaimHistoryTest, TheOldestOwnsAndOnlyBelowItsOwnName) {
  ClaimHistory claims;
  put(claims, 5, "a/1/f");
  put(claims, 6, "a/e");
  put(claims, 7, "a/d");
  EXPECT_EQ(claims.owner_at("a", 5).token, 0);
  EXPECT_EQ(claims.owner_at("a", 6).key, "a/e");
  remove(claims, 9, "a/e");
  EXPECT_EQ(claims.owner_at("a", 8).token, 6);
  EXPECT_EQ(claims.owner_at("a", 9).token, 7);
  EXPECT_EQ(claims.owner_at("a/1", 9).token, 5);
  EXPECT_EQ(claims.owner_at("b", 9).token, 0);
}

TEST(ClaimHistoryTest, OfEqualTokensTheFirstKeyOwns) {
  ClaimHistory claims;
  put(claims, 5, "a/e");
  put(claims, 5, "a/d");
  EXPECT_EQ(claims.owner_at("a", 5).key, "a/d");
}

TEST(ClaimHistoryTest, AHandoverInOneRevisionIsNoVacancy) {
  ClaimHistory claims;
  put(claims, 5, "a/e", "x");
  remove(claims, 8, "a/e");
  put(claims, 8, "a/d", "y");
  ASSERT_EQ(claims.owners("a").size(), 3U);
  EXPECT_EQ(claims.owners("a")[2].token, 8);
  EXPECT_EQ(claims.owners("a")[2].value, "y");
  // And one that comes to nothing is no change.
  put(claims, 9, "a/c");
  remove(claims, 9, "a/c");
  EXPECT_EQ(claims.owners("a").size(), 3U);
}

TEST(ClaimHistoryTest, APutOfWhatStandsKeepsTheToken) {
  ClaimHistory claims;
  put(claims, 5, "a/e", "x", 14);
  put(claims, 6, "a/e", "x", 77);
  EXPECT_EQ(claims.token_of("a/e"), 5);
  EXPECT_EQ(claims.lease_of("a/e"), LeaseId(77));
  EXPECT_EQ(claims.owners("a").back().mod, 6);
  EXPECT_EQ(claims.keys_at(14, 6), std::vector<std::string>{"a/e"});
  remove(claims, 7, "a/e");
  EXPECT_EQ(claims.token_of("a/e"), 0);
  EXPECT_EQ(claims.token_at("a/e", 6), 5);
  EXPECT_TRUE(claims.keys_at(14, 7).empty());
  EXPECT_EQ(claims.revision(), 7);
}

}  // namespace
}  // namespace conclave::sim
