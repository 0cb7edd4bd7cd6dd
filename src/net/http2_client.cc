// The client's side of HTTP/2 with gRPC's framing, over nghttp2. nghttp2 is given bytes when they arrive and asked for
// bytes at the end of a turn, never from within a caller's function. A stream is a Stream in a list; what it tells
// comes from arriving bytes, timers and the connection's end.
#include "net/http2_client.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "net/grpc_framing.h"
#include "net/tcp.h"
#include "net/tls_socket.h"

namespace conclave::net {
namespace {

constexpr int32_t kStreamWindowBytes = 4 << 20;
constexpr int32_t kConnectionWindowBytes = 16 << 20;
constexpr size_t kHeaderListBytesMax = size_t{16} << 10;
constexpr size_t kPumpBytes = size_t{256} << 10;
constexpr size_t kFlushBytesMax = size_t{1} << 20;
constexpr Duration kConnectPatience = std::chrono::seconds(5);
// A server that acknowledges nothing for this long is gone.
constexpr Duration kSilencePatience = std::chrono::seconds(20);

enum GrpcCode : uint32_t {
  kCancelled = 1,
  kUnknown = 2,
  kDeadlineExceeded = 4,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kUnauthenticated = 16,
};

nghttp2_nv header(std::string_view name, std::string_view value, uint8_t flags) {
  return {.name = const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(name.data())),
          .value = const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(value.data())),
          .namelen = name.size(),
          .valuelen = value.size(),
          .flags = flags};
}
// Of texts that live as long as the session.
nghttp2_nv constant(std::string_view name, std::string_view value) {
  return header(name, value, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE);
}

