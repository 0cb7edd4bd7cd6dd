#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "env/disk.h"

namespace conclave::node::testing {

// Counts what is read, and can be full.
class WatchedDisk final : public env::Disk {
 public:
  explicit WatchedDisk(env::Disk& disk) : disk_(disk) {}
  uint64_t bytes_read = 0;
  std::atomic<bool> full = false;

  Result<std::unique_ptr<env::File>> open(std::string_view path, env::OpenOptions options) override {
    ASSIGN_OR_RETURN(auto file, disk_.open(path, options));
    return std::make_unique<File>(std::move(file), bytes_read);
  }
  Status rename(std::string_view from, std::string_view to) override { return disk_.rename(from, to); }
  Status remove(std::string_view path) override { return disk_.remove(path); }
  Status create_directory(std::string_view path) override { return disk_.create_directory(path); }
  Status sync_directory(std::string_view path) override { return disk_.sync_directory(path); }
  Result<std::vector<std::string>> list(std::string_view path) override { return disk_.list(path); }
  Result<std::unique_ptr<env::DirectoryLock>> lock() override { return disk_.lock(); }
  Result<uint64_t> free_bytes() override { return full ? Result<uint64_t>(0) : disk_.free_bytes(); }

 private:
  class File final : public env::File {
   public:
    File(std::unique_ptr<env::File> file, uint64_t& bytes_read) : file_(std::move(file)), bytes_read_(bytes_read) {}
    Status read(uint64_t offset, std::span<char> into) override {
      bytes_read_ += into.size();
      return file_->read(offset, into);
    }
    Status write(uint64_t offset, ByteView bytes) override { return file_->write(offset, bytes); }
    Status write_durable(uint64_t offset, ByteView bytes) override { return file_->write_durable(offset, bytes); }
    Status sync() override { return file_->sync(); }
    Result<uint64_t> size() override { return file_->size(); }
    Status resize(uint64_t bytes) override { return file_->resize(bytes); }

   private:
    std::unique_ptr<env::File> file_;
    uint64_t& bytes_read_;
  };
  env::Disk& disk_;
};

}  // namespace conclave::node::testing
