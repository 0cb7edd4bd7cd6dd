// Drives a cluster with gRPC's own C++ library and prints a line for each check. Started by grpc_test.py, which kills
// servers when asked to: a line "kill leader" on standard output is answered by one "done" on standard input.
//
//   interop_grpc [--cacert FILE --cert FILE --key FILE] [--without CHECK,...] ENDPOINTS [CHECK ...]
//
// Nothing of the product is in it but the wire contracts.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <CLI/CLI.hpp>

#include "etcd/election.grpc.pb.h"
#include "etcd/health.grpc.pb.h"
#include "etcd/lock.grpc.pb.h"
#include "etcd/rpc.grpc.pb.h"

namespace conclave {
namespace {

using grpc::ClientContext;
using grpc::Status;
using grpc::StatusCode;
namespace pb = etcdserverpb;

// Bounds each check: nothing here may hang.
constexpr std::chrono::seconds kLimit{60};
// Of one attempt that is repeated while a leader is elected.
constexpr std::chrono::seconds kAttempt{2};

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void expect(bool ok, const std::string& what) {
  if (!ok) throw Failure(what);
}

void must(const Status& status, const std::string& what) {
  if (!status.ok()) throw Failure(fmt::format("{}: {} {}", what, int{status.error_code()}, status.error_message()));
}

// etcd tells errors by code and text alone.
void refused(const Status& status, StatusCode code, const std::string& text) {
  expect(status.error_code() == code && status.error_message() == text && status.error_details().empty(),
         fmt::format("{} \"{}\" and {} bytes of details instead of {} \"{}\"", int{status.error_code()},
                     status.error_message(), status.error_details().size(), int{code}, text));
}

// One check's view of the cluster: a channel of its own to all servers, which take turns, and a key prefix.
class Suite {
 public:
  Suite(const std::string& address, const std::shared_ptr<grpc::ChannelCredentials>& credentials,
        const std::string& name)
      : prefix(fmt::format("grpc/{}/", name)), end_(std::chrono::system_clock::now() + kLimit) {
    grpc::ChannelArguments arguments;
    arguments.SetLoadBalancingPolicyName("round_robin");
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
    // Each check with connections of its own.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    // What that one does not read is to stay with the server: no window that grows with the speed of loopback.
    if (name == "overload") arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    if (credentials != nullptr) arguments.SetSslTargetNameOverride("127.0.0.1");
    const auto channel = grpc::CreateCustomChannel(
        address, credentials != nullptr ? credentials : grpc::InsecureChannelCredentials(), arguments);
    kv = pb::KV::NewStub(channel);
    watch = pb::Watch::NewStub(channel);
    lease = pb::Lease::NewStub(channel);
    cluster = pb::Cluster::NewStub(channel);
    maintenance = pb::Maintenance::NewStub(channel);
    lock = v3lockpb::Lock::NewStub(channel);
    election = v3electionpb::Election::NewStub(channel);
    health = grpc::health::v1::Health::NewStub(channel);
  }

  [[nodiscard]] std::unique_ptr<ClientContext> context() const {
    auto made = std::make_unique<ClientContext>();
    made->set_deadline(end_);
    made->set_wait_for_ready(true);
    return made;
  }
  [[nodiscard]] std::unique_ptr<ClientContext> attempt() const {
    auto made = std::make_unique<ClientContext>();
    made->set_deadline(std::chrono::system_clock::now() + kAttempt);
    return made;
  }

