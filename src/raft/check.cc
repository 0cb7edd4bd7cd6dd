// What is refused before it is acted on. Peers are authenticated, and still their messages are input like any other: a
// malformed or unbelievable one is refused with a reason and changes nothing, not even what its header says of its
// sender.
#include <algorithm>

#include "base/mark.h"
#include "raft/raft.h"

namespace conclave::raft {
namespace {

template <class... Numbers>
bool in_bounds(Numbers... numbers) {
  return ((numbers.value() <= kProtocolNumberMax) && ...);
}

bool in_bounds(const Floor& floor) {
  return in_bounds(floor.term, floor.boot, floor.incarnation, floor.last.term, floor.last.index) &&
         floor.last.term <= floor.term;
}

Refusal number(bool good) {
  return good ? Refusal::kNone : Refusal::kBadNumber;
}
Refusal expected(bool good) {
  return good ? Refusal::kNone : Refusal::kUnexpected;
}

// Answers and orders are for one life of their receiver; questions are for any.
struct IsForOneBoot {
  bool operator()(const Hello& hello) const { return hello.answer; }
  bool operator()(const SnapshotChunk& chunk) const { return chunk.pull != 0; }
  bool operator()(const VoteReply&) const { return true; }
  bool operator()(const AppendReply&) const { return true; }
  bool operator()(const SnapshotReply&) const { return true; }
  bool operator()(const ReadReply&) const { return true; }
  bool operator()(const PullReply&) const { return true; }
  bool operator()(const TimeoutNow&) const { return true; }
  bool operator()(const VoteRequest&) const { return false; }
  bool operator()(const AppendRequest&) const { return false; }
  bool operator()(const ReadRequest&) const { return false; }
  bool operator()(const PullRequest&) const { return false; }
};

}  // namespace

// Judges one message against one state; changes neither.
class MessageChecker {
 public:
  MessageChecker(const Raft& raft, const Header& header) : raft_(raft), header_(header) {}

  [[nodiscard]] Refusal header_refusal(const Body& body) const {
    if (header_.group != raft_.options_.group) return Refusal::kWrongGroup;
    if (header_.to != raft_.options_.self) return Refusal::kWrongReceiver;
    if (header_.from == raft_.options_.self) return Refusal::kFromSelf;
    if (!header_.from.is_set()) return Refusal::kUnknownSender;
    if (!in_bounds(header_.term, header_.boot, header_.to_boot, header_.incarnation) || header_.boot.value() == 0 ||
        header_.incarnation.value() == 0) {
      return Refusal::kBadNumber;
    }
    const Peer* peer = raft_.find_peer(header_.from);
    if (peer != nullptr && header_.boot < peer->boot) return Refusal::kStaleBoot;
    if (header_.to_boot.value() != 0 && header_.to_boot != raft_.options_.boot && std::visit(IsForOneBoot{}, body)) {
      return Refusal::kStaleBoot;
    }
    return Refusal::kNone;
  }

