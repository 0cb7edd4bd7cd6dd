// What the normal build links in place of libFuzzer: runs the target once for each file of a directory. A corpus that
// is empty tests nothing and fails. So does an input for which more memory is held than in proportion to its size:
// counts that an input only claims are not to be trusted with it.
#include <malloc.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <new>
#include <sstream>
#include <string>
#include <vector>

namespace {

// What any input may take: buffers of fixed size, a block of a snapshot, a keyspace or a connection that is empty.
constexpr size_t kFixedBytes = size_t{8} << 20;
// For each byte of the input. A lost record of 40 bytes is an entry and a hole of together some 200, in containers that
// double as they grow.
constexpr size_t kBytesPerByte = 64;

// One thread.
size_t held = 0;
size_t held_max = 0;

[[maybe_unused]] void* take(size_t bytes) {
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) std::abort();
  held += malloc_usable_size(memory);
  held_max = std::max(held_max, held);
  return memory;
}

[[maybe_unused]] void give_back(void* memory) {
  if (memory != nullptr) held -= malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

// The forms for arrays and those that do not throw end in these two. Not under ThreadSanitizer, whose own do not let
// themselves be replaced: there nothing is counted.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CONCLAVE_COUNTS_NOTHING
#endif
#endif
#ifndef CONCLAVE_COUNTS_NOTHING
void* operator new(size_t bytes) {
  return take(bytes);
}
void operator delete(void* memory) noexcept {
  give_back(memory);
}
void operator delete(void* memory, size_t) noexcept {
  give_back(memory);
}
#endif

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
    return 64;
  }
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (std::filesystem::directory_iterator at(argv[1], error), end; !error && at != end; at.increment(error)) {
    if (at->is_regular_file()) files.push_back(at->path());
  }
  if (error || files.empty()) {
    std::fprintf(stderr, "%s: no corpus there\n", argv[1]);
    return 1;
  }
  std::sort(files.begin(), files.end());
  for (const auto& path : files) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream content;
    content << file.rdbuf();
    const std::string bytes = content.str();
    const size_t held_before = held;
    held_max = held;
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    const size_t taken = held_max - held_before;
    if (taken > kFixedBytes + kBytesPerByte * bytes.size()) {
      std::fprintf(stderr, "%s: %zu bytes made it take %zu\n", path.c_str(), bytes.size(), taken);
      return 1;
    }
  }
  std::printf("%zu inputs\n", files.size());
  return 0;
}
