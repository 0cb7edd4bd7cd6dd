#include "keyspace/interface.h"

#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "keyspace/test_commands.h"

namespace conclave::keyspace {
namespace {

TEST(View, ReadsWhatLayersNeed) {
  Driver driver;
  KeyspaceView view(driver.keyspace);
  KeyRange lock{.begin = "lock/", .end = "lock0", .kind = KeyRange::Kind::kInterval};
  EXPECT_FALSE(view.oldest(lock, Revision(0)).has_value());
  driver.grant(5, 10'000);
  driver.put("lock/b", "first", 5);
  driver.put("lock/a", "second");
  driver.put("lock/c", "third");
  driver.put("lock/b", "first again", 5);
  std::vector<std::string> order;
  for (auto claim = view.oldest(lock, Revision(0)); claim; claim = view.oldest(lock, claim->create)) {
    order.emplace_back(claim->value);
  }
  EXPECT_EQ(order, (std::vector<std::string>{"first again", "second", "third"}));
  EXPECT_EQ(view.count(lock), 3);
  auto claim = view.get("lock/b");
  ASSERT_TRUE(claim.has_value());
  EXPECT_EQ(claim->create, Revision(2));
  EXPECT_EQ(claim->lease, LeaseId(5));
  EXPECT_EQ(claim->version, 2);
  EXPECT_FALSE(view.get("lock/").has_value());
  std::vector<std::string> keys;
  auto rest = view.scan(lock, 2, [&](const KeyValue& kv) {
    keys.emplace_back(kv.key);
    return true;
  });
  EXPECT_EQ(keys, (std::vector<std::string>{"lock/a", "lock/b"}));
  EXPECT_EQ(rest, "lock/c");
}

TEST(View, AppliedTellsEventsAndRecords) {
  Driver driver;
  driver.grant(5, 10'000);
  driver.put("a", "1", 5);
  InternalCommand command;
  command.operations.push_back(
      {.kind = InternalOperation::Kind::kRecordPut, .key = "x/1", .value = "v", .lease = LeaseId(5)});
  command.operations.push_back({.kind = InternalOperation::Kind::kRecordPut, .key = "x/2", .value = "w"});
  command.operations.push_back({.kind = InternalOperation::Kind::kRecordPut, .key = "y", .value = "w"});
  std::string body;
  encode(command, body);
  driver.apply({.kind = CommandKind::kInternal, .origin = NodeId(1), .boot = Boot(2), .request = 3}, body);
  EXPECT_EQ(driver.keyspace.reply().header.request, 3u);
  EXPECT_EQ(applied_of(driver.keyspace).effects.records.size(), 3u);
  KeyspaceView view(driver.keyspace);
  std::vector<std::string> names;
  view.scan_records("x/", "", 10, [&](ByteView key, const Record&) {
    names.emplace_back(key);
    return true;
  });
  EXPECT_EQ(names, (std::vector<std::string>{"x/1", "x/2"}));
  driver.revoke(5);
  Applied applied = applied_of(driver.keyspace);
  std::vector<std::string> ended;
  applied.events([&](const Version& event) {
    EXPECT_TRUE(event.is_tombstone());
    ended.emplace_back(event.key->bytes());
  });
  EXPECT_EQ(ended, std::vector<std::string>{"a"});
  ASSERT_EQ(applied.effects.records.size(), 1u);
  EXPECT_EQ(applied.effects.records[0].key, "x/1");
}

}  // namespace
}  // namespace conclave::keyspace
