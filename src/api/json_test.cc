// etcd's API as JSON: the paths, the mapping, streams as lines, errors; through the service, over HTTP as net calls it.
#include "api/json.h"

#include "api/testing/cluster.h"

namespace conclave::api {
namespace {

using namespace std::chrono_literals;
using testing::Cluster;

// One request, client's side and connection in one.
class FakeHttp final : public net::HttpAnswer {
 public:
  FakeHttp(Cluster& cluster, const std::string& target, std::string said, std::string method = "POST",
           std::vector<std::pair<std::string, std::string>> fields = {}) {
    handler_ = cluster.service().open_http(
        {.method = std::move(method), .target = target, .body = std::move(said), .fields = std::move(fields)}, *this);
    is_served = handler_ != nullptr || over;
    if (!over) cluster.settle();
  }
  FakeHttp(const FakeHttp&) = delete;
  FakeHttp& operator=(const FakeHttp&) = delete;
  ~FakeHttp() override {
    if (!over && handler_) handler_->on_cancel();
  }

  void answer(const net::HttpResponse& response) override {
    ASSERT_EQ(status, 0);
    status = response.status;
    body = response.body;
    retry_after = response.retry_after;
    over = true;
    EXPECT_EQ(response.content_type, "application/json");
  }
  void begin(const net::HttpResponse& head) override {
    ASSERT_EQ(status, 0);
    status = head.status;
  }
  void send(std::string_view piece) override {
    ASSERT_FALSE(over);
    EXPECT_TRUE(piece.ends_with('\n'));
    body += piece;
  }
  void finish() override {
    ASSERT_FALSE(over);
    over = true;
  }
  [[nodiscard]] size_t queued_bytes() const override { return 0; }
  [[nodiscard]] bool says(std::string_view part) const { return body.find(part) != std::string::npos; }
  [[nodiscard]] ptrdiff_t lines() const { return std::ranges::count(body, '\n'); }

  bool is_served = false;
  bool over = false;
  int status = 0;
  std::string body;
  Duration retry_after{};

