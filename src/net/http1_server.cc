// The server's side of HTTP/1.1: one request at a time, answered in order, at once, later or in pieces.
#include <utility>

#include "base/assert.h"
#include "base/mark.h"
#include "net/http1.h"
#include "net/protocol.h"

namespace conclave::net {
namespace {

constexpr Duration kRequestPatience = std::chrono::seconds(10);
constexpr Duration kIdlePatience = std::chrono::seconds(60);
// What a client may send ahead of the answer it waits for.
constexpr size_t kAheadBytesMax = size_t{160} << 10;
constexpr size_t kInputBytesMax = kHttp1HeaderBytesMax + kHttp1BodyBytesMax + kAheadBytesMax;
// HttpHandler::on_drained().
constexpr size_t kDrainedBytes = size_t{64} << 10;

class Http1Server final : public Protocol, private HttpAnswer {
 public:
  Http1Server(ProtocolHost& host, Loop& loop, Service& service, HeldBytes& held)
      : host_(host), loop_(loop), service_(service), held_(held), patience_(loop.now() + kRequestPatience) {}
  Http1Server(const Http1Server&) = delete;
  Http1Server& operator=(const Http1Server&) = delete;
  ~Http1Server() override {
    held_.requests -= counted_input_;
    held_.responses -= counted_output_;
  }

  void on_bytes(ByteView bytes) override {
    if (over_) return;
    buried_.reset();
    if (input_.size() + bytes.size() > (answering_ ? kAheadBytesMax : kInputBytesMax)) return refuse(400);
    input_.append(bytes);
    count();
    if (held_.requests > kRequestBytesHeldMax) {
      REACHED(net_http1_requests_full);
      return refuse(503);
    }
    // A body that comes in drops is not looked at before it is whole.
    if (!answering_ && input_.size() >= wanted_) serve();
  }

  void pump(std::string& out, size_t bytes_max) override {
    buried_.reset();
    const size_t taken = std::min(queued_bytes(), bytes_max - std::min(bytes_max, out.size()));
    out.append(output_, sent_, taken);
    sent_ += taken;
    if (sent_ == output_.size()) {
      output_.clear();
      sent_ = 0;
      if (output_.capacity() > kHttp1HeaderBytesMax) output_ = std::string();
    }
    count();
    if (above_ && queued_bytes() < kDrainedBytes) {
      above_ = false;
      if (handler_) handler_->on_drained();
    }
  }
  [[nodiscard]] bool is_over() const override { return over_ && queued_bytes() == 0; }
  [[nodiscard]] size_t queued_bytes() const override { return output_.size() - sent_; }
  [[nodiscard]] Instant patience() const override { return patience_; }
  [[nodiscard]] Presence presence() const override {
    if (answering_) return Presence::kBusy;
    return asked_ && !over_ ? Presence::kIdle : Presence::kGreeting;
  }
  void take_leave() override {}
  void drain() override {
    draining_ = true;
    if (!answering_) over_ = true;
    host_.touch();
  }
  void end() override {
    over_ = true;
    cancel();
  }

 private:
  void cancel() {
    if (!handler_) return;
    buried_ = std::move(handler_);
    buried_->on_cancel();
  }

  void refuse(int status) {
    over_ = true;
    cancel();
    // In the middle of an answer there is no place for a word.
    if (!answering_) {
      const bool is_bad = status == 400;
      format_http1({.status = status,
                    .body = is_bad ? "bad request\n" : "too many requests\n",
                    .retry_after = is_bad ? Duration::zero() : kRetryAfter},
                   false, false, output_);
    }
    host_.touch();
  }

  // What is held for all connections together.
  void count() {
    held_.requests += input_.size() - counted_input_;
    held_.responses += queued_bytes() - counted_output_;
    counted_input_ = input_.size();
    counted_output_ = queued_bytes();
  }

