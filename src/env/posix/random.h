#pragma once

#include "env/random.h"

namespace conclave::env {

// getrandom(2): the kernel's generator.
class PosixRandom final : public Random {
 public:
  [[nodiscard]] uint64_t next() override;
};

}  // namespace conclave::env
