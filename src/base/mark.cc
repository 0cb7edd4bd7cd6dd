#include "base/mark.h"

extern "C" {
// Made by the linker for a section whose name is an identifier; weak, since a program may have no mark.
extern conclave::Mark* const __start_conclave_marks[] __attribute__((weak));  // NOLINT(bugprone-reserved-identifier)
extern conclave::Mark* const __stop_conclave_marks[] __attribute__((weak));   // NOLINT(bugprone-reserved-identifier)
}

namespace conclave {

std::span<Mark* const> all_marks() {
  return {__start_conclave_marks, static_cast<size_t>(__stop_conclave_marks - __start_conclave_marks)};
}

}  // namespace conclave