std::string_view view(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// gRPC's table for answers that are not gRPC's.
GrpcStatus status_of_http(int http_status) {
  const auto code = [&]() -> uint32_t {
    switch (http_status) {
      case 400:
        return kInternal;
      case 401:
        return kUnauthenticated;
      case 403:
        return kPermissionDenied;
      case 404:
        return kUnimplemented;
      case 429:
      case 502:
      case 503:
      case 504:
        return kUnavailable;
      default:
        return kUnknown;
    }
  };
  return {.code = code(), .message = fmt::format("the server answered with HTTP status {}", http_status)};
}

// And for streams that were reset.
GrpcStatus status_of_reset(uint32_t error) {
  const auto code = [&]() -> uint32_t {
    switch (error) {
      case NGHTTP2_REFUSED_STREAM:
        return kUnavailable;
      case NGHTTP2_CANCEL:
        return kCancelled;
      case NGHTTP2_ENHANCE_YOUR_CALM:
        return kResourceExhausted;
      case NGHTTP2_INADEQUATE_SECURITY:
        return kPermissionDenied;
      default:
        return kInternal;
    }
  };
  return {.code = code(), .message = fmt::format("the stream was reset: {}", nghttp2_http2_strerror(error))};
}

class Session;

// One call. Owned by the session's list, from its start until nghttp2 closed the stream.
class Stream {
 public:
  explicit Stream(Session& session) : session_(session) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  virtual ~Stream() = default;

  void add_header(std::string_view name, std::string_view value);
  void on_data(ByteView piece);
  // The server sent its last.
  void on_end();
  void on_closed(uint32_t error);
  // Tells the caller, once. Nothing is told afterwards.
  void finish(const GrpcStatus& status);
  // The caller is not interested any more.
  void forget() { finished_ = true; }
  // Resets the stream.
  void reset();

  void send(std::string_view message);
  void half_close();
  [[nodiscard]] ssize_t read(size_t length, uint32_t* flags);
  OutboundMessages& out() { return out_; }
  [[nodiscard]] bool finished() const { return finished_; }

  int32_t id = 0;
  Stream* next = nullptr;
  Stream* previous = nullptr;

 protected:
  virtual void tell_message(ByteView message) = 0;
  virtual void tell_finished(const GrpcStatus& status) = 0;
  Session& session() { return session_; }

 private:
  [[nodiscard]] GrpcStatus final_status() const;
  void fail(uint32_t code, std::string message);

  Session& session_;
  MessageReader reader_{kResponseBytesMax};
  OutboundMessages out_;
  size_t header_list_bytes_ = 0;
  int http_status_ = 0;
  bool is_grpc_ = false;
  std::optional<uint32_t> grpc_status_;
  std::string grpc_message_;
  Duration retry_after_{};
  bool sent_all_ = false;
  bool deferred_ = false;
  bool finished_ = false;
};

class Session final : public Http2Client, public TcpEvents, public std::enable_shared_from_this<Session> {
 public:
  Session(Loop& loop, const std::string& host, uint16_t port);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() override;
  void connect(const std::string& host, uint16_t port, const std::shared_ptr<const TlsContext>& tls);

  [[nodiscard]] bool takes_calls() const override {
    return !dead_ && nghttp2_session_check_request_allowed(session_) != 0;
  }
  [[nodiscard]] bool is_connected() const override { return !dead_ && established_; }
  [[nodiscard]] bool is_dead() const override { return dead_; }
  [[nodiscard]] size_t calls() const override { return calls_; }
  void call(std::string_view path, std::string_view request, Duration timeout, Done done) override;
  [[nodiscard]] std::unique_ptr<ClientCall> open(std::string_view path, ClientCallEvents events) override;
  void abandon() override;

  void on_connected() override;
  void on_bytes(ByteView bytes) override;
  void on_writable() override { touch(); }
  void on_closed(TcpEnd end) override;

  Loop& loop() { return loop_; }
  nghttp2_session* session() { return session_; }
  void touch();

 private:
  struct Callbacks;
  static Session& self(void* user_data) { return *static_cast<Session*>(user_data); }
  Stream* find(int32_t stream) { return static_cast<Stream*>(nghttp2_session_get_stream_user_data(session_, stream)); }
  void start(std::unique_ptr<Stream> stream, std::string_view path, Duration timeout);
  void remove(Stream& stream);
  void on_frame(const nghttp2_frame& frame);
  void flush();
  bool send_output();
  void die(const GrpcStatus& status);

  Loop& loop_;
  const std::string authority_;
  nghttp2_session* session_ = nullptr;
  std::unique_ptr<TcpSocket> socket_;
  Stream* streams_ = nullptr;
  size_t calls_ = 0;
  std::string unsent_;   // given by nghttp2 and not taken by the kernel
  std::string scratch_;  // during flush()
  TimerId patience_ = 0;
  bool connected_ = false;    // the socket
  bool established_ = false;  // and the server's SETTINGS arrived
  bool touched_ = false;
  bool dead_ = false;
};

// Unary.
class CallStream final : public Stream {
 public:
  CallStream(Session& session, Http2Client::Done done) : Stream(session), done_(std::move(done)) {}
  CallStream(const CallStream&) = delete;
  CallStream& operator=(const CallStream&) = delete;
  ~CallStream() override { session().loop().cancel(timer_); }

  void set_timeout(Duration timeout) {
    timer_ = session().loop().call_at(session().loop().now() + timeout, [this] {
      timer_ = 0;
      reset();
      finish({.code = kDeadlineExceeded, .message = "deadline exceeded"});
    });
  }

 protected:
  void tell_message(ByteView message) override {
    if (++messages_ == 1) response_.assign(message);
  }
  void tell_finished(const GrpcStatus& status) override {
    session().loop().cancel(std::exchange(timer_, 0));
    Http2Client::Done done = std::move(done_);
    if (status.ok() && messages_ != 1) {
      done({.code = kInternal, .message = fmt::format("{} answers to one request", messages_)}, {});
    } else {
      done(status, status.ok() ? ByteView(response_) : ByteView());
    }
  }

 private:
  Http2Client::Done done_;
  std::string response_;
  size_t messages_ = 0;
  TimerId timer_ = 0;
};

// Between a stream and its caller's handle: either may end first.
struct Link {
  Stream* stream = nullptr;  // null: closed
  ClientCallEvents events;
};

class OpenStream final : public Stream {
 public:
  OpenStream(Session& session, std::shared_ptr<Link> link) : Stream(session), link_(std::move(link)) {
    link_->stream = this;
  }
  OpenStream(const OpenStream&) = delete;
  OpenStream& operator=(const OpenStream&) = delete;
  ~OpenStream() override { link_->stream = nullptr; }

 protected:
  void tell_message(ByteView message) override {
    if (link_->events.on_message) link_->events.on_message(message);
  }
  void tell_finished(const GrpcStatus& status) override {
    if (link_->events.on_finished) link_->events.on_finished(status);
  }

 private:
  const std::shared_ptr<Link> link_;
};

class OpenCall final : public ClientCall {
 public:
  explicit OpenCall(std::shared_ptr<Link> link) : link_(std::move(link)) {}
  OpenCall(const OpenCall&) = delete;
  OpenCall& operator=(const OpenCall&) = delete;
  ~OpenCall() override {
    Stream* const stream = link_->stream;
    if (stream == nullptr || stream->finished()) return;
    stream->forget();
    stream->reset();
  }
  void send(std::string_view message) override {
    if (link_->stream != nullptr) link_->stream->send(message);
  }
  void half_close() override {
    if (link_->stream != nullptr) link_->stream->half_close();
  }
  [[nodiscard]] size_t queued_bytes() const override {
    return link_->stream == nullptr ? 0 : link_->stream->out().size();
  }

 private:
  const std::shared_ptr<Link> link_;
};

void Stream::add_header(std::string_view name, std::string_view value) {
  header_list_bytes_ += name.size() + value.size() + 32;
  if (header_list_bytes_ > kHeaderListBytesMax) return fail(kInternal, "response headers are too large");
  if (name == ":status") {
    (void)std::from_chars(value.data(), value.data() + value.size(), http_status_);
  } else if (name == "content-type") {
    is_grpc_ = value.starts_with("application/grpc");
  } else if (name == "grpc-status") {
    uint32_t code = kUnknown;
    (void)std::from_chars(value.data(), value.data() + value.size(), code);
    grpc_status_ = code;
  } else if (name == "grpc-message") {
    grpc_message_ = percent_decode(value);
  } else if (name == "grpc-retry-pushback-ms") {
    retry_after_ = parse_pushback(value).value_or(Duration::zero());
  }
}

void Stream::on_data(ByteView piece) {
  if (finished_ || !is_grpc_) return;
  reader_.feed(piece);
  for (;;) {
    ByteView message;
    switch (reader_.next(message)) {
      case MessageReader::Next::kMessage:
        tell_message(message);
        if (finished_) return;
        break;
      case MessageReader::Next::kMore:
        return;
      case MessageReader::Next::kTooLarge:
        return fail(kResourceExhausted, "response message is too large");
      case MessageReader::Next::kCompressed:
      case MessageReader::Next::kMalformed:
        return fail(kInternal, "malformed response message");
    }
  }
}

GrpcStatus Stream::final_status() const {
  if (grpc_status_) {
    if (*grpc_status_ == 0 && reader_.in_message()) {
      return {.code = kInternal, .message = "the response ends within a message"};
    }
    return {.code = *grpc_status_, .message = grpc_message_, .retry_after = retry_after_};
  }
  if (http_status_ != 200) return status_of_http(http_status_);
  return {.code = kUnknown, .message = "the server ended the stream without a status"};
}

void Stream::on_end() {
  finish(final_status());
  // The server is done; what we would still send is of no use to it.
  if (!sent_all_) reset();
}

void Stream::on_closed(uint32_t error) {
  if (finished_) return;
  finish(grpc_status_ || error == NGHTTP2_NO_ERROR ? final_status() : status_of_reset(error));
}

void Stream::finish(const GrpcStatus& status) {
  if (std::exchange(finished_, true)) return;
  tell_finished(status);
}

void Stream::fail(uint32_t code, std::string message) {
  reset();
  finish({.code = code, .message = std::move(message)});
}

void Stream::reset() {
  if (session_.is_dead()) return;
  nghttp2_submit_rst_stream(session_.session(), NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
  session_.touch();
}

void Stream::send(std::string_view message) {
  if (sent_all_ || finished_ || session_.is_dead()) return;
  out_.add(message);
  if (std::exchange(deferred_, false)) nghttp2_session_resume_data(session_.session(), id);
  session_.touch();
}

void Stream::half_close() {
  if (std::exchange(sent_all_, true) || session_.is_dead()) return;
  if (std::exchange(deferred_, false)) nghttp2_session_resume_data(session_.session(), id);
  session_.touch();
}

ssize_t Stream::read(size_t length, uint32_t* flags) {
  const size_t count = std::min(length, out_.size());
  if (count == 0 && !sent_all_) {
    deferred_ = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (sent_all_ && count == out_.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(count);
}

struct Session::Callbacks {
  Callbacks() {
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* user_data) {
          if (Stream* stream = self(user_data).find(frame->hd.stream_id)) {
            stream->add_header(view(name, name_size), view(value, value_size));
          }
          return 0;
        });
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        callbacks, [](nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t size, void* user_data) {
          if (Stream* stream = self(user_data).find(id)) stream->on_data(view(data, size));
          return 0;
        });
    nghttp2_session_callbacks_set_on_frame_recv_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* user_data) {
          self(user_data).on_frame(*frame);
          return 0;
        });
    nghttp2_session_callbacks_set_on_stream_close_callback(
        callbacks, [](nghttp2_session*, int32_t id, uint32_t error, void* user_data) {
          if (Stream* stream = self(user_data).find(id)) {
            stream->on_closed(error);
            self(user_data).remove(*stream);
          }
          return 0;
        });
    nghttp2_session_callbacks_set_send_data_callback(
        callbacks, [](nghttp2_session*, nghttp2_frame*, const uint8_t* head, size_t length, nghttp2_data_source* source,
                      void* user_data) {
          self(user_data).scratch_.append(view(head, 9));
          static_cast<Stream*>(source->ptr)->out().take(length, self(user_data).scratch_);
          return 0;
        });
    nghttp2_option_new(&option);
    nghttp2_option_set_no_closed_streams(option, 1);
  }
  ~Callbacks() {
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
  }
  Callbacks(const Callbacks&) = delete;
  Callbacks& operator=(const Callbacks&) = delete;

  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_option* option = nullptr;
};

