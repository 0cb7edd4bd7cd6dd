// Alarm: wakes a loop at an instant of the clock that counts suspend (env::PosixClock), as soon as the machine is
// awake. The loop's own sleep is as long as it was meant to be in time awake: after a suspended hour it would go on for
// the rest of a minute. For who must say at once that a bound is over. Owns a descriptor. On the loop's thread.
#pragma once

#include <functional>
#include <memory>

#include "base/time.h"
#include "net/loop.h"

namespace conclave::net {

class Alarm {
 public:
  // `ring` in a turn of the loop, once for each set(), at that time or later.
  Alarm(Loop& loop, std::function<void()> ring);
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;
  ~Alarm();  // silent from here on

  // In the place of what was set before; the same instant again changes nothing. kNever: not at all.
  void set(Instant at);

 private:
  struct Descriptor;
  std::shared_ptr<Descriptor> descriptor_;
  Instant at_ = kNever;
};

}  // namespace conclave::net
