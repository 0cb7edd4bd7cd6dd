// The channel: which connection a call goes to. The connection is in http2_client.cc.
#include "net/client.h"

#include <utility>
#include <vector>

#include "net/http2_client.h"

namespace conclave::net {
namespace {

constexpr uint32_t kResourceExhausted = 8;

GrpcStatus refusal() {
  return {.code = kResourceExhausted, .message = "too many calls under way"};
}

// A call that never was one.
class RefusedCall final : public ClientCall {
 public:
  RefusedCall(Loop& loop, ClientCallEvents events) {
    loop.post([events = std::move(events), alive = std::weak_ptr(alive_)] {
      if (!alive.expired()) events.on_finished(refusal());
    });
  }
  void send(std::string_view) override {}
  void half_close() override {}
  [[nodiscard]] size_t queued_bytes() const override { return 0; }

 private:
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

class TcpChannel final : public Channel {
 public:
  TcpChannel(Loop& loop, std::string host, uint16_t port, std::shared_ptr<const TlsContext> tls)
      : loop_(loop), host_(std::move(host)), port_(port), tls_(std::move(tls)) {}
  TcpChannel(const TcpChannel&) = delete;
  TcpChannel& operator=(const TcpChannel&) = delete;
  ~TcpChannel() override {
    for (const auto& connection : retired_) connection->abandon();
    if (connection_) connection_->abandon();
  }

  void call(std::string_view path, std::string_view request, Duration timeout, Http2Client::Done done) override {
    if (is_full()) {
      return loop_.post([done = std::move(done), alive = std::weak_ptr(alive_)]() mutable {
        if (!alive.expired()) done(refusal(), {});
      });
    }
    connection().call(path, request, timeout, std::move(done));
  }

  std::unique_ptr<ClientCall> open(std::string_view path, ClientCallEvents events) override {
    if (is_full()) return std::make_unique<RefusedCall>(loop_, std::move(events));
    return connection().open(path, std::move(events));
  }

  [[nodiscard]] bool is_connected() const override { return connection_ && connection_->is_connected(); }

 private:
  [[nodiscard]] bool is_full() const { return connection_ && connection_->calls() >= kCallsMax; }

  Http2Client& connection() {
    if (connection_ && !connection_->takes_calls()) {
      std::erase_if(retired_, [](const auto& connection) { return connection->is_dead(); });
      // What is under way there may finish.
      if (!connection_->is_dead()) retired_.push_back(std::move(connection_));
      connection_ = nullptr;
    }
    if (!connection_) connection_ = Http2Client::connect(loop_, host_, port_, tls_);
    return *connection_;
  }

  Loop& loop_;
  const std::string host_;
  const uint16_t port_;
  const std::shared_ptr<const TlsContext> tls_;
  std::shared_ptr<Http2Client> connection_;
  std::vector<std::shared_ptr<Http2Client>> retired_;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace

std::unique_ptr<Channel> Channel::make(Loop& loop, std::string host, uint16_t port,
                                       std::shared_ptr<const TlsContext> tls) {
  return std::make_unique<TcpChannel>(loop, std::move(host), port, std::move(tls));
}

}  // namespace conclave::net
