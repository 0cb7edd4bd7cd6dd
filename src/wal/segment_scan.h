// The walk through one segment: which batches stand in it, which are lost, and what its end means. The rules of section
// 5 of the architecture ("torn, hole or uncertain") are here and nowhere else; docs/internals/formats/log.md tells them
// with their reasons.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "wal/head.h"
#include "wal/record.h"
#include "wal/segment_image.h"

namespace conclave::wal {

// What the manifest knows of a segment.
struct SegmentPlan {
  SegmentUse use;
  uint64_t sequence = 0;
  // Sealed: everything before `end_sector` was durable before something later began. Otherwise the segment is the
  // newest and its end is to be found.
  bool sealed = false;
  uint32_t end_sector = 0;  // of a sealed one
};

// A record as found. Both parts may be lost independently.
struct FoundRecord {
  bool header_good = false;
  bool payload_good = false;
  RecordHeader header;
  uint32_t payload_at = 0;  // in the batch's stream
};

// One batch inside an image: which of its sectors are good, and what stands in its body.
class BatchBody {
 public:
  // Attached by the scan before each report.
  void attach(SegmentImage& image, const SegmentUse& use, const Head& head, uint32_t head_size);
  // The records, by ordinal; those not found at all have neither part. Cheap to call once, not to repeat.
  [[nodiscard]] const std::vector<FoundRecord>& records();
  // The payload of a record whose payload is good: in place, or gathered into `scratch`.
  [[nodiscard]] ByteView payload(const FoundRecord& record, std::string& scratch);
  // Every sector of the batch is good.
  [[nodiscard]] bool whole() const { return whole_; }
  // Some sector of the batch was never written, or written in part.
  [[nodiscard]] bool has_stale() const { return has_stale_; }
  // Every record can be read, whatever else is damaged.
  [[nodiscard]] bool records_good();

 private:
  // `bytes` from `offset` of the stream, in place or in scratch; empty optional-like: false if a sector is not good.
  bool gather(uint32_t offset, uint32_t bytes, std::string& scratch, ByteView& out);

  SegmentImage* image_ = nullptr;
  SegmentUse use_;
  const Head* head_ = nullptr;
  uint32_t head_size_ = 0;
  std::vector<uint8_t> good_;
  bool whole_ = true;
  bool has_stale_ = false;
  bool parsed_ = false;
  std::vector<FoundRecord> records_;
};

enum class BatchVerdict : uint8_t {
  kWhole,      // every record reads; whatever else is damaged carried nothing that is lost
  kDamaged,    // attested, and some record does not read: holes
  kUncertain,  // the last one, not attested, written in full, and some record does not read
};

enum class TailVerdict : uint8_t {
  kClean,          // ends where the last batch ends
  kTorn,           // a batch that was never acknowledged lies behind the end
  kUncertain,      // the last batch was reported as uncertain
  kUncertainLost,  // a batch that may have been acknowledged lies behind the end and cannot be read at all
};

class ScanVisitor {
 public:
  virtual ~ScanVisitor() = default;
  virtual void on_batch(const Head& head, BatchBody& body, BatchVerdict verdict) = 0;
  // One batch or more between these sectors were acknowledged and nothing of them can be read.
  virtual void on_gap(uint32_t from_sector, uint32_t to_sector) = 0;
};

struct ScanResult {
  TailVerdict tail = TailVerdict::kClean;
  uint32_t end_sector = 0;   // of the last batch reported, gaps included
  uint64_t last_number = 0;  // of that batch; zero if none
};

// Reads each batch from the segment's begin. Errors: those of reading other than unreadable places.
[[nodiscard]] Result<ScanResult> scan_segment(SegmentImage& image, const SegmentPlan& plan, ScanVisitor& visitor);

// Reads one batch by its place. kUnreadable if neither copy of its head can be read.
[[nodiscard]] Result<uint32_t> find_batch(SegmentImage& image, const SegmentPlan& plan, uint32_t start_sector,
                                          Head& head, std::string& head_text);

}  // namespace conclave::wal
