#include <algorithm>

#include "sim/runner.h"

namespace conclave::sim {

std::vector<Decision> shrink(std::vector<Decision> decisions,
                             const std::function<bool(const std::vector<Decision>&)>& fails, uint64_t trials_max) {
  // A failure that needs no fault at all is the commonest answer.
  if (decisions.empty() || fails({})) return {};
  size_t parts = 2;
  uint64_t trials = 1;
  while (decisions.size() > 1 && trials < trials_max) {
    parts = std::min(parts, decisions.size());
    bool smaller = false;
    for (size_t part = 0; part < parts && trials < trials_max; ++part) {
      const size_t begin = decisions.size() * part / parts;
      const size_t end = decisions.size() * (part + 1) / parts;
      std::vector<Decision> rest(decisions.begin(), decisions.begin() + static_cast<ptrdiff_t>(begin));
      rest.insert(rest.end(), decisions.begin() + static_cast<ptrdiff_t>(end), decisions.end());
      ++trials;
      if (!fails(rest)) continue;
      decisions = std::move(rest);
      parts = std::max<size_t>(parts - 1, 2);
      smaller = true;
      break;
    }
    if (smaller) continue;
    if (parts >= decisions.size()) break;
    parts = std::min(parts * 2, decisions.size());
  }
  return decisions;
}

}  // namespace conclave::sim
