// Http2Client: one connection of a channel, from its making to its end. Calls may be started before it stands.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "net/client.h"

namespace conclave::net {

class Http2Client {
 public:
  using Done = std::move_only_function<void(const GrpcStatus&, ByteView response)>;

  [[nodiscard]] static std::shared_ptr<Http2Client> connect(Loop& loop, const std::string& host, uint16_t port,
                                                            const std::shared_ptr<const TlsContext>& tls);
  virtual ~Http2Client() = default;

  // False: broken, told to go away, or out of stream numbers: the next call needs another connection.
  [[nodiscard]] virtual bool takes_calls() const = 0;
  [[nodiscard]] virtual bool is_connected() const = 0;
  [[nodiscard]] virtual bool is_dead() const = 0;
  [[nodiscard]] virtual size_t calls() const = 0;
  virtual void call(std::string_view path, std::string_view request, Duration timeout, Done done) = 0;
  [[nodiscard]] virtual std::unique_ptr<ClientCall> open(std::string_view path, ClientCallEvents events) = 0;
  // Closes; nobody is told.
  virtual void abandon() = 0;
};

}  // namespace conclave::net
