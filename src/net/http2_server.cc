// The server's side of HTTP/2 with gRPC's framing, over nghttp2. A stream is a Call; the calls of a connection are in a
// list and are found by nghttp2's stream pointer. nghttp2 is given bytes in on_bytes() and asked for bytes in pump(),
// never from within a handler; everything a handler does only queues.
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "base/mark.h"
#include "net/budget.h"
#include "net/grpc_framing.h"
#include "net/gzip.h"
#include "net/ping_strikes.h"
#include "net/protocol.h"
#include "net/request_fields.h"

namespace conclave::net {
namespace {

constexpr int32_t kStreamWindowBytes = 1 << 20;
constexpr int32_t kConnectionWindowBytes = 16 << 20;
constexpr size_t kHeaderListBytesMax = size_t{16} << 10;
// ServerCall::on_drained().
constexpr size_t kDrainedBytes = size_t{64} << 10;
// A compressed message may be so many times as long when it is not, and costs nothing but itself.
constexpr size_t kInflationUsual = 16;
// Kept for one connection: above it new calls are refused. Reading stops long before where the socket is what is slow;
// this is for peers that hold their HTTP/2 windows shut, whose window updates we must go on reading.
constexpr size_t kQueuedBytesMax = size_t{64} << 20;
// Of request messages that are not whole yet, on one connection: flow control does not bound them, since a message must
// be whole to be handled. Above it the call that brings more is ended.
constexpr size_t kPartialBytesMax = size_t{64} << 20;
constexpr Duration kPrefacePatience = std::chrono::seconds(10);
// For the headers of one request, from their first byte to their last.
constexpr Duration kHeadersPatience = std::chrono::seconds(10);
constexpr std::string_view kTooManyPings = "too_many_pings";  // as gRPC's clients know it: they ask less often then
constexpr std::string_view kEncodings = "identity,gzip";
// Between the two GOAWAY of a drain: calls already on their way are still taken.
constexpr Duration kDrainGrace = std::chrono::milliseconds(100);

// gRPC's numbers, as far as this file says them itself.
enum GrpcCode : uint32_t { kDeadlineExceeded = 4, kResourceExhausted = 8, kUnimplemented = 12, kInternal = 13 };

nghttp2_nv header(std::string_view name, std::string_view value, uint8_t flags) {
  return {.name = const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(name.data())),
          .value = const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(value.data())),
          .namelen = name.size(),
          .valuelen = value.size(),
          .flags = flags};
}
// Of texts that live for ever.
nghttp2_nv constant(std::string_view name, std::string_view value) {
  return header(name, value, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE);
}

