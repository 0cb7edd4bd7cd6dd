// Connections of the server: which protocol they speak, their output, when they are read and when they end. The
// protocols are in http2_server.cc and http1_server.cc.
#include "net/server.h"

#include <algorithm>
#include <array>
#include <list>
#include <optional>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "base/mark.h"
#include "net/http1.h"
#include "net/protocol.h"
#include "net/tcp.h"
#include "net/tls_socket.h"

namespace conclave::net {
namespace {

constexpr std::string_view kHttp2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
// Given to the kernel at once, and in one turn: one fast reader does not hold up the others.
constexpr size_t kPumpBytes = size_t{256} << 10;
constexpr size_t kFlushBytesMax = size_t{1} << 20;
// While the socket takes no more and this much waits for it, nothing more is read from it.
constexpr size_t kUnsentBytesMax = size_t{8} << 20;
// A connection that we end is read on this long: closing at once would reset it, and our last words would be lost.
constexpr Duration kLingerPatience = std::chrono::seconds(1);

constexpr std::string_view kSpeakTls = "this port speaks TLS only: use https\n";
// The server's empty SETTINGS, then GOAWAY with error 12, INADEQUATE_SECURITY; the words follow.
constexpr std::string_view kHttp2Settings("\0\0\0\4\0\0\0\0\0", 9);
constexpr std::string_view kHttp2GoawayHead("\7\0\0\0\0\0", 6);  // type, flags, stream
constexpr std::string_view kHttp2GoawayBody("\0\0\0\0\0\0\0\14", 8);

// In the language in which it was asked, so that the client's own message says it.
std::string answer_plaintext(ByteView first_bytes) {
  std::string answer;
  if (first_bytes.starts_with(kHttp2Preface.substr(0, 4))) {
    answer.append(kHttp2Settings);
    const size_t size = kHttp2GoawayBody.size() + kSpeakTls.size();
    answer.append({'\0', '\0', static_cast<char>(size)});
    answer.append(kHttp2GoawayHead).append(kHttp2GoawayBody).append(kSpeakTls);
  } else if (first_bytes.front() >= 'A' && first_bytes.front() <= 'Z') {
    format_http1({.status = 400, .body = std::string(kSpeakTls)}, false, false, answer);
  }
  return answer;
}

class TcpServer;

class Connection final : public TcpEvents, public ProtocolHost {
 public:
  Connection(TcpServer& server, std::unique_ptr<TcpSocket> socket);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() override;

  void on_connected() override;  // the handshake is done
  void on_bytes(ByteView bytes) override;
  void on_writable() override { touch(); }
  void on_closed(TcpEnd) override;
  void touch() override;

  void start() { socket_->read_next(); }
  // Returns true if there is more to send now.
  bool flush();
  void drain();
  void watch_patience();

  // Makes room for another.
  void evict();
  [[nodiscard]] Presence presence() const {
    return protocol_ && !lingering_ ? protocol_->presence() : Presence::kGreeting;
  }

  size_t place = 0;  // in the server's list
  // In the server's lists by presence.
  Presence presence_known = Presence::kGreeting;
  std::list<Connection*>::iterator presence_place;
  bool is_touched = false;
  // In the server's list of handshakes under way.
  std::optional<std::list<Connection*>::iterator> handshake;

  void close();

 private:
  void tell_protocol();
  bool send_output();

  TcpServer& server_;
  std::unique_ptr<TcpSocket> socket_;
  std::unique_ptr<Protocol> protocol_;  // null until the first bytes told
  std::string first_bytes_;
  std::string unsent_;  // given by the protocol and not taken by the kernel
  Instant silent_until_;
  TimerId timer_ = 0;
  Instant timer_at_ = kNever;
  bool heard_ = false;  // since the last flush()
  bool lingering_ = false;
  bool closed_ = false;
  bool draining_ = false;
};

class TcpServer final : public Server {
 public:
  TcpServer(Loop& loop, Service& service, ServerOptions options)
      : loop_(loop), service_(service), options_(std::move(options)), frame_memory_(options_.connections_max) {}
  TcpServer(const TcpServer&) = delete;
  TcpServer& operator=(const TcpServer&) = delete;
  ~TcpServer() override {
    listener_.reset();
    connections_.clear();
  }

  Status open() {
    ASSIGN_OR_RETURN(listener_,
                     TcpListener::listen(loop_, options_.address, options_.port,
                                         [this](std::unique_ptr<TcpSocket> socket) { accept(std::move(socket)); }));
    port_ = listener_->port();
    return {};
  }

  [[nodiscard]] uint16_t port() const override { return port_; }
  [[nodiscard]] size_t connections() const override { return connections_.size(); }
  [[nodiscard]] size_t queued_bytes() const override { return held_.responses; }
  [[nodiscard]] PortCounts port_counts() const override {
    PortCounts counts = counts_;
    counts.failures = failures_before_ + (listener_ ? listener_->failures() : 0);
    return counts;
  }
  void set_tls(std::shared_ptr<const TlsContext> tls) override {
    ASSERT(options_.tls != nullptr && tls != nullptr);
    options_.tls = std::move(tls);
  }
  [[nodiscard]] TlsCounts tls_counts() const override { return tls_counts_; }

