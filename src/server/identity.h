// Identity: who this server is, kept beside the log in the file `identity`: cluster, server, how often it started, and
// what keeps it from starting again. What the file says holds; the command line only says what is to be written into a
// new one. Written anew at each start, durable before anything else happens.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/entry.h"
#include "base/error.h"
#include "base/node_id.h"
#include "base/types.h"
#include "env/disk.h"

namespace conclave::server {

struct Identity {
  ClusterId cluster;
  NodeId node;
  std::string name;
  // Never repeats for a server, whatever became of its disk: messages of another life must be told from those of this
  // one. So it is also at least the wall clock's milliseconds, which a restored directory does not take back.
  Boot boot;
  // From the cluster, for good: the directory is of no use any more.
  bool removed = false;
  // The state here turned out to be another one than a majority's after this entry; zero if not. A snapshot in the
  // directory may hold it, so nothing there is to be believed.
  LogIndex diverged_at;
};

// A server in the list that --join gives: "n1=host:2380".
struct JoinEntry {
  std::string name;
  std::string host;
  uint16_t port = 0;
  friend bool operator==(const JoinEntry&, const JoinEntry&) = default;
};
// "n1=127.0.0.1:2380,n2=..."; kInvalidArgument with what is wrong. Sorted by name.
[[nodiscard]] Result<std::vector<JoinEntry>> parse_join(std::string_view text);

// Of a server that was added to a running cluster under this address.
[[nodiscard]] NodeId address_id_of(const JoinEntry& server);
// Of a cluster that begins with these servers; with the state that stood at `last` in another one, if that is not zero.
[[nodiscard]] ClusterId cluster_id_of(const std::vector<JoinEntry>& servers);
[[nodiscard]] ClusterId cluster_id_of(const std::vector<JoinEntry>& servers, ClusterId from, Position last);

// The file as it is: kNotFound, kMalformed, kVersion, kIo.
[[nodiscard]] Result<Identity> read_identity(env::Disk& disk);
// Durable when this returns.
[[nodiscard]] Status write_identity(env::Disk& disk, const Identity& identity);

// Reads the file, or makes it where there is none, counts the boot up and makes that durable. kForeign: the directory
// belongs to another server, to another cluster than required, or to a server that was removed; kUnreadable: its
// state diverged; kMalformed: the file is damaged; kVersion: a later build wrote it; kIo.
[[nodiscard]] Result<Identity> begin_life(env::Disk& disk, const Identity& expected, std::optional<ClusterId> required,
                                          int64_t wall_milliseconds);

}  // namespace conclave::server
