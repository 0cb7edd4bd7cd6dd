#include "layers/recipe.h"

#include <gtest/gtest.h>

#include "keyspace/interface.h"
#include "keyspace/validate.h"

namespace conclave::layers {
namespace {

using keyspace::CommandKind;
using keyspace::ErrorId;

class RecipeTest : public testing::Test {
 protected:
  // Applies it as a transaction; the body must be what may enter the log as it is.
  keyspace::Reply& txn(const std::string& body) {
    std::string storage;
    ByteView canonical;
    EXPECT_EQ(normalise(CommandKind::kTxn, body, storage, canonical), ErrorId::kNone);
    EXPECT_EQ(canonical.data(), body.data()) << "re-encoded: not canonical";
    return apply({.kind = CommandKind::kTxn}, body);
  }
  void grant(int64_t id) { apply({.kind = CommandKind::kLeaseGrant, .lease = LeaseId(id), .ttl_ms = 60'000}, ""); }
  std::optional<keyspace::KeyValue> get(const std::string& key) { return view_.get(key); }

  keyspace::Reply& apply(const keyspace::CommandHeader& header, const std::string& body) {
    EXPECT_TRUE(keyspace_.apply(LogIndex(++index_), Term(1), encode_command(header, body)));
    return keyspace_.reply();
  }
  keyspace::Keyspace keyspace_;
  keyspace::KeyspaceView view_{keyspace_};
  uint64_t index_ = 0;
};

TEST_F(RecipeTest, KeysAreWhatGoPrints) {
  EXPECT_EQ(claim_key("orders", LeaseId(0x12c8a20ac5ca1b05)), "orders/12c8a20ac5ca1b05");
  EXPECT_EQ(claim_key("orders", LeaseId(-500)), "orders/-1f4");
  EXPECT_EQ(claim_prefix("orders"), "orders/");
  EXPECT_EQ(claim_prefix_end("orders/"), "orders0");
  EXPECT_EQ(claim_key("", LeaseId(7)), "/7");
}

TEST_F(RecipeTest, AClaimIsPutOnce) {
  grant(7);
  ASSERT_EQ(txn(encode_claim("a/7", "", LeaseId(7))).error, ErrorId::kNone);
  ASSERT_TRUE(get("a/7"));
  const Revision create = get("a/7")->create;
  EXPECT_EQ(get("a/7")->lease, LeaseId(7));
  EXPECT_EQ(get("a/7")->value, "");
  ASSERT_EQ(txn(encode_claim("a/7", "other", LeaseId(7))).error, ErrorId::kNone);
  EXPECT_EQ(get("a/7")->mod, create) << "nothing was written";
  EXPECT_EQ(txn(encode_claim("a/8", "", LeaseId(8))).error, ErrorId::kLeaseNotFound);
}

TEST_F(RecipeTest, ACampaignTakesItsNewValueAndKeepsItsPlace) {
  grant(7);
  ASSERT_EQ(txn(encode_campaign("e/7", "one", LeaseId(7))).error, ErrorId::kNone);
  const Revision create = get("e/7")->create;
  ASSERT_EQ(txn(encode_campaign("e/7", "one", LeaseId(7))).error, ErrorId::kNone);
  EXPECT_EQ(get("e/7")->version, 1) << "the same value is not written again";
  ASSERT_EQ(txn(encode_campaign("e/7", "two", LeaseId(7))).error, ErrorId::kNone);
  EXPECT_EQ(get("e/7")->value, "two");
  EXPECT_EQ(get("e/7")->create, create);
  // An empty value is a value.
  ASSERT_EQ(txn(encode_campaign("e/7", "", LeaseId(7))).error, ErrorId::kNone);
  EXPECT_EQ(get("e/7")->value, "");
  EXPECT_EQ(get("e/7")->version, 3);
}

TEST_F(RecipeTest, ProclaimAndReleaseAreForOneClaimOnly) {
  grant(7);
  (void)txn(encode_campaign("e/7", "one", LeaseId(7)));
  const Revision create = get("e/7")->create;
  (void)txn(encode_proclaim("e/7", create.next(), "two", LeaseId(7)));
  EXPECT_EQ(get("e/7")->value, "one") << "another claim's";
  (void)txn(encode_proclaim("e/7", create, "two", LeaseId(7)));
  EXPECT_EQ(get("e/7")->value, "two");
  (void)txn(encode_proclaim("e/7", create, "three", LeaseId()));
  EXPECT_EQ(get("e/7")->value, "three");
  EXPECT_EQ(get("e/7")->lease, LeaseId(7)) << "kept";
  (void)txn(encode_release("e/7", create.next()));
  EXPECT_TRUE(get("e/7"));
  (void)txn(encode_release("e/7", create));
  EXPECT_FALSE(get("e/7"));
}

}  // namespace
}  // namespace conclave::layers
