#include "server/recover.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>

#include "env/posix/clock.h"
#include "env/posix/disk.h"
#include "keyspace/keyspace.h"
#include "keyspace/snapshot.h"
#include "node/storage.h"

namespace conclave::server {
namespace {

constexpr GroupId kGroup{1};

// Of a survivor: who it is, what is on its disk. The lock is held as long as this stands.
struct Opened {
  std::unique_ptr<env::PosixDisk> disk;
  std::unique_ptr<env::DirectoryLock> lock;
  Identity identity;
  node::FoundReplica found;
};

Result<Opened> open_survivor(const std::string& directory) {
  Opened opened;
  ASSIGN_OR_RETURN(opened.disk, env::PosixDisk::open_directory(directory));
  ASSIGN_OR_RETURN(opened.identity, read_identity(*opened.disk));
  auto lock = opened.disk->lock();
  if (!lock) {
    if (lock.error().code != ErrorCode::kLocked) return std::unexpected(lock.error());
    return fail(ErrorCode::kLocked, "{}: server '{}' runs; recover is for clusters that are down", directory,
                opened.identity.name);
  }
  opened.lock = std::move(*lock);
  env::PosixClock clock;
  ASSIGN_OR_RETURN(node::Storage::Seen seen, node::Storage::look(*opened.disk, clock, opened.identity.cluster));
  const auto replica = seen.replicas.find(kGroup);
  if (replica == seen.replicas.end()) {
    return fail(ErrorCode::kNotFound, "{}: server '{}' holds nothing", directory, opened.identity.name);
  }
  opened.found = std::move(replica->second);
  return opened;
}

// The last entry that can be reached without passing one whose content is lost.
LogIndex readable_of(const Recovered& recovered) {
  LogIndex readable = recovered.snapshot.last.index;
  for (const Entry& entry : recovered.entries) {
    if (entry.index <= readable) continue;
    if (entry.type == EntryType::kHole || entry.index != readable.next()) break;
    readable = entry.index;
  }
  return readable;
}

// Everything the directory tells, committed or not: what was not may have been acknowledged by those that are lost.
Result<LogIndex> apply_all(node::FoundReplica& found) {
  keyspace::Keyspace& keyspace = *found.keyspace;
  const LogIndex readable = readable_of(found.recovered);
  for (const Entry& entry : found.recovered.entries) {
    if (entry.index <= keyspace.applied()) continue;
    if (entry.index > readable) break;
    if (entry.type != EntryType::kCommand) {
      keyspace.skip(entry.index);
      continue;
    }
    bool done = keyspace.apply(entry.index, entry.term, entry.payload);
    while (!done) done = keyspace.run_slice();
  }
  if (keyspace.applied().value() == 0) return fail(ErrorCode::kNotFound, "there is nothing to go on with");
  return keyspace.applied();
}

Status make_empty_directory(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error && !std::filesystem::is_empty(path, error) && !error) {
    return fail(ErrorCode::kInvalidArgument, "{} is not empty", path);
  }
  if (!error) std::filesystem::permissions(path, std::filesystem::perms::owner_all, error);
  if (error) return fail(ErrorCode::kIo, "{}: {}", path, error.message());
  return {};
}

// The state as a snapshot, and a log that begins behind it.
Status write_directory(env::Disk& disk, const Identity& identity, keyspace::Keyspace& keyspace,
                       const SnapshotMark& mark) {
  env::PosixClock clock;
  ASSIGN_OR_RETURN(auto opened, node::Storage::open(disk, clock,
                                                    {.owner = {.cluster = identity.cluster, .node = identity.node},
                                                     .write_path = wal::WritePath::kBuffered}));
  std::vector<node::StorageResult> results;
  const auto work = [&](node::StorageJob job) -> Status {
    opened.storage->add(std::move(job));
    while (opened.storage->has_work()) RETURN_IF_ERROR(opened.storage->work(results));
    return {};
  };
  RETURN_IF_ERROR(work(node::SnapshotBeginJob{.group = kGroup, .mark = mark}));
  keyspace::SnapshotReader reader(keyspace);
  for (bool last = false; !last;) {
    node::SnapshotContentJob job{.group = kGroup};
    last = job.last = reader.read(job.content);
    RETURN_IF_ERROR(work(std::move(job)));
  }
  if (!std::ranges::any_of(results,
                           [](const auto& result) { return std::holds_alternative<node::SnapshotStored>(result); })) {
    return fail(ErrorCode::kNoSpace, "no space for the state");
  }
  wal::Batch batch;
  batch.install(kGroup, mark);
  batch.vote(kGroup, {.term = mark.last.term, .incarnation = mark.membership.incarnation_of(identity.node)});
  batch.commit(kGroup, mark.last.index, {});
  return work(node::PersistJob{.group = kGroup, .sequence = WriteSequence(1), .batch = std::move(batch)});
}

}  // namespace

