#include "sim/partitions.h"

#include <numeric>

#include "base/assert.h"

namespace conclave::sim {

Connectivity Connectivity::directed(size_t size, uint64_t bits) {
  Connectivity graph(size, false);
  for (size_t from = 0; from < size; ++from) {
    for (size_t to = 0; to < size; ++to) {
      if (from == to) continue;
      graph.set(from, to, (bits & 1) != 0);
      bits >>= 1;
    }
  }
  return graph;
}

Connectivity Connectivity::undirected(size_t size, uint64_t bits) {
  Connectivity graph(size, false);
  for (size_t a = 0; a < size; ++a) {
    for (size_t b = a + 1; b < size; ++b) {
      graph.set_both(a, b, (bits & 1) != 0);
      bits >>= 1;
    }
  }
  return graph;
}

size_t Connectivity::mutual_degree(size_t node) const {
  size_t degree = 0;
  for (size_t other = 0; other < size_; ++other) degree += open(node, other) && open(other, node) ? 1 : 0;
  return degree;
}

bool Connectivity::has_quorum_centre() const {
  for (size_t node = 0; node < size_; ++node) {
    if (mutual_degree(node) > size_ / 2) return true;
  }
  return false;
}

size_t Connectivity::closed_count() const {
  size_t closed = 0;
  for (size_t from = 0; from < size_; ++from) {
    for (size_t to = 0; to < size_; ++to) closed += open(from, to) ? 0 : 1;
  }
  return closed;
}

Connectivity make_partition(FaultKind kind, size_t size, Random& random) {
  Connectivity graph(size);
  if (size < 2) return graph;
  std::vector<size_t> nodes(size);
  std::iota(nodes.begin(), nodes.end(), size_t{0});
  random.shuffle(std::span<size_t>(nodes));
  const auto cut_groups = [&](size_t first, size_t first_end, size_t second, size_t second_end) {
    for (size_t i = first; i < first_end; ++i) {
      for (size_t k = second; k < second_end; ++k) graph.set_both(nodes[i], nodes[k], false);
    }
  };
  if (size < 3 && kind != FaultKind::kPartition) kind = FaultKind::kIsolation;
  switch (kind) {
    case FaultKind::kPartition: {
      const size_t side = 1 + random.below(size - 1);
      cut_groups(0, side, side, size);
      return graph;
    }
    case FaultKind::kPartitionPartial: {
      // At least one node is left that both groups reach.
      const size_t first = 1 + random.below(size - 2);
      const size_t second = first + 1 + random.below(size - first - 1);
      cut_groups(0, first, first, second);
      return graph;
    }
    case FaultKind::kPartitionBridge: {
      // The last of the shuffled is the bridge.
      const size_t side = 1 + random.below(size - 2);
      cut_groups(0, side, side, size - 1);
      return graph;
    }
    case FaultKind::kPartitionRing:
      for (size_t i = 0; i < size; ++i) {
        for (size_t k = i + 1; k < size; ++k) {
          const bool neighbours = k == i + 1 || (i == 0 && k == size - 1);
          // A ring of three is whole: one edge goes.
          if (!neighbours || (size == 3 && i == 0 && k == 2)) graph.set_both(nodes[i], nodes[k], false);
        }
      }
      return graph;
    case FaultKind::kIsolation: {
      const uint64_t style = random.below(4);  // both ways twice as often as each single way
      for (size_t i = 1; i < size; ++i) {
        if (style != 1) graph.set(nodes[0], nodes[i], false);
        if (style != 2) graph.set(nodes[i], nodes[0], false);
      }
      return graph;
    }
    default:
      UNREACHABLE();
  }
}

}  // namespace conclave::sim
