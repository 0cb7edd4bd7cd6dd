#include "base/entry.h"

namespace conclave {

std::string_view to_string(EntryType type) {
  switch (type) {
    case EntryType::kHole:
      return "hole";
    case EntryType::kNoop:
      return "noop";
    case EntryType::kCommand:
      return "command";
    case EntryType::kConfiguration:
      return "configuration";
  }
  return "unknown";
}

std::string_view to_string(Certainty certainty) {
  switch (certainty) {
    case Certainty::kCertain:
      return "certain";
    case Certainty::kLastUncertain:
      return "last position uncertain";
    case Certainty::kVoteUncertain:
      return "vote uncertain";
    case Certainty::kEmpty:
      return "empty";
    case Certainty::kRolledBack:
      return "rolled back";
  }
  return "unknown";
}

}  // namespace conclave
