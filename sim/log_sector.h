// LogSector: one record of the minimal log, which is one 512-byte sector. Names its owner, its place and its batch
// twice, so that what a torn write leaves can be told from damage.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/types.h"

namespace conclave::sim {

enum class SectorType : uint8_t {
  kBlank = 1,  // as laid out: every place holds a record from the first day, so that zeros are damage
  kHead = 2,   // first of its batch: the directory
  kEntry = 3,  // one entry
  kTail = 4,   // last of its batch: the directory again
};

// Where and when a sector was written.
struct SectorStamp {
  uint64_t position = 0;  // counts sectors since the log was laid out; modulo the ring's size it is the place
  uint64_t batch = 0;     // never used twice
  uint64_t boot = 0;
  friend bool operator==(const SectorStamp&, const SectorStamp&) = default;
};

struct LogSector {
  static constexpr size_t kPayloadMax = 424;
  SectorType type = SectorType::kBlank;
  GroupId group;
  NodeId node;
  SectorStamp stamp;
  uint64_t previous = 0;  // the batch before this one in the log
  uint16_t number = 0;    // in the batch, from 0
  uint16_t count = 0;     // sectors of the batch
  std::string payload;

  // Appends kSectorBytes.
  void encode(std::string& out) const;
};

// A sector ends in its place, its batch and a hash of its stamp. A tear leaves the front of the new record and the end
// of the old: the end is then an old one, whole, or a hash that differs from the new in every other bit. A few bits
// changed at rest make neither.
struct ReadSector {
  bool sound = false;  // the checksum holds; `sector` is what was written, wherever that was
  LogSector sector;
  // As the bytes say, sound or not.
  SectorStamp front;
  uint64_t back_position = 0;
  uint64_t back_batch = 0;
  bool back_is_whole = false;  // the hash is that of place and batch
  int back_bits_off = 0;       // by which the end's hash differs from that of the front's place and batch
};

// `bytes` is one sector.
[[nodiscard]] ReadSector decode_sector(ByteView bytes);

}  // namespace conclave::sim
