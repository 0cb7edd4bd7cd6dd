// Record headers, heads, floors: decoders of bytes whose checksum may be right by an attacker's or an accident's work.
// The input's first byte says which; checksums are made right, so that what lies behind them is reached.
#include <cstdint>
#include <string>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "wal/batch.h"
#include "wal/head.h"
#include "wal/record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace conclave;
  using namespace conclave::wal;
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
    case 1: {
      const auto header = decode_record_header(bytes);
      if (!header) return 0;
      char again[kRecordHeaderBytes];
      encode_record_header(*header, again);
      ASSERT(ByteView(again, sizeof(again)) == ByteView(bytes).substr(0, sizeof(again)));
      return 0;
    }
    case 2: {
      if (bytes.size() >= kHeadBytesMin) {
        store_le(bytes.data() + 4, static_cast<uint32_t>(bytes.size()));
        const size_t covered = bytes.size() - 4;
        store_le(bytes.data() + covered, crc32c(ByteView(bytes).substr(0, covered), 1));
      }
      Head head;
      if (!decode_head(bytes, 1, head)) return 0;
      for (const GroupState& state : head.directory) ASSERT(state.terms.size() <= kBaseRowsMax);
      for (const Change& change : head.changes) {
        GroupState state;
        state.apply(change);
      }
      return 0;
    }
    default: {
      const auto floors = decode_floors(bytes);
      if (!floors) return 0;
      std::string again;
      encode_floors(*floors, again);
      ASSERT(again == bytes);
      return 0;
    }
  }
}
