#include "net/tls_socket.h"

#include <algorithm>
#include <utility>

#include "base/mark.h"

namespace conclave::net {
namespace {

// Small pieces are put together up to this: one record, not one each.
constexpr size_t kRecordBytes = size_t{16} << 10;
// Encrypted at once and then given to the kernel; what that does not take is kept.
constexpr size_t kEncryptBytes = size_t{64} << 10;
// Only a peer that asks for answers (new keys) and does not read them comes here.
constexpr size_t kUnsentBytesMax = size_t{512} << 10;
// Of every record that TLS knows; what begins a connection is the handshake's.
constexpr char kHandshakeRecord = 22;

// Shared by all connections of a thread; in use only during one call.
struct Scratch {
  std::string plain;     // what was received, while the owner looks at it
  std::string wire;      // what is being sent
  std::string gathered;  // one record's pieces
};
Scratch& scratch() {
  thread_local Scratch shared;
  return shared;
}

// Takes the next piece of at most kRecordBytes off the front; small ones are copied together into `gathered`.
ByteView take_record(std::span<const ByteView>& pieces, size_t& skip, std::string& gathered) {
  gathered.clear();
  while (!pieces.empty()) {
    const ByteView rest = pieces.front().substr(skip);
    const size_t count = std::min(rest.size(), kRecordBytes - gathered.size());
    const ByteView part = rest.substr(0, count);
    const bool ends_piece = count == rest.size();
    skip = ends_piece ? 0 : skip + count;
    if (ends_piece) pieces = pieces.subspan(1);
    if (gathered.empty() && (part.size() == kRecordBytes || pieces.empty())) return part;
    gathered.append(part);
    if (gathered.size() == kRecordBytes) break;
  }
  return gathered;
}

class TlsSocket final : public TcpSocket, private TcpEvents {
 public:
  TlsSocket(std::unique_ptr<TlsSession> session, PlaintextAnswer answer)
      : session_(std::move(session)), answer_(answer) {}
  TlsSocket(const TlsSocket&) = delete;
  TlsSocket& operator=(const TlsSocket&) = delete;
  ~TlsSocket() override {
    close();
    if (destroyed_ != nullptr) *destroyed_ = true;
  }

  void accept(std::unique_ptr<TcpSocket> socket) {
    socket_ = std::move(socket);
    socket_->set_events(*this);
    // A handshake costs as much as many requests, and whoever has not finished one can wait for those who have.
    socket_->set_at_leisure(true);
  }
  void connect(Loop& loop, TcpEvents& events, const std::string& host, uint16_t port) {
    events_ = &events;
    socket_ = TcpSocket::connect(loop, *this, host, port);
  }

  void set_events(TcpEvents& events) override { events_ = &events; }
  void read_next() override {
    if (events_ == nullptr) return;
    wanted_ = true;
    socket_->read_next();
  }
  size_t write(std::span<const ByteView> pieces) override;
  void end_writing() override;
  void close() override;
  void set_at_leisure(bool at_leisure) override { socket_->set_at_leisure(at_leisure); }
  void set_patience(Duration unacknowledged_max) override { socket_->set_patience(unacknowledged_max); }
  void set_unsent_max(uint32_t bytes) override { socket_->set_unsent_max(bytes); }
  [[nodiscard]] const TlsSession* tls() const override { return session_.get(); }

 private:
  void on_connected() override;
  void on_bytes(ByteView wire) override;
  void on_writable() override;
  void on_closed(TcpEnd end) override;

  void step(ByteView wire);
  [[nodiscard]] bool refuses_plaintext(ByteView wire);
  void write_wire(ByteView wire);
  void end(TcpEnd how);

