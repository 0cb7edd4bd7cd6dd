// HTTP/1.1 for /health, /metrics and /version: a small strict parser and the answer's bytes. Owns no connection. What
// is not plainly a request is refused: no folded headers, no bare line feeds, no chunked bodies.
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "net/server.h"

namespace conclave::net {

inline constexpr size_t kHttp1HeaderBytesMax = size_t{16} << 10;
inline constexpr size_t kHttp1BodyBytesMax = size_t{64} << 10;

enum class Http1Next : uint8_t {
  kRequest,
  kMore,  // not all there yet
  kBad,   // answer 400 and close
};

struct Http1Request {
  HttpRequest request;
  bool keep_alive = true;
  size_t bytes = 0;  // of the input, used up
};

// `bytes` begins with a request. Called again with more after kMore.
[[nodiscard]] Http1Next parse_http1(ByteView bytes, Http1Request& out);

// `head`: the answer to a HEAD request, without its body.
void format_http1(const HttpResponse& response, bool keep_alive, bool head, std::string& out);

}  // namespace conclave::net
