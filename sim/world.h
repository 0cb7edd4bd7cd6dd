// World: everything around the nodes of one run, in one thread. Owns true time, the machines (gate, clock, disk) and
// the network; knows nothing of what runs on the machines. A harness implements Host, builds its node in on_start from
// the machine's disk, and lets it act only inside callbacks of the world.
//
// Inside a node's callback:
//   - time is machine(i).clock.now(); a deadline of that clock is scheduled with at_local();
//   - disk calls return at once; what waits for them is scheduled with after_disk();
//   - if a disk call gave kCrashed, or the node decides to end, return from it and call crash() (or request_crash(),
//   which
//     is safe from anywhere: it happens when the callback is over).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "sim/clock.h"
#include "sim/decisions.h"
#include "sim/digest.h"
#include "sim/disk.h"
#include "sim/network.h"
#include "sim/scheduler.h"
#include "sim/swarm.h"

namespace conclave::sim {

class Host {
 public:
  virtual ~Host() = default;
  // The machine runs, its gate is open, its disk holds what survived. Builds the node and attaches it to the network.
  virtual void on_start(size_t node) = 0;
  // The process is gone: destroys the node and its files. It is detached already; nothing it does reaches anybody.
  virtual void on_stop(size_t node) = 0;
};

struct Machine {
  Machine(Scheduler& scheduler, Decisions& decisions, size_t index, const DiskOptions& options, Digest& digest,
          Instant zero)
      : gate(scheduler), clock(scheduler, zero, 0), disk(scheduler, decisions, index, options, &digest) {}
  Gate gate;
  NodeClock clock;
  SimDisk disk;
  // The machine may start again; false once a harness has retired it.
  bool may_start = true;
};

class World {
 public:
  // `decisions` must outlive the world. Enables the kinds the parameters turn on.
  World(const SwarmParameters& parameters, Decisions& decisions);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // The host and its nodes must be gone before the world is (declare them after it).
  void set_host(Host* host) { host_ = host; }
  [[nodiscard]] size_t size() const { return machines_.size(); }
  [[nodiscard]] const SwarmParameters& parameters() const { return parameters_; }
  Scheduler& scheduler() { return scheduler_; }
  [[nodiscard]] Instant now() const { return scheduler_.now(); }
  Decisions& decisions() { return decisions_; }
  SimNetwork& network() { return network_; }
  Digest& digest() { return digest_; }
  Machine& machine(size_t node) { return *machines_[node]; }
  [[nodiscard]] bool is_running(size_t node) const { return machines_[node]->gate.is_open(); }

  // --- Life. start: must not run. crash: no effect if it does not run.
  void start(size_t node);
  void start_all();
  void crash(size_t node, CrashMode mode);
  // After the current event, then starts again after `down`; Duration::max(): never.
  void request_crash(size_t node, CrashMode mode, Duration down);
  void freeze(size_t node);
  void thaw(size_t node);

  // --- Events of a node; dropped at its death, waiting while it is frozen.
  // When its clock shows `local` or more, at this rate: after a change of drift it may come early or late, so the node
  // asks its clock again.
  EventHandle at_local(size_t node, Instant local, Callback callback);
  // When the calls made on its disk so far are done.
  EventHandle after_disk(size_t node, Callback callback);
  bool cancel(EventHandle handle) { return scheduler_.cancel(handle); }

  void run_for(Duration time) { scheduler_.run_until(scheduler_.now() + time); }

 private:
  SwarmParameters parameters_;
  Decisions& decisions_;
  Digest digest_;
  Scheduler scheduler_;
  SimNetwork network_;
  std::vector<std::unique_ptr<Machine>> machines_;
  Host* host_ = nullptr;
};

}  // namespace conclave::sim
