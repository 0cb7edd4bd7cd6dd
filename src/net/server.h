// Server: one listening address that speaks gRPC over HTTP/2 and, told apart by ALPN or the first bytes, HTTP/1.1 for
// JSON, /health, /metrics and /version; with TLS or without, never both. Frames calls; knows no method. All on the
// loop's thread; what handlers send in a turn leaves at its end.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/time.h"
#include "net/grpc.h"
#include "net/loop.h"
#include "net/port_counts.h"
#include "net/tls.h"

namespace conclave::net {

// One call, as its handler sees it. Good until finish() was called or the handler's on_cancel() returned.
class ServerCall {
 public:
  virtual ~ServerCall() = default;
  [[nodiscard]] virtual std::string_view path() const = 0;  // "/etcdserverpb.KV/Put"
  // A request header's value, empty if there is none. Names in lower case.
  [[nodiscard]] virtual std::string_view header(std::string_view name) const = 0;
  // From grpc-timeout; kNever if the client gave none. The server itself cancels the call then.
  [[nodiscard]] virtual Instant deadline() const = 0;
  // Queues one serialised message.
  virtual void send(std::string message) = 0;
  // One serialised message in pieces, in order, which are taken: a large one is never in one piece of memory.
  virtual void send_pieces(std::span<std::string> pieces) {
    std::string message;
    for (const std::string& piece : pieces) message.append(piece);
    send(std::move(message));
  }
  // Ends the call. Nothing after it; the handler is destroyed in a later step of the loop.
  virtual void finish(const GrpcStatus& status) = 0;
  // Sent, and not yet taken by the connection: a handler that streams stops at a bound of its own and goes on in
  // on_drained().
  [[nodiscard]] virtual size_t queued_bytes() const = 0;
};

// The far end of a call: made per call by Service::open, destroyed by the server after finish() or on_cancel().
class CallHandler {
 public:
  virtual ~CallHandler() = default;
  // A whole message; the view is good during the call.
  virtual void on_message(ByteView message) = 0;
  // The client sends no more.
  virtual void on_half_close() = 0;
  // Reset by the client, past its deadline, or the connection is gone. ServerCall must not be used afterwards.
  virtual void on_cancel() = 0;
  // queued_bytes() fell below 64 KiB after having been above.
  virtual void on_drained() {}
};

struct HttpRequest {
  std::string method;
  std::string target;  // path and query as sent
  std::string body;
  std::vector<std::pair<std::string, std::string>> fields;  // names in lower case, in the order sent
};
struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  // As Retry-After, in whole seconds, rounded up: GrpcStatus::retry_after. Zero: without.
  Duration retry_after{};
};

// The answer to one request over HTTP/1.1 that is not there at once, or comes in pieces. Good until answer() or
// finish(), or until the handler's on_cancel() returned.
class HttpAnswer {
 public:
  virtual ~HttpAnswer() = default;
  // All of it. Nothing after it.
  virtual void answer(const HttpResponse& response) = 0;
  // Its head; the body follows in pieces: send() any number of times, then finish().
  virtual void begin(const HttpResponse& head) = 0;
  virtual void send(std::string_view piece) = 0;
  virtual void finish() = 0;
  // As ServerCall::queued_bytes().
  [[nodiscard]] virtual size_t queued_bytes() const = 0;
};

// The far end of a HttpAnswer: destroyed by the server in a later step, after the answer's end or on_cancel().
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // The connection is gone. HttpAnswer must not be used afterwards.
  virtual void on_cancel() = 0;
  // queued_bytes() fell below 64 KiB after having been above.
  virtual void on_drained() {}
};

class Service {
 public:
  virtual ~Service() = default;
  // Null: no such method; the server answers UNIMPLEMENTED.
  [[nodiscard]] virtual std::unique_ptr<CallHandler> open(ServerCall& call) = 0;
  // HTTP/1.1, asked first. Null: what on_http() serves.
  [[nodiscard]] virtual std::unique_ptr<HttpHandler> open_http(const HttpRequest& /*request*/, HttpAnswer& /*answer*/) {
    return nullptr;
  }
  // HTTP/1.1. `answer` is called once, now or later, on the loop's thread; calling it after the connection is gone does
  // nothing.
  virtual void on_http(const HttpRequest& request, std::function<void(HttpResponse)> answer) = 0;
};

// Pings of HTTP/2, with etcd's defaults.
struct KeepAlive {
  // Nothing heard for so long on a connection with streams open: it is asked whether it is there. Zero: never.
  Duration interval = std::chrono::hours(2);
  // And closed, with nothing heard for so long after that.
  Duration timeout = std::chrono::seconds(20);
  // Clients ask no more often (ping_strikes.h).
  Duration min_time = std::chrono::seconds(5);
};

struct ServerOptions {
  std::string address = "127.0.0.1";  // as the host's resolver takes it
  uint16_t port = 0;                  // 0: a free one
  // Beyond it those that say nothing are closed for new ones: first who never asked for anything, then who asks for
  // nothing now, the one silent for longest first. Where there is none, the new one is closed.
  size_t connections_max = 10'000;
  KeepAlive keep_alive;
  uint32_t streams_per_connection_max = 10'000;
  // With it each connection must speak TLS; who does not is told so and closed. Of TlsRole::kServer.
  std::shared_ptr<const TlsContext> tls;
  // Of TLS, not finished: beyond it the oldest is closed. A handshake takes a few round trips, and those who hold one
  // open keep nobody out.
  size_t handshakes_max = 1'000;
  // For the handshake of TLS and the first bytes that tell the protocol, together.
  Duration hello_patience = std::chrono::seconds(10);
};

// What ALPN of TlsRole::kServer offers, the best first.
[[nodiscard]] inline std::vector<std::string> server_protocols() {
  return {"h2", "http/1.1"};
}

struct TlsCounts {
  uint64_t handshakes = 0;  // done
  uint64_t failures = 0;    // by either side: certificates, versions, plaintext, cut or too slow
  uint64_t evictions = 0;   // of the failures: above handshakes_max
};

class Server {
 public:
  // Binds and listens; calls come while the loop runs.
  [[nodiscard]] static Result<std::unique_ptr<Server>> listen(Loop& loop, Service& service,
                                                              const ServerOptions& options);
  virtual ~Server() = default;
  [[nodiscard]] virtual uint16_t port() const = 0;
  // Sends what the turn queued, on all connections. The wiring calls it as the last end of each turn.
  virtual void flush() = 0;
  // No new connections; GOAWAY on all; what is in flight may finish.
  virtual void drain() = 0;
  [[nodiscard]] virtual size_t connections() const = 0;
  // Of answers, not yet given to the kernel.
  [[nodiscard]] virtual size_t queued_bytes() const = 0;
  // Timeouts: first words or headers not in time, idle over HTTP/1.1, a ping not answered.
  [[nodiscard]] virtual PortCounts port_counts() const = 0;
  // For connections to come; those that stand are not touched. Only of a server that was given one.
  virtual void set_tls(std::shared_ptr<const TlsContext> tls) = 0;
  [[nodiscard]] virtual TlsCounts tls_counts() const = 0;
};

}  // namespace conclave::net
