// Wakeups: all that a verb's main thread waits for at once: signals (blocked, taken here), news from the loop's thread,
// an instant on the clock that counts suspend, the end of standard input.
#pragma once

#include <sys/types.h>

#include "base/time.h"

namespace conclave::cli {

struct Wakeup {
  int signal = 0;  // zero: none
  bool input_ended = false;
};

class Wakeups {
 public:
  // Blocks the signals that end or inform a process, in this thread and those it starts; before any is started.
  Wakeups();
  Wakeups(const Wakeups&) = delete;
  Wakeups& operator=(const Wakeups&) = delete;
  ~Wakeups();

  // Any thread: the wait ends.
  void notify() const;
  // Until a signal, a notification or `until`; with_input: or the end of standard input, which is read and dropped.
  [[nodiscard]] Wakeup wait(Instant until, bool with_input = false) const;

 private:
  int signals_;
  int timer_;
  int news_;
};

// Asks this process to end.
[[nodiscard]] bool is_ending_signal(int signal);

}  // namespace conclave::cli
