#include "api/stream_pump.h"

#include <algorithm>

#include "api/limits.h"
#include "base/assert.h"

namespace conclave::api {

void StreamPump::remove(keyspace::WatchStream& stream) {
  const auto found = owners_.find(&stream);
  ASSERT(found != owners_.end());
  StreamOwner* owner = found->second;
  owners_.erase(found);
  if (!owner->queued_) return;
  owner->queued_ = false;
  std::erase(ready_, owner);
}

void StreamPump::wake(StreamOwner& owner) {
  if (owner.queued_) return;
  owner.queued_ = true;
  ready_.push_back(&owner);
}

void StreamPump::run(keyspace::WatchHub& hub, uint32_t units) {
  for (keyspace::WatchStream* stream : hub.take_ready()) {
    const auto found = owners_.find(stream);
    if (found != owners_.end()) wake(*found->second);
  }
  while (units > 0 && !ready_.empty()) {
    StreamOwner* owner = ready_.front();
    ready_.pop_front();
    owner->queued_ = false;
    const uint32_t share = std::min(units, kSharedUnits);
    uint32_t left = share;
    const bool again = owner->pump(left);
    // Asking costs something even if nothing comes of it.
    units -= std::max<uint32_t>(1, share - left);
    if (again) wake(*owner);
  }
}

}  // namespace conclave::api
