#include "layers/claim_record.h"

#include <fmt/format.h>

namespace conclave::layers {
namespace {

constexpr uint8_t kVersion = 1;

// Every record begins with it: a later one is not understood, and says nothing.
std::string begin_record() {
  std::string out;
  ByteWriter(out).fixed(kVersion);
  return out;
}
bool read_version(ByteReader& reader) {
  return reader.fixed<uint8_t>() == kVersion && reader.ok();
}

uint64_t zigzag(int32_t value) {
  return static_cast<uint32_t>(value) << 1 ^ static_cast<uint32_t>(value >> 31);
}
int32_t unzigzag(uint64_t value) {
  return static_cast<int32_t>(static_cast<uint32_t>(value >> 1) ^ (~static_cast<uint32_t>(value & 1) + 1));
}

}  // namespace

std::string claim_record_key(ByteView claim) {
  return fmt::format("{}{}", kClaimRecords, claim);
}

std::string encode(const ClaimRecord& record) {
  std::string out = begin_record();
  ByteWriter writer(out);
  writer.fixed(static_cast<uint8_t>(record.kind));
  writer.varint(record.lock_delay_ms);
  writer.sized(record.note);
  if (record.since == LogIndex()) return out;
  writer.varint(zigzag(record.priority));
  writer.varint(record.since.value());
  return out;
}

bool decode(ByteView bytes, ClaimRecord& out) {
  ByteReader reader(bytes);
  if (!read_version(reader)) return false;
  const uint8_t kind = reader.fixed<uint8_t>();
  const uint64_t delay = reader.varint();
  out.note = std::string(reader.sized());
  const bool was_candidate = reader.ok() && !reader.finished();
  const uint64_t priority = was_candidate ? reader.varint() : 0;
  out.since = LogIndex(was_candidate ? reader.varint() : 0);
  if (!reader.finished() || kind > static_cast<uint8_t>(ClaimKind::kElection) || delay > kLockDelayMsMax ||
      priority > UINT32_MAX || (was_candidate && out.since == LogIndex())) {
    return false;
  }
  out.kind = static_cast<ClaimKind>(kind);
  out.lock_delay_ms = static_cast<uint32_t>(delay);
  out.priority = unzigzag(priority);
  return true;
}

std::string candidate_record_key(ByteView name, SessionId session) {
  return fmt::format("{}{}{}{:x}", kCandidateRecords, name, '\0', session.value());
}

bool decode_candidate_key(ByteView key, std::string& name, SessionId& session) {
  if (!key.starts_with(kCandidateRecords)) return false;
  key.remove_prefix(kCandidateRecords.size());
  const size_t zero = key.find('\0');
  if (zero == ByteView::npos || zero == 0) return false;
  const std::optional<uint64_t> number = parse_hex(key.substr(zero + 1));
  if (!number) return false;
  name = std::string(key.substr(0, zero));
  session = SessionId(*number);
  return session.is_set();
}

std::string encode(const CandidateRecord& record) {
  std::string out = begin_record();
  ByteWriter writer(out);
  writer.varint(zigzag(record.priority));
  writer.sized(record.value);
  if (record.since != LogIndex()) writer.varint(record.since.value());
  return out;
}

bool decode(ByteView bytes, CandidateRecord& out) {
  ByteReader reader(bytes);
  if (!read_version(reader)) return false;
  const uint64_t priority = reader.varint();
  out.value = std::string(reader.sized());
  const bool was_bound = reader.ok() && !reader.finished();
  out.since = LogIndex(was_bound ? reader.varint() : 0);
  if (!reader.finished() || priority > UINT32_MAX || (was_bound && out.since == LogIndex())) return false;
  out.priority = unzigzag(priority);
  return true;
}

std::string request_record_key(ByteView claim) {
  return fmt::format("{}{}", kRequestRecords, claim);
}

std::string encode(const RequestRecord& record) {
  std::string out = begin_record();
  ByteWriter writer(out);
  writer.varint(static_cast<uint64_t>(record.token));
  writer.fixed(static_cast<uint8_t>(record.forced ? 1 : 0));
  writer.sized(record.note);
  return out;
}

bool decode(ByteView bytes, RequestRecord& out) {
  ByteReader reader(bytes);
  if (!read_version(reader)) return false;
  const uint64_t token = reader.varint();
  const uint8_t forced = reader.fixed<uint8_t>();
  out.note = std::string(reader.sized());
  if (!reader.finished() || token > static_cast<uint64_t>(INT64_MAX) || forced > 1) return false;
  out.token = static_cast<int64_t>(token);
  out.forced = forced == 1;
  return true;
}

std::optional<std::string_view> why_no_name(ByteView name) {
  if (name.empty()) return "a name is not empty";
  if (name.size() > kNameBytesMax) return "a name has at most 512 bytes";
  if (name.find('\0') != ByteView::npos || !is_utf8(name)) return "a name is UTF-8 without zeros";
  if (name.starts_with(kReservedKeys) || name == kReservedKeys.substr(0, kReservedKeys.size() - 1))
    return "names below /.conclave/ are the cluster's own";
  return std::nullopt;
}

}  // namespace conclave::layers
