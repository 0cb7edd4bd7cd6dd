// What the watches must have said so far, and what one server's streams did say. The first is computed from the events
// of a watch of everything, so that both streams are compared when, and only when, all has come.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "etcd/rpc.pb.h"
#include "net/client.h"
#include "tests/differential/http.h"
#include "tests/differential/json.h"

namespace conclave::differential {

struct WrittenEvent {
  int64_t revision = 0;
  bool is_delete = false;
  std::string key;
};

// One stream as it must be on both servers: its watchers, and how many lines they are due. A line is an event, or a
// response without one.
class ExpectedStream {
 public:
  void begin() { *this = {}; }
  void take(const etcdserverpb::WatchRequest& request, int64_t revision, int64_t compacted,
            const std::vector<WrittenEvent>& written);
  void written(const WrittenEvent& event);
  [[nodiscard]] uint64_t lines() const { return lines_; }
  // A watcher from before `revision` that has said nothing yet: nobody sees how far it has come.
  [[nodiscard]] bool may_be_behind(int64_t revision) const;
  // False: it is about the id of a watcher that a compaction ended.
  [[nodiscard]] bool may_take(const etcdserverpb::WatchRequest& request) const;

 private:
  struct Watcher {
    std::string key;
    std::string end;
    int64_t start = 0;
    bool no_put = false;
    bool no_delete = false;
    bool is_silent = false;  // from a past revision, and has had nothing to say
    bool is_ended = false;   // by a compaction: etcd goes on to know its id
    [[nodiscard]] bool wants(const WrittenEvent& event) const;
  };
  [[nodiscard]] bool is_ended(int64_t id) const;

  std::map<int64_t, Watcher> watchers_;
  int64_t next_id_ = 0;
  uint64_t lines_ = 0;
};

// One server's end of a stream.
struct SaidStream {
  std::unique_ptr<net::ClientCall> call;
  std::unique_ptr<HttpClient> http;
  std::map<int64_t, std::vector<std::string>> lines;  // since they were last compared, by watcher
  std::map<int64_t, int64_t> parts;   // the revision of which a watcher is owed more, since only a part of it came
  std::map<int64_t, int64_t> newest;  // revision that a watcher was told of
  uint64_t count = 0;                 // of all lines
};

}  // namespace conclave::differential
