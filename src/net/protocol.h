// What a server's connection speaks once its first bytes have told: HTTP/2 or HTTP/1.1. Bytes in, bytes out; owns no
// socket.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "net/frame_memory.h"
#include "net/server.h"

namespace conclave::net {

// The connection, as its protocol sees it.
class ProtocolHost {
 public:
  virtual ~ProtocolHost() = default;
  // There is something to send: pump() is called at the end of this turn.
  virtual void touch() = 0;
};

// What all connections of a server hold together, of messages not yet whole and of answers not yet sent. Each
// connection has its own limit; many together have these.
struct HeldBytes {
  size_t requests = 0;
  size_t responses = 0;
};
inline constexpr size_t kRequestBytesHeldMax = size_t{512} << 20;
inline constexpr size_t kResponseBytesHeldMax = size_t{1} << 30;

// What a connection is doing, in the order in which those are closed that have to make room.
enum class Presence : uint8_t {
  kGreeting,  // has not asked for anything whole yet, or is being ended
  kIdle,      // did, and does not now
  kBusy,      // has a call under way
};
inline constexpr size_t kPresences = 3;

class Protocol {
 public:
  virtual ~Protocol() = default;  // after end()
  virtual void on_bytes(ByteView bytes) = 0;
  // Appends what is to be sent to `out` until that holds bytes_max or a little more, or nothing is left.
  virtual void pump(std::string& out, size_t bytes_max) = 0;
  // Nothing more will be read; to be closed once what pump() gave is sent.
  [[nodiscard]] virtual bool is_over() const = 0;
  // Kept for the peer and not yet given out by pump().
  [[nodiscard]] virtual size_t queued_bytes() const = 0;
  // The connection is closed if it is still in this state at that time; kNever: it may take its time.
  [[nodiscard]] virtual Instant patience() const = 0;
  // A stream counts from its first whole message, or its end: opening one costs a client nothing.
  [[nodiscard]] virtual Presence presence() const = 0;
  // Finish what is under way, take nothing new.
  virtual void drain() = 0;
  // To be closed after what pump() gives now: a last word, if the protocol knows one.
  virtual void take_leave() = 0;
  // The connection is gone: calls are cancelled. Nothing is called afterwards.
  virtual void end() = 0;
};

[[nodiscard]] std::unique_ptr<Protocol> make_http2_protocol(ProtocolHost& host, Loop& loop, Service& service,
                                                            const ServerOptions& options, HeldBytes& held,
                                                            FrameMemory& memory);
[[nodiscard]] std::unique_ptr<Protocol> make_http1_protocol(ProtocolHost& host, Loop& loop, Service& service,
                                                            HeldBytes& held);

}  // namespace conclave::net