  Refusal operator()(const Hello& hello) const {
    if (!place_ok(hello.last) || !in_bounds(hello.floor)) return Refusal::kBadNumber;
    return expected(!hello.answer || sender() != nullptr);
  }
  Refusal operator()(const VoteRequest& request) const {
    // A candidate is in the term it campaigns for; one that only asks is in the term before.
    const Term campaign = request.pre ? header_.term.next() : header_.term;
    return number(place_ok(request.last) && request.campaign_term == campaign &&
                  (request.pre || request.last.term < request.campaign_term));
  }
  Refusal operator()(const VoteReply& reply) const {
    return number(place_ok(reply.last) && in_bounds(reply.campaign_term));
  }
  Refusal operator()(const AppendRequest& request) const {
    if (const Refusal refusal = leader_refusal(); refusal != Refusal::kNone) return refusal;
    if (!place_ok(request.prev) || !in_bounds(request.commit, request.round) || request.promise < Duration::zero() ||
        request.floors.size > kMembersMax) {
      return Refusal::kBadNumber;
    }
    for (const Floor& floor : request.floors.view()) {
      if (!in_bounds(floor)) return Refusal::kBadNumber;
    }
    if (const Refusal refusal = entries_refusal(request.prev, request.entries); refusal != Refusal::kNone)
      return refusal;
    return contradiction(request);
  }
  Refusal operator()(const AppendReply& reply) const {
    if (!in_bounds(reply.round, reply.match, reply.rejected) || !place_ok(reply.hint)) return Refusal::kBadNumber;
    if (raft_.role_ != Role::kLeader || header_.term != raft_.vote_.term) return Refusal::kNone;  // late, or news
    if (sender() == nullptr) return Refusal::kUnknownSender;
    // Acknowledges what this leader never sent.
    const LogIndex last = raft_.log_.last_index();
    const bool beyond = reply.round > raft_.round_ || reply.match > last || reply.rejected > last;
    return beyond ? Refusal::kBeyondLog : Refusal::kNone;
  }
  Refusal operator()(const SnapshotChunk& chunk) const {
    if (chunk.pull == 0) {
      if (const Refusal refusal = leader_refusal(); refusal != Refusal::kNone) return refusal;
    } else if (!pulls(chunk.pull) || chunk.mark.last.index <= raft_.commit_) {
      return Refusal::kUnexpected;
    }
    if (!chunk.mark.membership.invalid_reason().empty()) return Refusal::kBadMembershipEntry;
    const bool good = place_ok(chunk.mark.last) && in_bounds(chunk.commit) && chunk.mark.last.index.value() > 0 &&
                      chunk.mark.last.term.value() > 0 && chunk.mark.last.index <= chunk.commit &&
                      chunk.offset <= chunk.total && chunk.bytes.size() <= chunk.total - chunk.offset;
    if (!good) return Refusal::kBadNumber;
    return conflicts(chunk.mark.last) ? Refusal::kConflictsWithCommitted : Refusal::kNone;
  }
  Refusal operator()(const SnapshotReply& reply) const {
    if (!place_ok(reply.last)) return Refusal::kBadNumber;
    if (reply.pull != 0 || header_.term > raft_.vote_.term) return Refusal::kNone;
    const Peer* peer = sender();
    return expected(raft_.role_ == Role::kLeader && header_.term == raft_.vote_.term && peer != nullptr &&
                    peer->flow == Peer::Flow::kSnapshot && reply.last == peer->snapshot.last);
  }
  Refusal operator()(const ReadRequest& request) const { return number(in_bounds(request.id)); }
  Refusal operator()(const ReadReply& reply) const {
    if (!in_bounds(reply.id, reply.index)) return Refusal::kBadNumber;
    return expected(std::ranges::any_of(raft_.forwarded_reads_, [&](const auto& read) { return read.id == reply.id; }));
  }
  Refusal operator()(const TimeoutNow&) const {
    return header_.term < raft_.vote_.term ? Refusal::kUnexpected : leader_refusal();
  }
  Refusal operator()(const PullRequest& request) const {
    return number(place_ok(request.prev) && place_ok(request.proof));
  }
  Refusal operator()(const PullReply& reply) const {
    if (!place_ok(reply.prev) || !place_ok(reply.last)) return Refusal::kBadNumber;
    if (const Refusal refusal = entries_refusal(reply.prev, reply.entries); refusal != Refusal::kNone) return refusal;
    const Raft::Pull& pull = raft_.pull_;
    if (!pulls(reply.id) || (reply.ok && reply.prev != pull.prev)) return Refusal::kUnexpected;
    const bool repair = pull.kind == Raft::Pull::Kind::kRepair;
    for (size_t i = 0; repair && i < reply.entries.size(); ++i) {
      // A log that has the proof has nothing before it of a later place or term.
      const Entry& entry = reply.entries[i];
      if (entry.index > pull.proof.index || entry.term > pull.proof.term) return Refusal::kBadEntries;
    }
    return conflicts(reply.entries, repair ? pull.proof.index : raft_.commit_) ? Refusal::kConflictsWithCommitted
                                                                               : Refusal::kNone;
  }

