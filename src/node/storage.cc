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

// Files open for sending: the two of a group that are kept, and some.
constexpr size_t kSendingMax = 4;
constexpr Duration kSpaceRetryMin = std::chrono::milliseconds(100);
constexpr Duration kSpaceRetryMax = std::chrono::seconds(10);

// Those of this cluster.
std::vector<wal::GoodSnapshot> good_of(const wal::SnapshotSurvey& survey, ClusterId cluster) {
  std::vector<wal::GoodSnapshot> good;
  for (const wal::SnapshotHeader& header : survey.good) {
    if (header.cluster == cluster) good.push_back({.group = header.group, .last = header.mark.last});
  }
  return good;
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
  RETURN_IF_ERROR(wal::remove_abandoned_transfers(disk, survey));
  wal::LogOptions log_options{.owner = options.owner,
                              .segment_bytes = options.segment_bytes,
                              .write_path = options.write_path,
                              .clock = &clock,
                              .snapshots = good_of(survey, options.owner.cluster)};
  ASSIGN_OR_RETURN(wal::Log::Opened log, wal::Log::open(disk, log_options));
  Opened opened;
  opened.storage.reset(new Storage(disk, clock, options));
  opened.storage->log_ = std::move(log.log);
  opened.storage->queue_ = wal::Queue(opened.storage->log_->segment_bytes());
  opened.recovery = std::move(log.recovery);
  for (Recovered& recovered : std::exchange(opened.recovery.groups, {})) {
    const wal::GroupState* state = opened.storage->log_->state(recovered.group);
    ASSERT(state != nullptr);
    RETURN_IF_ERROR(opened.storage->restore(std::move(recovered), *state, survey, opened.replicas));
  }
  return opened;
}

Result<Storage::Seen> Storage::look(env::Disk& disk, env::Clock& clock, ClusterId cluster) {
  ASSIGN_OR_RETURN(const wal::SnapshotSurvey survey, wal::survey_snapshots(disk));
  Seen seen;
  ASSIGN_OR_RETURN(seen.log, wal::read_log(disk, good_of(survey, cluster)));
  const Storage storage(disk, clock, {.owner = {.cluster = cluster}});
  for (Recovered& recovered : std::exchange(seen.log.groups, {})) {
    const auto inspected = std::ranges::find(seen.log.inspection.groups, recovered.group,
                                             [](const wal::InspectedGroup& each) { return each.state.group; });
    ASSERT(inspected != seen.log.inspection.groups.end());
    RETURN_IF_ERROR(storage.restore(std::move(recovered), inspected->state, survey, seen.replicas));
  }
  return seen;
}

