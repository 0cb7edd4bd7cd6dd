// Disk: the files of one data directory, as the log and the snapshots see them. Calls block their thread and are made
// by one thread per disk; in the simulator a call returns at once and its time passes before the next one.
//
// What is durable: bytes after sync() or write_durable() of their file, and names (created, renamed, removed) after
// sync_directory() of their directory. Until then a crash may keep any subset of the sectors written, and any of the
// names.
//
// A failed write, write_durable, sync or sync_directory leaves unknown what is on the disk and may have made the page
// cache lie: it must never be tried again, nothing after it acknowledged, and the process ends (faults D7, D8).
// kNoSpace from write or resize is the exception: nothing was promised and the disk is sound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"

namespace conclave::env {

class File {
 public:
  virtual ~File() = default;  // closes; durable only as far as synced
  // Fills `into` from `offset`. kOutOfRange if the file ends before; kUnreadable if the device cannot give the bytes.
  [[nodiscard]] virtual Status read(uint64_t offset, std::span<char> into) = 0;
  // Into the cache; extends the file where needed.
  [[nodiscard]] virtual Status write(uint64_t offset, ByteView bytes) = 0;
  // Bytes and any change of size are durable when this returns. For a file opened direct, offset, size and address of
  // the bytes are multiples of kBlockBytes.
  [[nodiscard]] virtual Status write_durable(uint64_t offset, ByteView bytes) = 0;
  // All that was written to this file is durable when this returns.
  [[nodiscard]] virtual Status sync() = 0;
  [[nodiscard]] virtual Result<uint64_t> size() = 0;
  // Cuts, or extends with zeros that may take no space.
  [[nodiscard]] virtual Status resize(uint64_t bytes) = 0;
};

enum class OpenMode : uint8_t {
  kRead,    // must exist
  kWrite,   // must exist; read and write
  kCreate,  // must not exist; read and write
};

struct OpenOptions {
  OpenMode mode = OpenMode::kRead;
  // Past the page cache, each write durable by itself (O_DIRECT | O_DSYNC). kInvalidArgument where the file system
  // cannot.
  bool direct = false;
};

// Held while the process lives or until destroyed.
class DirectoryLock {
 public:
  virtual ~DirectoryLock() = default;
};

// Paths are relative to the data directory, with '/' between parts; "" is the directory itself.
class Disk {
 public:
  virtual ~Disk() = default;
  [[nodiscard]] virtual Result<std::unique_ptr<File>> open(std::string_view path, OpenOptions options) = 0;
  // Replaces `to` if it exists, atomically.
  [[nodiscard]] virtual Status rename(std::string_view from, std::string_view to) = 0;
  [[nodiscard]] virtual Status remove(std::string_view path) = 0;
  // One level; kAlreadyExists if it is there.
  [[nodiscard]] virtual Status create_directory(std::string_view path) = 0;
  [[nodiscard]] virtual Status sync_directory(std::string_view path) = 0;
  // Names in the directory, sorted, without "." and "..".
  [[nodiscard]] virtual Result<std::vector<std::string>> list(std::string_view path) = 0;
  // kLocked if another process holds the data directory.
  [[nodiscard]] virtual Result<std::unique_ptr<DirectoryLock>> lock() = 0;
  // Bytes that can still be written.
  [[nodiscard]] virtual Result<uint64_t> free_bytes() = 0;
};

// Memory aligned for direct writes. Grows by doubling, never shrinks; content beyond what is kept is undefined.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t capacity) { reserve(capacity); }
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer();

  // At least `capacity` bytes; the first `keep` bytes survive a move to larger memory.
  void reserve(size_t capacity, size_t keep = 0);
  [[nodiscard]] char* data() { return data_; }
  [[nodiscard]] const char* data() const { return data_; }
  [[nodiscard]] size_t capacity() const { return capacity_; }

 private:
  char* data_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace conclave::env
