// Commands and requests from hostile bytes: the header's decoder, our own bodies, and the strict parsers, which must
// agree with protobuf on everything they take.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "etcd/rpc.pb.h"
#include "keyspace/command.h"
#include "keyspace/internal_command.h"
#include "keyspace/requests.h"
#include "keyspace/validate.h"

namespace {

using namespace conclave;
using namespace conclave::keyspace;

void require(bool condition) {
  if (!condition) std::abort();
}

// What goes into the log is stable: normalised once, it normalises to itself.
void check_normalise(CommandKind kind, ByteView bytes) {
  std::string storage;
  ByteView canonical;
  if (normalise(kind, bytes, storage, canonical) != ErrorId::kNone) return;
  std::string once(canonical);
  std::string again;
  ByteView twice;
  require(normalise(kind, once, again, twice) == ErrorId::kNone);
  require(twice == once);
}

void check_put(ByteView bytes) {
  PutRequest parsed;
  if (parse(bytes, parsed) != ErrorId::kNone) return;
  etcdserverpb::PutRequest message;
  require(message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())));
  require(message.key() == parsed.key && message.value() == parsed.value && message.lease() == parsed.lease);
  require(message.prev_kv() == parsed.prev_kv && message.ignore_value() == parsed.ignore_value &&
          message.ignore_lease() == parsed.ignore_lease);
}

void check_node(const Program& program, uint32_t at, const etcdserverpb::TxnRequest& message) {
  const TxnNode& node = program.txns[at];
  require(static_cast<int>(node.compares.size()) == message.compare_size());
  require(static_cast<int>(node.success.size()) == message.success_size());
  require(static_cast<int>(node.failure.size()) == message.failure_size());
  for (uint32_t i = 0; i < node.compares.size(); ++i) {
    const Compare& compare = program.compares[node.compares.begin + i];
    const etcdserverpb::Compare& wanted = message.compare(static_cast<int>(i));
    require(compare.key == wanted.key() && compare.range_end == wanted.range_end());
    require(static_cast<int>(compare.target) == wanted.target() && static_cast<int>(compare.result) == wanted.result());
    if (wanted.target() == etcdserverpb::Compare::VALUE) require(compare.expected_value() == wanted.value());
    if (wanted.target() == etcdserverpb::Compare::LEASE) require(compare.expected_number() == wanted.lease());
  }
  for (int branch = 0; branch < 2; ++branch) {
    Slice slice = branch == 0 ? node.success : node.failure;
    for (uint32_t i = 0; i < slice.size(); ++i) {
      const Operation& operation = program.operations[slice.begin + i];
      const etcdserverpb::RequestOp& wanted =
          branch == 0 ? message.success(static_cast<int>(i)) : message.failure(static_cast<int>(i));
      require(static_cast<int>(operation.kind) == static_cast<int>(wanted.request_case()));
      if (operation.kind == OperationKind::kPut) require(program.puts[operation.at].key == wanted.request_put().key());
      if (operation.kind == OperationKind::kTxn) check_node(program, operation.at, wanted.request_txn());
    }
  }
}

void check_txn(ByteView bytes) {
  Program program;
  if (parse(bytes, program) != ErrorId::kNone || program.txns.back().depth > 40) return;
  etcdserverpb::TxnRequest message;
  require(message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())));
  check_node(program, 0, message);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ByteView bytes(reinterpret_cast<const char*>(data), size);
  Command command;
  if (decode_command(bytes, command)) {
    std::string head;
    encode_header(command.header, head);
    Command again;
    require(decode_command(head, again));
    require(again.header == command.header);
    SessionOpen open;
    (void)decode(command.body, open);
    std::vector<LeaseId> leases;
    (void)decode_expire(command.body, leases);
    InternalCommand internal;
    if (decode(command.body, internal) == ErrorId::kNone) {
      std::string encoded;
      encode(internal, encoded);
      InternalCommand twice;
      require(decode(encoded, twice) == ErrorId::kNone);
      require(twice.operations.size() == internal.operations.size() && twice.guards.size() == internal.guards.size());
    }
    bytes = command.body;
  }
  check_put(bytes);
  check_txn(bytes);
  for (CommandKind kind : {CommandKind::kPut, CommandKind::kDeleteRange, CommandKind::kTxn, CommandKind::kCompact,
                           CommandKind::kLeaseGrant, CommandKind::kLeaseRevoke}) {
    check_normalise(kind, bytes);
  }
  return 0;
}
