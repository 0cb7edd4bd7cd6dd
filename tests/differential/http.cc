#include "tests/differential/http.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include <fmt/format.h>

namespace conclave::differential {

void HttpClient::send(std::string_view method, std::string_view target, std::string_view body, OnReply on_reply) {
  on_reply_ = std::move(on_reply);
  reply_ = {};
  headed_ = false;
  if (!socket_) {
    connected_ = false;
    input_.clear();
    socket_ = net::TcpSocket::connect(loop_, *this, "127.0.0.1", port_);
  }
  output_ = fmt::format(
      "{} {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", method,
      target, port_, body.size());
  output_ += body;
  if (connected_) write();
}

void HttpClient::on_connected() {
  connected_ = true;
  socket_->read_next();
  write();
}

void HttpClient::write() {
  if (output_.empty()) return;
  const std::array<ByteView, 1> pieces = {output_};
  output_.erase(0, socket_->write(pieces));
}

void HttpClient::on_bytes(ByteView bytes) {
  input_.append(bytes);
  take();
  if (socket_) socket_->read_next();
}

void HttpClient::on_closed(net::TcpEnd) {
  socket_.reset();
  if (on_reply_) fail();
}

void HttpClient::take() {
  if (!on_reply_) return;
  if (!headed_ && !take_head()) return;
  const size_t before = reply_.body.size();
  if (chunked_) {
    while (take_chunk()) {
    }
  } else {
    const size_t taken = std::min(left_, input_.size());
    reply_.body.append(input_, 0, taken);
    input_.erase(0, taken);
    left_ -= taken;
    reply_.whole = left_ == 0;
  }
  if (reply_.whole) {
    finish();
  } else if (on_reply_ && reply_.body.size() > before) {
    on_reply_(reply_);
  }
}

bool HttpClient::take_head() {
  const size_t end = input_.find("\r\n\r\n");
  if (end == std::string::npos) return false;
  std::string_view head(input_.data(), end);
  if (!head.starts_with("HTTP/1.1 ") || head.size() < 12) {
    fail();
    return false;
  }
  std::from_chars(head.data() + 9, head.data() + 12, reply_.status);
  while (true) {
    const size_t line_end = head.find("\r\n");
    if (line_end == std::string_view::npos) break;
    head.remove_prefix(line_end + 2);
    const std::string_view line = head.substr(0, head.find("\r\n"));
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    std::string name(line.substr(0, colon));
    std::ranges::transform(name, name.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; });
    std::string_view value = line.substr(colon + 1);
    value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
    reply_.fields.insert_or_assign(std::move(name), std::string(value));
  }
  input_.erase(0, end + 4);
  headed_ = true;
  chunked_ = reply_.fields.contains("transfer-encoding");
  left_ = 0;
  const std::string& length = reply_.fields["content-length"];
  if (!chunked_) std::from_chars(length.data(), length.data() + length.size(), left_);
  return true;
}

// A chunk as it comes: its end is awaited, since a line of a stream is one chunk or two.
bool HttpClient::take_chunk() {
  const size_t line_end = input_.find("\r\n");
  if (line_end == std::string::npos) return false;
  size_t size = 0;
  const auto [at, error] = std::from_chars(input_.data(), input_.data() + line_end, size, 16);
  if (error != std::errc() || at != input_.data() + line_end || size > (size_t{1} << 30)) {
    fail();
    return false;
  }
  if (size == 0) {
    const size_t trailer_end = input_.find("\r\n\r\n", line_end);
    if (trailer_end == std::string::npos) return false;
    input_.erase(0, trailer_end + 4);
    reply_.whole = true;
    return false;
  }
  if (input_.size() < line_end + 2 + size + 2) return false;
  reply_.body.append(input_, line_end + 2, size);
  input_.erase(0, line_end + 2 + size + 2);
  return true;
}

void HttpClient::fail() {
  socket_.reset();
  reply_.status = 0;
  finish();
}

void HttpClient::finish() {
  const auto closes = reply_.fields.find("connection");
  if (closes != reply_.fields.end() && closes->second == "close") socket_.reset();
  HttpReply reply = std::move(reply_);
  reply_ = {};
  const OnReply on_reply = std::exchange(on_reply_, nullptr);
  on_reply(reply);
}

}  // namespace conclave::differential
