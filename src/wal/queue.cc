#include "wal/queue.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/mark.h"

namespace conclave::wal {

void Queue::push(Batch& batch, Ticket ticket) {
  add(batch,
      {.ticket = ticket, .operations = batch.operations().size(), .bytes = batch.bytes(), .urgency = batch.urgency()});
}

void Queue::add(Batch& batch, const Part& part) {
  if (writes_.empty() || writes_.back().batch.bytes() + part.bytes > write_bytes_max_) {
    writes_.push_back(std::move(spare_));
    spare_ = {};
  }
  Write& write = writes_.back();
  write.parts.push_back(part);
  write.batch.absorb(batch);
  bytes_ += part.bytes;
}

void Queue::use_reserve(GroupId group) {
  for (Write& write : writes_) {
    bool all = true;
    for (Part& part : write.parts) {
      if (part.ticket.group == group) part.urgency = Urgency::kUrgent;
      all = all && part.urgency == Urgency::kUrgent;
    }
    if (all) write.batch.set_urgency(Urgency::kUrgent);
  }
}

Status Queue::write(const Batch& batch, Log& log, env::Clock& clock, WriteGauge* gauge) {
  if (gauge != nullptr) gauge->begin(clock.now());
  Status written = log.write(batch);
  if (gauge != nullptr) gauge->end(clock.now());
  return written;
}

Status Queue::flush(Log& log, std::vector<Ticket>& done, env::Clock& clock, WriteGauge* gauge) {
  while (!writes_.empty()) {
    Status written = write(writes_.front().batch, log, clock, gauge);
    if (!written) {
      if (written.error().code != ErrorCode::kNoSpace) return written;
      RETURN_IF_ERROR(flush_urgent(log, done, clock, gauge));
      if (writes_.empty()) return {};
      return written;
    }
    spare_ = std::move(writes_.front());
    writes_.pop_front();
    for (const Part& part : spare_.parts) {
      bytes_ -= part.bytes;
      done.push_back(part.ticket);
    }
    spare_.parts.clear();
    spare_.batch.clear();
  }
  return {};
}

// Each by itself, since what was refused may stand in the same write.
Status Queue::flush_urgent(Log& log, std::vector<Ticket>& done, env::Clock& clock, WriteGauge* gauge) {
  std::set<GroupId> blocked;
  bool refused = false;
  bytes_ = 0;
  for (const Write& waiting : std::exchange(writes_, {})) {
    size_t at = 0;
    for (const Part& part : waiting.parts) {
      Batch batch = waiting.batch.part(at, part.operations, part.bytes);
      batch.set_urgency(part.urgency);
      at += part.operations;
      const GroupId group = part.ticket.group;
      if (!refused && part.urgency == Urgency::kUrgent && !blocked.contains(group)) {
        Status written = write(batch, log, clock, gauge);
        if (written) {
          REACHED(wal_urgent_out_of_reserve);
          done.push_back(part.ticket);
          continue;
        }
        if (written.error().code != ErrorCode::kNoSpace) return written;
        refused = true;
      }
      blocked.insert(group);
      add(batch, part);
    }
  }
  return {};
}

}  // namespace conclave::wal
