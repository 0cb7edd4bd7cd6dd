// Locks: what is asked for, and what is held then. See Session::lock().
#pragma once

#include "conclave/held.h"

namespace conclave::client {

struct LockOptions {
  // How long to wait; zero: until granted or cancelled.
  std::chrono::milliseconds timeout{0};
  // Ends the wait: the call answers kCancelled, or what came before.
  std::stop_token cancel{};
  // After an owner whose session expired, nobody gets the lock for so long: at most 60 s.
  std::chrono::milliseconds lock_delay{0};
  // For people: what it is held for. At most 256 bytes.
  std::string note{};
  // Several names although the session holds claims: parties that do so can deadlock.
  bool while_holding = false;
  // Where this session holds the very lock by such a call already, it is counted and held once more; the last to let go
  // releases. Otherwise a second call waits for the first to let go. One name only.
  bool reentrant = false;
  // The stop token fires when jeopardy begins: for what must not go on for a moment while nothing is known.
  bool stop_in_jeopardy = false;
  // How long letting go waits for a server's answer, before it is kUnknown.
  std::chrono::milliseconds release_timeout{5000};
  // Where letting go has no caller to answer (the end of a scope).
  std::function<void(HeldEnd)> on_end{};
};

// Locks that are held. At the end of its scope it is let go: stop is asked for, run()'s body waited for, then the claim
// released. Move-only.
class [[nodiscard]] Hold : public Held {
 public:
  Hold(Hold&& other) noexcept = default;
  ~Hold() = default;
  // The same now; what it says is the point of it. Again: the same answer.
  [[nodiscard]] HeldEnd release() { return end(); }

 private:
  friend class Session;
  using Held::Held;
};

}  // namespace conclave::client
