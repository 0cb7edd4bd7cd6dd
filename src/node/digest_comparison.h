// DigestComparison: whether replicas that applied the same entries hold the same state. Each tells the others the
// digest of its state at certain indexes; who finds a majority of the voters agreeing on another one than its own is
// the odd one. Nobody judges anybody else: a server whose memory is wrong is not believed about others.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "base/membership.h"
#include "base/types.h"

namespace conclave::node {

class DigestComparison {
 public:
  enum class Verdict : uint8_t {
    kNone,    // equal as far as is known
    kDiffer,  // somebody's differs, and no majority says whose is right
    kOdd,     // a majority of the voters agrees on another one than this server's
  };

  // This server's state. Judged by the newest configuration: who has left it has no say, nor has a learner.
  [[nodiscard]] Verdict note_own(LogIndex index, uint64_t digest, const Membership& membership);
  // A peer's; a later word replaces an earlier one of the same peer.
  [[nodiscard]] Verdict note_peer(NodeId peer, LogIndex index, uint64_t digest, const Membership& membership);
  // The state was replaced, or whoever spoke is of no account any more.
  void clear() { kept_.clear(); }

 private:
  struct Said {
    std::optional<uint64_t> own;
    std::map<NodeId, uint64_t> peers;
  };
  Said& at(LogIndex index);
  [[nodiscard]] static Verdict judge(const Said& said, const Membership& membership);

  std::map<LogIndex, Said> kept_;
};

}  // namespace conclave::node
