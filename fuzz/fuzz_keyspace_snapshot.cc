// A snapshot from hostile bytes: refused or loaded, never more memory than the bytes justify; what loads is sound.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "keyspace/keyspace.h"
#include "keyspace/snapshot.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace conclave;
  using namespace conclave::keyspace;
  ByteView bytes(reinterpret_cast<const char*>(data), size);
  Keyspace keyspace;
  SnapshotLoader loader(keyspace);
  // Cut in two, at a place the bytes choose.
  size_t cut = size == 0 ? 0 : data[size - 1] % size;
  if (!loader.feed(bytes.substr(0, cut)) || !loader.feed(bytes.substr(cut)) || !loader.finish()) return 0;
  if (!keyspace.store().tree().is_sound()) std::abort();
  while (keyspace.run_background()) {
  }
  return 0;
}
