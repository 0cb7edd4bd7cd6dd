// For the tests of the client: servers of one cluster, in a thread of their own, that speak conclave.v1's Sessions over
// real connections and keep all in one memory. Locks are first come, first served. What goes wrong is asked for: a
// server that is silent, one that ends its streams, a claim or a session that is taken away. It keeps no time: no
// session ends unless a test ends it.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/assert.h"
#include "conclave/v1/session.pb.h"
#include "env/posix/clock.h"
#include "etcd/rpc.pb.h"
#include "net/loop.h"
#include "net/server.h"

namespace conclave::client {

class FakeCluster {
 public:
  explicit FakeCluster(size_t servers) {
    for (size_t i = 0; i < servers; ++i) servers_.push_back(std::make_unique<FakeServer>(*this));
    loop_.add_turn_end([this](Instant) {
      for (const auto& server : servers_) server->port->flush();
    });
    thread_ = std::thread([this]() noexcept { loop_.run(); });
  }
  FakeCluster(const FakeCluster&) = delete;
  FakeCluster& operator=(const FakeCluster&) = delete;
  ~FakeCluster() {
    loop_.stop();
    thread_.join();
  }

  [[nodiscard]] std::string endpoints() const {
    std::string list;
    for (const auto& server : servers_) {
      list += fmt::format("{}127.0.0.1:{}", list.empty() ? "" : ",", server->port->port());
    }
    return list;
  }

  // ---- What goes wrong; each when it is done ----
  // Of all servers, or of whichever the client speaks with now.
  void set_silent(bool silent) {
    on_loop([&] {
      for (const auto& server : servers_) server->silent = silent;
    });
  }
  void silence_used() {
    on_loop([&] {
      for (const auto& server : servers_) server->silent = !server->streams.empty();
    });
  }
  void set_renewing(bool renewing) {
    on_loop([&] { renewing_ = renewing; });
  }
  void end_streams() {
    on_loop([&] {
      for (const auto& server : servers_) {
        const auto streams = server->streams;
        for (Stream* const stream : streams) stream->end();
      }
    });
  }
  void lose(const std::string& name, v1::Lost::Reason reason) {
    on_loop([&] {
      const Claim owner = lines_.at(name).front();
      v1::SessionResponse lost;
      lost.mutable_lost()->set_name(name);
      lost.mutable_lost()->set_token(owner.token);
      lost.mutable_lost()->set_reason(reason);
      push(owner.session, std::move(lost));
      remove(name, owner.session);
    });
  }
  void expire(int64_t session) {
    on_loop([&] {
      v1::SessionResponse ended;
      ended.mutable_ended()->set_reason(v1::SessionEnded::EXPIRED);
      push(session, std::move(ended));
      forget(session);
    });
  }
  // As a server that lags hands a session over.
  void move(int64_t session) {
    on_loop([&] {
      v1::SessionResponse ended;
      ended.mutable_ended()->set_reason(v1::SessionEnded::MOVED);
      push(session, std::move(ended));
      sessions_.at(session).stream = nullptr;
    });
  }
  // By its place in endpoints(): how many streams each has.
  [[nodiscard]] std::vector<size_t> streams() {
    std::vector<size_t> all;
    on_loop([&] {
      for (const auto& server : servers_) all.push_back(server->streams.size());
    });
    return all;
  }
  void want_release(const std::string& name, const std::string& note) {
    on_loop([&] {
      const Claim owner = lines_.at(name).front();
      v1::SessionResponse wanted;
      wanted.mutable_release_requested()->set_name(name);
      wanted.mutable_release_requested()->set_token(owner.token);
      wanted.mutable_release_requested()->set_note(note);
      push(owner.session, std::move(wanted));
    });
  }

  // Transactions take effect from here on, and are not answered until answer_transactions(). `seen` at each, in the
  // cluster's thread.
  void hold_transactions_back(std::function<void()> seen = [] {}) {
    on_loop([&] {
      holding_back_ = true;
      on_held_back_ = std::move(seen);
    });
  }
  void answer_transactions() {
    on_loop([&] {
      holding_back_ = false;
      for (Unary* const each : std::exchange(held_back_, {})) each->answer();
    });
  }

  // Keep-alives are heard from here on, and not answered until answer_keep_alives().
  void hold_keep_alives_back() {
    on_loop([&] { holding_keep_alives_ = true; });
  }
  void answer_keep_alives() {
    on_loop([&] {
      holding_keep_alives_ = false;
      for (const auto& [stream, response] : std::exchange(held_keep_alives_, {})) stream->send(response);
    });
  }

