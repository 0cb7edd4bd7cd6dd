#include "node/storage.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/snapshot.h"

namespace conclave::node {
namespace {

wal::SnapshotName name_of(GroupId group, const SnapshotMark& mark) {
  return {.group = group, .last = mark.last};
}

// A snapshot file that is good and of committed entries this log knows of, newest first.
Result<std::vector<wal::SnapshotHeader>> good_snapshots(env::Disk& disk, GroupId group) {
  std::vector<wal::SnapshotHeader> good;
  ASSIGN_OR_RETURN(const std::vector<wal::SnapshotName> names, wal::list_snapshots(disk));
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    if (name->group != group || !wal::verify_snapshot(disk, *name)) continue;
    ASSIGN_OR_RETURN(const auto reader, wal::SnapshotReader::open(disk, *name));
    good.push_back(reader->header());
  }
  return good;
}

std::vector<std::pair<GroupId, LogIndex>> indexes_of(const wal::SnapshotSurvey& survey, ClusterId cluster) {
  std::vector<std::pair<GroupId, LogIndex>> indexes;
  for (const wal::SnapshotHeader& header : survey.newest) {
    if (header.cluster == cluster) indexes.emplace_back(header.group, header.mark.last.index);
  }
  return indexes;
}

}  // namespace

GroupId group_of(const StorageResult& result) {
  return std::visit([](const auto& body) { return body.group; }, result);
}

// ---- Opening ----

Result<Storage::Opened> Storage::open(env::Disk& disk, env::Clock& clock, const StorageOptions& options) {
  Result<Opened> opened = try_open(disk, clock, options);
  if (opened) return opened;
  const ErrorCode code = opened.error().code;
  // Beyond use: this server begins again as one that lost its disk, and is re-admitted by its peers.
  if (code != ErrorCode::kUnreadable && code != ErrorCode::kMalformed) return opened;
  REACHED(storage_discarded);
  const std::string reason = opened.error().message;
  RETURN_IF_ERROR(wal::Log::discard(disk));
  opened = try_open(disk, clock, options);
  if (opened) {
    opened->discarded = true;
    opened->discard_reason = reason;
  }
  return opened;
}

Result<Storage::Opened> Storage::try_open(env::Disk& disk, env::Clock& clock, const StorageOptions& options) {
  RETURN_IF_ERROR(wal::remove_unfinished_snapshots(disk));
  ASSIGN_OR_RETURN(const wal::SnapshotSurvey survey, wal::survey_snapshots(disk));
  wal::LogOptions log_options{.owner = options.owner,
                              .segment_bytes = options.segment_bytes,
                              .write_path = options.write_path,
                              .clock = &clock,
                              .snapshots = indexes_of(survey, options.owner.cluster)};
  ASSIGN_OR_RETURN(wal::Log::Opened log, wal::Log::open(disk, log_options));
  Opened opened;
  opened.storage.reset(new Storage(disk, clock, options));
  opened.storage->log_ = std::move(log.log);
  opened.recovery = std::move(log.recovery);
  for (Recovered& recovered : std::exchange(opened.recovery.groups, {})) {
    RETURN_IF_ERROR(opened.storage->restore(std::move(recovered), opened.replicas));
  }
  return opened;
}

Result<Storage::Seen> Storage::look(env::Disk& disk, env::Clock& clock, ClusterId cluster) {
  ASSIGN_OR_RETURN(const wal::SnapshotSurvey survey, wal::survey_snapshots(disk));
  Seen seen;
  ASSIGN_OR_RETURN(seen.log, wal::read_log(disk, indexes_of(survey, cluster)));
  const Storage storage(disk, clock, {.owner = {.cluster = cluster}});
  for (Recovered& recovered : std::exchange(seen.log.groups, {})) {
    RETURN_IF_ERROR(storage.restore(std::move(recovered), seen.replicas));
  }
  return seen;
}

// The state to begin with: the newest good snapshot that the log's entries follow. The mark in the log may name one
// that is damaged since: then the older one serves, to which the log goes back.
Status Storage::restore(Recovered&& recovered, std::map<GroupId, FoundReplica>& replicas) const {
  const GroupId group = recovered.group;
  const LogIndex first = recovered.entries.empty() ? recovered.last.index.next() : recovered.entries.front().index;
  ASSIGN_OR_RETURN(const auto good, good_snapshots(disk_, group));
  const auto fits = [&](const wal::SnapshotHeader& header) {
    const LogIndex index = header.mark.last.index;
    return header.cluster == options_.owner.cluster && index <= recovered.last.index && index.next() >= first;
  };
  const auto chosen = std::ranges::find_if(good, fits);
  FoundReplica found;
  if (chosen != good.end()) {
    if (chosen->mark.last < recovered.snapshot.last) REACHED(storage_older_snapshot_serves);
    recovered.snapshot = chosen->mark;
    ASSIGN_OR_RETURN(found.keyspace, load(group, chosen->mark));
  } else if (first > LogIndex(1) && recovered.last.index.value() > 0) {
    return fail(ErrorCode::kUnreadable, "no good snapshot is left of group {} before its log's first entry {}", group,
                first);
  } else {
    recovered.snapshot = {};
    found.keyspace = std::make_unique<keyspace::Keyspace>();
  }
  recovered.commit = std::max(recovered.commit, recovered.snapshot.last.index);
  found.recovered = std::move(recovered);
  replicas.emplace(group, std::move(found));
  return {};
}

