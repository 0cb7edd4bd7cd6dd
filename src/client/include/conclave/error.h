// What can become of an operation, for programs that must act on it. No operation throws. Of a guarded transaction look
// at `succeeded` too: its own compares may have failed.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

namespace conclave::client {

// A kind exists because a caller acts differently on it.
enum class ErrorKind : uint8_t {
  kRejected,        // the cluster, or this library, said no; asked again as it is, it will say no again
  kNotApplied,      // it did not happen, and will not: there was no time, no leader, no room. Ask again
  kOutcomeUnknown,  // it may have happened, or may yet
  kLost,            // what it was about is not held: the session has ended, or the claim was taken away
  kCancelled,       // by its caller; nothing of it is left
};
[[nodiscard]] std::string_view to_string(ErrorKind kind);

struct Error {
  ErrorKind kind = ErrorKind::kRejected;
  std::string reason{};   // stable, for programs: WOULD_BLOCK, SESSION_EXPIRED, ...; docs/client.md lists them
  std::string message{};  // what happened, to what; for people
};

}  // namespace conclave::client
