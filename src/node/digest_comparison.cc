#include "node/digest_comparison.h"

#include <algorithm>

namespace conclave::node {
namespace {

// Replicas apply the same index at about the same time; who is further behind is compared at a later one.
constexpr size_t kIndexesKept = 8;
// Of each index; above any number of members.
constexpr size_t kPeersKept = 64;

}  // namespace

DigestComparison::Said& DigestComparison::at(LogIndex index) {
  Said& said = kept_[index];
  // The lowest goes, unless it is the one just made.
  if (kept_.size() > kIndexesKept && kept_.begin()->first != index) kept_.erase(kept_.begin());
  return said;
}

DigestComparison::Verdict DigestComparison::note_own(LogIndex index, uint64_t digest, const Membership& membership) {
  Said& said = at(index);
  said.own = digest;
  return judge(said, membership);
}

DigestComparison::Verdict DigestComparison::note_peer(NodeId peer, LogIndex index, uint64_t digest,
                                                      const Membership& membership) {
  if (kept_.size() >= kIndexesKept && index < kept_.begin()->first) return Verdict::kNone;
  Said& said = at(index);
  if (said.peers.size() < kPeersKept || said.peers.contains(peer)) said.peers[peer] = digest;
  return judge(said, membership);
}

DigestComparison::Verdict DigestComparison::judge(const Said& said, const Membership& membership) {
  if (!said.own) return Verdict::kNone;
  std::map<uint64_t, size_t> others;
  for (const auto& [peer, digest] : said.peers) {
    const Member* member = membership.find(peer);
    if (member != nullptr && member->role == MemberRole::kVoter && digest != *said.own) ++others[digest];
  }
  const auto voters = static_cast<size_t>(std::ranges::count(membership.members(), MemberRole::kVoter, &Member::role));
  if (others.empty()) return Verdict::kNone;
  const bool odd = std::ranges::any_of(others, [&](const auto& other) { return other.second > voters / 2; });
  return odd ? Verdict::kOdd : Verdict::kDiffer;
}

}  // namespace conclave::node