  // ---- What there is ----
  [[nodiscard]] size_t sessions() {
    size_t count = 0;
    on_loop([&] { count = sessions_.size(); });
    return count;
  }
  [[nodiscard]] size_t in_line(const std::string& name) {
    size_t count = 0;
    on_loop([&] { count = lines_.contains(name) ? lines_.at(name).size() : 0; });
    return count;
  }
  struct Counts {
    size_t streams = 0;
    size_t keep_alives = 0;       // messages
    size_t sessions_renewed = 0;  // in them
    size_t attached = 0;
    size_t transactions = 0;
    std::map<std::string, size_t> unary;  // by path
  };
  [[nodiscard]] Counts counts() {
    Counts counts;
    on_loop([&] { counts = counts_; });
    return counts;
  }
  // What unary calls of this path are answered from here on, instead of an empty message.
  void set_answer(const std::string& path, std::string answer) {
    on_loop([&] { answers_[path] = std::move(answer); });
  }
  // Called in the cluster's thread for each request, before it is served.
  void on_request(std::function<void(const v1::SessionRequest&)> seen) {
    on_loop([&] { on_request_ = std::move(seen); });
  }

 private:
  struct Claim {
    int64_t session = 0;
    int64_t token = 0;
    uint64_t sequence = 0;  // of the operation
    std::string value;
    bool is_campaign = false;
  };
  class Stream;
  struct SessionState {
    std::string secret;
    int64_t ttl_ms = 0;
    Stream* stream = nullptr;
    std::map<uint64_t, v1::SessionResponse> answered;
  };

  struct FakeServer final : net::Service {
    explicit FakeServer(FakeCluster& of)
        : cluster(of), port(std::move(*net::Server::listen(cluster.loop_, *this, {}))) {}
    std::unique_ptr<net::CallHandler> open(net::ServerCall& call) override {
      if (call.path() == "/conclave.v1.Sessions/Session") return std::make_unique<Stream>(*this, call);
      return std::make_unique<Unary>(*this, call);
    }
    void on_http(const net::HttpRequest&, std::function<void(net::HttpResponse)> answer) override { answer({}); }

    FakeCluster& cluster;
    bool silent = false;
    std::set<Stream*> streams;
    std::unique_ptr<net::Server> port;
  };

  class Stream final : public net::CallHandler {
   public:
    Stream(FakeServer& server, net::ServerCall& call) : server_(server), call_(&call) {
      server_.streams.insert(this);
      ++server_.cluster.counts_.streams;
    }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream() override { leave(); }
    void on_message(ByteView message) override {
      v1::SessionRequest request;
      ASSERT(request.ParseFromArray(message.data(), static_cast<int>(message.size())));
      if (server_.cluster.on_request_) server_.cluster.on_request_(request);
      if (!server_.silent) server_.cluster.serve(*this, request);
    }
    void on_half_close() override { end(); }
    void on_cancel() override { leave(); }
    void send(const v1::SessionResponse& response) {
      if (call_ != nullptr && !server_.silent) call_->send(response.SerializeAsString());
    }
    void end() {
      if (call_ == nullptr) return;
      net::ServerCall& call = *call_;
      leave();
      call.finish({.code = 14, .message = "the server goes away"});
    }

   private:
    void leave() {
      if (std::exchange(call_, nullptr) == nullptr) return;
      server_.streams.erase(this);
      std::erase_if(server_.cluster.held_keep_alives_, [this](const auto& held) { return held.first == this; });
      for (auto& [id, session] : server_.cluster.sessions_) {
        if (session.stream == this) session.stream = nullptr;
      }
    }
    FakeServer& server_;
    net::ServerCall* call_;
  };

  // As much of KV as the client asks for: transactions whose guards are claims, of puts that are counted. Of all else
  // what the test says.
  class Unary final : public net::CallHandler {
   public:
    Unary(FakeServer& server, net::ServerCall& call) : server_(server), call_(call), path_(call.path()) {}
    Unary(const Unary&) = delete;
    Unary& operator=(const Unary&) = delete;
    ~Unary() override { server_.cluster.held_back_.erase(this); }
    void on_message(ByteView message) override { request_ = message; }
    void on_half_close() override {
      ++server_.cluster.counts_.unary[path_];
      if (server_.silent) return;
      const bool is_transaction = path_ == "/etcdserverpb.KV/Txn";
      answer_ = is_transaction ? server_.cluster.transact(request_) : server_.cluster.answers_[path_];
      if (is_transaction && server_.cluster.holding_back_) {
        server_.cluster.held_back_.insert(this);
        server_.cluster.on_held_back_();
      } else {
        answer();
      }
    }
    void on_cancel() override { server_.cluster.held_back_.erase(this); }
    void answer() {
      call_.send(std::move(answer_));
      call_.finish({});
    }

   private:
    FakeServer& server_;
    net::ServerCall& call_;
    const std::string path_;
    std::string request_;
    std::string answer_;
  };

