#include "client/names.h"

#include "conclave/session.h"

namespace conclave::client {

std::string_view to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kRejected:
      return "rejected";
    case ErrorKind::kNotApplied:
      return "not applied";
    case ErrorKind::kOutcomeUnknown:
      return "outcome unknown";
    case ErrorKind::kLost:
      return "lost";
    case ErrorKind::kCancelled:
      return "cancelled";
  }
  return "?";
}

std::string_view to_string(HeldEnd end) {
  switch (end) {
    case HeldEnd::kReleased:
      return "released";
    case HeldEnd::kAlreadyLost:
      return "already lost";
    case HeldEnd::kUnknown:
      return "unknown";
  }
  return "?";
}

std::string_view to_string(State state) {
  switch (state) {
    case State::kOpening:
      return "opening";
    case State::kSafe:
      return "safe";
    case State::kJeopardy:
      return "jeopardy";
    case State::kExpired:
      return "expired";
    case State::kClosed:
      return "closed";
  }
  return "?";
}

Error error_of(const OperationEnded& ended) {
  Error error{ErrorKind::kOutcomeUnknown, ended.reason, ended.message};
  switch (ended.outcome) {
    case Outcome::kRejected:
      // Somebody holds it now: the same may be asked again with another answer.
      error.kind = ended.reason == "WOULD_BLOCK" ? ErrorKind::kNotApplied
                   : ended.reason == "NOT_OWNER" ? ErrorKind::kLost
                                                 : ErrorKind::kRejected;
      break;
    case Outcome::kNotApplied:
      error.kind = ErrorKind::kNotApplied;
      break;
    case Outcome::kLost:
      error.kind = ErrorKind::kLost;
      break;
    case Outcome::kCancelled:
      error.kind = ErrorKind::kCancelled;
      break;
    case Outcome::kDone:
    case Outcome::kUnknown:
      break;
  }
  if (error.reason.empty()) error.reason = error.kind == ErrorKind::kCancelled ? "CANCELLED" : "UNKNOWN_OUTCOME";
  if (error.message.empty()) {
    error.message = error.reason == "TIMED_OUT" && error.kind == ErrorKind::kNotApplied
                        ? "it was not granted in the time given; nothing of it is left"
                        : error.reason;
  }
  return error;
}

}  // namespace conclave::client
