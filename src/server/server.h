// Server: one process of the cluster, wired: the data directory, its disk's thread, the replica, links to the peers,
// the client port. One thread runs all but the disk: a hand-over between threads costs more than the work of a request
// (docs/internals/performance.md). Only this folder and the simulator choose what is real.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/types.h"
#include "net/server.h"
#include "net/tls.h"
#include "node/replica.h"
#include "server/log.h"

namespace conclave::server {

struct Address {
  std::string host = "127.0.0.1";
  uint16_t port = 0;
};
// "HOST:PORT"; kInvalidArgument.
[[nodiscard]] Result<Address> parse_address(std::string_view text);

struct ServerOptions {
  std::string name = "default";
  std::string data = "conclave-data";
  Address client_listen{.port = 2379};
  // "http://HOST:PORT,...": where clients are told to reach this server; empty: where it listens (client_urls.h).
  std::string client_advertise;
  Address peer_listen{.port = 2380};
  // All servers of the cluster, this one among them; empty: alone. Once a cluster has begun they are only where to look
  // first: who is a member, and where, the cluster knows.
  std::string join;
  // In hex: an empty directory joins this cluster, to which the server was added under its address in `join`. Not
  // needed again after that.
  std::string cluster;
  // Without a certificate: plaintext. Clients must show certificates if their CA is given; peers always must, and each
  // one that names the member it is.
  net::TlsFiles client_tls;
  net::TlsFiles peer_tls;
  // What clients of etcd are told they talk to: etcd's version whose API this is.
  std::string etcd_version = "3.6.0";
  bool insecure_plaintext = false;  // off loopback, for clients and peers
  net::KeepAlive keep_alive;        // of clients' connections
  uint64_t snapshot_log_bytes = uint64_t{64} << 20;
  // When old history is compacted by itself.
  keyspace::HistoryBudget::Options history;
};

struct ReadyInfo {
  std::string name;
  Address client;
  Address peer;
  ClusterId cluster;
  bool alone = false;    // a single-node cluster
  bool waiting = false;  // for init, or to be reached by a leader
};

// What can be changed while the server works, beside the files that it reads again.
struct Reload {
  LogLevel log_level = LogLevel::kInfo;
  // Settings that were changed and count only from the next start on, for the log.
  std::vector<std::string> for_next_start;
};

class Server {
 public:
  // Recovers the directory, listens. kInvalidArgument, kLocked, kForeign, kIo and what else the directory says.
  [[nodiscard]] static Result<std::unique_ptr<Server>> start(const ServerOptions& options);
  virtual ~Server() = default;
  [[nodiscard]] virtual ReadyInfo info() const = 0;
  // Until stop(). The calling thread is the server's.
  virtual void run() = 0;
  // Any thread. The first call hands leadership over and finishes what is in flight; the second ends at once.
  virtual void stop() = 0;
  // Any thread. Certificates, keys and CAs are read again, for connections to come, and the rest of it taken. All or
  // nothing: one bad file, and all that was there before stays; the log says so.
  virtual void reload(const Reload& reload) = 0;
};

}  // namespace conclave::server
