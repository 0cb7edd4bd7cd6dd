// Guardian: a small process beside this one that knows the group of the command and until when it may run. If this
// process is stopped, killed or stuck, it ends the command in time all the same.
#pragma once

#include <sys/types.h>

#include "base/error.h"
#include "base/time.h"

namespace conclave::cli {

// What it holds: SIGTERM to the group at the first instant, SIGKILL at the second. Group zero: nothing to guard.
struct GuardianOrder {
  pid_t group = 0;
  Instant terminate_at = kNever;
  Instant kill_at = kNever;
};

class Guardian {
 public:
  // Forks; before the process has threads.
  [[nodiscard]] static Result<Guardian> start();
  Guardian(Guardian&& other) noexcept;
  Guardian& operator=(Guardian&&) = delete;
  // Sends it home.
  ~Guardian();

  // The newest order holds.
  void order(const GuardianOrder& order) const;
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  Guardian(pid_t pid, int pipe) : pid_(pid), pipe_(pipe) {}
  pid_t pid_;
  int pipe_;
};

}  // namespace conclave::cli
