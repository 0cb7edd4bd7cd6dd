// Bytes from a peer: decoded, encoded again to the same bytes, and given to a core, which must stay sound.
#include <cstdlib>

#include "base/assert.h"
#include "raft/codec.h"
#include "raft/invariants.h"
#include "raft/testing/durable.h"

namespace {

using namespace conclave;        // NOLINT(google-build-using-namespace)
using namespace conclave::raft;  // NOLINT(google-build-using-namespace)

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView bytes(reinterpret_cast<const char*>(data), size);
  Result<OwnedMessage> decoded = OwnedMessage::decode(bytes);
  if (!decoded) return 0;
  std::string again;
  encode(decoded->message(), again);
  ASSERT(again == bytes);

  std::vector<NodeId> ids{NodeId(1), NodeId(2), NodeId(3)};
  Durable durable = Durable::bootstrap(GroupId(7), NodeId(2), Membership::of_voters(ids));
  for (uint64_t index = 1; index <= 4; ++index) {
    durable.entries[LogIndex(index)] = {
        .index = LogIndex(index), .term = Term(1), .type = EntryType::kCommand, .payload = SharedBytes::copy_of("p")};
  }
  durable.vote.term = Term(1);
  Options options;
  options.group = GroupId(7);
  options.self = NodeId(2);
  options.boot = Boot(1);
  Raft raft(options, durable.recover());
  Output output;
  raft.step(Instant(std::chrono::seconds(1)), Start{}, output);
  const Invariants::State before = Invariants::capture(raft);
  raft.step(Instant(std::chrono::seconds(2)), Receive{.message = decoded->message()}, output);
  std::string violation = Invariants::check(raft);
  if (violation.empty()) violation = Invariants::check_step(before, raft, output);
  ASSERT_MSG(violation.empty(), "{}", violation);
  return 0;
}
