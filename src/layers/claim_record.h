// What layers remember beside keys, as system records on the lease of the session they are about, so that they end with
// it. Their names and values: encoders, and bounded decoders that say false to what is none.
// docs/internals/primitives.md has the formats.
//
//   claim/KEY            what a claim is for, where that is more than a lock's key says
//   candidate/NAME\0HEX  a candidate of an election whose claim was not put yet
//   request/KEY          the owner of a claim was asked to release it, or it was forced
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/types.h"

namespace conclave::layers {

inline constexpr size_t kNameBytesMax = 512;
inline constexpr size_t kNoteBytesMax = 256;
inline constexpr size_t kElectionValueBytesMax = size_t{64} << 10;
inline constexpr uint32_t kLockDelayMsMax = 60'000;

enum class ClaimKind : uint8_t { kLock = 0, kElection = 1 };

struct ClaimRecord {
  ClaimKind kind = ClaimKind::kLock;
  uint32_t lock_delay_ms = 0;
  std::string note;
  // Of a candidate that was bound or elected: what it goes back to the candidates with.
  int32_t priority = 0;
  LogIndex since;
  friend bool operator==(const ClaimRecord&, const ClaimRecord&) = default;
};
inline constexpr std::string_view kClaimRecords = "claim/";
[[nodiscard]] std::string claim_record_key(ByteView claim);
[[nodiscard]] std::string encode(const ClaimRecord& record);
[[nodiscard]] bool decode(ByteView bytes, ClaimRecord& out);

struct CandidateRecord {
  int32_t priority = 0;
  std::string value;
  LogIndex since;  // of one that was bound meanwhile: the entry of its campaign; zero: the one that wrote this
  friend bool operator==(const CandidateRecord&, const CandidateRecord&) = default;
};
inline constexpr std::string_view kCandidateRecords = "candidate/";
[[nodiscard]] std::string candidate_record_key(ByteView name, SessionId session);
// Of a key of that form.
[[nodiscard]] bool decode_candidate_key(ByteView key, std::string& name, SessionId& session);
[[nodiscard]] std::string encode(const CandidateRecord& record);
[[nodiscard]] bool decode(ByteView bytes, CandidateRecord& out);

struct RequestRecord {
  int64_t token = 0;  // of the claim it was for; of another one it says nothing
  bool forced = false;
  std::string note;
  friend bool operator==(const RequestRecord&, const RequestRecord&) = default;
};
inline constexpr std::string_view kRequestRecords = "request/";
[[nodiscard]] std::string request_record_key(ByteView claim);
[[nodiscard]] std::string encode(const RequestRecord& record);
[[nodiscard]] bool decode(ByteView bytes, RequestRecord& out);

// The cluster's own keys.
inline constexpr std::string_view kReservedKeys = "/.conclave/";
// A name that locks and elections may have: 1 to kNameBytesMax bytes of UTF-8 without zeros, not below kReservedKeys.
// Nothing if it is; otherwise why not.
[[nodiscard]] std::optional<std::string_view> why_no_name(ByteView name);

}  // namespace conclave::layers
