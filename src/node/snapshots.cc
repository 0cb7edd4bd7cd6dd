// Snapshots: taken of this state in slices, sent and taken in chunks, and the state of a peer's put in the place of
// this one.
#include <algorithm>
#include <utility>

#include "base/mark.h"
#include "node/replica.h"
#include "raft/codec.h"

namespace conclave::node {
namespace {

// After a snapshot for which there was no space.
constexpr Duration kSnapshotRetry = std::chrono::seconds(5);
// Chunks of snapshots being read for peers: one each under way, and some that were asked for again.
constexpr size_t kChunksPendingMax = 16;

}  // namespace

void Replica::begin_snapshot(Instant now) {
  if (taking_ || install_ || keyspace_->is_busy() || now < snapshot_not_before_) return;
  if (!retake_snapshot_ && applied_bytes_ < std::max(options_.snapshot_log_bytes, snapshot_file_bytes_ / 2)) return;
  // A server that does not know its members yet cannot say in a snapshot who they are.
  const Membership& membership = raft_.membership_at(applied_);
  if (membership.empty()) return;
  const SnapshotMark mark{.last = {.term = applied_term_, .index = applied_}, .membership = membership};
  applied_bytes_ = 0;
  retake_snapshot_ = false;
  taking_.emplace(Taking{.mark = mark, .reader = std::make_unique<keyspace::SnapshotReader>(*keyspace_)});
  world_.store(SnapshotBeginJob{.group = options_.raft.group, .mark = mark});
}

// A slice per turn, and no more than the disk keeps up with.
void Replica::read_snapshot() {
  if (!taking_ || taking_->reader == nullptr || taking_->pending >= options_.snapshot_bytes_pending_max) return;
  SnapshotContentJob job{.group = options_.raft.group};
  job.last = taking_->reader->read(job.content);
  taking_->pending += job.content.size();
  if (job.last) taking_->reader.reset();
  world_.store(std::move(job));
}

void Replica::on(Instant, const SnapshotContentTaken& result) {
  if (taking_) taking_->pending -= std::min(taking_->pending, result.bytes);
}

void Replica::on(Instant now, const SnapshotStored& result) {
  taking_.reset();
  ++counters_.snapshots_taken;
  snapshot_file_bytes_ = result.file_bytes;
  // Older than what was installed from a peer meanwhile, it is of no use.
  if (result.mark.last.index <= raft_.snapshot().last.index) return;
  step(now, raft::Compact{.mark = result.mark, .keep_from = result.keep_from});
}

void Replica::on(Instant now, const SnapshotNotStored&) {
  taking_.reset();
  snapshot_not_before_ = now + kSnapshotRetry;
  // Due again at once when it may be.
  applied_bytes_ = std::max(options_.snapshot_log_bytes, snapshot_file_bytes_ / 2);
}

// The core says which bytes; the disk has them.
void Replica::send_chunk(const raft::Message& message) {
  if (chunks_.size() >= kChunksPendingMax) return;  // asked again after a while
  const auto& chunk = std::get<raft::SnapshotChunk>(message.body);
  chunks_.emplace(++last_chunk_, message);
  world_.store(
      ChunkReadJob{.group = options_.raft.group, .mark = chunk.mark, .offset = chunk.offset, .message = last_chunk_});
}

void Replica::on(Instant now, ChunkRead& result) {
  const auto node = chunks_.extract(result.message);
  if (!result.found) {
    if (result.mark.last == raft_.snapshot().last && now >= retaken_at_ + kSnapshotRetry) {
      // Its own file is damaged or gone: whoever needs it, and asks again, gets a new one.
      REACHED(snapshot_taken_again);
      retake_snapshot_ = true;
      retaken_at_ = now;
    }
    step(now, raft::SnapshotUnreadable{.mark = result.mark});
    return;
  }
  if (node.empty()) return;
  raft::Message message = node.mapped();
  auto& chunk = std::get<raft::SnapshotChunk>(message.body);
  chunk.bytes = result.bytes;
  chunk.total = result.total;
  std::string frame(1, static_cast<char>(FrameKind::kConsensus));
  raft::encode(message, frame);
  world_.send(message.header.to, env::Lane::kBulk, std::move(frame));
}

void Replica::store_chunk(const raft::ChunkToStore& chunk) {
  world_.store(ChunkStoreJob{.group = options_.raft.group,
                             .from = chunk.from,
                             .mark = chunk.mark,
                             .offset = chunk.offset,
                             .total = chunk.total,
                             .bytes = std::string(chunk.bytes)});
}

void Replica::on(Instant now, const ChunkStored& result) {
  step(now, raft::ChunkStored{
                .from = result.from, .mark = result.mark, .offset = result.offset, .complete = result.complete});
}

// A later state takes the place of this one. Writes that were under way may be part of it: who waits for them cannot be
// told. Their numbers stay, since the leader takes them in order.
void Replica::on(Instant now, StateLoaded& result) {
  if (!install_ || install_->mark.last != result.mark.last) return;  // a later one follows
  REACHED(state_replaced);
  install_.reset();
  ++counters_.snapshots_installed;
  if (taking_) {
    world_.store(SnapshotAbandonJob{.group = options_.raft.group});
    taking_.reset();
  }
  std::vector<Ticket> unknown;
  for (auto& [request, write] : writes_) {
    if (write.term.value() == 0 || write.ticket == 0) continue;
    unknown.push_back(std::exchange(write.ticket, 0));
  }
  clients_->on_state_replaced();
  keyspace_ = std::move(result.keyspace);
  keyspace_->set_answers({.origin = options_.raft.self, .boot = options_.raft.boot});
  applied_ = result.mark.last.index;
  applied_bytes_ = 0;
  applying_ = false;
  take_settings(now);
  for (const Ticket ticket : unknown) clients_->on_write_unknown(ticket);
  abandon_changes();
  if (result.mark.last.term > applied_term_) {
    applied_term_ = result.mark.last.term;
    on_term_passed(applied_term_);
  }
  // It may have become the leader while the state was being loaded.
  if (leads() && applied_term_ == raft_.status().term && !lease_clock_.is_leading()) lead_leases(now);
}

}  // namespace conclave::node
