// PingStrikes: how often a client may ask whether this server is there, as servers of gRPC judge it: a ping sooner than
// min_time after the last one is a strike, one without a stream open is due every two hours only, and the third strike
// ends the connection. What the server sends wipes them out: clients measure their bandwidth by a ping for each answer.
#pragma once

#include <algorithm>

#include "base/time.h"

namespace conclave::net {

class PingStrikes {
 public:
  static constexpr int kMax = 2;
  static constexpr Duration kWithoutStreams = std::chrono::hours(2);

  explicit PingStrikes(Duration min_time) : min_time_(min_time) {}

  // False: one too many.
  [[nodiscard]] bool allows(Instant now, bool has_streams) {
    const Duration apart = has_streams ? min_time_ : std::max(min_time_, kWithoutStreams);
    if (is_known_ && now - last_ < apart) ++strikes_;
    is_known_ = true;
    last_ = now;
    return strikes_ <= kMax;
  }
  // Headers or data were sent: the next ping is free.
  void wipe() {
    strikes_ = 0;
    is_known_ = false;
  }

 private:
  Duration min_time_;
  Instant last_{};
  bool is_known_ = false;  // `last_`
  int strikes_ = 0;
};

}  // namespace conclave::net