Result<std::unique_ptr<keyspace::Keyspace>> Storage::load(GroupId group, const SnapshotMark& mark) const {
  auto keyspace = std::make_unique<keyspace::Keyspace>();
  keyspace::SnapshotLoader loader(*keyspace);
  ASSIGN_OR_RETURN(const auto reader, wal::SnapshotReader::open(disk_, name_of(group, mark)));
  std::string content;
  while (true) {
    ASSIGN_OR_RETURN(const bool more, reader->next(content));
    if (!more) break;
    RETURN_IF_ERROR(loader.feed(content));
  }
  RETURN_IF_ERROR(loader.finish());
  if (keyspace->applied() != mark.last.index) {
    return fail(ErrorCode::kMalformed, "the snapshot of {} holds the state of {}", mark.last.index,
                keyspace->applied());
  }
  return keyspace;
}

// ---- A new cluster ----

Recovered Storage::bootstrap_state(GroupId group, NodeId self, const Membership& membership) {
  std::string payload;
  membership.encode(payload);
  Recovered state{.group = group, .certainty = Certainty::kCertain};
  state.vote = {.term = Term(1), .incarnation = membership.incarnation_of(self)};
  state.entries.push_back({.index = LogIndex(1),
                           .term = Term(1),
                           .type = EntryType::kConfiguration,
                           .payload = SharedBytes::copy_of(payload)});
  state.last = {.term = Term(1), .index = LogIndex(1)};
  state.commit = LogIndex(1);
  return state;
}

wal::Batch Storage::bootstrap_batch(GroupId group, NodeId self, const Membership& membership) {
  const Recovered state = bootstrap_state(group, self, membership);
  wal::Batch batch;
  batch.append(group, state.entries.front());
  batch.vote(group, state.vote);
  batch.commit(group, state.commit, {});
  return batch;
}

// ---- Work ----

void Storage::add(StorageJob job) {
  if (auto* persist = std::get_if<PersistJob>(&job)) {
    queue_.push(persist->batch, {.group = persist->group, .sequence = persist->sequence});
  } else {
    others_.push_back(std::move(job));
  }
}

Status Storage::work(std::vector<StorageResult>& results) {
  Status written;
  if (!queue_.empty()) {
    tickets_.clear();
    written = queue_.flush(*log_, tickets_, clock_, &gauge_);
    // Of each group the last says it all.
    for (size_t i = 0; i < tickets_.size(); ++i) {
      if (i + 1 < tickets_.size() && tickets_[i + 1].group == tickets_[i].group) continue;
      results.emplace_back(Persisted{.group = tickets_[i].group, .sequence = tickets_[i].sequence});
    }
    if (!written && written.error().code != ErrorCode::kNoSpace) return written;
  }
  if (!others_.empty()) {
    const StorageJob job = std::move(others_.front());
    others_.pop_front();
    RETURN_IF_ERROR(std::visit([&](const auto& body) { return run(body, results); }, job));
  }
  return written;
}

Result<bool> Storage::idle(bool quiet) {
  if (quiet && log_->wants_idle_mark()) {
    if (const Status marked = log_->idle_mark(); !marked && marked.error().code != ErrorCode::kNoSpace) {
      return std::unexpected(marked.error());
    }
  }
  return log_->maintain();
}

// ---- Snapshots of our own ----

Status Storage::no_space_for_snapshot(GroupId group, std::vector<StorageResult>& results) {
  REACHED(storage_snapshot_without_space);
  const auto found = writing_.find(group);
  if (found != writing_.end()) {
    if (found->second.writer != nullptr) RETURN_IF_ERROR(found->second.writer->abandon());
    writing_.erase(found);
  }
  results.emplace_back(SnapshotNotStored{.group = group});
  return {};
}

Status Storage::run(const SnapshotBeginJob& job, std::vector<StorageResult>& results) {
  RETURN_IF_ERROR(run(SnapshotAbandonJob{.group = job.group}, results));
  const wal::SnapshotHeader header{.cluster = options_.owner.cluster, .group = job.group, .mark = job.mark};
  auto writer = wal::SnapshotWriter::begin(disk_, header, options_.compress_snapshots);
  if (!writer) {
    if (writer.error().code == ErrorCode::kNoSpace) return no_space_for_snapshot(job.group, results);
    return std::unexpected(writer.error());
  }
  writing_[job.group] = {.mark = job.mark, .writer = std::move(*writer)};
  return {};
}

