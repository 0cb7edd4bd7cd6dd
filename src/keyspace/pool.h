// Memory for the many small records of a keyspace: keys, versions, tree nodes. Exact size classes in steps of eight
// bytes, free lists, no header per record (malloc's would cost 16 to 32 bytes a key). Memory of a class stays with it
// until the pool ends; then all goes at once, whether freed or not. One thread; never initialises what it hands out.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace conclave::keyspace {

class Pool {
 public:
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool();

  // Eight-byte aligned. Above kPooledMax each is an allocation of its own.
  [[nodiscard]] void* allocate(size_t size);
  // `size` as given to allocate.
  void free(void* at, size_t size);
  // Bytes handed out and not yet returned.
  [[nodiscard]] size_t used_bytes() const { return used_; }

 private:
  static constexpr size_t kGrain = 8;
  static constexpr size_t kPooledMax = 2048;               // above it malloc's header is under one percent
  static constexpr size_t kBlockBytes = size_t{64} << 10;  // taken from the system at once
  struct Free {
    Free* next;
  };
  // In front of each large record: they form a ring, so that the pool can end them.
  struct Large {
    Large* next;
    Large* previous;
  };
  void* refill(size_t size);

  Free* free_[kPooledMax / kGrain + 1] = {};
  char* fresh_ = nullptr;  // the unused rest of the newest block
  size_t fresh_size_ = 0;
  std::vector<std::unique_ptr<char[]>> blocks_;
  Large large_{&large_, &large_};
  size_t used_ = 0;
};

}  // namespace conclave::keyspace
