#include "cli/failure.h"

#include <fmt/format.h>

namespace conclave::cli {

int report(const Failure& failure) {
  fmt::print(stderr, "conclave: {}\n", failure.message);
  if (!failure.hint.empty()) fmt::print(stderr, "  {}\n", failure.hint);
  return failure.code;
}

Failure usage_failure(const Error& error) {
  return {kUsage, error.message, ""};
}

void narrate(std::string_view text) {
  fmt::print(stderr, "conclave: {}\n", text);
}

}  // namespace conclave::cli
