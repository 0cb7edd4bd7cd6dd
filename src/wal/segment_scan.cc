#include "wal/segment_scan.h"

#include <algorithm>

#include "base/mark.h"
#include "wal/batch_encoder.h"

namespace conclave::wal {
namespace {

SectorFinding examine(SegmentImage& image, const SegmentUse& use, uint32_t place) {
  const char* sector = image.sector(place);
  if (sector == nullptr) return {.state = SectorState::kBad};
  return examine_sector(sector, use, place);
}

// A batch of this use begins or ends in almost no sector a scan looks at: this asks first what costs least.
bool claims_current_use(SegmentImage& image, const SegmentUse& use, uint32_t place) {
  const char* sector = image.sector(place);
  if (sector == nullptr) return false;
  const auto current = [&](size_t at) {
    const uint64_t number = load_le<uint64_t>(sector + at) & kBatchNumberMax;
    return number >= use.first_number && number < use.end_number;
  };
  return current(kStampFrontAt) || current(kStampBackAt);
}

// The bytes of a head that begins with sector `from`, if all its sectors are good and of batch `number`.
bool gather_head(SegmentImage& image, const SegmentUse& use, uint32_t from, uint64_t number, std::string& out) {
  const char* first = image.sector(from);
  if (first == nullptr) return false;
  const auto bytes = head_bytes(ByteView(first + kPayloadAt, kHeadBytesMin));
  if (!bytes) return false;
  const uint32_t sectors = (*bytes + static_cast<uint32_t>(kSectorPayloadBytes) - 1) / kSectorPayloadBytes;
  if (sectors > image.sectors() || from > image.sectors() - sectors) return false;
  out.clear();
  for (uint32_t i = 0; i < sectors; ++i) {
    const SectorFinding finding = examine(image, use, from + i);
    if (finding.state != SectorState::kGood || finding.number != number) return false;
    const size_t part = std::min<size_t>(kSectorPayloadBytes, *bytes - out.size());
    out.append(image.sector(from + i) + kPayloadAt, part);
  }
  return true;
}

class Scan {
 public:
  Scan(SegmentImage& image, const SegmentPlan& plan) : image_(image), plan_(plan) {
    limit_ = plan.sealed ? plan.end_sector : image.sectors();
  }

  // The first batch at or behind `from` that has a readable copy of its head, with a number above `last`.
  bool find_head(uint32_t from, uint64_t last, Head& head, std::string& text) {
    for (uint32_t place = from; place < limit_; ++place) {
      if (!claims_current_use(image_, plan_.use, place)) continue;
      const SectorFinding finding = examine(image_, plan_.use, place);
      if (finding.state != SectorState::kGood || finding.number <= last) continue;
      if (place % kSectorsPerBlock == 0 && try_head(place, place, finding.number, head, text)) return true;
      if (try_tail(from, place, finding.number, head, text)) return true;
    }
    return false;
  }

  // True if a sector at or behind `from` is of a batch later than `number`: one begun only when that one was durable.
  bool attested_by_later(uint32_t from, uint64_t number) {
    if (plan_.sealed) return true;
    for (uint32_t place = from; place < limit_; ++place) {
      if (!claims_current_use(image_, plan_.use, place)) continue;
      const SectorFinding finding = examine(image_, plan_.use, place);
      if (finding.state == SectorState::kGood && finding.number > number) return true;
    }
    return false;
  }

  // What lies behind the last batch that was found: no head there can be read.
  TailVerdict judge_rest(uint32_t from, uint64_t last, bool& attested_gap) {
    attested_gap = false;
    uint32_t claimed_end = from;
    uint64_t lowest = 0;
    uint64_t highest = 0;
    for (uint32_t place = from; place < limit_; ++place) {
      const SectorFinding finding = examine(image_, plan_.use, place);
      if (finding.number <= last) continue;
      claimed_end = place + 1;
      if (finding.state != SectorState::kGood) continue;
      lowest = lowest == 0 ? finding.number : std::min(lowest, finding.number);
      highest = std::max(highest, finding.number);
    }
    if (lowest != highest) {
      // Remains of two batches: the earlier one was durable before the later began.
      REACHED(wal_two_headless_batches);
      attested_gap = true;
      return TailVerdict::kUncertainLost;
    }
    if (from >= limit_) return TailVerdict::kClean;
    // Every batch covers whole blocks and its first one. A sector there that this use never wrote, or wrote in part,
    // shows that its write did not complete; if nothing claims to be of a batch, that none was begun.
    const uint32_t claimed_block = (claimed_end + kSectorsPerBlock - 1) / kSectorsPerBlock * kSectorsPerBlock;
    const uint32_t end = std::min(limit_, std::max<uint32_t>(from + kSectorsPerBlock, claimed_block));
    for (uint32_t place = from; place < end; ++place) {
      const SectorState state = examine(image_, plan_.use, place).state;
      if (state == SectorState::kUnwritten || state == SectorState::kTorn) {
        return claimed_end > from ? TailVerdict::kTorn : TailVerdict::kClean;
      }
    }
    REACHED(wal_tail_unreadable);
    return TailVerdict::kUncertainLost;
  }

