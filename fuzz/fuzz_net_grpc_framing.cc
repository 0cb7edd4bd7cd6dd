// A stream's bytes, cut into pieces: the messages are the same however they are cut, and what is queued for sending
// comes out as those bytes. Also the texts of headers.
#include <cstdint>
#include <string>
#include <vector>

#include "base/assert.h"
#include "net/grpc_framing.h"

namespace {

using namespace conclave;       // NOLINT(google-build-using-namespace)
using namespace conclave::net;  // NOLINT(google-build-using-namespace)

struct Read {
  std::vector<std::string> messages;
  MessageReader::Next end = MessageReader::Next::kMore;
  bool in_message = false;
};

Read read_in_pieces(ByteView bytes, size_t piece_bytes) {
  MessageReader reader(1000);
  Read read;
  while (!bytes.empty() && read.end == MessageReader::Next::kMore) {
    reader.feed(bytes.substr(0, piece_bytes));
    bytes.remove_prefix(std::min(piece_bytes, bytes.size()));
    ByteView message;
    while ((read.end = reader.next(message)) == MessageReader::Next::kMessage) {
      ASSERT_CMP(message.size(), <=, 1000U);
      read.messages.emplace_back(message);
    }
  }
  read.in_message = reader.in_message();
  return read;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t piece = 1 + data[0] % 64;
  const ByteView bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Read whole = read_in_pieces(bytes, bytes.size() + 1);
  const Read cut = read_in_pieces(bytes, piece);
  ASSERT(whole.messages == cut.messages);
  ASSERT(whole.end == cut.end);

  OutboundMessages out;
  std::string taken;
  for (const std::string& message : whole.messages) {
    out.add(message);
    if (message.size() % 2 == 1) out.take(out.size() / 2, taken);
  }
  out.take(out.size(), taken);
  ASSERT(bytes.substr(0, taken.size()) == taken);

  const std::string encoded = percent_encode(bytes);
  ASSERT(percent_decode(encoded) == bytes);
  (void)percent_decode(bytes);
  if (const auto timeout = parse_grpc_timeout(bytes)) {
    ASSERT(parse_grpc_timeout(format_grpc_timeout(*timeout)) >= *timeout);
  }
  return 0;
}
