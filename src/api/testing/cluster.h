// For tests of the API: servers in one thread, each a replica and its service, with a clock and a disk in the test's
// hands; and calls as net would make them.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "api/service.h"
#include "etcd/rpc.pb.h"
#include "node/replica.h"
#include "node/storage.h"

namespace conclave::api::testing {

using std::chrono::milliseconds;
using std::chrono::seconds;

class FakeClock final : public env::Clock {
 public:
  Instant now() override { return instant; }
  int64_t wall_milliseconds() override { return 0; }
  Instant instant{seconds(1000)};
};

// One call, client's side and wire in one. Ends by itself what the test leaves open.
class FakeCall final : public net::ServerCall {
 public:
  FakeCall(net::Service& service, std::string path, std::map<std::string, std::string> headers = {},
           std::set<FakeCall*>* calls = nullptr)
      : path_(std::move(path)), headers_(std::move(headers)), calls_(calls) {
    handler_ = service.open(*this);
    if (calls_ != nullptr) calls_->insert(this);
  }
  ~FakeCall() override {
    cancel();
    if (calls_ != nullptr) calls_->erase(this);
  }

  // What net does in a later step of the loop.
  void reap() {
    if (status || cancelled) handler_.reset();
  }
  // Whether there is such a method.
  [[nodiscard]] bool is_served() const { return handler_ != nullptr || status; }
  void say(const std::string& message) {
    if (!status && !cancelled) handler_->on_message(message);
  }
  template <class Message>
  void say(const Message& message) {
    say(message.SerializeAsString());
  }
  void half_close() {
    if (!status && !cancelled) handler_->on_half_close();
  }
  void cancel() {
    if (status || cancelled || handler_ == nullptr) return;
    cancelled = true;
    handler_->on_cancel();
  }
  // The connection took everything.
  void drain() {
    const bool was_full = queued_ > (size_t{64} << 10);
    queued_ = 0;
    if (was_full && !status && !cancelled) handler_->on_drained();
  }

  [[nodiscard]] std::string_view path() const override { return path_; }
  [[nodiscard]] std::string_view header(std::string_view name) const override {
    const auto found = headers_.find(std::string(name));
    return found == headers_.end() ? std::string_view() : std::string_view(found->second);
  }
  [[nodiscard]] Instant deadline() const override { return kNever; }
  void send(std::string message) override {
    ASSERT_FALSE(status) << "sent after the end";
    ASSERT_FALSE(cancelled) << "sent after it was cancelled";
    if (is_slow) queued_ += message.size();
    sent.push_back(std::move(message));
  }
  void finish(const net::GrpcStatus& ended) override {
    ASSERT_FALSE(status) << "ended twice";
    ASSERT_FALSE(cancelled) << "ended after it was cancelled";
    status = ended;
  }
  [[nodiscard]] size_t queued_bytes() const override { return queued_; }

  [[nodiscard]] bool ended() const { return status.has_value(); }
  [[nodiscard]] bool ok() const { return status && status->ok(); }
  // "3 etcdserver: ...", "open".
  [[nodiscard]] std::string outcome() const {
    if (!status) return "open";
    return status->ok() ? "OK" : std::to_string(status->code) + " " + status->message;
  }
  template <class Message>
  [[nodiscard]] Message answer(size_t which = 0) const {
    Message message;
    EXPECT_LT(which, sent.size()) << outcome();
    if (which >= sent.size()) return message;
    EXPECT_TRUE(message.ParseFromString(sent[which]));
    // What this client does not know, no client knows.
    EXPECT_TRUE(message.GetReflection()->GetUnknownFields(message).empty()) << message.DebugString();
    return message;
  }

  std::vector<std::string> sent;
  std::optional<net::GrpcStatus> status;
  bool cancelled = false;
  bool is_slow = false;  // what is sent stays queued until drain()

