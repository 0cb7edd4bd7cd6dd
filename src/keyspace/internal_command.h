// Bodies of the commands that are ours: opening a session, ending leases, and internal commands, which combine
// keys, system records and leases in one entry under guards. Encoders and bounded decoders; views, no
// ownership.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "keyspace/requests.h"

namespace conclave::keyspace {

// The session's lease is granted by the same entry, and the session ends with it. Asked again with the same secret hash
// and lease it changes nothing and succeeds.
struct SessionOpen {
  SessionId session;
  LeaseId lease;
  int64_t ttl_ms = 0;
  ByteView secret_hash;  // kSecretHashBytes
  ByteView description;  // at most kSessionDescriptionBytesMax
};
void encode(const SessionOpen& open, std::string& out);
[[nodiscard]] bool decode(ByteView bytes, SessionOpen& out);

// kLeaseExpire, at most kExpireLeasesMax. Unknown leases are passed over: somebody else ended them.
void encode_expire(const std::vector<LeaseId>& leases, std::string& out);
[[nodiscard]] bool decode_expire(ByteView bytes, std::vector<LeaseId>& out);

// What must hold for an internal command to take effect. All are looked at before anything changes.
struct Guard {
  enum class Kind : uint8_t {
    kCompare = 1,   // etcdserverpb.Compare over keys
    kRecordAt = 2,  // the system record `key` was last written at log index `number`; 0: there is none
    kLease = 3,     // lease `number` stands
    kNoLease = 4,   // lease `number` does not stand
    kSession = 5,   // session `number` stands
  };
  Kind kind = Kind::kCompare;
  ByteView key;  // kRecordAt: its key; kCompare: the encoded Compare
  uint64_t number = 0;
  Compare compare;  // decoded from `key` for kCompare
};

struct InternalOperation {
  enum class Kind : uint8_t {
    kPut = 1,           // key, value, lease; ignore_value keeps the value (and, like any put, the create revision)
    kDelete = 2,        // keys of [key, range_end)
    kRecordPut = 3,     // system record key := value, hanging on lease if set
    kRecordDelete = 4,  // system record key
    kLeaseGrant = 5,    // lease, milliseconds
    kLeaseRevoke = 6,   // lease, with all that hangs on it at this point of the command
    // 7 is reserved.
  };
  Kind kind = Kind::kPut;
  bool ignore_value = false;
  ByteView key;
  ByteView range_end;
  ByteView value;
  LeaseId lease;
  int64_t milliseconds = 0;
};

// One entry, one revision, all or nothing. No operations: a mark, which only records the session's sequence as applied.
struct InternalCommand {
  std::vector<Guard> guards;
  std::vector<InternalOperation> operations;
  void clear() {
    guards.clear();
    operations.clear();
  }
};
void encode(const InternalCommand& command, std::string& out);
// kMalformed, kTooManyOperations (a bound of limits.h), or what etcd would say: kEmptyKey, kDuplicateKey.
[[nodiscard]] ErrorId decode(ByteView bytes, InternalCommand& out);
// Whether an encoded one only takes away, or marks: no puts, no grants. Of bytes that are none: false.
[[nodiscard]] bool adds_nothing(ByteView bytes);

}  // namespace conclave::keyspace
