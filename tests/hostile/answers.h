// What a server answered on one connection of an attacker: the calls that ended, by their status.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

#include "base/assert.h"
#include "net/testing/http2_frames.h"

namespace conclave::hostile {

// By `grpc-status`; of a connection whose headers cannot be read, "unreadable".
using Statuses = std::map<std::string, size_t>;

class Answers {
 public:
  Answers() { ASSERT(nghttp2_hd_inflate_new(&inflater_) == 0); }
  Answers(const Answers&) = delete;
  Answers& operator=(const Answers&) = delete;
  ~Answers() { nghttp2_hd_inflate_del(inflater_); }

  void hear(std::string_view bytes, Statuses& statuses) {
    unread_ += bytes;
    size_t read = 0;
    for (const net::Frame& got : net::frames_in(unread_)) {
      read += kFrameHead + got.payload.size();
      if (got.type == net::kHeaders) inflate(got.payload, statuses);
    }
    unread_.erase(0, read);
  }

 private:
  static constexpr size_t kFrameHead = 9;

  void inflate(std::string_view payload, Statuses& statuses) {
    const auto* at = reinterpret_cast<const uint8_t*>(payload.data());
    size_t left = payload.size();
    for (;;) {
      nghttp2_nv field;
      int flags = 0;
      const ssize_t used = nghttp2_hd_inflate_hd2(inflater_, &field, &flags, at, left, 1);
      if (used < 0) {
        ++statuses["unreadable"];
        return;
      }
      at += used;
      left -= static_cast<size_t>(used);
      if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0) {
        const std::string_view name(reinterpret_cast<const char*>(field.name), field.namelen);
        if (name == "grpc-status") ++statuses[{reinterpret_cast<const char*>(field.value), field.valuelen}];
      }
      if ((flags & NGHTTP2_HD_INFLATE_FINAL) == 0) continue;
      nghttp2_hd_inflate_end_headers(inflater_);
      return;
    }
  }

  nghttp2_hd_inflater* inflater_ = nullptr;
  std::string unread_;
};

}  // namespace conclave::hostile