  void flush() override {
    if (touched_.empty() && ended_.empty()) return;
    std::swap(touched_, flushing_);
    for (Connection* connection : flushing_) {
      connection->is_touched = false;
      if (connection->flush()) connection->touch();
    }
    flushing_.clear();
    for (const auto& connection : ended_) {
      if (connection->is_touched) std::erase(touched_, connection.get());
    }
    ended_.clear();
    // Handlers that were told of room sent more, or there was more than one turn's share.
    if (!touched_.empty()) loop_.post([] {});
  }

  void drain() override {
    if (listener_) failures_before_ = listener_->failures();
    listener_.reset();
    for (const auto& connection : connections_) connection->drain();
  }

  Loop& loop() { return loop_; }
  Service& service() { return service_; }
  const ServerOptions& options() { return options_; }
  HeldBytes& held() { return held_; }
  FrameMemory& frame_memory() { return frame_memory_; }
  void note_handshake(Connection& connection, bool is_done) {
    ++(is_done ? tls_counts_.handshakes : tls_counts_.failures);
    handshakes_.erase(*std::exchange(connection.handshake, std::nullopt));
  }
  void count_timeout() { ++counts_.timeouts; }
  void count_received(size_t bytes) { counts_.bytes_received += bytes; }
  void count_sent(size_t bytes) { counts_.bytes_sent += bytes; }
  std::string& scratch() { return scratch_; }
  // It was heard, or its presence changed: the last of its list.
  void note_presence(Connection& connection, Presence presence) {
    auto& from = present_[static_cast<size_t>(connection.presence_known)];
    auto& to = present_[static_cast<size_t>(presence)];
    to.splice(to.end(), from, connection.presence_place);
    connection.presence_known = presence;
  }
  void note_touched(Connection& connection) { touched_.push_back(&connection); }
  // Destroyed at the end of flush(): its functions may be running.
  void note_ended(Connection& connection) {
    present_[static_cast<size_t>(connection.presence_known)].erase(connection.presence_place);
    const size_t place = connection.place;
    ended_.push_back(std::move(connections_[place]));
    if (place + 1 < connections_.size()) {
      connections_[place] = std::move(connections_.back());
      connections_[place]->place = place;
    }
    connections_.pop_back();
  }

 private:
  // False: all are busy.
  bool make_room() {
    for (const Presence silent : {Presence::kGreeting, Presence::kIdle}) {
      const auto& list = present_[static_cast<size_t>(silent)];
      if (list.empty()) continue;
      REACHED(net_connection_evicted);
      ++counts_.evicted;
      list.front()->evict();
      return true;
    }
    return false;
  }

  void accept(std::unique_ptr<TcpSocket> socket) {
    if (options_.tls && handshakes_.size() >= options_.handshakes_max) {
      REACHED(net_handshakes_full);
      ++tls_counts_.evictions;
      handshakes_.front()->close();
    }
    if (connections_.size() >= options_.connections_max && !make_room()) {
      // Closed and not left in the backlog: there the kernel has already told its client that it is connected, and it
      // would wait for as long as its patience lasts. This way it learns at once, and asks another server.
      REACHED(net_connections_full);
      ++counts_.refused;
      return;  // destroys, and so closes it
    }
    ++counts_.accepted;
    if (options_.tls) socket = accept_tls(std::move(socket), options_.tls, answer_plaintext);
    connections_.push_back(std::make_unique<Connection>(*this, std::move(socket)));
    connections_.back()->place = connections_.size() - 1;
    auto& greeting = present_[static_cast<size_t>(Presence::kGreeting)];
    connections_.back()->presence_place = greeting.insert(greeting.end(), connections_.back().get());
    if (options_.tls) {
      connections_.back()->handshake = handshakes_.insert(handshakes_.end(), connections_.back().get());
    }
    connections_.back()->start();
  }

