// RequestFields: HTTP/2's rules for the header fields of one request and for its trailers (RFC 9113, 8.2 and 8.3), told
// field by field. nghttp2 knows them too, but takes an :authority for malformed that etcd's clients do send: a Go
// client that is given a URL as its endpoint has all of "http://HOST:PORT" as its authority, and servers of gRPC look
// at none of it. A content-length is not compared with what comes: gRPC's messages have lengths of their own.
#pragma once

#include <cstdint>
#include <string_view>

namespace conclave::net {

class RequestFields {
 public:
  // False: the request is malformed.
  [[nodiscard]] bool take(std::string_view name, std::string_view value);
  // At the end of the first fields: whether all came that must. What is taken from here on are trailers.
  [[nodiscard]] bool end_of_headers();

 private:
  [[nodiscard]] bool take_pseudo(std::string_view name, std::string_view value);

  uint8_t pseudo_ = 0;    // a bit for each that came
  bool regular_ = false;  // no pseudo-header may follow
};

}  // namespace conclave::net
