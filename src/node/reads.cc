// Reads and keep-alives: rounds of consensus prove that their answers are of the state as it was when they came, or
// later. One round confirms all that came in one turn.
#include <algorithm>
#include <functional>
#include <utility>

#include "base/mark.h"
#include "node/replica.h"

namespace conclave::node {
namespace {

// What time_of() says of a lease that has been renewed, where that may not be said yet.
constexpr int64_t kNotYet = -1;
// Reads and keep-alives that found no leader, or lost it, try again after this.
constexpr Duration kRoundRetry = std::chrono::milliseconds(50);

}  // namespace

bool Replica::admit_read(Ticket ticket) {
  if (reads_pending_ >= options_.reads_pending_max) {
    REACHED(read_queue_full);
    clients_->on_read_refused(ticket, RequestRefusal::kOverloaded);
    return false;
  }
  ++reads_pending_;
  dirty_ = true;
  return true;
}

void Replica::read(Instant now, Ticket ticket) {
  if (!admit_read(ticket)) return;
  new_reads_.push_back({.ticket = ticket, .deadline = now + options_.request_timeout});
}

void Replica::read_at_least(Instant now, Ticket ticket, Revision revision) {
  if (!admit_read(ticket)) return;
  revision_reads_.emplace(revision, WaitingRead{.ticket = ticket, .deadline = now + options_.request_timeout});
}

void Replica::ask_of_lease(Instant now, Ticket ticket, LeaseId lease, bool renews) {
  if (keep_alives_pending_ >= options_.keep_alives_pending_max) {
    clients_->on_keep_alive_refused(ticket, RequestRefusal::kOverloaded);
    return;
  }
  ++keep_alives_pending_;
  dirty_ = true;
  new_keep_alives_.push_back(
      {.ticket = ticket, .lease = lease, .renews = renews, .deadline = now + options_.request_timeout});
}

// The TTL, or what is left of it; zero if the lease is gone or its end already proposed; kNotYet: it has its time, and
// that may not be said before what was written down of it is erased (lease_checkpoints.h).
int64_t Replica::time_of(Instant now, LeaseId lease, bool renews) {
  const auto info = keyspace_->lease(lease);
  if (!info) return 0;
  if (renews) {
    if (!lease_clock_.renew(lease, info->ttl_ms, now)) return 0;
    if (info->ttl_ms <= kCheckpointTtlMsAbove) return info->ttl_ms;
    lease_checkpoints_.start(lease, info->ttl_ms, now);
    const bool stands = keyspace_->record(remaining_record_key(lease)) != nullptr;
    if (!stands && !lease_checkpoints_.is_under_way(lease)) return info->ttl_ms;
    REACHED(long_lease_renewed);
    // One that is under way may be what writes it.
    (void)propose_remaining(now, lease, std::nullopt);
    return kNotYet;
  }
  const auto left = lease_clock_.remaining_ms(lease, now);
  // Due, and held back by the rate: it is there. The clock runs a little longer than was granted.
  return left ? std::clamp<int64_t>(*left, 1, info->ttl_ms) : 0;
}

// One round of consensus confirms all reads and keep-alives that came in one turn; a keep-alive moves its deadline now
// and is acknowledged when the round has proven that this server led when it came.
void Replica::flush_round(Instant now) {
  retry_rounds(now);
  if (new_reads_.empty() && new_keep_alives_.empty() && new_remote_.empty()) return;
  const bool leading = leads();
  const bool reachable = leading || raft_.status().leader.is_set();
  Round round;
  if (keeps_leases()) {
    round.keep_alives = std::exchange(new_keep_alives_, {});
    round.remote = std::exchange(new_remote_, {});
    round.ttl_ms.reserve(round.keep_alives.size());
    std::erase_if(round.keep_alives, [&](const WaitingKeepAlive& waiting) {
      const int64_t ttl_ms = time_of(now, waiting.lease, waiting.renews);
      if (ttl_ms == kNotYet) {
        new_keep_alives_.push_back(waiting);
      } else {
        round.ttl_ms.push_back(ttl_ms);
      }
      return ttl_ms == kNotYet;
    });
  } else if (reachable && !leading) {
    forward_keep_alives(now);
  }
  // Whoever sent them will ask again.
  new_remote_.clear();
  if (reachable) round.reads = std::exchange(new_reads_, {});
  // Without a leader; or this one has not applied its first entry yet; or has to write something first.
  failed_reads_.insert(failed_reads_.end(), new_reads_.begin(), new_reads_.end());
  failed_keep_alives_.insert(failed_keep_alives_.end(), new_keep_alives_.begin(), new_keep_alives_.end());
  if (!new_reads_.empty() || !new_keep_alives_.empty()) {
    retry_rounds_at_ = std::min(retry_rounds_at_, now + kRoundRetry);
    new_reads_.clear();
    new_keep_alives_.clear();
  }
  if (clock_lease_reads_ && !round.reads.empty()) {
    // On the leader's clock lease, if it has one. Keep-alives rest on no clock but the lease's own (rule 1).
    REACHED(reads_apart_from_keep_alives);
    const uint64_t context = ++last_round_;
    rounds_.emplace(context, Round{.reads = std::exchange(round.reads, {})});
    step(now, raft::Read{.context = context});
  }
  if (round.reads.empty() && round.keep_alives.empty() && round.remote.empty()) return;
  const uint64_t context = ++last_round_;
  rounds_.emplace(context, std::move(round));
  step(now, raft::Read{.context = context, .by_round = true});
}

void Replica::retry_rounds(Instant now) {
  if (retry_rounds_at_ > now) return;
  retry_rounds_at_ = kNever;
  new_reads_.insert(new_reads_.end(), failed_reads_.begin(), failed_reads_.end());
  new_keep_alives_.insert(new_keep_alives_.end(), failed_keep_alives_.begin(), failed_keep_alives_.end());
  failed_reads_.clear();
  failed_keep_alives_.clear();
}

void Replica::forward_keep_alives(Instant now) {
  const raft::Status status = raft_.status();
  while (!new_keep_alives_.empty()) {
    const bool renews = new_keep_alives_.front().renews;
    const auto same = std::ranges::find(new_keep_alives_, !renews, &WaitingKeepAlive::renews);
    const size_t count = std::min(static_cast<size_t>(same - new_keep_alives_.begin()), kKeepAliveLeasesMax);
    KeepAlive frame{.group = options_.raft.group,
                    .term = status.term,
                    .boot = options_.raft.boot,
                    .id = ++last_keep_alive_frame_,
                    .renews = renews};
    ForwardedKeepAlives waiting{.term = status.term, .deadline = now + options_.forward_retry};
    frame.leases.reserve(count);
    for (size_t i = 0; i < count; ++i) frame.leases.push_back(new_keep_alives_[i].lease);
    const auto end = new_keep_alives_.begin() + static_cast<ptrdiff_t>(count);
    waiting.keep_alives.assign(new_keep_alives_.begin(), end);
    new_keep_alives_.erase(new_keep_alives_.begin(), end);
    world_.send(status.leader, env::Lane::kForward, encode(frame));
    forwarded_keep_alives_.emplace(frame.id, std::move(waiting));
  }
}

void Replica::on(Instant now, NodeId from, const KeepAlive& frame) {
  if (!leads() || frame.term != raft_.status().term || !keeps_leases() || !raft_.membership().contains(from)) {
    world_.send(from, env::Lane::kForward,
                encode(KeepAliveReply{.group = options_.raft.group, .boot = frame.boot, .id = frame.id}));
    return;
  }
  RemoteKeepAlives remote{
      .from = from, .boot = frame.boot, .id = frame.id, .renews = frame.renews, .leases = frame.leases};
  remote.ttl_ms.reserve(frame.leases.size());
  for (const LeaseId lease : frame.leases) remote.ttl_ms.push_back(time_of(now, lease, frame.renews));
  if (std::ranges::find(remote.ttl_ms, kNotYet) != remote.ttl_ms.end()) {
    answer_remote(remote, false);
    return;
  }
  new_remote_.push_back(std::move(remote));
}

void Replica::on(Instant now, NodeId, const KeepAliveReply& frame) {
  const auto found = forwarded_keep_alives_.find(frame.id);
  if (frame.boot != options_.raft.boot || found == forwarded_keep_alives_.end()) return;
  std::vector<WaitingKeepAlive> waiting = std::move(found->second.keep_alives);
  forwarded_keep_alives_.erase(found);
  if (!frame.ok || frame.ttl_ms.size() != waiting.size()) {
    failed_keep_alives_.insert(failed_keep_alives_.end(), waiting.begin(), waiting.end());
    retry_rounds_at_ = std::min(retry_rounds_at_, now + kRoundRetry);
    return;
  }
  for (size_t i = 0; i < waiting.size(); ++i) {
    --keep_alives_pending_;
    clients_->on_kept_alive(waiting[i].ticket, frame.ttl_ms[i]);
  }
}

void Replica::on_round(Instant now, const raft::ReadResult& result) {
  auto node = rounds_.extract(result.context);
  if (node.empty()) return;
  Round& round = node.mapped();
  if (result.refusal != raft::Refusal::kNone) {
    // The leader changed or did not answer: asked again, with a round begun later still.
    for (const RemoteKeepAlives& remote : round.remote) answer_remote(remote, false);
    failed_reads_.insert(failed_reads_.end(), round.reads.begin(), round.reads.end());
    failed_keep_alives_.insert(failed_keep_alives_.end(), round.keep_alives.begin(), round.keep_alives.end());
    retry_rounds_at_ = std::min(retry_rounds_at_, now + kRoundRetry);
    return;
  }
  for (const WaitingRead& waiting : round.reads) confirmed_reads_.emplace(result.index, waiting);
  UnknownLeases unknown{.term = raft_.status().term};
  for (size_t i = 0; i < round.keep_alives.size(); ++i) {
    if (round.ttl_ms[i] == 0) {
      unknown.keep_alives.push_back(round.keep_alives[i]);
      continue;
    }
    --keep_alives_pending_;
    clients_->on_kept_alive(round.keep_alives[i].ticket, round.ttl_ms[i]);
  }
  for (RemoteKeepAlives& remote : round.remote) {
    if (std::ranges::find(remote.ttl_ms, 0) != remote.ttl_ms.end()) {
      unknown.remote.push_back(std::move(remote));
    } else {
      answer_remote(remote, true);
    }
  }
  if (unknown.keep_alives.empty() && unknown.remote.empty()) return;
  unknown_leases_.emplace(result.index, std::move(unknown));
}

void Replica::answer_remote(const RemoteKeepAlives& remote, bool ok) {
  KeepAliveReply reply{.group = options_.raft.group, .boot = remote.boot, .id = remote.id, .ok = ok};
  if (ok) reply.ttl_ms = remote.ttl_ms;
  world_.send(remote.from, env::Lane::kForward, encode(reply));
}

// Another server may have answered the grant of a lease before it was applied here: what the round proved is applied
// now, and with it every grant answered before the keep-alive came.
void Replica::look_again(Instant now) {
  while (!unknown_leases_.empty() && unknown_leases_.begin()->first <= applied_) {
    UnknownLeases unknown = std::move(unknown_leases_.begin()->second);
    unknown_leases_.erase(unknown_leases_.begin());
    if (!keeps_leases() || raft_.status().term != unknown.term) {
      for (const RemoteKeepAlives& remote : unknown.remote) answer_remote(remote, false);
      failed_keep_alives_.insert(failed_keep_alives_.end(), unknown.keep_alives.begin(), unknown.keep_alives.end());
      retry_rounds_at_ = std::min(retry_rounds_at_, now + kRoundRetry);
      continue;
    }
    for (RemoteKeepAlives& remote : unknown.remote) {
      for (size_t i = 0; i < remote.ttl_ms.size(); ++i) {
        if (remote.ttl_ms[i] == 0) remote.ttl_ms[i] = time_of(now, remote.leases[i], remote.renews);
      }
      answer_remote(remote, std::ranges::find(remote.ttl_ms, kNotYet) == remote.ttl_ms.end());
    }
    for (const WaitingKeepAlive& waiting : unknown.keep_alives) {
      const int64_t ttl_ms = time_of(now, waiting.lease, waiting.renews);
      if (ttl_ms > 0) REACHED(keep_alive_overtook_its_grant);
      if (ttl_ms == kNotYet) {
        failed_keep_alives_.push_back(waiting);
        retry_rounds_at_ = std::min(retry_rounds_at_, now + kRoundRetry);
        continue;
      }
      --keep_alives_pending_;
      clients_->on_kept_alive(waiting.ticket, ttl_ms);
    }
  }
}

void Replica::release_reads() {
  // In the middle of a large command the state is the one before it.
  uint32_t count = 0;
  release_from(confirmed_reads_, applied_, count);
  release_from(revision_reads_, keyspace_->revision(), count);
}

template <class Place>
void Replica::release_from(std::multimap<Place, WaitingRead>& waiting, Place reached, uint32_t& count) {
  while (!waiting.empty() && waiting.begin()->first <= reached) {
    if (count++ >= options_.reads_per_turn) {
      dirty_ = true;  // the rest with the next turn, at once
      return;
    }
    const Ticket ticket = waiting.begin()->second.ticket;
    waiting.erase(waiting.begin());
    --reads_pending_;
    clients_->on_read_ready(ticket);
  }
}

void Replica::expire_rounds(Instant now) {
  // Frames whose answer was lost are asked again; first, so that what has waited too long is told below. A leader that
  // hears this server and is not heard would otherwise be asked for ever, and the leases with it would never end.
  for (auto at = forwarded_keep_alives_.begin(); at != forwarded_keep_alives_.end();) {
    if (at->second.deadline > now && at->second.term == raft_.status().term) {
      ++at;
      continue;
    }
    std::vector<WaitingKeepAlive>& waiting = at->second.keep_alives;
    new_keep_alives_.insert(new_keep_alives_.end(), waiting.begin(), waiting.end());
    at = forwarded_keep_alives_.erase(at);
  }
  // Taken out first: who is refused may ask again at once.
  std::vector<Ticket> late_reads;
  std::vector<Ticket> late_keep_alives;
  const auto take_late = [now](auto& all, std::vector<Ticket>& late, auto&& waiting_of) {
    std::erase_if(all, [&](const auto& element) {
      if (waiting_of(element).deadline > now) return false;
      late.push_back(waiting_of(element).ticket);
      return true;
    });
  };
  take_late(new_reads_, late_reads, std::identity{});
  take_late(failed_reads_, late_reads, std::identity{});
  const auto second = [](const auto& waiting) -> const WaitingRead& { return waiting.second; };
  take_late(confirmed_reads_, late_reads, second);
  take_late(revision_reads_, late_reads, second);
  take_late(new_keep_alives_, late_keep_alives, std::identity{});
  take_late(failed_keep_alives_, late_keep_alives, std::identity{});
  for (auto& [index, unknown] : unknown_leases_) take_late(unknown.keep_alives, late_keep_alives, std::identity{});
  reads_pending_ -= late_reads.size();
  keep_alives_pending_ -= late_keep_alives.size();
  for (const Ticket ticket : late_reads) clients_->on_read_refused(ticket, RequestRefusal::kTimedOut);
  for (const Ticket ticket : late_keep_alives) clients_->on_keep_alive_refused(ticket, RequestRefusal::kTimedOut);
}

}  // namespace conclave::node
