// A whole segment file, scanned and replayed. By the first byte the sectors' checksums and the heads' are made right or
// left as they come.
#include <cstdint>
#include <string>

#include "base/assert.h"
#include "base/crc32c.h"
#include "wal/head.h"
#include "wal/replay.h"
#include "wal/segment_image.h"
#include "wal/segment_scan.h"

namespace {

using namespace conclave;
using namespace conclave::wal;

void repair(std::string& bytes, uint32_t seed, bool heads) {
  for (size_t at = 0; at + kSectorBytes <= bytes.size(); at += kSectorBytes) {
    char* sector = bytes.data() + at;
    const uint64_t number = load_le<uint64_t>(sector) & kBatchNumberMax;
    if (number == 0) continue;
    if (heads) {
      const auto size = head_bytes(ByteView(sector + kPayloadAt, kHeadBytesMin));
      if (size && *size <= kSectorPayloadBytes) {
        store_le(sector + kPayloadAt + *size - 4, crc32c(ByteView(sector + kPayloadAt, *size - 4), seed));
      }
    }
    seal_sector(sector, seed, make_stamp(seed, number), load_le<uint32_t>(sector + kSlotAt),
                load_le<uint32_t>(sector + kPlaceAt), load_le<uint16_t>(sector + kFirstRecordAt));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const Owner owner{.cluster = ClusterId(0x1122334455667788), .node = NodeId(3)};
  const uint32_t seed = checksum_seed(owner);
  std::string bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  if ((data[0] & 1) != 0) repair(bytes, seed, (data[0] & 2) != 0);
  const auto sectors = static_cast<uint32_t>(bytes.size() / kSectorBytes);
  SegmentPlan plan{.use = {.seed = seed, .slot = 1, .first_number = 1, .end_number = 1000}, .sequence = 1};
  plan.sealed = (data[0] & 4) != 0;
  plan.end_sector = plan.sealed ? sectors : 0;
  SegmentImage image;
  image.attach(bytes);
  Replay replay;
  replay.begin_segment(plan, {}, (data[0] & 8) != 0);
  const auto result = scan_segment(image, plan, replay);
  ASSERT(result.has_value());
  ASSERT(result->end_sector <= sectors);
  replay.finish(*result, false);
  if (!replay.status()) return 0;
  for (auto& [id, group] : replay.groups()) {
    const GoodSnapshot snapshot{.group = id, .last = {.term = Term(data[1] % 4), .index = LogIndex(data[1])}};
    const Recovered recovered = hand_over(group, {&snapshot, 1});
    for (size_t i = 1; i < recovered.entries.size(); ++i) {
      ASSERT(recovered.entries[i].index == recovered.entries[i - 1].index.next());
    }
  }
  return 0;
}