 private:
  [[nodiscard]] const Peer* sender() const { return raft_.find_peer(header_.from); }
  [[nodiscard]] bool place_ok(Position place) const {
    return in_bounds(place.term, place.index) && place.term <= header_.term;
  }
  [[nodiscard]] bool pulls(uint64_t id) const {
    const Raft::Pull& pull = raft_.pull_;
    return (pull.kind == Raft::Pull::Kind::kRepair || pull.kind == Raft::Pull::Kind::kCatchUp) &&
           pull.peer == header_.from && pull.id == id;
  }
  // Only a leader says these: so only one of a term that began, and one only.
  [[nodiscard]] Refusal leader_refusal() const {
    if (header_.term.value() == 0) return Refusal::kBadNumber;
    const bool second = header_.term == raft_.vote_.term &&
                        (raft_.role_ == Role::kLeader || (raft_.leader_.is_set() && raft_.leader_ != header_.from));
    return second ? Refusal::kSecondLeader : Refusal::kNone;
  }
  [[nodiscard]] Refusal entries_refusal(Position prev, const EntrySlices& entries) const {
    if (entries.size() > kEntriesPerMessageMax) return Refusal::kBadEntries;
    Position before = prev;
    for (size_t i = 0; i < entries.size(); ++i) {
      const Entry& entry = entries[i];
      if (entry.index != before.index.next() || entry.term < before.term || entry.term > header_.term ||
          entry.term.value() == 0 || entry.payload.size() > kEntryBytesMax) {
        return Refusal::kBadEntries;
      }
      switch (entry.type) {
        case EntryType::kNoop:
        case EntryType::kCommand:
          break;
        case EntryType::kConfiguration:
          if (!Membership::decode(entry.payload.view())) return Refusal::kBadMembershipEntry;
          break;
        default:
          return Refusal::kBadEntries;
      }
      before = {.term = entry.term, .index = entry.index};
    }
    return Refusal::kNone;
  }
  // The entries differ from what the log has up to `through`, where it may not change.
  [[nodiscard]] bool conflicts(const EntrySlices& entries, LogIndex through) const {
    const Log& log = raft_.log_;
    for (size_t i = 0; i < entries.size(); ++i) {
      const Entry& entry = entries[i];
      if (entry.index > through || entry.index > log.last_index()) break;
      // The start itself is compared: entries from before it on, unverified so far, go on from there or not at all.
      if (entry.index < log.start().index) continue;
      const Term here = log.term_at(entry.index);
      if (here.value() != 0 && here != entry.term) return true;
    }
    return false;
  }
  // The leader whose entries are here up to `verified_`, in its own words.
  [[nodiscard]] bool from_same_leader() const {
    return header_.term == raft_.vote_.term && raft_.leader_ == header_.from;
  }
  // A snapshot of another log than the one that is committed here, or that the same leader told of before.
  [[nodiscard]] bool conflicts(Position snapshot) const {
    const Log& log = raft_.log_;
    const LogIndex through = from_same_leader() ? std::max(raft_.commit_, raft_.verified_) : raft_.commit_;
    if (snapshot.index < log.start().index || snapshot.index > std::min(through, log.last_index())) return false;
    const Term here = log.term_at(snapshot.index);
    return here.value() != 0 && here != snapshot.term;
  }
  [[nodiscard]] Refusal contradiction(const AppendRequest& request) const {
    if (header_.term < raft_.vote_.term) return Refusal::kNone;  // will be told so
    const Log& log = raft_.log_;
    const LogIndex known = std::max(raft_.commit_, log.start().index);
    const Position prev = request.prev;
    const bool comparable = prev.index >= log.start().index && prev.index <= log.contiguous_last();
    if (comparable && prev.index <= known && !log.matches(prev)) return Refusal::kConflictsWithCommitted;
    if (prev.index >= log.start().index && !log.matches(prev)) return Refusal::kNone;  // will be told where it may
    // Nor may a leader take back what it said in this term (leader append-only, dissertation 3.5).
    return conflicts(request.entries, from_same_leader() ? std::max(known, raft_.verified_) : known)
               ? Refusal::kConflictsWithCommitted
               : Refusal::kNone;
  }

  const Raft& raft_;
  const Header& header_;
};

Refusal Raft::check(const Message& message) const {
  const MessageChecker checker(*this, message.header);
  const Refusal refusal = checker.header_refusal(message.body);
  return refusal != Refusal::kNone ? refusal : std::visit(checker, message.body);
}

}  // namespace conclave::raft
