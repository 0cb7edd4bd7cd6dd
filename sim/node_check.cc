#include "sim/node_check.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/mark.h"
#include "etcd/rpc.pb.h"
#include "keyspace/command.h"

namespace conclave::sim {
namespace {

// Whether a server that found this knows less than, or other than, what it kept.
bool forgets(const Recovered& recovered, const NodeCheck::Kept& kept) {
  if (recovered.vote.incarnation != kept.vote.incarnation) return recovered.vote.incarnation < kept.vote.incarnation;
  if (recovered.vote.term != kept.vote.term) return recovered.vote.term < kept.vote.term;
  if (kept.vote.candidate.is_set() && recovered.vote.candidate != kept.vote.candidate) return true;
  return recovered.last != kept.last;
}

}  // namespace

void NodeCheck::note_written(uint64_t server, WriteSequence sequence, const Kept& kept) {
  disks_[server].written.emplace_back(sequence, kept);
}

void NodeCheck::note_durable(uint64_t server, WriteSequence sequence) {
  Disk& disk = disks_[server];
  while (!disk.written.empty() && disk.written.front().first <= sequence) {
    disk.durable = disk.written.front().second;
    disk.written.pop_front();
  }
}

void NodeCheck::note_found(uint64_t server, const Recovered& recovered, bool struck) {
  Disk& disk = disks_[server];
  disk.lost = false;
  if (recovered.certainty != Certainty::kCertain) {
    const bool had_something = disk.durable.vote.term.value() > 0 || disk.durable.last.index.value() > 0;
    if (!struck && had_something) {
      violate(fmt::format("server {}: a sound disk is found {}", server, to_string(recovered.certainty)));
    }
  } else {
    // A write without an answer may be there or not, and every one before it then is.
    const bool remembers =
        !forgets(recovered, disk.durable) ||
        std::ranges::any_of(disk.written, [&](const auto& write) { return !forgets(recovered, write.second); });
    if (!remembers && !struck) {
      violate(fmt::format("server {}: a sound disk that held term {} and last ({},{}) is found at term {} and ({},{})",
                          server, disk.durable.vote.term, disk.durable.last.term, disk.durable.last.index,
                          recovered.vote.term, recovered.last.term, recovered.last.index));
    }
    disk.lost = !remembers;
    disk.lost_identity = recovered.vote.incarnation;
    const bool has_hole = std::ranges::any_of(recovered.entries, [&](const Entry& entry) {
      return entry.type == EntryType::kHole && entry.index > recovered.snapshot.last.index;
    });
    if (has_hole && !struck) violate(fmt::format("server {}: a sound disk is found with a hole", server));
  }
  disk.found = {.vote = recovered.vote, .last = recovered.last};
}

void NodeCheck::note_begun(uint64_t server) {
  Disk& disk = disks_[server];
  disk.durable = disk.found;
  disk.written.clear();
}

void NodeCheck::note_status(uint64_t server, const raft::Status& status) {
  Disk& disk = disks_[server];
  if (!disk.lost || !status.proven) return;
  if (status.incarnation == disk.lost_identity) {
    REACHED(sim_node_silent_loss);
    silent_loss_ = true;
  }
  disk.lost = false;
}

void NodeCheck::note_state(uint64_t server, LogIndex index, uint64_t digest) {
  const auto [known, first] = digests_.emplace(index, digest);
  if (!first && known->second != digest) {
    violate(fmt::format("server {} at index {} has another state than the first that got there", server, index));
  }
}

void NodeCheck::note_applied(uint64_t server, Instant now, const Entry& entry, keyspace::Keyspace& keyspace) {
  const bool first = !digests_.contains(entry.index);
  note_state(server, entry.index, keyspace.digest());
  if (!first || entry.type != EntryType::kCommand) return;
  keyspace::Command command;
  if (!keyspace::decode_command(entry.payload.view(), command)) {
    violate(fmt::format("entry {} is no command", entry.index));
    return;
  }
  const keyspace::Reply& reply = keyspace.reply();
  if (command.header.kind == keyspace::CommandKind::kPut && reply.error == keyspace::ErrorId::kNone) {
    etcdserverpb::PutRequest put;
    if (!put.ParseFromArray(command.body.data(), static_cast<int>(command.body.size()))) {
      violate(fmt::format("entry {} is no put", entry.index));
      return;
    }
    const int64_t revision = reply.revision.value();
    if (!revision_of_.emplace(put.value(), revision).second) {
      violate(fmt::format("'{}' was written twice: at revision {} and {}", put.value(), revision_of_[put.value()],
                          revision));
    }
    writes_[revision] = {.key = put.key(), .value = put.value()};
  }
  if (command.header.kind == keyspace::CommandKind::kLeaseExpire) {
    for (const LeaseId lease : keyspace.effects().leases_ended) {
      ended_[lease] = now;
      check_ended(lease);
    }
  }
}

// The holder's clock may be slow by one per cent: it trusts the lease for a hundredth longer.
void NodeCheck::check_ended(LeaseId lease) {
  const auto ended = ended_.find(lease);
  const auto trust = trust_.find(lease);
  if (options_.clocks_lie || ended == ended_.end() || trust == trust_.end()) return;
  const Instant until = trust->second.sent + trust->second.ttl + trust->second.ttl / 100;
  if (ended->second < until) {
    violate(fmt::format("lease {} ended {} us before its holder's trust did", lease,
                        (until - ended->second).count() / 1000));
  }
}

void NodeCheck::note_trusted(LeaseId lease, Instant sent, Duration ttl) {
  Trust& trust = trust_[lease];
  if (sent > trust.sent) trust = {.sent = sent, .ttl = ttl};
  check_ended(lease);
}

void NodeCheck::note_event(const std::string& watcher, int64_t& last, int64_t revision, bool is_put,
                           const std::string& key, const std::string& value) {
  if (revision != last && revision != last + 1) {
    violate(fmt::format("watcher {} got revision {} after {}", watcher, revision, last));
    return;
  }
  last = revision;
  const auto write = writes_.find(revision);
  const bool known = write != writes_.end();
  if (is_put != known || (is_put && (write->second.key != key || write->second.value != value))) {
    violate(fmt::format("watcher {} got '{}' = '{}' at revision {}, which is not what was written there", watcher, key,
                        value, revision));
  }
}

std::string NodeCheck::judge(const std::vector<NodeOperation>& operations) const {
  std::vector<const NodeOperation*> done;
  for (const NodeOperation& operation : operations) {
    const auto written = revision_of_.find(operation.value);
    if (operation.outcome == NodeOutcome::kRefused && !operation.is_read && written != revision_of_.end()) {
      return fmt::format("'{}' was refused and is written at revision {}", operation.value, written->second);
    }
    if (operation.outcome != NodeOutcome::kDone) continue;
    if (!operation.is_read && (written == revision_of_.end() || written->second != operation.revision)) {
      return fmt::format("'{}' was acknowledged at revision {} and is not there", operation.value, operation.revision);
    }
    done.push_back(&operation);
  }
  // What a read showed is the key's state at the revision it names.
  std::map<std::string, std::vector<std::pair<int64_t, const std::string*>>> by_key;
  for (const auto& [revision, write] : writes_) by_key[write.key].emplace_back(revision, &write.value);
  for (const NodeOperation* operation : done) {
    if (!operation->is_read) continue;
    const auto& versions = by_key[operation->key];
    const auto after =
        std::ranges::upper_bound(versions, operation->revision, {}, [](const auto& one) { return one.first; });
    const bool exists = after != versions.begin();
    const int64_t revision = exists ? std::prev(after)->first : 0;
    const std::string value = exists ? *std::prev(after)->second : std::string();
    if (revision != operation->mod_revision || value != operation->value) {
      return fmt::format("a read of '{}' at revision {} gave '{}' of {}, and it was '{}' of {}", operation->key,
                         operation->revision, operation->value, operation->mod_revision, value, revision);
    }
  }
  // Real time: whoever is called after another's answer sees at least its revision.
  std::vector<const NodeOperation*> by_return = done;
  std::ranges::sort(done, {}, &NodeOperation::called);
  std::ranges::sort(by_return, {}, &NodeOperation::returned);
  size_t returned = 0;
  int64_t newest = 0;
  for (const NodeOperation* operation : done) {
    for (; returned < by_return.size() && by_return[returned]->returned < operation->called; ++returned) {
      newest = std::max(newest, by_return[returned]->revision);
    }
    if (operation->revision < newest || (!operation->is_read && operation->revision == newest)) {
      return fmt::format("{} of '{}' came after revision {} was shown and is of {}",
                         operation->is_read ? "a read" : "a write", operation->key, newest, operation->revision);
    }
  }
  return {};
}

}  // namespace conclave::sim
