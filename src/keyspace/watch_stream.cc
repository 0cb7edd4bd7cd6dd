#include "keyspace/watch_stream.h"

#include <algorithm>

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/limits.h"
#include "keyspace/wire.h"

namespace conclave::keyspace {

WatchStream::~WatchStream() {
  for (auto& [id, watcher] : watchers_) hub_.remove(watcher.get());
  hub_.forget(this);
}

bool WatchStream::takes_requests() const {
  return control_.size() < kStreamControlMax;
}

void WatchStream::push(Control control) {
  control_.push_back(std::move(control));
  hub_.set_ready(this);
}

void WatchStream::pend(Watcher* watcher) {
  if (watcher->in_pending) return;
  watcher->in_pending = true;
  pending_.push_back(watcher);
}

void WatchStream::refuse(ByteView cancel_reason) {
  push({.revision = hub_.store().visible(),
        .watch_id = -1,
        .created = true,
        .canceled = true,
        .reason = std::string(cancel_reason)});
}

void WatchStream::create(const WatchCreate& request) {
  // An empty key means the smallest, as in etcd.
  ByteView key = request.key.empty() ? ByteView("\0", 1) : request.key;
  KeyRange range = KeyRange::of(key, request.range_end);
  if (range.kind == KeyRange::Kind::kInterval && range.begin >= range.end) {
    refuse(error_text(ErrorId::kWatchEmptyRange));
    return;
  }
  if (request.start_revision < 0) {
    refuse(error_text(ErrorId::kWatchCompacted));
    return;
  }
  if (request.watch_id != 0 && watchers_.contains(request.watch_id)) {
    refuse(error_text(ErrorId::kWatchDuplicateId));
    return;
  }
  if (watchers_.size() >= kStreamWatchersMax) {
    refuse(error_text(ErrorId::kWatchTooMany));
    return;
  }
  int64_t id = request.watch_id;
  if (id == 0) {
    while (watchers_.contains(next_id_)) ++next_id_;
    id = next_id_++;
  }
  auto owned = std::make_unique<Watcher>();
  Watcher* watcher = owned.get();
  watcher->stream = this;
  watcher->id = id;
  watcher->serial = hub_.next_serial();
  watcher->begin = std::string(range.begin);
  watcher->end = std::string(range.end);
  watcher->kind = range.kind;
  watcher->no_put = request.no_put;
  watcher->no_delete = request.no_delete;
  watcher->prev_kv = request.prev_kv;
  watcher->fragment = request.fragment;
  watcher->progress_notify = request.progress_notify;
  // "Next event" is the one after the revision the answer's header names.
  int64_t visible = hub_.store().visible();
  watcher->next_revision = request.start_revision == 0 ? visible + 1 : request.start_revision;
  watchers_.emplace(id, std::move(owned));
  push({.revision = visible, .watch_id = id, .created = true});
  hub_.add(watcher);
}

void WatchStream::drop(Watcher* watcher) {
  hub_.remove(watcher);
  if (watcher->in_pending) std::erase(pending_, watcher);
  if (building_ == watcher) {
    building_ = nullptr;
    built_ = {};
  }
  watchers_.erase(watcher->id);
  hub_.set_ready(this);  // a progress request may have waited for it
}

void WatchStream::cancel(int64_t watch_id) {
  auto at = watchers_.find(watch_id);
  if (at == watchers_.end()) return;
  drop(at->second.get());
  push({.revision = hub_.store().visible(), .watch_id = watch_id, .canceled = true});
}

void WatchStream::request_progress() {
  ++progress_requests_;
  hub_.set_ready(this);
}

void WatchStream::progress_tick() {
  if (!hub_.is_quiet()) return;
  for (auto& [id, watcher] : watchers_) {
    if (!watcher->progress_notify) continue;
    if (std::exchange(watcher->flowed, false)) continue;
    // Behind, or with events still to send: a note now would run ahead of them.
    if (watcher->state != Watcher::State::kSynced || watcher->queued() > 0 || !takes_requests()) continue;
    push({.revision = hub_.store().visible(), .watch_id = id});
  }
}

bool WatchStream::next(uint32_t& units, WatchResponse& out) {
  bool more = false;
  if (building_ != nullptr) return next_of(building_, units, out, more);
  if (!control_.empty()) {
    Control control = std::move(control_.front());
    control_.pop_front();
    out.revision = Revision(control.revision);
    out.body.clear();
    append_int64_field(out.body, 2, control.watch_id);
    append_bool_field(out.body, 3, control.created);
    append_bool_field(out.body, 4, control.canceled);
    append_int64_field(out.body, 5, control.compact_revision);
    append_bytes_field(out.body, 6, control.reason);
    return true;
  }
  // Each pending watcher gets its turn; one that has more goes to the back.
  for (size_t turns = pending_.size(); turns > 0; --turns) {
    if (units == 0) return false;
    Watcher* watcher = pending_.front();
    pending_.pop_front();
    watcher->in_pending = false;
    bool produced = next_of(watcher, units, out, more);
    if (produced || building_ != nullptr) return produced;
  }
  if (progress_requests_ > 0 && unsynced_ == 0 && pending_.empty() && hub_.is_quiet()) {
    --progress_requests_;
    out.revision = Revision(hub_.store().visible());
    out.body.clear();
    append_int64_field(out.body, 2, -1);
    return true;
  }
  // Asked for while a command is being dispatched: answered after it. What else may hold it back names us ready itself.
  if (progress_requests_ > 0 && !hub_.is_quiet()) hub_.await_seal(this);
  return false;
}

void WatchStream::head(const Watcher* watcher, WatchResponse& out) const {
  out.revision = Revision(hub_.store().visible());
  out.body.clear();
  append_int64_field(out.body, 2, watcher->id);
}

// What one watcher has to say. With `building_` set afterwards it is in the middle of a response.
bool WatchStream::next_of(Watcher* watcher, uint32_t& units, WatchResponse& out, bool& more) {
  more = false;
  if (watcher->queued() > 0) {
    bool produced = take_queued(watcher, out);
    if (watcher->queued() > 0) {
      // The rest of a split response, or a revision whose events are not all here yet.
      pend(watcher);
      if (!is_sealed_front(watcher)) hub_.await_seal(this);
    } else if (watcher->state == Watcher::State::kBlocked) {
      hub_.unblock(watcher);
    } else if (watcher->compacted) {
      pend(watcher);
    }
    units -= std::min<uint32_t>(units, 1 + static_cast<uint32_t>(out.body.size() / 1024));
    return produced;
  }
  if (watcher->compacted) {
    Control control{.revision = hub_.store().visible(),
                    .watch_id = watcher->id,
                    .canceled = true,
                    .compact_revision = hub_.store().floor()};
    drop(watcher);
    push(std::move(control));
    return next(units, out);
  }
  if (watcher->state != Watcher::State::kStreaming) return false;
  if (building_ == nullptr) {
    building_ = watcher;
    head(watcher, built_);
  }
  bool finished = false;
  bool produced = stream_revision(watcher, units, out, finished);
  if (finished) {
    int64_t revision = watcher->next_revision;
    hub_.remove(watcher);
    watcher->next_revision = revision + 1;
    hub_.add(watcher);
    hub_.set_ready(this);
  } else if (produced) {
    pend(watcher);
  }
  return produced;
}

bool WatchStream::is_sealed_front(const Watcher* watcher) const {
  return hub_.is_sealed(watcher, watcher->queue[watcher->queue_begin].revision);
}

// A response of all whole revisions in the queue; split, if the watcher wants that, at the last revision that fits, or
// within one that does not fit alone.
bool WatchStream::take_queued(Watcher* watcher, WatchResponse& out) {
  if (!is_sealed_front(watcher)) return false;
  head(watcher, out);
  size_t at = watcher->queue_begin;
  size_t whole = at;  // entries before it are whole revisions
  size_t whole_size = out.body.size();
  bool split = false;
  for (; at < watcher->queue.size() && hub_.is_sealed(watcher, watcher->queue[at].revision); ++at) {
    const QueuedEvent& event = watcher->queue[at];
    if (at > watcher->queue_begin && event.revision != watcher->queue[at - 1].revision) {
      whole = at;
      whole_size = out.body.size();
    }
    bool too_much = out.body.size() + event.event.size() > options_.fragment_bytes_max;
    if (watcher->fragment && too_much && at > watcher->queue_begin) {
      if (whole > watcher->queue_begin) {
        at = whole;
        out.body.resize(whole_size);
      } else {
        split = true;
      }
      break;
    }
    append_message_field(out.body, 11, event.event.view());
  }
  append_bool_field(out.body, 7, split);
  for (size_t i = watcher->queue_begin; i < at; ++i) {
    watcher->queued_bytes -= watcher->queue[i].event.size();
    watcher->queue[i].event = {};
  }
  watcher->queue_begin = at;
  if (watcher->queue_begin == watcher->queue.size()) {
    watcher->queue = {};
    watcher->queue_begin = 0;
  } else if (watcher->queue_begin >= kWatcherQueueEventsMax) {
    watcher->queue.erase(watcher->queue.begin(), watcher->queue.begin() + static_cast<ptrdiff_t>(watcher->queue_begin));
    watcher->queue_begin = 0;
  }
  return true;
}

// Goes on building the response of one large revision. True if `out` is a response; `finished` when the revision is
// over.
bool WatchStream::stream_revision(Watcher* watcher, uint32_t& units, WatchResponse& out, bool& finished) {
  Store& store = hub_.store();
  KeyRange range = watcher->range();
  std::string raw;
  bool any = false;
  while (true) {
    finished = watcher->streaming_at == store.events_end() ||
               store.event(watcher->streaming_at)->mod != watcher->next_revision;
    if (finished) break;
    if (units == 0) return false;
    --units;
    const Version* event = store.event(watcher->streaming_at);
    if (range.contains(event->key->bytes()) && watcher->wants(event)) {
      raw.clear();
      append_event(raw, store, event, watcher->prev_kv);
      any = built_.body.size() > 16;  // more than the head
      if (watcher->fragment && any && built_.body.size() + raw.size() > options_.fragment_bytes_max) {
        REACHED(keyspace_watch_fragment);
        append_bool_field(built_.body, 7, true);
        break;
      }
      append_message_field(built_.body, 11, raw);
      units -= std::min<uint32_t>(units, event->value_size / 1024);
    }
    ++watcher->streaming_at;
  }
  out = std::move(built_);
  built_ = {};
  building_ = nullptr;
  return true;
}

}  // namespace conclave::keyspace
