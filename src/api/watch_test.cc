#include "api/testing/cluster.h"

namespace conclave::api {
namespace {

using namespace std::chrono_literals;
using testing::Cluster;
using testing::FakeCall;

class WatchTest : public ::testing::Test {
 protected:
  WatchTest() { cluster_.elect(); }

  static etcdserverpb::WatchRequest creation(const std::string& key, const std::string& range_end = "",
                                             int64_t start = 0) {
    etcdserverpb::WatchRequest request;
    request.mutable_create_request()->set_key(key);
    request.mutable_create_request()->set_range_end(range_end);
    request.mutable_create_request()->set_start_revision(start);
    return request;
  }
  std::unique_ptr<FakeCall> watch(const etcdserverpb::WatchRequest& request) {
    auto stream = cluster_.open("/etcdserverpb.Watch/Watch");
    stream->say(request);
    cluster_.settle();
    return stream;
  }
  // "put a=1@2 delete a@3", of all responses from `first` on.
  static std::string events(const FakeCall& stream, size_t first = 0) {
    std::string text;
    for (size_t i = first; i < stream.sent.size(); ++i) {
      const auto response = stream.answer<etcdserverpb::WatchResponse>(i);
      for (const mvccpb::Event& event : response.events()) {
        if (!text.empty()) text += " ";
        const bool is_put = event.type() == mvccpb::Event::PUT;
        text += (is_put ? "put " : "delete ") + event.kv().key() + (is_put ? "=" + event.kv().value() : "") + "@" +
                std::to_string(event.kv().mod_revision());
      }
    }
    return text;
  }
  static etcdserverpb::WatchResponse last(const FakeCall& stream) {
    return stream.answer<etcdserverpb::WatchResponse>(stream.sent.size() - 1);
  }
  Cluster cluster_;
};

TEST_F(WatchTest, CreatedThenEvents) {
  cluster_.put("a", "0");
  auto stream = watch(creation("a"));
  ASSERT_EQ(stream->sent.size(), 1U);
  const auto created = stream->answer<etcdserverpb::WatchResponse>();
  EXPECT_TRUE(created.created());
  EXPECT_EQ(created.watch_id(), 0);
  EXPECT_EQ(created.header().revision(), 2);
  EXPECT_EQ(created.header().cluster_id(), 0xc1U);
  cluster_.put("a", "1");
  cluster_.put("b", "no");
  cluster_.remove("a");
  EXPECT_EQ(events(*stream), "put a=1@3 delete a@5");
  EXPECT_EQ(last(*stream).header().revision(), 5);
}

TEST_F(WatchTest, HistoryOptionsAndSeveralWatchersOfOneStream) {
  cluster_.put("a", "1");
  cluster_.put("a", "2");
  cluster_.put("b", "3");
  auto stream = watch(creation("a", "z", 2));
  EXPECT_EQ(events(*stream), "put a=1@2 put a=2@3 put b=3@4");
  auto request = creation("a", "z", 2);
  request.mutable_create_request()->set_prev_kv(true);
  request.mutable_create_request()->add_filters(etcdserverpb::WatchCreateRequest::NODELETE);
  request.mutable_create_request()->set_watch_id(42);
  const size_t before = stream->sent.size();
  stream->say(request);
  cluster_.settle();
  EXPECT_EQ(stream->answer<etcdserverpb::WatchResponse>(before).watch_id(), 42);
  EXPECT_EQ(events(*stream, before), "put a=1@2 put a=2@3 put b=3@4");
  EXPECT_EQ(last(*stream).events(1).prev_kv().value(), "1");
  const size_t middle = stream->sent.size();
  cluster_.remove("a");
  EXPECT_EQ(events(*stream, middle), "delete a@5") << "the other does not want deletes";
  stream->say(request);
  cluster_.settle();
  EXPECT_TRUE(last(*stream).canceled());
  EXPECT_EQ(last(*stream).watch_id(), -1);
  EXPECT_EQ(last(*stream).cancel_reason(), "mvcc: duplicate watch ID provided on the WatchStream");
  stream->say(creation("z", "a"));
  cluster_.settle();
  EXPECT_EQ(last(*stream).cancel_reason(), "mvcc: watcher range is empty");
}

TEST_F(WatchTest, CancelProgressAndTheEnd) {
  auto stream = watch(creation("a"));
  etcdserverpb::WatchRequest request;
  request.mutable_progress_request();
  stream->say(request);
  cluster_.settle();
  EXPECT_EQ(last(*stream).watch_id(), -1);
  EXPECT_EQ(last(*stream).header().revision(), 1);
  request.mutable_cancel_request()->set_watch_id(0);
  stream->say(request);
  cluster_.settle();
  EXPECT_TRUE(last(*stream).canceled());
  EXPECT_EQ(last(*stream).cancel_reason(), "");
  const size_t before = stream->sent.size();
  cluster_.put("a", "1");
  EXPECT_EQ(stream->sent.size(), before);
  stream->say(creation("a"));
  stream->half_close();
  cluster_.put("a", "2");
  EXPECT_EQ(events(*stream), "put a=2@3") << "it goes on watching";
  stream->cancel();
  const size_t end = stream->sent.size();
  cluster_.put("a", "3");
  EXPECT_EQ(stream->sent.size(), end);
  EXPECT_EQ(cluster_.keyspace().watches().synced(), 0U);
  auto garbage = cluster_.open("/etcdserverpb.Watch/Watch");
  garbage->say(std::string("\x0a\x7f"));
  EXPECT_EQ(garbage->outcome(), "3 MALFORMED_REQUEST");
}

TEST_F(WatchTest, CompactedStart) {
  for (int i = 0; i < 5; ++i) cluster_.put("a", std::to_string(i));
  etcdserverpb::CompactionRequest compact;
  compact.set_revision(5);
  ASSERT_EQ(cluster_.call("/etcdserverpb.KV/Compact", compact)->outcome(), "OK");
  auto stream = watch(creation("a", "", 3));
  ASSERT_EQ(stream->sent.size(), 2U);
  EXPECT_TRUE(stream->answer<etcdserverpb::WatchResponse>(0).created());
  EXPECT_TRUE(last(*stream).canceled());
  EXPECT_EQ(last(*stream).compact_revision(), 5);
  EXPECT_EQ(last(*stream).header().revision(), 0) << "as etcd";
  EXPECT_EQ(last(*stream).header().cluster_id(), 0xc1U);
  stream->say(creation("a", "", 7));
  cluster_.put("a", "6");
  EXPECT_EQ(events(*stream), "put a=6@7");
  EXPECT_EQ(last(*stream).header().revision(), 7);
}

TEST_F(WatchTest, ASlowReaderCostsABoundAndLosesNothing) {
  auto stream = cluster_.open("/etcdserverpb.Watch/Watch");
  stream->is_slow = true;
  stream->say(creation("a"));
  cluster_.settle();
  constexpr int kPuts = 2'000;
  const std::string value(1'000, 'v');
  for (int i = 0; i < kPuts; ++i) {
    cluster_.put("a", value);
    if (i % 500 != 0) continue;
    EXPECT_LE(stream->queued_bytes(), kStreamBytesQueuedMax + (1U << 20));
  }
  EXPECT_LT(stream->queued_bytes(), size_t{kPuts} * value.size() / 2) << "the rest waits in history";
  for (int i = 0; i < 100 && !stream->ended(); ++i) {
    stream->drain();
    cluster_.settle();
  }
  int64_t next = 2;
  for (size_t i = 0; i < stream->sent.size(); ++i) {
    const auto response = stream->answer<etcdserverpb::WatchResponse>(i);
    for (const mvccpb::Event& event : response.events()) ASSERT_EQ(event.kv().mod_revision(), next++);
  }
  EXPECT_EQ(next, 2 + kPuts);
}

TEST_F(WatchTest, WhoAsksWithoutReadingIsEnded) {
  auto stream = cluster_.open("/etcdserverpb.Watch/Watch");
  stream->is_slow = true;
  int requests = 0;
  for (; requests < 100'000 && !stream->ended(); ++requests) {
    stream->say(creation("a"));
    if (requests % 64 == 0) cluster_.settle();
  }
  EXPECT_EQ(stream->outcome(), "8 etcdserver: too many requests");
  EXPECT_EQ(cluster_.keyspace().watches().synced(), 0U);
  // Reading in time, as many are fine.
  stream = cluster_.open("/etcdserverpb.Watch/Watch");
  for (int i = 0; i < 5'000; ++i) {
    stream->say(creation("a"));
    if (i % 512 == 0) cluster_.settle();
  }
  cluster_.settle();
  EXPECT_EQ(stream->sent.size(), 5'000U);
  EXPECT_EQ(stream->outcome(), "open");
}

TEST_F(WatchTest, ProgressNotesComeEveryInterval) {
  Cluster::Options options;
  options.watch_progress_interval = 60s;
  Cluster cluster(options);
  cluster.elect();
  auto stream = cluster.open("/etcdserverpb.Watch/Watch");
  auto request = creation("a");
  request.mutable_create_request()->set_progress_notify(true);
  stream->say(request);
  cluster.settle();
  cluster.put("b", "1");
  cluster.advance(59s);
  EXPECT_EQ(stream->sent.size(), 1U);
  cluster.advance(2s);
  ASSERT_EQ(stream->sent.size(), 2U);
  EXPECT_EQ(last(*stream).watch_id(), 0);
  EXPECT_EQ(last(*stream).header().revision(), 2);
  EXPECT_EQ(last(*stream).events_size(), 0);
  cluster.put("a", "1");
  cluster.advance(60s);
  EXPECT_EQ(stream->sent.size(), 3U) << "events flowed: no note";
  cluster.advance(60s);
  EXPECT_EQ(stream->sent.size(), 4U);
}

TEST_F(WatchTest, LargeRevisionsAreWholeOrFragmented) {
  etcdserverpb::TxnRequest txn;
  for (int i = 0; i < 100; ++i) {
    etcdserverpb::PutRequest& put = *txn.add_success()->mutable_request_put();
    put.set_key("k" + std::to_string(i));
    put.set_value(std::string(10'000, 'v'));
  }
  auto whole = watch(creation("k", "l"));
  auto request = creation("k", "l");
  request.mutable_create_request()->set_fragment(true);
  auto split = watch(request);
  for (int i = 0; i < 2; ++i) ASSERT_EQ(cluster_.call("/etcdserverpb.KV/Txn", txn)->outcome(), "OK");
  // Everything at once, two revisions of about a MiB each.
  std::set<int64_t> revisions;
  int all = 0;
  for (size_t i = 1; i < whole->sent.size(); ++i) {
    all += whole->answer<etcdserverpb::WatchResponse>(i).events_size();
    EXPECT_FALSE(whole->answer<etcdserverpb::WatchResponse>(i).fragment());
  }
  EXPECT_EQ(all, 200);
  cluster_.remove("k", "l");
  EXPECT_EQ(last(*whole).events_size(), 100) << "one revision, one response";
  all = 0;
  for (size_t i = 1; i < split->sent.size(); ++i) {
    EXPECT_LT(split->sent[i].size(), kRequestBytesMax + 20'000);
    all += split->answer<etcdserverpb::WatchResponse>(i).events_size();
  }
  EXPECT_EQ(all, 300);
}

// The past is kept for who is in the middle of a large revision: not for ever.
TEST_F(WatchTest, WhoStopsReadingInALargeRevisionIsEnded) {
  etcdserverpb::TxnRequest txn;
  for (int i = 0; i < 100; ++i) {
    etcdserverpb::PutRequest& put = *txn.add_success()->mutable_request_put();
    put.set_key("k" + std::to_string(i));
    put.set_value(std::string(10'000, 'v'));
  }
  auto stuck = cluster_.open("/etcdserverpb.Watch/Watch");
  auto slow = cluster_.open("/etcdserverpb.Watch/Watch");
  for (FakeCall* stream : {stuck.get(), slow.get()}) {
    stream->is_slow = true;
    stream->say(creation("k", "l"));
  }
  cluster_.settle();
  for (int i = 0; i < 4; ++i) ASSERT_EQ(cluster_.call("/etcdserverpb.KV/Txn", txn)->outcome(), "OK");
  cluster_.advance(kHistoryPatience - 10s);
  slow->drain();
  cluster_.settle();
  EXPECT_EQ(stuck->outcome(), "open");
  cluster_.advance(20s);
  EXPECT_EQ(stuck->outcome(), "14 etcdserver: request timed out");
  EXPECT_EQ(slow->outcome(), "open") << "its minute began again";
  for (int i = 0; i < 20; ++i) {
    slow->drain();
    cluster_.settle();
  }
  cluster_.advance(3 * kHistoryPatience);
  EXPECT_EQ(slow->outcome(), "open") << "nothing is kept for it";
  EXPECT_EQ(last(*slow).header().revision(), 5);
}

TEST_F(WatchTest, WhenTheStateIsReplacedTheClientResumes) {
  auto stream = watch(creation("a"));
  cluster_.service().on_state_replaced();
  EXPECT_EQ(stream->outcome(), "14 etcdserver: leader changed");
  EXPECT_EQ(cluster_.keyspace().watches().synced(), 0U);
}

TEST_F(WatchTest, ManyStreamsShareATurn) {
  std::vector<std::unique_ptr<FakeCall>> streams;
  streams.reserve(5'000);
  for (int i = 0; i < 5'000; ++i) streams.push_back(watch(creation("a")));
  auto put = cluster_.open("/etcdserverpb.KV/Put");
  etcdserverpb::PutRequest request;
  request.set_key("a");
  put->say(request);
  size_t served_at_once = 0;
  int turns = 0;
  while (std::ranges::any_of(streams, [](const auto& stream) { return stream->sent.size() < 2; })) {
    ASSERT_LT(++turns, 100);
    auto& server = cluster_.server();
    cluster_.turn(server);
    while (!server.writes.empty()) {
      server.replica->on_storage(cluster_.clock.instant,
                                 node::Persisted{.group = Cluster::kGroup, .sequence = server.writes.front()});
      server.writes.pop_front();
    }
    const auto served = std::ranges::count_if(streams, [](const auto& stream) { return stream->sent.size() == 2; });
    if (served_at_once == 0) served_at_once = static_cast<size_t>(served);
  }
  EXPECT_LT(served_at_once, 5'000U) << "bounded work in one turn";
  for (const auto& stream : streams) EXPECT_EQ(events(*stream), "put a=@2");
}

}  // namespace
}  // namespace conclave::api