  void on_loop(const std::function<void()>& work) {
    std::promise<void> done;
    loop_.post([&] {
      work();
      done.set_value();
    });
    done.get_future().wait();
  }

  void push(int64_t session, v1::SessionResponse&& response) {
    const auto found = sessions_.find(session);
    if (found == sessions_.end() || found->second.stream == nullptr) return;
    response.set_session(session);
    stamp(response);
    found->second.stream->send(response);
  }
  void stamp(v1::SessionResponse& response) {
    response.mutable_place()->set_index(static_cast<uint64_t>(revision_));
    response.mutable_place()->set_revision(revision_);
  }
  static void refuse(v1::SessionResponse& response, uint32_t code, const std::string& reason) {
    response.mutable_error()->set_code(code);
    response.mutable_error()->set_reason(reason);
    response.mutable_error()->set_message(reason + ": said the test");
  }

  void serve(Stream& stream, const v1::SessionRequest& request) {
    v1::SessionResponse response;
    response.set_session(request.session());
    response.set_sequence(request.sequence());
    if (request.has_keep_alive()) {
      ++counts_.keep_alives;
      response.mutable_kept()->set_id(request.keep_alive().id());
      for (const int64_t session : request.keep_alive().sessions()) {
        ++counts_.sessions_renewed;
        if (!sessions_.contains(session)) {
          response.mutable_kept()->add_gone(session);
        } else if (!renewing_) {
          response.mutable_kept()->add_failed(session);
        }
      }
      if (holding_keep_alives_) return held_keep_alives_.emplace_back(&stream, response), void();
      return stream.send(response);
    }
    if (request.has_open()) {
      SessionState& session = sessions_[request.session()];
      session.secret = request.open().secret();
      session.ttl_ms = request.open().ttl_ms();
      session.stream = &stream;
      response.mutable_opened()->set_ttl_ms(session.ttl_ms);
      stamp(response);
      return stream.send(response);
    }
    const auto found = sessions_.find(request.session());
    if (found == sessions_.end()) {
      refuse(response, 5, "SESSION_EXPIRED");
      return stream.send(response);
    }
    SessionState& session = found->second;
    if (request.has_attach()) {
      ++counts_.attached;
      session.stream = &stream;
      response.mutable_attached()->set_ttl_ms(session.ttl_ms);
      for (const auto& [name, line] : lines_) {
        for (const Claim& claim : line) {
          if (claim.session != request.session()) continue;
          v1::Claim& listed = *response.mutable_attached()->add_claims();
          listed.set_name(name);
          listed.set_kind(claim.is_campaign ? v1::ELECTION : v1::LOCK);
          listed.set_token(claim.token);
          listed.set_granted(&claim == &line.front());
        }
      }
    } else if (request.has_close()) {
      response.mutable_closed();
      stamp(response);
      stream.send(response);
      return forget(request.session());
    } else if (const auto before = session.answered.find(request.sequence()); before != session.answered.end()) {
      response = before->second;
    } else {
      operate(request, response);
      if (request.sequence() != 0) session.answered[request.sequence()] = response;
    }
    stamp(response);
    stream.send(response);
  }

  void operate(const v1::SessionRequest& request, v1::SessionResponse& response) {
    if (request.has_acquire()) {
      const v1::Acquire& acquire = request.acquire();
      const bool blocked =
          std::ranges::any_of(acquire.names(), [this](const std::string& name) { return !lines_[name].empty(); });
      if (acquire.try_() && blocked) return refuse(response, 10, "WOULD_BLOCK");
      ++revision_;
      for (const std::string& name : acquire.names()) enter(request, name, {}, false, response);
    } else if (request.has_campaign()) {
      ++revision_;
      enter(request, request.campaign().name(), request.campaign().value(), true, response);
      tell_leader(request.campaign().name());
    } else if (request.has_cancel()) {
      response.mutable_cancelled();
      for (const std::string& name : request.cancel().names()) remove(name, request.session());
    } else if (request.has_release()) {
      response.mutable_released()->set_held(remove(request.release().name(), request.session()));
    } else if (request.has_resign()) {
      response.mutable_released()->set_held(remove(request.resign().name(), request.session()));
    } else if (request.has_transfer()) {
      transfer(request, response);
    } else if (request.has_proclaim()) {
      lines_[request.proclaim().name()].front().value = request.proclaim().value();
      response.mutable_proclaimed()->set_revision(++revision_);
      tell_leader(request.proclaim().name());
    } else if (request.has_observe()) {
      observers_[request.observe().name()].insert(request.session());
      *response.mutable_leadership() = leadership(request.observe().name());
      response.mutable_leadership()->set_first(true);
    } else if (request.has_stop_observing()) {
      observers_[request.stop_observing().name()].erase(request.session());
    }
  }

