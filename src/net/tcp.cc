#include "net/tcp.h"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <optional>
#include <utility>

#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>

namespace conclave::net {
namespace {

using asio::ip::tcp;

// What one connection may read in one turn: a fast sender does not starve the others.
constexpr size_t kReadBytesPerTurn = size_t{256} << 10;
constexpr size_t kReadBytes = size_t{64} << 10;
constexpr size_t kPiecesPerWrite = 64;
constexpr Duration kAcceptPause = std::chrono::milliseconds(100);

// One for all sockets of a thread: an idle connection holds no buffer.
char* read_buffer() {
  thread_local const std::unique_ptr<char[]> buffer = std::make_unique_for_overwrite<char[]>(kReadBytes);
  return buffer.get();
}

TcpEnd end_of(const asio::error_code& error) {
  if (error == asio::error::connection_refused) return TcpEnd::kRefused;
  if (error == asio::error::eof) return TcpEnd::kClosed;
  if (error.category() != asio::system_category() || error == asio::error::host_unreachable ||
      error == asio::error::network_unreachable) {
    return TcpEnd::kUnreached;
  }
  return TcpEnd::kReset;
}

template <class T>
void set_option(int socket, int level, int name, T value) {
  // A kernel that does not know the option goes on without.
  (void)::setsockopt(socket, level, name, &value, sizeof(value));
}

class Socket : public std::enable_shared_from_this<Socket> {
 public:
  Socket(Loop& loop, tcp::socket socket) : loop_(loop), socket_(std::move(socket)) {}
  explicit Socket(Loop& loop) : loop_(loop), socket_(loop.context()), resolver_(loop.context()) {}

  void set_events(TcpEvents* events) { events_ = events; }
  void set_at_leisure(bool at_leisure) { at_leisure_ = at_leisure; }

  void connect(const std::string& host, uint16_t port) {
    asio::error_code error;
    const asio::ip::address address = asio::ip::make_address(host, error);
    if (!error) return connect_to(tcp::endpoint(address, port));
    resolver_.emplace(loop_.context());
    resolver_->async_resolve(host, std::to_string(port), tcp::resolver::numeric_service,
                             [self = shared_from_this()](const asio::error_code& failed, const auto& found) {
                               self->loop_.enter();
                               if (self->events_ == nullptr) return;
                               // The first only: what is down there is tried again by whoever wants the connection.
                               if (failed || found.empty()) return self->end(TcpEnd::kUnreached);
                               self->connect_to(found.begin()->endpoint());
                             });
  }

  // After it is connected.
  void prepare() {
    asio::error_code ignored;
    socket_.non_blocking(true, ignored);
    const int native = socket_.native_handle();
    set_option(native, IPPROTO_TCP, TCP_NODELAY, 1);
    // An idle peer whose host died is noticed within a minute.
    set_option(native, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(native, IPPROTO_TCP, TCP_KEEPIDLE, 30);
    set_option(native, IPPROTO_TCP, TCP_KEEPINTVL, 10);
    set_option(native, IPPROTO_TCP, TCP_KEEPCNT, 3);
  }

  void read_next() {
    if (reading_ || !socket_.is_open()) return;
    reading_ = true;
    socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](const asio::error_code& error) {
      if (self->at_leisure_ && !error) {
        self->loop_.enter_at_leisure();
        self->loop_.at_leisure([self] { self->read_now(); });
        return;
      }
      self->loop_.enter();
      if (error) {
        self->reading_ = false;
      } else {
        self->read_now();
      }
    });
  }

  size_t write(std::span<const ByteView> pieces) {
    size_t total = 0;
    while (!pieces.empty() && socket_.is_open()) {
      std::array<iovec, kPiecesPerWrite> vectors;
      const size_t count = std::min(pieces.size(), vectors.size());
      size_t wanted = 0;
      for (size_t i = 0; i < count; ++i) {
        vectors[i] = {.iov_base = const_cast<char*>(pieces[i].data()), .iov_len = pieces[i].size()};
        wanted += pieces[i].size();
      }
      const msghdr message{.msg_iov = vectors.data(), .msg_iovlen = count};
      const ssize_t taken = ::sendmsg(socket_.native_handle(), &message, MSG_NOSIGNAL);
      if (taken < 0 && errno == EINTR) continue;
      if (taken < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
          wait_writable();
        } else {
          end_later(TcpEnd::kReset);
        }
        return total;
      }
      total += static_cast<size_t>(taken);
      if (static_cast<size_t>(taken) < wanted) {
        wait_writable();
        return total;
      }
      pieces = pieces.subspan(count);
    }
    return total;
  }