std::string_view view(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

bool is_grpc(std::string_view content_type) {
  constexpr std::string_view kType = "application/grpc";
  if (!content_type.starts_with(kType)) return false;
  return content_type.size() == kType.size() || content_type[kType.size()] == '+' || content_type[kType.size()] == ';';
}

class Http2Server;

class Call final : public ServerCall {
 public:
  Call(Http2Server& connection, int32_t id) : connection_(connection), id_(id) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() override;

  [[nodiscard]] std::string_view path() const override {
    return std::string_view(headers_).substr(path_at_, path_size_);
  }
  [[nodiscard]] std::string_view header(std::string_view name) const override;
  [[nodiscard]] Instant deadline() const override { return deadline_; }
  void send(std::string message) override;
  void send_pieces(std::span<std::string> pieces) override;
  void finish(const GrpcStatus& status) override;
  [[nodiscard]] size_t queued_bytes() const override { return out_.size(); }

  // What the connection tells.
  // False: malformed.
  [[nodiscard]] bool add_header(std::string_view name, std::string_view value);
  [[nodiscard]] bool end_of_headers() { return fields_.end_of_headers(); }
  void begin();
  void on_data(ByteView piece);
  void on_half_close();
  void cancel();
  void on_deadline();
  void on_taken();
  void tell_drained();

  // What it asks.
  [[nodiscard]] ssize_t read(size_t length, uint32_t* flags);
  OutboundMessages& out() { return out_; }

  Call* next = nullptr;
  Call* previous = nullptr;

 private:
  // Name and value follow, behind each other.
  struct HeaderSizes {
    uint16_t name;
    uint16_t value;
  };
  void read_messages(ByteView piece);
  void read_compressed(ByteView message);
  void note_spoken();
  void end_with(uint32_t code, std::string message, Duration retry_after = {});
  void answer_http(std::string_view http_status);
  void submit_trailers_only();
  void submit_trailers();
  void note_sent(size_t queued_before);
  void start_response();

  Http2Server& connection_;
  const int32_t id_;
  std::string headers_;
  size_t path_at_ = 0;
  size_t path_size_ = 0;
  size_t header_list_bytes_ = 0;
  RequestFields fields_;
  bool is_post_ = false;
  std::unique_ptr<CallHandler> handler_;  // null before begin() and once finished
  MessageReader reader_{kRequestBytesMax};
  OutboundMessages out_;
  GrpcStatus status_;
  Instant deadline_ = kNever;
  TimerId timer_ = 0;
  bool begun_ = false;
  bool spoken_ = false;           // a whole message came, or the end
  bool tells_encodings_ = false;  // to who used another one
  bool started_ = false;          // the response's headers are submitted
  bool deferred_ = false;         // nghttp2 waits to be told of more data
  bool finished_ = false;
  bool above_ = false;  // queued bytes were above kDrainedBytes since on_drained() was called
};

class Http2Server final : public Protocol {
 public:
  Http2Server(ProtocolHost& host, Loop& loop, Service& service, const ServerOptions& options, HeldBytes& held,
              FrameMemory& memory);
  Http2Server(const Http2Server&) = delete;
  Http2Server& operator=(const Http2Server&) = delete;
  ~Http2Server() override;

  void on_bytes(ByteView bytes) override;
  void pump(std::string& out, size_t bytes_max) override;
  [[nodiscard]] bool is_over() const override {
    return broken_ || (nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0);
  }
  [[nodiscard]] size_t queued_bytes() const override { return queued_; }
  [[nodiscard]] Instant patience() const override {
    if (!established_) return begun_at_ + kPrefacePatience;
    return std::min(ping_until_, heading_ == 0 ? kNever : heading_since_ + kHeadersPatience);
  }
  [[nodiscard]] Presence presence() const override {
    if (broken_ || !asked_) return Presence::kGreeting;
    return speaking_ > 0 ? Presence::kBusy : Presence::kIdle;
  }
  void drain() override;
  void take_leave() override {
    if (!broken_) nghttp2_session_terminate_session(session_, NGHTTP2_NO_ERROR);
  }
  void end() override;

  Loop& loop() { return loop_; }
  Service& service() { return service_; }
  nghttp2_session* session() { return session_; }
  void touch() { host_.touch(); }
  void add_queued(size_t bytes) {
    queued_ += bytes;
    held_.responses += bytes;
  }
  void drop_queued(size_t bytes) {
    queued_ -= bytes;
    held_.responses -= bytes;
  }
  [[nodiscard]] bool is_full() const { return queued_ > kQueuedBytesMax || held_.responses > kResponseBytesHeldMax; }
  // False: too much, here or on all connections.
  [[nodiscard]] bool change_partial(size_t before, size_t after) {
    partial_ += after - before;
    held_.requests += after - before;
    return after <= before || (partial_ <= kPartialBytesMax && held_.requests <= kRequestBytesHeldMax);
  }
  void charge_inflated(size_t compressed, size_t inflated);
  // Handlers end when none of their functions is running.
  void bury(std::unique_ptr<CallHandler> handler) { buried_.push_back(std::move(handler)); }
  void note_drained(int32_t stream) { drained_.push_back(stream); }
  void note_spoken() {
    asked_ = true;
    ++speaking_;
  }
  void note_silent() { --speaking_; }

 private:
  struct Callbacks;
  static Http2Server& self(void* user_data) { return *static_cast<Http2Server*>(user_data); }
  Call* find(int32_t stream) { return static_cast<Call*>(nghttp2_session_get_stream_user_data(session_, stream)); }
  int open_call(int32_t stream);
  void close_call(Call& call);
  void reset_malformed(int32_t stream);
  void on_frame(const nghttp2_frame& frame);
  void on_headers(Call& call, const nghttp2_frame& frame);
  void on_ping(bool is_answer);
  void charge(Budget& budget, int64_t amount = 1);
  void tell_drained();
  void begin_keep_alive();
  void keep_alive();

  ProtocolHost& host_;
  Loop& loop_;
  Service& service_;
  HeldBytes& held_;
  nghttp2_session* session_ = nullptr;
  Call* calls_ = nullptr;
  size_t queued_ = 0;
  size_t partial_ = 0;          // of request messages
  std::string* out_ = nullptr;  // during pump()
  std::vector<std::unique_ptr<CallHandler>> buried_;
  std::vector<int32_t> drained_;
  Instant begun_at_;
  Instant heard_at_;
  TimerId drain_timer_ = 0;
  const KeepAlive keep_alive_;
  TimerId keep_alive_timer_ = 0;  // while there are calls
  Instant ping_until_ = kNever;   // a ping of ours is out and nothing was heard since
  bool pinged_ = false;           // one of ours is not answered
  PingStrikes strikes_;
  int32_t heading_ = 0;  // the stream whose headers are not whole
  Instant heading_since_;
  size_t speaking_ = 0;       // calls that a whole message came of, or the end
  bool asked_ = false;        // there was such a one
  bool established_ = false;  // the client's first SETTINGS arrived
  bool broken_ = false;
  bool ended_ = false;
  // Opening a stream and resetting it at once, or having it reset, costs the client nothing (the "rapid reset"); a
  // client whose many calls run into their time limits does it too, at a lower rate.
  Budget resets_{2000, 500};
  // PING (on which PingStrikes is stricter, unless it is told otherwise) and answers to none of ours, PRIORITY, GOAWAY,
  // empty DATA, frames that HTTP/2 does not know. Restored when we send data: clients measure their bandwidth by a ping
  // for each answer.
  Budget controls_{1000, 100};
  // SETTINGS, the dearest of them: each is acknowledged, and goes through all streams. Restored likewise: a client that
  // measures its bandwidth says so by new ones, a few in all.
  Budget settings_{100, 10};
  // WINDOW_UPDATE. Restored likewise; more of them, since a client with wide windows may give back what it read in
  // pieces, long after we sent the last one.
  Budget windows_{10'000, 1000};
  // KiB of messages that became more than kInflationUsual times as long: a few bytes that cost milliseconds each.
  Budget inflated_{16 << 10, 1 << 10};
};

Call::~Call() {
  connection_.loop().cancel(timer_);
  connection_.drop_queued(out_.size());
  if (spoken_) connection_.note_silent();
  (void)connection_.change_partial(reader_.held_bytes(), 0);
}

std::string_view Call::header(std::string_view name) const {
  std::string_view rest = headers_;
  while (!rest.empty()) {
    HeaderSizes sizes;
    std::memcpy(&sizes, rest.data(), sizeof(sizes));
    rest.remove_prefix(sizeof(sizes));
    if (rest.substr(0, sizes.name) == name) return rest.substr(sizes.name, sizes.value);
    rest.remove_prefix(size_t{sizes.name} + sizes.value);
  }
  return {};
}

bool Call::add_header(std::string_view name, std::string_view value) {
  if (!fields_.take(name, value)) return false;
  // As RFC 9113 counts them. What is above is not kept; begin() refuses the call.
  header_list_bytes_ += name.size() + value.size() + 32;
  if (begun_ || header_list_bytes_ > kHeaderListBytesMax) return true;
  if (headers_.empty()) headers_.reserve(256);
  const HeaderSizes sizes{.name = static_cast<uint16_t>(name.size()), .value = static_cast<uint16_t>(value.size())};
  headers_.append(reinterpret_cast<const char*>(&sizes), sizeof(sizes));
  headers_.append(name);
  if (name == ":path") {
    path_at_ = headers_.size();
    path_size_ = value.size();
  } else if (name == ":method") {
    is_post_ = value == "POST";
  }
  headers_.append(value);
  return true;
}

void Call::begin() {
  begun_ = true;
  if (header_list_bytes_ > kHeaderListBytesMax) return end_with(kResourceExhausted, "request headers are too large");
  if (!is_post_) return answer_http("405");
  if (!is_grpc(header("content-type"))) return answer_http("415");
  if (connection_.is_full()) return end_with(kResourceExhausted, "too many unread answers on this connection");
  if (const std::string_view encoding = header("grpc-encoding"); encoding == "gzip") {
    reader_.take_compressed();
  } else if (!encoding.empty() && encoding != "identity") {
    tells_encodings_ = true;
    return end_with(kUnimplemented, "messages may be compressed by gzip only");
  }
  if (const std::string_view text = header("grpc-timeout"); !text.empty()) {
    const std::optional<Duration> timeout = parse_grpc_timeout(text);
    if (!timeout) return end_with(kInternal, "malformed grpc-timeout");
    deadline_ = connection_.loop().now() + *timeout;
    timer_ = connection_.loop().call_at(deadline_, [this] {
      timer_ = 0;
      on_deadline();
    });
  }
  std::unique_ptr<CallHandler> handler = connection_.service().open(*this);
  if (finished_) {
    if (handler) connection_.bury(std::move(handler));
    return;
  }
  if (!handler) return end_with(kUnimplemented, "unknown method");
  handler_ = std::move(handler);
}

void Call::on_data(ByteView piece) {
  if (handler_ == nullptr) return;
  const size_t held_before = reader_.held_bytes();
  read_messages(piece);
  if (connection_.change_partial(held_before, reader_.held_bytes()) || handler_ == nullptr) return;
  REACHED(net_partial_requests_full);
  end_with(kResourceExhausted, "too many unfinished request messages", kRetryAfter);
}

void Call::read_messages(ByteView piece) {
  reader_.feed(piece);
  for (;;) {
    ByteView message;
    switch (reader_.next(message)) {
      case MessageReader::Next::kMessage:
        note_spoken();
        if (reader_.is_compressed()) {
          read_compressed(message);
        } else {
          handler_->on_message(message);
        }
        if (finished_) return;
        break;
      case MessageReader::Next::kMore:
        return;
      case MessageReader::Next::kTooLarge:
        return end_with(kResourceExhausted, "request message is too large");
      case MessageReader::Next::kCompressed:
        // gRPC's rule: whoever compresses says how.
        return end_with(kInternal, "a compressed message without grpc-encoding");
      case MessageReader::Next::kMalformed:
        return end_with(kInternal, "malformed message prefix");
    }
  }
}

void Call::read_compressed(ByteView message) {
  std::string inflated;
  const Gunzip how = gunzip(message, kRequestBytesMax, inflated);
  connection_.charge_inflated(message.size(), inflated.size());
  switch (how) {
    case Gunzip::kDone:
      return handler_->on_message(inflated);
    case Gunzip::kTooLarge:
      REACHED(net_gzip_bomb);
      return end_with(kResourceExhausted, "request message is too large once it is decompressed");
    case Gunzip::kMalformed:
      return end_with(kInternal, "request message is not gzip");
  }
}

void Call::note_spoken() {
  if (!std::exchange(spoken_, true)) connection_.note_spoken();
}

void Call::on_half_close() {
  if (handler_ == nullptr) return;
  note_spoken();
  if (reader_.in_message()) return end_with(kInternal, "the request ends within a message");
  handler_->on_half_close();
}

void Call::cancel() {
  if (finished_) return;
  finished_ = true;
  if (handler_ == nullptr) return;
  handler_->on_cancel();
  connection_.bury(std::move(handler_));
}

void Call::on_deadline() {
  end_with(kDeadlineExceeded, "context deadline exceeded");
}

// The server's own end of a call.
void Call::end_with(uint32_t code, std::string message, Duration retry_after) {
  if (handler_ != nullptr) {
    handler_->on_cancel();
    connection_.bury(std::move(handler_));
  }
  finish({.code = code, .message = std::move(message), .retry_after = retry_after});
}

void Call::answer_http(std::string_view http_status) {
  finished_ = true;
  const std::array<nghttp2_nv, 1> headers = {constant(":status", http_status)};
  nghttp2_submit_response(connection_.session(), id_, headers.data(), headers.size(), nullptr);
  connection_.touch();
}

void Call::send(std::string message) {
  ASSERT(!finished_);
  const size_t before = out_.size();
  out_.add(std::move(message));
  note_sent(before);
}

void Call::send_pieces(std::span<std::string> pieces) {
  ASSERT(!finished_);
  const size_t before = out_.size();
  out_.add_pieces(pieces);
  note_sent(before);
}

void Call::note_sent(size_t queued_before) {
  connection_.add_queued(out_.size() - queued_before);
  if (out_.size() > kDrainedBytes) above_ = true;
  start_response();
}

void Call::finish(const GrpcStatus& status) {
  ASSERT(!finished_);
  finished_ = true;
  status_ = status;
  connection_.loop().cancel(std::exchange(timer_, 0));
  if (handler_) connection_.bury(std::move(handler_));
  if (started_) {
    start_response();
  } else {
    submit_trailers_only();
  }
}

void Call::start_response() {
  connection_.touch();
  if (started_) {
    if (std::exchange(deferred_, false)) nghttp2_session_resume_data(connection_.session(), id_);
    return;
  }
  started_ = true;
  const std::array<nghttp2_nv, 2> headers = {constant(":status", "200"), constant("content-type", "application/grpc")};
  nghttp2_data_provider provider;
  provider.source.ptr = this;
  provider.read_callback = [](nghttp2_session*, int32_t, uint8_t*, size_t length, uint32_t* flags,
                              nghttp2_data_source* source,
                              void*) { return static_cast<Call*>(source->ptr)->read(length, flags); };
  nghttp2_submit_response(connection_.session(), id_, headers.data(), headers.size(), &provider);
}

ssize_t Call::read(size_t length, uint32_t* flags) {
  const size_t count = std::min(length, out_.size());
  if (count == 0 && !finished_) {
    deferred_ = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (finished_ && count == out_.size()) {
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    submit_trailers();
  }
  return static_cast<ssize_t>(count);
}

// The status's number as text; above 99 there is none.
std::string_view code_text(uint32_t code, std::array<char, 2>& buffer) {
  if (code == 0) return "0";
  const uint32_t known = std::min(code, uint32_t{99});
  if (known < 10) {
    buffer[0] = static_cast<char>('0' + known);
    return {buffer.data(), 1};
  }
  buffer[0] = static_cast<char>('0' + known / 10);
  buffer[1] = static_cast<char>('0' + known % 10);
  return {buffer.data(), 2};
}

// What a status says beside code and message; nothing in most.
class DetailTrailers {
 public:
  explicit DetailTrailers(const GrpcStatus& status) : details_(format_status_details(status)) {
    if (status.retry_after != Duration::zero()) pushback_ = format_pushback(status.retry_after);
  }
  // Behind the first `count`, for which there is room; how many there are then.
  [[nodiscard]] size_t add(std::span<nghttp2_nv> trailers, size_t count) const {
    constexpr uint8_t kFlags = NGHTTP2_NV_FLAG_NO_COPY_NAME;
    if (!pushback_.empty()) trailers[count++] = net::header("grpc-retry-pushback-ms", pushback_, kFlags);
    if (!details_.empty()) trailers[count++] = net::header("grpc-status-details-bin", details_, kFlags);
    return count;
  }

 private:
  std::string pushback_;
  std::string details_;
};

void Call::submit_trailers() {
  if (status_.ok() && status_.message.empty()) {
    const nghttp2_nv ok = constant("grpc-status", "0");
    nghttp2_submit_trailer(connection_.session(), id_, &ok, 1);
    return;
  }
  std::array<char, 2> buffer;
  const std::string message = percent_encode(status_.message);
  const DetailTrailers details(status_);
  std::array<nghttp2_nv, 4> trailers = {
      net::header("grpc-status", code_text(status_.code, buffer), NGHTTP2_NV_FLAG_NO_COPY_NAME)};
  size_t count = 1;
  if (!message.empty()) trailers[count++] = net::header("grpc-message", message, NGHTTP2_NV_FLAG_NO_COPY_NAME);
  count = details.add(trailers, count);
  nghttp2_submit_trailer(connection_.session(), id_, trailers.data(), count);
}

void Call::submit_trailers_only() {
  std::array<char, 2> buffer;
  const std::string message = percent_encode(status_.message);
  const DetailTrailers details(status_);
  std::array<nghttp2_nv, 7> headers = {
      constant(":status", "200"), constant("content-type", "application/grpc"),
      net::header("grpc-status", code_text(status_.code, buffer), NGHTTP2_NV_FLAG_NO_COPY_NAME)};
  size_t count = 3;
  if (!message.empty()) headers[count++] = net::header("grpc-message", message, NGHTTP2_NV_FLAG_NO_COPY_NAME);
  if (tells_encodings_) headers[count++] = constant("grpc-accept-encoding", kEncodings);
  count = details.add(headers, count);
  nghttp2_submit_response(connection_.session(), id_, headers.data(), count, nullptr);
  connection_.touch();
}

void Call::on_taken() {
  if (above_ && !finished_ && out_.size() < kDrainedBytes) {
    above_ = false;
    connection_.note_drained(id_);
  }
}

void Call::tell_drained() {
  if (handler_ != nullptr) handler_->on_drained();
}

// What nghttp2 calls. None of these may throw or fail the session but where it says so.
struct Http2Server::Callbacks {
  Callbacks() {
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_begin_headers_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* user_data) {
          if (frame->hd.type != NGHTTP2_HEADERS) return 0;
          Http2Server& server = self(user_data);
          server.heading_ = frame->hd.stream_id;
          server.heading_since_ = server.loop_.now();
          if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
          return server.open_call(frame->hd.stream_id);
        });
    nghttp2_session_callbacks_set_on_header_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* user_data) {
          Http2Server& server = self(user_data);
          Call* call = server.find(frame->hd.stream_id);
          if (call == nullptr || call->add_header(view(name, name_size), view(value, value_size))) return 0;
          server.reset_malformed(frame->hd.stream_id);
          return int{NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE};
        });
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        callbacks, [](nghttp2_session*, uint8_t, int32_t stream, const uint8_t* data, size_t size, void* user_data) {
          if (Call* call = self(user_data).find(stream)) call->on_data(view(data, size));
          return 0;
        });
    nghttp2_session_callbacks_set_on_frame_recv_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* user_data) {
          self(user_data).on_frame(*frame);
          return 0;
        });
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame*, int, void* user_data) {
          self(user_data).charge(self(user_data).controls_);
          return 0;
        });
    nghttp2_session_callbacks_set_on_stream_close_callback(
        callbacks, [](nghttp2_session*, int32_t stream, uint32_t, void* user_data) {
          // Reset for a header that cannot be: the rest of them is not read.
          if (self(user_data).heading_ == stream) self(user_data).heading_ = 0;
          if (Call* call = self(user_data).find(stream)) self(user_data).close_call(*call);
          return 0;
        });
    nghttp2_session_callbacks_set_send_data_callback(
        callbacks, [](nghttp2_session*, nghttp2_frame*, const uint8_t* head, size_t length, nghttp2_data_source* source,
                      void* user_data) {
          Call& call = *static_cast<Call*>(source->ptr);
          self(user_data).out_->append(view(head, 9));
          call.out().take(length, *self(user_data).out_);
          self(user_data).drop_queued(length);
          self(user_data).controls_.restore();
          self(user_data).settings_.restore();
          self(user_data).windows_.restore();
          self(user_data).strikes_.wipe();
          call.on_taken();
          return 0;
        });
    nghttp2_session_callbacks_set_on_frame_send_callback(
        callbacks, [](nghttp2_session* session, const nghttp2_frame* frame, void* user_data) {
          if (frame->hd.type == NGHTTP2_HEADERS) self(user_data).strikes_.wipe();
          // Ours, for what the client did: a frame that cannot be resets a stream as well as RST_STREAM.
          if (frame->hd.type == NGHTTP2_RST_STREAM && frame->rst_stream.error_code != NGHTTP2_NO_ERROR) {
            self(user_data).charge(self(user_data).resets_);
          }
          // Answered before the client was done: it may stop sending.
          if (frame->hd.type == NGHTTP2_HEADERS && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 &&
              nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id) == 0) {
            nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
          }
          return 0;
        });
    // Frames that HTTP/2 does not know are passed over, as it says, but not for nothing. nghttp2 tells of those only
    // that somebody asked for.
    nghttp2_session_callbacks_set_on_begin_frame_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame_hd* head, void* user_data) {
          if (head->type > NGHTTP2_CONTINUATION) self(user_data).charge(self(user_data).controls_);
          return 0;
        });
    nghttp2_session_callbacks_set_unpack_extension_callback(
        callbacks, [](nghttp2_session*, void**, const nghttp2_frame_hd*, void*) -> int { return NGHTTP2_ERR_CANCEL; });
    nghttp2_option_new(&option);
    for (unsigned type = NGHTTP2_CONTINUATION + 1; type <= 0xff; ++type) {
      nghttp2_option_set_user_recv_extension_type(option, static_cast<uint8_t>(type));
    }
    nghttp2_option_set_no_closed_streams(option, 1);
    // RequestFields does it.
    nghttp2_option_set_no_http_messaging(option, 1);
    // Ours comes first, and says why it ends the connection.
    nghttp2_option_set_max_outbound_ack(option, 10'000);
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

Http2Server::Http2Server(ProtocolHost& host, Loop& loop, Service& service, const ServerOptions& options,
                         HeldBytes& held, FrameMemory& memory)
    : host_(host),
      loop_(loop),
      service_(service),
      held_(held),
      begun_at_(loop.now()),
      heard_at_(loop.now()),
      keep_alive_(options.keep_alive),
      strikes_(options.keep_alive.min_time) {
  static const Callbacks kCallbacks;
  const int failed =
      nghttp2_session_server_new3(&session_, kCallbacks.callbacks, this, kCallbacks.option, memory.functions());
  ASSERT_CMP(failed, ==, 0);
  const std::array<nghttp2_settings_entry, 3> settings = {
      {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options.streams_per_connection_max},
       {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, static_cast<uint32_t>(kStreamWindowBytes)},
       {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(kHeaderListBytesMax)}}};
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kConnectionWindowBytes);
  host_.touch();
}

