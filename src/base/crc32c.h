// CRC-32C (Castagnoli, RFC 3720 appendix B.4): the checksum of everything stored or sent.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"

namespace conclave {

// Of `bytes`, continuing from `seed` (the crc of what came before; 0 at the start).
[[nodiscard]] uint32_t crc32c(ByteView bytes, uint32_t seed = 0);

// The table form, whatever the processor has; for tests and other machines. Same answers.
[[nodiscard]] uint32_t crc32c_portable(ByteView bytes, uint32_t seed = 0);

// Of four buffers of `size` bytes each, all from the same seed: the processor works on them side by side, three times
// as fast as one after the other.
void crc32c_four(const char* const (&buffers)[4], size_t size, uint32_t seed, uint32_t (&out)[4]);

// True if crc32c uses the processor's instruction.
[[nodiscard]] bool crc32c_is_hardware();

}  // namespace conclave