  void end_writing() {
    asio::error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
  }

  void close() {
    events_ = nullptr;
    asio::error_code ignored;
    socket_.close(ignored);
    if (resolver_) resolver_->cancel();
  }

  int native() { return socket_.is_open() ? socket_.native_handle() : -1; }

 private:
  void connect_to(const tcp::endpoint& endpoint) {
    socket_.async_connect(endpoint, [self = shared_from_this()](const asio::error_code& error) {
      self->loop_.enter();
      if (self->events_ == nullptr) return;
      if (error) return self->end(end_of(error) == TcpEnd::kReset ? TcpEnd::kUnreached : end_of(error));
      self->prepare();
      self->events_->on_connected();
    });
  }

  void read_now() {
    reading_ = false;
    read();
  }

  void read() {
    char* const buffer = read_buffer();
    size_t total = 0;
    while (events_ != nullptr && total < kReadBytesPerTurn) {
      const ssize_t got = ::recv(socket_.native_handle(), buffer, kReadBytes, 0);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        if (total == 0) read_next();  // woken for nothing
        return;
      }
      if (got < 0) return end(TcpEnd::kReset);
      if (got == 0) return end(TcpEnd::kClosed);
      total += static_cast<size_t>(got);
      events_->on_bytes(ByteView(buffer, static_cast<size_t>(got)));
      if (static_cast<size_t>(got) < kReadBytes) return;  // that was all
    }
  }

  void wait_writable() {
    if (waiting_writable_) return;
    waiting_writable_ = true;
    socket_.async_wait(tcp::socket::wait_write, [self = shared_from_this()](const asio::error_code& error) {
      self->loop_.enter();
      self->waiting_writable_ = false;
      if (!error && self->events_ != nullptr) self->events_->on_writable();
    });
  }

  void end(TcpEnd how) {
    TcpEvents* const events = std::exchange(events_, nullptr);
    asio::error_code ignored;
    socket_.close(ignored);
    if (events != nullptr) events->on_closed(how);
  }

  void end_later(TcpEnd how) {
    asio::post(loop_.context(), [self = shared_from_this(), how] {
      self->loop_.enter();
      self->end(how);
    });
  }

  Loop& loop_;
  tcp::socket socket_;
  std::optional<tcp::resolver> resolver_;
  TcpEvents* events_ = nullptr;  // null: closed, or not yet wanted
  bool at_leisure_ = false;
  bool reading_ = false;
  bool waiting_writable_ = false;
};

// Completions under way keep the socket; its user keeps this.
class SocketHandle final : public TcpSocket {
 public:
  explicit SocketHandle(std::shared_ptr<Socket> socket) : socket_(std::move(socket)) {}
  ~SocketHandle() override { socket_->close(); }
  SocketHandle(const SocketHandle&) = delete;
  SocketHandle& operator=(const SocketHandle&) = delete;

  void set_events(TcpEvents& events) override { socket_->set_events(&events); }
  void set_at_leisure(bool at_leisure) override { socket_->set_at_leisure(at_leisure); }
  void read_next() override { socket_->read_next(); }
  size_t write(std::span<const ByteView> pieces) override { return socket_->write(pieces); }
  void end_writing() override { socket_->end_writing(); }
  void close() override { socket_->close(); }
  void set_patience(Duration unacknowledged_max) override {
    set_option(socket_->native(), IPPROTO_TCP, TCP_USER_TIMEOUT,
               static_cast<unsigned>(to_milliseconds(unacknowledged_max)));
  }
  void set_unsent_max(uint32_t bytes) override { set_option(socket_->native(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, bytes); }

 private:
  std::shared_ptr<Socket> socket_;
};

class Acceptor : public std::enable_shared_from_this<Acceptor> {
 public:
  Acceptor(Loop& loop, TcpListener::OnAccept on_accept)
      : loop_(loop), acceptor_(loop.context()), on_accept_(std::move(on_accept)) {}

