// What servers tell each other before a cluster has begun, or of its members: pieces of the input, each its length and
// then so many bytes, as frames for one server's bootstrap, and as introductions, which encode to the same again.
#include <cstdint>

#include "base/assert.h"
#include "server/bootstrap.h"
#include "server/introduction.h"

namespace {

using namespace conclave;          // NOLINT(google-build-using-namespace)
using namespace conclave::server;  // NOLINT(google-build-using-namespace)

void read_introduction(ByteView frame) {
  const auto members = decode_introduction(frame);
  if (!members) return;
  const auto again = decode_introduction(encode_introduction(*members));
  ASSERT(again.has_value());
  ASSERT_CMP(again->size(), ==, members->size());
  for (size_t i = 0; i < members->size(); ++i) {
    ASSERT((*again)[i].id == (*members)[i].id && (*again)[i].host == (*members)[i].host &&
           (*again)[i].port == (*members)[i].port && (*again)[i].name == (*members)[i].name);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ByteView bytes(reinterpret_cast<const char*>(data), size);
  size_t sent = 0;
  BootstrapState state = BootstrapState::kEmpty;
  Bootstrap* self = nullptr;
  Bootstrap bootstrap(NodeId(1), {{NodeId(2), "n2"}, {NodeId(3), "n3"}}, 7,
                      {.send = [&](NodeId, const std::string& frame) { sent += frame.empty() ? 0 : 1; },
                       .state = [&] { return state; },
                       .begin =
                           [&] {
                             state = BootstrapState::kBegun;
                             self->begun();
                           }});
  self = &bootstrap;
  Instant now{std::chrono::seconds(1)};
  if (size % 2 == 1) bootstrap.init(now, [](const Bootstrap::Outcome&) {});
  while (bytes.size() > 1) {
    const auto from = static_cast<uint64_t>(bytes[0] & 3);
    const ByteView frame = bytes.substr(2, static_cast<uint8_t>(bytes[1]));
    bytes.remove_prefix(2 + frame.size());
    if (frame.empty()) continue;
    if (frame[0] == kIntroductionFrame) {
      read_introduction(frame);
    } else {
      bootstrap.on_frame(NodeId(from), frame);
    }
    now += std::chrono::milliseconds(300);
    bootstrap.tick(now);
  }
  ASSERT_CMP(sent, <=, 64 + 4 * size);
  return 0;
}
