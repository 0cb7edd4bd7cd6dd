// Calls that stream. A stream whose client asked for a leader (`hasleader`) is ended with "no leader" at once if none
// is known, and after three election timeouts without one.
#pragma once

#include "api/call.h"

namespace conclave::api {

class StreamCall : public Call, public RoleListener, public Timed {
 public:
  StreamCall(Context& context, net::ServerCall& wire, Method method);
  void on_role_changed() final;
  void on_time(Instant now) final;

 protected:
  void on_closed() override;

 private:
  bool requires_leader_ = false;
};

}  // namespace conclave::api
