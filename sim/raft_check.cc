#include "sim/raft_check.h"

#include <algorithm>

#include "base/mark.h"
#include "sim/digest.h"

namespace conclave::sim {
namespace {

uint64_t hash_of(const Entry& entry) {
  Digest digest;
  digest.add(static_cast<uint64_t>(entry.type));
  digest.add_bytes(entry.payload.view());
  return digest.value();
}

bool is_behind(const Recovered& recovered, const LogDirectory& durable) {
  if (recovered.vote.incarnation != durable.vote.incarnation)
    return recovered.vote.incarnation < durable.vote.incarnation;
  if (recovered.vote.term != durable.vote.term) return recovered.vote.term < durable.vote.term;
  if (durable.vote.candidate.is_set() && recovered.vote.candidate != durable.vote.candidate) return true;
  return recovered.last != durable.last;
}

}  // namespace

void RaftCheck::note_new(NodeId id, const LogDirectory& directory) {
  Server& server = servers_[id];
  server.known = true;
  server.durable = directory;
}

void RaftCheck::note_written(NodeId id, const LogDirectory& directory) {
  Server& server = servers_[id];
  server.has_written = true;
  server.written = directory;
}

void RaftCheck::note_durable(NodeId id) {
  Server& server = servers_[id];
  if (!server.has_written) return;
  server.durable = server.written;
  server.has_written = false;
}

void RaftCheck::note_boot(NodeId id, Boot boot) {
  Server& server = servers_[id];
  if (boot <= server.boot) violate(fmt::format("server {}: boot {} after {}", id, boot, server.boot));
  server.boot = boot;
  server.commit_checked = LogIndex();
  server.was_leader = false;
}

void RaftCheck::note_recovered(NodeId id, const Recovered& recovered, bool struck) {
  Server& server = servers_[id];
  server.struck = server.struck || struck;
  server.lost = false;
  if (recovered.certainty != Certainty::kCertain) {
    if (server.durable.vote.incarnation.value() != 0 && !struck) {
      violate(fmt::format("server {}: its log reports {} of a sound disk", id, to_string(recovered.certainty)));
    }
  } else {
    const bool in_flight = server.has_written && !is_behind(recovered, server.written);
    const bool behind = !in_flight && is_behind(recovered, server.durable);
    if (behind && !struck) {
      violate(
          fmt::format("server {}: its log reports term {} vote {} last ({},{}) of a sound disk that held term {} vote "
                      "{} last ({},{})",
                      id, recovered.vote.term, recovered.vote.candidate, recovered.last.term, recovered.last.index,
                      server.durable.vote.term, server.durable.vote.candidate, server.durable.last.term,
                      server.durable.last.index));
    }
    if (behind) {
      REACHED(sim_raft_silent_loss);
      ++losses_found_;
      server.lost = true;
      server.lost_identity = recovered.vote.incarnation;
    }
    if (!struck && std::ranges::any_of(recovered.entries, [&](const Entry& entry) {
          return entry.type == EntryType::kHole && entry.index > recovered.snapshot.last.index;
        })) {
      // A hole found earlier and not yet filled is no news: but a sound disk has none.
      violate(fmt::format("server {}: its log reports a hole on a sound disk", id));
    }
  }
  // From now on this is what is there.
  server.has_written = false;
  server.durable = {.vote = recovered.vote, .snapshot = recovered.snapshot, .last = recovered.last};
  for (const Entry& entry : recovered.entries) {
    if (server.durable.first.value() == 0) server.durable.first = entry.index;
    if (server.durable.runs.empty() || server.durable.runs.back().term != entry.term) {
      server.durable.runs.push_back({.first = entry.index, .term = entry.term});
    }
    // Log matching holds of what is read back, too: a record of another entry in its place would be seen here.
    if (entry.type != EntryType::kHole) check_entry(id, entry, Term());
  }
}

void RaftCheck::check_entry(NodeId id, const Entry& entry, Term before) {
  const size_t at = entry.index.value() - 1;
  if (entries_.size() <= at) entries_.resize(at + 1);
  const uint64_t hash = hash_of(entry);
  for (Known& known : entries_[at]) {
    if (known.term != entry.term) continue;
    if (known.hash != hash) {
      violate(fmt::format("server {}: another entry ({},{}) than elsewhere", id, entry.term, entry.index));
    }
    if (before.value() != 0 && known.before.value() != 0 && known.before != before) {
      violate(fmt::format("server {}: ({},{}) stands behind an entry of term {}, elsewhere of term {}", id, entry.term,
                          entry.index, before, known.before));
    }
    if (known.before.value() == 0) known.before = before;
    return;
  }
  entries_[at].push_back({.term = entry.term, .before = before, .hash = hash});
}

void RaftCheck::note_step(const raft::Raft& raft, const raft::Output& output) {
  const NodeId id = raft.options().self;
  Server& server = servers_[id];
  const raft::Status status = raft.status();
  if (output.write) {
    const raft::Log& log = raft.log();
    for (const raft::EntrySlices* slices : {&output.write->entries, &output.write->fills}) {
      for (size_t i = 0; i < slices->size(); ++i) {
        const Entry& entry = (*slices)[i];
        const LogIndex before = entry.index.prev();
        // Behind a gap nothing is proven yet.
        const bool known = before >= log.start().index && before <= log.contiguous_last();
        check_entry(id, entry, known && before.value() > 0 ? log.term_at(before) : Term());
      }
    }
  }
  if (server.lost && status.proven && status.incarnation == server.lost_identity && silent_loss_.empty()) {
    REACHED(sim_raft_silent_loss_believed);
    silent_loss_ = fmt::format("server {} lost what it had acknowledged and no quorum told it", id);
  }
  if (status.incarnation != server.lost_identity) server.lost = false;
  for (const raft::Outgoing& outgoing : output.messages) {
    const raft::Header& header = outgoing.message.header;
    if (header.boot != server.boot) violate(fmt::format("server {}: a message of boot {}", id, header.boot));
  }
  if (status.role == raft::Role::kLeader) {
    if (!server.was_leader || server.term != status.term) check_leader(raft, status.term);
    server.was_leader = true;
    server.term = status.term;
  } else {
    server.was_leader = false;
  }
  if (status.commit > server.commit_checked) check_commit(raft, server);
  server.membership = raft.membership();
}

void RaftCheck::note_sent(const raft::Message& message) {
  const raft::Header& header = message.header;
  NodeId candidate;
  Term term;
  if (const auto* reply = std::get_if<raft::VoteReply>(&message.body)) {
    if (reply->pre || !reply->granted) return;
    candidate = header.to;
    term = reply->campaign_term;
  } else if (const auto* request = std::get_if<raft::VoteRequest>(&message.body)) {
    if (request->pre) return;
    candidate = header.from;
    term = request->campaign_term;
  } else {
    return;
  }
  const auto [known, first] = votes_.try_emplace({term, header.from, header.incarnation}, candidate);
  if (!first && known->second != candidate) {
    violate(fmt::format("server {}/{} voted for {} and for {} in term {}", header.from, header.incarnation,
                        known->second, candidate, term));
  }
}

void RaftCheck::check_leader(const raft::Raft& raft, Term term) {
  const NodeId id = raft.options().self;
  const auto [known, first] = leaders_.try_emplace(term, id);
  if (!first && known->second != id) {
    violate(fmt::format("two leaders of term {}: {} and {}", term, known->second, id));
  }
  // The last entry committed in an earlier term is there, and with it (log matching) all before.
  size_t last = committed_in_.size();
  while (last > 0 && committed_in_[last - 1] >= term) --last;
  if (last == 0) return;
  const Entry& entry = committed_[last - 1];
  const raft::Log& log = raft.log();
  if (entry.index < log.start().index) return;
  if (log.last_index() < entry.index || log.term_at(entry.index) != entry.term) {
    violate(fmt::format("leader {} of term {} lacks the committed entry ({},{}): its log ends at ({},{})", id, term,
                        entry.term, entry.index, log.last().term, log.last().index));
  }
}

void RaftCheck::check_commit(const raft::Raft& raft, Server& server) {
  const NodeId id = raft.options().self;
  const raft::Status status = raft.status();
  const raft::Log& log = raft.log();
  LogIndex at = std::max(server.commit_checked.next(), log.first_index());
  server.commit_checked = status.commit;
  if (at > LogIndex(committed_.size() + 1)) {
    violate(fmt::format("server {}: commits {} where {} are known to be committed", id, at, committed_.size()));
    return;
  }
  bool fresh = false;
  for (; at <= std::min(status.commit, log.contiguous_last()); ++at) {
    const Entry& entry = log.entry(at);
    if (at.value() <= committed_.size()) {
      const Entry& known = committed_[at.value() - 1];
      if (!(known.term == entry.term && known.type == entry.type && known.payload == entry.payload)) {
        violate(fmt::format("server {}: commits ({},{}), elsewhere ({},{}) is committed", id, entry.term, at,
                            known.term, at));
        return;
      }
      continue;
    }
    committed_.push_back(entry);
    committed_in_.push_back(status.term);
    fresh = true;
  }
  if (fresh) check_quorum_durable(server.membership, id, LogIndex(committed_.size()));
}

// Asked at the moment the leader counts: each voter that was not struck holds the entry, or those who do are a quorum.
void RaftCheck::check_quorum_durable(const Membership& membership, NodeId leader, LogIndex index) {
  const Term term = committed_[index.value() - 1].term;
  for (const bool before : {false, true}) {
    if (before && !membership.is_joint()) break;
    size_t voters = 0;
    size_t hold = 0;
    for (const Member& member : membership.members()) {
      if ((before ? member.role_before : member.role) != MemberRole::kVoter) continue;
      ++voters;
      const auto it = servers_.find(member.id);
      if (it == servers_.end()) continue;
      const LogDirectory& durable = it->second.durable;
      const bool holds = durable.last.index >= index && (durable.term_at(index) == term || index < durable.first);
      hold += holds || it->second.struck ? 1 : 0;
    }
    if (hold <= voters / 2) {
      violate(fmt::format("leader {} commits {}, which {} of {} voters have durable", leader, index, hold, voters));
    }
  }
}

void RaftCheck::note_state(NodeId id, LogIndex index, uint64_t digest) {
  const size_t at = index.value();
  if (digests_.size() <= at) digests_.resize(at + 1);
  auto& [known, value] = digests_[at];
  if (known && value != digest) {
    violate(fmt::format("server {}: state {:016x} at index {}, elsewhere {:016x}", id, digest, index, value));
  }
  known = true;
  value = digest;
}

}  // namespace conclave::sim