// The state to begin with: the newest good snapshot of the log's past that the log's entries follow. The mark in the
// log may name one that is damaged since: then the older one serves, to which the log goes back.
Status Storage::restore(Recovered&& recovered, const wal::GroupState& log, const wal::SnapshotSurvey& survey,
                        std::map<GroupId, FoundReplica>& replicas) const {
  const GroupId group = recovered.group;
  const LogIndex first = recovered.entries.empty() ? recovered.last.index.next() : recovered.entries.front().index;
  const auto fits = [&](const wal::SnapshotHeader& header) {
    return header.cluster == options_.owner.cluster && header.group == group && log.has_passed(header.mark.last) &&
           header.mark.last.index.next() >= first;
  };
  const auto chosen = std::ranges::find_if(survey.good.rbegin(), survey.good.rend(), fits);
  FoundReplica found;
  if (chosen != survey.good.rend()) {
    if (chosen->mark.last < recovered.snapshot.last) REACHED(storage_older_snapshot_serves);
    recovered.snapshot = chosen->mark;
    ASSIGN_OR_RETURN(Load load, begin_load(group, chosen->mark));
    for (bool loaded = false; !loaded;) {
      ASSIGN_OR_RETURN(loaded, go_on(load));
    }
    found.keyspace = std::move(load.keyspace);
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

Result<Storage::Load> Storage::begin_load(GroupId group, const SnapshotMark& mark) const {
  Load load{.group = group, .mark = mark};
  ASSIGN_OR_RETURN(load.reader, wal::SnapshotReader::open(disk_, name_of(group, mark)));
  load.keyspace = std::make_unique<keyspace::Keyspace>();
  load.loader = std::make_unique<keyspace::SnapshotLoader>(*load.keyspace);
  return load;
}

Result<bool> Storage::go_on(Load& load) {
  std::string content;
  for (size_t fed = 0; fed < wal::kSnapshotStepBytes; fed += content.size()) {
    ASSIGN_OR_RETURN(const bool more, load.reader->next(content));
    if (more) {
      RETURN_IF_ERROR(load.loader->feed(content));
      continue;
    }
    RETURN_IF_ERROR(load.loader->finish());
    if (load.keyspace->applied() != load.mark.last.index) {
      return fail(ErrorCode::kMalformed, "the snapshot of {} holds the state of {}", load.mark.last.index,
                  load.keyspace->applied());
    }
    return true;
  }
  return false;
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
  } else if (const auto* reserve = std::get_if<UseReserveJob>(&job)) {
    queue_.use_reserve(reserve->group);
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
  RETURN_IF_ERROR(run_piece(results));
  tell_space(results);
  return written;
}

// One job, or a piece of one task. Each waits for one of the other kind at most.
Status Storage::run_piece(std::vector<StorageResult>& results) {
  const bool takes_task = !tasks_.empty() && (task_is_next_ || others_.empty());
  task_is_next_ = !takes_task;
  if (takes_task) {
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    ASSIGN_OR_RETURN(const bool over, std::visit([&](auto& body) { return step(body, results); }, task));
    if (!over) tasks_.push_back(std::move(task));
    return {};
  }
  if (others_.empty()) return {};
  const StorageJob job = std::move(others_.front());
  others_.pop_front();
  return std::visit([&](const auto& body) { return run(body, results); }, job);
}

Result<bool> Storage::idle(bool quiet, std::vector<StorageResult>& results) {
  if (quiet && log_->wants_idle_mark()) {
    if (const Status marked = log_->idle_mark(); !marked && marked.error().code != ErrorCode::kNoSpace) {
      return std::unexpected(marked.error());
    }
  }
  ASSIGN_OR_RETURN(const bool more, log_->maintain());
  space_retry_ = log_->full() ? std::clamp(2 * space_retry_, kSpaceRetryMin, kSpaceRetryMax) : Duration();
  tell_space(results);
  return more;
}

void Storage::tell_space(std::vector<StorageResult>& results) {
  const wal::Space space = log_->space();
  space_gauge_.set(space.live_bytes, space.spare_bytes, space.full);
  if (space.full == std::exchange(told_full_, space.full)) return;
  REACHED(storage_space_changed);
  results.emplace_back(SpaceChanged{.full = space.full});
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

Result<Storage::Sending*> Storage::sending(GroupId group, const SnapshotMark& mark) {
  const auto found = std::ranges::find_if(
      sending_, [&](const Sending& each) { return each.group == group && each.mark.last == mark.last; });
  if (found != sending_.end()) return &*found;
  ASSIGN_OR_RETURN(auto sender, wal::SnapshotSender::open(disk_, name_of(group, mark)));
  if (sending_.size() >= kSendingMax) sending_.pop_front();
  sending_.push_back({.group = group, .mark = mark, .sender = std::move(sender)});
  return &sending_.back();
}

bool Storage::read_chunk(const ChunkReadJob& job, std::vector<StorageResult>& results) {
  ChunkRead result{.group = job.group, .mark = job.mark, .message = job.message};
  const auto read = [&]() -> Result<bool> {
    ASSIGN_OR_RETURN(const Sending* sending, this->sending(job.group, job.mark));
    wal::SnapshotSender& sender = *sending->sender;
    ASSIGN_OR_RETURN(const bool known, sender.find(job.offset));
    if (!known) return false;
    result.total = sender.file_bytes();
    ASSIGN_OR_RETURN(result.bytes, sender.read(job.offset, options_.chunk_bytes));
    result.found = true;
    return true;
  };
  const Result<bool> done = read();
  if (done && !*done) return false;
  if (!done) {
    REACHED(storage_own_snapshot_damaged);
    std::erase_if(sending_,
                  [&](const Sending& each) { return each.group == job.group && each.mark.last == job.mark.last; });
  }
  results.emplace_back(std::move(result));
  return true;
}

Status Storage::run(const ChunkReadJob& job, std::vector<StorageResult>& results) {
  if (!read_chunk(job, results)) tasks_.emplace_back(Seek{.job = job});
  return {};
}

Result<bool> Storage::step(Seek& task, std::vector<StorageResult>& results) {
  return read_chunk(task.job, results);
}

// What was sent before is still being looked at, and answered when that is over.
bool Storage::is_under_way(GroupId group, const SnapshotMark& mark) const {
  return std::ranges::any_of(tasks_, [&](const Task& task) {
    if (const auto* resume = std::get_if<Resume>(&task)) {
      return resume->job.group == group && resume->job.mark.last == mark.last;
    }
    const auto* check = std::get_if<Check>(&task);
    return check != nullptr && check->group == group && check->mark.last == mark.last;
  });
}

Status Storage::run(const ChunkStoreJob& job, std::vector<StorageResult>& results) {
  if (is_under_way(job.group, job.mark)) return {};
  Receiving& receiving = receiving_[job.group];
  if (receiving.receiver == nullptr || receiving.mark.last != job.mark.last) {
    if (receiving.receiver != nullptr) RETURN_IF_ERROR(receiving.receiver->abandon());
    receiving.receiver.reset();
    auto receiver = wal::SnapshotReceiver::begin(disk_, options_.owner.cluster, name_of(job.group, job.mark));
    if (!receiver && receiver.error().code == ErrorCode::kNoSpace) return {};  // sent again later
    if (!receiver) return std::unexpected(receiver.error());
    receiving = {.mark = job.mark, .receiver = std::move(*receiver)};
  }
  Resume resume{.job = job};
  ASSIGN_OR_RETURN(const bool over, step(resume, results));
  if (!over) tasks_.emplace_back(std::move(resume));
  return {};
}

Result<bool> Storage::step(Resume& task, std::vector<StorageResult>& results) {
  const Receiving& receiving = receiving_[task.job.group];
  // Another snapshot has taken its place.
  if (receiving.receiver == nullptr || receiving.mark.last != task.job.mark.last) return true;
  const Result<bool> ready = receiving.receiver->resume();
  if (!ready && ready.error().code == ErrorCode::kNoSpace) return true;
  if (!ready || !*ready) return ready;
  RETURN_IF_ERROR(store_chunk(task.job, results));
  return true;
}

Status Storage::store_chunk(const ChunkStoreJob& job, std::vector<StorageResult>& results) {
  Receiving& receiving = receiving_[job.group];
  wal::SnapshotReceiver& receiver = *receiving.receiver;
  if (job.offset == receiver.offset()) {
    if (const Status appended = receiver.append(job.offset, job.bytes); !appended) {
      if (appended.error().code == ErrorCode::kNoSpace) return {};
      return appended;
    }
  }
  if (receiver.offset() < job.total) {
    results.emplace_back(
        ChunkStored{.group = job.group, .from = job.from, .mark = job.mark, .offset = receiver.offset()});
    return {};
  }
  Check check{.group = job.group, .from = job.from, .mark = job.mark, .receiver = std::move(receiving.receiver)};
  ASSIGN_OR_RETURN(const bool over, step(check, results));
  if (!over) tasks_.emplace_back(std::move(check));
  return {};
}

Result<bool> Storage::step(Check& task, std::vector<StorageResult>& results) {
  ChunkStored stored{
      .group = task.group, .from = task.from, .mark = task.mark, .offset = task.receiver->offset(), .complete = true};
  const auto go_on = [&]() -> Result<bool> {
    ASSIGN_OR_RETURN(const bool checked, task.receiver->check());
    if (!checked) return false;
    ASSIGN_OR_RETURN(const wal::SnapshotName name, task.receiver->finish());
    ASSERT(name == name_of(task.group, task.mark));
    return true;
  };
  const Result<bool> over = go_on();
  if (over && !*over) return false;
  if (!over) {
    const ErrorCode code = over.error().code;
    if (code == ErrorCode::kNoSpace) return true;  // sent again later
    if (code != ErrorCode::kMalformed && code != ErrorCode::kForeign && code != ErrorCode::kVersion &&
        code != ErrorCode::kUnreadable) {
      return over;
    }
    // Not what was asked for, and gone: from the beginning.
    REACHED(storage_transfer_was_bad);
    stored.complete = false;
    stored.offset = 0;
  }
  results.emplace_back(stored);
  return true;
}

// ---- Loading ----

Status Storage::run(const LoadJob& job, std::vector<StorageResult>&) {
  std::erase_if(tasks_, [&](const Task& task) {
    const auto* load = std::get_if<Load>(&task);
    return load != nullptr && load->group == job.group;
  });
  ASSIGN_OR_RETURN(Load load, begin_load(job.group, job.mark));
  tasks_.emplace_back(std::move(load));
  return {};
}

Result<bool> Storage::step(Load& task, std::vector<StorageResult>& results) {
  ASSIGN_OR_RETURN(const bool loaded, go_on(task));
  if (!loaded) return false;
  // Two are kept, and what lies before them goes.
  if (const auto pruned = wal::prune_snapshots(disk_, task.group, task.mark.last.index); !pruned) {
    return std::unexpected(pruned.error());
  }
  results.emplace_back(StateLoaded{.group = task.group, .mark = task.mark, .keyspace = std::move(task.keyspace)});
  return true;
}

}  // namespace conclave::node
