#include "sim/register_machine.h"

#include "base/assert.h"
#include "sim/digest.h"

namespace conclave::sim {

std::string encode(const Command& command) {
  std::string bytes;
  ByteWriter writer(bytes);
  writer.varint(command.client);
  writer.varint(command.sequence);
  writer.fixed(static_cast<uint8_t>(command.kind));
  writer.fixed(command.place);
  writer.varint(command.value);
  writer.varint(command.expected);
  return bytes;
}

Result<Command> decode_command(ByteView bytes) {
  ByteReader reader(bytes);
  Command command;
  const uint64_t client = reader.varint();
  command.sequence = reader.varint();
  const auto kind = reader.fixed<uint8_t>();
  command.place = reader.fixed<uint8_t>();
  command.value = reader.varint();
  command.expected = reader.varint();
  if (!reader.finished() || client >= kRegisterClientsMax || kind < 1 || kind > 4 || command.place >= kRegisters) {
    return fail(ErrorCode::kMalformed, "not a command");
  }
  command.client = static_cast<uint32_t>(client);
  command.kind = static_cast<CommandKind>(kind);
  return command;
}

ApplyResult RegisterMachine::apply(const Entry& entry) {
  ASSERT_CMP(entry.index, ==, applied_.next());
  ASSERT(entry.type != EntryType::kHole);
  applied_ = entry.index;
  if (entry.type != EntryType::kCommand) return {};
  const Result<Command> command = decode_command(entry.payload.view());
  if (!command) return {};
  if (sequences_.size() <= command->client) sequences_.resize(command->client + 1);
  if (command->sequence <= sequences_[command->client]) return {};
  sequences_[command->client] = command->sequence;
  uint64_t& place = registers_[command->place];
  ApplyResult result{.effective = true, .success = true, .before = place};
  switch (command->kind) {
    case CommandKind::kPut:
      place = command->value;
      break;
    case CommandKind::kCompareAndSet:
      result.success = place == command->expected;
      if (result.success) place = command->value;
      break;
    case CommandKind::kAppend: {
      Digest digest;
      digest.add(place);
      digest.add(command->value);
      place = digest.value();
      break;
    }
    case CommandKind::kClockLease:
      clock_lease_ = command->value == 1;
      break;
  }
  return result;
}

uint64_t RegisterMachine::digest() const {
  Digest digest;
  for (uint64_t each : registers_) digest.add(each);
  for (uint64_t each : sequences_) digest.add(each);
  digest.add(clock_lease_ ? 1 : 0);
  return digest.value();
}

std::string RegisterMachine::encode_state() const {
  std::string bytes;
  ByteWriter writer(bytes);
  writer.fixed(applied_.value());
  for (uint64_t each : registers_) writer.fixed(each);
  writer.varint(sequences_.size());
  for (uint64_t each : sequences_) writer.fixed(each);
  writer.fixed(static_cast<uint8_t>(clock_lease_));
  return bytes;
}

Result<RegisterMachine> RegisterMachine::decode_state(ByteView bytes) {
  ByteReader reader(bytes);
  RegisterMachine machine;
  machine.applied_ = LogIndex(reader.fixed<uint64_t>());
  for (uint64_t& each : machine.registers_) each = reader.fixed<uint64_t>();
  const uint64_t clients = reader.varint();
  if (clients > kRegisterClientsMax) return fail(ErrorCode::kMalformed, "state: {} clients", clients);
  for (uint64_t i = 0; i < clients; ++i) machine.sequences_.push_back(reader.fixed<uint64_t>());
  machine.clock_lease_ = reader.fixed<uint8_t>() == 1;
  if (!reader.finished()) return fail(ErrorCode::kMalformed, "state: wrong length");
  return machine;
}

}  // namespace conclave::sim
