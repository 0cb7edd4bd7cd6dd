// The load of `conclave bench locks`: locks by sessions of Conclave's own, many on a stream.
#include <algorithm>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/random.h"
#include "cli/bench.h"
#include "conclave/v1/session.pb.h"

namespace conclave::cli {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kSessionPath = "/conclave.v1.Sessions/Session";
constexpr Duration kPauseAfterRefusal = 10ms;

// Own: an operation is an acquire and its release. Contended: an operation is a grant, and its latency the time since
// the grant before it: one hand-over. Sessions live longer than the run and are not renewed; they end by themselves.
class SessionLockLoad final : public BenchLoad {
 public:
  explicit SessionLockLoad(BenchWorld& world) : world_(world), contended_(world.options().workload == "contended") {
    Random random(static_cast<uint64_t>(to_nanoseconds(world.now())));
    const uint64_t run = random.next();
    const size_t streams = std::min(world.options().connections, world.options().clients);
    streams_.resize(streams);
    for (size_t i = 0; i < world.options().clients; ++i) {
      Client client;
      client.session = static_cast<int64_t>(random.next() >> 1 | 1);
      client.stream = i % streams;
      client.name = contended_ ? fmt::format("bench/locks/{:x}", run) : fmt::format("bench/locks/{:x}/{}", run, i);
      by_session_.emplace(client.session, clients_.size());
      clients_.push_back(std::move(client));
    }
  }

  void prepare(std::function<void()> ready) override {
    for (size_t i = 0; i < streams_.size(); ++i) {
      streams_[i] = world_.channel(i).open(
          kSessionPath, {.on_message = [this](ByteView message) { on_message(message); },
                         .on_finished = [this](const net::GrpcStatus& status) { world_.meter().failed(status); }});
    }
    world_.for_each(
        clients_.size(),
        [this](size_t index, std::function<void()> done) {
          Client& client = clients_[index];
          client.opened = std::move(done);
          v1::SessionRequest& request = client.request;
          request.set_session(client.session);
          v1::OpenSession& open = *request.mutable_open();
          open.set_session(client.session);
          open.set_secret(std::string(16, 's'));
          open.set_ttl_ms(to_milliseconds(2min + world_.options().length));
          open.set_description("conclave bench locks");
          send(client);
        },
        std::move(ready));
  }

  void begin() override {
    last_grant_ = world_.now();
    for (Client& client : clients_) acquire(client);
  }

 private:
  struct Client {
    int64_t session = 0;
    size_t stream = 0;
    std::string name;
    uint64_t sequence = 0;
    v1::SessionRequest request;  // the last, until it is answered
    int64_t token = 0;           // it holds, or is about to release; zero: it waits
    Instant from{};
    std::function<void()> opened;
  };

  void send(Client& client) { streams_[client.stream]->send(client.request.SerializeAsString()); }
  void operate(Client& client) {
    client.request.Clear();
    client.request.set_session(client.session);
    client.request.set_sequence(++client.sequence);
  }
  void acquire(Client& client) {
    client.from = world_.now();
    client.token = 0;
    operate(client);
    client.request.mutable_acquire()->add_names(client.name);
    send(client);
  }
  void granted(Client& client, int64_t token) {
    // Of a claim granted at once the push may come too.
    if (client.token != 0) return;
    client.token = token;
    if (contended_) {
      const Instant now = world_.now();
      world_.meter().done(now - std::exchange(last_grant_, now));
    }
    operate(client);
    client.request.mutable_release()->set_name(client.name);
    client.request.mutable_release()->set_token(token);
    send(client);
  }

  void on_message(ByteView message) {
    v1::SessionResponse response;
    if (!response.ParseFromArray(message.data(), static_cast<int>(message.size()))) return;
    const auto found = by_session_.find(response.session());
    if (found == by_session_.end()) return;
    Client& client = clients_[found->second];
    if (response.has_error()) return on_error(client, response);
    if (response.has_opened() && client.opened) {
      std::exchange(client.opened, nullptr)();
    } else if (response.has_claimed() && response.sequence() == client.sequence) {
      for (const v1::ClaimState& claim : response.claimed().claims()) {
        if (claim.granted()) granted(client, claim.token());
      }
    } else if (response.has_granted()) {
      granted(client, response.granted().token());
    } else if (response.has_ended()) {
      world_.meter().failed({.code = 14, .message = "a session was ended or handed over"});
    } else if (response.has_released() && response.sequence() == client.sequence) {
      if (!contended_) world_.meter().done(world_.now() - client.from);
      acquire(client);
    }
  }
  // What is known not done is asked again a little later; of what is not, the client stops, and the rest shows the
  // error.
  void on_error(Client& client, const v1::SessionResponse& response) {
    world_.meter().failed({.code = response.error().code(), .message = response.error().message()});
    const std::string& reason = response.error().reason();
    if (response.sequence() != client.request.sequence()) return;
    if (reason != "NO_QUORUM" && reason != "OVERLOADED") return;
    world_.loop().call_at(world_.now() + kPauseAfterRefusal, [this, &client] { send(client); });
  }

  BenchWorld& world_;
  const bool contended_;
  std::vector<std::unique_ptr<net::ClientCall>> streams_;
  std::vector<Client> clients_;
  std::unordered_map<int64_t, size_t> by_session_;
  Instant last_grant_;
};

}  // namespace

std::unique_ptr<BenchLoad> make_session_lock_load(BenchWorld& world) {
  return std::make_unique<SessionLockLoad>(world);
}

}  // namespace conclave::cli
