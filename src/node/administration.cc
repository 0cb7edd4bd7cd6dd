// Changes of membership that operators ask for, on any server: forwarded to the leader, made one at a time, followed in
// the log until the configuration that carries each is applied. The answer is done, refused, or unknown, as for writes.
//
// A leader that is deposed goes on following what it proposed: the entry at that place tells, once applied, whether the
// change is made (a joint change once committed always ends, under whichever leader) or never will be.
#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "base/mark.h"
#include "node/replica.h"

namespace conclave::node {

void Replica::administer(Instant now, Ticket ticket, const MemberChange& change) {
  ASSERT(ticket != 0);
  if (changes_.size() >= options_.changes_pending_max) {
    REACHED(change_queue_full);
    clients_->on_change_refused(ticket, ChangeRefusal::kOverloaded);
    return;
  }
  changes_.push_back({.change = change, .deadline = now + options_.request_timeout, .ticket = ticket});
  dirty_ = true;
}

void Replica::flush_changes(Instant now) {
  if (changes_.empty()) return;
  const raft::Status status = raft_.status();
  // One at a time in a term: the leader takes ascending ids.
  bool is_forwarding = std::ranges::any_of(changes_, [&](const PendingChange& change) {
    return change.state == PendingChange::State::kForwarded && change.term == status.term;
  });
  // Answered when all were looked at: whoever is may ask again at once.
  std::vector<std::pair<PendingChange, ChangeRefusal>> refused;
  std::vector<PendingChange> lost;
  for (auto at = changes_.begin(); at != changes_.end();) {
    PendingChange& change = *at;
    const bool waits = change.state == PendingChange::State::kWaiting;
    ChangeRefusal refusal = ChangeRefusal::kNone;
    if (change.deadline <= now) {
      if (waits) {
        refusal = status.leader.is_set() ? ChangeRefusal::kChangePending : ChangeRefusal::kNoLeader;
      } else {
        lost.push_back(change);
      }
    } else if (waits && leads()) {
      refusal = propose_change(now, change);
    } else if (waits && change.ticket == 0) {
      // Whom it was sent to leads no more, and it was never proposed: its sender asks the next one.
      refusal = ChangeRefusal::kNoLeader;
    } else if (waits && status.leader.is_set() && !is_forwarding) {
      is_forwarding = true;
      change.state = PendingChange::State::kForwarded;
      change.term = status.term;
      change.id = ++last_change_;
      send_change(now, change);
    } else if (change.state == PendingChange::State::kForwarded && change.retry_at <= now) {
      send_change(now, change);
    }
    if (refusal != ChangeRefusal::kNone) refused.emplace_back(change, refusal);
    const bool ends = refusal != ChangeRefusal::kNone || change.deadline <= now;
    at = ends ? changes_.erase(at) : std::next(at);
  }
  for (const auto& [change, refusal] : refused) end_change(change, refusal);
  for (const PendingChange& change : lost) lose_change(change);
}

// Again and again to the leader of its term, as long as there is one; another one cannot know what became of it.
void Replica::send_change(Instant now, PendingChange& change) {
  const raft::Status status = raft_.status();
  change.retry_at = now + options_.forward_retry;
  if (!status.leader.is_set() || leads() || status.term != change.term) return;
  world_.send(status.leader, env::Lane::kForward,
              encode(ChangeRequest{.group = options_.raft.group,
                                   .term = change.term,
                                   .boot = options_.raft.boot,
                                   .id = change.id,
                                   .change = change.change}));
}

void Replica::on(Instant now, NodeId from, const ChangeRequest& frame) {
  const Term term = raft_.status().term;
  // Not to be answered: it may have been taken while this server led in that term.
  if (!leads() || frame.term != term) return;
  if (!raft_.membership().contains(from)) {
    ++counters_.frames_refused;
    return;
  }
  if (change_sources_term_ != term) {
    change_sources_.clear();
    change_sources_term_ = term;
  }
  ChangeSource& source = change_sources_[from];
  if (frame.boot < source.boot) return;
  if (frame.boot > source.boot) source = {.boot = frame.boot};
  if (frame.id <= source.id) {
    // Taken before, and never again. Its answer, where there is one, was lost.
    if (frame.id == source.id && !source.reply.empty()) {
      REACHED(change_answered_again);
      world_.send(from, env::Lane::kForward, source.reply);
    }
    return;
  }
  source.id = frame.id;
  source.reply.clear();
  const PendingChange change{.change = frame.change,
                             .deadline = now + options_.request_timeout,
                             .from = from,
                             .boot = frame.boot,
                             .id = frame.id};
  if (changes_.size() >= options_.changes_pending_max) {
    end_change(change, ChangeRefusal::kOverloaded);
    return;
  }
  changes_.push_back(change);
  dirty_ = true;
}

void Replica::on(Instant, NodeId, const ChangeReply& frame) {
  if (frame.boot != options_.raft.boot) return;
  const auto found = std::ranges::find_if(changes_, [&](const PendingChange& change) {
    return change.state == PendingChange::State::kForwarded && change.id == frame.id;
  });
  if (found == changes_.end()) return;
  if (frame.refusal == ChangeRefusal::kNoLeader) {
    found->state = PendingChange::State::kWaiting;
    dirty_ = true;
    return;
  }
  const PendingChange change = *found;
  changes_.erase(found);
  end_change(change, frame.refusal);
}

// kNone: it is proposed, or waits on.
ChangeRefusal Replica::propose_change(Instant now, PendingChange& change) {
  // One under way, of an operator or of the leader itself, is waited for.
  if (raft_.membership().is_joint()) return ChangeRefusal::kNone;
  Membership target;
  if (const ChangeRefusal refusal = target_of(now, change.change, target); refusal != ChangeRefusal::kNone) {
    return refusal;
  }
  step(now, raft::ProposeMembership{.target = target});
  const raft::ProposalResult& result = *output_.proposal;
  switch (result.refusal) {
    case raft::Refusal::kNone:
      change.state = PendingChange::State::kProposed;
      change.term = result.term;
      change.index = result.first;
      return ChangeRefusal::kNone;
    case raft::Refusal::kNotCaughtUp:
      return ChangeRefusal::kNotCaughtUp;
    case raft::Refusal::kBadMembership:
      return ChangeRefusal::kTooManyMembers;
    default:
      return ChangeRefusal::kNone;  // handing over, or not yet sure of what came before its term
  }
}

ChangeRefusal Replica::target_of(Instant now, const MemberChange& change, Membership& target) const {
  target = raft_.membership();
  const Member* known = target.find(change.id);
  switch (change.kind) {
    case MemberChangeKind::kAddLearner:
    case MemberChangeKind::kAddPromotable: {
      if (known != nullptr) return ChangeRefusal::kAlreadyMember;
      const bool promotable = change.kind == MemberChangeKind::kAddPromotable;
      const bool has_learner = std::ranges::any_of(
          target.members(), [](const Member& member) { return member.role == MemberRole::kLearner; });
      // etcd's bound: a learner is for a while, and one that is forgotten costs every leader its share.
      if (!promotable && has_learner) return ChangeRefusal::kTooManyLearners;
      const MemberRole role = promotable ? MemberRole::kPromotable : MemberRole::kLearner;
      return target.set({.id = change.id, .role = role}) ? ChangeRefusal::kNone : ChangeRefusal::kTooManyMembers;
    }
    case MemberChangeKind::kRemove:
      if (known == nullptr) return ChangeRefusal::kNotMember;
      target.remove(change.id);
      break;
    case MemberChangeKind::kPromote: {
      if (known == nullptr) return ChangeRefusal::kNotMember;
      if (known->role == MemberRole::kVoter) return ChangeRefusal::kNotLearner;
      Member voter = *known;
      voter.role = MemberRole::kVoter;
      target.set(voter);
      return ChangeRefusal::kNone;
    }
    case MemberChangeKind::kReplace:
      if (known != nullptr) return ChangeRefusal::kAlreadyMember;
      if (!target.contains(change.replaced)) return ChangeRefusal::kNotMember;
      target.remove(change.replaced);
      target.set({.id = change.id, .role = MemberRole::kPromotable});
      break;
  }
  const bool has_voter =
      std::ranges::any_of(target.members(), [](const Member& member) { return member.role == MemberRole::kVoter; });
  if (!has_voter) return ChangeRefusal::kLastVoter;
  return is_safe_without(now, target) ? ChangeRefusal::kNone : ChangeRefusal::kTooFewActive;
}

// The voters that are left can decide: as many of them as a quorum takes were heard of late. One that is away is taken
// out without asking it; one that is there is not where that would leave too few.
bool Replica::is_safe_without(Instant now, const Membership& target) const {
  size_t voters = 0;
  size_t active = 0;
  for (const Member& member : target.members()) {
    if (member.role != MemberRole::kVoter) continue;
    ++voters;
    active += member.id == options_.raft.self || std::ranges::any_of(raft_.peers(), [&](const raft::Peer& peer) {
                return peer.id == member.id && peer.heard && peer.heard_at + raft_.options().election_timeout > now;
              });
  }
  return active > voters / 2;
}

void Replica::follow_changes(const Entry& entry) {
  const bool ends_change = entry.type == EntryType::kConfiguration && !raft_.membership_at(entry.index).is_joint();
  std::vector<PendingChange> done;
  for (auto at = changes_.begin(); at != changes_.end();) {
    PendingChange& change = *at;
    if (change.state == PendingChange::State::kCarried && ends_change) {
      done.push_back(change);
      at = changes_.erase(at);
      continue;
    }
    if (change.state == PendingChange::State::kProposed && change.index == entry.index) {
      if (change.term == entry.term) {
        change.state = PendingChange::State::kCarried;
      } else {
        // Another leader's entry stands there: it was never made, and may be asked for again.
        REACHED(change_passed_by);
        change.state = PendingChange::State::kWaiting;
        dirty_ = true;
      }
    }
    ++at;
  }
  for (const PendingChange& change : done) end_change(change, ChangeRefusal::kNone);
}

// The state was replaced by a later one: what became of proposals cannot be seen any more.
void Replica::abandon_changes() {
  std::vector<PendingChange> lost;
  std::erase_if(changes_, [&](const PendingChange& change) {
    const bool followed =
        change.state == PendingChange::State::kProposed || change.state == PendingChange::State::kCarried;
    if (followed) lost.push_back(change);
    return followed;
  });
  for (const PendingChange& change : lost) lose_change(change);
}

void Replica::end_change(const PendingChange& change, ChangeRefusal refusal) {
  if (change.ticket != 0) {
    if (refusal == ChangeRefusal::kNone) {
      clients_->on_change_done(change.ticket);
    } else {
      clients_->on_change_refused(change.ticket, refusal);
    }
    return;
  }
  std::string reply =
      encode(ChangeReply{.group = options_.raft.group, .boot = change.boot, .id = change.id, .refusal = refusal});
  const auto source = change_sources_.find(change.from);
  if (source != change_sources_.end() && source->second.boot == change.boot && source->second.id == change.id) {
    source->second.reply = reply;
  }
  world_.send(change.from, env::Lane::kForward, std::move(reply));
}

// Another server's: it has its own deadline.
void Replica::lose_change(const PendingChange& change) {
  if (change.ticket == 0) return;
  REACHED(change_outcome_unknown);
  clients_->on_change_unknown(change.ticket);
}

Instant Replica::next_change_deadline() const {
  Instant next = kNever;
  for (const PendingChange& change : changes_) {
    next = std::min(next, change.deadline);
    if (change.state == PendingChange::State::kForwarded) next = std::min(next, change.retry_at);
  }
  return next;
}

}  // namespace conclave::node
