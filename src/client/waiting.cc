// A claim that is waited for: who waits, and how the wait is cancelled. An acquire's time is counted by the
// session's core.
#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "client/names.h"
#include "client/session_handle.h"

namespace conclave::client {
namespace {

// Zero is no limit; what is below it is over at once.
Duration limit_of(std::chrono::milliseconds timeout) {
  if (timeout == std::chrono::milliseconds::zero()) return Duration::zero();
  return std::max(bounded(timeout), std::chrono::milliseconds(1));
}

class Waiting : public std::enable_shared_from_this<Waiting> {
 public:
  Waiting(const SessionHandle& handle, HeldState::Options options, Granted granted)
      : io_(handle.io),
        session_(handle.id),
        view_(handle.view),
        options_(std::move(options)),
        granted_(std::move(granted)) {}

  // All that follows is on the client's thread. `ask` begins the operation; zero `timeout`: none is counted here.
  template <class Ask>
  void begin(Duration timeout, const std::stop_token& cancel, Ask ask) {
    const auto self = shared_from_this();
    operation_ = ask(io_->sessions(), [self](OperationEnded&& ended) { self->on_ended(std::move(ended)); });
    if (!granted_) return;  // answered already
    if (timeout > Duration::zero()) {
      timer_ = io_->loop().call_at(io_->loop().now() + timeout, [self] {
        self->timer_ = 0;
        self->timed_out_ = true;
        self->io_->sessions().cancel(self->session_, self->operation_);
      });
    }
    if (!cancel.stop_possible()) return;
    on_cancel_.emplace(cancel, [weak = weak_from_this(), io = io_] {
      io->post([weak](Io&) {
        if (const auto waiting = weak.lock()) waiting->io_->sessions().cancel(waiting->session_, waiting->operation_);
      });
    });
  }

  void answer(std::expected<std::shared_ptr<HeldState>, Error> answer) {
    io_->loop().cancel(std::exchange(timer_, 0));
    on_cancel_.reset();
    if (granted_) std::exchange(granted_, nullptr)(std::move(answer));
  }

 private:
  void on_ended(OperationEnded&& ended) {
    if (ended.outcome != Outcome::kDone) {
      if (timed_out_ && ended.outcome == Outcome::kCancelled) ended.outcome = Outcome::kNotApplied;
      if (timed_out_) ended.reason = "TIMED_OUT";
      return answer(std::unexpected(error_of(ended)));
    }
    const auto held = std::make_shared<HeldState>(io_, session_, view_, std::move(ended.claims), std::move(options_));
    if (!io_->sessions().hold(held)) {
      held->lose(HeldState::Over::kLost, "DELETED", "the claim was lost as it was granted");
      return answer(std::unexpected(held->loss()));
    }
    answer(held);
  }

  const std::shared_ptr<Io> io_;
  const int64_t session_;
  const std::shared_ptr<SessionView> view_;
  HeldState::Options options_;
  Granted granted_;  // null: answered
  OperationId operation_ = 0;
  net::TimerId timer_ = 0;
  bool timed_out_ = false;
  std::optional<std::stop_callback<std::function<void()>>> on_cancel_;
};

}  // namespace

void acquire(const SessionHandle& handle, std::vector<std::string> names, bool try_once, LockOptions options,
             Granted granted) {
  const bool reentrant = options.reentrant && names.size() == 1;
  const auto waiting = std::make_shared<Waiting>(handle,
                                                 HeldState::Options{.kind = HeldState::Kind::kLock,
                                                                    .reentrant = reentrant,
                                                                    .stop_in_jeopardy = options.stop_in_jeopardy,
                                                                    .release_timeout = options.release_timeout,
                                                                    .on_end = std::move(options.on_end)},
                                                 std::move(granted));
  handle.io->post([waiting, session = handle.id, names = std::move(names), try_once, reentrant,
                   options = std::move(options)](Io& io) mutable {
    const auto standing = reentrant ? io.sessions().held(session, names.front()) : nullptr;
    if (standing && standing->options().reentrant && standing->count_one_more()) return waiting->answer(standing);
    const std::stop_token cancel = options.cancel;
    waiting->begin(Duration::zero(), cancel, [&](LiveSessions& sessions, LiveSessions::Ended ended) {
      return sessions.acquire(session,
                              {.names = std::move(names),
                               .try_once = try_once,
                               // A try has no time of its own: it is answered as soon as there is a server.
                               .timeout = try_once ? io.request_timeout() : limit_of(options.timeout),
                               .lock_delay = bounded(options.lock_delay),
                               .note = std::move(options.note),
                               .while_holding = options.while_holding},
                              std::move(ended));
    });
  });
}

void campaign(const SessionHandle& handle, std::string name, std::string value, CampaignOptions options,
              Granted granted) {
  const auto waiting = std::make_shared<Waiting>(handle,
                                                 HeldState::Options{.kind = HeldState::Kind::kTerm,
                                                                    .stop_in_jeopardy = options.stop_in_jeopardy,
                                                                    .release_timeout = options.release_timeout,
                                                                    .on_end = std::move(options.on_end)},
                                                 std::move(granted));
  handle.io->post([waiting, session = handle.id, name = std::move(name), value = std::move(value),
                   options = std::move(options)](Io&) mutable {
    waiting->begin(limit_of(options.timeout), options.cancel, [&](LiveSessions& sessions, LiveSessions::Ended ended) {
      return sessions.campaign(session, std::move(name), std::move(value), options.priority, std::move(ended));
    });
  });
}

}  // namespace conclave::client
