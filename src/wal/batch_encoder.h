// BatchEncoder: lays a batch out in sectors, each payload copied once, straight into the memory the disk takes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "env/disk.h"
#include "wal/batch.h"
#include "wal/head.h"

namespace conclave::wal {

// Behind the tail's copy of the head, in the last bytes of a batch's last sector: the copy's length, and a magic.
inline constexpr size_t kTrailerBytes = 8;
inline constexpr uint32_t kTrailerMagic = 0x74776c43;  // "Clwt"

// Sectors the tail's copy of a head of this length takes.
[[nodiscard]] constexpr size_t tail_sectors(size_t head_size) {
  return (head_size + kTrailerBytes + kSectorPayloadBytes - 1) / kSectorPayloadBytes;
}

// The changes a batch's operations make, for its head and for the writer's own account. Views point into the
// operations.
void changes_of(std::span<const Operation> operations, std::vector<Change>& changes);

// One thread; memory is kept from batch to batch.
class BatchEncoder {
 public:
  // Step one: the batch's size. `head` has its place and flags; changes, records, body_bytes and sectors are set here.
  // Returns its bytes, a multiple of kBlockBytes. kInvalidArgument if head or body exceed what the format can say.
  [[nodiscard]] Result<size_t> measure(Head& head, std::span<const GroupState* const> directory,
                                       std::span<const Operation> operations, uint32_t seed);
  // Step two: the bytes, valid until the next call. The same head and operations, unchanged.
  [[nodiscard]] ByteView encode(const Head& head, std::span<const Operation> operations, uint32_t seed);

 private:
  void put(ByteView bytes);
  void put_zeros(size_t bytes);
  void mark_record();

  std::string head_;
  env::AlignedBuffer buffer_;
  std::vector<uint16_t> first_records_;
  size_t at_ = 0;  // in the stream of payload bytes
};

}  // namespace conclave::wal
