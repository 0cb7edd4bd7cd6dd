// Bytes from an HTTP/2 client behind its preface, into the server's side of a connection, in pieces, with a service
// that echoes, waits or refuses. Nothing may crash; every call that was opened ends, and its handler with it.
#include <cstdint>
#include <memory>
#include <string>

#include "base/assert.h"
#include "env/clock.h"
#include "net/protocol.h"

namespace {

using namespace conclave;       // NOLINT(google-build-using-namespace)
using namespace conclave::net;  // NOLINT(google-build-using-namespace)

int handlers = 0;

class StillClock final : public env::Clock {
 public:
  [[nodiscard]] Instant now() override { return Instant(std::chrono::seconds(1)); }
  [[nodiscard]] int64_t wall_milliseconds() override { return 0; }
};

class Handler final : public CallHandler {
 public:
  explicit Handler(ServerCall& call) : call_(call) { ++handlers; }
  Handler(const Handler&) = delete;
  Handler& operator=(const Handler&) = delete;
  ~Handler() override { --handlers; }
  void on_message(ByteView message) override {
    ASSERT(!over_);
    (void)call_.header("x");
    if (call_.queued_bytes() < 100'000) call_.send(std::string(message));
  }
  void on_half_close() override {
    ASSERT(!over_);
    if (call_.path().size() % 3 == 0) return;
    over_ = true;
    call_.finish({.code = static_cast<uint32_t>(call_.path().size() % 17), .message = "\x01%"});
  }
  void on_cancel() override {
    ASSERT(!over_);
    over_ = true;
  }

 private:
  ServerCall& call_;
  bool over_ = false;
};

class Echo final : public Service {
 public:
  std::unique_ptr<CallHandler> open(ServerCall& call) override {
    if (call.path().size() % 5 == 0) return nullptr;
    return std::make_unique<Handler>(call);
  }
  void on_http(const HttpRequest&, std::function<void(HttpResponse)>) override {}
};

class Host final : public ProtocolHost {
 public:
  void touch() override {}
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t piece = 1 + data[0];
  ByteView bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  StillClock clock;
  Loop loop(clock);
  Echo service;
  Host host;
  HeldBytes held;
  FrameMemory memory(1);
  const auto protocol = make_http2_protocol(host, loop, service, {.streams_per_connection_max = 100}, held, memory);
  protocol->on_bytes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  std::string out;
  while (!bytes.empty() && !protocol->is_over()) {
    protocol->on_bytes(bytes.substr(0, piece));
    bytes.remove_prefix(std::min(piece, bytes.size()));
    out.clear();
    protocol->pump(out, size_t{256} << 10);
  }
  protocol->end();
  ASSERT_CMP(handlers, ==, 0);
  ASSERT(held.requests == 0 && held.responses == 0);
  return 0;
}
