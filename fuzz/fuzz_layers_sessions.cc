// Sessions under hostile clients: any requests in any order on two streams, entries that are applied early, late or
// never, losses of streams and of the state. Whatever they say, nothing is broken within; and the decoders of what
// layers keep as records. The input: for each step a byte that says what happens, and for a request a sized message
// behind it.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "layers/claim_record.h"
#include "layers/session_end.h"
#include "layers/testing/session_world.h"
#include "node/lease_checkpoints.h"

namespace {

using namespace conclave;
using namespace conclave::layers;

void require(bool condition) {
  if (!condition) std::abort();
}

template <class Record>
void check_record(ByteView bytes) {
  Record record;
  if (!decode(bytes, record)) return;
  Record again;
  require(decode(encode(record), again) && again == record);
}

void check_records(ByteView bytes) {
  check_record<ClaimRecord>(bytes);
  check_record<CandidateRecord>(bytes);
  check_record<RequestRecord>(bytes);
  std::string name;
  SessionId session;
  if (decode_candidate_key(bytes, name, session)) {
    std::string again;
    SessionId other;
    require(decode_candidate_key(candidate_record_key(name, session), again, other) && again == name &&
            other == session);
  }
  (void)why_no_name(bytes);
  (void)keyspace::adds_nothing(bytes);
  (void)node::decode_remaining(bytes);
  (void)node::lease_of_remaining(bytes);
}

constexpr size_t kStepsMax = 200;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView bytes(reinterpret_cast<const char*>(data), size);
  check_records(bytes);
  TestWorld world;
  world.sessions().set_leading(Term(1));
  StreamId streams[] = {world.sessions().open_stream(), world.sessions().open_stream()};
  ByteReader reader(bytes);
  for (size_t step = 0; step < kStepsMax && reader.ok() && !reader.rest().empty(); ++step) {
    const uint8_t what = reader.fixed<uint8_t>();
    StreamId& stream = streams[what >> 7];
    switch (what & 15) {
      case 0:
        world.settle();
        break;
      case 1:
        if (world.writes_waiting() > 0) world.lose_write();
        break;
      case 2:
        if (world.writes_waiting() > 0) world.delay_write();
        break;
      case 3:
        world.apply_late();
        break;
      case 4:
        world.sessions().close_stream(stream);
        stream = world.sessions().open_stream();
        break;
      case 5:
        world.expire(what >> 4 & 7);
        break;
      case 6:
        world.now += std::chrono::milliseconds(100 * (what >> 4));
        world.sessions().tick(world.now);
        break;
      case 7:
        world.sessions().on_state_replaced(world.now);
        break;
      case 8:
        (void)world.step();
        break;
      case 9:
        world.sessions().withdraw(world.now, stream, SessionId(what >> 4 & 7), reader.varint());
        break;
      case 10: {
        const auto body = encode_lingering_end(world.view(), LeaseId(what >> 4 & 7));
        if (body) {
          world.apply({.kind = keyspace::CommandKind::kInternal, .term = Term(1), .lease = LeaseId(what >> 4 & 7)},
                      *body);
        }
        break;
      }
      default: {
        const ByteView message = reader.sized();
        v1::SessionRequest request;
        if (!reader.ok() || !request.ParseFromArray(message.data(), static_cast<int>(message.size()))) break;
        world.sessions().request(world.now, stream, request);
        world.sent.clear();
      }
    }
    world.sent.clear();
  }
  world.settle();
  return 0;
}
