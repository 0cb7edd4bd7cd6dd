// Keys below /.conclave/ are what groups, pools and queues are made of. Through etcd's API they are read and watched,
// and written by nobody: what stands there holds only as long as its own services alone change it.
#pragma once

#include <string_view>

#include "base/bytes.h"
#include "keyspace/command.h"
#include "keyspace/keyspace.h"
#include "layers/claim_record.h"

namespace conclave::api {

using layers::kReservedKeys;
inline constexpr std::string_view kReservedKeysRefusal =
    "keys below /.conclave/ are written by the services they belong to, and by nobody else";

[[nodiscard]] inline bool is_reserved(ByteView key) {
  return key.starts_with(kReservedKeys);
}

// Whether a put, delete or transaction, in canonical form, would write there, whichever way its compares go. A range
// deletes there if it lies within, or reaches over it while something lives there.
[[nodiscard]] bool writes_reserved(const keyspace::Keyspace& keyspace, keyspace::CommandKind kind, ByteView canonical);

}  // namespace conclave::api
