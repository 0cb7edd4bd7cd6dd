// Nemesis: strikes a world with the faults its parameters turn on, at random moments, and mends them again; and the
// second phase, in which a core of the machines is healed for good while the rest stays as it is.
//
// Draws everything from Decisions: a run with some decisions suppressed strikes less, never elsewhere. What happens per
// call or per frame (disk.h, network.h) is not its business.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "sim/world.h"

namespace conclave::sim {

class Nemesis {
 public:
  explicit Nemesis(World& world);

  // Begins to strike; goes on until stop(). Machines may be crashed and started by it from then on.
  void start();
  // Begins nothing any more, and from now on no fault fires anywhere. What was begun goes on, but for what heal()
  // mends.
  void stop();
  // Stops, picks a core (a majority of all, at random, of machines a destroying fault cannot have struck where there
  // are enough; maybe more), mends everything in and between its members and starts those that are down. The others
  // stay broken. Returns who is in the core.
  std::vector<bool> heal_core();
  // The same with every machine.
  void heal_all();
  void heal(const std::vector<bool>& core);

 private:
  void tick();
  bool fires(FaultKind kind);
  // False if it hit nothing: no machine to strike, none running, nothing to damage.
  bool strike(FaultKind kind, Random detail);
  bool strike_network(FaultKind kind, Random& detail, Duration lasting);
  bool strike_process(FaultKind kind, Random& detail, Duration lasting);
  bool strike_disk(FaultKind kind, Random& detail, Duration lasting);
  bool crash(size_t node, CrashMode mode, Duration down);
  void take_image();
  // A machine that destroying faults may strike; false if there is none.
  bool pick_damageable(Random& random, size_t& node) const;

  World& world_;
  bool running_ = false;
  uint64_t epoch_ = 0;  // of partitions: a later one voids the end of an earlier
  std::array<Decisions::Stream, kFaultKinds> streams_{};
  Decisions::Stream time_{};
  std::vector<std::vector<DiskImage>> images_;  // earlier moments of each disk, for rolling back
};

}  // namespace conclave::sim
