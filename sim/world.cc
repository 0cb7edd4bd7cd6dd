#include "sim/world.h"

#include <algorithm>

#include "base/assert.h"

namespace conclave::sim {

World::World(const SwarmParameters& parameters, Decisions& decisions)
    : parameters_(parameters),
      decisions_(decisions),
      network_(scheduler_, decisions, parameters.nodes, parameters.network, &digest_) {
  decisions_.enable(parameters_.enabled);
  decisions_.set_clock(scheduler_.now_address());
  for (size_t node = 0; node < parameters_.nodes; ++node) {
    DiskOptions options = parameters_.disk;
    if (!parameters_.damageable[node]) {
      for (size_t i = 0; i < kFaultKinds; ++i) {
        const auto kind = static_cast<FaultKind>(i);
        if (destroys_durable_data(kind)) options.per_million[kind] = 0;
      }
    }
    // Each machine's clock has a zero of its own, hours apart: who compares instants of two machines fails at once.
    const Instant zero = Instant(std::chrono::hours(1 + decisions.generator("world.zero", node).below(1000)));
    machines_.push_back(std::make_unique<Machine>(scheduler_, decisions_, node, options, digest_, zero));
  }
}

World::~World() {
  decisions_.set_clock(nullptr);
}

void World::start(size_t node) {
  Machine& started = *machines_[node];
  ASSERT(!started.gate.is_open());
  if (!started.may_start) return;
  digest_.add(0x5700 + node);
  started.disk.restart();
  started.gate.open();
  if (host_ != nullptr) host_->on_start(node);
}

void World::start_all() {
  for (size_t node = 0; node < size(); ++node) {
    if (!is_running(node)) start(node);
  }
}

void World::crash(size_t node, CrashMode mode) {
  Machine& crashed = *machines_[node];
  if (!crashed.gate.is_open()) return;
  digest_.add(0xdead00 + node);
  digest_.add(scheduler_.now());
  crashed.gate.close();
  network_.detach(node);
  crashed.disk.crash(mode);
  if (host_ != nullptr) host_->on_stop(node);
  if (mode == CrashMode::kPowerLoss) {
    // A machine that starts anew counts from a new zero.
    const Instant zero = Instant(std::chrono::seconds(decisions_.generator("world.reboot", node).fork().below(1000)) +
                                 std::chrono::seconds(1000 * crashed.gate.life()));
    crashed.clock.restart(zero);
  }
}

void World::request_crash(size_t node, CrashMode mode, Duration down) {
  const uint64_t life = machines_[node]->gate.life();
  scheduler_.schedule(scheduler_.now(), [this, node, mode, down, life] {
    if (!is_running(node) || machines_[node]->gate.life() != life) return;
    crash(node, mode);
    if (down == Duration::max()) return;
    scheduler_.schedule(scheduler_.now() + down, [this, node, life] {
      if (!is_running(node) && machines_[node]->gate.life() == life) start(node);
    });
  });
}

void World::freeze(size_t node) {
  if (is_running(node)) machines_[node]->gate.freeze();
}

void World::thaw(size_t node) {
  machines_[node]->gate.thaw();
}

EventHandle World::at_local(size_t node, Instant local, Callback callback) {
  Machine& machine = *machines_[node];
  return scheduler_.schedule(machine.gate, machine.clock.to_true(local), std::move(callback));
}

EventHandle World::after_disk(size_t node, Callback callback) {
  Machine& machine = *machines_[node];
  return scheduler_.schedule(machine.gate, std::max(scheduler_.now(), machine.disk.busy_until()), std::move(callback));
}

}  // namespace conclave::sim
