// A client of HTTP/1.1 over one connection: one request at a time, its answer whole or in pieces as they come. Connects
// when first used, and again where the connection has ended. On the loop's thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "net/loop.h"
#include "net/tcp.h"

namespace conclave::differential {

struct HttpReply {
  int status = 0;                             // zero: it never came, or cannot be understood
  std::map<std::string, std::string> fields;  // names in lower case
  std::string body;                           // what has come of it
  bool whole = false;
};

class HttpClient final : private net::TcpEvents {
 public:
  // Called with each piece of the answer, and last when it is whole, or will never be.
  using OnReply = std::function<void(HttpReply& reply)>;
  HttpClient(net::Loop& loop, uint16_t port) : loop_(loop), port_(port) {}
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;
  ~HttpClient() override = default;

  void send(std::string_view method, std::string_view target, std::string_view body, OnReply on_reply);

 private:
  void on_connected() override;
  void on_bytes(ByteView bytes) override;
  void on_writable() override { write(); }
  void on_closed(net::TcpEnd end) override;
  void write();
  void take();
  bool take_head();
  bool take_chunk();
  void fail();
  void finish();

  net::Loop& loop_;
  const uint16_t port_;
  std::unique_ptr<net::TcpSocket> socket_;
  bool connected_ = false;
  std::string output_;
  std::string input_;
  OnReply on_reply_;  // of the request under way
  HttpReply reply_;
  bool headed_ = false;
  bool chunked_ = false;
  size_t left_ = 0;  // of the body, or of the chunk with its end
};

}  // namespace conclave::differential