  void serve() {
    Http1Request parsed;
    switch (parse_http1(input_, parsed)) {
      case Http1Next::kMore:
        if (parsed.expects_continue && wanted_ == 0 && parsed.bytes > 0) {
          output_.append(kHttp1Continue);
          host_.touch();
        }
        wanted_ = parsed.bytes;
        return;
      case Http1Next::kBad:
        return refuse(400);
      case Http1Next::kRequest:
        break;
    }
    wanted_ = 0;
    input_.erase(0, parsed.bytes);
    if (input_.capacity() > kInputBytesMax / 2) input_.shrink_to_fit();
    count();
    if (held_.responses > kResponseBytesHeldMax) {
      REACHED(net_http1_answers_full);
      return refuse(503);
    }
    answering_ = true;
    asked_ = true;
    patience_ = kNever;
    keep_alive_ = parsed.keep_alive;
    is_head_ = parsed.request.method == "HEAD";
    is_1_1_ = parsed.is_1_1;
    std::unique_ptr<HttpHandler> handler = service_.open_http(parsed.request, *this);
    if (!answering_) {
      buried_ = std::move(handler);  // answered at once
      return;
    }
    handler_ = std::move(handler);
    if (handler_) return;
    // The answer may come when this is gone, and must come once: whoever asks twice is not heard.
    service_.on_http(parsed.request, [at = std::weak_ptr(alive_),
                                      answered = std::make_shared<bool>(false)](const HttpResponse& response) {
      const std::shared_ptr<Http1Server*> self = at.lock();
      if (self && !std::exchange(*answered, true)) (*self)->answer(response);
    });
  }

  // ---- HttpAnswer ----

  void answer(const HttpResponse& response) override {
    if (over_) return;
    format_http1(response, keeps_alive(), is_head_, output_);
    answered();
  }
  void begin(const HttpResponse& head) override {
    if (over_) return;
    if (!is_1_1_) keep_alive_ = false;
    format_http1_head(head, keeps_alive(), is_1_1_, output_);
    host_.touch();
  }
  void send(std::string_view piece) override {
    if (over_ || is_head_) return;
    if (is_1_1_) {
      format_http1_chunk(piece, output_);
    } else {
      output_.append(piece);
    }
    count();
    if (queued_bytes() > kDrainedBytes) above_ = true;
    host_.touch();
  }
  void finish() override {
    if (over_) return;
    if (is_1_1_ && !is_head_) output_.append(kHttp1LastChunk);
    answered();
  }

  [[nodiscard]] bool keeps_alive() const { return keep_alive_ && !draining_; }

  void answered() {
    over_ = !keeps_alive();
    answering_ = false;
    buried_ = std::move(handler_);
    patience_ = loop_.now() + kIdlePatience;
    count();
    host_.touch();
    // What was sent ahead is served in a later turn: answers given at once do not nest.
    if (!over_ && !input_.empty()) {
      loop_.post([at = std::weak_ptr(alive_)] {
        const std::shared_ptr<Http1Server*> self = at.lock();
        if (self && !(*self)->answering_ && !(*self)->over_) (*self)->serve();
      });
    }
  }

  ProtocolHost& host_;
  Loop& loop_;
  Service& service_;
  HeldBytes& held_;
  const std::shared_ptr<Http1Server*> alive_ = std::make_shared<Http1Server*>(this);
  std::string input_;
  size_t wanted_ = 0;  // of the input, before it is worth another look
  std::string output_;
  size_t sent_ = 0;  // of the output, given out
  size_t counted_input_ = 0;
  size_t counted_output_ = 0;
  std::unique_ptr<HttpHandler> handler_;  // of the request that is being answered, if it has one
  std::unique_ptr<HttpHandler> buried_;   // ends when none of its functions is running
  Instant patience_;
  bool answering_ = false;
  bool asked_ = false;  // a whole request came
  bool keep_alive_ = false;
  bool is_head_ = false;
  bool is_1_1_ = false;
  bool above_ = false;  // queued bytes were above kDrainedBytes since on_drained() was called
  bool draining_ = false;
  bool over_ = false;
};

}  // namespace

std::unique_ptr<Protocol> make_http1_protocol(ProtocolHost& host, Loop& loop, Service& service, HeldBytes& held) {
  return std::make_unique<Http1Server>(host, loop, service, held);
}

}  // namespace conclave::net
