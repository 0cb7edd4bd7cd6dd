#include "env/posix/random.h"

#include <sys/random.h>

#include "base/assert.h"

namespace conclave::env {

uint64_t PosixRandom::next() {
  uint64_t value = 0;
  // Up to 256 bytes are never cut short once the pool is ready (getrandom(2)).
  const ssize_t got = getrandom(&value, sizeof(value), 0);
  ASSERT_CMP(got, ==, static_cast<ssize_t>(sizeof(value)));
  return value;
}

}  // namespace conclave::env
