// The state machine of one watch stream: requests in, responses out, both values. Owns its watchers. Made and ended by
// whoever owns the connection, on the replica's thread, while the keyspace lives; asked for responses when the hub
// names it ready or after a request, as far as the connection takes them. Memory: what limits.h allows per watcher, and
// the one response being built.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>

#include "base/types.h"
#include "keyspace/errors.h"
#include "keyspace/watch_hub.h"

namespace conclave::keyspace {

struct WatchCreate {
  ByteView key;
  ByteView range_end;
  int64_t start_revision = 0;
  int64_t watch_id = 0;  // 0: the stream picks one
  bool progress_notify = false;
  bool no_put = false;
  bool no_delete = false;
  bool prev_kv = false;
  bool fragment = false;
};

struct WatchResponse {
  Revision revision;  // for the header
  std::string body;   // a WatchResponse without field 1
};

class WatchStream {
 public:
  struct Options {
    // Where responses of watchers that asked for fragments are split: the API's largest request.
    size_t fragment_bytes_max = (size_t{3} << 20) / 2;
  };
  explicit WatchStream(WatchHub& hub) : WatchStream(hub, Options{}) {}
  WatchStream(WatchHub& hub, Options options) : hub_(hub), options_(options) {}
  WatchStream(const WatchStream&) = delete;
  WatchStream& operator=(const WatchStream&) = delete;
  ~WatchStream();

  // While false the owner reads no requests: too many answers wait already.
  [[nodiscard]] bool takes_requests() const;
  void create(const WatchCreate& request);
  // What etcd answers when the caller may not read the range.
  void refuse(ByteView cancel_reason);
  void cancel(int64_t watch_id);
  void request_progress();
  // Every progress interval: notes to watchers that asked for them and had no events since the last.
  void progress_tick();

  // The next response. False: nothing to send now, or `units` ran out in the middle of a large one (then has_more()).
  [[nodiscard]] bool next(uint32_t& units, WatchResponse& out);
  [[nodiscard]] bool has_more() const { return building_ != nullptr || !control_.empty() || !pending_.empty(); }
  // In the middle of a large revision: the past is kept for it.
  [[nodiscard]] bool holds_history() const { return streaming_ > 0; }
  [[nodiscard]] size_t watchers() const { return watchers_.size(); }

 private:
  friend class WatchHub;
  struct Control {
    int64_t revision = 0;
    int64_t watch_id = 0;
    bool created = false;
    bool canceled = false;
    int64_t compact_revision = 0;
    std::string reason;
  };
  void pend(Watcher* watcher);
  void push(Control control);
  void drop(Watcher* watcher);
  bool next_of(Watcher* watcher, uint32_t& units, WatchResponse& out, bool& more);
  [[nodiscard]] bool is_sealed_front(const Watcher* watcher) const;
  bool take_queued(Watcher* watcher, WatchResponse& out);
  bool stream_revision(Watcher* watcher, uint32_t& units, WatchResponse& out, bool& finished);
  void head(const Watcher* watcher, WatchResponse& out) const;

  WatchHub& hub_;
  Options options_;
  std::map<int64_t, std::unique_ptr<Watcher>> watchers_;
  int64_t next_id_ = 0;
  std::deque<Control> control_;
  std::deque<Watcher*> pending_;
  // A response being built of a large revision.
  Watcher* building_ = nullptr;
  WatchResponse built_;
  uint64_t progress_requests_ = 0;  // each has an answer, as in etcd
  // For the hub.
  size_t unsynced_ = 0;
  size_t streaming_ = 0;  // watchers that pin a revision
  bool ready_ = false;
  bool touched_ = false;
};

}  // namespace conclave::keyspace
