// Snapshot headers, blocks and footers; checksums made right by the first byte.
#include <cstdint>
#include <string>

#include "base/assert.h"
#include "base/crc32c.h"
#include "wal/snapshot_format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace conclave;
  using namespace conclave::wal;
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const bool repair = (data[0] & 1) != 0;
  switch ((data[0] >> 1) % 3) {
    case 0: {
      if (repair && bytes.size() >= kSnapshotPrefixBytes + 4 && bytes.size() <= kSnapshotHeaderBytesMax) {
        store_le(bytes.data() + 8, static_cast<uint32_t>(bytes.size()));
        store_le(bytes.data() + bytes.size() - 4, crc32c(ByteView(bytes).substr(0, bytes.size() - 4)));
      }
      const auto header = decode_snapshot_header(bytes);
      if (!header) return 0;
      std::string again;
      encode_snapshot_header(*header, again);
      ASSERT(decode_snapshot_header(again).value() == *header);
      return 0;
    }
    case 1: {
      if (bytes.size() < kBlockHeaderBytes) return 0;
      const ByteView stored = ByteView(bytes).substr(kBlockHeaderBytes);
      if (repair) {
        store_le(bytes.data() + 20, static_cast<uint32_t>(stored.size()));
        store_le(bytes.data() + 24, crc32c(stored, 9));
        store_le(bytes.data() + 28, crc32c(ByteView(bytes).substr(0, kBlockHeaderBytes - 4), 9));
      }
      const auto block = decode_block_header(bytes, 0, 9);
      if (!block) return 0;
      std::string content;
      if (decode_block_content(*block, stored, 9, content)) ASSERT(content.size() == block->content_bytes);
      return 0;
    }
    default: {
      if (repair && bytes.size() >= kSnapshotFooterBytes) {
        bytes.resize(kSnapshotFooterBytes);
        store_le(bytes.data() + kSnapshotFooterBytes - 4,
                 crc32c(ByteView(bytes).substr(0, kSnapshotFooterBytes - 4), 9));
      }
      const auto footer = decode_snapshot_footer(bytes, 9);
      (void)footer;
      return 0;
    }
  }
}