 private:
  bool accept(const Head& head, uint64_t number) const {
    return head.number == number && head.slot == plan_.use.slot && head.sequence == plan_.sequence &&
           head.start_sector < limit_ && head.sectors <= limit_ - head.start_sector;
  }

  bool try_head(uint32_t at, uint32_t start, uint64_t number, Head& head, std::string& text) {
    return gather_head(image_, plan_.use, at, number, text) && decode_head(text, plan_.use.seed, head) &&
           accept(head, number) && head.start_sector == start;
  }

  bool try_tail(uint32_t from, uint32_t place, uint64_t number, Head& head, std::string& text) {
    const char* trailer = image_.sector(place) + kChecksumAt - kTrailerBytes;
    if (load_le<uint32_t>(trailer + 4) != kTrailerMagic) return false;
    const auto size = load_le<uint32_t>(trailer);
    if (size > kHeadBytesMax) return false;
    const auto sectors = static_cast<uint32_t>(tail_sectors(size));
    if (sectors > place + 1 || place + 1 - sectors < from) return false;
    if (!gather_head(image_, plan_.use, place + 1 - sectors, number, text) || text.size() != size ||
        !decode_head(text, plan_.use.seed, head) || !accept(head, number) || head.start_sector < from) {
      return false;
    }
    const uint32_t end = head.start_sector + head.sectors;
    return place + 1 == end || (head.idle && place < end);
  }

