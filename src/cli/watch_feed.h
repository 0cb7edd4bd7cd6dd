// WatchFeed: the events of a range of keys, without gap or repetition, through whichever endpoint answers: a stream
// that breaks is opened again at the next one, from the revision after the last seen. On the loop's thread only.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cli/endpoints.h"
#include "etcd/rpc.pb.h"

namespace conclave::cli {

struct WatchFeedEvents {
  // Of one answer, in order. May not destroy the feed.
  std::function<void(const etcdserverpb::WatchResponse& response)> on_events;
  // Once, last: it cannot go on (compacted, refused). Not for servers that are away: those are waited for.
  std::function<void(const Failure& failure)> on_failed;
};

class WatchFeed {
 public:
  // A start revision of zero: from now on.
  WatchFeed(Endpoints& endpoints, etcdserverpb::WatchCreateRequest request, WatchFeedEvents events);
  WatchFeed(const WatchFeed&) = delete;
  WatchFeed& operator=(const WatchFeed&) = delete;
  ~WatchFeed();

 private:
  void open();
  void on_message(ByteView message);
  void reopen_later();

  Endpoints& endpoints_;
  etcdserverpb::WatchCreateRequest request_;  // its start revision moves on with what was seen
  WatchFeedEvents events_;
  size_t endpoint_;
  std::unique_ptr<net::ClientCall> call_;
  net::TimerId timer_ = 0;
  bool ended_ = false;
};

}  // namespace conclave::cli
