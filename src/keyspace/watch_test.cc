// The watch: the stream's answers to the letter, then random streams and watchers against the list of all events.
#include "keyspace/watch_stream.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "etcd/rpc.pb.h"
#include "keyspace/keyspace.h"
#include "keyspace/limits.h"
#include "keyspace/model.h"
#include "keyspace/test_commands.h"

namespace conclave::keyspace {
namespace {

class WatchTest : public testing::Test {
 protected:
  // All responses there are to have now.
  std::vector<etcdserverpb::WatchResponse> drain(WatchStream& stream, uint32_t units = UINT32_MAX) {
    std::vector<etcdserverpb::WatchResponse> out;
    WatchResponse response;
    while (true) {
      bool worked = driver_.keyspace.watches().sweep(kSliceUnits);
      uint32_t left = units;
      while (stream.next(left, response)) {
        worked = true;
        left = units;
        EXPECT_TRUE(out.emplace_back().ParseFromString(response.body));
        EXPECT_GE(response.revision.value(), last_revision_);
        last_revision_ = response.revision.value();
        out.back().mutable_header()->set_revision(response.revision.value());
      }
      if (left == 0) worked = true;
      if (!worked) break;
    }
    return out;
  }
  Driver driver_;
  int64_t last_revision_ = 0;
};

TEST_F(WatchTest, NextEventIsAfterTheRevisionOfCreated) {
  driver_.put("a", "1");
  WatchStream stream(driver_.keyspace.watches());
  stream.create({.key = "a"});
  driver_.put("a", "2");
  auto responses = drain(stream);
  ASSERT_EQ(responses.size(), 2u);
  EXPECT_TRUE(responses[0].created());
  EXPECT_EQ(responses[0].watch_id(), 0);
  EXPECT_EQ(responses[0].header().revision(), 2);
  ASSERT_EQ(responses[1].events_size(), 1);
  EXPECT_EQ(responses[1].events(0).kv().value(), "2");
  EXPECT_EQ(responses[1].events(0).kv().mod_revision(), 3);
}

TEST_F(WatchTest, IdsAreGivenAndKept) {
  WatchStream stream(driver_.keyspace.watches());
  stream.create({.key = "a"});
  stream.create({.key = "a", .watch_id = 1});
  stream.create({.key = "a"});
  stream.create({.key = "a", .watch_id = 1});
  stream.cancel(9);
  stream.cancel(0);
  auto responses = drain(stream);
  ASSERT_EQ(responses.size(), 5u);
  EXPECT_EQ(responses[0].watch_id(), 0);
  EXPECT_EQ(responses[1].watch_id(), 1);
  EXPECT_EQ(responses[2].watch_id(), 2);
  EXPECT_EQ(responses[3].watch_id(), -1);
  EXPECT_TRUE(responses[3].created());
  EXPECT_TRUE(responses[3].canceled());
  EXPECT_EQ(responses[3].cancel_reason(), "mvcc: duplicate watch ID provided on the WatchStream");
  EXPECT_TRUE(responses[4].canceled());
  EXPECT_EQ(responses[4].watch_id(), 0);
  EXPECT_EQ(responses[4].cancel_reason(), "");
}

TEST_F(WatchTest, RefusalsHaveTheirTexts) {
  WatchStream stream(driver_.keyspace.watches());
  stream.create({.key = "b", .range_end = "a"});
  stream.create({.key = "b", .range_end = "b"});
  stream.create({.key = "b", .start_revision = -1});
  stream.refuse("rpc error: code = PermissionDenied desc = etcdserver: permission denied");
  auto responses = drain(stream);
  ASSERT_EQ(responses.size(), 4u);
  const char* reasons[] = {"mvcc: watcher range is empty", "mvcc: watcher range is empty",
                           "mvcc: required revision has been compacted",
                           "rpc error: code = PermissionDenied desc = etcdserver: permission denied"};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(responses[i].watch_id(), -1);
    EXPECT_TRUE(responses[i].created() && responses[i].canceled());
    EXPECT_EQ(responses[i].cancel_reason(), reasons[i]);
  }
  EXPECT_EQ(stream.watchers(), 0u);
}

TEST_F(WatchTest, CompactedStartIsCreatedThenCanceled) {
  for (int i = 0; i < 5; ++i) driver_.put("a", "x");
  driver_.compact(4);
  WatchStream stream(driver_.keyspace.watches());
  stream.create({.key = "a", .start_revision = 3});
  stream.create({.key = "a", .start_revision = 4, .prev_kv = true});
  auto responses = drain(stream);
  ASSERT_EQ(responses.size(), 4u);
  EXPECT_TRUE(responses[0].created() && !responses[0].canceled());
  EXPECT_TRUE(responses[1].created() && !responses[1].canceled());
  const auto& canceled = responses[2].canceled() ? responses[2] : responses[3];
  const auto& events = responses[2].canceled() ? responses[3] : responses[2];
  EXPECT_EQ(canceled.watch_id(), 0);
  EXPECT_EQ(canceled.compact_revision(), 4);
  EXPECT_EQ(canceled.cancel_reason(), "");
  ASSERT_EQ(events.events_size(), 3);
  EXPECT_FALSE(events.events(0).has_prev_kv());  // revision 3 is compacted, freed or not
  EXPECT_TRUE(events.events(1).has_prev_kv());
}

TEST_F(WatchTest, DeleteAtTheCompactedRevisionIsStillSeen) {
  driver_.put("a", "x");
  driver_.remove("a");
  driver_.compact(3);
  while (driver_.keyspace.run_background()) {
  }
  WatchStream stream(driver_.keyspace.watches());
  stream.create({.key = "a", .start_revision = 3});
  auto responses = drain(stream);
  ASSERT_EQ(responses.size(), 2u);
  ASSERT_EQ(responses[1].events_size(), 1);
  EXPECT_EQ(responses[1].events(0).type(), mvccpb::Event::DELETE);
}

TEST_F(WatchTest, FutureStartDeliversNothingEarly) {
  WatchStream stream(driver_.keyspace.watches());
  stream.create({.key = "a", .start_revision = 4});
  for (int i = 2; i <= 5; ++i) driver_.put("a", fmt::format("{}", i));
  auto responses = drain(stream);
  ASSERT_EQ(responses.size(), 2u);
  ASSERT_EQ(responses[1].events_size(), 2);
  EXPECT_EQ(responses[1].events(0).kv().mod_revision(), 4);
}

TEST_F(WatchTest, ProgressWaitsForUndeliveredEvents) {
  driver_.put("a", "1");
  WatchStream stream(driver_.keyspace.watches());
  stream.create({.key = "a", .start_revision = 1});
  stream.request_progress();
  uint32_t units = 1000;
  WatchResponse response;
  ASSERT_TRUE(stream.next(units, response));  // created
  // Behind: no progress, however often it is asked.
  EXPECT_FALSE(stream.next(units, response));
  EXPECT_FALSE(stream.next(units, response));
  auto responses = drain(stream);
  ASSERT_EQ(responses.size(), 2u);
  EXPECT_EQ(responses[0].events_size(), 1);
  EXPECT_EQ(responses[1].watch_id(), -1);
  EXPECT_EQ(responses[1].header().revision(), 2);
  // An event that waits in the queue goes first.
  driver_.put("a", "2");
  stream.request_progress();
  responses = drain(stream);
  ASSERT_EQ(responses.size(), 2u);
  EXPECT_EQ(responses[0].events_size(), 1);
  EXPECT_EQ(responses[1].watch_id(), -1);
  EXPECT_EQ(responses[1].header().revision(), 3);
  // Each request has an answer.
  stream.request_progress();
  stream.request_progress();
  responses = drain(stream);
  ASSERT_EQ(responses.size(), 2u);
  EXPECT_EQ(responses[0].watch_id(), -1);
  EXPECT_EQ(responses[1].watch_id(), -1);
}

TEST_F(WatchTest, ProgressTickIsElidedWhenEventsFlowed) {
  WatchStream stream(driver_.keyspace.watches());
  stream.create({.key = "a", .progress_notify = true});
  stream.create({.key = "b"});
  driver_.put("a", "1");
  (void)drain(stream);
  stream.progress_tick();
  EXPECT_TRUE(drain(stream).empty());
  driver_.put("c", "1");
  stream.progress_tick();
  auto responses = drain(stream);
  ASSERT_EQ(responses.size(), 1u);
  EXPECT_EQ(responses[0].watch_id(), 0);
  EXPECT_EQ(responses[0].header().revision(), 3);
  EXPECT_FALSE(responses[0].created());
}

TEST_F(WatchTest, FiltersLeaveNothing) {
  WatchStream stream(driver_.keyspace.watches());
  stream.create({.key = "a", .no_put = true});
  stream.create({.key = "a", .no_delete = true});
  (void)drain(stream);
  driver_.put("a", "1");
  driver_.remove("a");
  auto responses = drain(stream);
  ASSERT_EQ(responses.size(), 2u);
  for (const auto& response : responses) {
    ASSERT_EQ(response.events_size(), 1);
    EXPECT_EQ(response.events(0).type() == mvccpb::Event::DELETE, response.watch_id() == 0);
  }
}

TEST_F(WatchTest, AnEventInTheMiddleOfALargeRevisionComesWhole) {
  for (int i = 0; i < 3000; ++i) driver_.put(fmt::format("k/{:04}", i), "value");
  for (bool fragment : {false, true}) {
    WatchStream stream(driver_.keyspace.watches(), {.fragment_bytes_max = 10'000});
    stream.create({.key = "k/", .range_end = "k0", .fragment = fragment});
    (void)drain(stream);
    driver_.remove("k/", "k0");
    auto responses = drain(stream, 100);
    if (!fragment) {
      ASSERT_EQ(responses.size(), 1u);
      EXPECT_EQ(responses[0].events_size(), 3000);
    } else {
      ASSERT_GT(responses.size(), 3u);
      int events = 0;
      for (size_t i = 0; i < responses.size(); ++i) {
        EXPECT_EQ(responses[i].fragment(), i + 1 < responses.size());
        EXPECT_LE(responses[i].ByteSizeLong(), 10'100u);
        events += responses[i].events_size();
      }
      EXPECT_EQ(events, 3000);
    }
    for (int i = 0; i < 3000; ++i) driver_.put(fmt::format("k/{:04}", i), "value");
  }
}

TEST_F(WatchTest, ASlowWatcherIsBoundedAndLosesNothing) {
  WatchStream slow(driver_.keyspace.watches());
  slow.create({.key = "a"});
  for (int i = 0; i < 2000; ++i) driver_.put("a", fmt::format("{}", i));
  // Nothing was taken: it is blocked, and sweeping does not spin on it.
  EXPECT_FALSE(driver_.keyspace.watches().sweep(kSliceUnits));
  auto responses = drain(slow);
  int next = 0;
  for (const auto& response : responses) {
    EXPECT_LE(static_cast<size_t>(response.events_size()), kWatcherQueueEventsMax);
    for (const auto& event : response.events()) EXPECT_EQ(event.kv().value(), fmt::format("{}", next++));
  }
  EXPECT_EQ(next, 2000);
}

TEST_F(WatchTest, ABlockedWatcherLearnsOfCompactionAfterItsQueue) {
  WatchStream slow(driver_.keyspace.watches());
  slow.create({.key = "a"});
  for (int i = 0; i < 2000; ++i) driver_.put("a", "x");
  driver_.compact(1900);
  while (driver_.keyspace.run_background()) {
  }
  auto responses = drain(slow);
  ASSERT_FALSE(responses.empty());
  EXPECT_TRUE(responses.back().canceled());
  EXPECT_EQ(responses.back().compact_revision(), 1900);
  int64_t expected = 2;
  for (const auto& response : responses) {
    for (const auto& event : response.events()) EXPECT_EQ(event.kv().mod_revision(), expected++);
  }
  EXPECT_EQ(expected, 2 + static_cast<int64_t>(kWatcherQueueEventsMax));
  EXPECT_EQ(slow.watchers(), 0u);
}

TEST_F(WatchTest, ARevisionTooBigForAQueueIsStreamed) {
  WatchStream stream(driver_.keyspace.watches());
  stream.create({.key = "a", .range_end = "z"});
  (void)drain(stream);
  // Five puts of 200 KiB in one revision: more bytes than a queue takes, fewer events than a large revision has.
  etcdserverpb::TxnRequest txn;
  for (int i = 0; i < 5; ++i) {
    auto* put = txn.add_success()->mutable_request_put();
    put->set_key(fmt::format("k{}", i));
    put->set_value(std::string(200 << 10, 'x'));
  }
  driver_.apply(CommandKind::kTxn, txn);
  driver_.put("k", "after");
  auto responses = drain(stream);
  ASSERT_EQ(responses.size(), 2u);
  EXPECT_EQ(responses[0].events_size(), 5);
  EXPECT_EQ(responses[1].events_size(), 1);
}

// A sweep that stands in the middle of a revision is nothing to those who were given it when it was dispatched.
TEST_F(WatchTest, ASweepInTheMiddleOfARevisionHoldsUpNobodyElse) {
  WatchHub& hub = driver_.keyspace.watches();
  WatchStream synced(hub);
  synced.create({.key = "k", .range_end = "l"});
  (void)drain(synced);
  etcdserverpb::TxnRequest txn;
  for (int i = 0; i < 5; ++i) {
    auto* put = txn.add_success()->mutable_request_put();
    put->set_key(fmt::format("k{}", i));
  }
  driver_.apply(CommandKind::kTxn, txn);
  WatchStream behind(hub);
  behind.create({.key = "k0", .start_revision = 2});
  ASSERT_TRUE(hub.sweep(2));
  EXPECT_EQ(hub.take_ready(), (std::vector<WatchStream*>{&synced, &behind}));
  uint32_t units = 1000;
  WatchResponse response;
  ASSERT_TRUE(synced.next(units, response));
  etcdserverpb::WatchResponse message;
  ASSERT_TRUE(message.ParseFromString(response.body));
  EXPECT_EQ(message.events_size(), 5);
  ASSERT_TRUE(behind.next(units, response));  // created
  EXPECT_FALSE(behind.next(units, response)) << "its revision is not whole";
  // Another command's end is not this revision's: who is asked too early is named again.
  driver_.put("elsewhere", "1");
  for (const WatchStream* named : hub.take_ready()) {
    EXPECT_EQ(named, &behind);
    EXPECT_FALSE(behind.next(units, response));
  }
  while (hub.sweep(1)) {
  }
  EXPECT_EQ(hub.take_ready(), std::vector<WatchStream*>{&behind});
  ASSERT_TRUE(behind.next(units, response));
  ASSERT_TRUE(message.ParseFromString(response.body));
  EXPECT_EQ(message.events_size(), 1);
}

TEST_F(WatchTest, ProgressAskedForDuringADispatchIsAnsweredAfterIt) {
  for (int i = 0; i < 300; ++i) driver_.put(fmt::format("k{:03}", i), "");
  WatchHub& hub = driver_.keyspace.watches();
  WatchStream stream(hub);
  stream.create({.key = "a"});
  (void)drain(stream);
  etcdserverpb::DeleteRangeRequest request;
  request.set_key("k");
  request.set_range_end("l");
  bool done =
      driver_.keyspace.apply(LogIndex(++driver_.index), Term(1),
                             encode_command({.kind = CommandKind::kDeleteRange}, request.SerializeAsString()), 10);
  while (!hub.is_dispatching()) {
    ASSERT_FALSE(done);
    done = driver_.keyspace.run_slice(10);
  }
  ASSERT_FALSE(done);
  stream.request_progress();
  EXPECT_EQ(hub.take_ready(), std::vector<WatchStream*>{&stream});
  uint32_t units = 1000;
  WatchResponse response;
  EXPECT_FALSE(stream.next(units, response));
  while (!done) done = driver_.keyspace.run_slice(10);
  EXPECT_EQ(hub.take_ready(), std::vector<WatchStream*>{&stream});
  ASSERT_TRUE(stream.next(units, response));
  etcdserverpb::WatchResponse message;
  ASSERT_TRUE(message.ParseFromString(response.body));
  EXPECT_EQ(message.watch_id(), -1);
  EXPECT_EQ(response.revision, driver_.keyspace.revision());
}

// Many streams, watchers that come and go, are slow or quick, start anywhere; every one must get exactly the events of
// its range from its start to its end, in order, revisions whole. A stream is asked after a request, and else only when
// the hub has named it.
TEST(WatchModel, EveryWatcherGetsExactlyItsEvents) {
  struct Expected {
    std::string key;
    std::string range_end;
    int64_t from = 0;
    bool prev_kv = false;
    bool no_put = false;
    bool no_delete = false;
    bool partial = false;   // in the middle of a split response
    int64_t delivered = 0;  // events
    int64_t given = 0;      // revision of the last of them
    int64_t last = 0;       // nothing at or below it may still come
    bool canceled = false;
  };
  uint64_t total = 0;
  uint64_t canceled_by_compaction = 0;
  uint64_t progress_notes = 0;
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    Random random(seed);
    Driver driver;
    struct Client {
      std::unique_ptr<WatchStream> stream;
      std::map<int64_t, Expected> watchers;
      int64_t header = 0;
      bool asked = false;  // it may have something to send
    };
    std::vector<Client> clients(4);
    for (Client& client : clients) {
      client.stream =
          std::make_unique<WatchStream>(driver.keyspace.watches(), WatchStream::Options{.fragment_bytes_max = 600});
    }
    std::vector<model::Event> events;
    model::Model& model = driver.model;
    auto take = [&](Client& client, int responses) {
      for (const WatchStream* named : driver.keyspace.watches().take_ready()) {
        for (Client& other : clients) {
          if (other.stream.get() == named) other.asked = true;
        }
      }
      WatchResponse raw;
      for (int i = 0; i < responses; ++i) {
        if (!client.asked) return false;
        uint32_t units = static_cast<uint32_t>(1 + random.below(50));
        if (!client.stream->next(units, raw)) {
          client.asked = units == 0;
          continue;
        }
        etcdserverpb::WatchResponse response;
        ASSERT_TRUE_OR_RETURN(response.ParseFromString(raw.body));
        EXPECT_GE(raw.revision.value(), client.header);
        client.header = raw.revision.value();
        if (response.watch_id() == -1) {
          // Nothing at or below this revision may come later on this stream.
          ++progress_notes;
          for (auto& [id, watcher] : client.watchers) {
            if (!watcher.canceled) watcher.last = std::max(watcher.last, raw.revision.value());
          }
          continue;
        }
        auto found = client.watchers.find(response.watch_id());
        ASSERT_TRUE_OR_RETURN(found != client.watchers.end());
        Expected& watcher = found->second;
        if (response.canceled()) {
          EXPECT_GT(response.compact_revision(), 0);
          // It had been given all below the floor that it was given, and the rest is gone.
          watcher.canceled = true;
          ++canceled_by_compaction;
        }
        for (int at = 0; at < response.events_size(); ++at) {
          int64_t revision = response.events(at).kv().mod_revision();
          // Revisions ascend; one goes on over responses only where they are marked as fragments.
          bool goes_on = at > 0 || watcher.partial;
          EXPECT_TRUE(revision > watcher.last || (goes_on && revision == watcher.given)) << revision;
          ++watcher.delivered;
          ++total;
          watcher.given = revision;
          watcher.last = std::max(watcher.last, revision);
        }
        watcher.partial = response.fragment();
      }
      return true;
    };
    for (int step = 0; step < 1500; ++step) {
      switch (random.below(12)) {
        case 0:
        case 1:
        case 2:
        case 3: {
          std::string key = fmt::format("k{}", random.below(20));
          std::string value(random.below(60), 'v');
          driver.put(key, value);
          break;
        }
        case 4:
          driver.remove("k1", random.coin() ? "k3" : "");
          break;
        case 5: {
          etcdserverpb::TxnRequest txn;
          uint64_t puts = random.chance(1, 10) ? 128 : 1 + random.below(6);
          for (uint64_t i = 0; i < puts; ++i) {
            auto* put = txn.add_success()->mutable_request_put();
            put->set_key(fmt::format("k{}", i));
            put->set_value("t");
          }
          driver.apply(CommandKind::kTxn, txn);
          break;
        }
        case 6: {
          Client& client = clients[random.below(clients.size())];
          if (client.watchers.size() >= 12) break;
          Expected watcher;
          watcher.key = fmt::format("k{}", random.below(20));
          uint64_t shape = random.below(3);
          if (shape == 1) watcher.range_end = std::string(1, '\0');
          if (shape == 2) {
            watcher.key = "k1";
            watcher.range_end = "k2";
          }
          int64_t start =
              random.coin()
                  ? 0
                  : static_cast<int64_t>(random.between(static_cast<uint64_t>(std::max<int64_t>(1, model.compacted)),
                                                        static_cast<uint64_t>(model.revision) + 3));
          watcher.from = start == 0 ? model.revision + 1 : start;
          watcher.last = watcher.from - 1;
          watcher.prev_kv = random.coin();
          watcher.no_put = random.chance(1, 5);
          watcher.no_delete = random.chance(1, 5);
          int64_t id = 1 + static_cast<int64_t>(random.below(1000));
          if (client.watchers.contains(id)) break;
          client.stream->create({.key = watcher.key,
                                 .range_end = watcher.range_end,
                                 .start_revision = start,
                                 .watch_id = id,
                                 .no_put = watcher.no_put,
                                 .no_delete = watcher.no_delete,
                                 .prev_kv = watcher.prev_kv,
                                 .fragment = random.coin()});
          client.watchers.emplace(id, watcher);
          client.asked = true;
          break;
        }
        case 7:
          (void)driver.keyspace.watches().sweep(static_cast<uint32_t>(1 + random.below(40)));
          break;
        case 8:
          (void)driver.keyspace.run_background(static_cast<uint32_t>(1 + random.below(40)));
          break;
        case 9:
          if (random.chance(1, 20) && model.revision > model.compacted + 50) driver.compact(model.revision - 40);
          break;
        case 10: {
          Client& client = clients[random.below(clients.size())];
          client.stream->request_progress();
          client.asked = true;
          break;
        }
        // Client 0 never takes anything before the end.
        default:
          (void)take(clients[1 + random.below(3)], 3);
          break;
      }
      if (testing::Test::HasFailure()) FAIL() << "seed " << seed << " step " << step;
    }
    bool worked = true;
    while (worked) {
      worked = driver.keyspace.watches().sweep(100);
      for (Client& client : clients) {
        while (take(client, 10)) worked = true;
      }
      if (testing::Test::HasFailure()) FAIL() << "seed " << seed;
    }
    for (size_t i = 0; i < clients.size(); ++i) {
      for (const auto& [id, watcher] : clients[i].watchers) {
        auto wanted = model.watch(watcher.key, watcher.range_end, watcher.from, watcher.prev_kv, watcher.no_put,
                                  watcher.no_delete);
        if (watcher.canceled) {
          // All up to where it was cut, without a gap: counted by revision.
          auto end = std::count_if(wanted.begin(), wanted.end(),
                                   [&](const auto& event) { return event.kv().mod_revision() <= watcher.given; });
          EXPECT_EQ(watcher.delivered, end) << "seed " << seed << " client " << i << " watcher " << id;
        } else {
          EXPECT_EQ(watcher.delivered, static_cast<int64_t>(wanted.size()))
              << "seed " << seed << " client " << i << " watcher " << id;
        }
      }
    }
    EXPECT_EQ(driver.keyspace.watches().behind(), 0u);
  }
  EXPECT_GT(total, 10'000u);
  EXPECT_GT(canceled_by_compaction, 0u);
  EXPECT_GT(progress_notes, 20u);
}

}  // namespace
}  // namespace conclave::keyspace
