#include "base/error.h"

namespace conclave {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid argument";
    case ErrorCode::kMalformed:
      return "malformed";
    case ErrorCode::kNotFound:
      return "not found";
    case ErrorCode::kAlreadyExists:
      return "already exists";
    case ErrorCode::kOutOfRange:
      return "out of range";
    case ErrorCode::kIo:
      return "input/output error";
    case ErrorCode::kUnreadable:
      return "unreadable";
    case ErrorCode::kNoSpace:
      return "no space";
    case ErrorCode::kLocked:
      return "locked";
    case ErrorCode::kForeign:
      return "foreign";
    case ErrorCode::kVersion:
      return "unknown version";
    case ErrorCode::kCrashed:
      return "crashed";
  }
  return "unknown";
}

}  // namespace conclave
