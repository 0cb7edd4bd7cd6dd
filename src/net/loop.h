// Loop: one thread's event loop, in turns. A turn handles all that is ready, then calls the turn's ends in the order
// they were added: what came in one turn is proposed, written and sent together (one system call per connection, not
// per message). Owns the thread's clock reading; nothing else here reads a clock.
//
// Life: made, given its turn ends and deadline, run() by one thread until stop(). Only post() and stop() may be called
// from other threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/time.h"
#include "env/clock.h"

namespace asio {
class io_context;
}

namespace conclave::net {

// A callback by number, so that it can be cancelled; zero is none.
using TimerId = uint64_t;

class Loop {
 public:
  explicit Loop(env::Clock& clock);
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  ~Loop();

  // For the .cc files of net.
  [[nodiscard]] asio::io_context& context();
  // First in every completion that they hand to the context: the first one of a turn reads the clock.
  void enter();
  // Instead, where all that follows is at_leisure().
  void enter_at_leisure();
  // Once, at the end of this turn, after all that add_turn_end() named; from there: at the end of the next.
  void at_turn_end(std::move_only_function<void()> call);

  // When this turn began.
  [[nodiscard]] Instant now() const { return now_; }

  // Runs `work` on the loop's thread in a later turn. Any thread. Many calls before the loop wakes cost one wake-up.
  void post(std::move_only_function<void()> work);

  // `call` in this turn or a later one, in the order asked, on the loop's thread: what can wait for what others want.
  // While others want something such calls get a quarter of the time, and all of it when nobody did for some
  // milliseconds. Each should be done within a few hundred microseconds: that much it may hold up everybody else.
  void at_leisure(std::move_only_function<void()> call);

  // Called at the end of each turn, in the order added. May queue more work, which makes the next turn come at once.
  void add_turn_end(std::function<void(Instant now)> end);
  // Asked after the turn ends: the loop sleeps no longer than until then. kNever: no deadline. At or before now:
  // another turn follows at once, after what is ready by then was handled.
  void set_deadline(std::function<Instant()> deadline);

  // `call` on the loop's thread, at `at` or up to some milliseconds later.
  TimerId call_at(Instant at, std::move_only_function<void()> call);
  void cancel(TimerId timer);

  void run();
  void stop();

 private:
  struct Implementation;
  void wait();
  void turn();
  void run_leisure();
  std::unique_ptr<Implementation> implementation_;
  Instant now_{};
};

}  // namespace conclave::net
