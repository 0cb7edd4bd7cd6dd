#include "base/assert.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace conclave {
namespace {
std::atomic<AssertionHook> assertion_hook{nullptr};
}

void set_assertion_hook(AssertionHook hook) noexcept {
  assertion_hook.store(hook);
}

void assertion_failed(const char* file, int line, const char* expression, const std::string& values) noexcept {
  const std::string message =
      fmt::format("ASSERT {}:{}: {}{}{}", file, line, expression, values.empty() ? "" : ": ", values);
  std::fputs((message + "\n").c_str(), stderr);
  // Taken once: an assertion inside the hook must not recurse.
  if (AssertionHook hook = assertion_hook.exchange(nullptr)) hook(message);
  std::fflush(nullptr);
  std::abort();
}

}  // namespace conclave
