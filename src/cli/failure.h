// Failure: why a verb ends without having done its work: the exit code, what happened and, if there is something to be
// done about it, what.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "cli/verbs.h"

namespace conclave::cli {

struct Failure {
  ExitCode code = kInternal;
  std::string message;
  std::string hint;
};

// Tells it on stderr; the exit code.
int report(const Failure& failure);
// Of a wrong argument.
[[nodiscard]] Failure usage_failure(const Error& error);
// Tells what goes on, on stderr.
void narrate(std::string_view text);

}  // namespace conclave::cli