Session::Session(Loop& loop, const std::string& host, uint16_t port)
    : loop_(loop),
      authority_(host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                                     : fmt::format("[{}]:{}", host, port)) {
  static const Callbacks kCallbacks;
  const int failed = nghttp2_session_client_new2(&session_, kCallbacks.callbacks, this, kCallbacks.option);
  ASSERT_CMP(failed, ==, 0);
  const std::array<nghttp2_settings_entry, 3> settings = {
      {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
       {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, static_cast<uint32_t>(kStreamWindowBytes)},
       {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(kHeaderListBytesMax)}}};
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kConnectionWindowBytes);
}

Session::~Session() {
  loop_.cancel(patience_);
  while (streams_ != nullptr) delete std::exchange(streams_, streams_->next);
  nghttp2_session_del(session_);
}

void Session::connect(const std::string& host, uint16_t port, const std::shared_ptr<const TlsContext>& tls) {
  socket_ = tls ? connect_tls(loop_, *this, host, port, tls, host) : TcpSocket::connect(loop_, *this, host, port);
  // Until the server's SETTINGS: something that accepts and says nothing is no server.
  patience_ = loop_.call_at(loop_.now() + kConnectPatience, [at = weak_from_this()] {
    const std::shared_ptr<Session> session = at.lock();
    if (!session) return;
    session->patience_ = 0;
    session->die({.code = kUnavailable, .message = "no answer to the attempt to connect"});
  });
}

