#include "client/held_state.h"

#include <utility>

#include "base/assert.h"
#include "client/io.h"

namespace conclave::client {

HeldState::HeldState(std::shared_ptr<Io> io, int64_t session, std::shared_ptr<SessionView> view,
                     std::vector<HeldClaim> claims, Options options)
    : io_(std::move(io)),
      session_(session),
      view_(std::move(view)),
      claims_(std::move(claims)),
      options_(std::move(options)) {}

HeldState::~HeldState() {
  if (!body_.joinable()) return;
  // The body's own thread may be the last to know of it.
  if (body_.get_id() == std::this_thread::get_id()) {
    body_.detach();
  } else {
    body_.join();
  }
}

bool HeldState::is_held() const {
  // In this order (session_view.h), and the clock last.
  const State state = view_->state.load(std::memory_order_acquire);
  const BootClock::time_point until = view_->deadline();
  return state == State::kSafe && !over_.load(std::memory_order_acquire) && !offered_.load(std::memory_order_acquire) &&
         BootClock::now() < until;
}

std::expected<void, Error> HeldState::wait_held(std::chrono::milliseconds at_most) const {
  if (!io_->is_own_thread()) {
    std::unique_lock lock(view_->mutex);
    view_->changed.wait_for(lock, bounded(at_most), [this] { return is_over() || is_held(); });
  }
  if (is_over()) return std::unexpected(loss());
  if (is_held()) return {};
  return std::unexpected(Error{ErrorKind::kNotApplied, "IN_JEOPARDY",
                               "the session was not renewed in its time: whether it still stands is not known yet"});
}

Error HeldState::loss() const {
  const std::lock_guard lock(mutex_);
  if (lost_) return loss_;
  return {ErrorKind::kLost, "RELEASED", "it was released"};
}

void HeldState::run(std::move_only_function<void(std::stop_token)> body) {
  const std::lock_guard lock(mutex_);
  ASSERT(!body_.joinable());
  body_runs_ = true;
  body_ = std::thread([self = shared_from_this(), body = std::move(body)]() mutable noexcept {
    body(self->stop_.get_token());
    bool release = false;
    {
      const std::lock_guard ending(self->mutex_);
      self->body_runs_ = false;
      release = self->release_after_body_;
    }
    if (release) self->release([](HeldEnd) {});
  });
}

bool HeldState::count_one_more() {
  const std::lock_guard lock(mutex_);
  if (lost_ || ending_) return false;
  ++count_;
  return true;
}

HeldEnd HeldState::end_of_lost() const {
  switch (how_) {
    case Over::kLost:
      return HeldEnd::kAlreadyLost;
    case Over::kClosed:
      return view_->close_confirmed ? HeldEnd::kReleased : HeldEnd::kUnknown;
    case Over::kResigned:
      return HeldEnd::kReleased;
  }
  return HeldEnd::kUnknown;
}

HeldEnd HeldState::end() {
  const bool may_wait = !io_->is_own_thread();
  {
    std::unique_lock lock(mutex_);
    if (count_ > 1) {
      --count_;
      return lost_ ? end_of_lost() : HeldEnd::kReleased;
    }
    if (ending_) {
      if (may_wait) ended_.wait(lock, [this] { return result_.has_value(); });
      return result_.value_or(HeldEnd::kUnknown);
    }
    ending_ = true;
  }
  over_.store(true, std::memory_order_release);
  stop_.request_stop();

  HeldEnd result = HeldEnd::kUnknown;
  if (may_wait) {
    if (body_.joinable() && body_.get_id() != std::this_thread::get_id()) body_.join();
    Promise<HeldEnd> promise;
    auto answer = promise.answer();
    release([promise = std::move(promise)](HeldEnd became) mutable { promise.give(became); });
    result = answer.wait().value_or(HeldEnd::kUnknown);
  } else {
    bool body_releases = false;
    {
      const std::lock_guard lock(mutex_);
      body_releases = release_after_body_ = body_runs_;
    }
    if (!body_releases) release([](HeldEnd) {});
  }

  const std::lock_guard lock(mutex_);
  result_ = lost_ ? end_of_lost() : result;
  ended_.notify_all();
  return *result_;
}

void HeldState::release(Given given) {
  io_->post([self = shared_from_this(), given = std::move(given)](Io&) mutable {
    self->release_at_the_client(std::move(given));
  });
}

void HeldState::release_at_the_client(Given given) {
  // Of several names, each has its own answer.
  struct Releasing {
    size_t left = 0;
    HeldEnd end = HeldEnd::kReleased;
    Given given;
    net::TimerId timer = 0;
  };
  const auto releasing = std::make_shared<Releasing>();
  releasing->given = std::move(given);
  LiveSessions& sessions = io_->sessions();
  std::vector<HeldClaim> held;
  for (const HeldClaim& claim : claims_) {
    if (sessions.holds(session_, claim)) held.push_back(claim);
  }
  if (held.size() < claims_.size()) releasing->end = HeldEnd::kAlreadyLost;
  if (held.empty()) return std::exchange(releasing->given, nullptr)(releasing->end);
  releasing->left = held.size();
  net::Loop& loop = io_->loop();
  releasing->timer = loop.call_at(loop.now() + bounded(options_.release_timeout), [releasing] {
    if (releasing->given) std::exchange(releasing->given, nullptr)(HeldEnd::kUnknown);
  });
  for (const HeldClaim& claim : held) {
    sessions.release(session_, options_.kind, claim, [releasing, &loop](OperationEnded&& ended) {
      const bool lost = ended.outcome == Outcome::kLost || (ended.outcome == Outcome::kDone && !ended.was_held);
      if (lost) {
        releasing->end = HeldEnd::kAlreadyLost;
      } else if (ended.outcome != Outcome::kDone && releasing->end == HeldEnd::kReleased) {
        releasing->end = HeldEnd::kUnknown;
      }
      if (--releasing->left > 0) return;
      loop.cancel(releasing->timer);
      if (releasing->given) std::exchange(releasing->given, nullptr)(releasing->end);
    });
  }
}

void HeldState::lose(Over how, std::string reason, std::string message) {
  {
    const std::lock_guard lock(mutex_);
    // Being released already: what comes of that says more.
    if (lost_ || ending_) return;
    lost_ = true;
    how_ = how;
    loss_ = {ErrorKind::kLost, std::move(reason), std::move(message)};
  }
  over_.store(true, std::memory_order_release);
  {
    const std::lock_guard lock(view_->mutex);
    view_->changed.notify_all();
  }
  stop_.request_stop();
}

void HeldState::on_jeopardy() {
  if (options_.stop_in_jeopardy) stop_.request_stop();
}

}  // namespace conclave::client
