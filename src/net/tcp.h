// TCP sockets as the rest of net sees them, with TLS over them or not (tls_socket.h): what is ready is read when asked
// for, writes take what the kernel takes, an end is told once. Own no protocol and no queue. On the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "base/time.h"
#include "net/loop.h"

namespace conclave::net {

enum class TcpEnd : uint8_t {
  kClosed,     // the other side ended it in order
  kReset,      // or was gone: reset, timed out
  kRefused,    // nobody listens there
  kUnreached,  // name unknown, no route, no answer
  kTls         // TLS failed; TcpSocket::tls() says why
};
[[nodiscard]] std::string_view to_string(TcpEnd end);

class TlsSession;

class TcpEvents {
 public:
  virtual ~TcpEvents() = default;
  // Of a socket made by connect(), and of one with TLS, accepted or not: the handshake is done.
  virtual void on_connected() {}
  // The view is good during the call.
  virtual void on_bytes(ByteView bytes) = 0;
  // After write() had taken less than it was given.
  virtual void on_writable() = 0;
  // Once, and the last event. Not after close().
  virtual void on_closed(TcpEnd end) = 0;
};

// May be destroyed within any of its own events. No event comes from within a function of this class.
class TcpSocket {
 public:
  // `host` is an address or a name; a name is looked up without blocking. How long it may take is the caller's affair.
  [[nodiscard]] static std::unique_ptr<TcpSocket> connect(Loop& loop, TcpEvents& events, const std::string& host,
                                                          uint16_t port);
  virtual ~TcpSocket() = default;

  // An accepted socket is silent before.
  virtual void set_events(TcpEvents& events) = 0;
  // What is read is read, and told, when there is time for it (Loop::at_leisure).
  virtual void set_at_leisure(bool at_leisure) = 0;
  // When bytes are there, those are read (some hundred KiB at most), and nothing more until asked for again.
  virtual void read_next() = 0;
  // Gives the pieces to the kernel, in order, and returns how many bytes it took. If that is not all, on_writable()
  // follows.
  virtual size_t write(std::span<const ByteView> pieces) = 0;
  // The peer reads to the end of what was written; reading goes on.
  virtual void end_writing() = 0;
  virtual void close() = 0;

  // Bytes not acknowledged for this long end the connection: a dead host is noticed in this time, not in a quarter of
  // an hour.
  virtual void set_patience(Duration unacknowledged_max) = 0;
  // write() takes no more than this ahead of the wire.
  virtual void set_unsent_max(uint32_t bytes) = 0;

  // Null: plain.
  [[nodiscard]] virtual const TlsSession* tls() const { return nullptr; }
};

class TcpListener {
 public:
  using OnAccept = std::function<void(std::unique_ptr<TcpSocket>)>;
  [[nodiscard]] static Result<std::unique_ptr<TcpListener>> listen(Loop& loop, const std::string& address,
                                                                   uint16_t port, OnAccept on_accept);
  virtual ~TcpListener() = default;  // no more connections
  [[nodiscard]] virtual uint16_t port() const = 0;
  // Times that a connection could not be taken for want of descriptors or memory. It waits in the backlog, and is tried
  // again ten times a second.
  [[nodiscard]] virtual uint64_t failures() const = 0;
};

}  // namespace conclave::net
