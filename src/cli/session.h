// Session: a lease that is kept alive, and the instant until which it surely stands: counted from when the last
// acknowledged keep-alive was sent, on a clock that goes on while the machine sleeps. Never later than the server's own
// end of it, as long as the two clocks run equally fast (docs of `conclave lock`: the grace covers what they differ).
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "cli/endpoints.h"

namespace conclave::cli {

class Session {
 public:
  struct Options {
    Duration ttl{};       // whole seconds
    Duration interval{};  // between keep-alives
    Duration timeout{};   // of a single call
  };
  // Any thread; called whenever the deadline or is_lost() changed.
  using Changed = std::function<void()>;

  // Grants the lease and begins to keep it alive.
  [[nodiscard]] static std::expected<std::unique_ptr<Session>, Failure> open(Endpoints& endpoints,
                                                                             const Options& options, Changed changed);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  // Ends the keep-alives; the lease ends by itself unless close() was called.
  ~Session();

  [[nodiscard]] int64_t lease() const { return lease_; }
  [[nodiscard]] std::string lease_hex() const;
  // As the server granted it: not less than asked for.
  [[nodiscard]] Duration ttl() const { return ttl_; }
  [[nodiscard]] Instant deadline() const;
  // The server says that the lease is gone.
  [[nodiscard]] bool is_lost() const;
  // Somebody saw otherwise that what hangs on the lease is gone.
  void lose();
  // Revokes the lease, and with it all its keys.
  [[nodiscard]] std::expected<void, Failure> close();

 private:
  Session(Endpoints& endpoints, const Options& options, Changed changed);

  // On the loop's thread.
  void tick();
  void set_timer(Instant at);
  void open_stream();
  void send();
  void on_message(ByteView message);
  void stop();

  Endpoints& endpoints_;
  const Options options_;
  const Changed changed_;
  int64_t lease_ = 0;
  Duration ttl_{};

  // The loop's thread.
  size_t endpoint_ = 0;
  std::unique_ptr<net::ClientCall> call_;
  std::deque<Instant> sent_;  // keep-alives without an answer, in order: the server answers in order
  bool broken_ = false;       // the stream has ended
  Instant next_send_{};
  net::TimerId timer_ = 0;

  mutable std::mutex mutex_;
  Instant deadline_;   // under the mutex
  bool lost_ = false;  // under the mutex
};

}  // namespace conclave::cli
