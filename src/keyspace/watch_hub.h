// All watchers of one replica: gives each event of each published revision to those who watch its key, and lets those
// that are behind catch up from history together. Not part of the replicated state. One thread; bounded work per call.
//
// A watcher is synced (gets events as they are published), waiting (behind, or fallen behind because its queue was
// full), sweeping (one of those for whom history is being read right now), blocked (its queue is full; it waits once
// that is sent) or streaming (it reads one large revision itself, while its stream sends it). One sweep serves all who
// wait: the log is read once, however many are behind, and none that is synced pays for it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "keyspace/requests.h"
#include "keyspace/store.h"
#include "keyspace/watch_registry.h"

namespace conclave::keyspace {

class WatchStream;

struct QueuedEvent {
  SharedBytes event;  // an encoded mvccpb.Event, shared by all watchers that want it in this form
  int64_t revision = 0;
};

struct Watcher : WatchLinks {
  enum class State : uint8_t { kIdle, kSynced, kWaiting, kSweeping, kBlocked, kStreaming };
  WatchStream* stream = nullptr;
  int64_t id = 0;
  uint64_t serial = 0;  // the order of creation in the hub: ties are broken by it, never by address
  std::string begin;
  std::string end;
  KeyRange::Kind kind = KeyRange::Kind::kPoint;
  State state = State::kIdle;
  bool no_put = false;
  bool no_delete = false;
  bool prev_kv = false;
  bool fragment = false;
  bool progress_notify = false;
  bool flowed = false;      // events since the last progress tick
  bool in_pending = false;  // its stream will look at it
  bool compacted = false;   // what it wants next is gone: to be canceled once its queue is empty
  // The first revision it has not been given. While sweeping or synced it may lag; what is below was given or not
  // wanted.
  int64_t next_revision = 0;
  uint64_t streaming_at = 0;  // ordinal of the next event to look at, while streaming
  std::vector<QueuedEvent> queue;
  size_t queue_begin = 0;
  size_t queued_bytes = 0;

  [[nodiscard]] KeyRange range() const { return {begin, end, kind}; }
  [[nodiscard]] bool wants(const Version* event) const { return event->is_tombstone() ? !no_delete : !no_put; }
  [[nodiscard]] size_t queued() const { return queue.size() - queue_begin; }
};

class WatchHub {
 public:
  explicit WatchHub(Store& store) : store_(store), dispatched_through_(store.visible()) {}
  WatchHub(const WatchHub&) = delete;
  WatchHub& operator=(const WatchHub&) = delete;

  // By Execution, for each revision in order: begin, every event, end.
  void begin_revision(int64_t revision, uint64_t first_ordinal);
  void dispatch(const Version* event, uint32_t& units);
  void end_revision();
  [[nodiscard]] bool is_dispatching() const { return dispatching_ != 0; }
  // After a snapshot was loaded: nothing to dispatch up to the visible revision.
  void restart() { dispatched_through_ = store_.visible(); }

  // Lets watchers catch up. False if nobody is behind. Only between commands.
  bool sweep(uint32_t units);

  // Streams with something to send, each once; the caller asks them.
  [[nodiscard]] std::vector<WatchStream*> take_ready();
  [[nodiscard]] bool has_ready() const { return !ready_.empty(); }

  [[nodiscard]] size_t synced() const { return synced_.size(); }
  [[nodiscard]] size_t behind() const { return waiting_.size() + sweeping_.size(); }

  // For WatchStream.
  void add(Watcher* watcher);     // by its next_revision
  void remove(Watcher* watcher);  // from wherever it is
  void wait(Watcher* watcher, int64_t next_revision);
  void unblock(Watcher* watcher);  // its queue is empty
  void set_ready(WatchStream* stream);
  void forget(WatchStream* stream);
  // Whether all events of a revision are in this watcher's queue: until then none may be sent. What a sweep is in the
  // middle of, synced watchers were given whole when it was dispatched.
  [[nodiscard]] bool is_sealed(const Watcher* watcher, int64_t revision) const {
    return revision != (watcher->state == Watcher::State::kSweeping ? sweeping_revision_ : dispatching_);
  }
  // The stream has something to send that waits for a revision to be whole: it is ready once one is.
  void await_seal(WatchStream* stream);
  // Everything visible was given to every synced watcher.
  [[nodiscard]] bool is_quiet() const { return dispatching_ == 0 && dispatched_through_ == store_.visible(); }
  [[nodiscard]] Store& store() { return store_; }
  [[nodiscard]] uint64_t next_serial() { return ++serial_; }

 private:
  // The encodings of the event at hand, made when the first watcher wants them.
  struct Encoded {
    SharedBytes plain;
    SharedBytes with_previous;
  };
  void give(const Version* event, WatchRegistry& registry, bool large, uint32_t& units);
  void enqueue(Watcher* watcher, const Version* event, Encoded& encoded);
  static void take_back(Watcher* watcher, int64_t revision);
  void fall_back(Watcher* watcher, int64_t revision);
  void join_sweep(int64_t revision);
  bool end_sweep(uint32_t& units);
  [[nodiscard]] bool is_large(uint64_t first_ordinal, int64_t revision) const;
  void seal_touched();

  Store& store_;
  WatchRegistry synced_;
  WatchRegistry sweeping_;
  std::map<std::pair<int64_t, uint64_t>, Watcher*> waiting_;  // by (next revision, serial)
  int64_t dispatched_through_;
  int64_t dispatching_ = 0;  // the revision being dispatched, 0 if none
  bool dispatching_large_ = false;
  bool sweep_active_ = false;
  uint64_t sweep_at_ = 0;          // ordinal of the next event to read
  int64_t swept_through_ = 0;      // all events up to here were read
  int64_t sweeping_revision_ = 0;  // in the middle of it, 0 if not
  bool sweeping_large_ = false;
  std::vector<WatchGroup*> found_;
  std::vector<WatchStream*> ready_;
  std::vector<WatchStream*> touched_;  // got events of a revision that is not sealed yet, or asked while one was not
  uint64_t serial_ = 0;
  std::string scratch_;
};

// Appends an mvccpb.Event's fields.
void append_event(std::string& out, const Store& store, const Version* event, bool with_previous);

}  // namespace conclave::keyspace