 private:
  std::string path_;
  std::map<std::string, std::string> headers_;
  std::set<FakeCall*>* calls_;
  size_t queued_ = 0;
  std::unique_ptr<net::CallHandler> handler_;
};

class Cluster {
 public:
  struct Options {
    uint64_t servers = 1;
    bool has_learner = false;  // the last of them
    node::ReplicaOptions replica;
    Duration watch_progress_interval = std::chrono::minutes(10);
  };
  struct Server final : node::ReplicaWorld {
    void store(node::StorageJob job) override {
      if (auto* write = std::get_if<node::PersistJob>(&job)) writes.push_back(write->sequence);
    }
    void send(NodeId to, env::Lane, std::string frame) override {
      cluster->mail_.push_back({id, to, std::move(frame)});
    }
    void on_outdated(uint64_t level) override { ADD_FAILURE() << "outdated: " << level; }
    void on_diverged(LogIndex index) override { ADD_FAILURE() << "diverged at " << index.value(); }
    Cluster* cluster = nullptr;
    NodeId id;
    std::deque<WriteSequence> writes;
    std::unique_ptr<node::Replica> replica;
    std::unique_ptr<Service> service;
    bool cut_off = false;  // nothing comes, nothing goes
    bool disk_stopped = false;
  };

  static constexpr GroupId kGroup{3};
  static constexpr ClusterId kCluster{0xc1};
  DiskMetrics disk;        // of all servers
  NetworkMetrics network;  // likewise
  ProcessMetrics process;  // likewise

  Cluster() : Cluster(Options{}) {}
  explicit Cluster(const Options& options) {
    std::vector<NodeId> ids;
    for (uint64_t id = 1; id <= options.servers; ++id) ids.emplace_back(id);
    Membership membership = Membership::of_voters(ids);
    if (options.has_learner) membership.set({.id = ids.back(), .role = MemberRole::kLearner});
    for (const NodeId id : ids) {
      Server& server = servers_[id.value()];
      server.cluster = this;
      server.id = id;
      node::ReplicaOptions replica = options.replica;
      replica.raft.group = kGroup;
      replica.raft.self = id;
      replica.raft.boot = Boot(1);
      replica.raft.seed = id.value();
      server.replica = std::make_unique<node::Replica>(replica, node::Storage::bootstrap_state(kGroup, id, membership),
                                                       std::make_unique<keyspace::Keyspace>(), server);
      const std::string name = "n" + std::to_string(id.value());
      server.service =
          std::make_unique<Service>(ServiceOptions{.cluster = kCluster,
                                                   .self = id,
                                                   .name = name,
                                                   .client_urls = {"http://" + name + ":2379"},
                                                   .peer_urls = {"http://" + name + ":2380"},
                                                   .seed = id.value(),
                                                   .disk = [this] { return disk; },
                                                   .network = [this] { return network; },
                                                   .process = [this] { return process; },
                                                   .watch_progress_interval = options.watch_progress_interval},
                                    *server.replica, clock);
      server.replica->set_clients(*server.service);
      server.replica->start(clock.instant);
    }
  }

  Server& server(uint64_t id = 1) { return servers_.at(id); }
  Service& service(uint64_t id = 1) { return *server(id).service; }
  keyspace::Keyspace& keyspace(uint64_t id = 1) { return server(id).replica->keyspace(); }

