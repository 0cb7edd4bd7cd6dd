// A service for the tests of net, and what it saw.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/server.h"

namespace conclave::net {

struct EchoCounts {
  size_t opened = 0;
  size_t half_closed = 0;
  size_t cancelled = 0;
  size_t destroyed = 0;
  size_t drained = 0;
  size_t queued_max = 0;  // of any call, seen after a send
};

// Unary: the message back. Stream: each message back, bounded in what it queues. Flood: as many MiB as the message's
// length. Never: no answer. Refuse: status 9. Reason: the same with one. Busy: status 8 with a hint, behind the message
// if there is one. Header: the value of x-test.
class EchoHandler final : public CallHandler {
 public:
  EchoHandler(ServerCall& call, EchoCounts& counts) : call_(call), counts_(counts), path_(call.path()) {
    ++counts_.opened;
  }
  EchoHandler(const EchoHandler&) = delete;
  EchoHandler& operator=(const EchoHandler&) = delete;
  ~EchoHandler() override { ++counts_.destroyed; }

  void on_message(ByteView message) override {
    if (path_ == "/test.Echo/Stream") {
      waiting_.emplace_back(message);
    } else if (path_ == "/test.Echo/Flood") {
      for (size_t i = 0; i < message.size() * 16; ++i) waiting_.emplace_back(size_t{64} << 10, 'f');
    } else {
      text_ = message;
      return;
    }
    go_on();
  }
  void on_half_close() override {
    ++counts_.half_closed;
    half_closed_ = true;
    if (path_ == "/test.Echo/Unary") {
      call_.send(std::move(text_));
      call_.finish({});
    } else if (path_ == "/test.Echo/Refuse") {
      call_.finish({.code = 9, .message = "etcdserver: not today, 100 % sure\n"});
    } else if (path_ == "/test.Echo/Reason") {
      call_.finish({.code = 9, .message = "NOT_TODAY: ask tomorrow", .reason = "NOT_TODAY"});
    } else if (path_ == "/test.Echo/Busy") {
      if (!text_.empty()) call_.send(std::move(text_));
      call_.finish({.code = 8, .message = "too many requests", .retry_after = std::chrono::milliseconds(130)});
    } else if (path_ == "/test.Echo/Header") {
      call_.send(std::string(call_.header("x-test")));
      call_.finish({});
    } else if (path_ != "/test.Echo/Never") {
      go_on();
    }
  }
  void on_cancel() override { ++counts_.cancelled; }
  void on_drained() override {
    ++counts_.drained;
    go_on();
  }

 private:
  void go_on() {
    while (next_ < waiting_.size() && call_.queued_bytes() < (size_t{128} << 10)) {
      call_.send(std::move(waiting_[next_++]));
      counts_.queued_max = std::max(counts_.queued_max, call_.queued_bytes());
    }
    if (half_closed_ && next_ == waiting_.size()) call_.finish({});
  }

  ServerCall& call_;
  EchoCounts& counts_;
  const std::string path_;
  std::string text_;
  std::vector<std::string> waiting_;
  size_t next_ = 0;
  bool half_closed_ = false;
};

class PiecesHandler final : public HttpHandler {
 public:
  explicit PiecesHandler(EchoCounts& counts) : counts_(counts) {}
  PiecesHandler(const PiecesHandler&) = delete;
  PiecesHandler& operator=(const PiecesHandler&) = delete;
  ~PiecesHandler() override { ++counts_.destroyed; }
  void on_cancel() override { ++counts_.cancelled; }
  void on_drained() override { ++counts_.drained; }

 private:
  EchoCounts& counts_;
};

class EchoService final : public Service {
 public:
  std::unique_ptr<CallHandler> open(ServerCall& call) override {
    if (!call.path().starts_with("/test.Echo/")) return nullptr;
    return std::make_unique<EchoHandler>(call, counts);
  }
  std::unique_ptr<HttpHandler> open_http(const HttpRequest& request, HttpAnswer& answer) override {
    if (request.target != "/pieces") return nullptr;
    pieces = &answer;
    return std::make_unique<PiecesHandler>(counts);
  }
  void on_http(const HttpRequest& request, std::function<void(HttpResponse)> answer) override {
    ++http_requests;
    if (request.target == "/later") {
      later = std::move(answer);
    } else {
      answer({.body = request.method + " " + request.target + " " + request.body});
    }
  }

  EchoCounts counts;
  size_t http_requests = 0;
  std::function<void(HttpResponse)> later;
  HttpAnswer* pieces = nullptr;  // of the last request for it
};

}  // namespace conclave::net