  SegmentImage& image_;
  const SegmentPlan& plan_;
  uint32_t limit_ = 0;
};

}  // namespace

void BatchBody::attach(SegmentImage& image, const SegmentUse& use, const Head& head, uint32_t head_size) {
  image_ = &image;
  use_ = use;
  head_ = &head;
  head_size_ = head_size;
  whole_ = true;
  has_stale_ = false;
  parsed_ = false;
  good_.assign(head.sectors, 1);
  for (uint32_t i = 0; i < head.sectors; ++i) {
    const uint32_t place = head.start_sector + i;
    if (i % 4 == 0 && i + 4 <= head.sectors) {
      const char* first = image.sector(place);
      // Neighbours lie side by side in memory; one that could not be read leaves there what was read before.
      const bool together = first != nullptr && image.sector(place + 1) != nullptr &&
                            image.sector(place + 2) != nullptr && image.sector(place + 3) != nullptr;
      if (together && are_four_good(first, use, place, head.number)) {
        i += 3;
        continue;
      }
    }
    const SectorFinding finding = examine(image, use, place);
    if (finding.state == SectorState::kGood && finding.number == head.number) continue;
    good_[i] = 0;
    whole_ = false;
    has_stale_ = has_stale_ || finding.state == SectorState::kUnwritten || finding.state == SectorState::kTorn;
  }
}

bool BatchBody::gather(uint32_t offset, uint32_t bytes, std::string& scratch, ByteView& out) {
  out = {};
  if (bytes == 0) return true;
  const uint64_t end = uint64_t{offset} + bytes;
  if (end > uint64_t{head_->sectors} * kSectorPayloadBytes) return false;
  uint32_t sector = offset / static_cast<uint32_t>(kSectorPayloadBytes);
  size_t within = offset % kSectorPayloadBytes;
  const auto last = static_cast<uint32_t>((end - 1) / kSectorPayloadBytes);
  if (!whole_) {
    for (uint32_t i = sector; i <= last; ++i) {
      if (good_[i] == 0) return false;
    }
  }
  if (sector == last) {
    out = ByteView(image_->sector(head_->start_sector + sector) + kPayloadAt + within, bytes);
    return true;
  }
  scratch.resize(bytes);
  for (size_t done = 0; done < bytes; ++sector) {
    const size_t part = std::min<size_t>(bytes - done, kSectorPayloadBytes - within);
    std::memcpy(scratch.data() + done, image_->sector(head_->start_sector + sector) + kPayloadAt + within, part);
    done += part;
    within = 0;
  }
  out = scratch;
  return true;
}

const std::vector<FoundRecord>& BatchBody::records() {
  if (parsed_) return records_;
  parsed_ = true;
  records_.assign(head_->records, {});
  std::string scratch;
  uint32_t at = head_size_;
  const uint32_t end = head_size_ + head_->body_bytes;
  while (at < end && end - at >= kRecordHeaderBytes) {
    ByteView raw;
    if (gather(at, kRecordHeaderBytes, scratch, raw)) {
      const auto header = decode_record_header(raw);
      if (header && header->ordinal < records_.size() && header->payload_bytes <= end - at - kRecordHeaderBytes) {
        FoundRecord& record = records_[header->ordinal];
        record.header_good = true;
        record.header = *header;
        record.payload_at = at + static_cast<uint32_t>(kRecordHeaderBytes);
        ByteView bytes;
        record.payload_good = gather(record.payload_at, header->payload_bytes, scratch, bytes) &&
                              payload_checksum(bytes) == header->payload_checksum;
        at = record.payload_at + header->payload_bytes;
        continue;
      }
    }
    // No header here: on at the next sector that knows where a record begins in it.
    REACHED(wal_record_resynchronised);
    uint32_t sector = at / static_cast<uint32_t>(kSectorPayloadBytes) + 1;
    for (; sector < head_->sectors; ++sector) {
      if (good_[sector] == 0) continue;
      const auto first = load_le<uint16_t>(image_->sector(head_->start_sector + sector) + kFirstRecordAt);
      if (first >= kSectorPayloadBytes) continue;
      at = sector * static_cast<uint32_t>(kSectorPayloadBytes) + first;
      break;
    }
    if (sector >= head_->sectors) break;
  }
  return records_;
}

bool BatchBody::records_good() {
  return std::ranges::all_of(records(), [](const FoundRecord& record) { return record.payload_good; });
}

ByteView BatchBody::payload(const FoundRecord& record, std::string& scratch) {
  ByteView bytes;
  (void)gather(record.payload_at, record.header.payload_bytes, scratch, bytes);
  return bytes;
}

Result<ScanResult> scan_segment(SegmentImage& image, const SegmentPlan& plan, ScanVisitor& visitor) {
  Scan scan(image, plan);
  const uint32_t limit = plan.sealed ? plan.end_sector : image.sectors();
  ScanResult result;
  Head head;
  std::string text;
  BatchBody body;
  while (result.end_sector < limit) {
    const uint32_t at = result.end_sector;
    const bool found = scan.find_head(at, result.last_number, head, text);
    RETURN_IF_ERROR(image.status());
    if (!found) {
      if (plan.sealed) {
        REACHED(wal_gap_to_sealed_end);
        visitor.on_gap(at, limit);
        result.end_sector = limit;
        break;
      }
      bool attested_gap = false;
      result.tail = scan.judge_rest(at, result.last_number, attested_gap);
      RETURN_IF_ERROR(image.status());
      if (attested_gap) visitor.on_gap(at, at);
      break;
    }
    if (head.start_sector > at) {
      // A later batch stands here: all between was durable before it began.
      REACHED(wal_gap);
      visitor.on_gap(at, head.start_sector);
    }
    body.attach(image, plan.use, head, static_cast<uint32_t>(text.size()));
    BatchVerdict verdict = BatchVerdict::kWhole;
    if (!body.whole()) {
      const bool attested = scan.attested_by_later(head.start_sector + head.sectors, head.number);
      if (!attested && body.has_stale()) {
        REACHED(wal_tail_torn);
        result.tail = TailVerdict::kTorn;
        break;
      }
      if (!body.records_good()) verdict = attested ? BatchVerdict::kDamaged : BatchVerdict::kUncertain;
    } else if (!body.records_good()) {
      // Whole sectors whose records do not read: written so, by a fault before the checksums were made.
      REACHED(wal_whole_sectors_bad_records);
      const bool attested = scan.attested_by_later(head.start_sector + head.sectors, head.number);
      verdict = attested ? BatchVerdict::kDamaged : BatchVerdict::kUncertain;
    }
    RETURN_IF_ERROR(image.status());
    result.end_sector = head.start_sector + head.sectors;
    result.last_number = head.number;
    visitor.on_batch(head, body, verdict);
    if (verdict == BatchVerdict::kUncertain) {
      REACHED(wal_tail_uncertain);
      result.tail = TailVerdict::kUncertain;
      break;
    }
  }
  RETURN_IF_ERROR(image.status());
  return result;
}

Result<uint32_t> find_batch(SegmentImage& image, const SegmentPlan& plan, uint32_t start_sector, Head& head,
                            std::string& head_text) {
  Scan scan(image, plan);
  if (!scan.find_head(start_sector, 0, head, head_text) || head.start_sector != start_sector) {
    RETURN_IF_ERROR(image.status());
    return fail(ErrorCode::kUnreadable, "segment {} sector {}: no readable head", plan.use.slot, start_sector);
  }
  return static_cast<uint32_t>(head_text.size());
}

}  // namespace conclave::wal
