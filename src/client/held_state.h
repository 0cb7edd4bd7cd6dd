// HeldState: what a Hold or Term has in common with the client's thread: which claims, whether they are held, who is to
// be told. Any thread, but for what says otherwise.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "client/promise.h"
#include "client/session_core.h"
#include "client/session_view.h"

namespace conclave::client {

class Io;

class HeldState : public std::enable_shared_from_this<HeldState> {
 public:
  enum class Kind : uint8_t { kLock, kTerm };
  struct Options {
    Kind kind = Kind::kLock;
    bool reentrant = false;
    bool stop_in_jeopardy = false;
    std::chrono::milliseconds release_timeout{};
    std::function<void(HeldEnd)> on_end;
  };

  HeldState(std::shared_ptr<Io> io, int64_t session, std::shared_ptr<SessionView> view, std::vector<HeldClaim> claims,
            Options options);
  HeldState(const HeldState&) = delete;
  HeldState& operator=(const HeldState&) = delete;
  ~HeldState();

  [[nodiscard]] const std::vector<HeldClaim>& claims() const { return claims_; }
  [[nodiscard]] const Options& options() const { return options_; }
  [[nodiscard]] int64_t session() const { return session_; }
  [[nodiscard]] SessionView& view() const { return *view_; }
  [[nodiscard]] Io& io() const { return *io_; }
  [[nodiscard]] std::stop_token stop_token() const { return stop_.get_token(); }

  [[nodiscard]] bool is_held() const;
  [[nodiscard]] bool is_over() const { return over_.load(std::memory_order_acquire); }
  [[nodiscard]] std::expected<void, Error> wait_held(std::chrono::milliseconds at_most) const;
  // That it is not held, and why.
  [[nodiscard]] Error loss() const;

  void run(std::move_only_function<void(std::stop_token)> body);
  // Asks to stop, waits for the body, releases, waits for what comes of it. The first call does, of all those counted
  // in the last; others have its answer.
  [[nodiscard]] HeldEnd end();
  // While it is asked to be somebody else's it is not held; it is again where that was refused.
  void set_offered(bool offered) { offered_.store(offered, std::memory_order_release); }
  // Held once more. False: it is over, or being released.
  [[nodiscard]] bool count_one_more();

  // ---- The client's thread ----
  enum class Over : uint8_t {
    kLost,
    kClosed,    // with the session, by its owner
    kResigned,  // in favour of somebody
  };
  // Not held from here on.
  void lose(Over how, std::string reason, std::string message);
  void on_jeopardy();

 private:
  using Given = std::move_only_function<void(HeldEnd)>;
  [[nodiscard]] HeldEnd end_of_lost() const;
  void release(Given given);
  void release_at_the_client(Given given);

  const std::shared_ptr<Io> io_;
  const int64_t session_;
  const std::shared_ptr<SessionView> view_;
  const std::vector<HeldClaim> claims_;
  const Options options_;
  std::stop_source stop_;

  std::atomic<bool> over_{false};
  std::atomic<bool> offered_{false};

  mutable std::mutex mutex_;
  size_t count_ = 1;               // under the mutex: of holders
  bool lost_ = false;              // under the mutex: over, and not by end()
  Over how_ = Over::kLost;         // under the mutex
  Error loss_;                     // under the mutex
  bool ending_ = false;            // under the mutex
  std::optional<HeldEnd> result_;  // under the mutex
  std::condition_variable ended_;  // of result_
  // Of run(). Under the mutex: how it and an end on the client's thread, which waits for nobody, come together.
  std::thread body_;
  bool body_runs_ = false;
  bool release_after_body_ = false;
};

}  // namespace conclave::client
