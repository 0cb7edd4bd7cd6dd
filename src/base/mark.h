// REACHED: a mark at a rare branch, counted. The simulator asks at the end of a range of seeds which marks never fired:
// a branch that no test reaches is not tested. A mark costs one relaxed add and changes nothing.
//
// Use it in functions of .cc files, not in templates or inline functions: each mark is an object in a section of its
// own, so that marks never reached are known too.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

namespace conclave {

struct Mark {
  const char* name;
  const char* file;
  int line;
  std::atomic<uint64_t> hits{0};
};

// Every mark linked into this program, reached or not. Order is the linker's: sort by name before printing.
[[nodiscard]] std::span<Mark* const> all_marks();

}  // namespace conclave

#define REACHED(name)                                                                                    \
  do {                                                                                                   \
    static ::conclave::Mark reached_mark_{#name, __FILE__, __LINE__, 0};                                 \
    __attribute__((section("conclave_marks"), used, retain)) static ::conclave::Mark* reached_pointer_ = \
        &reached_mark_;                                                                                  \
    reached_mark_.hits.fetch_add(1, std::memory_order_relaxed);                                          \
  } while (false)
