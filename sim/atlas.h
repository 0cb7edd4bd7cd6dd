// FaultAtlas: what is wrong with the sectors of one file, as an overlay over pristine bytes. The bytes a sound disk
// would give stay where they are; a damaged sector has a replacement here. So a fault can be switched off, a checker
// can ask what the truth is, and the simulator knows whether a good copy is left anywhere and never demands the
// impossible.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/limits.h"
#include "sim/faults.h"

namespace conclave::sim {

using Sector = std::array<char, kSectorBytes>;

struct SectorFault {
  uint64_t sector = 0;
  FaultKind kind = FaultKind::kCorruptSector;
  Sector content{};  // what a read gives; unused for kUnreadableSector
};

// A stretch of one file that does not read as it should.
struct DamagedRange {
  std::string path;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  FaultKind kind = FaultKind::kCorruptSector;
  bool acknowledged = false;  // these bytes were once reported durable
  friend bool operator==(const DamagedRange&, const DamagedRange&) = default;
};

class FaultAtlas {
 public:
  // One fault a sector: a later one takes the place of an earlier one.
  void put(const SectorFault& fault);
  void clear(uint64_t sector);
  // Of all sectors from `sector` on: the file was cut.
  void clear_from(uint64_t sector);
  void clear_all() { faults_.clear(); }
  [[nodiscard]] bool empty() const { return faults_.empty(); }
  [[nodiscard]] const SectorFault* find(uint64_t sector) const;
  // Sorted by sector.
  [[nodiscard]] const std::vector<SectorFault>& all() const { return faults_; }
  // Those with first <= sector < last.
  [[nodiscard]] std::span<const SectorFault> between(uint64_t first, uint64_t last) const;

 private:
  std::vector<SectorFault> faults_;
};

}  // namespace conclave::sim
