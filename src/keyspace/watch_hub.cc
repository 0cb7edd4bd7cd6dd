#include "keyspace/watch_hub.h"

#include <algorithm>

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/limits.h"
#include "keyspace/watch_stream.h"
#include "keyspace/wire.h"

namespace conclave::keyspace {

void append_event(std::string& out, const Store& store, const Version* event, bool with_previous) {
  append_bool_field(out, 1, event->is_tombstone());  // DELETE is 1
  append_key_value(out, 2, event, false);
  bool is_create = !event->is_tombstone() && event->create == event->mod;
  if (!with_previous || is_create) return;
  const Version* before = store.before_event(event);
  if (before != nullptr) append_key_value(out, 3, before, false);
}

bool WatchHub::is_large(uint64_t first_ordinal, int64_t revision) const {
  uint64_t beyond = first_ordinal + kQueuedRevisionEventsMax;
  return beyond < store_.events_end() && store_.event(beyond)->mod == revision;
}

void WatchHub::begin_revision(int64_t revision, uint64_t first_ordinal) {
  ASSERT_CMP(revision, >, dispatched_through_);
  dispatching_ = revision;
  dispatching_large_ = is_large(first_ordinal, revision);
}

void WatchHub::dispatch(const Version* event, uint32_t& units) {
  if (!synced_.empty()) give(event, synced_, dispatching_large_, units);
}

void WatchHub::end_revision() {
  dispatched_through_ = dispatching_;
  dispatching_ = 0;
  seal_touched();
}

void WatchHub::await_seal(WatchStream* stream) {
  if (stream->touched_) return;
  stream->touched_ = true;
  touched_.push_back(stream);
}

// A dispatch and a sweep may be in the middle of revisions at once, and this is called for either: who is named ready
// too early is refused and waits again.
void WatchHub::seal_touched() {
  for (WatchStream* stream : touched_) {
    stream->touched_ = false;
    set_ready(stream);
  }
  touched_.clear();
}

// One event to all watchers of a registry that want it. Large revisions are not queued.
void WatchHub::give(const Version* event, WatchRegistry& registry, bool large, uint32_t& units) {
  found_.clear();
  registry.find(event->key->bytes(), found_);
  Encoded encoded;
  for (WatchGroup* group : found_) {
    WatchLinks* next = group->first;
    while (next != nullptr) {
      Watcher* watcher = static_cast<Watcher*>(next);
      next = watcher->next;  // the watcher may leave, and the group with its last one
      if (units > 0) --units;
      if (watcher->next_revision > event->mod || !watcher->wants(event)) continue;
      if (large) {
        REACHED(keyspace_watch_large_revision);
        fall_back(watcher, event->mod);
      } else {
        enqueue(watcher, event, encoded);
      }
    }
  }
}

void WatchHub::enqueue(Watcher* watcher, const Version* event, Encoded& encoded) {
  if (watcher->queued() >= kWatcherQueueEventsMax || watcher->queued_bytes >= kWatcherQueueBytesMax) {
    fall_back(watcher, event->mod);
    return;
  }
  SharedBytes& bytes = watcher->prev_kv ? encoded.with_previous : encoded.plain;
  if (bytes.empty()) {
    scratch_.clear();
    append_event(scratch_, store_, event, watcher->prev_kv);
    bytes = SharedBytes::copy_of(scratch_);
  }
  watcher->queued_bytes += bytes.size();
  watcher->queue.push_back({bytes, event->mod});
  watcher->flowed = true;
  watcher->stream->pend(watcher);
  await_seal(watcher->stream);
}

void WatchHub::take_back(Watcher* watcher, int64_t revision) {
  while (watcher->queued() > 0 && watcher->queue.back().revision == revision) {
    watcher->queued_bytes -= watcher->queue.back().event.size();
    watcher->queue.pop_back();
  }
}

// The watcher cannot take `revision` now: what it got of it is taken back. With something to send before, it is blocked
// until that is sent; otherwise the revision alone is too much for a queue and is streamed.
void WatchHub::fall_back(Watcher* watcher, int64_t revision) {
  take_back(watcher, revision);
  remove(watcher);
  watcher->next_revision = revision;
  ++watcher->stream->unsynced_;
  if (watcher->queued() > 0) {
    REACHED(keyspace_watch_blocked);
    watcher->state = Watcher::State::kBlocked;
    return;
  }
  REACHED(keyspace_watch_streams_revision);
  watcher->state = Watcher::State::kStreaming;
  watcher->streaming_at = store_.first_event(revision);
  store_.pin(revision);
  ++watcher->stream->streaming_;
  watcher->flowed = true;
  watcher->stream->pend(watcher);
  set_ready(watcher->stream);
}

void WatchHub::unblock(Watcher* watcher) {
  int64_t next_revision = watcher->next_revision;
  remove(watcher);
  wait(watcher, next_revision);
}

void WatchHub::add(Watcher* watcher) {
  ASSERT(watcher->state == Watcher::State::kIdle);
  if (watcher->next_revision > store_.visible()) {
    synced_.add(watcher, watcher->range());
    watcher->state = Watcher::State::kSynced;
  } else {
    wait(watcher, watcher->next_revision);
  }
}

void WatchHub::wait(Watcher* watcher, int64_t next_revision) {
  ASSERT(watcher->state == Watcher::State::kIdle);
  watcher->next_revision = next_revision;
  watcher->state = Watcher::State::kWaiting;
  waiting_.emplace(std::pair(next_revision, watcher->serial), watcher);
  ++watcher->stream->unsynced_;
}

void WatchHub::remove(Watcher* watcher) {
  switch (watcher->state) {
    case Watcher::State::kIdle:
      break;
    case Watcher::State::kSynced:
      synced_.remove(watcher, watcher->range());
      break;
    case Watcher::State::kWaiting:
      waiting_.erase({watcher->next_revision, watcher->serial});
      --watcher->stream->unsynced_;
      break;
    case Watcher::State::kSweeping:
      sweeping_.remove(watcher, watcher->range());
      --watcher->stream->unsynced_;
      break;
    case Watcher::State::kBlocked:
      --watcher->stream->unsynced_;
      break;
    case Watcher::State::kStreaming:
      store_.unpin(watcher->next_revision);
      --watcher->stream->streaming_;
      --watcher->stream->unsynced_;
      break;
  }
  watcher->state = Watcher::State::kIdle;
}

// Those whose next revision lies above all that was swept and not above `revision` have missed nothing: they join. The
// others wait for the next sweep.
void WatchHub::join_sweep(int64_t revision) {
  auto at = waiting_.lower_bound({swept_through_ + 1, 0});
  while (at != waiting_.end() && at->first.first <= revision) {
    Watcher* watcher = at->second;
    at = waiting_.erase(at);
    watcher->state = Watcher::State::kSweeping;
    sweeping_.add(watcher, watcher->range());
  }
}

// History is read to its end: who swept is synced. True when all are, or no event came in between.
bool WatchHub::end_sweep(uint32_t& units) {
  while (WatchLinks* links = sweeping_.any()) {
    if (units == 0) return false;
    --units;
    Watcher* watcher = static_cast<Watcher*>(links);
    remove(watcher);
    watcher->next_revision = std::max(watcher->next_revision, swept_through_ + 1);
    synced_.add(watcher, watcher->range());
    watcher->state = Watcher::State::kSynced;
    set_ready(watcher->stream);  // a progress request may wait for this
  }
  sweep_active_ = false;
  return true;
}

bool WatchHub::sweep(uint32_t units) {
  if (dispatching_ != 0 || dispatched_through_ != store_.visible()) return false;
  if (waiting_.empty() && sweeping_.empty()) {
    sweep_active_ = false;
    sweeping_revision_ = 0;
    seal_touched();
    return false;
  }
  while (units > 0) {
    if (!sweep_active_) {
      // Who wants what is compacted is told so, after what it has been given already.
      while (!waiting_.empty() && waiting_.begin()->first.first < store_.floor()) {
        if (units == 0) return true;
        --units;
        Watcher* watcher = waiting_.begin()->second;
        remove(watcher);
        watcher->compacted = true;
        watcher->stream->pend(watcher);
        set_ready(watcher->stream);
      }
      if (waiting_.empty()) return true;
      swept_through_ = waiting_.begin()->first.first - 1;
      sweep_at_ = store_.first_event(swept_through_ + 1);
      sweep_active_ = true;
    }
    if (swept_through_ + 1 < store_.floor() && sweeping_revision_ < store_.floor()) {
      // The floor overtook the sweep: its watchers wait again, and are told.
      REACHED(keyspace_sweep_overtaken);
      while (WatchLinks* links = sweeping_.any()) {
        if (units == 0) return true;
        --units;
        Watcher* watcher = static_cast<Watcher*>(links);
        take_back(watcher, sweeping_revision_);
        remove(watcher);
        wait(watcher, swept_through_ + 1);
      }
      sweep_active_ = false;
      sweeping_revision_ = 0;
      seal_touched();
      continue;
    }
    if (sweep_at_ == store_.events_end()) {
      int64_t visible = store_.visible();
      join_sweep(visible);
      swept_through_ = visible;
      if (!end_sweep(units)) return true;
      if (waiting_.empty()) return true;
      continue;
    }
    const Version* event = store_.event(sweep_at_);
    if (sweeping_revision_ == 0) {
      join_sweep(event->mod);
      sweeping_revision_ = event->mod;
      sweeping_large_ = is_large(sweep_at_, event->mod);
    }
    --units;
    if (!sweeping_.empty()) give(event, sweeping_, sweeping_large_, units);
    ++sweep_at_;
    if (sweep_at_ == store_.events_end() || store_.event(sweep_at_)->mod != event->mod) {
      swept_through_ = sweeping_revision_;
      sweeping_revision_ = 0;
      seal_touched();
    }
  }
  return true;
}

void WatchHub::set_ready(WatchStream* stream) {
  if (stream->ready_) return;
  stream->ready_ = true;
  ready_.push_back(stream);
}

std::vector<WatchStream*> WatchHub::take_ready() {
  for (WatchStream* stream : ready_) stream->ready_ = false;
  return std::exchange(ready_, {});
}

void WatchHub::forget(WatchStream* stream) {
  if (stream->ready_) std::erase(ready_, stream);
  if (stream->touched_) std::erase(touched_, stream);
}

}  // namespace conclave::keyspace
