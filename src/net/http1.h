// HTTP/1.1 for JSON, /health, /metrics and /version: a small strict parser and the answer's bytes. Owns no connection.
// What is not plainly a request is refused: no folded headers, no bare line feeds, no chunked requests.
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "net/server.h"

namespace conclave::net {

inline constexpr size_t kHttp1HeaderBytesMax = size_t{16} << 10;
// A request of 1.5 MiB with its bytes in base64, or with every byte of it escaped in a way nobody writes.
inline constexpr size_t kHttp1BodyBytesMax = size_t{4} << 20;

enum class Http1Next : uint8_t {
  kRequest,
  kMore,  // not all there yet
  kBad,   // answer 400 and close
};

struct Http1Request {
  HttpRequest request;
  bool keep_alive = true;
  bool is_1_1 = false;
  bool expects_continue = false;  // it waits with the body for our word
  size_t bytes = 0;               // of the input, used up; after kMore how many it will be, zero if that is not known
};

// `bytes` begins with a request. Called again with more after kMore.
[[nodiscard]] Http1Next parse_http1(ByteView bytes, Http1Request& out);

// `head`: the answer to a HEAD request, without its body.
void format_http1(const HttpResponse& response, bool keep_alive, bool head, std::string& out);
// The head of an answer whose body comes in pieces: chunked, or, for HTTP/1.0, up to the connection's end.
void format_http1_head(const HttpResponse& response, bool keep_alive, bool chunked, std::string& out);
void format_http1_chunk(std::string_view piece, std::string& out);
inline constexpr std::string_view kHttp1LastChunk = "0\r\n\r\n";
inline constexpr std::string_view kHttp1Continue = "HTTP/1.1 100 Continue\r\n\r\n";

}  // namespace conclave::net
