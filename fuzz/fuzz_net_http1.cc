// Bytes from an HTTP/1.1 client: what is read as a request reads the same from a prefix that ends with it, and no
// prefix of it is a request or refused.
#include <cstdint>

#include "base/assert.h"
#include "net/http1.h"

using conclave::ByteView;
using conclave::net::Http1Next;
using conclave::net::Http1Request;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView bytes(reinterpret_cast<const char*>(data), size);
  Http1Request request;
  const Http1Next next = conclave::net::parse_http1(bytes, request);
  if (next != Http1Next::kRequest) return 0;
  ASSERT_CMP(request.bytes, <=, size);
  ASSERT_CMP(request.request.body.size(), <=, conclave::net::kHttp1BodyBytesMax);
  Http1Request again;
  ASSERT(conclave::net::parse_http1(bytes.substr(0, request.bytes), again) == Http1Next::kRequest);
  ASSERT(again.bytes == request.bytes && again.keep_alive == request.keep_alive);
  ASSERT(again.request.method == request.request.method && again.request.target == request.request.target &&
         again.request.body == request.request.body);
  Http1Request cut;
  const size_t before = request.bytes - 1 - request.bytes / 3 % request.bytes;
  ASSERT(conclave::net::parse_http1(bytes.substr(0, before), cut) == Http1Next::kMore);
  return 0;
}
