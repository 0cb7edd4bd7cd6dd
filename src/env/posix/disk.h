#pragma once

#include <memory>
#include <string>

#include "env/disk.h"

namespace conclave::env {

// A directory of the real file system. Names are resolved against an open descriptor of it, so that the directory may
// be renamed under a running server without harm.
class PosixDisk final : public Disk {
 public:
  // The directory must exist.
  [[nodiscard]] static Result<std::unique_ptr<PosixDisk>> open_directory(const std::string& path);
  ~PosixDisk() override;
  PosixDisk(const PosixDisk&) = delete;
  PosixDisk& operator=(const PosixDisk&) = delete;

  [[nodiscard]] Result<std::unique_ptr<File>> open(std::string_view path, OpenOptions options) override;
  [[nodiscard]] Status rename(std::string_view from, std::string_view to) override;
  [[nodiscard]] Status remove(std::string_view path) override;
  [[nodiscard]] Status create_directory(std::string_view path) override;
  [[nodiscard]] Status sync_directory(std::string_view path) override;
  [[nodiscard]] Result<std::vector<std::string>> list(std::string_view path) override;
  [[nodiscard]] Result<std::unique_ptr<DirectoryLock>> lock() override;
  [[nodiscard]] Result<uint64_t> free_bytes() override;

 private:
  explicit PosixDisk(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

}  // namespace conclave::env
