// A bare socket for the tests of net: sends what it is told, keeps what it hears.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "net/tcp.h"

namespace conclave::net {

class RawPeer final : public TcpEvents {
 public:
  RawPeer(Loop& loop, uint16_t port) : socket_(TcpSocket::connect(loop, *this, "127.0.0.1", port)) {}
  RawPeer(const RawPeer&) = delete;
  RawPeer& operator=(const RawPeer&) = delete;
  ~RawPeer() override = default;

  void send(std::string_view bytes) {
    to_send_.append(bytes);
    if (connected_) write();
  }
  void close() {
    socket_->close();
    closed_ = true;
  }
  // Hears nothing while it is false; true at first.
  void set_reading(bool reading) {
    if (reading && !reading_ && connected_) socket_->read_next();
    reading_ = reading;
  }
  [[nodiscard]] std::string& received() { return received_; }
  [[nodiscard]] bool is_closed() const { return closed_; }
  [[nodiscard]] bool sent_all() const { return connected_ && to_send_.empty(); }

  void on_connected() override {
    connected_ = true;
    if (reading_) socket_->read_next();
    write();
  }
  void on_bytes(ByteView bytes) override {
    received_.append(bytes);
    if (reading_) socket_->read_next();
  }
  void on_writable() override { write(); }
  void on_closed(TcpEnd) override { closed_ = true; }

 private:
  void write() {
    const ByteView piece = to_send_;
    if (!piece.empty()) to_send_.erase(0, socket_->write({&piece, 1}));
  }

  std::string to_send_;
  std::string received_;
  bool connected_ = false;
  bool reading_ = true;
  bool closed_ = false;
  std::unique_ptr<TcpSocket> socket_;
};

// Accepts and says nothing.
class RawListener {
 public:
  explicit RawListener(Loop& loop) {
    auto made = TcpListener::listen(
        loop, "127.0.0.1", 0, [this](std::unique_ptr<TcpSocket> socket) { sockets_.push_back(std::move(socket)); });
    listener_ = std::move(*made);
  }
  [[nodiscard]] uint16_t port() const { return listener_->port(); }
  [[nodiscard]] size_t accepted() const { return sockets_.size(); }

 private:
  std::vector<std::unique_ptr<TcpSocket>> sockets_;
  std::unique_ptr<TcpListener> listener_;
};

}  // namespace conclave::net