void Session::call(std::string_view path, std::string_view request, Duration timeout, Done done) {
  auto stream = std::make_unique<CallStream>(*this, std::move(done));
  stream->send(request);
  stream->half_close();
  if (timeout > Duration::zero()) stream->set_timeout(timeout);
  start(std::move(stream), path, timeout);
}

std::unique_ptr<ClientCall> Session::open(std::string_view path, ClientCallEvents events) {
  auto link = std::make_shared<Link>();
  link->events = std::move(events);
  start(std::make_unique<OpenStream>(*this, link), path, Duration::zero());
  return std::make_unique<OpenCall>(std::move(link));
}

void Session::start(std::unique_ptr<Stream> stream, std::string_view path, Duration timeout) {
  std::array<nghttp2_nv, 8> headers = {constant(":method", "POST"),
                                       constant(":scheme", socket_->tls() == nullptr ? "http" : "https"),
                                       header(":path", path, NGHTTP2_NV_FLAG_NO_COPY_NAME),
                                       constant(":authority", authority_),
                                       constant("content-type", "application/grpc"),
                                       constant("te", "trailers")};
  size_t count = 6;
  std::string timeout_text;
  if (timeout > Duration::zero()) {
    timeout_text = format_grpc_timeout(timeout);
    headers[count++] = header("grpc-timeout", timeout_text, NGHTTP2_NV_FLAG_NO_COPY_NAME);
  }
  nghttp2_data_provider provider;
  provider.source.ptr = stream.get();
  provider.read_callback = [](nghttp2_session*, int32_t, uint8_t*, size_t length, uint32_t* flags,
                              nghttp2_data_source* source,
                              void*) { return static_cast<Stream*>(source->ptr)->read(length, flags); };
  // Fails only where takes_calls() is false, or without memory.
  const int32_t id = nghttp2_submit_request(session_, nullptr, headers.data(), count, &provider, stream.get());
  ASSERT_CMP(id, >, 0);
  Stream* const raw = stream.release();
  raw->id = id;
  raw->next = streams_;
  if (streams_ != nullptr) streams_->previous = raw;
  streams_ = raw;
  ++calls_;
  touch();
}

