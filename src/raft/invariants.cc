#include "raft/invariants.h"

#include <algorithm>

#include <fmt/format.h>

namespace conclave::raft {
namespace {

// Entries looked at from the end of the log: those that a step can have changed, and some.
constexpr uint64_t kEntriesChecked = 64;

}  // namespace

#define REQUIRE(condition, ...) \
  if (!(condition)) return fmt::format("{}: ", #condition) + fmt::format(__VA_ARGS__)

Invariants::State Invariants::capture(const Raft& raft) {
  State state{.role = raft.role_,
              .vote = raft.vote_,
              .last = raft.log_.last(),
              .commit = raft.commit_,
              .durable = raft.durable_,
              .snapshot = raft.snapshot_,
              .last_write = raft.last_write_,
              .started = raft.started_};
  if (raft.commit_ >= raft.log_.start().index && raft.commit_ <= raft.log_.last_index()) {
    state.commit_term = raft.log_.term_at(raft.commit_);
  }
  return state;
}

std::string Invariants::check(const Raft& raft) {
  const Log& log = raft.log_;
  REQUIRE(log.last().term <= raft.vote_.term, "last {} term {}", log.last().term, raft.vote_.term);
  Term before = log.start().term;
  LogIndex at = log.first_index();
  if (log.last_index() - log.start().index > kEntriesChecked) {
    at = log.last_index() - kEntriesChecked;
    before = Term();
  }
  for (; at <= log.last_index(); ++at) {
    const Entry& entry = log.entry(at);
    REQUIRE(entry.index == at, "entry {} at {}", entry.index, at);
    if (entry.term.value() == 0) continue;
    REQUIRE(entry.term >= before, "terms fall at {}: {} after {}", at, entry.term, before);
    before = entry.term;
  }
  for (size_t i = 0; i < log.gaps().size(); ++i) {
    const Gap& gap = log.gaps()[i];
    REQUIRE(gap.to.next() >= gap.from && gap.from >= log.first_index() && gap.from <= log.last_index(), "gap {}..{}",
            gap.from, gap.to);
    REQUIRE(i == 0 || log.gaps()[i - 1].to.next() < gap.from, "gaps touch at {}", gap.from);
    for (LogIndex hole = gap.from; hole <= gap.to; ++hole) {
      REQUIRE(log.entry(hole).type == EntryType::kHole, "entry {} in a gap has content", hole);
    }
  }
  REQUIRE(raft.commit_ <= std::max(log.contiguous_last(), raft.snapshot_.last.index) || log.has_gap(), "commit {}",
          raft.commit_);
  REQUIRE(raft.durable_ <= log.last_index(), "durable {} last {}", raft.durable_, log.last_index());
  REQUIRE(raft.verified_ <= std::max(log.contiguous_last(), raft.snapshot_.last.index), "verified {}", raft.verified_);
  REQUIRE(raft.snapshot_.last.index <= raft.commit_, "snapshot {} commit {}", raft.snapshot_.last.index, raft.commit_);
  REQUIRE(log.start().index <= raft.snapshot_.last.index || raft.snapshot_.last.index.value() == 0,
          "log starts at {} behind the snapshot at {}", log.start().index, raft.snapshot_.last.index);
  for (size_t i = 1; i < raft.configurations_.size(); ++i) {
    REQUIRE(raft.configurations_[i - 1].index < raft.configurations_[i].index, "configurations at {}",
            raft.configurations_[i].index);
  }
  REQUIRE(raft.configurations_.back().index <= std::max(log.last_index(), raft.snapshot_.last.index),
          "configuration {}", raft.configurations_.back().index);
  for (const Member& member : raft.membership().members()) {
    REQUIRE(member.id == raft.options_.self || raft.find_peer(member.id) != nullptr, "member {} is no peer", member.id);
  }
  if (raft.role_ == Role::kCandidate || raft.role_ == Role::kLeader) {
    REQUIRE(raft.vote_.candidate == raft.options_.self, "voted for {}", raft.vote_.candidate);
    REQUIRE(raft.vote_.incarnation.value() > 0 && raft.proven_, "incarnation {}", raft.vote_.incarnation);
    REQUIRE(!log.has_gap(), "gap at {}", log.contiguous_last());
  }
  if (raft.role_ == Role::kLeader) {
    REQUIRE(raft.leader_ == raft.options_.self, "leader {}", raft.leader_);
    REQUIRE(raft.term_first_ <= log.last_index(), "term's first {}", raft.term_first_);
    REQUIRE(raft.done_write_ >= raft.vote_write_, "leads before its vote is durable");
    size_t bytes = 0;
    for (LogIndex i = std::max(raft.commit_.next(), raft.term_first_); i <= log.last_index() && i - raft.commit_ < 1000;
         ++i) {
      bytes += log.entry(i).payload.size();
    }
    REQUIRE(log.last_index() - raft.commit_ >= 1000 || bytes == raft.uncommitted_bytes_, "uncommitted {} counted {}",
            bytes, raft.uncommitted_bytes_);
    for (const Peer& peer : raft.peers_) {
      REQUIRE(peer.match <= log.last_index(), "match {} of {}", peer.match, peer.id);
      REQUIRE(peer.next > peer.match && peer.next <= log.last_index().next(), "next {} of {}", peer.next, peer.id);
      REQUIRE(peer.inflight.size() <= raft.options_.inflight_messages_max, "inflight {}", peer.inflight.size());
    }
    REQUIRE(raft.reads_.size() <= raft.options_.reads_pending_max, "reads {}", raft.reads_.size());
  } else {
    REQUIRE(raft.reads_.empty(), "reads {} without leadership", raft.reads_.size());
    REQUIRE(!raft.transfer_to_.is_set(), "transfer without leadership");
  }
  return {};
}

std::string Invariants::check_step(const State& before, const Raft& raft, const Output& output) {
  const Log& log = raft.log_;
  REQUIRE(raft.vote_.term >= before.vote.term, "term {} after {}", raft.vote_.term, before.vote.term);
  if (raft.vote_.term == before.vote.term && before.vote.candidate.is_set()) {
    REQUIRE(raft.vote_.candidate == before.vote.candidate, "voted for {}, then for {}", before.vote.candidate,
            raft.vote_.candidate);
  }
  REQUIRE(raft.vote_.promises || !before.vote.promises, "a promise was forgotten");
  REQUIRE(raft.commit_ >= before.commit, "commit {} after {}", raft.commit_, before.commit);
  REQUIRE(raft.snapshot_.last.index >= before.snapshot.last.index, "snapshot {} after {}", raft.snapshot_.last.index,
          before.snapshot.last.index);
  if (before.commit_term.value() > 0 && before.commit > log.start().index && before.commit <= log.last_index()) {
    REQUIRE(log.term_at(before.commit) == before.commit_term, "committed entry {} changed", before.commit);
  }
  if (before.role == Role::kLeader && raft.role_ == Role::kLeader && raft.vote_.term == before.vote.term) {
    REQUIRE(log.last_index() >= before.last.index, "a leader's log shrank to {}", log.last_index());
    REQUIRE(before.last.index < log.start().index || log.term_at(before.last.index) == before.last.term,
            "a leader overwrote {}", before.last.index);
  }
  if (raft.vote_ != before.vote) {
    REQUIRE(output.write && output.write->vote && *output.write->vote == raft.vote_, "a changed vote is not written");
  }
  if (log.last() != before.last && !output.install) {
    REQUIRE(output.write.has_value(), "a changed log is not written");
  }
  // A later write alone can make more durable; a step without WriteDone never does, but a snapshot moves the start.
  for (const Outgoing& outgoing : output.messages) {
    const Header& header = outgoing.message.header;
    REQUIRE(header.from == raft.options_.self && header.to != raft.options_.self, "message {}->{}", header.from,
            header.to);
    REQUIRE(header.term <= raft.vote_.term, "message of term {}", header.term);
    REQUIRE(outgoing.after <= raft.last_write_, "message waits for write {}", outgoing.after);
    if (header.term == raft.vote_.term && raft.vote_write_ > raft.done_write_) {
      REQUIRE(outgoing.after >= raft.vote_write_, "a message tells of a vote that is not durable");
    }
    if (const auto* reply = std::get_if<VoteReply>(&outgoing.message.body)) {
      REQUIRE(!reply->granted || reply->pre || raft.vote_.candidate == header.to, "granted to {}", header.to);
      REQUIRE(!reply->granted || (raft.vote_.incarnation.value() > 0 && raft.proven_), "granted without identity");
    }
    if (const auto* append = std::get_if<AppendRequest>(&outgoing.message.body)) {
      for (size_t i = 0; i < append->entries.size(); ++i) {
        REQUIRE(append->entries[i].index == append->prev.index + (i + 1), "entry {} sent as {}",
                append->entries[i].index, append->prev.index + (i + 1));
        REQUIRE(append->entries[i].type != EntryType::kHole, "a hole is sent");
      }
    }
    if (const auto* reply = std::get_if<AppendReply>(&outgoing.message.body); reply != nullptr && reply->ok) {
      REQUIRE(reply->match <= std::max(log.contiguous_last(), raft.snapshot_.last.index), "acknowledges {}",
              reply->match);
      REQUIRE(outgoing.after.value() > 0 || reply->match <= raft.durable_, "acknowledges {} of {} durable",
              reply->match, raft.durable_);
    }
  }
  return {};
}

#undef REQUIRE

}  // namespace conclave::raft