Membership membership_of(const Recovered& recovered) {
  Membership membership = recovered.snapshot.membership;
  for (const Entry& entry : recovered.entries) {
    if (entry.type != EntryType::kConfiguration) continue;
    if (auto decoded = Membership::decode(entry.payload.view())) membership = *decoded;
  }
  return membership;
}

Result<Survivor> look_at(const std::string& directory) {
  ASSIGN_OR_RETURN(const Opened opened, open_survivor(directory));
  const Recovered& recovered = opened.found.recovered;
  return Survivor{.directory = directory,
                  .identity = opened.identity,
                  .certainty = recovered.certainty,
                  .term = std::max(recovered.vote.term, recovered.last.term),
                  .last = recovered.last,
                  .readable = readable_of(recovered),
                  .commit = recovered.commit,
                  .membership = membership_of(recovered)};
}

Result<RecoverPlan> plan_recovery(std::vector<Survivor> survivors) {
  if (survivors.empty()) return fail(ErrorCode::kInvalidArgument, "no directory was given");
  for (const Survivor& survivor : survivors) {
    if (survivor.identity.cluster != survivors.front().identity.cluster) {
      return fail(ErrorCode::kInvalidArgument, "{} and {} are of different clusters", survivors.front().directory,
                  survivor.directory);
    }
  }
  // As elections compare logs; of equal ones the one of which more can be read. Behind them those whose state is known
  // to be another one than the others'.
  std::ranges::sort(survivors, [](const Survivor& a, const Survivor& b) {
    if (a.has_diverged() != b.has_diverged()) return b.has_diverged();
    const bool a_whole = a.readable == a.last.index;
    const bool b_whole = b.readable == b.last.index;
    if (a_whole != b_whole) return a_whole;
    if (a.last != b.last) return a.last > b.last;
    if (a.readable != b.readable) return a.readable > b.readable;
    return a.directory < b.directory;
  });
  RecoverPlan plan;
  const Survivor& best = survivors.front();
  for (const bool before : {false, true}) {
    if (before && !best.membership.is_joint()) break;
    size_t voters = 0;
    size_t here = 0;
    for (const Member& member : best.membership.members()) {
      if ((before ? member.role_before : member.role) != MemberRole::kVoter) continue;
      ++voters;
      here +=
          std::ranges::any_of(survivors,
                              [&](const Survivor& survivor) {
                                return survivor.identity.node == member.id && survivor.certainty == Certainty::kCertain;
                              })
              ? 1
              : 0;
    }
    if (!before) {
      plan.members = voters;
      plan.here = here;
      plan.complete = true;
    }
    plan.complete = plan.complete && here > voters / 2;
  }
  // A whole log that is behind a damaged one lacks what only that one has.
  plan.complete = plan.complete && best.readable == best.last.index && !best.has_diverged() &&
                  std::ranges::all_of(survivors, [&](const Survivor& each) { return each.last <= best.last; });
  plan.survivors = std::move(survivors);
  return plan;
}

Result<RecoverOutcome> recover(const RecoverOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<JoinEntry> servers, parse_join(options.join));
  if (std::ranges::find(servers, options.name, &JoinEntry::name) == servers.end()) {
    return fail(ErrorCode::kInvalidArgument, "--join does not name '{}'", options.name);
  }
  ASSIGN_OR_RETURN(Opened opened, open_survivor(options.from));
  keyspace::Keyspace& keyspace = *opened.found.keyspace;
  ASSIGN_OR_RETURN(const LogIndex index, apply_all(opened.found));
  RecoverOutcome outcome{.index = index, .revision_before = keyspace.revision().value()};
  keyspace.continue_above(kRecoverMargin);
  outcome.revision = keyspace.revision().value();
  while (keyspace.run_background()) {
  }
  std::vector<NodeId> voters;
  voters.reserve(servers.size());
  for (const JoinEntry& server : servers) voters.push_back(node_id_of(server.name));
  std::ranges::sort(voters);
  // In a term of its own: no entry of the old cluster has it.
  const Recovered& recovered = opened.found.recovered;
  const SnapshotMark mark{.last = {.term = std::max(recovered.vote.term, recovered.last.term).next(), .index = index},
                          .membership = Membership::of_voters(voters)};
  outcome.cluster = cluster_id_of(servers, opened.identity.cluster, {.term = recovered.last.term, .index = index});
  const Identity identity{.cluster = outcome.cluster, .node = node_id_of(options.name), .name = options.name};
  RETURN_IF_ERROR(make_empty_directory(options.data));
  ASSIGN_OR_RETURN(const auto disk, env::PosixDisk::open_directory(options.data));
  RETURN_IF_ERROR(write_directory(*disk, identity, keyspace, mark));
  // Last: a directory without it is no server's.
  RETURN_IF_ERROR(write_identity(*disk, identity));
  return outcome;
}

}  // namespace conclave::server