  const std::unique_ptr<TlsSession> session_;
  std::unique_ptr<TcpSocket> socket_;
  TcpEvents* events_ = nullptr;  // null: closed, or not yet wanted
  PlaintextAnswer answer_;       // null once the first bytes were seen
  bool* destroyed_ = nullptr;    // set while an event is told that may destroy this
  bool wanted_ = false;          // read_next() was called, and nothing given since
  bool writable_wanted_ = false;
  bool ending_ = false;   // end_writing(), once all is sent
  bool refused_ = false;  // answered in plain text: nothing more is heard
  std::string unsent_;
};

size_t TlsSocket::write(std::span<const ByteView> pieces) {
  size_t total = 0;
  size_t skip = 0;
  std::string& wire = scratch().wire;
  while (unsent_.empty() && !pieces.empty() && !ending_) {
    wire.clear();
    while (!pieces.empty() && wire.size() < kEncryptBytes) {
      const ByteView record = take_record(pieces, skip, scratch().gathered);
      if (!session_->send(record, wire)) {
        // Before the handshake, or the session broke: the other side is told and ends it.
        if (session_->phase() == TlsSession::Phase::kFailed) socket_->end_writing();
        writable_wanted_ = true;
        return total;
      }
      total += record.size();
    }
    write_wire(wire);
  }
  writable_wanted_ = !pieces.empty();
  return total;
}

void TlsSocket::write_wire(ByteView wire) {
  if (wire.empty()) return;
  const size_t taken = unsent_.empty() ? socket_->write({&wire, 1}) : 0;
  unsent_.append(wire.substr(taken));
}

void TlsSocket::on_writable() {
  if (!unsent_.empty()) {
    const ByteView piece = unsent_;
    unsent_.erase(0, socket_->write({&piece, 1}));
    if (!unsent_.empty()) return;
    unsent_ = std::string();
  }
  if (ending_) return socket_->end_writing();
  if (std::exchange(writable_wanted_, false) && events_ != nullptr) events_->on_writable();
}

void TlsSocket::end_writing() {
  if (std::exchange(ending_, true)) return;
  std::string& wire = scratch().wire;
  wire.clear();
  session_->end(wire);
  write_wire(wire);
  if (unsent_.empty()) socket_->end_writing();
}

void TlsSocket::close() {
  events_ = nullptr;
  if (!socket_) return;
  if (unsent_.empty() && !ending_) {
    // So that the other side can tell it from a cut; whether it arrives does not matter.
    std::string& wire = scratch().wire;
    wire.clear();
    session_->end(wire);
    write_wire(wire);
  }
  ending_ = true;
  socket_->close();
  unsent_ = std::string();
}

void TlsSocket::end(TcpEnd how) {
  TcpEvents* const events = std::exchange(events_, nullptr);
  socket_->close();
  if (events != nullptr) events->on_closed(how);
}

void TlsSocket::on_connected() {
  // A name that cannot be asked for: no handshake begins.
  if (session_->phase() == TlsSession::Phase::kFailed) return end(TcpEnd::kTls);
  socket_->read_next();
  step({});
}

void TlsSocket::on_closed(TcpEnd how) {
  end(how);
}

bool TlsSocket::refuses_plaintext(ByteView wire) {
  const PlaintextAnswer answer = std::exchange(answer_, nullptr);
  if (answer == nullptr || wire.empty() || wire.front() == kHandshakeRecord) return false;
  const std::string words = answer(wire);
  if (words.empty()) return false;
  REACHED(net_tls_plaintext_refused);
  refused_ = true;
  const ByteView piece = words;
  // A few bytes on a fresh connection: if the kernel does not take them, nobody reads.
  (void)socket_->write({&piece, 1});
  socket_->end_writing();
  return true;
}

void TlsSocket::on_bytes(ByteView wire) {
  if (refused_ || refuses_plaintext(wire)) {
    // To its end: closing over unread bytes would take the answer back.
    socket_->read_next();
    return;
  }
  step(wire);
}

void TlsSocket::step(ByteView wire) {
  using Phase = TlsSession::Phase;
  std::string& plain = scratch().plain;
  std::string& out = scratch().wire;
  plain.clear();
  out.clear();
  const bool was_handshake = session_->phase() == Phase::kHandshake;
  session_->receive(wire, plain, out);
  write_wire(out);
  if (unsent_.size() > kUnsentBytesMax) {
    REACHED(net_tls_answers_unread);
    return end(TcpEnd::kReset);
  }
  bool destroyed = false;
  destroyed_ = &destroyed;
  if (was_handshake && (session_->phase() == Phase::kOpen || session_->phase() == Phase::kEnded)) {
    socket_->set_at_leisure(false);
    events_->on_connected();
    if (destroyed) return;
  }
  if (!plain.empty() && events_ != nullptr) {
    wanted_ = false;
    events_->on_bytes(plain);
    if (destroyed) return;
  }
  destroyed_ = nullptr;
  if (events_ == nullptr) return;
  if (session_->phase() == Phase::kEnded) return end(TcpEnd::kClosed);
  if (session_->phase() == Phase::kFailed) {
    REACHED(net_tls_failed);
    return end(TcpEnd::kTls);
  }
  // A handshake, or half a record: the owner has not been given what he asked for.
  if (wanted_ || session_->phase() == Phase::kHandshake) socket_->read_next();
}

}  // namespace

std::unique_ptr<TcpSocket> accept_tls(std::unique_ptr<TcpSocket> socket, std::shared_ptr<const TlsContext> context,
                                      PlaintextAnswer answer) {
  auto made = std::make_unique<TlsSocket>(TlsSession::accept(std::move(context)), answer);
  made->accept(std::move(socket));
  return made;
}

std::unique_ptr<TcpSocket> connect_tls(Loop& loop, TcpEvents& events, const std::string& host, uint16_t port,
                                       std::shared_ptr<const TlsContext> context, const std::string& name) {
  auto made = std::make_unique<TlsSocket>(TlsSession::connect(std::move(context), name), nullptr);
  made->connect(loop, events, host, port);
  return made;
}

}  // namespace conclave::net
