// Ten thousand cancels, time limits and clients that vanish, at random moments, on a few locks of real servers.
// Afterwards nothing may be left of them: no key, no session.
//
//   fleet_cancels ENDPOINTS [COUNT] [SEED]
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/random.h"
#include "client/session_core.h"
#include "conclave/v1/session.pb.h"
#include "env/posix/clock.h"
#include "etcd/rpc.pb.h"
#include "net/client.h"

namespace conclave {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::string_view kPath = "/conclave.v1.Sessions/Session";
constexpr std::string_view kPrefix = "cancels/";
constexpr size_t kClients = 64;
constexpr uint64_t kNames = 32;
constexpr Duration kTtl = seconds(1);
constexpr Duration kTick = milliseconds(5);
constexpr Duration kGivesUpAfter = seconds(60);

struct Counts {
  uint64_t cancelled = 0;
  uint64_t timed_out = 0;
  uint64_t vanished = 0;
  uint64_t held = 0;
  uint64_t other = 0;
  [[nodiscard]] uint64_t disturbances() const { return cancelled + timed_out + vanished; }
};

class Client {
 public:
  Client(net::Loop& loop, std::vector<net::Channel*> channels, Random& random, Counts& counts)
      : loop_(loop), channels_(std::move(channels)), random_(random), counts_(counts) {}

  void begin() {
    const int64_t id = static_cast<int64_t>(random_.next() >> 1 | 1);
    core_ = std::make_unique<client::SessionCore>(
        client::SessionCoreOptions{.id = id, .secret = fmt::format("{:032x}", random_.next()), .ttl = kTtl},
        loop_.now());
    connect();
    plan();
  }
  // No word to anybody.
  void vanish() {
    call_.reset();
    core_.reset();
    loop_.cancel(timer_);
    ++counts_.vanished;
    begin();
  }
  void close() {
    closing_ = true;
    core_->close(loop_.now());
    flush();
  }
  [[nodiscard]] bool is_over() const { return core_ == nullptr || !core_->wants_stream(); }
  void end() {
    loop_.cancel(timer_);
    call_.reset();
  }
  void tick() {
    if (core_ == nullptr) return;
    if (std::exchange(moves_, false)) {
      core_->on_disconnected(loop_.now());
      connect();
    }
    core_->tick(loop_.now());
    if (core_->keep_alive_at() <= loop_.now()) {
      v1::SessionRequest keep;
      keep.mutable_keep_alive()->set_id(++keep_id_);
      keep_sent_ = loop_.now();
      core_->on_keep_alive_sent(loop_.now());
      call_->send(keep.SerializeAsString());
    }
    flush();
  }

 private:
  void connect() {
    moves_ = false;
    call_ = channels_[random_.below(channels_.size())]->open(
        kPath, {.on_message = [this](ByteView message) { on_message(message); },
                .on_finished =
                    [this](const net::GrpcStatus&) {
                      core_->on_disconnected(loop_.now());
                      connect();
                    }});
    core_->on_connected(loop_.now());
    flush();
  }
  void on_message(ByteView message) {
    v1::SessionResponse response;
    ASSERT(response.ParseFromArray(message.data(), static_cast<int>(message.size())));
    if (response.has_kept()) {
      if (response.kept().id() != keep_id_) return;
      using Kept = client::SessionCore::Kept;
      core_->on_kept(loop_.now(), keep_sent_,
                     response.kept().gone_size() > 0     ? Kept::kGone
                     : response.kept().failed_size() > 0 ? Kept::kFailed
                                                         : Kept::kRenewed);
    } else {
      core_->on_response(loop_.now(), response);
      moves_ = moves_ || client::asks_to_move(response);
    }
    flush();
  }
  void flush() {
    for (const v1::SessionRequest& request : core_->take_requests()) call_->send(request.SerializeAsString());
    for (const client::SessionEvent& event : core_->take_events()) {
      if (const auto* ended = std::get_if<client::OperationEnded>(&event)) on_ended(*ended);
      if (const auto* state = std::get_if<client::StateChanged>(&event)) {
        expired_ = expired_ || state->state == client::SessionState::kExpired;
      }
    }
    if (!expired_ || closing_) return;
    expired_ = false;
    ++counts_.other;
    loop_.cancel(timer_);
    timer_ = loop_.call_at(loop_.now(), [this] {
      call_.reset();
      begin();
    });
  }
  void on_ended(const client::OperationEnded& ended) {
    if (ended.operation != acquire_) return;
    acquire_ = 0;
    switch (ended.outcome) {
      case client::Outcome::kDone:
        ++counts_.held;
        loop_.cancel(timer_);
        timer_ = loop_.call_at(loop_.now() + random_.between(microseconds(0), Duration(milliseconds(3))),
                               [this, claim = ended.claims[0]] {
                                 (void)core_->release(loop_.now(), claim.name, claim.token);
                                 flush();
                                 plan();
                               });
        return;
      case client::Outcome::kCancelled:
        ++counts_.cancelled;
        break;
      case client::Outcome::kNotApplied:
        ++counts_.timed_out;
        break;
      default:
        ++counts_.other;
    }
    if (!closing_) plan();
  }
  void plan() {
    loop_.cancel(timer_);
    timer_ =
        loop_.call_at(loop_.now() + random_.between(microseconds(0), Duration(milliseconds(5))), [this] { act(); });
  }
  void act() {
    if (closing_) return;
    client::AcquireOptions options{.names = {fmt::format("{}lock{}", kPrefix, random_.below(kNames))}};
    const uint64_t way = random_.below(10);
    if (way < 4) options.timeout = random_.between(microseconds(100), Duration(milliseconds(30)));
    acquire_ = core_->acquire(loop_.now(), options);
    flush();
    if (way < 4) return;
    loop_.cancel(timer_);
    timer_ = loop_.call_at(loop_.now() + random_.between(microseconds(0), Duration(milliseconds(30))), [this, way] {
      if (acquire_ == 0) return;
      if (way < 8) {
        core_->cancel(loop_.now(), acquire_);
        flush();
      } else {
        vanish();
      }
    });
  }

