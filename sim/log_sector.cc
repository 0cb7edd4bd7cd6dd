#include "sim/log_sector.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "sim/digest.h"

namespace conclave::sim {
namespace {

// The end: place, batch, hash of both.
constexpr size_t kBack = kSectorBytes - 24;

SectorStamp stamp_at(const char* at) {
  return {.position = load_le<uint64_t>(at), .batch = load_le<uint64_t>(at + 8), .boot = load_le<uint64_t>(at + 16)};
}

uint64_t hash_of(uint64_t position, uint64_t batch) {
  Digest digest;
  digest.add(position);
  digest.add(batch);
  return digest.value();
}

}  // namespace

void LogSector::encode(std::string& out) const {
  ASSERT_CMP(payload.size(), <=, kPayloadMax);
  const size_t start = out.size();
  out.resize(start + kSectorBytes);
  char* at = out.data() + start;
  store_le(at + 4, static_cast<uint32_t>(type) | (static_cast<uint32_t>(payload.size()) << 16));
  store_le(at + 8, group.value());
  store_le(at + 16, node.value());
  store_le(at + 24, stamp.position);
  store_le(at + 32, stamp.batch);
  store_le(at + 40, stamp.boot);
  store_le(at + 48, previous);
  store_le(at + 56, number);
  store_le(at + 58, count);
  std::memcpy(at + 64, payload.data(), payload.size());
  store_le(at + kBack, stamp.position);
  store_le(at + kBack + 8, stamp.batch);
  store_le(at + kBack + 16, hash_of(stamp.position, stamp.batch));
  store_le(at, crc32c(ByteView(at + 4, kSectorBytes - 4)));
}

ReadSector decode_sector(ByteView bytes) {
  ASSERT_CMP(bytes.size(), ==, kSectorBytes);
  const char* at = bytes.data();
  ReadSector read{.front = stamp_at(at + 24),
                  .back_position = load_le<uint64_t>(at + kBack),
                  .back_batch = load_le<uint64_t>(at + kBack + 8)};
  const auto hash = load_le<uint64_t>(at + kBack + 16);
  read.back_is_whole = hash == hash_of(read.back_position, read.back_batch);
  read.back_bits_off = std::popcount(hash ^ hash_of(read.front.position, read.front.batch));
  const auto type_and_size = load_le<uint32_t>(at + 4);
  const uint32_t type = type_and_size & 0xffff;
  const uint32_t size = type_and_size >> 16;
  if (load_le<uint32_t>(at) != crc32c(bytes.substr(4)) || type < 1 || type > 4 || size > LogSector::kPayloadMax) {
    return read;
  }
  read.sound = true;
  read.sector = {.type = static_cast<SectorType>(type),
                 .group = GroupId(load_le<uint64_t>(at + 8)),
                 .node = NodeId(load_le<uint64_t>(at + 16)),
                 .stamp = read.front,
                 .previous = load_le<uint64_t>(at + 48),
                 .number = load_le<uint16_t>(at + 56),
                 .count = load_le<uint16_t>(at + 58),
                 .payload = std::string(bytes.substr(64, size))};
  return read;
}

}  // namespace conclave::sim
