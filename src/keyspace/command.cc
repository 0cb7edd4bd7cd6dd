#include "keyspace/command.h"

#include "keyspace/limits.h"

namespace conclave::keyspace {
namespace {

constexpr uint8_t kVersion = 1;
constexpr uint8_t kHasOrigin = 1;
constexpr uint8_t kHasSession = 2;
constexpr uint8_t kHasTerm = 4;
constexpr uint8_t kHasLease = 8;
constexpr uint8_t kFlagsKnown = 15;
constexpr uint8_t kKindReserved = 8;

}  // namespace

void encode_header(const CommandHeader& header, std::string& out) {
  ByteWriter writer(out);
  uint8_t flags = 0;
  if (header.origin.is_set()) flags |= kHasOrigin;
  if (header.session.is_set()) flags |= kHasSession;
  if (header.term != Term()) flags |= kHasTerm;
  if (header.lease.is_set()) flags |= kHasLease;
  writer.fixed(kVersion);
  writer.fixed(static_cast<uint8_t>(header.kind));
  writer.fixed(flags);
  if (flags & kHasOrigin) {
    writer.varint(header.origin.value());
    writer.varint(header.boot.value());
    writer.varint(header.request);
  }
  if (flags & kHasSession) {
    writer.varint(header.session.value());
    writer.varint(header.incarnation);
    writer.varint(header.sequence);
  }
  if (flags & kHasTerm) writer.varint(header.term.value());
  if (flags & kHasLease) {
    writer.varint(static_cast<uint64_t>(header.lease.value()));
    writer.varint(static_cast<uint64_t>(header.ttl_ms));
  }
}

SharedBytes encode_command(const CommandHeader& header, ByteView body) {
  std::string head;
  encode_header(header, head);
  return SharedBytes::concat(head, body);
}

bool decode_command(ByteView bytes, Command& out) {
  ByteReader reader(bytes);
  uint8_t version = reader.fixed<uint8_t>();
  uint8_t kind = reader.fixed<uint8_t>();
  uint8_t flags = reader.fixed<uint8_t>();
  bool kind_known = kind >= 1 && kind <= static_cast<uint8_t>(CommandKind::kInternal) && kind != kKindReserved;
  if (!reader.ok() || version != kVersion || !kind_known || (flags & ~kFlagsKnown) != 0) {
    return false;
  }
  CommandHeader& header = out.header;
  header = CommandHeader{.kind = static_cast<CommandKind>(kind)};
  if (flags & kHasOrigin) {
    header.origin = NodeId(reader.varint());
    header.boot = Boot(reader.varint());
    header.request = reader.varint();
    if (!header.origin.is_set()) reader.reject();
  }
  if (flags & kHasSession) {
    header.session = SessionId(reader.varint());
    header.incarnation = reader.varint();
    header.sequence = reader.varint();
    // The bounds keep the arithmetic of the window far from overflow.
    if (!header.session.is_set() || header.sequence == 0 || header.sequence > kProtocolNumberMax ||
        header.incarnation > kProtocolNumberMax) {
      reader.reject();
    }
  }
  if (flags & kHasTerm) {
    header.term = Term(reader.varint());
    if (header.term == Term()) reader.reject();
  }
  if (flags & kHasLease) {
    header.lease = LeaseId(static_cast<int64_t>(reader.varint()));
    header.ttl_ms = static_cast<int64_t>(reader.varint());
    if (!header.lease.is_set() || header.ttl_ms < 0 || header.ttl_ms > kLeaseTtlMsMax) reader.reject();
  }
  out.body = reader.rest();
  return reader.ok();
}

}  // namespace conclave::keyspace
