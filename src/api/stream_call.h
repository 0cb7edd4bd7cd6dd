// Calls that stream. A stream whose client asked for a leader (`hasleader`) is ended with "no leader" once this server
// has been without one for three election timeouts: at once where that is so already. (etcd refuses a new one as soon
// as no leader is known. Its clients open their watches anew the moment a server dies and give them up at that answer;
// an election here takes milliseconds then, in which they would come.) One for whom the past is kept has to read on.
#pragma once

#include <functional>
#include <utility>

#include "api/call.h"
#include "api/limits.h"

namespace conclave::api {

class StreamCall : public Call, public RoleListener, public Timed {
 public:
  StreamCall(Context& context, net::ServerCall& wire, Method method);
  void on_role_changed() final;
  void on_time(Instant now) final;

 protected:
  void on_closed() override;

 private:
  void end_unless_led();

  bool requires_leader_ = false;
};

// With a client for whom memory of the past is kept: it is ended where it takes nothing for kHistoryPatience.
class ReaderPatience final : public Timed {
 public:
  // `end` ends the call.
  ReaderPatience(Context& context, std::function<void()> end) : context_(context), end_(std::move(end)) {}
  // From now on anew.
  void begin() {
    runs_ = true;
    context_.set_timer(*this, context_.now() + kHistoryPatience);
  }
  void stop() {
    runs_ = false;
    context_.stop_timer(*this);
  }
  [[nodiscard]] bool runs() const { return runs_; }
  void on_time(Instant now) override;

 private:
  Context& context_;
  std::function<void()> end_;
  bool runs_ = false;
};

}  // namespace conclave::api
