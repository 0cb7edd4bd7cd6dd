// SegmentImage: a segment file in memory, read ahead in pieces, with what could not be read known sector by sector.
#pragma once

#include <cstdint>
#include <vector>

#include "env/disk.h"
#include "wal/sector.h"

namespace conclave::wal {

// One thread. Memory is kept from segment to segment.
class SegmentImage {
 public:
  // Begins anew with this file, which must outlive its use here. At most `bytes_max` of it are looked at.
  // Errors: those of File::size.
  [[nodiscard]] Status attach(env::File& file, uint64_t bytes_max);
  // Begins anew with these sectors of the file alone; all others count as missing, and places stay those of the file.
  [[nodiscard]] Status attach_window(env::File& file, uint32_t from_sector, uint32_t sectors);
  // Of bytes already in memory, which must outlive their use here; for tests of what reads an image.
  void attach(ByteView bytes);
  // A segment without a file: no sector of it can be had.
  void attach_missing();

  // Whole sectors the file has.
  [[nodiscard]] uint32_t sectors() const { return sectors_; }
  // Null where the file ends before, or the device does not give it.
  [[nodiscard]] const char* sector(uint32_t place);
  // Anything but unreadable places: then what sector() said is worth nothing and recovery must stop.
  [[nodiscard]] const Status& status() const { return status_; }

 private:
  void load(uint32_t up_to);

  env::File* file_ = nullptr;
  const char* bytes_ = nullptr;
  env::AlignedBuffer buffer_;
  std::vector<uint8_t> missing_;
  uint32_t sectors_ = 0;
  uint32_t loaded_ = 0;
  uint32_t window_ = 0;  // places before it are missing and have no memory
  Status status_;
};

}  // namespace conclave::wal
