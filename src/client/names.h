// Words for the enums of the public face, and what becomes of a core's outcome.
#pragma once

#include "client/session_core.h"
#include "conclave/error.h"

namespace conclave::client {

// Of an operation that was not done.
[[nodiscard]] Error error_of(const OperationEnded& ended);

}  // namespace conclave::client
