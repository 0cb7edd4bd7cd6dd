// The tree against a map: keys with shared prefixes, prefixes of each other, zero bytes; its totals and its search.
#include "keyspace/key_tree.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
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
        if (random.coin()) order.create_min = static_cast<int64_t>(1 + random.below(static_cast<uint64_t>(create) + 1));
        std::sort(live.begin(), live.end(), [&](Key* a, Key* b) {
          return order.descending ? a->head->create > b->head->create : a->head->create < b->head->create;
        });
        std::erase_if(live, [&](Key* key) {
          return key->head->create > order.create_max || key->head->create < order.create_min;
        });
        size_t count = random.below(7);
        if (live.size() > count) live.resize(count);
        std::vector<Key*> found;
        uint32_t units = static_cast<uint32_t>(random.below(30));
        while (!tree.first_by_create(range, order, count, units, found))
          units = static_cast<uint32_t>(random.below(30));
        ASSERT_EQ(found, live);
      }
    }
  }
}

TEST_F(KeyTreeTest, KeysOfOneRevisionComeInKeyOrder) {
  KeyTree tree(pool_);
  Random random(3);
  std::map<std::string, Key*> map;
  while (map.size() < 9'000) {
    std::string bytes = random_key(random);
    KeyTree::Path path;
    tree.find(bytes, path);
    if (path.key() != nullptr) continue;
    Key* key = make(bytes);
    int64_t create = static_cast<int64_t>(1 + map.size() / 700);
    set(key, create);
    tree.insert(path, key, create);
    map.emplace(bytes, key);
  }
  for (int64_t create = 1; create <= 12; ++create) {
    for (bool descending : {false, true}) {
      std::vector<Key*> wanted;
      for (const auto& [name, key] : map) {
        if (key->head->create == create && wanted.size() < 17) wanted.push_back(key);
      }
      KeyTree::CreateOrder order{.descending = descending};
      (descending ? order.create_max : order.create_min) = create;
      std::vector<Key*> found;
      uint32_t units = UINT32_MAX;
      ASSERT_TRUE(tree.first_by_create({.kind = KeyRange::Kind::kFrom}, order, 17, units, found));
      ASSERT_EQ(found, wanted);
    }
  }
}

// What waiters of a lock ask, however their keys and the others' lie to the order in which they came.
TEST_F(KeyTreeTest, AnswersByCreateRevisionCostTheSameInAnyKeyOrder) {
  constexpr int64_t kWaiters = 100'000;
  enum class KeyOrder { kAscending, kDescending, kRandom };
  for (KeyOrder key_order : {KeyOrder::kAscending, KeyOrder::kDescending, KeyOrder::kRandom}) {
    Pool pool;
    KeyTree tree(pool);
    Random random(7);
    std::map<int64_t, Key*> waiting;
    KeyRange lock{.begin = "lock/", .end = "lock0", .kind = KeyRange::Kind::kInterval};
    int64_t create = 1;
    auto add = [&](const std::string& bytes) {
      KeyTree::Path path;
      tree.find(bytes, path);
      Key* key = path.key();
      ++create;
      if (key != nullptr) {
        set(key, create);
        tree.set_create(path, create);
      } else {
        key = make(bytes);
        set(key, create);
        tree.insert(path, key, create);
      }
      return key;
    };
    auto wait = [&](int64_t number) {
      if (key_order == KeyOrder::kDescending) number = 10'000'000 - number;
      if (key_order == KeyOrder::kRandom) number = static_cast<int64_t>(random.below(uint64_t{1} << 60));
      Key* key = add(fmt::format("lock/{:016x}", number));
      waiting[create] = key;
      (void)add(fmt::format("{}/{:x}", random.coin() ? "a" : "z", random.below(50'000)));
    };
    auto leave = [&](int64_t since) {
      auto at = waiting.find(since);
      KeyTree::Path path;
      tree.find(at->second->bytes(), path);
      set(at->second, 0);
      tree.set_create(path, 0);
      if (random.coin()) tree.erase(path);
      waiting.erase(at);
    };
    // The answer must be right; what it cost.
    auto ask = [&](const KeyTree::CreateOrder& order, uint32_t units_given, bool& done) {
      uint32_t units = units_given;
      std::vector<Key*> found;
      done = tree.first_by_create(lock, order, 1, units, found);
      if (done) {
        auto wanted = order.descending ? waiting.upper_bound(order.create_max) : waiting.lower_bound(order.create_min);
        if (order.descending) wanted = wanted == waiting.begin() ? waiting.end() : std::prev(wanted);
        EXPECT_EQ(found, wanted == waiting.end() ? std::vector<Key*>() : std::vector<Key*>{wanted->second});
      }
      return units_given - units;
    };
    for (int64_t i = 0; i < kWaiters; ++i) wait(i);
    bool done = false;
    for (bool descending : {false, true}) {
      EXPECT_LE(ask({.descending = descending}, 1'000'000, done), 8u);
      ASSERT_TRUE(done);
    }
    // The first question in the middle makes the lists, in slices.
    int slices = 0;
    for (done = false; !done; ++slices) (void)ask({.descending = true, .create_max = create / 2}, 1024, done);
    EXPECT_LE(slices, 40);
    uint32_t dearest = 0;
    uint32_t dearest_to_join = 0;
    for (int round = 0; round < 2'000; ++round) {
      auto middle =
          std::next(waiting.lower_bound(static_cast<int64_t>(random.below(static_cast<uint64_t>(create)))), 0);
      if (middle == waiting.end()) continue;
      dearest = std::max(dearest, ask({.descending = true, .create_max = middle->first - 1}, 1'000'000, done));
      dearest = std::max(dearest, ask({.create_min = middle->first + 1}, 1'000'000, done));
      // One joins and asks whom it waits for, one in the middle gives up, the first leaves and the second asks.
      wait(kWaiters + round);
      dearest_to_join = std::max(dearest_to_join,
                                 ask({.descending = true, .create_max = waiting.rbegin()->first - 1}, 1'000'000, done));
      leave(middle->first);
      if (round % 4 == 0) leave(waiting.begin()->first);
      dearest = std::max(dearest, ask({.descending = true, .create_max = waiting.begin()->first - 1}, 1'000'000, done));
      EXPECT_LE(ask({}, 1'000'000, done), 8u);
    }
    EXPECT_TRUE(tree.is_sound());
    // Nodes above leaves: below 70 for 100,000 keys; and the leaves of one of them. A list made anew now and then.
    EXPECT_LE(dearest, 500u) << static_cast<int>(key_order);
    EXPECT_LE(dearest_to_join, 500u) << static_cast<int>(key_order);
    RecordProperty(fmt::format("dearest_{}", static_cast<int>(key_order)), static_cast<int>(dearest));
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