  Status open(const std::string& address, uint16_t port) {
    asio::error_code error;
    tcp::resolver resolver(loop_.context());
    const auto found =
        resolver.resolve(address, std::to_string(port), tcp::resolver::passive | tcp::resolver::numeric_service, error);
    if (error || found.empty()) {
      return fail(ErrorCode::kInvalidArgument, "cannot listen on {}: {}", address, error.message());
    }
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (!error) acceptor_.non_blocking(true, error);
    if (error) return fail(ErrorCode::kIo, "cannot listen on {} port {}: {}", address, port, error.message());
    port_ = acceptor_.local_endpoint(error).port();
    accept_next();
    return {};
  }

  void close() {
    asio::error_code ignored;
    acceptor_.close(ignored);
    loop_.cancel(pause_);
  }
  [[nodiscard]] uint16_t port() const { return port_; }
  [[nodiscard]] uint64_t failures() const { return failures_; }

 private:
  void accept_next() {
    acceptor_.async_wait(tcp::acceptor::wait_read, [self = shared_from_this()](const asio::error_code& error) {
      self->loop_.enter_at_leisure();
      if (!error) self->loop_.at_leisure([self] { self->accept(); });
    });
  }

  // One, and as many more as there is time for.
  void accept() {
    if (!acceptor_.is_open()) return;
    asio::error_code error;
    tcp::socket socket(loop_.context());
    acceptor_.accept(socket, error);
    if (error == asio::error::would_block || error == asio::error::try_again) return accept_next();
    if (error && error != asio::error::connection_aborted) {
      // Out of descriptors or memory, of this process or of the machine: the backlog waits, and nobody spins. Nothing
      // ends this listener but its owner.
      ++failures_;
      pause_ = loop_.call_at(loop_.now() + kAcceptPause, [this] {
        pause_ = 0;
        accept_next();
      });
      return;
    }
    if (!error) {
      auto accepted = std::make_shared<Socket>(loop_, std::move(socket));
      accepted->prepare();
      on_accept_(std::make_unique<SocketHandle>(std::move(accepted)));
    }
    loop_.at_leisure([self = shared_from_this()] { self->accept(); });
  }

  Loop& loop_;
  tcp::acceptor acceptor_;
  TcpListener::OnAccept on_accept_;
  TimerId pause_ = 0;
  uint64_t failures_ = 0;
  uint16_t port_ = 0;
};

class AcceptorHandle final : public TcpListener {
 public:
  explicit AcceptorHandle(std::shared_ptr<Acceptor> acceptor) : acceptor_(std::move(acceptor)) {}
  ~AcceptorHandle() override { acceptor_->close(); }
  AcceptorHandle(const AcceptorHandle&) = delete;
  AcceptorHandle& operator=(const AcceptorHandle&) = delete;
  [[nodiscard]] uint16_t port() const override { return acceptor_->port(); }
  [[nodiscard]] uint64_t failures() const override { return acceptor_->failures(); }

 private:
  std::shared_ptr<Acceptor> acceptor_;
};

}  // namespace

std::string_view to_string(TcpEnd end) {
  switch (end) {
    case TcpEnd::kClosed:
      return "connection closed";
    case TcpEnd::kReset:
      return "connection reset";
    case TcpEnd::kRefused:
      return "connection refused";
    case TcpEnd::kUnreached:
      return "host not reached";
    case TcpEnd::kTls:
      return "TLS failed";
  }
  return "?";
}

std::unique_ptr<TcpSocket> TcpSocket::connect(Loop& loop, TcpEvents& events, const std::string& host, uint16_t port) {
  auto socket = std::make_shared<Socket>(loop);
  socket->set_events(&events);
  socket->connect(host, port);
  return std::make_unique<SocketHandle>(std::move(socket));
}

Result<std::unique_ptr<TcpListener>> TcpListener::listen(Loop& loop, const std::string& address, uint16_t port,
                                                         OnAccept on_accept) {
  auto acceptor = std::make_shared<Acceptor>(loop, std::move(on_accept));
  RETURN_IF_ERROR(acceptor->open(address, port));
  return std::make_unique<AcceptorHandle>(std::move(acceptor));
}

}  // namespace conclave::net