  Loop& loop_;
  Service& service_;
  ServerOptions options_;  // constant but for `tls`
  std::unique_ptr<TcpListener> listener_;
  uint16_t port_ = 0;
  HeldBytes held_;
  FrameMemory frame_memory_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Connection>> ended_;
  std::vector<Connection*> touched_;
  std::vector<Connection*> flushing_;
  std::string scratch_;
  std::list<Connection*> handshakes_;  // the oldest first
  TlsCounts tls_counts_;
  std::array<std::list<Connection*>, kPresences> present_;  // in each, the one silent for longest first
  PortCounts counts_;
  uint64_t failures_before_ = 0;  // the listener's, once it is gone
};

Connection::Connection(TcpServer& server, std::unique_ptr<TcpSocket> socket)
    : server_(server),
      socket_(std::move(socket)),
      silent_until_(server.loop().now() + server.options().hello_patience) {
  socket_->set_events(*this);
  watch_patience();
}

Connection::~Connection() {
  server_.loop().cancel(timer_);
  if (protocol_) protocol_->end();
}

void Connection::touch() {
  if (is_touched) return;
  is_touched = true;
  server_.note_touched(*this);
}

void Connection::on_connected() {
  server_.note_handshake(*this, true);
}

void Connection::on_bytes(ByteView bytes) {
  touch();  // to be read on
  server_.count_received(bytes.size());
  if (lingering_) return;
  heard_ = true;
  if (protocol_) return protocol_->on_bytes(bytes);
  first_bytes_.append(bytes);
  tell_protocol();
}

void Connection::tell_protocol() {
  const std::string agreed = socket_->tls() == nullptr ? "" : socket_->tls()->protocol();
  const size_t compared = std::min(first_bytes_.size(), kHttp2Preface.size());
  const bool is_http2 = kHttp2Preface.starts_with(std::string_view(first_bytes_).substr(0, compared));
  if (agreed == "h2" && !is_http2) {
    REACHED(net_alpn_broken);
    close();
    return;
  }
  if (agreed == "http/1.1" || !is_http2) {
    protocol_ = make_http1_protocol(*this, server_.loop(), server_.service(), server_.held());
  } else if (compared == kHttp2Preface.size()) {
    protocol_ = make_http2_protocol(*this, server_.loop(), server_.service(), server_.options(), server_.held(),
                                    server_.frame_memory());
  } else {
    return;
  }
  const std::string bytes = std::exchange(first_bytes_, {});
  if (draining_) protocol_->drain();
  protocol_->on_bytes(bytes);
}

void Connection::on_closed(TcpEnd) {
  close();
}

void Connection::close() {
  if (std::exchange(closed_, true)) return;
  if (handshake) server_.note_handshake(*this, false);
  socket_->close();
  if (protocol_) protocol_->end();
  server_.note_ended(*this);
}

void Connection::evict() {
  if (protocol_ && !lingering_) {
    protocol_->take_leave();
    (void)send_output();
  }
  close();
}

void Connection::drain() {
  draining_ = true;
  if (protocol_) {
    protocol_->drain();
  } else {
    close();
  }
}

// One timer, moved only when it rings: a patience that grew while it ran costs nothing.
void Connection::watch_patience() {
  Instant until = silent_until_;
  if (protocol_ && !lingering_) until = protocol_->patience();
  if (until >= timer_at_) return;
  server_.loop().cancel(timer_);
  timer_at_ = until;
  timer_ = server_.loop().call_at(until, [this] {
    timer_ = 0;
    timer_at_ = kNever;
    const Instant still = protocol_ && !lingering_ ? protocol_->patience() : silent_until_;
    if (still <= server_.loop().now()) {
      REACHED(net_patience_ended);
      if (!lingering_) server_.count_timeout();
      close();
    } else {
      watch_patience();
    }
  });
}

bool Connection::send_output() {
  size_t flushed = 0;
  if (!unsent_.empty()) {
    const ByteView piece = unsent_;
    const size_t taken = socket_->write({&piece, 1});
    server_.count_sent(taken);
    unsent_.erase(0, taken);
    if (!unsent_.empty()) return false;
    if (unsent_.capacity() > kPumpBytes) unsent_ = std::string();
    flushed = taken;
  }
  std::string& scratch = server_.scratch();
  while (protocol_ && flushed < kFlushBytesMax) {
    scratch.clear();
    protocol_->pump(scratch, kPumpBytes);
    if (scratch.empty() || closed_) return false;
    const ByteView piece = scratch;
    const size_t taken = socket_->write({&piece, 1});
    server_.count_sent(taken);
    flushed += taken;
    if (taken < piece.size()) {
      unsent_.assign(piece.substr(taken));
      return false;
    }
    if (piece.size() < kPumpBytes) return false;  // that was all, but for what on_drained() added: touched again
  }
  return flushed >= kFlushBytesMax;
}

bool Connection::flush() {
  if (closed_) return false;
  const bool more = send_output();
  if (closed_) return false;
  if (protocol_ && protocol_->is_over() && unsent_.empty() && !more && !lingering_) {
    lingering_ = true;
    silent_until_ = server_.loop().now() + kLingerPatience;
    socket_->end_writing();
  }
  watch_patience();
  // A greeting is no younger for the bytes it comes in.
  const Presence now = presence();
  const bool is_heard = std::exchange(heard_, false) && now != Presence::kGreeting;
  if (is_heard || now != presence_known) server_.note_presence(*this, now);
  // Reading stops while the socket is what is slow; it goes on when the socket drains (on_writable, then here).
  const bool full = !unsent_.empty() && unsent_.size() + (protocol_ ? protocol_->queued_bytes() : 0) > kUnsentBytesMax;
  if (!full) socket_->read_next();
  return more;
}

}  // namespace

Result<std::unique_ptr<Server>> Server::listen(Loop& loop, Service& service, const ServerOptions& options) {
  auto server = std::make_unique<TcpServer>(loop, service, options);
  RETURN_IF_ERROR(server->open());
  return server;
}

}  // namespace conclave::net
