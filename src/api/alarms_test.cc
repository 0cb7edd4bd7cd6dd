#include "api/testing/cluster.h"
#include "conclave/v1/cluster.pb.h"
#include "etcd/election.pb.h"
#include "etcd/lock.pb.h"

namespace conclave::api {
namespace {

using namespace std::chrono_literals;
using testing::Cluster;

constexpr auto kFull = "8 etcdserver: mvcc: database space exceeded";

class AlarmsTest : public ::testing::Test {
 protected:
  AlarmsTest() : cluster_(Cluster::Options{.servers = 3}) { cluster_.elect(); }

  template <class Request>
  std::string outcome(const std::string& path, const Request& request, uint64_t at = 1) {
    return cluster_.call(path, request, at)->outcome();
  }
  std::string put(const std::string& key, size_t bytes, uint64_t at = 1) {
    etcdserverpb::PutRequest request;
    request.set_key(key);
    request.set_value(std::string(bytes, 'v'));
    return outcome("/etcdserverpb.KV/Put", request, at);
  }
  std::string set_quota(uint64_t bytes) {
    v1::ChangeSettingsRequest request;
    request.mutable_settings()->set_quota_bytes(bytes);
    return outcome("/conclave.v1.Cluster/ChangeSettings", request);
  }
  static etcdserverpb::AlarmRequest alarm_request(etcdserverpb::AlarmRequest::AlarmAction action,
                                                  etcdserverpb::AlarmType type = etcdserverpb::NONE,
                                                  uint64_t member = 0) {
    etcdserverpb::AlarmRequest request;
    request.set_action(action);
    request.set_alarm(type);
    request.set_memberid(member);
    return request;
  }
  // "1:NOSPACE 2:CORRUPT", or why there is no answer.
  std::string alarms(const etcdserverpb::AlarmRequest& request, uint64_t at = 1) {
    const auto call = cluster_.call("/etcdserverpb.Maintenance/Alarm", request, at);
    if (!call->ok()) return call->outcome();
    std::string text;
    const auto response = call->answer<etcdserverpb::AlarmResponse>();
    for (const etcdserverpb::AlarmMember& alarm : response.alarms()) {
      text += (text.empty() ? "" : " ") + std::to_string(alarm.memberid()) + ":" +
              etcdserverpb::AlarmType_Name(alarm.alarm());
    }
    return text;
  }
  std::string alarms(uint64_t at = 1) { return alarms(alarm_request(etcdserverpb::AlarmRequest::GET), at); }
  net::HttpResponse http(const std::string& target, uint64_t at = 1) {
    net::HttpResponse got{.status = 0};
    cluster_.service(at).on_http({.method = "GET", .target = target},
                                 [&](const net::HttpResponse& response) { got = response; });
    cluster_.settle();
    return got;
  }
  etcdserverpb::StatusResponse status(uint64_t at) {
    return cluster_.call("/etcdserverpb.Maintenance/Status", etcdserverpb::StatusRequest(), at)
        ->answer<etcdserverpb::StatusResponse>();
  }
  // Until no more is taken.
  void fill(uint64_t at) {
    ASSERT_EQ(set_quota(kQuotaBytesMin), "OK");
    for (int i = 0; i < 100 && full_.empty(); ++i) {
      if (put("fill" + std::to_string(i), 50'000, at) == kFull) full_ = "fill" + std::to_string(i);
    }
    ASSERT_FALSE(full_.empty());
    EXPECT_LT(live_bytes(cluster_.keyspace(at)), kQuotaBytesMin);
    EXPECT_GT(live_bytes(cluster_.keyspace(at)), kQuotaBytesMin - 100'000);
  }

  Cluster cluster_;
  std::string full_;  // the key that did not fit
};

TEST_F(AlarmsTest, WhatGoesBeyondTheQuotaIsRefusedAndAnAlarmRaised) {
  fill(2);
  EXPECT_EQ(put("small", 10, 2), "OK") << "it fits still";
  EXPECT_EQ(alarms(), "");
  cluster_.advance(1s);
  EXPECT_EQ(alarms(), "2:NOSPACE") << "of the server that refused it";
  EXPECT_EQ(alarms(3), "2:NOSPACE");
  for (uint64_t at = 1; at <= 3; ++at) {
    EXPECT_EQ(put("small", 10, at), kFull) << "while the alarm stands, on every server";
    EXPECT_EQ(status(at).errors(0), "memberID:2 alarm:NOSPACE ");
    EXPECT_EQ(status(at).dbsizequota(), 1 << 20);
    EXPECT_EQ(http("/health", at).body, R"({"health":"false","reason":"ALARM NOSPACE"})");
    EXPECT_EQ(http("/health?exclude=NOSPACE", at).body, R"({"health":"true","reason":""})");
    EXPECT_EQ(http("/readyz", at).status, 200);
    const std::string metrics = http("/metrics", at).body;
    EXPECT_NE(metrics.find("conclave_alarms{kind=\"NOSPACE\"} 1\n"), std::string::npos);
    EXPECT_NE(metrics.find("etcd_server_quota_backend_bytes 1048576\n"), std::string::npos);
  }

  etcdserverpb::TxnRequest txn;
  txn.add_success()->mutable_request_put()->set_key("t");
  EXPECT_EQ(outcome("/etcdserverpb.KV/Txn", txn), kFull);
  EXPECT_EQ(cluster_.call("/etcdserverpb.KV/Txn", txn)->status->retry_after, Duration::zero())
      << "that passes when somebody makes room, not by waiting";
  etcdserverpb::TxnRequest reads;
  reads.add_success()->mutable_request_range()->set_key("t");
  reads.add_failure()->mutable_request_delete_range()->set_key("t");
  EXPECT_EQ(outcome("/etcdserverpb.KV/Txn", reads), "OK");
  etcdserverpb::LeaseGrantRequest grant;
  grant.set_ttl(60);
  EXPECT_EQ(outcome("/etcdserverpb.Lease/LeaseGrant", grant), kFull);
  v3lockpb::LockRequest lock;
  lock.set_name("lock");
  EXPECT_EQ(outcome("/v3lockpb.Lock/Lock", lock), kFull);
  v3electionpb::CampaignRequest campaign;
  campaign.set_name("election");
  EXPECT_EQ(outcome("/v3electionpb.Election/Campaign", campaign), kFull);
  etcdserverpb::CompactionRequest compact;
  compact.set_revision(2);
  EXPECT_EQ(outcome("/etcdserverpb.KV/Compact", compact), "OK");
}

TEST_F(AlarmsTest, TheAlarmIsOverByItselfOnceThereIsRoom) {
  fill(cluster_.follower());
  cluster_.advance(1s);
  ASSERT_NE(alarms(), "");
  cluster_.remove("fill0");
  cluster_.advance(2s);
  EXPECT_NE(alarms(), "") << "not an eighth is free";
  cluster_.remove("fill1");
  cluster_.advance(2s);
  EXPECT_EQ(alarms(), "");
  EXPECT_EQ(put("small", 10), "OK");
  EXPECT_EQ(put("much", 500'000), kFull);
  cluster_.advance(1s);
  EXPECT_NE(alarms(), "");
  EXPECT_EQ(set_quota(0), "OK") << "none";
  cluster_.advance(1s);
  EXPECT_EQ(alarms(), "");
  EXPECT_EQ(put("much", 500'000), "OK");
  EXPECT_EQ(set_quota(1), "3 a quota is 1 MiB at least, or 0 for none");
}

TEST_F(AlarmsTest, AnAlarmRaisedByAClientStaysUntilItIsTakenBack) {
  using Request = etcdserverpb::AlarmRequest;
  const auto raise = alarm_request(Request::ACTIVATE, etcdserverpb::NOSPACE, 3);
  EXPECT_EQ(alarms(raise), "3:NOSPACE");
  EXPECT_EQ(alarms(raise), "3:NOSPACE") << "twice is once";
  EXPECT_EQ(alarms(alarm_request(Request::ACTIVATE, etcdserverpb::NOSPACE, 77)), "5 etcdserver: member not found");
  EXPECT_EQ(alarms(alarm_request(Request::ACTIVATE)), "");
  EXPECT_EQ(put("a", 1), kFull);
  cluster_.advance(5s);
  EXPECT_EQ(alarms(2), "3:NOSPACE") << "though there is room";
  EXPECT_EQ(alarms(alarm_request(Request::GET, etcdserverpb::CORRUPT)), "");
  EXPECT_EQ(alarms(alarm_request(Request::DEACTIVATE, etcdserverpb::CORRUPT, 3)), "");
  EXPECT_EQ(alarms(alarm_request(Request::DEACTIVATE, etcdserverpb::NOSPACE, 3), 2), "3:NOSPACE");
  EXPECT_EQ(alarms(), "");
  EXPECT_EQ(put("a", 1), "OK");
  auto odd = alarm_request(Request::GET, static_cast<etcdserverpb::AlarmType>(9));
  EXPECT_EQ(alarms(odd), "3 there is no such alarm, or nothing that is done with it");
}

TEST_F(AlarmsTest, ACorruptClusterTakesReadsAlone) {
  ASSERT_EQ(put("a", 1), "OK");
  const int64_t lease = cluster_.grant(60);
  const auto raise = alarm_request(etcdserverpb::AlarmRequest::ACTIVATE, etcdserverpb::CORRUPT, 1);
  ASSERT_EQ(alarms(raise), "1:CORRUPT");
  constexpr auto kCorrupt = "15 etcdserver: corrupt cluster";
  EXPECT_EQ(put("a", 1, 2), kCorrupt);
  etcdserverpb::DeleteRangeRequest remove;
  remove.set_key("a");
  EXPECT_EQ(outcome("/etcdserverpb.KV/DeleteRange", remove), kCorrupt);
  etcdserverpb::TxnRequest txn;
  txn.add_success()->mutable_request_range()->set_key("a");
  EXPECT_EQ(outcome("/etcdserverpb.KV/Txn", txn), kCorrupt);
  etcdserverpb::CompactionRequest compact;
  compact.set_revision(2);
  EXPECT_EQ(outcome("/etcdserverpb.KV/Compact", compact), kCorrupt);
  etcdserverpb::LeaseRevokeRequest revoke;
  revoke.set_id(lease);
  EXPECT_EQ(outcome("/etcdserverpb.Lease/LeaseRevoke", revoke), kCorrupt);
  v3lockpb::LockRequest lock;
  lock.set_name("lock");
  EXPECT_EQ(outcome("/v3lockpb.Lock/Lock", lock), kCorrupt);
  EXPECT_EQ(cluster_.get("a").count(), 1);
  EXPECT_EQ(http("/health").body, R"({"health":"false","reason":"ALARM CORRUPT"})");
  EXPECT_EQ(http("/readyz").status, 503);
  EXPECT_EQ(http("/readyz?exclude=data_corruption").status, 200);
  EXPECT_EQ(http("/livez").status, 200);
  EXPECT_EQ(alarms(alarm_request(etcdserverpb::AlarmRequest::DEACTIVATE, etcdserverpb::CORRUPT, 1)), "1:CORRUPT");
  EXPECT_EQ(put("a", 1, 2), "OK");
}

}  // namespace
}  // namespace conclave::api
