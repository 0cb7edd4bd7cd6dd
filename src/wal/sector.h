// The sector: the grain of everything that tears or rots. Every 512 bytes of a segment carry the number of the batch
// they belong to, twice, their place, and a checksum. From these four recovery tells what a sector is without knowing
// what it should be. Format: docs/internals/formats/log.md, "Sector".
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/limits.h"
#include "base/types.h"

namespace conclave::wal {

// Whose log this is. Part of every checksum: a sector of another server's log is never taken for one of ours.
struct Owner {
  ClusterId cluster;
  NodeId node;
  friend bool operator==(const Owner&, const Owner&) = default;
};
// Where every checksum of this owner's segments begins.
[[nodiscard]] uint32_t checksum_seed(const Owner& owner);

inline constexpr size_t kSectorsPerBlock = kBlockBytes / kSectorBytes;

// Offsets inside a sector.
inline constexpr size_t kStampFrontAt = 0;    // 8: the batch's stamp
inline constexpr size_t kSlotAt = 8;          // 4: the file
inline constexpr size_t kPlaceAt = 12;        // 4: the sector's place in the file
inline constexpr size_t kFirstRecordAt = 16;  // 2: where in the payload the first record begins, or kNoRecord
inline constexpr size_t kPayloadAt = 20;
inline constexpr size_t kChecksumAt = 500;   // 4: of all before it
inline constexpr size_t kStampBackAt = 504;  // 8: the stamp again; only read where the checksum is wrong
inline constexpr size_t kSectorPayloadBytes = kChecksumAt - kPayloadAt;
inline constexpr uint16_t kNoRecord = 0xffff;

// Batch numbers are never used twice in one log, whatever crashes: so a stamp alone tells the lap of a recycled
// segment. 48 bits: ten thousand batches a second for 892 years.
inline constexpr uint64_t kBatchNumberMax = (uint64_t{1} << 48) - 1;

// The number, and 16 bits of checksum above it.
[[nodiscard]] uint64_t make_stamp(uint32_t seed, uint64_t number);
// Zero if it is no stamp of this owner.
[[nodiscard]] uint64_t number_of_stamp(uint32_t seed, uint64_t stamp);

// Completes a sector whose payload stands: stamps, place, checksum.
void seal_sector(char* sector, uint32_t seed, uint64_t stamp, uint32_t slot, uint32_t place, uint16_t first_record);
// The same of neighbours, from `place` on, one for each of first_records; several at once.
void seal_sectors(char* sectors, uint32_t seed, uint64_t stamp, uint32_t slot, uint32_t place,
                  std::span<const uint16_t> first_records);

enum class SectorState : uint8_t {
  kGood,       // of this use of the segment, whole
  kUnwritten,  // not written in this use: zeros, or what an earlier use left
  kTorn,       // one of its stamps is of this use, the other is not: written in part
  kBad,        // none of these: damage, or not readable
};

// One use of a segment file: the numbers its batches can have.
struct SegmentUse {
  uint32_t seed = 0;
  uint32_t slot = 0;
  uint64_t first_number = 0;
  uint64_t end_number = 0;  // one past the last possible
};

struct SectorFinding {
  SectorState state = SectorState::kBad;
  // The batch of this use it belongs to, or zero. Of a torn or bad sector: what one of its stamps claims.
  uint64_t number = 0;
};
[[nodiscard]] SectorFinding examine_sector(const char* sector, const SegmentUse& use, uint32_t place);

// True if each of four neighbours from `place` on is good and of batch `number`, as nearly all are: quicker than to
// examine them one by one.
[[nodiscard]] bool are_four_good(const char* sectors, const SegmentUse& use, uint32_t place, uint64_t number);

// True if the sector is whole and of this owner, slot and place, whatever its use; then `number` is its batch's.
[[nodiscard]] bool is_whole_sector(const char* sector, uint32_t seed, uint32_t slot, uint32_t place, uint64_t& number);

}  // namespace conclave::wal
