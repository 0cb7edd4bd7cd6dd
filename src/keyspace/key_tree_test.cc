// The tree against a map: keys with shared prefixes, prefixes of each other, zero bytes; its totals and its search.
#include "keyspace/key_tree.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace conclave::keyspace {
namespace {

class KeyTreeTest : public testing::Test {
 protected:
  // A key record with a head that is live since `create`, or ended (0).
  Key* make(const std::string& bytes) {
    Key* key = static_cast<Key*>(pool_.allocate(sizeof(Key) + bytes.size()));
    key->size = static_cast<uint32_t>(bytes.size());
    std::memcpy(key + 1, bytes.data(), bytes.size());
    key->head = static_cast<Version*>(pool_.allocate(sizeof(Version)));
    *key->head = {};
    return key;
  }
  static void set(Key* key, int64_t create) {
    key->head->create = create;
    key->head->sub_and_flags = create == 0 ? Version::kTombstoneFlag : 0;
  }
  std::string random_key(Random& random) {
    static const std::string kStems[] = {"", "a", "registry/", "a/very/long/prefix/that/is/longer/than/what/fits/"};
    std::string key = kStems[random.below(4)];
    for (uint64_t i = 1 + random.below(9); i > 0; --i) key.push_back("\0\x01zab\xff"[random.below(6)]);
    return key;
  }
  Pool pool_;
};

TEST_F(KeyTreeTest, AgreesWithAMap) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    Random random(seed);
    KeyTree tree(pool_);
    std::map<std::string, Key*> map;
    int64_t create = 1;
    uint64_t growing = seed % 2 == 0 ? 9 : 5;  // of ten steps
    for (int step = 0; step < 12'000; ++step) {
      if (step == 6'000) growing = 10 - growing;
      std::string bytes = random_key(random);
      KeyTree::Path path;
      tree.find(bytes, path);
      auto known = map.find(bytes);
      ASSERT_EQ(path.key(), known == map.end() ? nullptr : known->second);
      ASSERT_EQ(tree.find(bytes), path.key());
      if (known == map.end() && random.below(10) < growing) {
        Key* key = make(bytes);
        int64_t since = random.chance(1, 5) ? 0 : ++create;
        set(key, since);
        tree.insert(path, key, since);
        map.emplace(bytes, key);
      } else if (known != map.end()) {
        int64_t since = random.below(10) < growing ? ++create : 0;
        set(known->second, since);
        tree.set_create(path, since);
        if (since == 0) {
          tree.erase(path);
          map.erase(known);
        }
      } else if (!map.empty()) {
        auto next = map.lower_bound(bytes);
        if (next == map.end()) continue;
        tree.find(next->first, path);
        set(next->second, 0);
        tree.set_create(path, 0);
        tree.erase(path);
        map.erase(next);
      }
      ASSERT_EQ(tree.size(), map.size());
      if (step % 500 != 0) continue;
      ASSERT_TRUE(tree.is_sound()) << "seed " << seed << " step " << step;
      // Forwards, by path, and backwards.
      KeyTree::Position at = tree.lower_bound({});
      bool more = tree.seek({}, path);
      for (const auto& [name, key] : map) {
        ASSERT_FALSE(at.is_end());
        ASSERT_TRUE(more);
        ASSERT_EQ(KeyTree::key_at(at), key);
        ASSERT_EQ(path.key(), key);
        KeyTree::advance(at);
        more = tree.advance(path);
      }
      ASSERT_TRUE(at.is_end());
      ASSERT_FALSE(more);
      at = tree.last_before(std::nullopt);
      for (auto entry = map.rbegin(); entry != map.rend(); ++entry) {
        ASSERT_EQ(KeyTree::key_at(at), entry->second);
        KeyTree::retreat(at);
      }
      ASSERT_TRUE(at.is_end());
      // Totals and searches over a random range.
      for (int i = 0; i < 20; ++i) {
        std::string begin = random_key(random);
        std::string end = random_key(random);
        KeyRange range{.begin = begin, .end = end, .kind = static_cast<KeyRange::Kind>(random.below(3))};
        KeyTree::Totals wanted;
        std::vector<Key*> live;
        for (const auto& [name, key] : map) {
          if (!range.contains(name) || key->head->is_tombstone()) continue;
          wanted.add({1, key->head->create, key->head->create});
          live.push_back(key);
        }
        KeyTree::Totals got = tree.totals(range);
        ASSERT_EQ(got.lives, wanted.lives);
        ASSERT_EQ(got.oldest, wanted.oldest);
        ASSERT_EQ(got.newest, wanted.newest);
        KeyTree::CreateOrder order{.descending = random.coin()};
        if (random.coin()) order.create_max = static_cast<int64_t>(1 + random.below(static_cast<uint64_t>(create) + 1));
        std::sort(live.begin(), live.end(), [&](Key* a, Key* b) {
          return order.descending ? a->head->create > b->head->create : a->head->create < b->head->create;
        });
        std::erase_if(live, [&](Key* key) { return key->head->create > order.create_max; });
        for (size_t rank = 0; rank <= std::min<size_t>(live.size(), 5); ++rank) {
          int64_t found = 0;
          Key* key = tree.first_by_create(range, order, found);
          ASSERT_EQ(key, rank < live.size() ? live[rank] : nullptr);
          if (key == nullptr) break;
          ASSERT_EQ(found, key->head->create);
          order.after = key;
          order.after_create = found;
        }
      }
    }
  }
}

TEST_F(KeyTreeTest, KeysInOrderFillTheirLeaves) {
  KeyTree tree(pool_);
  size_t before = pool_.used_bytes();
  for (int i = 0; i < 10'000; ++i) {
    std::string bytes = std::to_string(1'000'000 + i);
    KeyTree::Path path;
    tree.find(bytes, path);
    Key* key = make(bytes);
    set(key, i + 2);
    tree.insert(path, key, i + 2);
  }
  size_t records = 10'000 * (sizeof(Key) + 8 + sizeof(Version));
  EXPECT_LT(pool_.used_bytes() - before - records, 10'000u * 28);
  EXPECT_TRUE(tree.is_sound());
}

}  // namespace
}  // namespace conclave::keyspace
