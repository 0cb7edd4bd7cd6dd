#include "wal/queue.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/mark.h"

namespace conclave::wal {

void Queue::push(Batch& batch, Ticket ticket) {
  Waiting& waiting = waiting_.emplace_back();
  waiting.ticket = ticket;
  waiting.batch.set_urgency(batch.urgency());
  bytes_ += batch.bytes();
  waiting.batch.absorb(batch);
}

void Queue::use_reserve(GroupId group) {
  for (Waiting& waiting : waiting_) {
    if (waiting.ticket.group == group) waiting.batch.set_urgency(Urgency::kUrgent);
  }
}

Status Queue::write(Log& log, env::Clock& clock, WriteGauge* gauge) {
  if (gauge != nullptr) gauge->begin(clock.now());
  Status written = log.write(merged_);
  if (gauge != nullptr) gauge->end(clock.now());
  return written;
}

Status Queue::flush(Log& log, std::vector<Ticket>& done, env::Clock& clock, WriteGauge* gauge) {
  while (!waiting_.empty()) {
    // Copies, so that a refusal for lack of space leaves the queue as it was; payloads are shared.
    merged_.clear();
    size_t taken = 0;
    do {
      Batch copy = waiting_[taken].batch;
      merged_.absorb(copy);
      ++taken;
    } while (taken < waiting_.size() && merged_.bytes() + waiting_[taken].batch.bytes() <= kWriteBytesMax);
    Status written = write(log, clock, gauge);
    if (!written) {
      if (written.error().code != ErrorCode::kNoSpace) return written;
      RETURN_IF_ERROR(flush_urgent(log, done, clock, gauge));
      if (waiting_.empty()) return {};
      return written;
    }
    for (size_t i = 0; i < taken; ++i) {
      bytes_ -= std::min(bytes_, waiting_[i].batch.bytes());
      done.push_back(waiting_[i].ticket);
    }
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(taken));
  }
  return {};
}

Status Queue::flush_urgent(Log& log, std::vector<Ticket>& done, env::Clock& clock, WriteGauge* gauge) {
  std::set<GroupId> blocked;
  std::vector<Waiting> left;
  bool refused = false;
  for (Waiting& waiting : waiting_) {
    const GroupId group = waiting.ticket.group;
    if (refused || waiting.batch.urgency() != Urgency::kUrgent || blocked.contains(group)) {
      blocked.insert(group);
      left.push_back(std::move(waiting));
      continue;
    }
    merged_ = waiting.batch;
    Status written = write(log, clock, gauge);
    if (written) {
      REACHED(wal_urgent_out_of_reserve);
      done.push_back(waiting.ticket);
      continue;
    }
    if (written.error().code != ErrorCode::kNoSpace) return written;
    refused = true;
    left.push_back(std::move(waiting));
  }
  waiting_ = std::move(left);
  bytes_ = 0;
  for (const Waiting& waiting : waiting_) bytes_ += waiting.batch.bytes();
  return {};
}

}  // namespace conclave::wal
