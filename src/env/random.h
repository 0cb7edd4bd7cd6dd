#pragma once

#include <cstdint>

namespace conclave::env {

// Unpredictable numbers: seeds, ids and secrets. Any thread.
class Random {
 public:
  virtual ~Random() = default;
  [[nodiscard]] virtual uint64_t next() = 0;
};

}  // namespace conclave::env
