// Entries per second through three cores on one thread: what consensus itself costs, without disk, network or encoding.
// Writes are durable at once and messages arrive at once; every entry is proposed, written by all three, acknowledged,
// committed and known to be committed everywhere. Also counts what a step in steady state allocates: nothing.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/assert.h"
#include "raft/raft.h"
#include "raft/testing/durable.h"

namespace {

// Counted only inside Raft::step.
bool counting = false;
uint64_t allocations = 0;

}  // namespace

// Not inlined: g++ 12 would otherwise see malloc behind one and free behind the other and call it a mismatch.
__attribute__((noinline)) void* operator new(size_t size) {
  if (counting) ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* memory) noexcept {
  std::free(memory);
}
__attribute__((noinline)) void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace conclave::raft {
namespace {

constexpr size_t kServers = 3;
constexpr uint64_t kCompactEvery = 1 << 16;

class Trio {
 public:
  Trio() {
    std::vector<NodeId> ids;
    for (uint64_t id = 1; id <= kServers; ++id) ids.emplace_back(id);
    const Membership membership = Membership::of_voters(ids);
    for (uint64_t id = 1; id <= kServers; ++id) {
      Options options;
      options.group = GroupId(1);
      options.self = NodeId(id);
      options.boot = Boot(1);
      options.seed = id;
      Durable durable = Durable::bootstrap(options.group, options.self, membership);
      servers_.push_back(std::make_unique<Raft>(options, durable.recover()));
      outputs_.emplace_back();
      inbox_.emplace_back();
    }
    for (size_t i = 0; i < kServers; ++i) step(i, Start{});
    settle();
    while (servers_[0]->status().role != Role::kLeader) {
      now_ = std::max(now_, servers_[0]->next_deadline());
      step(0, Tick{});
      settle();
    }
  }

  // Proposes `count` entries at once, as a driver does with all that arrived, and runs until all have committed them.
  void commit(const std::vector<SharedBytes>& commands) {
    step(0, Propose{.commands = commands});
    settle();
    now_ += std::chrono::microseconds(100);
    if (servers_[0]->status().commit - compacted_ > kCompactEvery) compact();
  }

  [[nodiscard]] LogIndex committed() const {
    LogIndex least = servers_[0]->status().commit;
    for (const auto& server : servers_) least = std::min(least, server->status().commit);
    return least;
  }
  [[nodiscard]] uint64_t steps() const { return steps_; }

 private:
  void step(size_t i, const Input& input) {
    counting = true;
    servers_[i]->step(now_, input, outputs_[i]);
    counting = false;
    ++steps_;
    Output& output = outputs_[i];
    const bool wrote = output.write.has_value();
    const WriteSequence sequence = wrote ? output.write->sequence : WriteSequence();
    for (const Outgoing& outgoing : output.messages) {
      const size_t to = outgoing.message.header.to.value() - 1;
      if (const auto* append = std::get_if<AppendRequest>(&outgoing.message.body);
          append != nullptr && !append->entries.empty()) {
        // Points into the sender's log, which stands still until the sender's next step: delivered now, nothing is
        // copied.
        step(to, Receive{.message = outgoing.message});
      } else {
        inbox_[to].push_back(outgoing.message);
      }
    }
    if (wrote) step(i, WriteDone{.sequence = sequence});
  }

  void settle() {
    for (bool any = true; any;) {
      any = false;
      for (size_t i = 0; i < kServers; ++i) {
        while (!inbox_[i].empty()) {
          any = true;
          std::swap(inbox_[i], scratch_);
          for (const Message& message : scratch_) step(i, Receive{.message = message});
          scratch_.clear();
        }
      }
    }
  }

  void compact() {
    const LogIndex at = committed();
    for (size_t i = 0; i < kServers; ++i) {
      step(i,
           Compact{.mark = {.last = servers_[i]->log().position_at(at), .membership = servers_[i]->membership_at(at)},
                   .keep_from = at.next()});
    }
    settle();
    compacted_ = at;
  }

  Instant now_{std::chrono::seconds(1)};
  std::vector<std::unique_ptr<Raft>> servers_;
  std::vector<Output> outputs_;
  std::vector<std::vector<Message>> inbox_;
  std::vector<Message> scratch_;
  LogIndex compacted_;
  uint64_t steps_ = 0;
};

struct Figure {
  double ns_per_entry = 0;
  double allocations_per_step = 0;
  double steps_per_entry = 0;
};

Figure measure(Trio& trio, size_t depth, size_t entries) {
  std::vector<SharedBytes> commands;
  commands.reserve(depth);
  for (size_t i = 0; i < depth; ++i) commands.push_back(SharedBytes::copy_of(std::string(64, 'v')));
  const LogIndex first = trio.committed();
  const uint64_t steps = trio.steps();
  allocations = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (size_t done = 0; done < entries; done += depth) {
    // A fresh payload for each entry, made by the driver outside of the step.
    for (SharedBytes& command : commands)
      command = SharedBytes::copy_of("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    trio.commit(commands);
  }
  const auto end = std::chrono::steady_clock::now();
  const uint64_t committed = trio.committed() - first;
  ASSERT_CMP(committed, >=, entries);
  const double ns = static_cast<double>(std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count());
  const double all_steps = static_cast<double>(trio.steps() - steps);
  return {.ns_per_entry = ns / static_cast<double>(committed),
          .allocations_per_step = static_cast<double>(allocations) / all_steps,
          .steps_per_entry = all_steps / static_cast<double>(committed)};
}

int run(bool json) {
  constexpr size_t kRounds = 7;
  fmt::print("{:>8} {:>14} {:>14} {:>12} {:>12}\n", "depth", "ns/entry", "entries/s", "steps/entry", "alloc/step");
  Figure deepest;
  for (const auto& [depth, entries] : {std::pair<size_t, size_t>{1, 100'000}, {16, 400'000}, {256, 1'000'000}}) {
    Trio trio;
    measure(trio, depth, 2 * kCompactEvery);  // memory grows to its size
    std::vector<Figure> figures;
    figures.reserve(kRounds);
    for (size_t round = 0; round < kRounds; ++round) figures.push_back(measure(trio, depth, entries));
    std::ranges::sort(figures, {}, &Figure::ns_per_entry);
    deepest = figures[kRounds / 2];
    fmt::print("{:>8} {:>14.0f} {:>14.0f} {:>12.2f} {:>12.4f}\n", depth, deepest.ns_per_entry,
               1e9 / deepest.ns_per_entry, deepest.steps_per_entry, deepest.allocations_per_step);
  }
  if (json) {
    fmt::print("{{\"ns_per_entry_depth256\": {:.0f}, \"allocations_per_step\": {:.4f}}}\n", deepest.ns_per_entry,
               deepest.allocations_per_step);
  }
  return 0;
}

}  // namespace
}  // namespace conclave::raft

int main(int count, char** arguments) {
  return conclave::raft::run(count > 1 && std::string_view(arguments[1]) == "--json");
}