Http2Server::~Http2Server() {
  ASSERT(ended_);
  nghttp2_session_del(session_);
}

void Http2Server::on_bytes(ByteView bytes) {
  if (broken_) return;
  buried_.clear();
  heard_at_ = loop_.now();
  ping_until_ = kNever;
  const ssize_t used = nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  // Beyond what a GOAWAY tells: not HTTP/2 at all, or out of memory.
  if (used < 0) broken_ = true;
  host_.touch();
}

void Http2Server::pump(std::string& out, size_t bytes_max) {
  buried_.clear();
  out_ = &out;
  while (!broken_ && out.size() < bytes_max) {
    const uint8_t* data = nullptr;
    const ssize_t size = nghttp2_session_mem_send(session_, &data);
    if (size < 0) broken_ = true;
    if (size <= 0) break;
    out.append(view(data, static_cast<size_t>(size)));
  }
  out_ = nullptr;
  tell_drained();
}

void Http2Server::tell_drained() {
  if (drained_.empty()) return;
  const std::vector<int32_t> drained = std::exchange(drained_, {});
  for (const int32_t stream : drained) {
    if (Call* call = find(stream)) call->tell_drained();
  }
}

int Http2Server::open_call(int32_t stream) {
  auto* call = new Call(*this, stream);  // owned by the list
  if (nghttp2_session_set_stream_user_data(session_, stream, call) != 0) {
    delete call;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  }
  call->next = calls_;
  if (calls_ != nullptr) calls_->previous = call;
  calls_ = call;
  begin_keep_alive();
  return 0;
}