  net::Loop& loop_;
  const std::vector<net::Channel*> channels_;
  Random& random_;
  Counts& counts_;
  std::unique_ptr<client::SessionCore> core_;
  std::unique_ptr<net::ClientCall> call_;
  client::OperationId acquire_ = 0;
  uint64_t keep_id_ = 0;
  Instant keep_sent_{};
  net::TimerId timer_ = 0;
  bool closing_ = false;
  bool expired_ = false;
  bool moves_ = false;
};

int run(const std::vector<std::string>& endpoints, uint64_t count, uint64_t seed) {
  env::PosixClock clock;
  net::Loop loop(clock);
  Random random(seed);
  Counts counts;
  std::vector<std::unique_ptr<net::Channel>> owned;
  std::vector<net::Channel*> channels;
  for (const std::string& endpoint : endpoints) {
    const size_t colon = endpoint.rfind(':');
    owned.push_back(net::Channel::make(loop, endpoint.substr(0, colon),
                                       static_cast<uint16_t>(std::stoul(endpoint.substr(colon + 1)))));
    channels.push_back(owned.back().get());
  }
  std::vector<std::unique_ptr<Client>> clients;
  int64_t keys = -1;
  int64_t sessions = -1;
  const Instant began = clock.now();
  // What is left once every session that vanished has ended by its time; which a new leader may have begun anew.
  Instant gives_up_at = kNever;
  Instant closed_at;
  const std::function<void()> look = [&] {
    etcdserverpb::RangeRequest range;
    range.set_key(std::string(kPrefix));
    range.set_range_end("cancels0");
    range.set_count_only(true);
    channels[0]->call("/etcdserverpb.KV/Range", range.SerializeAsString(), seconds(10),
                      [&](const net::GrpcStatus& status, ByteView bytes) {
                        etcdserverpb::RangeResponse response;
                        if (status.ok() && response.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
                          keys = response.count();
                        }
                      });
    channels[0]->call("/conclave.v1.Sessions/List", v1::ListSessions().SerializeAsString(), seconds(10),
                      [&](const net::GrpcStatus& status, ByteView bytes) {
                        v1::SessionList response;
                        if (status.ok() && response.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
                          sessions = response.sessions_size();
                        }
                        const bool gives_up = loop.now() >= gives_up_at;
                        if ((keys == 0 && sessions == 0) || gives_up) return loop.stop();
                        (void)loop.call_at(loop.now() + kTtl, [&] { look(); });
                      });
  };
  bool closing = false;
  Instant looks_at = kNever;
  const std::function<void()> tick = [&] {
    for (const auto& client : clients) client->tick();
    if (!closing && counts.disturbances() >= count) {
      closing = true;
      closed_at = loop.now();
      for (const auto& client : clients) client->close();
      looks_at = loop.now() + 4 * kTtl;
    }
    if (loop.now() >= looks_at) {
      for (const auto& client : clients) client->end();
      gives_up_at = loop.now() + kGivesUpAfter;
      look();
      return;
    }
    (void)loop.call_at(loop.now() + kTick, [&] { tick(); });
  };
  loop.post([&] {
    for (size_t i = 0; i < kClients; ++i) {
      clients.push_back(std::make_unique<Client>(loop, channels, random, counts));
      clients.back()->begin();
    }
    tick();
  });
  loop.run();
  const auto in_seconds = [](Duration duration) { return std::chrono::duration<double>(duration).count(); };
  fmt::print(
      "{} cancelled, {} timed out, {} vanished, {} held, {} other, in {:.1f} s; left over {:.1f} s later: {} keys, {} "
      "sessions\n",
      counts.cancelled, counts.timed_out, counts.vanished, counts.held, counts.other, in_seconds(closed_at - began),
      in_seconds(clock.now() - closed_at), keys, sessions);
  return keys == 0 && sessions == 0 && counts.held > 0 ? 0 : 1;
}

}  // namespace
}  // namespace conclave

int main(int argc, char** argv) {
  if (argc < 2) return 64;
  std::vector<std::string> endpoints;
  const std::string list = argv[1];
  for (size_t at = 0; at < list.size();) {
    const size_t comma = std::min(list.find(',', at), list.size());
    endpoints.push_back(list.substr(at, comma - at));
    at = comma + 1;
  }
  const uint64_t count = argc > 2 ? std::stoull(argv[2]) : 10'000;
  return conclave::run(endpoints, count, argc > 3 ? std::stoull(argv[3]) : 1);
}
