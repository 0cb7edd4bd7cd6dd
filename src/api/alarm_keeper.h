// Raises and clears the alarms of this server's own judgement (alarms.h); one for each service. A look each second: an
// alarm that comes a second late costs nothing, since what does not fit is refused all the same.
#pragma once

#include "api/context.h"
#include "keyspace/internal_command.h"

namespace conclave::api {

class AlarmKeeper final : public Waiter, public Timed {
 public:
  explicit AlarmKeeper(Context& context);
  ~AlarmKeeper() override;
  AlarmKeeper(const AlarmKeeper&) = delete;
  AlarmKeeper& operator=(const AlarmKeeper&) = delete;

  void on_time(Instant now) override;
  void on_applied(node::Ticket ticket, const keyspace::Reply& reply) override;
  void on_refused(node::Ticket ticket, keyspace::ErrorId error) override;

 private:
  void look();
  void write(const keyspace::InternalOperation& operation);

  Context& context_;
  node::Ticket ticket_ = 0;  // one change at a time
};

}  // namespace conclave::api