void Http2Server::close_call(Call& call) {
  call.cancel();
  if (call.previous != nullptr) {
    call.previous->next = call.next;
  } else {
    calls_ = call.next;
  }
  if (call.next != nullptr) call.next->previous = call.previous;
  delete &call;
}

void Http2Server::reset_malformed(int32_t stream) {
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream, NGHTTP2_PROTOCOL_ERROR);
  charge(controls_);
}

void Http2Server::begin_keep_alive() {
  if (keep_alive_timer_ != 0 || keep_alive_.interval <= Duration::zero() || keep_alive_.timeout <= Duration::zero()) {
    return;
  }
  const Instant at = ping_until_ != kNever ? ping_until_ : heard_at_ + keep_alive_.interval;
  keep_alive_timer_ = loop_.call_at(at, [this] {
    keep_alive_timer_ = 0;
    keep_alive();
  });
}

void Http2Server::keep_alive() {
  // The next call begins it again; or the answer did not come, and patience() ends the connection.
  if (calls_ == nullptr || ping_until_ != kNever) return;
  const Instant now = loop_.now();
  if (now >= heard_at_ + keep_alive_.interval) {
    REACHED(net_keep_alive_ping);
    nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
    pinged_ = true;
    ping_until_ = now + keep_alive_.timeout;
    host_.touch();
  }
  begin_keep_alive();
}

