// A compressed message from a client: never more comes out than was allowed, the limit alone decides whether it is too
// large, and what is cut is not taken for whole.
#include <cstdint>
#include <string>

#include "base/assert.h"
#include "net/gzip.h"

namespace {

using namespace conclave;       // NOLINT(google-build-using-namespace)
using namespace conclave::net;  // NOLINT(google-build-using-namespace)

constexpr size_t kBytesMax = size_t{256} << 10;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView bytes(reinterpret_cast<const char*>(data), size);
  std::string out;
  const Gunzip first = gunzip(bytes, kBytesMax, out);
  ASSERT_CMP(out.size(), <=, kBytesMax);
  if (first != Gunzip::kDone) return 0;
  std::string again;
  ASSERT(gunzip(bytes, out.size(), again) == Gunzip::kDone);
  ASSERT(again == out);
  std::string cut;
  ASSERT(gunzip(bytes.substr(0, size - 1), kBytesMax, cut) == Gunzip::kMalformed);
  ASSERT(out.starts_with(cut));
  if (!out.empty()) {
    std::string less;
    ASSERT(gunzip(bytes, out.size() - 1, less) == Gunzip::kTooLarge);
  }
  return 0;
}
