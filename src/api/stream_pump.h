// The watch streams of all calls, and which of them have something to send. Owns neither; whoever owns a stream adds it
// and takes it out before it ends.
#pragma once

#include <cstdint>
#include <deque>
#include <unordered_map>

#include "keyspace/watch_hub.h"
#include "keyspace/watch_stream.h"

namespace conclave::api {

class StreamOwner {
 public:
  virtual ~StreamOwner() = default;
  // Sends what the stream has, until `units` are gone or the connection takes no more. True: it stopped for want of
  // units and is to be asked again.
  virtual bool pump(uint32_t& units) = 0;

 private:
  friend class StreamPump;
  bool queued_ = false;
};

class StreamPump {
 public:
  void add(keyspace::WatchStream& stream, StreamOwner& owner) { owners_.emplace(&stream, &owner); }
  void remove(keyspace::WatchStream& stream);
  // It has something to send, or the connection takes more again.
  void wake(StreamOwner& owner);

  // Asks those the hub names ready, and those woken, in turn.
  void run(keyspace::WatchHub& hub, uint32_t units);
  [[nodiscard]] bool has_work() const { return !ready_.empty(); }
  [[nodiscard]] size_t size() const { return owners_.size(); }

 private:
  std::unordered_map<const keyspace::WatchStream*, StreamOwner*> owners_;  // never walked
  std::deque<StreamOwner*> ready_;
};

}  // namespace conclave::api