void Http2Server::on_ping(bool is_answer) {
  if (is_answer) {
    if (!std::exchange(pinged_, false)) charge(controls_);
    return;
  }
  if (strikes_.allows(loop_.now(), calls_ != nullptr)) return charge(controls_);
  REACHED(net_too_many_pings);
  // Two of them: only this one can say why, and only nghttp2's own ends the session.
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_),
                        NGHTTP2_ENHANCE_YOUR_CALM, reinterpret_cast<const uint8_t*>(kTooManyPings.data()),
                        kTooManyPings.size());
  nghttp2_session_terminate_session(session_, NGHTTP2_ENHANCE_YOUR_CALM);
}

void Http2Server::charge_inflated(size_t compressed, size_t inflated) {
  const size_t usual = compressed * kInflationUsual;
  if (inflated > usual) charge(inflated_, static_cast<int64_t>((inflated - usual) >> 10));
}

void Http2Server::charge(Budget& budget, int64_t amount) {
  if (budget.spend(loop_.now(), amount)) return;
  REACHED(net_client_floods);
  nghttp2_session_terminate_session(session_, NGHTTP2_ENHANCE_YOUR_CALM);
}

void Http2Server::on_headers(Call& call, const nghttp2_frame& frame) {
  const bool ends = (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  const bool opens = frame.headers.cat == NGHTTP2_HCAT_REQUEST;
  // Trailers are the end.
  if (opens ? !call.end_of_headers() : !ends) return reset_malformed(frame.hd.stream_id);
  if (opens) call.begin();
  if (ends) call.on_half_close();
}

void Http2Server::on_frame(const nghttp2_frame& frame) {
  const bool ends = (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  switch (frame.hd.type) {
    case NGHTTP2_HEADERS:
      heading_ = 0;
      if (Call* call = find(frame.hd.stream_id)) on_headers(*call, frame);
      break;
    case NGHTTP2_DATA:
      if (ends) {
        if (Call* call = find(frame.hd.stream_id)) call->on_half_close();
      } else if (frame.hd.length == frame.data.padlen) {
        charge(controls_);
      }
      break;
    case NGHTTP2_RST_STREAM:
      charge(resets_);
      break;
    case NGHTTP2_SETTINGS:
      established_ = true;
      if ((frame.hd.flags & NGHTTP2_FLAG_ACK) == 0) charge(settings_);
      break;
    case NGHTTP2_PING:
      on_ping((frame.hd.flags & NGHTTP2_FLAG_ACK) != 0);
      break;
    case NGHTTP2_PRIORITY:
    case NGHTTP2_GOAWAY:
      charge(controls_);
      break;
    case NGHTTP2_WINDOW_UPDATE:
      charge(windows_);
      break;
    default:
      break;
  }
}

void Http2Server::drain() {
  if (ended_ || broken_ || drain_timer_ != 0) return;
  nghttp2_submit_shutdown_notice(session_);
  drain_timer_ = loop_.call_at(loop_.now() + kDrainGrace, [this] {
    drain_timer_ = 0;
    nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_),
                          NGHTTP2_NO_ERROR, nullptr, 0);
    host_.touch();
  });
  host_.touch();
}

void Http2Server::end() {
  if (std::exchange(ended_, true)) return;
  broken_ = true;
  loop_.cancel(drain_timer_);
  loop_.cancel(keep_alive_timer_);
  // A handler told here may finish other calls of this connection: they are all still there.
  for (Call* call = calls_; call != nullptr; call = call->next) call->cancel();
  while (calls_ != nullptr) delete std::exchange(calls_, calls_->next);
  buried_.clear();
}

}  // namespace

std::unique_ptr<Protocol> make_http2_protocol(ProtocolHost& host, Loop& loop, Service& service,
                                              const ServerOptions& options, HeldBytes& held, FrameMemory& memory) {
  return std::make_unique<Http2Server>(host, loop, service, options, held, memory);
}

}  // namespace conclave::net
