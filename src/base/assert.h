// ASSERT: broken logic ends the process, in every build, with the values that broke it. Input from a peer, a client or
// a disk is never asserted on; that is a Result or an enum (docs/internals/architecture.md, "Three kinds of wrong").
#pragma once

#include <string>

#include <fmt/format.h>

namespace conclave {

[[noreturn]] void assertion_failed(const char* file, int line, const char* expression,
                                   const std::string& values) noexcept;

// Called once, just before a failed assertion ends the process: the simulator prints its seed there. Not called from
// production code. The hook must not return to the asserting code in any other way than by returning.
using AssertionHook = void (*)(const std::string& message);
void set_assertion_hook(AssertionHook hook) noexcept;

}  // namespace conclave

#define ASSERT(condition)                                               \
  do {                                                                  \
    if (!(condition)) [[unlikely]] {                                    \
      ::conclave::assertion_failed(__FILE__, __LINE__, #condition, {}); \
    }                                                                   \
  } while (false)

// With a message of fmt form: ASSERT_MSG(a < b, "a {} b {}", a, b).
#define ASSERT_MSG(condition, ...)                                                              \
  do {                                                                                          \
    if (!(condition)) [[unlikely]] {                                                            \
      ::conclave::assertion_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
    }                                                                                           \
  } while (false)

// Compares and prints both sides: ASSERT_CMP(applied, <=, committed).
#define ASSERT_CMP(left, op, right)                                                                 \
  do {                                                                                              \
    const auto& assert_left_ = (left);                                                              \
    const auto& assert_right_ = (right);                                                            \
    if (!(assert_left_ op assert_right_)) [[unlikely]] {                                            \
      ::conclave::assertion_failed(__FILE__, __LINE__, #left " " #op " " #right,                    \
                                   ::fmt::format("left {} right {}", assert_left_, assert_right_)); \
    }                                                                                               \
  } while (false)

#define UNREACHABLE() ::conclave::assertion_failed(__FILE__, __LINE__, "unreachable", {})
