#include "sim/node_check.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "etcd/rpc.pb.h"
#include "keyspace/command.h"

namespace conclave::sim {

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
  if (ended == ended_.end() || trust == trust_.end()) return;
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