  void enter(const v1::SessionRequest& request, const std::string& name, const std::string& value, bool is_campaign,
             v1::SessionResponse& response) {
    std::deque<Claim>& line = lines_[name];
    line.push_back({.session = request.session(),
                    .token = revision_,
                    .sequence = request.sequence(),
                    .value = value,
                    .is_campaign = is_campaign});
    v1::ClaimState& state = *response.mutable_claimed()->add_claims();
    state.set_name(name);
    state.set_token(revision_);
    state.set_granted(line.size() == 1);
  }

  void transfer(const v1::SessionRequest& request, v1::SessionResponse& response) {
    const std::string& name = request.transfer().name();
    std::deque<Claim>& line = lines_[name];
    const auto found = std::ranges::find(line, request.transfer().to(), &Claim::session);
    if (found == line.end()) return refuse(response, 5, "NO_CANDIDATE");
    Claim next = std::move(*found);
    line.erase(found);
    line.insert(line.begin() + 1, std::move(next));
    response.mutable_released()->set_held(remove(name, request.session()));
  }

  // Whether it stood.
  bool remove(const std::string& name, int64_t session) {
    std::deque<Claim>& line = lines_[name];
    const auto found = std::ranges::find(line, session, &Claim::session);
    if (found == line.end()) return false;
    const bool owned = found == line.begin();
    const bool was_campaign = found->is_campaign;
    ++revision_;
    line.erase(found);
    if (owned && !line.empty()) {
      v1::SessionResponse granted;
      granted.mutable_granted()->set_name(name);
      granted.mutable_granted()->set_token(line.front().token);
      push(line.front().session, std::move(granted));
    }
    if (was_campaign) tell_leader(name);
    return true;
  }

  void forget(int64_t session) {
    std::vector<std::string> names;
    names.reserve(lines_.size());
    for (const auto& [name, line] : lines_) names.push_back(name);
    for (const std::string& name : names) remove(name, session);
    sessions_.erase(session);
  }

  v1::Leadership leadership(const std::string& name) {
    v1::Leadership leadership;
    leadership.set_name(name);
    leadership.set_mod_revision(revision_);
    const std::deque<Claim>& line = lines_[name];
    if (line.empty()) return leadership;
    leadership.set_token(line.front().token);
    leadership.set_value(line.front().value);
    return leadership;
  }
  void tell_leader(const std::string& name) {
    for (const int64_t session : observers_[name]) {
      v1::SessionResponse seen;
      *seen.mutable_leadership() = leadership(name);
      push(session, std::move(seen));
    }
  }

  std::string transact(const std::string& bytes) {
    ++counts_.transactions;
    etcdserverpb::TxnRequest request;
    ASSERT(request.ParseFromString(bytes));
    etcdserverpb::TxnResponse response;
    bool holds = true;
    for (const auto& compare : request.compare()) {
      const int64_t found = create_revision(compare.key());
      holds = holds && found == compare.create_revision();
      if (found == 0) {
        response.add_responses()->mutable_response_range();
      } else {
        auto& kv = *response.add_responses()->mutable_response_range()->add_kvs();
        kv.set_key(compare.key());
        kv.set_create_revision(found);
      }
    }
    response.set_succeeded(holds);
    if (holds) {
      response.clear_responses();
      response.mutable_header()->set_revision(++revision_);
      for (int i = 0; i < request.success_size(); ++i) response.add_responses()->mutable_response_put();
    }
    return response.SerializeAsString();
  }
  // Of a claim's key.
  int64_t create_revision(const std::string& key) {
    const size_t slash = key.rfind('/');
    for (const Claim& claim : lines_[key.substr(0, slash)]) {
      if (fmt::format("{:x}", claim.session) == key.substr(slash + 1)) return claim.token;
    }
    return 0;
  }

  env::PosixClock clock_;
  net::Loop loop_{clock_};
  std::map<int64_t, SessionState> sessions_;
  std::map<std::string, std::deque<Claim>> lines_;
  std::map<std::string, std::set<int64_t>> observers_;
  int64_t revision_ = 1;
  bool renewing_ = true;
  bool holding_keep_alives_ = false;
  std::vector<std::pair<Stream*, v1::SessionResponse>> held_keep_alives_;
  bool holding_back_ = false;
  std::set<Unary*> held_back_;
  std::function<void()> on_held_back_;
  std::map<std::string, std::string> answers_;  // by path
  Counts counts_;
  std::function<void(const v1::SessionRequest&)> on_request_;
  std::vector<std::unique_ptr<FakeServer>> servers_;
  std::thread thread_;
};

}  // namespace conclave::client
