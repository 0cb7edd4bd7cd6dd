// Held: something that a session holds by a claim: a lock (Hold) or the leadership of an election (Term). What both
// can be asked. Of several names: what is lost of one is lost of all.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/clock.h"
#include "conclave/error.h"

namespace conclave::client {

// What a transaction compares so that it takes effect only while a claim stands: the create revision of `key` is
// `create_revision`. Decided by the cluster when the transaction is applied, so it holds whatever this process slept.
struct Guard {
  std::string key{};
  int64_t create_revision = 0;
  // A serialised etcdserverpb.Compare, for programs that build transactions of their own.
  [[nodiscard]] std::string compare() const;
};

// How something that was held came to its end.
enum class HeldEnd : uint8_t {
  kReleased,     // by us, and it was held until then
  kAlreadyLost,  // it was not held any more when it was to be released: whatever it guarded may have been written by
                 // others meanwhile
  kUnknown,      // no server answered in time. It ends at the latest with the session; releasing goes on until then
};
[[nodiscard]] std::string_view to_string(HeldEnd end);

class HeldState;

// Any thread may ask; one begins run() and lets go.
class Held {
 public:
  Held(Held&& other) noexcept;
  Held& operator=(Held&& other) noexcept = delete;
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

  [[nodiscard]] const std::string& name() const;  // the first, of several
  [[nodiscard]] std::vector<std::string> names() const;
  // The fencing token: the create revision of the claim. It grows from owner to owner of a name; a resource that keeps
  // the highest it has seen and refuses lower ones is safe whatever its clients believe.
  [[nodiscard]] int64_t token() const;  // of the first name
  // Of one of the names; zero: it is not among them.
  [[nodiscard]] int64_t token(std::string_view name) const;

  // Held, as far as can be known: granted, not released, not lost, and by the clock *at this call* the session's bound
  // is not over. True says nothing of the moment after: a process may stop between this and whatever it does next.
  [[nodiscard]] bool is_held() const;
  // Until then the session stands, if nobody ends it by decision. It moves on while the session is renewed.
  [[nodiscard]] BootClock::time_point deadline() const;
  // Waits while the session is in jeopardy, at most so long, and tells whether it is held after all: kLost if not,
  // kNotApplied (IN_JEOPARDY) if that is still open.
  [[nodiscard]] std::expected<void, Error> wait_held(std::chrono::milliseconds at_most) const;
  // Fires once, when it is not held any more and never will be again: when the claim was lost; when the session has
  // ended or counts as ended, which is also the end of a jeopardy that did not end well; when it is being released, at
  // the beginning of that. Not when jeopardy begins, unless the options say so (stop_in_jeopardy): is_held() is false
  // from then on, and may become true again. What is called by it runs on the thread that it fires on: the client's, or
  // the one that releases.
  [[nodiscard]] std::stop_token stop_token() const;
  // One for each name.
  [[nodiscard]] std::vector<Guard> guards() const;
  [[nodiscard]] Guard guard() const;  // of the first name

  // Runs `body` on a thread of its own, the only kind this library starts besides a client's one. It is asked to stop
  // by stop_token(), and waited for before anything is released. Once; without exceptions.
  void run(std::move_only_function<void(std::stop_token)> body);

 protected:
  explicit Held(std::shared_ptr<HeldState> state);
  // As release() of what it is, its outcome told to `on_end` of the options.
  ~Held();
  [[nodiscard]] HeldEnd end();

 private:
  friend class Term;
  std::shared_ptr<HeldState> state_;  // null: moved from
  std::optional<HeldEnd> end_;
  std::atomic<bool> let_go_{false};
};

}  // namespace conclave::client
