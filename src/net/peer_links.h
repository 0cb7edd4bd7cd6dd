// PeerLinks: the real env::Network: TCP links between the servers of one cluster. Each server connects to each other
// and sends on the connection it made; what it accepts it only reads. A link begins with a hello {cluster, member,
// boot} that both sides check; then frames, each with its length and CRC32C (docs/internals/formats/peer.md). A broken
// link (reset, end of stream, refused connection after it stood) is told at once. All on the loop's thread; what is
// sent in a turn leaves at its end. With TLS each end shows a certificate of the peers' CA that names the member it
// claims to be (TlsSession::names_member()); by what name or address it was reached does not matter. Bounded: 64 MiB a
// peer of kBulk, 64 MiB of the rest; beyond it frames are dropped and counted.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/types.h"
#include "env/network.h"
#include "net/loop.h"
#include "net/peer_frame.h"
#include "net/port_counts.h"
#include "net/tls.h"

namespace conclave::net {

struct PeerAddress {
  NodeId id;
  std::string host;
  uint16_t port = 0;
  std::string name;  // the member's, for its certificate; only with TLS
};

struct PeerLinksOptions {
  ClusterId cluster;
  NodeId self;
  Boot boot;
  FeatureRange features;
  std::string address = "127.0.0.1";      // to listen on
  uint16_t port = 0;                      // 0: a free one
  std::vector<PeerAddress> peers;         // without this server
  std::shared_ptr<const TlsContext> tls;  // of TlsRole::kPeer; null: plain
  // Without TLS: whether to take a link of this server. Null: of any server of the cluster. With TLS only whom
  // set_peers() names can show who it is.
  std::function<bool(NodeId)> is_known;
};

// The last words take a round trip or two; a peer that cannot be reached costs no more than its link for so long.
inline constexpr Duration kPeerFarewell = std::chrono::seconds(1);

struct PeerLinkState {
  NodeId id;
  bool connected = false;  // the link this server sends on stands
  uint64_t breaks = 0;     // times that it stood and ended, whoever ended it
  uint64_t frames_sent = 0;
  uint64_t frames_dropped = 0;
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
  // Attempts that the peer answered, but not with a welcome (or that another server answered), and why the last one.
  uint64_t refusals = 0;
  PeerVerdict refusal = PeerVerdict::kWelcome;
  // Links accepted from the peer that ended for a frame with a wrong checksum, length or lane.
  uint64_t corruptions = 0;
  // Links accepted from who claimed to be the peer, with a certificate of another.
  uint64_t impostors = 0;
};

class PeerLinks : public env::Network {
 public:
  // The receiver must outlive this; it is called while the loop runs. on_link_up when the connection to the peer was
  // made and its hello was good; on_link_broken when that connection, or the one accepted from it, broke.
  [[nodiscard]] static Result<std::unique_ptr<PeerLinks>> listen(Loop& loop, env::NetworkReceiver& receiver,
                                                                 const PeerLinksOptions& options);
  [[nodiscard]] virtual uint16_t port() const = 0;
  // Whom to link to from now on. Links whose address stays are not touched. One that is named no more is kept for
  // kPeerFarewell, for what was or is yet to be sent to it: its removal, and answers.
  virtual void set_peers(std::vector<PeerAddress> peers) = 0;
  // For links to come; those that stand are not touched. Only where there was one.
  virtual void set_tls(std::shared_ptr<const TlsContext> tls) = 0;
  // Links accepted that ended before TLS was agreed on: strangers, and peers with certificates of another CA.
  [[nodiscard]] virtual uint64_t tls_failures() const = 0;
  // Of the links accepted: silent is who has not said hello.
  [[nodiscard]] virtual PortCounts port_counts() const = 0;
  // Sends what the turn queued. The wiring calls it at the end of each turn.
  virtual void flush() = 0;
  [[nodiscard]] virtual std::vector<PeerLinkState> states() const = 0;
};

}  // namespace conclave::net