Status Storage::run(const SnapshotContentJob& job, std::vector<StorageResult>& results) {
  const auto found = writing_.find(job.group);
  if (found == writing_.end()) return {};  // refused for want of space: the rest of it comes to nothing
  wal::SnapshotWriter& writer = *found->second.writer;
  if (const Status appended = writer.append(job.content); !appended) {
    if (appended.error().code == ErrorCode::kNoSpace) return no_space_for_snapshot(job.group, results);
    return appended;
  }
  results.emplace_back(SnapshotContentTaken{.group = job.group, .bytes = job.content.size()});
  if (!job.last) return {};
  if (const auto name = writer.finish(); !name) {
    if (name.error().code == ErrorCode::kNoSpace) return no_space_for_snapshot(job.group, results);
    return std::unexpected(name.error());
  }
  const uint64_t file_bytes = writer.file_bytes();
  const SnapshotMark mark = found->second.mark;
  writing_.erase(found);
  ASSIGN_OR_RETURN(const wal::SnapshotName oldest, wal::prune_snapshots(disk_, job.group, mark.last.index));
  results.emplace_back(SnapshotStored{
      .group = job.group, .mark = mark, .keep_from = oldest.last.index.next(), .file_bytes = file_bytes});
  return {};
}

Status Storage::run(const SnapshotAbandonJob& job, std::vector<StorageResult>&) {
  const auto found = writing_.find(job.group);
  if (found == writing_.end()) return {};
  const Status abandoned = found->second.writer->abandon();
  writing_.erase(found);
  return abandoned;
}

// ---- Transfers ----

// The block checksums are looked at before the bytes leave; from the beginning again with each transfer.
Result<std::string> Storage::read_chunk(const ChunkReadJob& job, uint64_t& total) {
  const wal::SnapshotName name = name_of(job.group, job.mark);
  ASSIGN_OR_RETURN(std::string bytes, wal::read_snapshot_chunk(disk_, name, job.offset, options_.chunk_bytes));
  ASSIGN_OR_RETURN(const auto file, disk_.open(wal::snapshot_path(name), {}));
  ASSIGN_OR_RETURN(total, file->size());
  Sending& sending = sending_[job.group];
  if (sending.checked == nullptr || sending.mark.last != job.mark.last || job.offset == 0) {
    ASSIGN_OR_RETURN(auto reader, wal::SnapshotReader::open(disk_, name));
    sending = {.mark = job.mark, .checked = std::move(reader)};
  }
  std::string content;
  while (!sending.whole && sending.checked->offset() < job.offset + bytes.size()) {
    ASSIGN_OR_RETURN(const bool more, sending.checked->next(content));
    sending.whole = !more;
  }
  return bytes;
}

Status Storage::run(const ChunkReadJob& job, std::vector<StorageResult>& results) {
  ChunkRead result{.group = job.group, .mark = job.mark, .message = job.message};
  if (auto bytes = read_chunk(job, result.total)) {
    result.found = true;
    result.bytes = std::move(*bytes);
  } else {
    REACHED(storage_own_snapshot_damaged);
    sending_.erase(job.group);
  }
  results.emplace_back(std::move(result));
  return {};
}

Status Storage::run(const ChunkStoreJob& job, std::vector<StorageResult>& results) {
  Receiving& receiving = receiving_[job.group];
  if (receiving.receiver == nullptr || receiving.mark.last != job.mark.last) {
    if (receiving.receiver != nullptr) RETURN_IF_ERROR(receiving.receiver->abandon());
    receiving.receiver.reset();
    auto receiver = wal::SnapshotReceiver::begin(disk_, options_.owner.cluster, name_of(job.group, job.mark));
    if (!receiver && receiver.error().code == ErrorCode::kNoSpace) return {};  // sent again later
    if (!receiver) return std::unexpected(receiver.error());
    receiving = {.mark = job.mark, .receiver = std::move(*receiver)};
  }
  wal::SnapshotReceiver& receiver = *receiving.receiver;
  if (job.offset == receiver.offset()) {
    if (const Status appended = receiver.append(job.offset, job.bytes); !appended) {
      if (appended.error().code == ErrorCode::kNoSpace) return {};
      return appended;
    }
  }
  ChunkStored stored{.group = job.group, .from = job.from, .mark = job.mark, .offset = receiver.offset()};
  if (receiver.offset() >= job.total) {
    const auto name = receiver.finish();
    receiving.receiver.reset();
    if (name) {
      stored.complete = true;
    } else if (name.error().code == ErrorCode::kMalformed || name.error().code == ErrorCode::kForeign) {
      // Not what was asked for, and gone: from the beginning.
      REACHED(storage_transfer_was_bad);
      stored.offset = 0;
    } else if (name.error().code == ErrorCode::kNoSpace) {
      return {};
    } else {
      return std::unexpected(name.error());
    }
  }
  results.emplace_back(stored);
  return {};
}

Status Storage::run(const LoadJob& job, std::vector<StorageResult>& results) {
  ASSIGN_OR_RETURN(auto keyspace, load(job.group, job.mark));
  // Two are kept, and what lies before them goes.
  if (const auto pruned = wal::prune_snapshots(disk_, job.group, job.mark.last.index); !pruned)
    return std::unexpected(pruned.error());
  results.emplace_back(StateLoaded{.group = job.group, .mark = job.mark, .keyspace = std::move(keyspace)});
  return {};
}

}  // namespace conclave::node
