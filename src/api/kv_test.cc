#include "api/testing/cluster.h"
#include "conclave/v1/cluster.pb.h"

namespace conclave::api {
namespace {

using namespace std::chrono_literals;
using testing::Cluster;
using testing::FakeCall;

class KvTest : public ::testing::Test {
 protected:
  KvTest() { cluster_.elect(); }
  template <class Request>
  std::string outcome(const std::string& method, const Request& request) {
    return cluster_.call("/etcdserverpb.KV/" + method, request)->outcome();
  }
  Cluster cluster_;
};

TEST_F(KvTest, EveryAnswerHasItsHeader) {
  EXPECT_EQ(cluster_.put("a", "1"), 2);
  EXPECT_EQ(cluster_.put("b", "2"), 3);
  const etcdserverpb::RangeResponse range = cluster_.get("a");
  EXPECT_EQ(range.header().cluster_id(), 0xc1U);
  EXPECT_EQ(range.header().member_id(), 1U);
  EXPECT_EQ(range.header().revision(), 3);
  EXPECT_EQ(range.header().raft_term(), cluster_.server().replica->raft().status().term.value());
  ASSERT_EQ(range.kvs_size(), 1);
  EXPECT_EQ(range.kvs(0).value(), "1");
  EXPECT_EQ(range.kvs(0).create_revision(), 2);
  EXPECT_EQ(range.count(), 1);
}

TEST_F(KvTest, PutDeleteAndTheirPreviousValues) {
  etcdserverpb::PutRequest put;
  put.set_key("k");
  put.set_value("one");
  put.set_prev_kv(true);
  EXPECT_FALSE(cluster_.call("/etcdserverpb.KV/Put", put)->answer<etcdserverpb::PutResponse>().has_prev_kv());
  put.set_value("two");
  EXPECT_EQ(cluster_.call("/etcdserverpb.KV/Put", put)->answer<etcdserverpb::PutResponse>().prev_kv().value(), "one");
  etcdserverpb::DeleteRangeRequest remove;
  remove.set_key("k");
  remove.set_prev_kv(true);
  const auto removed =
      cluster_.call("/etcdserverpb.KV/DeleteRange", remove)->answer<etcdserverpb::DeleteRangeResponse>();
  EXPECT_EQ(removed.deleted(), 1);
  EXPECT_EQ(removed.prev_kvs(0).value(), "two");
  const auto nothing =
      cluster_.call("/etcdserverpb.KV/DeleteRange", remove)->answer<etcdserverpb::DeleteRangeResponse>();
  EXPECT_EQ(nothing.deleted(), 0);
  EXPECT_EQ(nothing.header().revision(), removed.header().revision()) << "deleting nothing moves no revision";
}

TEST_F(KvTest, RefusalsBeforeTheLogHaveEtcdsTexts) {
  EXPECT_EQ(outcome("Put", etcdserverpb::PutRequest()), "3 etcdserver: key is not provided");
  EXPECT_EQ(outcome("Range", etcdserverpb::RangeRequest()), "3 etcdserver: key is not provided");
  EXPECT_EQ(outcome("DeleteRange", etcdserverpb::DeleteRangeRequest()), "3 etcdserver: key is not provided");
  etcdserverpb::PutRequest put;
  put.set_key("k");
  put.set_value("v");
  put.set_ignore_value(true);
  EXPECT_EQ(outcome("Put", put), "3 etcdserver: value is provided");
  put.clear_value();
  EXPECT_EQ(outcome("Put", put), "3 etcdserver: key not found");
  put.set_ignore_value(false);
  put.set_lease(5);
  EXPECT_EQ(outcome("Put", put), "5 etcdserver: requested lease not found");
  put.set_ignore_lease(true);
  EXPECT_EQ(outcome("Put", put), "3 etcdserver: lease is provided");
  put.Clear();
  put.set_key("k");
  put.set_value(std::string(kRequestBytesMax, 'x'));
  EXPECT_EQ(outcome("Put", put), "3 etcdserver: request is too large");
  etcdserverpb::TxnRequest txn;
  for (int i = 0; i < 129; ++i) txn.add_compare()->set_key("k");
  EXPECT_EQ(outcome("Txn", txn), "3 etcdserver: too many operations in txn request");
  txn.Clear();
  for (int i = 0; i < 2; ++i) txn.add_success()->mutable_request_put()->set_key("same");
  EXPECT_EQ(outcome("Txn", txn), "3 etcdserver: duplicate key given in txn request");
  etcdserverpb::RangeRequest range;
  range.set_key("k");
  range.set_sort_order(static_cast<etcdserverpb::RangeRequest::SortOrder>(9));
  EXPECT_EQ(outcome("Range", range), "3 etcdserver: invalid sort option");
  EXPECT_EQ(cluster_.call("/etcdserverpb.KV/Put", std::string("\x0a\x7fgarbage"))->outcome(), "3 MALFORMED_REQUEST");
  EXPECT_EQ(cluster_.keyspace().revision(), Revision(1)) << "nothing of it was written";
}

TEST_F(KvTest, RevisionsOutOfReach) {
  for (int i = 0; i < 5; ++i) cluster_.put("k", std::to_string(i));  // 2..6
  etcdserverpb::CompactionRequest compact;
  compact.set_revision(4);
  EXPECT_EQ(outcome("Compact", compact), "OK");
  EXPECT_EQ(outcome("Compact", compact), "11 etcdserver: mvcc: required revision has been compacted");
  compact.set_revision(100);
  EXPECT_EQ(outcome("Compact", compact), "11 etcdserver: mvcc: required revision is a future revision");
  etcdserverpb::RangeRequest range;
  range.set_key("k");
  range.set_revision(3);
  EXPECT_EQ(outcome("Range", range), "11 etcdserver: mvcc: required revision has been compacted");
  range.set_revision(7);
  EXPECT_EQ(outcome("Range", range), "11 etcdserver: mvcc: required revision is a future revision");
  range.set_revision(4);
  const auto old = cluster_.call("/etcdserverpb.KV/Range", range)->answer<etcdserverpb::RangeResponse>();
  EXPECT_EQ(old.kvs(0).value(), "2");
  EXPECT_EQ(old.header().revision(), 6) << "the newest, also for a read of the past";
  compact.set_revision(6);
  compact.set_physical(true);
  EXPECT_EQ(outcome("Compact", compact), "OK");
  EXPECT_FALSE(cluster_.keyspace().store().has_garbage()) << "physical: it waited";
}

TEST_F(KvTest, Transactions) {
  cluster_.put("a", "1");
  etcdserverpb::TxnRequest txn;
  etcdserverpb::Compare& compare = *txn.add_compare();
  compare.set_key("a");
  compare.set_target(etcdserverpb::Compare::VALUE);
  compare.set_value("1");
  txn.add_success()->mutable_request_put()->set_key("b");
  txn.add_success()->mutable_request_range()->set_key("a");
  txn.add_failure()->mutable_request_range()->set_key("a");
  auto response = cluster_.call("/etcdserverpb.KV/Txn", txn)->answer<etcdserverpb::TxnResponse>();
  EXPECT_TRUE(response.succeeded());
  EXPECT_EQ(response.header().revision(), 3);
  ASSERT_EQ(response.responses_size(), 2);
  EXPECT_EQ(response.responses(1).response_range().kvs(0).value(), "1");
  cluster_.put("a", "2");
  response = cluster_.call("/etcdserverpb.KV/Txn", txn)->answer<etcdserverpb::TxnResponse>();
  EXPECT_FALSE(response.succeeded());
  EXPECT_EQ(response.header().revision(), 4) << "reads move no revision";
  EXPECT_EQ(response.responses(0).response_range().kvs(0).value(), "2");
}

// Of those that begin with "key", as they are here.
etcdserverpb::RangeRequest every_key() {
  etcdserverpb::RangeRequest request;
  request.set_key("key");
  request.set_range_end("kez");
  request.set_serializable(true);
  return request;
}

TEST_F(KvTest, ALargeRangeIsReadInSlicesAtOneRevision) {
  std::string value(2'000, 'v');
  for (int i = 0; i < 3'000; ++i) {
    auto put = cluster_.open("/etcdserverpb.KV/Put");
    etcdserverpb::PutRequest request;
    request.set_key("key" + std::to_string(10'000 + i));
    request.set_value(value);
    put->say(request);
    if (i % 100 == 0) cluster_.settle();
    if (i % 100 != 0) put->cancel();  // it happens all the same
  }
  cluster_.settle();
  const int64_t before = cluster_.keyspace().revision().value();
  auto range = cluster_.open("/etcdserverpb.KV/Range");
  etcdserverpb::RangeRequest request = every_key();
  range->say(request);
  EXPECT_FALSE(range->ended()) << "too much for one turn";
  EXPECT_TRUE(cluster_.service().has_work());
  auto other = cluster_.open("/etcdserverpb.KV/Range");
  request.set_range_end("kez");
  request.set_count_only(true);
  other->say(request);
  cluster_.put("key10000", "changed");
  cluster_.settle();
  ASSERT_EQ(range->outcome(), "OK");
  const auto response = range->answer<etcdserverpb::RangeResponse>();
  EXPECT_EQ(response.kvs_size(), 3'000);
  EXPECT_EQ(response.kvs(0).value(), value);
  EXPECT_EQ(response.header().revision(), before) << "a client that watches from the next revision misses nothing";
  EXPECT_EQ(other->answer<etcdserverpb::RangeResponse>().count(), 3'000);
  EXPECT_FALSE(cluster_.service().has_work());
}

TEST_F(KvTest, ALargeRangeWaitsForTimeOnceItUsedItsShare) {
  for (int i = 0; i < 2'000; ++i) cluster_.put("key" + std::to_string(i), std::string(2'000, 'v'));
  etcdserverpb::RangeRequest request = every_key();
  auto range = cluster_.open("/etcdserverpb.KV/Range");
  range->say(request);
  while (cluster_.service().has_work()) cluster_.service().turn_end(cluster_.clock.instant);
  ASSERT_FALSE(range->ended());
  EXPECT_TRUE(cluster_.service().has_leisure_work());
  // Others are answered at once meanwhile, and it goes on where it was.
  auto other = cluster_.open("/etcdserverpb.KV/Range");
  etcdserverpb::RangeRequest small;
  small.set_key("key7");
  small.set_serializable(true);
  other->say(small);
  EXPECT_EQ(other->outcome(), "OK");
  int pieces = 0;
  for (; cluster_.service().has_leisure_work(); ++pieces) cluster_.service().work_at_leisure();
  EXPECT_GT(pieces, 10);
  ASSERT_EQ(range->outcome(), "OK");
  EXPECT_EQ(range->answer<etcdserverpb::RangeResponse>().kvs_size(), 2'000);
  EXPECT_FALSE(cluster_.service().has_work());
}

TEST_F(KvTest, ACancelledRangeLetsGoOfWhatItPinned) {
  for (int i = 0; i < 1'000; ++i) cluster_.put("key" + std::to_string(i), std::string(4'000, 'v'));
  etcdserverpb::RangeRequest request = every_key();
  auto range = cluster_.open("/etcdserverpb.KV/Range");
  range->say(request);
  ASSERT_FALSE(range->ended());
  range->cancel();
  cluster_.settle();
  EXPECT_TRUE(range->sent.empty());
  // The state goes away under one that is being read.
  range = cluster_.open("/etcdserverpb.KV/Range");
  range->say(request);
  ASSERT_FALSE(range->ended());
  cluster_.service().on_state_replaced();
  EXPECT_EQ(range->outcome(), "14 etcdserver: leader changed");
  cluster_.settle();
}

TEST_F(KvTest, AReadWaitsForItsRoundAndAStaleOneDoesNot) {
  Cluster three(Cluster::Options{.servers = 3});
  three.elect();
  const uint64_t follower = three.follower();
  three.put("a", "1");
  three.server(follower).cut_off = true;
  etcdserverpb::RangeRequest request;
  request.set_key("a");
  auto linearizable = three.open("/etcdserverpb.KV/Range", follower);
  linearizable->say(request);
  three.advance(500ms);
  EXPECT_FALSE(linearizable->ended());
  request.set_serializable(true);
  auto stale = three.open("/etcdserverpb.KV/Range", follower);
  stale->say(request);
  EXPECT_EQ(stale->outcome(), "OK");
  three.advance(8s);
  EXPECT_EQ(linearizable->outcome(), "14 etcdserver: request timed out");
  // Not proposed, and so known not to have happened.
  auto put = three.open("/etcdserverpb.KV/Put", follower);
  etcdserverpb::PutRequest write;
  write.set_key("a");
  put->say(write);
  three.advance(8s);
  EXPECT_EQ(put->outcome(), "14 etcdserver: no leader");
  // Who would rather not wait is told at once.
  const auto impatient = three.call("/etcdserverpb.KV/Put", write, follower, {{"hasleader", "true"}});
  EXPECT_EQ(impatient->outcome(), "14 etcdserver: no leader");
}

// Stale, but not older than what the client has seen elsewhere.
TEST_F(KvTest, AStaleReadWaitsForTheRevisionItNames) {
  Cluster three(Cluster::Options{.servers = 3});
  three.elect();
  const uint64_t follower = three.follower();
  three.put("a", "1");
  three.settle();
  three.server(follower).cut_off = true;
  three.put("a", "2", 0, three.leader());
  etcdserverpb::RangeRequest request;
  request.set_key("a");
  request.set_serializable(true);
  const auto ask = [&](const std::string& least) {
    auto call = three.open("/etcdserverpb.KV/Range", follower, {{"conclave-min-revision", least}});
    call->say(request);
    three.settle();
    return call;
  };
  EXPECT_EQ(ask("2")->answer<etcdserverpb::RangeResponse>().kvs(0).value(), "1");
  const auto newest = ask("3");
  const auto never = ask("1000");
  EXPECT_EQ(ask("3x")->outcome(), "3 conclave-min-revision is not a revision");
  EXPECT_EQ(ask("-3")->outcome(), "3 conclave-min-revision is not a revision");
  three.advance(500ms);
  EXPECT_FALSE(newest->ended());
  three.server(follower).cut_off = false;
  three.advance(2s);
  ASSERT_EQ(newest->outcome(), "OK");
  EXPECT_EQ(newest->answer<etcdserverpb::RangeResponse>().kvs(0).value(), "2");
  EXPECT_EQ(newest->answer<etcdserverpb::RangeResponse>().header().revision(), 3);
  three.advance(8s);
  EXPECT_EQ(never->outcome(), "14 etcdserver: request timed out");
}

// While a majority's promise stands, the leader need not ask; what keeps a lease alive always does.
TEST_F(KvTest, ReadsRestOnTheClockLeaseWhereTheClusterIsSetSo) {
  Cluster three(Cluster::Options{.servers = 3});
  const uint64_t leader = three.elect();
  three.put("a", "1");
  const int64_t lease = three.grant(60);
  etcdserverpb::RangeRequest request;
  request.set_key("a");
  etcdserverpb::LeaseKeepAliveRequest renewal;
  renewal.set_id(lease);
  const auto read_alone = [&] {
    for (uint64_t id = 1; id <= 3; ++id) three.server(id).cut_off = id != leader;
    auto read = three.open("/etcdserverpb.KV/Range", leader);
    read->say(request);
    auto keep_alive = three.open("/etcdserverpb.Lease/LeaseKeepAlive", leader);
    keep_alive->say(renewal);
    three.settle();
    const bool answered = read->ended();
    EXPECT_EQ(keep_alive->sent.size(), 0U) << "that rests on no clock but the lease's own";
    for (uint64_t id = 1; id <= 3; ++id) three.server(id).cut_off = false;
    three.advance(1s);
    EXPECT_EQ(read->outcome(), "OK");
    EXPECT_EQ(keep_alive->sent.size(), 1U);
    return answered;
  };
  EXPECT_FALSE(read_alone()) << "not by default";
  v1::ChangeSettingsRequest change;
  EXPECT_EQ(three.call("/conclave.v1.Cluster/ChangeSettings", change)->outcome(),
            "3 no setting is given that this server knows");
  change.mutable_settings()->set_clock_lease_reads(true);
  const auto on = three.call("/conclave.v1.Cluster/ChangeSettings", change, three.follower());
  EXPECT_TRUE(on->answer<v1::SettingsResponse>().settings().clock_lease_reads());
  three.advance(1s);
  ASSERT_EQ(three.leader(), leader);
  EXPECT_TRUE(read_alone());
  change.mutable_settings()->set_clock_lease_reads(false);
  ASSERT_EQ(three.call("/conclave.v1.Cluster/ChangeSettings", change, three.follower())->outcome(), "OK");
  const auto off = three.call("/conclave.v1.Cluster/GetSettings", v1::GetSettingsRequest());
  EXPECT_FALSE(off->answer<v1::SettingsResponse>().settings().clock_lease_reads());
  three.advance(1s);
  EXPECT_FALSE(read_alone());
}

TEST_F(KvTest, AWriteOfUnknownOutcomeTimesOut) {
  Cluster three(Cluster::Options{.servers = 3});
  const uint64_t leader = three.elect();
  for (uint64_t id = 1; id <= 3; ++id) {
    if (id != leader) three.server(id).cut_off = true;
  }
  etcdserverpb::PutRequest write;
  write.set_key("a");
  auto put = three.open("/etcdserverpb.KV/Put", leader);
  put->say(write);
  three.advance(8s);
  EXPECT_EQ(put->outcome(), "14 etcdserver: request timed out");
}

// ---- RangeStream ----

etcdserverpb::RangeRequest everything() {
  etcdserverpb::RangeRequest request;
  request.set_key(std::string(1, '\0'));
  request.set_range_end(std::string(1, '\0'));
  return request;
}

TEST_F(KvTest, AStreamedRangeIsTheRangeInParts) {
  for (int i = 0; i < 300; ++i) cluster_.put("k" + std::to_string(1000 + i), std::string(1000, 'v'));
  etcdserverpb::RangeRequest request = everything();
  request.set_limit(250);
  auto stream = cluster_.open("/etcdserverpb.KV/RangeStream");
  stream->say(request);
  stream->half_close();
  cluster_.turn();
  cluster_.put("k2000", "later");
  ASSERT_EQ(stream->outcome(), "OK");
  ASSERT_GT(stream->sent.size(), 2U);
  etcdserverpb::RangeResponse all;
  for (size_t i = 0; i < stream->sent.size(); ++i) {
    const auto part = stream->answer<etcdserverpb::RangeStreamResponse>(i).range_response();
    const bool last = i + 1 == stream->sent.size();
    EXPECT_EQ(part.has_header(), last);
    EXPECT_EQ(part.more(), last);
    EXPECT_EQ(part.count(), last ? 300 : 0);
    all.MergeFrom(part);
  }
  EXPECT_EQ(all.header().revision(), 301) << "as it was when the call came";
  ASSERT_EQ(all.kvs_size(), 250);
  for (int i = 0; i < 250; ++i) EXPECT_EQ(all.kvs(i).key(), "k" + std::to_string(1000 + i));

  request.set_count_only(true);
  const auto counted = cluster_.call("/etcdserverpb.KV/RangeStream", request);
  ASSERT_EQ(counted->sent.size(), 1U);
  EXPECT_EQ(counted->answer<etcdserverpb::RangeStreamResponse>().range_response().count(), 301);
}

TEST_F(KvTest, WhatAStreamedRangeRefuses) {
  cluster_.put("a", "1");
  EXPECT_EQ(outcome("RangeStream", etcdserverpb::RangeRequest()), "3 etcdserver: key is not provided");
  etcdserverpb::RangeRequest request = everything();
  request.set_revision(9);
  EXPECT_EQ(outcome("RangeStream", request), "11 etcdserver: mvcc: required revision is a future revision");
  request = everything();
  request.set_sort_order(etcdserverpb::RangeRequest::ASCEND);
  EXPECT_EQ(outcome("RangeStream", request), "OK") << "in key order it is";
  const std::string refusal = "12 a range is streamed in key order, without filters by revision";
  request.set_sort_order(etcdserverpb::RangeRequest::DESCEND);
  EXPECT_EQ(outcome("RangeStream", request), refusal);
  request = everything();
  request.set_sort_target(etcdserverpb::RangeRequest::MOD);
  EXPECT_EQ(outcome("RangeStream", request), refusal);
  request = everything();
  request.set_min_create_revision(1);
  EXPECT_EQ(outcome("RangeStream", request), refusal);
}

TEST_F(KvTest, AStreamedRangeWaitsForItsReaderAndNotForEver) {
  for (int i = 0; i < 900; ++i) cluster_.put("k" + std::to_string(1000 + i), std::string(1000, 'v'));
  auto stream = cluster_.open("/etcdserverpb.KV/RangeStream");
  stream->is_slow = true;
  stream->say(everything());
  cluster_.settle();
  EXPECT_EQ(stream->outcome(), "open");
  EXPECT_LT(stream->queued_bytes(), 512U << 10) << "no more than a stream may have unsent";
  cluster_.advance(std::chrono::seconds(50));
  stream->drain();
  cluster_.settle();
  EXPECT_EQ(stream->outcome(), "open");
  cluster_.advance(std::chrono::seconds(50));
  EXPECT_EQ(stream->outcome(), "open") << "it read something";
  cluster_.advance(std::chrono::seconds(20));
  EXPECT_EQ(stream->outcome(), "14 etcdserver: request timed out");

  auto read = cluster_.open("/etcdserverpb.KV/RangeStream");
  read->is_slow = true;
  read->say(everything());
  for (int i = 0; i < 10 && !read->ended(); ++i) {
    cluster_.settle();
    read->drain();
  }
  EXPECT_EQ(read->outcome(), "OK");
  auto cancelled = cluster_.open("/etcdserverpb.KV/RangeStream");
  cancelled->is_slow = true;
  cancelled->say(everything());
  cluster_.settle();
  cancelled->cancel();
  cluster_.remove("a", "z");
  etcdserverpb::CompactionRequest compact;
  compact.set_revision(cluster_.keyspace().revision().value());
  compact.set_physical(true);
  EXPECT_EQ(outcome("Compact", compact), "OK") << "nobody keeps the past";
}

TEST_F(KvTest, OverloadIsRefusedAtOnce) {
  Cluster::Options options;
  options.replica.writes_pending_max = 2;
  options.replica.reads_pending_max = 1;
  Cluster small(options);
  small.elect();
  etcdserverpb::PutRequest write;
  write.set_key("a");
  std::vector<std::unique_ptr<FakeCall>> puts;
  for (int i = 0; i < 3; ++i) {
    puts.push_back(small.open("/etcdserverpb.KV/Put"));
    puts.back()->say(write);
  }
  EXPECT_EQ(puts[2]->outcome(), "8 etcdserver: too many requests");
  etcdserverpb::RangeRequest read;
  read.set_key("a");
  std::vector<std::unique_ptr<FakeCall>> reads;
  for (int i = 0; i < 2; ++i) {
    reads.push_back(small.open("/etcdserverpb.KV/Range"));
    reads.back()->say(read);
  }
  EXPECT_EQ(reads[1]->outcome(), "8 etcdserver: too many requests");
  small.settle();
  EXPECT_EQ(puts[0]->outcome(), "OK");
  EXPECT_EQ(puts[1]->outcome(), "OK");
  EXPECT_EQ(reads[0]->outcome(), "OK");
}

TEST_F(KvTest, ACallThatIsNoneAndAMethodThatIsNone) {
  auto empty = cluster_.open("/etcdserverpb.KV/Put");
  empty->half_close();
  EXPECT_EQ(empty->outcome(), "12 the call ended without a request");
  FakeCall unknown(cluster_.service(), "/etcdserverpb.KV/Nothing");
  EXPECT_FALSE(unknown.is_served());
}

TEST_F(KvTest, ACancelledCallIsForgotten) {
  etcdserverpb::PutRequest write;
  write.set_key("a");
  auto put = cluster_.open("/etcdserverpb.KV/Put");
  put->say(write);
  put->cancel();
  cluster_.settle();
  EXPECT_TRUE(put->sent.empty());
  EXPECT_EQ(cluster_.get("a").count(), 1) << "it happened, and nobody was told";
}

}  // namespace
}  // namespace conclave::api
