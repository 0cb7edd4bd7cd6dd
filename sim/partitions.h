// Connectivity: who can send to whom, and generators of the broken shapes of it that networks are known for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/random.h"
#include "sim/faults.h"

namespace conclave::sim {

// A directed graph on `size` nodes. A node always reaches itself.
class Connectivity {
 public:
  explicit Connectivity(size_t size, bool open = true) : size_(size), open_(size * size, open) {}
  // Bit k of `bits` is the k-th ordered pair (from, to), from != to, in order of from, then to: 12 bits for 4 nodes.
  static Connectivity directed(size_t size, uint64_t bits);
  // Bit k is the k-th pair a < b, in order of a, then b; both directions: 10 bits for 5 nodes.
  static Connectivity undirected(size_t size, uint64_t bits);

  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] bool open(size_t from, size_t to) const { return from == to || open_[from * size_ + to]; }
  void set(size_t from, size_t to, bool open) { open_[from * size_ + to] = open; }
  void set_both(size_t a, size_t b, bool open) {
    set(a, b, open);
    set(b, a, open);
  }
  // Nodes `node` reaches in both directions, itself included.
  [[nodiscard]] size_t mutual_degree(size_t node) const;
  // Some node reaches more than half of all both ways.
  [[nodiscard]] bool has_quorum_centre() const;
  // Directed edges that are missing.
  [[nodiscard]] size_t closed_count() const;

 private:
  size_t size_;
  std::vector<bool> open_;
};

// A random graph of one of the partition kinds (kPartition, kPartitionPartial, kPartitionBridge, kPartitionRing,
// kIsolation). Fewer than two nodes, or fewer than three for a shape that needs them, leave everything open or fall
// back to kIsolation.
[[nodiscard]] Connectivity make_partition(FaultKind kind, size_t size, Random& random);

}  // namespace conclave::sim