 private:
  std::unique_ptr<net::HttpHandler> handler_;
};

class JsonTest : public ::testing::Test {
 protected:
  JsonTest() { cluster_.elect(); }
  std::string ask(const std::string& path, const std::string& body) {
    FakeHttp http(cluster_, "/v3/" + path, body);
    EXPECT_TRUE(http.over) << path;
    return std::to_string(http.status) + " " + http.body;
  }
  // What an answer says behind its header.
  std::string body(const std::string& path, const std::string& said) {
    std::string all = ask(path, said);
    const size_t end = all.find('}');
    if (!all.starts_with("200 {\"header\":{\"cluster_id\":\"193\",\"member_id\":\"1\",\"revision\":\"")) return all;
    return all.substr(end + 1);
  }
  Cluster cluster_;
};

TEST_F(JsonTest, KeysAreBase64AndNumbersText) {
  EXPECT_EQ(ask("kv/put", R"({"key":"Zm9v","value":"YmFy"})"),
            R"(200 {"header":{"cluster_id":"193","member_id":"1","revision":"2","raft_term":"2"}})");
  EXPECT_EQ(
      body("kv/range", R"({"key":"Zm9v"})"),
      R"(,"kvs":[{"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1","value":"YmFy"}],"count":"1"})");
  EXPECT_EQ(body("kv/range", R"({"key":"Zm9v","keys_only":true,"limit":"1","sortOrder":"DESCEND","sort_target":2})"),
            R"(,"kvs":[{"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1"}],"count":"1"})")
      << "numbers, names in camel case and enums as numbers are taken";
  EXPECT_EQ(body("kv/put", R"({"key":"-_8="})"), "}") << "the URL's alphabet";
  EXPECT_EQ(cluster_.get("\xfb\xff").count(), 1);
  EXPECT_EQ(body("kv/range", R"({"key":"AA==","range_end":"AA==","count_only":true,"revision":2})"),
            R"(,"count":"1"})");
  EXPECT_EQ(
      body("kv/deleterange", R"({"key":"Zm9v","prev_kv":true})"),
      R"(,"deleted":"1","prev_kvs":[{"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1","value":"YmFy"}]})");
  EXPECT_EQ(body("kv/range", R"({"key":"Zm9v"})"), "}") << "what is zero is left out";
}

TEST_F(JsonTest, Transactions) {
  EXPECT_EQ(
      body("kv/txn", R"({"compare":[{"target":"CREATE","result":"EQUAL","key":"YQ==","create_revision":"0"}],)"
                     R"("success":[{"request_put":{"key":"YQ==","value":"MQ=="}},{"requestRange":{"key":"YQ=="}}]})"),
      R"(,"succeeded":true,"responses":[{"response_put":{"header":{"revision":"2"}}},)"
      R"({"response_range":{"header":{"revision":"2"},"kvs":[{"key":"YQ==","create_revision":"2",)"
      R"("mod_revision":"2","version":"1","value":"MQ=="}],"count":"1"}}]})");
}

TEST_F(JsonTest, UnknownFieldsAreIgnoredAndUnknownEnumNamesRefused) {
  EXPECT_EQ(body("kv/range", R"({"key":"YQ==","of_the_future":[1,{"x":null}]})"), "}");
  const std::string refused = R"("code":3,"message":"the body is not a etcdserverpb.)";
  for (const auto& [path, request] : std::vector<std::pair<std::string, std::string>>{
           {"kv/range", R"({"key":"YQ==","sort_order":"SIDEWAYS"})"},
           {"kv/range", R"({"key":"YQ==","sort_order":"ascend"})"},
           {"kv/range", R"({"key":"YQ==","sortOrder":"SIDEWAYS","of_the_future":1})"},
           {"kv/txn", R"({"of_the_future":1,"compare":[{"result":"ALIKE","key":"YQ=="}]})"},
           {"kv/txn", R"({"x":1,"success":[{"request_txn":{"compare":[{"target":"SIZE","key":"YQ=="}]}}]})"},
           {"maintenance/alarm", R"({"x":{},"action":"PANIC"})"},
       }) {
    const std::string answer = ask(path, request);
    EXPECT_TRUE(answer.starts_with("400 ")) << answer;
    EXPECT_NE(answer.find(refused), std::string::npos) << answer;
  }
}

TEST_F(JsonTest, WhatIsNoJsonIsRefused) {
  const std::string refused = R"(400 {"error":"the body is not a etcdserverpb.PutRequest in JSON","code":3,)"
                              R"("message":"the body is not a etcdserverpb.PutRequest in JSON","details":[]})";
  for (const std::string body :
       {"{", "[]", "nonsense", "\"\xff\"", R"({"key":"YQ=="}x)", R"({"key":"not base64!"})", R"({"lease":"x"})",
        R"({"lease":"9223372036854775808"})", R"({"key":"YQ==","key":1})"}) {
    EXPECT_EQ(ask("kv/put", body), refused) << body;
  }
  EXPECT_EQ(ask("kv/put", std::string(100'000, '{')), refused);
  EXPECT_EQ(ask("kv/put", R"({"x":)" + std::string(50'000, '[')), refused);
  EXPECT_EQ(cluster_.keyspace().revision(), Revision(1));
}

TEST_F(JsonTest, ErrorsHaveBothShapesAndHttpsStatus) {
  EXPECT_EQ(
      ask("kv/put", "{}"),
      R"(400 {"error":"etcdserver: key is not provided","code":3,"message":"etcdserver: key is not provided","details":[]})");
  EXPECT_EQ(ask("kv/put", ""), ask("kv/put", "{}")) << "an empty body says nothing";
  EXPECT_TRUE(ask("kv/put", R"({"key":"YQ==","lease":7})").starts_with("404 "));
  EXPECT_TRUE(ask("kv/range", R"({"key":"YQ==","revision":"99"})")
                  .starts_with(R"(400 {"error":"etcdserver: mvcc: required revision is a future revision","code":11)"));
  EXPECT_TRUE(ask("lease/revoke", R"({"ID":"7"})").starts_with("404 "));
  FakeHttp get(cluster_, "/v3/kv/range", "", "GET");
  EXPECT_EQ(get.status, 405);
  for (const std::string path : {"/v3/kv/nothing", "/v2/keys", "/v3", "/v3/", "/health", "/v3/kv/range/"}) {
    EXPECT_FALSE(FakeHttp(cluster_, path, "{}").is_served) << path;
  }
  EXPECT_EQ(FakeHttp(cluster_, "/v3beta/kv/range?pretty", R"({"key":"YQ=="})").status, 200);
  constexpr int kStatus[] = {200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401, 500};
  for (uint32_t code = 0; code < std::size(kStatus); ++code) EXPECT_EQ(http_status_of(code), kStatus[code]) << code;
}

TEST_F(JsonTest, EveryPathReachesItsMethod) {
  // With what etcd answers where an empty request is none; streams that stay open have their own tests.
  const std::vector<std::pair<std::string, std::string>> paths = {
      {"kv/range", "key is not provided"},
      {"kv/put", "key is not provided"},
      {"kv/deleterange", "key is not provided"},
      {"kv/txn", "header"},
      {"kv/compaction", "header"},
      {"lease/grant", "\"TTL\":\"2\""},
      {"lease/revoke", "requested lease not found"},
      {"kv/lease/revoke", "requested lease not found"},
      {"lease/timetolive", "\"TTL\":\"-1\""},
      {"kv/lease/timetolive", "\"TTL\":\"-1\""},
      {"lease/leases", "leases"},
      {"kv/lease/leases", "leases"},
      {"cluster/member/add", "given member URLs are invalid"},
      {"cluster/member/remove", "member not found"},
      {"cluster/member/update", "member not found"},
      {"cluster/member/list", "\"clientURLs\":[\"http://n1:2379\"]"},
      {"cluster/member/promote", "member not found"},
      {"maintenance/alarm", "header"},
      {"maintenance/status", "\"version\":\"3.6.0\""},
      {"maintenance/defragment", "header"},
      {"maintenance/hash", "\"hash\":"},
      {"maintenance/hashkv", "\"hash_revision\":\"1\""},
      {"maintenance/transfer-leadership", "bad leader transferee"},
      {"maintenance/downgrade", "\"code\":"},
      {"auth/enable", "root user does not exist"},
      {"auth/disable", "header"},
      {"auth/status", "header"},
      {"auth/authenticate", "authentication is not enabled"},
      {"auth/user/add", "user name is empty"},
      {"auth/user/get", "user name not found"},
      {"auth/user/list", "header"},
      {"auth/user/delete", "user name not found"},
      {"auth/user/changepw", "user name not found"},
      {"auth/user/grant", "user name not found"},
      {"auth/user/revoke", "user name not found"},
      {"auth/role/add", "role name is empty"},
      {"auth/role/get", "role name not found"},
      {"auth/role/list", "header"},
      {"auth/role/delete", "role name not found"},
      {"auth/role/grant", "permission not given"},
      {"auth/role/revoke", "role name not found"},
      {"lock/lock", "\"key\":\""},
      {"lock/unlock", "key is not provided"},
      {"election/campaign", "\"leader\":{"},
      {"election/proclaim", "\\\"leader\\\" field must be provided"},
      {"election/leader", "\"kv\":{"},
      {"election/resign", "\\\"leader\\\" field must be provided"},
  };
  for (const auto& [path, part] : paths) {
    const std::string answer = ask(path, path == "lock/lock" ? R"({"name":"bA=="})" : "{}");
    EXPECT_NE(answer.find(part), std::string::npos) << path << ": " << answer;
  }
}

TEST_F(JsonTest, AWatchIsLinesUntilTheClientLeaves) {
  auto watch = std::make_unique<FakeHttp>(
      cluster_, "/v3/watch", R"({"create_request":{"key":"YQ=="}} {"createRequest":{"key":"Yg==","watch_id":"7"}})");
  EXPECT_EQ(watch->status, 200);
  EXPECT_EQ(watch->lines(), 2);
  EXPECT_TRUE(watch->body.starts_with(R"({"result":{"header":{"cluster_id":"193",)")) << watch->body;
  EXPECT_TRUE(watch->says(R"("watch_id":"7","created":true}})")) << watch->body;
  cluster_.put("a", "1");
  cluster_.remove("a");
  cluster_.settle();
  EXPECT_TRUE(watch->says(
      R"("events":[{"kv":{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"MQ=="}}]}})"))
      << watch->body;
  EXPECT_TRUE(watch->says(R"("events":[{"type":"DELETE","kv":{"key":"YQ==","mod_revision":"3"}}]}})")) << watch->body;
  EXPECT_FALSE(watch->over);
  EXPECT_EQ(cluster_.keyspace().watches().synced(), 2U);
  watch.reset();
  EXPECT_EQ(cluster_.keyspace().watches().synced(), 0U);
}

TEST_F(JsonTest, StreamsThatEnd) {
  const int64_t lease = cluster_.grant(60);
  FakeHttp keep(cluster_, "/v3/lease/keepalive", R"({"ID":")" + std::to_string(lease) + R"("}{"ID":5})");
  cluster_.advance(1s);
  EXPECT_TRUE(keep.over);
  EXPECT_EQ(keep.lines(), 2);
  EXPECT_TRUE(keep.says(R"("ID":")" + std::to_string(lease) + R"(","TTL":"60"}})" + "\n")) << keep.body;
  EXPECT_TRUE(keep.says(R"("ID":"5"}})"
                        "\n"))
      << "an unknown one has no TTL: " << keep.body;

  FakeHttp malformed(cluster_, "/v3/lease/keepalive", R"({"ID":"x"})");
  EXPECT_EQ(malformed.status, 400);
  EXPECT_EQ(
      malformed.body,
      R"({"error":{"grpc_code":3,"http_code":400,"message":"the body is not a etcdserverpb.LeaseKeepAliveRequest in JSON",)"
      R"("http_status":"Bad Request","code":3,"details":[]}})"
      "\n");
}

TEST_F(JsonTest, ASnapshotIsLines) {
  cluster_.put("a", "1");
  FakeHttp snapshot(cluster_, "/v3/maintenance/snapshot", "{}");
  cluster_.advance(1s);
  EXPECT_TRUE(snapshot.over);
  EXPECT_EQ(snapshot.status, 200);
  EXPECT_GE(snapshot.lines(), 2) << "the content, and its hash";
  EXPECT_TRUE(snapshot.says(R"("blob":")")) << snapshot.body;
  EXPECT_FALSE(snapshot.says("error")) << snapshot.body;
}

// It began well: what ends it is a line, and HTTP's status stays.
TEST_F(JsonTest, AStreamThatFailsSaysSoInItsLastLine) {
  FakeHttp watch(cluster_, "/v3/watch", R"({"create_request":{"key":"YQ=="}})");
  EXPECT_EQ(watch.lines(), 1);
  cluster_.service().on_state_replaced();
  EXPECT_TRUE(watch.over);
  EXPECT_EQ(watch.status, 200);
  EXPECT_EQ(watch.lines(), 2);
  EXPECT_TRUE(watch.body.ends_with(R"({"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: leader changed",)"
                                   R"("http_status":"Service Unavailable","code":14,"details":[]}})"
                                   "\n"))
      << watch.body;
}

TEST_F(JsonTest, AnElectionIsObserved) {
  FakeHttp observe(cluster_, "/v3/election/observe", R"({"name":"ZQ=="})");
  FakeHttp campaign(cluster_, "/v3/election/campaign", R"({"name":"ZQ==","value":"djE="})");
  cluster_.advance(1s);
  EXPECT_TRUE(campaign.says(R"("leader":{"name":"ZQ==")")) << campaign.body;
  EXPECT_TRUE(observe.says(R"("value":"djE=")")) << observe.body;
  EXPECT_EQ(observe.lines(), 1);
}

TEST_F(JsonTest, DeadlinesLeadersAndAnswersTooLarge) {
  cluster_.grant(600, 5);
  cluster_.put("lock/5", "", 5);
  cluster_.put("lock/6", "");
  FakeHttp lock(cluster_, "/v3/lock/lock", R"({"name":"bG9jaw=="})", "POST", {{"grpc-timeout", "2S"}});
  cluster_.advance(1s);
  EXPECT_FALSE(lock.over);
  cluster_.advance(2s);
  EXPECT_EQ(lock.status, 504);
  EXPECT_TRUE(lock.says(R"("message":"context deadline exceeded")")) << lock.body;
  FakeHttp odd(cluster_, "/v3/kv/range", "{}", "POST", {{"grpc-timeout", "soon"}});
  EXPECT_EQ(odd.status, 400);

  for (int i = 0; i < 10; ++i) cluster_.put("big" + std::to_string(i), std::string(1'000'000, 'b'));
  EXPECT_TRUE(ask("kv/range", R"({"key":"YmlnMA=="})").starts_with("200 "));
  const std::string large = ask("kv/range", R"({"key":"AA==","range_end":"AA=="})");
  EXPECT_TRUE(large.starts_with(R"(429 {"error":"the answer is too large for JSON)")) << large.substr(0, 100);

  Cluster three(Cluster::Options{.servers = 3});
  FakeHttp none(three, "/v3/kv/range", R"({"key":"YQ=="})", "POST", {{"grpc-metadata-hasleader", "true"}});
  EXPECT_EQ(none.status, 503);
  EXPECT_TRUE(none.says(R"("error":"etcdserver: no leader","code":14)")) << none.body;
}

TEST_F(JsonTest, OverloadSaysWhenToAskAgain) {
  Cluster::Options options;
  options.replica.writes_pending_max = 2;
  Cluster cluster(options);
  cluster.elect();
  cluster.server().disk_stopped = true;
  const FakeHttp first(cluster, "/v3/kv/put", R"({"key":"YQ=="})");
  const FakeHttp second(cluster, "/v3/kv/put", R"({"key":"YQ=="})");
  const FakeHttp refused(cluster, "/v3/kv/put", R"({"key":"YQ=="})");
  EXPECT_FALSE(second.over);
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(
      refused.body,
      R"({"error":"etcdserver: too many requests","code":8,"message":"etcdserver: too many requests","details":[]})");
  EXPECT_GE(refused.retry_after, net::kRetryAfter / 2);
  EXPECT_LE(refused.retry_after, 3 * net::kRetryAfter / 2);
  const FakeHttp malformed(cluster, "/v3/kv/put", R"({"key":""})");
  EXPECT_EQ(malformed.status, 400);
  EXPECT_EQ(malformed.retry_after, Duration::zero());
}

// ---- conclave.v1 ----

TEST_F(JsonTest, SessionsLocksAndElections) {
  const auto ask_v1 = [this](const std::string& path, const std::string& said) {
    FakeHttp http(cluster_, "/v1/" + path, said);
    EXPECT_TRUE(http.over) << path;
    return std::to_string(http.status) + " " + http.body;
  };
  const std::string secret = R"("secret":"MDEyMzQ1Njc4OWFiY2RlZg==")";
  const std::string opened =
      ask_v1("session/open", R"({"session":"7","ttl_ms":10000,"description":"a test",)" + secret + "}");
  EXPECT_TRUE(opened.starts_with(R"(200 {"session":"7","place":{"index":")")) << opened;
  EXPECT_TRUE(opened.ends_with(R"("opened":{"ttl_ms":"10000"}})")) << opened;
  const auto identity = [&secret](int sequence) {
    return R"("identity":{"session":"7","incarnation":"1","sequence":")" + std::to_string(sequence) + "\"," + secret +
           "}";
  };
  EXPECT_EQ(ask_v1("lock/acquire", "{" + identity(1) + R"(,"acquire":{"names":["a"],"try":true}})"),
            R"(200 {"claims":[{"name":"a","token":"2","granted":true}]})");
  EXPECT_EQ(ask_v1("lock/acquire", "{" + identity(2) + R"(,"acquire":{"names":["a"],"up_to_ms":"100"}})"),
            R"(409 {"error":"ALREADY_HELD: the session has a claim on that name","code":6,)"
            R"("message":"ALREADY_HELD: the session has a claim on that name","details":[)"
            R"({"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"ALREADY_HELD","domain":"conclave"}]})");
  EXPECT_EQ(ask_v1("lock/validate", R"({"name":"a","token":"2"})"), R"(200 {"valid":true,"revision":"2"})");
  EXPECT_EQ(ask_v1("lock/describe", R"({"name":"a"})"),
            R"(200 {"name":"a","owner":{"key":"a/7","token":"2","lease":"7","description":"a test","is_session":true},)"
            R"("revision":"2"})");
  EXPECT_EQ(ask_v1("lock/list", ""),
            R"(200 {"locks":[{"name":"a","owner":{"key":"a/7","token":"2","lease":"7","description":"a test",)"
            R"("is_session":true},"revision":"2"}]})");
  EXPECT_EQ(ask_v1("lock/request_release", R"({"name":"a"})"), R"(200 {"token":"2"})");
  EXPECT_EQ(ask_v1("lock/release", "{" + identity(3) + R"(,"release":{"name":"a","token":"2"}})"),
            R"(200 {"held":true})");
  EXPECT_EQ(ask_v1("lock/force_release", R"({"name":"a","token":"2","now":true})"), "200 {}");
  EXPECT_EQ(ask_v1("election/campaign", "{" + identity(4) + R"(,"campaign":{"name":"e","value":"djE="}})"),
            R"(200 {"token":"4"})");
  EXPECT_EQ(ask_v1("election/proclaim", "{" + identity(5) + R"(,"proclaim":{"name":"e","token":"4","value":"djI="}})"),
            R"(200 {"revision":"5"})");
  EXPECT_EQ(ask_v1("election/leader", R"({"name":"e"})"),
            R"(200 {"name":"e","token":"4","value":"djI=","lease":"7","mod_revision":"5"})");
  EXPECT_TRUE(ask_v1("election/describe", R"({"name":"e"})").starts_with(R"(200 {"name":"e","leader":{"name":"e",)"));
  EXPECT_TRUE(ask_v1("election/list", "{}").starts_with(R"(200 {"elections":[{"name":"e",)"));
  EXPECT_TRUE(ask_v1("election/transfer", "{" + identity(6) + R"(,"transfer":{"name":"e","token":"4","to":"8"}})")
                  .starts_with(R"(404 {"error":"NO_CANDIDATE: )"));
  EXPECT_EQ(ask_v1("election/resign", "{" + identity(7) + R"(,"resign":{"name":"e","token":"4"}})"),
            R"(200 {"held":true})");
  EXPECT_TRUE(ask_v1("session/keep_alive", "{" + identity(0) + "}").ends_with(R"("kept":{}})"));
  EXPECT_TRUE(
      ask_v1("session/describe", R"({"session":"7"})").starts_with(R"(200 {"session":"7","description":"a test",)"));
  EXPECT_TRUE(ask_v1("session/list", "").starts_with(R"(200 {"sessions":[{"session":"7",)"));
  EXPECT_TRUE(
      ask_v1("session/close", R"({"session":"7","incarnation":"1",)" + secret + "}").ends_with(R"("closed":{}})"));
  EXPECT_TRUE(ask_v1("session/kill", R"({"session":"7"})").starts_with(R"(404 {"error":"SESSION_EXPIRED: )"));

  EXPECT_TRUE(ask_v1("session/open", R"({"session":7,"ttl_ms":"10","secret":"?"})")
                  .starts_with(R"(400 {"error":"the body is not a conclave.v1.OpenSession in JSON","code":3)"));
  FakeHttp unknown(cluster_, "/v1/lock/steal", "{}");
  EXPECT_FALSE(unknown.is_served);
  FakeHttp elsewhere(cluster_, "/v3/lock/acquire", "{}");
  EXPECT_FALSE(elsewhere.is_served);
  FakeHttp ours(cluster_, "/v1/kv/range", "{}");
  EXPECT_FALSE(ours.is_served);
}

TEST_F(JsonTest, WhatHappensToASessionIsLines) {
  const std::string identity = R"({"session":"7","incarnation":"1","secret":"MDEyMzQ1Njc4OWFiY2RlZg=="})";
  EXPECT_TRUE(
      FakeHttp(cluster_, "/v1/session/open", R"({"session":"7","ttl_ms":"10000","secret":"MDEyMzQ1Njc4OWFiY2RlZg=="})")
          .says("opened"));
  FakeHttp events(cluster_, "/v1/session/events", identity);
  EXPECT_EQ(events.lines(), 1);
  EXPECT_TRUE(events.body.starts_with(R"({"result":{"session":"7","place":{)")) << events.body;
  EXPECT_TRUE(events.says(R"("attached":{"ttl_ms":"10000"}}})")) << events.body;
  FakeHttp observe(cluster_, "/v1/election/observe", R"({"name":"e"})");
  EXPECT_TRUE(observe.body.starts_with(R"({"result":{"name":"e","mod_revision":"1","first":true}})")) << observe.body;
  FakeHttp candidates(cluster_, "/v1/election/observe", R"({"name":"e","candidates":true})");
  EXPECT_TRUE(candidates.says(R"("first":true,"candidates":{}})")) << candidates.body;
  FakeHttp campaign(cluster_, "/v1/election/campaign",
                    R"({"identity":)" + identity.substr(0, identity.size() - 1) +
                        R"(,"sequence":"1"},"campaign":{"name":"e","value":"djE="}})");
  EXPECT_EQ(campaign.status, 200) << campaign.body;
  EXPECT_EQ(observe.lines(), 2);
  EXPECT_TRUE(observe.says(R"("value":"djE=")")) << observe.body;
  EXPECT_EQ(FakeHttp(cluster_, "/v1/session/open",
                     R"({"session":"8","ttl_ms":"60000","description":"other",)"
                     R"("secret":"MDEyMzQ1Njc4OWFiY2RlZg=="})")
                .status,
            200);
  FakeHttp waits(cluster_, "/v1/election/campaign",
                 R"({"identity":{"session":"8","incarnation":"1","secret":"MDEyMzQ1Njc4OWFiY2RlZg==","sequence":"1"},)"
                 R"("campaign":{"name":"e","priority":3}})");
  cluster_.advance(200ms);
  EXPECT_TRUE(
      candidates.says(R"("candidates":{"best":[{"session":"8","description":"other","priority":3}],"waiting":"1"}}})"))
      << candidates.body;
  EXPECT_EQ(observe.lines(), 2);
  EXPECT_TRUE(events.says(R"("granted":{"name":"e","token":"2"})")) << events.body;
  cluster_.advance(11s);
  EXPECT_TRUE(events.over);
  EXPECT_TRUE(events.says(R"("ended":{"reason":"EXPIRED"})")) << events.body;
  EXPECT_EQ(waits.status, 200) << waits.body;
  EXPECT_EQ(observe.lines(), 4) << "a vacancy, and who came after it";
  FakeHttp gone(cluster_, "/v1/session/events", identity);
  EXPECT_EQ(gone.status, 404);
  EXPECT_TRUE(gone.says(R"("details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"SESSION_EXPIRED")"))
      << gone.body;
}

// All requests in one body; the answers are lines, and the last one ends it.
TEST_F(JsonTest, TheStreamOfSessionsTakesAllAtOnce) {
  FakeHttp stream(cluster_, "/v1/session/session",
                  R"({"session":"7","open":{"ttl_ms":"10000","secret":"MDEyMzQ1Njc4OWFiY2RlZg=="}})"
                  R"({"keep_alive":{"id":"5"}} {"session":"7","sequence":"1","acquire":{"names":["a"]}})");
  cluster_.advance(1s);
  EXPECT_TRUE(stream.over);
  EXPECT_EQ(stream.lines(), 3) << stream.body;
  EXPECT_TRUE(stream.says(R"("reason":"NOT_ATTACHED")")) << "before it was opened: " << stream.body;
  EXPECT_TRUE(stream.says(R"("kept":{"id":"5"})")) << stream.body;
}

}  // namespace
}  // namespace conclave::api
