#include <cstdint>
#include <string>

#include "base/assert.h"
#include "base/crc32c.h"
#include "wal/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace conclave;
  using namespace conclave::wal;
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if ((data[0] & 1) != 0 && bytes.size() >= 16) {
    store_le(bytes.data() + 8, static_cast<uint32_t>(bytes.size()));
    store_le(bytes.data() + bytes.size() - 4, crc32c(ByteView(bytes).substr(0, bytes.size() - 4)));
  }
  const auto manifest = decode_manifest(bytes);
  if (!manifest) return 0;
  std::string again;
  encode_manifest(*manifest, again);
  ASSERT(decode_manifest(again).value() == *manifest);
  return 0;
}
