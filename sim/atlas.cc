#include "sim/atlas.h"

#include <algorithm>

namespace conclave::sim {

void FaultAtlas::put(const SectorFault& fault) {
  auto it = std::ranges::lower_bound(faults_, fault.sector, {}, &SectorFault::sector);
  if (it != faults_.end() && it->sector == fault.sector) {
    *it = fault;
  } else {
    faults_.insert(it, fault);
  }
}

void FaultAtlas::clear(uint64_t sector) {
  auto it = std::ranges::lower_bound(faults_, sector, {}, &SectorFault::sector);
  if (it != faults_.end() && it->sector == sector) faults_.erase(it);
}

void FaultAtlas::clear_from(uint64_t sector) {
  faults_.erase(std::ranges::lower_bound(faults_, sector, {}, &SectorFault::sector), faults_.end());
}

const SectorFault* FaultAtlas::find(uint64_t sector) const {
  auto it = std::ranges::lower_bound(faults_, sector, {}, &SectorFault::sector);
  return it != faults_.end() && it->sector == sector ? &*it : nullptr;
}

std::span<const SectorFault> FaultAtlas::between(uint64_t first, uint64_t last) const {
  auto low = std::ranges::lower_bound(faults_, first, {}, &SectorFault::sector);
  auto high = std::ranges::lower_bound(faults_, last, {}, &SectorFault::sector);
  return {low, high};
}

}  // namespace conclave::sim
