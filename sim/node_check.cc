#include "sim/node_check.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/mark.h"
#include "etcd/rpc.pb.h"
#include "keyspace/command.h"
#include "keyspace/interface.h"
#include "sim/lease_lateness.h"

namespace conclave::sim {
namespace {

// Between asking and the leader's hearing it, and between the proposal of an end and its being applied: a calm cluster
// needs some milliseconds for both.
constexpr Duration kAgreed = std::chrono::milliseconds(50);

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
  const int64_t revision = keyspace.revision().value();
  compacted_ = keyspace.compacted();
  const keyspace::Effects& effects = keyspace.effects();
  const keyspace::KeyspaceView view(keyspace);
  Commanded commanded{.now = now,
                      .header = command.header,
                      .changed = revision > effects.revision_before.value() || !effects.records.empty() ||
                                 !effects.leases_started.empty() || !effects.leases_ended.empty(),
                      .leases_started = effects.leases_started,
                      .body = std::string(command.body)};
  for (const keyspace::RecordChange& change : effects.records) {
    const keyspace::Record* record = change.deleted ? nullptr : view.record(change.key);
    commanded.records.push_back(
        {.key = change.key, .value = record == nullptr ? "" : record->value, .is_put = record != nullptr});
  }
  for (Observer* observer : observers_) observer->on_command(commanded);
  keyspace::applied_of(keyspace).events([&](const keyspace::Version& version) {
    Event event{.key = std::string(version.key->bytes()), .is_put = !version.is_tombstone()};
    if (event.is_put) {
      event.value = std::string(version.value());
      event.lease = LeaseId(version.lease());
    }
    if (event.is_put && !event.value.empty() && event.value.front() != kWrittenAgain) {
      const auto [known, once] = revision_of_.emplace(event.value, version.mod);
      if (!once) {
        violate(fmt::format("'{}' was written twice: at revision {} and {}", event.value, known->second, version.mod));
      }
    }
    for (Observer* observer : observers_) observer->on_event(version.mod, event);
    events_[version.mod].push_back(std::move(event));
  });
  if (!events_.empty() && events_.rbegin()->first > revision) {
    violate(fmt::format("entry {} has events after the revision {} it led to", entry.index, revision));
  }
  // A leader ends a session whose locks are to be held back by a command of its own.
  const bool expired = command.header.kind == keyspace::CommandKind::kLeaseExpire ||
                       (command.header.kind == keyspace::CommandKind::kInternal && command.header.term.value() > 0);
  for (const LeaseId lease : effects.leases_ended) {
    if (view.get(leased_key(lease))) violate(fmt::format("lease {} ended and left a key behind", lease));
    for (Observer* observer : observers_) observer->on_lease_ended(lease, expired);
    if (!expired) continue;
    ended_[lease] = now;
    check_ended(lease);
    check_late(lease, now);
  }
}

std::string NodeCheck::leased_key(LeaseId lease) {
  return fmt::format("lease{}", lease);
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

void NodeCheck::note_asked(LeaseId lease, Instant sent, Duration ttl) {
  asked_[lease] = {.sent = sent, .ttl = ttl};
}

// By the clock of nobody who had a part in it: what is asked of a calm cluster arrives at once and is agreed at once.
// The time of a lease begins again with a new leader, and calm ones keep theirs.
void NodeCheck::check_late(LeaseId lease, Instant now) {
  const auto asked = asked_.find(lease);
  if (!options_.calm || asked == asked_.end()) return;
  const Duration ttl = asked->second.ttl;
  const Instant until = asked->second.sent + ttl + ttl * 21 / 1000 + lateness_max(ttl) + kAgreed;
  if (now > until) {
    violate(fmt::format("lease {} ended {} us later than it may", lease, (now - until).count() / 1000));
  }
}

void NodeCheck::note_gone(LeaseId lease, Instant now) {
  const auto trust = trust_.find(lease);
  if (options_.clocks_lie || trust == trust_.end() || ended_.contains(lease)) return;
  // Its end is proposed when it is due, so not before its holder's trust is over.
  const Instant until = trust->second.sent + trust->second.ttl;
  if (now < until) {
    violate(fmt::format("the holder of lease {} was told that it is gone, {} us before it may end", lease,
                        (until - now).count() / 1000));
  }
}

void NodeCheck::note_event(const std::string& watcher, Place& place, int64_t revision, const Event& event) {
  if (revision != place.revision) {
    // All of the revision before, and no revision with events left out between.
    const auto before = events_.find(place.revision);
    const size_t of_it = before == events_.end() ? 0 : before->second.size();
    const auto next = events_.upper_bound(place.revision);
    if (revision < place.revision || (place.events != 0 && place.events != of_it) || next == events_.end() ||
        next->first != revision) {
      violate(fmt::format("watcher {} got revision {} after event {} of revision {}", watcher, revision, place.events,
                          place.revision));
      return;
    }
    place = {.revision = revision};
  }
  const auto written = events_.find(revision);
  if (written == events_.end() || place.events >= written->second.size() || written->second[place.events] != event) {
    violate(fmt::format("watcher {} got '{}' = '{}' as event {} of revision {}, which is not what happened", watcher,
                        event.key, event.value, place.events, revision));
    return;
  }
  ++place.events;
}

void NodeCheck::note_compacted(const std::string& watcher, Place& place, int64_t revision) {
  if (revision > compacted_ || revision <= place.revision) {
    violate(fmt::format("watcher {} after revision {} was told that all before {} is compacted, and it is {}", watcher,
                        place.revision, revision, compacted_));
  }
  place = {.revision = revision - 1};
}

std::string NodeCheck::judge(const std::vector<NodeOperation>& operations) const {
  using Kind = NodeOperation::Kind;
  // The states of each key: the revision it changed at, and its value if it was put.
  std::map<std::string, std::vector<std::pair<int64_t, const Event*>>> by_key;
  for (const auto& [revision, events] : events_) {
    for (const Event& event : events) by_key[event.key].emplace_back(revision, &event);
  }
  std::vector<const NodeOperation*> done;
  for (const NodeOperation& operation : operations) {
    const bool writes = operation.kind == Kind::kPut || operation.kind == Kind::kSwap;
    const auto written = writes ? revision_of_.find(operation.value) : revision_of_.end();
    const bool is_written = written != revision_of_.end();
    if (operation.outcome == NodeOutcome::kRefused && is_written) {
      return fmt::format("'{}' was refused and is written at revision {}", operation.value, written->second);
    }
    if (operation.outcome != NodeOutcome::kDone) continue;
    if (writes && operation.changed && (!is_written || written->second != operation.revision)) {
      return fmt::format("'{}' was acknowledged at revision {} and is not there", operation.value, operation.revision);
    }
    if (operation.kind == Kind::kSwap && !operation.changed && is_written) {
      return fmt::format("'{}' was not to be written, and is at revision {}", operation.value, written->second);
    }
    done.push_back(&operation);
  }
  // What was shown of a key is its state at the revision named; what a swap or delete did follows from the state
  // before.
  for (const NodeOperation* operation : done) {
    if (operation->kind == Kind::kPut) continue;
    const auto& states = by_key[operation->key];
    const int64_t at = operation->changed ? operation->revision - 1 : operation->revision;
    const auto after = std::ranges::upper_bound(states, at, {}, [](const auto& one) { return one.first; });
    const bool exists = after != states.begin() && std::prev(after)->second->is_put;
    const int64_t revision = exists ? std::prev(after)->first : 0;
    const std::string value = exists ? std::prev(after)->second->value : std::string();
    const std::string was = fmt::format("'{}' of revision {}", value, revision);
    const bool reads = operation->kind == Kind::kGet || (operation->kind == Kind::kSwap && !operation->changed);
    if (reads && (revision != operation->mod_revision || value != operation->read)) {
      return fmt::format("a read of '{}' at revision {} gave '{}' of {}, and it was {}", operation->key,
                         operation->revision, operation->read, operation->mod_revision, was);
    }
    if (operation->kind == Kind::kSwap && operation->changed != (revision == operation->expected)) {
      return fmt::format("a swap of '{}' that expected revision {} {} at revision {}, and before it was {}",
                         operation->key, operation->expected, operation->changed ? "wrote" : "did not write",
                         operation->revision, was);
    }
    if (operation->kind != Kind::kDelete) continue;
    const bool deletes = after != states.end() && after->first == operation->revision && !after->second->is_put;
    if (operation->changed ? !exists || !deletes : exists) {
      return fmt::format("a delete of '{}' said {} at revision {}, and before it was {}", operation->key,
                         operation->changed ? "deleted" : "nothing there", operation->revision, was);
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
    if (operation->revision < newest || (operation->changed && operation->revision == newest)) {
      return fmt::format("{} of '{}' came after revision {} was shown and is of {}",
                         operation->changed ? "a write" : "a read", operation->key, newest, operation->revision);
    }
  }
  return {};
}

}  // namespace conclave::sim
