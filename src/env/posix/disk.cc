#include "env/posix/disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/assert.h"

namespace conclave::env {
namespace {

std::unexpected<Error> fail_errno(const char* call, std::string_view path, int error) {
  ErrorCode code = ErrorCode::kIo;
  if (error == ENOENT) code = ErrorCode::kNotFound;
  if (error == EEXIST) code = ErrorCode::kAlreadyExists;
  if (error == ENOSPC || error == EDQUOT) code = ErrorCode::kNoSpace;
  if (error == EINVAL) code = ErrorCode::kInvalidArgument;
  if (error == EWOULDBLOCK) code = ErrorCode::kLocked;
  char text[128];
  return fail(code, "{} {}: {}", call, path, strerror_r(error, text, sizeof(text)));
}

std::string terminated(std::string_view path) {
  return path.empty() ? std::string(".") : std::string(path);
}

class PosixFile final : public File {
 public:
  PosixFile(int descriptor, std::string path, bool direct)
      : descriptor_(descriptor), path_(std::move(path)), direct_(direct) {}
  ~PosixFile() override { ::close(descriptor_); }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  Status read(uint64_t offset, std::span<char> into) override {
    while (!into.empty()) {
      const ssize_t got = pread(descriptor_, into.data(), into.size(), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail(ErrorCode::kUnreadable, "read {}: {}", path_, std::generic_category().message(errno));
      if (got == 0) return fail(ErrorCode::kOutOfRange, "read {} at {}: past the end", path_, offset);
      offset += static_cast<uint64_t>(got);
      into = into.subspan(static_cast<size_t>(got));
    }
    return {};
  }

  Status write(uint64_t offset, ByteView bytes) override {
    while (!bytes.empty()) {
      const ssize_t put = pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return fail_errno("write", path_, errno);
      offset += static_cast<uint64_t>(put);
      bytes.remove_prefix(static_cast<size_t>(put));
    }
    return {};
  }

  Status write_durable(uint64_t offset, ByteView bytes) override {
    if (direct_) {
      ASSERT(offset % kBlockBytes == 0 && bytes.size() % kBlockBytes == 0);
      ASSERT(reinterpret_cast<uintptr_t>(bytes.data()) % kBlockBytes == 0);
      return write(offset, bytes);  // O_DSYNC: durable when pwrite returns
    }
    RETURN_IF_ERROR(write(offset, bytes));
    return sync();
  }

  Status sync() override {
    // EINTR included: what a failed sync left behind is unknown (fault D8).
    if (fdatasync(descriptor_) != 0) return fail_errno("fdatasync", path_, errno);
    return {};
  }

  Result<uint64_t> size() override {
    struct stat status{};
    if (fstat(descriptor_, &status) != 0) return fail_errno("fstat", path_, errno);
    return static_cast<uint64_t>(status.st_size);
  }

  Status resize(uint64_t bytes) override {
    if (ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0) return fail_errno("ftruncate", path_, errno);
    return {};
  }

 private:
  int descriptor_;
  std::string path_;
  bool direct_;
};

class PosixLock final : public DirectoryLock {
 public:
  explicit PosixLock(int descriptor) : descriptor_(descriptor) {}
  ~PosixLock() override { ::close(descriptor_); }
  PosixLock(const PosixLock&) = delete;
  PosixLock& operator=(const PosixLock&) = delete;

 private:
  int descriptor_;
};

}  // namespace

Result<std::unique_ptr<PosixDisk>> PosixDisk::open_directory(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return fail_errno("open", path, errno);
  return std::unique_ptr<PosixDisk>(new PosixDisk(descriptor));
}

PosixDisk::~PosixDisk() {
  ::close(descriptor_);
}

Result<std::unique_ptr<File>> PosixDisk::open(std::string_view path, OpenOptions options) {
  int flags = O_CLOEXEC;
  flags |= options.mode == OpenMode::kRead ? O_RDONLY : O_RDWR;
  if (options.mode == OpenMode::kCreate) flags |= O_CREAT | O_EXCL;
  if (options.direct) flags |= O_DIRECT | O_DSYNC;
  const std::string name = terminated(path);
  const int descriptor = openat(descriptor_, name.c_str(), flags, 0600);
  if (descriptor < 0) return fail_errno("open", path, errno);
  return std::make_unique<PosixFile>(descriptor, name, options.direct);
}

Status PosixDisk::rename(std::string_view from, std::string_view to) {
  if (renameat(descriptor_, terminated(from).c_str(), descriptor_, terminated(to).c_str()) != 0) {
    return fail_errno("rename", from, errno);
  }
  return {};
}

Status PosixDisk::remove(std::string_view path) {
  if (unlinkat(descriptor_, terminated(path).c_str(), 0) != 0) return fail_errno("unlink", path, errno);
  return {};
}

Status PosixDisk::create_directory(std::string_view path) {
  if (mkdirat(descriptor_, terminated(path).c_str(), 0700) != 0) return fail_errno("mkdir", path, errno);
  return {};
}

Status PosixDisk::sync_directory(std::string_view path) {
  const int directory = openat(descriptor_, terminated(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return fail_errno("open", path, errno);
  const int failed = fsync(directory);
  const int error = errno;
  ::close(directory);
  if (failed != 0) return fail_errno("fsync", path, error);
  return {};
}

Result<std::vector<std::string>> PosixDisk::list(std::string_view path) {
  const int directory = openat(descriptor_, terminated(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return fail_errno("open", path, errno);
  DIR* stream = fdopendir(directory);
  if (stream == nullptr) {
    const int error = errno;
    ::close(directory);
    return fail_errno("fdopendir", path, error);
  }
  std::vector<std::string> names;
  errno = 0;
  // One thread per disk, one stream per call: readdir is safe here (readdir(3), "Attributes").
  while (const dirent* entry = readdir(stream)) {  // NOLINT(concurrency-mt-unsafe)
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  const int error = errno;
  closedir(stream);
  if (error != 0) return fail_errno("readdir", path, error);
  std::ranges::sort(names);
  return names;
}

Result<std::unique_ptr<DirectoryLock>> PosixDisk::lock() {
  // A lock of the open file description, on a descriptor of its own: it ends with the process, however that ends.
  const int descriptor = openat(descriptor_, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) return fail_errno("open", "lock", errno);
  if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    ::close(descriptor);
    return fail_errno("flock", "lock", error);
  }
  return std::make_unique<PosixLock>(descriptor);
}

Result<uint64_t> PosixDisk::free_bytes() {
  struct statvfs status{};
  if (fstatvfs(descriptor_, &status) != 0) return fail_errno("fstatvfs", "", errno);
  return static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
}

}  // namespace conclave::env