  // One turn of one server's loop.
  void turn(Server& server) {
    server.replica->tick(clock.instant);
    server.replica->flush(clock.instant);
    for (FakeCall* call : calls_) call->reap();
    if (server.service->has_leisure_work()) server.service->work_at_leisure();
    server.service->turn_end(clock.instant);
    for (FakeCall* call : calls_) call->reap();
  }
  void turn(uint64_t id = 1) { turn(server(id)); }
  // Turns, writes and messages, until there is nothing more to do at this time.
  void settle() {
    for (int rounds = 0;; ++rounds) {
      ASSERT_LT(rounds, 100'000) << "never comes to rest";
      bool worked = false;
      for (auto& [id, server] : servers_) {
        turn(server);
        while (!server.writes.empty() && !server.disk_stopped) {
          const WriteSequence sequence = server.writes.front();
          server.writes.pop_front();
          server.replica->on_storage(clock.instant, node::Persisted{.group = kGroup, .sequence = sequence});
          worked = true;
        }
        worked |= server.replica->has_work() || server.service->has_work() || server.service->has_leisure_work();
      }
      while (!mail_.empty()) {
        const Mail mail = std::move(mail_.front());
        mail_.pop_front();
        const auto found = servers_.find(mail.to.value());
        if (found == servers_.end()) continue;  // a member that no test started
        Server& to = found->second;
        if (to.cut_off || servers_.at(mail.from.value()).cut_off) continue;
        to.replica->on_frame(clock.instant, mail.from, mail.frame);
        worked = true;
      }
      if (!worked) return;
    }
  }
  void advance(Duration duration) {
    const Instant end = clock.instant + duration;
    settle();
    while (true) {
      Instant next = kNever;
      for (auto& [id, server] : servers_) {
        next = std::min({next, server.replica->next_deadline(), server.service->next_deadline()});
      }
      if (next > end) break;
      clock.instant = std::max(clock.instant + std::chrono::microseconds(1), next);
      settle();
    }
    clock.instant = end;
  }
  // Until there is a leader that has applied its first entry, and all names are published.
  uint64_t elect() {
    for (int i = 0; i < 100 && leader() == 0; ++i) advance(milliseconds(50));
    EXPECT_NE(leader(), 0U);
    advance(seconds(3));
    return leader();
  }
  uint64_t leader() {
    for (auto& [id, server] : servers_) {
      if (!server.cut_off && server.replica->raft().status().role == raft::Role::kLeader) return id;
    }
    return 0;
  }
  uint64_t follower() { return leader() == 1 ? 2 : 1; }

  std::unique_ptr<FakeCall> open(const std::string& path, uint64_t at = 1,
                                 std::map<std::string, std::string> headers = {}) {
    auto call = std::make_unique<FakeCall>(service(at), path, std::move(headers), &calls_);
    EXPECT_TRUE(call->is_served()) << path;
    return call;
  }
  // A unary call, as far as it gets without time passing.
  template <class Request>
  std::unique_ptr<FakeCall> call(const std::string& path, const Request& request, uint64_t at = 1,
                                 std::map<std::string, std::string> headers = {}) {
    auto call = open(path, at, std::move(headers));
    call->say(request);
    call->half_close();
    settle();
    return call;
  }

  // ---- Shorthands ----
  int64_t put(const std::string& key, const std::string& value, int64_t lease = 0, uint64_t at = 1) {
    etcdserverpb::PutRequest request;
    request.set_key(key);
    request.set_value(value);
    request.set_lease(lease);
    const auto done = call("/etcdserverpb.KV/Put", request, at);
    EXPECT_EQ(done->outcome(), "OK");
    return done->answer<etcdserverpb::PutResponse>().header().revision();
  }
  void remove(const std::string& key, const std::string& range_end = "") {
    etcdserverpb::DeleteRangeRequest request;
    request.set_key(key);
    request.set_range_end(range_end);
    EXPECT_EQ(call("/etcdserverpb.KV/DeleteRange", request)->outcome(), "OK");
  }
  etcdserverpb::RangeResponse get(const std::string& key, const std::string& range_end = "", uint64_t at = 1) {
    etcdserverpb::RangeRequest request;
    request.set_key(key);
    request.set_range_end(range_end);
    const auto done = call("/etcdserverpb.KV/Range", request, at);
    EXPECT_EQ(done->outcome(), "OK");
    return done->answer<etcdserverpb::RangeResponse>();
  }
  int64_t grant(int64_t ttl, int64_t id = 0) {
    etcdserverpb::LeaseGrantRequest request;
    request.set_ttl(ttl);
    request.set_id(id);
    const auto done = call("/etcdserverpb.Lease/LeaseGrant", request);
    EXPECT_EQ(done->outcome(), "OK");
    return done->answer<etcdserverpb::LeaseGrantResponse>().id();
  }
  void revoke(int64_t id) {
    etcdserverpb::LeaseRevokeRequest request;
    request.set_id(id);
    EXPECT_EQ(call("/etcdserverpb.Lease/LeaseRevoke", request)->outcome(), "OK");
  }

  FakeClock clock;

 private:
  struct Mail {
    NodeId from;
    NodeId to;
    std::string frame;
  };
  std::map<uint64_t, Server> servers_;
  std::deque<Mail> mail_;
  std::set<FakeCall*> calls_;
};

}  // namespace conclave::api::testing
