// Channel: a client's connection to one server, gRPC over HTTP/2, with TLS or without. Connects when first used, and
// again with the next call after it broke; a call on a connection that breaks fails with UNAVAILABLE. All on the loop's
// thread; what is sent in a turn leaves at its end.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/time.h"
#include "net/grpc.h"
#include "net/loop.h"
#include "net/tls.h"

namespace conclave::net {

inline constexpr size_t kCallsMax = 100'000;
inline constexpr std::string_view kChannelProtocol = "h2";
inline constexpr size_t kResponseBytesMax = size_t{512} << 20;

// What a stream hears. Neither is called from within a function of ClientCall.
struct ClientCallEvents {
  std::function<void(ByteView message)> on_message;
  std::function<void(const GrpcStatus& status)> on_finished;  // once, last
};

class ClientCall {
 public:
  virtual ~ClientCall() = default;  // cancels the call if it has not finished; no event comes afterwards
  virtual void send(std::string_view message) = 0;
  virtual void half_close() = 0;
  // Sent, and not yet taken by the connection: who sends much stops at a bound of its own and looks again later.
  [[nodiscard]] virtual size_t queued_bytes() const = 0;
};

class Channel {
 public:
  // `tls`: of TlsRole::kClient with ALPN kChannelProtocol; the certificate must be made out to `host`. Null: plain.
  [[nodiscard]] static std::unique_ptr<Channel> make(Loop& loop, std::string host, uint16_t port,
                                                     std::shared_ptr<const TlsContext> tls = nullptr);
  virtual ~Channel() = default;  // what is under way ends without a word: no `done` and no event comes afterwards

  // One message each way. `done` once, with the status and, if OK, the message; the view is good during the call.
  // timeout zero: none.
  virtual void call(std::string_view path, std::string_view request, Duration timeout,
                    std::move_only_function<void(const GrpcStatus&, ByteView response)> done) = 0;
  // Any shape of streams.
  [[nodiscard]] virtual std::unique_ptr<ClientCall> open(std::string_view path, ClientCallEvents events) = 0;
  [[nodiscard]] virtual bool is_connected() const = 0;
};

}  // namespace conclave::net