void Session::remove(Stream& stream) {
  if (stream.previous != nullptr) {
    stream.previous->next = stream.next;
  } else {
    streams_ = stream.next;
  }
  if (stream.next != nullptr) stream.next->previous = stream.previous;
  --calls_;
  delete &stream;
}

void Session::on_frame(const nghttp2_frame& frame) {
  if (frame.hd.type == NGHTTP2_SETTINGS && (frame.hd.flags & NGHTTP2_FLAG_ACK) == 0 && !established_) {
    established_ = true;
    loop_.cancel(std::exchange(patience_, 0));
  }
  if (frame.hd.type != NGHTTP2_HEADERS && frame.hd.type != NGHTTP2_DATA) return;
  if ((frame.hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return;
  if (Stream* stream = find(frame.hd.stream_id)) stream->on_end();
}

void Session::touch() {
  if (touched_ || dead_) return;
  touched_ = true;
  loop_.at_turn_end([at = weak_from_this()] {
    if (const std::shared_ptr<Session> session = at.lock()) session->flush();
  });
}

void Session::on_connected() {
  if (socket_->tls() != nullptr && socket_->tls()->protocol() != kChannelProtocol) {
    return die({.code = kUnavailable, .message = "TLS: the server does not offer HTTP/2"});
  }
  connected_ = true;
  socket_->set_patience(kSilencePatience);
  socket_->read_next();
  touch();
}

void Session::on_bytes(ByteView bytes) {
  const std::shared_ptr<Session> alive = shared_from_this();
  touch();  // to be read on
  const ssize_t used = nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  if (used < 0)
    die({.code = kUnavailable, .message = fmt::format("not HTTP/2: {}", nghttp2_strerror(static_cast<int>(used)))});
}

void Session::on_closed(TcpEnd end) {
  if (end == TcpEnd::kTls) {
    return die({.code = kUnavailable, .message = fmt::format("TLS: {}", socket_->tls()->failure())});
  }
  die({.code = kUnavailable, .message = std::string(to_string(end))});
}

bool Session::send_output() {
  size_t flushed = 0;
  if (!unsent_.empty()) {
    const ByteView piece = unsent_;
    const size_t taken = socket_->write({&piece, 1});
    unsent_.erase(0, taken);
    if (!unsent_.empty()) return true;
    flushed = taken;
  }
  while (flushed < kFlushBytesMax) {
    scratch_.clear();
    while (scratch_.size() < kPumpBytes) {
      const uint8_t* data = nullptr;
      const ssize_t size = nghttp2_session_mem_send(session_, &data);
      if (size < 0) return false;
      if (size == 0) break;
      scratch_.append(view(data, static_cast<size_t>(size)));
    }
    if (scratch_.empty() || dead_) return true;
    const ByteView piece = scratch_;
    const size_t taken = socket_->write({&piece, 1});
    flushed += taken;
    if (taken < piece.size()) {
      unsent_.assign(piece.substr(taken));
      return true;
    }
    if (piece.size() < kPumpBytes) return true;
  }
  touch();  // the rest in the next turn
  return true;
}

void Session::flush() {
  touched_ = false;
  if (dead_ || !connected_) return;
  if (!send_output()) return die({.code = kUnavailable, .message = "the connection broke"});
  if (dead_) return;
  if (nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0 && unsent_.empty()) {
    return die({.code = kUnavailable, .message = "the server closes the connection"});
  }
  socket_->read_next();
}

void Session::die(const GrpcStatus& status) {
  if (std::exchange(dead_, true)) return;
  const std::shared_ptr<Session> alive = shared_from_this();
  socket_->close();
  loop_.cancel(std::exchange(patience_, 0));
  // Those told may end other calls of this session: they only mark them, and each is told at most once. None is freed
  // here; a stream may be further up on this thread's stack.
  for (Stream* stream = streams_; stream != nullptr; stream = stream->next) stream->finish(status);
  calls_ = 0;
}

void Session::abandon() {
  if (std::exchange(dead_, true)) return;
  socket_->close();
  loop_.cancel(std::exchange(patience_, 0));
  for (Stream* stream = streams_; stream != nullptr; stream = stream->next) stream->forget();
}

}  // namespace

std::shared_ptr<Http2Client> Http2Client::connect(Loop& loop, const std::string& host, uint16_t port,
                                                  const std::shared_ptr<const TlsContext>& tls) {
  auto session = std::make_shared<Session>(loop, host, port);
  session->connect(host, port, tls);
  return session;
}

}  // namespace conclave::net
