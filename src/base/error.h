// Result: the world failing, handed to the caller who can act.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace conclave {

// A code exists only if some caller acts differently on it.
enum class ErrorCode : uint8_t {
  kInvalidArgument,  // the caller asked for something that can never be
  kMalformed,        // bytes that are not what they should be
  kNotFound,
  kAlreadyExists,
  kOutOfRange,  // past the end of the file or the range kept
  kIo,          // the device failed; for a write or sync: nothing may be acknowledged after it, ever
  kUnreadable,  // a read failed or returned what cannot be; a copy elsewhere may serve
  kNoSpace,     // the device is full: an expected state
  kLocked,      // somebody else holds it
  kForeign,     // it belongs to another cluster or member
  kVersion,     // written by a version this one does not know
  kCrashed,     // simulation only: this machine lost power during the call
};

[[nodiscard]] std::string_view to_string(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kInvalidArgument;
  std::string message;  // what happened, to what; for people
};

template <class T>
using Result = std::expected<T, Error>;
using Status = std::expected<void, Error>;

template <class... Args>
[[nodiscard]] std::unexpected<Error> fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}

}  // namespace conclave

// Leaves the function with the error of `expression`, if it has one. For expressions whose value is not needed.
#define RETURN_IF_ERROR(expression)                           \
  do {                                                        \
    if (auto status_ = (expression); !status_) [[unlikely]] { \
      return std::unexpected(std::move(status_).error());     \
    }                                                         \
  } while (false)

#define CONCLAVE_CONCAT_INNER(a, b) a##b
#define CONCLAVE_CONCAT(a, b) CONCLAVE_CONCAT_INNER(a, b)

// ASSIGN_OR_RETURN(auto file, disk.open(name)): the value, or the error to the caller.
#define ASSIGN_OR_RETURN(declaration, expression) \
  ASSIGN_OR_RETURN_INNER(CONCLAVE_CONCAT(result_, __LINE__), declaration, expression)
#define ASSIGN_OR_RETURN_INNER(temporary, declaration, expression) \
  auto temporary = (expression);                                   \
  if (!temporary) [[unlikely]]                                     \
    return std::unexpected(std::move(temporary).error());          \
  declaration = std::move(*temporary)
