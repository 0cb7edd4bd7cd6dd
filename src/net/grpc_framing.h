// gRPC's bytes inside HTTP/2: messages with their 5-byte prefix, the timeout header, the status message. Owns no
// connection. Everything here takes hostile input.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/time.h"
#include "net/grpc.h"

namespace conclave::net {

inline constexpr size_t kGrpcPrefixBytes = 5;

// Cuts messages out of a stream's bytes. feed() a piece, then next() until it gives kMore; a message that lies whole in
// one piece is not copied. Holds at most one message's bytes, and those only as they arrive.
class MessageReader {
 public:
  enum class Next : uint8_t {
    kMessage,
    kMore,        // the piece is used up
    kTooLarge,    // and after these three nothing more is read
    kCompressed,  // flagged so, without take_compressed()
    kMalformed,   // a flag that is not defined
  };

  explicit MessageReader(size_t message_bytes_max) : message_bytes_max_(message_bytes_max) {}

  // From now on compressed messages are given out as they are; the limit holds for what is on the wire.
  void take_compressed() { takes_compressed_ = true; }
  void feed(ByteView piece) { piece_ = piece; }
  // The view is good until the next call.
  [[nodiscard]] Next next(ByteView& message);
  // Of the message that next() gave.
  [[nodiscard]] bool is_compressed() const { return is_compressed_; }
  // Part of a message is there: the stream must not end here.
  [[nodiscard]] bool in_message() const { return !partial_.empty(); }
  // Of a message that is not whole yet.
  [[nodiscard]] size_t held_bytes() const { return partial_.size(); }

 private:
  [[nodiscard]] Next check_prefix(const char* prefix, size_t& size);
  void take(size_t bytes_wanted);

  size_t message_bytes_max_;
  ByteView piece_;
  std::string partial_;     // prefix and what there is of the message
  bool delivered_ = false;  // partial_ was given out
  bool takes_compressed_ = false;
  bool is_compressed_ = false;
};

// What was sent on a stream and not yet taken by the connection. Small messages share a segment; a large one becomes a
// segment without being copied.
class OutboundMessages {
 public:
  void add(std::string&& message);
  void add(std::string_view message);
  // One message, in pieces, which are taken.
  void add_pieces(std::span<std::string> pieces);
  [[nodiscard]] size_t size() const { return bytes_; }
  [[nodiscard]] bool empty() const { return bytes_ == 0; }
  // Moves the first `count` bytes to the end of `out`; count is at most size().
  void take(size_t count, std::string& out);
  void clear();

 private:
  [[nodiscard]] std::string& open_segment(size_t coming);
  void add_prefix(std::string& segment, size_t size);

  std::vector<std::string> segments_;
  size_t first_ = 0;   // segments before it are used up
  size_t offset_ = 0;  // into the first
  size_t bytes_ = 0;
};

// "100m": at most 8 digits and a unit of H M S m u n. Nothing if it is not that.
[[nodiscard]] std::optional<Duration> parse_grpc_timeout(std::string_view text);
// Rounded up to what 8 digits hold.
[[nodiscard]] std::string format_grpc_timeout(Duration timeout);

// grpc-message: everything but printable ASCII, and the percent sign, as %XX.
[[nodiscard]] std::string percent_encode(std::string_view text);
// What is no valid escape stays as it is.
[[nodiscard]] std::string percent_decode(std::string_view text);

// grpc-retry-pushback-ms: whole milliseconds, rounded up; and read, where what is negative or no number is nothing, and
// at most an hour is believed.
[[nodiscard]] std::string format_pushback(Duration retry_after);
[[nodiscard]] std::optional<Duration> parse_pushback(std::string_view text);
// Whose reasons they are, in google.rpc.ErrorInfo.
inline constexpr std::string_view kErrorDomain = "conclave";
// grpc-status-details-bin: a google.rpc.Status in base64 that repeats the status and holds a google.rpc.ErrorInfo where
// there is a reason, and a google.rpc.RetryInfo where it is known when to ask again. Empty if there is neither.
[[nodiscard]] std::string format_status_details(const GrpcStatus& status);

}  // namespace conclave::net
