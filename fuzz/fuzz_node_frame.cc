// A frame between replicas, beside those of consensus: what is read encodes to the same bytes' meaning again.
#include <cstdint>

#include "base/assert.h"
#include "node/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace conclave::node;  // NOLINT(google-build-using-namespace)
  const auto frame = decode_frame({reinterpret_cast<const char*>(data), size});
  if (!frame) return 0;
  const std::string encoded = encode(*frame);
  const auto again = decode_frame(encoded);
  ASSERT(again.has_value());
  ASSERT_CMP(again->index(), ==, frame->index());
  ASSERT(encode(*again) == encoded);
  return 0;
}
