#include "wal/segment_image.h"

#include <algorithm>

#include "base/mark.h"

namespace conclave::wal {
namespace {

// Read ahead by this much: what was just read is worked on while it is in the processor's cache.
constexpr uint32_t kReadAheadSectors = (256U << 10) / kSectorBytes;

}  // namespace

Status SegmentImage::attach(env::File& file, uint64_t bytes_max) {
  ASSIGN_OR_RETURN(const uint64_t size, file.size());
  attach_missing();
  file_ = &file;
  sectors_ = static_cast<uint32_t>(std::min(size, bytes_max) / kSectorBytes);
  buffer_.reserve(size_t{sectors_} * kSectorBytes);
  bytes_ = buffer_.data();
  missing_.assign(sectors_, 0);
  return {};
}

Status SegmentImage::attach_window(env::File& file, uint32_t from_sector, uint32_t sectors) {
  ASSIGN_OR_RETURN(const uint64_t size, file.size());
  attach_missing();
  file_ = &file;
  window_ = from_sector;
  loaded_ = from_sector;
  sectors_ = static_cast<uint32_t>(std::min(size / kSectorBytes, uint64_t{from_sector} + sectors));
  if (sectors_ <= window_) {
    sectors_ = window_;
    return {};
  }
  buffer_.reserve(size_t{sectors_ - window_} * kSectorBytes);
  bytes_ = buffer_.data();
  missing_.assign(sectors_ - window_, 0);
  return {};
}

void SegmentImage::attach(ByteView bytes) {
  attach_missing();
  bytes_ = bytes.data();
  sectors_ = static_cast<uint32_t>(bytes.size() / kSectorBytes);
  loaded_ = sectors_;
  missing_.assign(sectors_, 0);
}

void SegmentImage::attach_missing() {
  file_ = nullptr;
  bytes_ = nullptr;
  sectors_ = 0;
  loaded_ = 0;
  window_ = 0;
  missing_.clear();
  status_ = {};
}

void SegmentImage::load(uint32_t up_to) {
  const auto read = [&](uint32_t from, uint32_t count) -> bool {
    const Status got =
        file_->read(uint64_t{from} * kSectorBytes,
                    {buffer_.data() + size_t{from - window_} * kSectorBytes, size_t{count} * kSectorBytes});
    if (got) return true;
    if (got.error().code != ErrorCode::kUnreadable && got.error().code != ErrorCode::kOutOfRange && status_)
      status_ = got;
    return false;
  };
  while (loaded_ < up_to && status_) {
    const uint32_t count = std::min(kReadAheadSectors, sectors_ - loaded_);
    if (!read(loaded_, count)) {
      REACHED(wal_unreadable_sectors);
      for (uint32_t i = 0; i < count && status_; ++i) missing_[loaded_ - window_ + i] = read(loaded_ + i, 1) ? 0 : 1;
    }
    loaded_ += count;
  }
}

const char* SegmentImage::sector(uint32_t place) {
  if (place < window_ || place >= sectors_) return nullptr;
  if (place >= loaded_) load(place + 1);
  if (!status_ || missing_[place - window_] != 0) return nullptr;
  return bytes_ + size_t{place - window_} * kSectorBytes;
}

}  // namespace conclave::wal
