// Puts internal commands together (keyspace/internal_command.h): guards in order, then what is done. Owns its bytes.
#pragma once

#include <string>

#include "base/bytes.h"
#include "base/types.h"

namespace conclave::layers {

class CommandBuilder {
 public:
  // ---- Guards; the n-th that fails is told by its number, from 0 ----
  // The key was created at this revision and lives; zero: there is none.
  CommandBuilder& if_created(ByteView key, Revision create);
  // No key of [prefix, prefix_end) was created after this revision; true of none at all.
  CommandBuilder& if_none_created_after(ByteView prefix, ByteView prefix_end, Revision revision);
  // The record was last written by that entry; zero: there is none.
  CommandBuilder& if_record_at(ByteView key, LogIndex index);
  CommandBuilder& if_lease(LeaseId lease);
  CommandBuilder& if_no_lease(LeaseId lease);

  // ---- Operations ----
  CommandBuilder& put(ByteView key, ByteView value, LeaseId lease);
  // Moves it to another lease and keeps all else, its create revision too.
  CommandBuilder& move(ByteView key, LeaseId lease);
  CommandBuilder& erase(ByteView key);
  CommandBuilder& put_record(ByteView key, ByteView value, LeaseId lease);
  CommandBuilder& erase_record(ByteView key);
  CommandBuilder& grant(LeaseId lease, int64_t ttl_ms);
  CommandBuilder& revoke(LeaseId lease);

  [[nodiscard]] std::string build() const;

 private:
  struct Operation {
    uint8_t kind = 0;
    bool ignore_value = false;
    ByteView key;
    ByteView value;
    LeaseId lease;
    int64_t milliseconds = 0;
  };
  void guard(uint8_t kind, ByteView key, uint64_t number);
  void operate(const Operation& operation);

  std::string guards_;
  std::string operations_;
  uint64_t guard_count_ = 0;
  uint64_t operation_count_ = 0;
};

}  // namespace conclave::layers