  // Repeats what may fail while a leader is elected; what is repeated may happen twice.
  void retry(const std::string& what, const std::function<Status(ClientContext&)>& call) const {
    Status last;
    while (std::chrono::system_clock::now() < end_) {
      last = call(*attempt());
      if (last.ok()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    must(last, what);
  }

  pb::PutResponse put(const std::string& key, const std::string& value, int64_t of_lease = 0) const {
    const pb::PutRequest request = put_request(key, value, of_lease);
    pb::PutResponse answer;
    must(kv->Put(context().get(), request, &answer), "put");
    return answer;
  }
  [[nodiscard]] pb::PutRequest put_request(const std::string& key, const std::string& value,
                                           int64_t of_lease = 0) const {
    pb::PutRequest request;
    request.set_key(prefix + key);
    request.set_value(value);
    request.set_lease(of_lease);
    return request;
  }
  [[nodiscard]] pb::RangeRequest range_request(const std::string& key) const {
    pb::RangeRequest request;
    request.set_key(prefix + key);
    return request;
  }
  // Everything that begins so.
  [[nodiscard]] pb::RangeRequest prefix_request(const std::string& key) const {
    pb::RangeRequest request = range_request(key);
    std::string end = request.key();
    ++end.back();
    request.set_range_end(end);
    return request;
  }
  [[nodiscard]] pb::RangeResponse range(const pb::RangeRequest& request) const {
    pb::RangeResponse answer;
    must(kv->Range(context().get(), request, &answer), "range");
    return answer;
  }
  [[nodiscard]] int64_t grant(int64_t ttl) const {
    pb::LeaseGrantRequest request;
    request.set_ttl(ttl);
    pb::LeaseGrantResponse answer;
    must(lease->LeaseGrant(context().get(), request, &answer), "grant");
    return answer.id();
  }
  // Returns once so many claims stand.
  void wait_claims(const std::string& key, int count) const {
    while (range(prefix_request(key + "/")).kvs_size() != count) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  std::string prefix;
  std::unique_ptr<pb::KV::Stub> kv;
  std::unique_ptr<pb::Watch::Stub> watch;
  std::unique_ptr<pb::Lease::Stub> lease;
  std::unique_ptr<pb::Cluster::Stub> cluster;
  std::unique_ptr<pb::Maintenance::Stub> maintenance;
  std::unique_ptr<v3lockpb::Lock::Stub> lock;
  std::unique_ptr<v3electionpb::Election::Stub> election;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;

 private:
  std::chrono::system_clock::time_point end_;
};

// Whoever reads it waits for it.
void say(const std::string& line) {
  std::cout << line << '\n' << std::flush;
}

void order(const std::string& what) {
  say(what);
  std::string answer;
  expect(static_cast<bool>(std::getline(std::cin, answer)) && answer == "done", "no answer to " + what);
}
// Returns when the leader's process is gone; bring_back when it serves again.
void kill_leader() {
  order("kill leader");
}
void bring_back() {
  order("bring back");
}

// One stream of watches; events come one by one, whatever answer they came in.
class WatchStream {
 public:
  explicit WatchStream(const Suite& suite) : context_(suite.context()), stream_(suite.watch->Watch(context_.get())) {}
  ~WatchStream() {
    context_->TryCancel();
    if (!finished_) (void)stream_->Finish();
  }
  WatchStream(const WatchStream&) = delete;
  WatchStream& operator=(const WatchStream&) = delete;

  bool create(const std::string& key, const std::string& range_end, int64_t revision) {
    pb::WatchRequest request;
    auto& create = *request.mutable_create_request();
    create.set_key(key);
    create.set_range_end(range_end);
    create.set_start_revision(revision);
    return stream_->Write(request);
  }
  bool cancel(int64_t id) {
    pb::WatchRequest request;
    request.mutable_cancel_request()->set_watch_id(id);
    return stream_->Write(request);
  }
  bool progress() {
    pb::WatchRequest request;
    request.mutable_progress_request();
    return stream_->Write(request);
  }
  bool read(pb::WatchResponse& answer) { return stream_->Read(&answer); }
  // The next answer of one kind; answers with events wait for `next`.
  pb::WatchResponse wait_for(const std::string& what, const std::function<bool(const pb::WatchResponse&)>& wanted) {
    pb::WatchResponse answer;
    while (read(answer)) {
      keep(answer);
      if (wanted(answer)) return answer;
    }
    throw Failure("the watch ended before " + what);
  }
  bool next(mvccpb::Event& event) {
    while (waiting_.empty()) {
      pb::WatchResponse answer;
      if (!read(answer)) return false;
      keep(answer);
    }
    event = waiting_.front();
    waiting_.erase(waiting_.begin());
    return true;
  }
  std::string value() {
    mvccpb::Event event;
    expect(next(event), "the watch ended");
    return event.type() == mvccpb::Event::DELETE ? "(deleted)" : event.kv().value();
  }
  bool writes_done() { return stream_->WritesDone(); }
  void try_cancel() { context_->TryCancel(); }
  Status finish() {
    finished_ = true;
    return stream_->Finish();
  }

 private:
  void keep(const pb::WatchResponse& answer) {
    waiting_.insert(waiting_.end(), answer.events().begin(), answer.events().end());
  }
  std::unique_ptr<ClientContext> context_;
  std::unique_ptr<grpc::ClientReaderWriter<pb::WatchRequest, pb::WatchResponse>> stream_;
  std::vector<mvccpb::Event> waiting_;
  bool finished_ = false;
};

void put_get(const Suite& suite) {
  const auto first = suite.put("a", "1");
  expect(first.header().revision() > 0 && first.header().raft_term() > 0 && first.header().cluster_id() != 0 &&
             first.header().member_id() != 0,
         "header " + first.header().ShortDebugString());
  pb::PutRequest again = suite.put_request("a", "2");
  again.set_prev_kv(true);
  pb::PutResponse put;
  must(suite.kv->Put(suite.context().get(), again, &put), "put");
  expect(put.prev_kv().value() == "1", "previous value " + put.prev_kv().value());
  auto got = suite.range(suite.range_request("a"));
  expect(got.count() == 1 && got.kvs(0).value() == "2" && got.kvs(0).version() == 2 &&
             got.kvs(0).create_revision() == first.header().revision(),
         "got " + got.ShortDebugString());
  pb::RangeRequest old = suite.range_request("a");
  old.set_revision(first.header().revision());
  expect(suite.range(old).kvs(0).value() == "1", "the old value");
  for (int i = 0; i < 10; ++i) suite.put(fmt::format("r/{}", i), std::to_string(i));
  pb::RangeRequest some = suite.prefix_request("r/");
  some.set_limit(3);
  some.set_sort_order(pb::RangeRequest::DESCEND);
  got = suite.range(some);
  expect(got.count() == 10 && got.more() && got.kvs_size() == 3 && got.kvs(0).value() == "9", got.ShortDebugString());
  pb::DeleteRangeRequest gone;
  gone.set_key(some.key());
  gone.set_range_end(some.range_end());
  gone.set_prev_kv(true);
  pb::DeleteRangeResponse deleted;
  must(suite.kv->DeleteRange(suite.context().get(), gone, &deleted), "delete");
  expect(deleted.deleted() == 10 && deleted.prev_kvs_size() == 10, deleted.ShortDebugString());
}

void transactions(const Suite& suite) {
  suite.put("a", "1");
  pb::TxnRequest request;
  auto& compare = *request.add_compare();
  compare.set_key(suite.prefix + "a");
  compare.set_target(pb::Compare::VALUE);
  compare.set_result(pb::Compare::EQUAL);
  compare.set_value("1");
  *request.add_success()->mutable_request_put() = suite.put_request("a", "2");
  auto& inner = *request.add_success()->mutable_request_txn();
  *inner.add_success()->mutable_request_range() = suite.range_request("a");
  *request.add_failure()->mutable_request_range() = suite.prefix_request("");
  pb::TxnResponse answer;
  must(suite.kv->Txn(suite.context().get(), request, &answer), "transaction");
  expect(answer.succeeded() && answer.responses(1).response_txn().responses(0).response_range().kvs(0).value() == "2",
         answer.ShortDebugString());
  must(suite.kv->Txn(suite.context().get(), request, &answer), "transaction");
  expect(!answer.succeeded() && answer.responses(0).response_range().count() == 1, answer.ShortDebugString());
}

void errors(const Suite& suite) {
  pb::PutResponse put;
  refused(suite.kv->Put(suite.context().get(), pb::PutRequest(), &put), StatusCode::INVALID_ARGUMENT,
          "etcdserver: key is not provided");
  refused(suite.kv->Put(suite.context().get(), suite.put_request("a", "1", 123456789), &put), StatusCode::NOT_FOUND,
          "etcdserver: requested lease not found");
  refused(suite.kv->Put(suite.context().get(), suite.put_request("a", std::string(size_t{3} << 19, 'x')), &put),
          StatusCode::INVALID_ARGUMENT, "etcdserver: request is too large");
  pb::RangeRequest future = suite.range_request("a");
  future.set_revision(int64_t{1} << 40);
  pb::RangeResponse range;
  refused(suite.kv->Range(suite.context().get(), future, &range), StatusCode::OUT_OF_RANGE,
          "etcdserver: mvcc: required revision is a future revision");
  const auto context = suite.context();
  const auto stream = suite.kv->RangeStream(context.get(), suite.range_request("a"));
  pb::RangeStreamResponse part;
  expect(stream->Read(&part), "no answer of RangeStream");
  expect(part.range_response().has_header() && part.range_response().count() == 0, "not the end of a RangeStream");
  expect(!stream->Read(&part) && stream->Finish().ok(), "the end of a RangeStream");
}

// Answers of 8 MiB, and many calls at once on one connection.
void large_and_many(const Suite& suite) {
  for (int i = 0; i < 8; ++i)
    suite.put(fmt::format("large/{}", i), std::string(size_t{1} << 20, static_cast<char>('a' + i)));
  const auto got = suite.range(suite.prefix_request("large/"));
  expect(got.kvs_size() == 8 && got.kvs(7).value() == std::string(size_t{1} << 20, 'h'), "the large values");
  std::atomic<int> failed = 0;
  std::vector<std::jthread> threads;
  threads.reserve(16);
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&suite, &failed, i] {
      for (int n = 0; n < 20; ++n) {
        pb::PutResponse answer;
        const pb::PutRequest request = suite.put_request(fmt::format("many/{}", i), std::to_string(n));
        if (!suite.kv->Put(suite.context().get(), request, &answer).ok()) ++failed;
      }
    });
  }
  threads.clear();
  expect(failed == 0, fmt::format("{} puts failed", failed.load()));
  const auto many = suite.range(suite.prefix_request("many/"));
  expect(many.kvs_size() == 16, many.ShortDebugString());
  for (const auto& kv : many.kvs()) {
    expect(kv.version() == 20 && kv.value() == "19", kv.ShortDebugString());
  }
}

void watches(const Suite& suite) {
  const int64_t start = suite.put("a", "0").header().revision();
  WatchStream stream(suite);
  expect(stream.create(suite.prefix + "a", "", start), "write");
  const auto created = [](const pb::WatchResponse& answer) { return answer.created(); };
  const int64_t first = stream.wait_for("it was created", created).watch_id();
  expect(stream.value() == "0", "the event of the past");
  pb::RangeRequest everything = suite.prefix_request("");
  expect(stream.create(everything.key(), everything.range_end(), start + 1), "write");
  const int64_t second = stream.wait_for("the second was created", created).watch_id();
  expect(first != second, "both have one id");
  suite.put("a", "1");
  expect(stream.value() == "1" && stream.value() == "1", "both watches tell of it");
  expect(stream.cancel(first), "write");
  const auto canceled = stream.wait_for("its end", [](const pb::WatchResponse& answer) { return answer.canceled(); });
  expect(canceled.watch_id() == first, "another watch was cancelled");
  suite.put("a", "2");
  expect(stream.value() == "2", "the other goes on");
  expect(stream.progress(), "write");
  const auto progress = stream.wait_for("its progress", [](const pb::WatchResponse& answer) {
    return answer.events_size() == 0 && !answer.created() && !answer.canceled();
  });
  expect(progress.header().revision() >= start + 2, progress.ShortDebugString());
  pb::DeleteRangeRequest gone;
  gone.set_key(suite.prefix + "a");
  pb::DeleteRangeResponse deleted;
  must(suite.kv->DeleteRange(suite.context().get(), gone, &deleted), "delete");
  expect(stream.value() == "(deleted)", "the delete");
  // Who says no more may still listen.
  expect(stream.writes_done(), "half close");
  suite.put("a", "3");
  expect(stream.value() == "3", "after the half close");
}

void keep_alive(const Suite& suite) {
  const int64_t lease = suite.grant(60);
  suite.put("a", "1", lease);
  const auto context = suite.context();
  const auto stream = suite.lease->LeaseKeepAlive(context.get());
  pb::LeaseKeepAliveRequest request;
  pb::LeaseKeepAliveResponse answer;
  for (int i = 0; i < 10; ++i) {
    request.set_id(lease);
    expect(stream->Write(request) && stream->Read(&answer), "the stream of keep-alives ended");
    expect(answer.id() == lease && answer.ttl() == 60, answer.ShortDebugString());
  }
  pb::LeaseTimeToLiveRequest ask;
  ask.set_id(lease);
  ask.set_keys(true);
  pb::LeaseTimeToLiveResponse left;
  must(suite.lease->LeaseTimeToLive(suite.context().get(), ask, &left), "time to live");
  expect(left.grantedttl() == 60 && left.ttl() > 50 && left.keys_size() == 1, left.ShortDebugString());
  pb::LeaseRevokeRequest revoke;
  revoke.set_id(lease);
  pb::LeaseRevokeResponse revoked;
  must(suite.lease->LeaseRevoke(suite.context().get(), revoke, &revoked), "revoke");
  expect(stream->Write(request) && stream->Read(&answer), "the stream ends with a lease");
  expect(answer.id() == lease && answer.ttl() == 0, "of a lease that is gone: " + answer.ShortDebugString());
  expect(suite.range(suite.range_request("a")).count() == 0, "the key outlives its lease");
  expect(stream->WritesDone(), "half close");
  expect(!stream->Read(&answer), "an answer to nothing");
  must(stream->Finish(), "keep-alives");
}

// Of a call that waits by its nature, and of a stream.
void deadlines(const Suite& suite) {
  const int64_t holder = suite.grant(60);
  const int64_t waiter = suite.grant(60);
  v3lockpb::LockRequest request;
  request.set_name(suite.prefix + "l");
  request.set_lease(holder);
  v3lockpb::LockResponse held;
  must(suite.lock->Lock(suite.context().get(), request, &held), "lock");
  request.set_lease(waiter);
  v3lockpb::LockResponse none;
  const auto begin = std::chrono::steady_clock::now();
  ClientContext late;
  late.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  const Status status = suite.lock->Lock(&late, request, &none);
  expect(status.error_code() == StatusCode::DEADLINE_EXCEEDED, "the wait ends with " + status.error_message());
  expect(std::chrono::steady_clock::now() - begin < std::chrono::seconds(10), "the deadline came late");
  // The claim of who waits no more is taken back.
  suite.wait_claims("l", 1);
  ClientContext short_lived;
  short_lived.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  const auto stream = suite.watch->Watch(&short_lived);
  pb::WatchResponse answer;
  expect(!stream->Read(&answer), "a watch that nobody asked for");
  const Status ended = stream->Finish();
  expect(ended.error_code() == StatusCode::DEADLINE_EXCEEDED, "the watch ends with " + ended.error_message());
}

void cancellation(const Suite& suite) {
  v3lockpb::LockRequest request;
  request.set_name(suite.prefix + "l");
  request.set_lease(suite.grant(60));
  v3lockpb::LockResponse held;
  must(suite.lock->Lock(suite.context().get(), request, &held), "lock");
  request.set_lease(suite.grant(60));
  const auto context = suite.context();
  Status status;
  {
    const std::jthread waiter([&] {
      v3lockpb::LockResponse none;
      status = suite.lock->Lock(context.get(), request, &none);
    });
    suite.wait_claims("l", 2);
    context->TryCancel();
  }
  expect(status.error_code() == StatusCode::CANCELLED, "the wait ends with " + status.error_message());
  suite.wait_claims("l", 1);
  WatchStream stream(suite);
  const int64_t start = suite.put("a", "0").header().revision();
  expect(stream.create(suite.prefix + "a", "", start), "write");
  expect(stream.value() == "0", "the first event");
  stream.try_cancel();
  mvccpb::Event event;
  expect(!stream.next(event), "an event after the cancellation");
  expect(stream.finish().error_code() == StatusCode::CANCELLED, "the watch is not CANCELLED");
  suite.put("a", "1");
}

// Not of Debian's etcd, which takes no compressed request.
void compression(const Suite& suite) {
  const std::string value(size_t{1} << 20, 'z');
  const auto context = suite.context();
  context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
  pb::PutResponse put;
  must(suite.kv->Put(context.get(), suite.put_request("a", value), &put), "a put compressed by gzip");
  expect(suite.range(suite.range_request("a")).kvs(0).value() == value, "the value is not what was compressed");
  // Two MiB that were compressed to little are two MiB.
  const auto larger = suite.context();
  larger->set_compression_algorithm(GRPC_COMPRESS_GZIP);
  expect(!suite.kv->Put(larger.get(), suite.put_request("a", value + value), &put).ok(), "2 MiB were taken");
  const auto deflate = suite.context();
  deflate->set_compression_algorithm(GRPC_COMPRESS_DEFLATE);
  const Status status = suite.kv->Put(deflate.get(), suite.put_request("a", value), &put);
  expect(status.error_code() == StatusCode::UNIMPLEMENTED, "deflate: " + status.error_message());
  const auto streamed = suite.context();
  streamed->set_compression_algorithm(GRPC_COMPRESS_GZIP);
  const auto stream = suite.watch->Watch(streamed.get());
  pb::WatchRequest request;
  request.mutable_create_request()->set_key(suite.prefix + std::string(10'000, 'k'));
  pb::WatchResponse answer;
  expect(stream->Write(request) && stream->Read(&answer) && answer.created(), "a watch compressed by gzip");
  streamed->TryCancel();
  (void)stream->Finish();
}

void health_checks(const Suite& suite) {
  using grpc::health::v1::HealthCheckRequest;
  using grpc::health::v1::HealthCheckResponse;
  HealthCheckResponse answer;
  must(suite.health->Check(suite.context().get(), HealthCheckRequest(), &answer), "health");
  expect(answer.status() == HealthCheckResponse::SERVING, answer.ShortDebugString());
  HealthCheckRequest unknown;
  unknown.set_service("no such service");
  expect(suite.health->Check(suite.context().get(), unknown, &answer).error_code() == StatusCode::NOT_FOUND,
         "a service that is not there has health");
  const auto context = suite.context();
  const auto stream = suite.health->Watch(context.get(), HealthCheckRequest());
  expect(stream->Read(&answer) && answer.status() == HealthCheckResponse::SERVING, "the watch of health");
  context->TryCancel();
  expect(stream->Finish().error_code() == StatusCode::CANCELLED, "the watch of health is not CANCELLED");
}

void locks_and_elections(const Suite& suite) {
  const std::string name = suite.prefix + "e";
  v3electionpb::CampaignRequest campaign;
  campaign.set_name(name);
  campaign.set_lease(suite.grant(60));
  campaign.set_value("one");
  v3electionpb::CampaignResponse elected;
  must(suite.election->Campaign(suite.context().get(), campaign, &elected), "campaign");
  v3electionpb::LeaderRequest ask;
  ask.set_name(name);
  v3electionpb::LeaderResponse leader;
  must(suite.election->Leader(suite.context().get(), ask, &leader), "leader");
  expect(leader.kv().value() == "one" && leader.kv().key() == elected.leader().key(), leader.ShortDebugString());
  const auto context = suite.context();
  const auto observed = suite.election->Observe(context.get(), ask);
  expect(observed->Read(&leader) && leader.kv().value() == "one", "observed " + leader.ShortDebugString());
  v3electionpb::ProclaimRequest proclaim;
  *proclaim.mutable_leader() = elected.leader();
  proclaim.set_value("one again");
  v3electionpb::ProclaimResponse proclaimed;
  must(suite.election->Proclaim(suite.context().get(), proclaim, &proclaimed), "proclaim");
  expect(observed->Read(&leader) && leader.kv().value() == "one again", "observed " + leader.ShortDebugString());
  {
    const std::jthread second([&] {
      v3electionpb::CampaignRequest request;
      request.set_name(name);
      request.set_lease(suite.grant(60));
      request.set_value("two");
      v3electionpb::CampaignResponse answer;
      (void)suite.election->Campaign(suite.context().get(), request, &answer);
    });
    suite.wait_claims("e", 2);
    v3electionpb::ResignRequest resign;
    *resign.mutable_leader() = elected.leader();
    v3electionpb::ResignResponse resigned;
    must(suite.election->Resign(suite.context().get(), resign, &resigned), "resign");
  }
  while (leader.kv().value() != "two") expect(observed->Read(&leader), "observing ended before the second led");
  context->TryCancel();
  (void)observed->Finish();
  v3lockpb::LockRequest lock;
  lock.set_name(suite.prefix + "l");
  lock.set_lease(suite.grant(60));
  v3lockpb::LockResponse held;
  must(suite.lock->Lock(suite.context().get(), lock, &held), "lock");
  v3lockpb::UnlockRequest unlock;
  unlock.set_key(held.key());
  v3lockpb::UnlockResponse unlocked;
  must(suite.lock->Unlock(suite.context().get(), unlock, &unlocked), "unlock");
  expect(suite.range(suite.prefix_request("l")).count() == 0, "the lock's key is still there");
}

void cluster_calls(const Suite& suite) {
  pb::StatusResponse status;
  must(suite.maintenance->Status(suite.context().get(), pb::StatusRequest(), &status), "status");
  pb::MemberListResponse members;
  must(suite.cluster->MemberList(suite.context().get(), pb::MemberListRequest(), &members), "member list");
  bool found = false;
  for (const auto& member : members.members()) found = found || member.id() == status.leader();
  expect(found && status.raftterm() > 0 && !status.version().empty(), status.ShortDebugString());
  const auto context = suite.context();
  const auto stream = suite.maintenance->Snapshot(context.get(), pb::SnapshotRequest());
  pb::SnapshotResponse part;
  uint64_t bytes = 0;
  while (stream->Read(&part)) bytes += part.blob().size();
  must(stream->Finish(), "snapshot");
  expect(bytes % 512 == 32 && part.remaining_bytes() == 0, fmt::format("a snapshot of {} bytes", bytes));
}

void puts_go_on(const Suite& suite) {
  for (int i = 0; i < 20; ++i) suite.put(fmt::format("k/{}", i), std::to_string(i));
  const auto before = suite.range(suite.prefix_request("k/"));
  kill_leader();
  pb::PutResponse put;
  suite.retry("put",
              [&](ClientContext& context) { return suite.kv->Put(&context, suite.put_request("after", "x"), &put); });
  expect(put.header().revision() > before.header().revision() && put.header().raft_term() > before.header().raft_term(),
         put.ShortDebugString());
  pb::RangeResponse after;
  suite.retry("range",
              [&](ClientContext& context) { return suite.kv->Range(&context, suite.prefix_request("k/"), &after); });
  expect(after.kvs_size() == 20, after.ShortDebugString());
  for (int i = 0; i < 20; ++i) {
    expect(after.kvs(i).SerializeAsString() == before.kvs(i).SerializeAsString(), after.kvs(i).ShortDebugString());
  }
  bring_back();
}

// A stream ends with its server; who begins it again after what it saw misses nothing and sees nothing twice.
void watch_goes_on(const Suite& suite) {
  int64_t after = suite.put("a", "0").header().revision() - 1;
  auto stream = std::make_unique<WatchStream>(suite);
  (void)stream->create(suite.prefix + "a", "", after + 1);
  expect(stream->value() == "0", "the first event");
  ++after;
  kill_leader();
  int64_t last = 0;
  for (int i = 1; i <= 20; ++i) {
    suite.retry("put", [&](ClientContext& context) {
      pb::PutResponse answer;
      const Status status = suite.kv->Put(&context, suite.put_request("a", std::to_string(i)), &answer);
      last = answer.header().revision();
      return status;
    });
  }
  int value = 0;
  while (after < last) {
    mvccpb::Event event;
    if (!stream->next(event)) {
      stream = std::make_unique<WatchStream>(suite);
      (void)stream->create(suite.prefix + "a", "", after + 1);
      continue;
    }
    expect(event.kv().mod_revision() > after, event.ShortDebugString());
    after = event.kv().mod_revision();
    // A put that was repeated may stand twice.
    const int told = std::stoi(event.kv().value());
    expect(told == value || told == value + 1, fmt::format("{} after {}", told, value));
    value = told;
  }
  expect(value == 20, fmt::format("the last event is of {}", value));
  bring_back();
}

void lock_is_kept(const Suite& suite) {
  const int64_t lease = suite.grant(20);
  v3lockpb::LockRequest request;
  request.set_name(suite.prefix + "l");
  request.set_lease(lease);
  v3lockpb::LockResponse held;
  must(suite.lock->Lock(suite.context().get(), request, &held), "lock");
  kill_leader();
  suite.retry("keep-alive", [&](ClientContext& context) {
    const auto stream = suite.lease->LeaseKeepAlive(&context);
    pb::LeaseKeepAliveRequest alive;
    alive.set_id(lease);
    pb::LeaseKeepAliveResponse answer;
    const bool answered = stream->Write(alive) && stream->Read(&answer);
    if (answered) expect(answer.ttl() == 20, answer.ShortDebugString());
    (void)stream->WritesDone();
    const Status status = stream->Finish();
    return answered ? Status::OK : status.ok() ? Status(StatusCode::UNAVAILABLE, "no answer") : status;
  });
  pb::RangeResponse claims;
  suite.retry("range",
              [&](ClientContext& context) { return suite.kv->Range(&context, suite.prefix_request("l/"), &claims); });
  expect(claims.kvs_size() == 1 && claims.kvs(0).key() == held.key(), claims.ShortDebugString());
  v3lockpb::UnlockRequest unlock;
  unlock.set_key(held.key());
  suite.retry("unlock", [&](ClientContext& context) {
    v3lockpb::UnlockResponse answer;
    return suite.lock->Unlock(&context, unlock, &answer);
  });
  bring_back();
}

// Whoever of the two that stay is asked is SERVING again once there is a leader.
void health_comes_back(const Suite& suite) {
  kill_leader();
  suite.retry("health", [&](ClientContext& context) {
    grpc::health::v1::HealthCheckResponse answer;
    Status status = suite.health->Check(&context, grpc::health::v1::HealthCheckRequest(), &answer);
    if (!status.ok() || answer.status() == grpc::health::v1::HealthCheckResponse::SERVING) return status;
    return Status(StatusCode::UNAVAILABLE, answer.ShortDebugString());
  });
  bring_back();
}

// More snapshots at a time than all servers give: the one too many learns when to ask again. Of Conclave alone.
void overload(const Suite& suite) {
  for (int i = 0; i < 8; ++i) (void)suite.put("large" + std::to_string(i), std::string(1'000'000, 'v'));
  struct Open {
    std::unique_ptr<ClientContext> context;
    std::unique_ptr<grpc::ClientReader<pb::SnapshotResponse>> stream;
  };
  std::vector<Open> all;
  Status refused;
  while (refused.ok() && all.size() < 20) {
    Open& open = all.emplace_back(Open{.context = suite.context(), .stream = nullptr});
    open.stream = suite.maintenance->Snapshot(open.context.get(), pb::SnapshotRequest());
    pb::SnapshotResponse answer;
    if (!open.stream->Read(&answer)) refused = open.stream->Finish();
  }
  for (const Open& open : all) {
    if (&open == &all.back() && !refused.ok()) continue;
    open.context->TryCancel();
    (void)open.stream->Finish();
  }
  expect(refused.error_code() == StatusCode::RESOURCE_EXHAUSTED &&
             refused.error_message() == "etcdserver: too many requests",
         fmt::format("{} {}", int{refused.error_code()}, refused.error_message()));
  expect(refused.error_details().find("type.googleapis.com/google.rpc.RetryInfo") != std::string::npos,
         fmt::format("{} bytes of details without a hint", refused.error_details().size()));
}

struct Check {
  std::string name;
  void (*run)(const Suite&);
  bool kills = false;
};

const std::vector<Check>& checks() {
  static const std::vector<Check> all = {
      {.name = "put-get", .run = put_get},
      {.name = "transactions", .run = transactions},
      {.name = "errors", .run = errors},
      {.name = "large-and-many", .run = large_and_many},
      {.name = "watches", .run = watches},
      {.name = "keep-alive", .run = keep_alive},
      {.name = "deadlines", .run = deadlines},
      {.name = "cancellation", .run = cancellation},
      {.name = "compression", .run = compression},
      {.name = "health", .run = health_checks},
      {.name = "locks-and-elections", .run = locks_and_elections},
      {.name = "cluster", .run = cluster_calls},
      {.name = "overload", .run = overload},
      {.name = "leader-puts", .run = puts_go_on, .kills = true},
      {.name = "leader-watch", .run = watch_goes_on, .kills = true},
      {.name = "leader-lock", .run = lock_is_kept, .kills = true},
      {.name = "leader-health", .run = health_comes_back, .kills = true},
  };
  return all;
}

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int run(int argc, char** argv) {
  CLI::App app{"gRPC's C++ library against a cluster"};
  std::string ca;
  std::string certificate;
  std::string key;
  std::string endpoints;
  std::vector<std::string> wanted;
  std::vector<std::string> unwanted;
  app.add_option("--cacert", ca, "the CA of the servers");
  app.add_option("--cert", certificate, "the client's certificate");
  app.add_option("--key", key, "its key");
  app.add_option("--without", unwanted, "checks to leave out")->delimiter(',')->expected(1);
  app.add_option("endpoints", endpoints, "HOST:PORT,...")->required();
  app.add_option("checks", wanted, "only these");
  CLI11_PARSE(app, argc, argv);
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  if (!ca.empty()) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = contents(ca);
    options.pem_cert_chain = contents(certificate);
    options.pem_private_key = contents(key);
    credentials = grpc::SslCredentials(options);
  }
  int ran = 0;
  int failures = 0;
  for (const Check& check : checks()) {
    const auto is_in = [&check](const std::vector<std::string>& names) {
      return std::find(names.begin(), names.end(), check.name) != names.end();
    };
    const bool possible = !check.kills || endpoints.find(',') != std::string::npos;
    if (!(wanted.empty() ? possible : is_in(wanted)) || is_in(unwanted)) continue;
    ++ran;
    const auto begin = std::chrono::steady_clock::now();
    try {
      check.run(Suite("ipv4:" + endpoints, credentials, check.name));
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      say(fmt::format("ok {} {:.2f} s", check.name, took.count()));
    } catch (const std::exception& failure) {
      ++failures;
      say(fmt::format("FAIL {}: {}", check.name, failure.what()));
    }
  }
  say(fmt::format("{} checks, {} failed", ran, failures));
  return failures > 0 || ran == 0 ? 1 : 0;
}

}  // namespace
}  // namespace conclave

int main(int argc, char** argv) {
  return conclave::run(argc, argv);
}
