#include "wal/sector.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/crc32c.h"

namespace conclave::wal {
namespace {

uint32_t sector_checksum(const char* sector, uint32_t seed) {
  return crc32c(ByteView(sector, kChecksumAt), seed);
}

bool is_zero(const char* sector) {
  // Compares the sector with itself, one byte on.
  return sector[0] == 0 && std::memcmp(sector, sector + 1, kSectorBytes - 1) == 0;
}

}  // namespace

uint32_t checksum_seed(const Owner& owner) {
  char raw[16];
  store_le(raw, owner.cluster.value());
  store_le(raw + 8, owner.node.value());
  return crc32c(ByteView(raw, sizeof(raw)));
}

uint64_t make_stamp(uint32_t seed, uint64_t number) {
  char raw[8];
  store_le(raw, number);
  const uint32_t check = crc32c(ByteView(raw, sizeof(raw)), seed);
  return number | (static_cast<uint64_t>((check ^ (check >> 16)) & 0xffff) << 48);
}

uint64_t number_of_stamp(uint32_t seed, uint64_t stamp) {
  const uint64_t number = stamp & kBatchNumberMax;
  return number != 0 && make_stamp(seed, number) == stamp ? number : 0;
}

namespace {

// All but the checksum.
void frame_sector(char* sector, uint64_t stamp, uint32_t slot, uint32_t place, uint16_t first_record) {
  store_le(sector + kStampFrontAt, stamp);
  store_le(sector + kSlotAt, slot);
  store_le(sector + kPlaceAt, place);
  store_le(sector + kFirstRecordAt, first_record);
  store_le(sector + kFirstRecordAt + 2, uint16_t{0});
  store_le(sector + kStampBackAt, stamp);
}

void checksum_four(const char* sectors, uint32_t seed, uint32_t (&out)[4]) {
  const char* const buffers[4] = {sectors, sectors + kSectorBytes, sectors + 2 * kSectorBytes,
                                  sectors + 3 * kSectorBytes};
  crc32c_four(buffers, kChecksumAt, seed, out);
}

}  // namespace

void seal_sector(char* sector, uint32_t seed, uint64_t stamp, uint32_t slot, uint32_t place, uint16_t first_record) {
  frame_sector(sector, stamp, slot, place, first_record);
  store_le(sector + kChecksumAt, sector_checksum(sector, seed));
}

void seal_sectors(char* sectors, uint32_t seed, uint64_t stamp, uint32_t slot, uint32_t place,
                  std::span<const uint16_t> first_records) {
  while (first_records.size() >= 4) {
    for (uint32_t i = 0; i < 4; ++i) frame_sector(sectors + i * kSectorBytes, stamp, slot, place + i, first_records[i]);
    uint32_t checksums[4];
    checksum_four(sectors, seed, checksums);
    for (uint32_t i = 0; i < 4; ++i) store_le(sectors + i * kSectorBytes + kChecksumAt, checksums[i]);
    first_records = first_records.subspan(4);
    sectors += 4 * kSectorBytes;
    place += 4;
  }
  for (const uint16_t first_record : first_records) {
    seal_sector(sectors, seed, stamp, slot, place++, first_record);
    sectors += kSectorBytes;
  }
}

bool are_four_good(const char* sectors, const SegmentUse& use, uint32_t place, uint64_t number) {
  const uint64_t stamp = make_stamp(use.seed, number);
  uint32_t checksums[4];
  checksum_four(sectors, use.seed, checksums);
  bool good = true;
  for (uint32_t i = 0; i < 4; ++i) {
    const char* sector = sectors + i * kSectorBytes;
    good = good && load_le<uint64_t>(sector + kStampFrontAt) == stamp &&
           load_le<uint32_t>(sector + kSlotAt) == use.slot && load_le<uint32_t>(sector + kPlaceAt) == place + i &&
           load_le<uint32_t>(sector + kChecksumAt) == checksums[i];
  }
  return good;
}

bool is_whole_sector(const char* sector, uint32_t seed, uint32_t slot, uint32_t place, uint64_t& number) {
  if (load_le<uint32_t>(sector + kSlotAt) != slot || load_le<uint32_t>(sector + kPlaceAt) != place) return false;
  const uint64_t claimed = number_of_stamp(seed, load_le<uint64_t>(sector + kStampFrontAt));
  if (claimed == 0 || load_le<uint32_t>(sector + kChecksumAt) != sector_checksum(sector, seed)) return false;
  number = claimed;
  return true;
}

SectorFinding examine_sector(const char* sector, const SegmentUse& use, uint32_t place) {
  const auto current = [&](uint64_t number) { return number >= use.first_number && number < use.end_number; };
  const uint64_t front_stamp = load_le<uint64_t>(sector + kStampFrontAt);
  const uint64_t front = number_of_stamp(use.seed, front_stamp);
  const bool intact = front != 0 && load_le<uint32_t>(sector + kChecksumAt) == sector_checksum(sector, use.seed);
  const bool here = load_le<uint32_t>(sector + kSlotAt) == use.slot && load_le<uint32_t>(sector + kPlaceAt) == place;
  if (intact) {
    // Whole, but written for another place: a misdirected write, whatever its number says.
    if (!here) return {.state = SectorState::kBad};
    if (current(front)) return {.state = SectorState::kGood, .number = front};
    // Of an earlier use. A later number cannot be: damage that passes a checksum, or a segment used after it was
    // listed.
    return {.state = front < use.first_number ? SectorState::kUnwritten : SectorState::kBad};
  }
  if (is_zero(sector)) return {.state = SectorState::kUnwritten};

  // The checksum is wrong: the stamps tell a sector written in part from one that was whole and rotted. A rotten bit
  // hits one stamp at most, so a sector of this use keeps the other.
  const uint64_t back_stamp = load_le<uint64_t>(sector + kStampBackAt);
  const uint64_t back = number_of_stamp(use.seed, back_stamp);
  if (here && current(back) && front != back) {
    // Perhaps only the stamp in front is wrong: by a bit, or by a tear in its middle. The one behind stands in for it.
    const uint32_t checksum = crc32c(ByteView(sector + kSlotAt, kChecksumAt - kSlotAt),
                                     crc32c(ByteView(sector + kStampBackAt, sizeof(back_stamp)), use.seed));
    if (load_le<uint32_t>(sector + kChecksumAt) == checksum) return {.state = SectorState::kGood, .number = back};
  }
  const auto earlier = [&](uint64_t stamp, uint64_t number) {
    return stamp == 0 || (number != 0 && number < use.first_number);
  };
  if (current(front) && current(back)) return {.state = SectorState::kBad, .number = std::max(front, back)};
  if (current(front)) {
    return {.state = earlier(back_stamp, back) ? SectorState::kTorn : SectorState::kBad, .number = front};
  }
  if (current(back)) {
    return {.state = earlier(front_stamp, front) ? SectorState::kTorn : SectorState::kBad, .number = back};
  }
  if (earlier(front_stamp, front) || earlier(back_stamp, back)) return {.state = SectorState::kUnwritten};
  return {.state = SectorState::kBad};
}

}  // namespace conclave::wal
