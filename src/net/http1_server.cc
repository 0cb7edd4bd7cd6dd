// The server's side of HTTP/1.1: one request at a time, answered in order.
#include <utility>

#include "base/assert.h"
#include "net/http1.h"
#include "net/protocol.h"

namespace conclave::net {
namespace {

constexpr Duration kRequestPatience = std::chrono::seconds(10);
constexpr Duration kIdlePatience = std::chrono::seconds(60);
// What a client may send ahead of the answer it waits for.
constexpr size_t kInputBytesMax = kHttp1HeaderBytesMax + kHttp1BodyBytesMax;

class Http1Server final : public Protocol {
 public:
  Http1Server(ProtocolHost& host, Loop& loop, Service& service)
      : host_(host), loop_(loop), service_(service), patience_(loop.now() + kRequestPatience) {}

  void on_bytes(ByteView bytes) override {
    if (over_) return;
    if (input_.size() + bytes.size() > 2 * kInputBytesMax) return refuse();
    input_.append(bytes);
    if (!answering_) serve();
  }

  void pump(std::string& out, size_t) override {
    out.append(output_);
    output_.clear();
    if (output_.capacity() > kHttp1HeaderBytesMax) output_ = std::string();
  }
  [[nodiscard]] bool is_over() const override { return over_; }
  [[nodiscard]] size_t queued_bytes() const override { return output_.size(); }
  [[nodiscard]] Instant patience() const override { return patience_; }
  void drain() override {
    draining_ = true;
    if (!answering_) over_ = true;
    host_.touch();
  }
  void end() override { over_ = true; }

 private:
  void refuse() {
    over_ = true;
    format_http1({.status = 400, .body = "bad request\n"}, false, false, output_);
    host_.touch();
  }

  void serve() {
    Http1Request parsed;
    switch (parse_http1(input_, parsed)) {
      case Http1Next::kMore:
        return;
      case Http1Next::kBad:
        return refuse();
      case Http1Next::kRequest:
        break;
    }
    input_.erase(0, parsed.bytes);
    answering_ = true;
    patience_ = kNever;
    const bool keep_alive = parsed.keep_alive;
    const bool head = parsed.request.method == "HEAD";
    // The answer may come when this is gone, and must come once: whoever asks twice is not heard.
    service_.on_http(parsed.request, [at = std::weak_ptr(alive_), keep_alive, head,
                                      answered = std::make_shared<bool>(false)](const HttpResponse& response) {
      const std::shared_ptr<Http1Server*> self = at.lock();
      if (self && !std::exchange(*answered, true)) (*self)->answer(response, keep_alive, head);
    });
  }

  void answer(const HttpResponse& response, bool keep_alive, bool head) {
    if (over_) return;
    keep_alive = keep_alive && !draining_;
    format_http1(response, keep_alive, head, output_);
    over_ = !keep_alive;
    answering_ = false;
    patience_ = loop_.now() + kIdlePatience;
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
  const std::shared_ptr<Http1Server*> alive_ = std::make_shared<Http1Server*>(this);
  std::string input_;
  std::string output_;
  Instant patience_;
  bool answering_ = false;
  bool draining_ = false;
  bool over_ = false;
};

}  // namespace

std::unique_ptr<Protocol> make_http1_protocol(ProtocolHost& host, Loop& loop, Service& service) {
  return std::make_unique<Http1Server>(host, loop, service);
}

}  // namespace conclave::net
