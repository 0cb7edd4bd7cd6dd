// Queue: what arrived while the last write ran, to go out with the next one. In the order it came: a ticket is handed
// back only when its batch and all before it are durable.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "base/types.h"
#include "env/clock.h"
#include "wal/batch.h"
#include "wal/gauges.h"
#include "wal/log.h"

namespace conclave::wal {

// What raft wants to hear of again when it is durable.
struct Ticket {
  GroupId group;
  WriteSequence sequence;
  friend bool operator==(const Ticket&, const Ticket&) = default;
};

// One thread, the log's. Bounded by its callers: they stop pushing at bytes() of their choice.
class Queue {
 public:
  // One write is cut at this: a MiB takes half a millisecond here, and what waits behind it waits as long.
  static constexpr size_t kWriteBytesMax = size_t{1} << 20;

  // For a log with such segments. One write fits into a segment, with half of it for what a write has beside the
  // batches (head, directory, a vote once more); a single batch is the business of who makes it.
  explicit Queue(uint64_t segment_bytes = kSegmentBytesDefault)
      : write_bytes_max_(std::min<uint64_t>(kWriteBytesMax, segment_bytes / 2)) {}

  // Takes the batch's content; empty batches give their ticket with the next flush.
  void push(Batch& batch, Ticket ticket);
  [[nodiscard]] bool empty() const { return writes_.empty(); }
  [[nodiscard]] size_t bytes() const { return bytes_; }

  // What waits of the group may use the log's reserve from now on, though it was pushed as normal.
  void use_reserve(GroupId group);

  // Writes what waits, in as few writes as that allows, and appends the tickets that are durable to `done`,
  // in order. kNoSpace: the urgent batches that no refused one of their group stands before were written; the rest
  // stays. Other errors: as Log::write; nothing more will ever be durable. The gauge may be null.
  [[nodiscard]] Status flush(Log& log, std::vector<Ticket>& done, env::Clock& clock, WriteGauge* gauge);

 private:
  // One batch pushed, as part of a write.
  struct Part {
    Ticket ticket;
    size_t operations = 0;
    size_t bytes = 0;
    Urgency urgency = Urgency::kNormal;
  };
  // What goes out together: put together as it comes, so that nothing is copied when it is time to write.
  struct Write {
    Batch batch;
    std::vector<Part> parts;
  };
  void add(Batch& batch, const Part& part);
  static Status write(const Batch& batch, Log& log, env::Clock& clock, WriteGauge* gauge);
  Status flush_urgent(Log& log, std::vector<Ticket>& done, env::Clock& clock, WriteGauge* gauge);

  size_t write_bytes_max_;
  std::deque<Write> writes_;
  size_t bytes_ = 0;
  Write spare_;  // keeps its memory
};

}  // namespace conclave::wal
