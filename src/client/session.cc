// The public face of a session.
#include "conclave/session.h"

#include <utility>

#include "client/session_handle.h"

namespace conclave::client {
namespace {

// `done` of a call that was dropped is told so: it is called once, whatever happens.
template <class Value>
class Once {
 public:
  using Done = std::move_only_function<void(std::expected<Value, Error>)>;
  explicit Once(Done done) : done_(std::move(done)) {}
  Once(Once&& other) noexcept : done_(std::exchange(other.done_, nullptr)) {}
  Once& operator=(Once&& other) noexcept = delete;
  Once(const Once&) = delete;
  Once& operator=(const Once&) = delete;
  ~Once() {
    if (done_) done_(std::unexpected(client_closed()));
  }
  void operator()(std::expected<Value, Error> value) {
    if (auto done = std::exchange(done_, nullptr)) done(std::move(value));
  }

 private:
  Done done_;
};

Error no_name() {
  return {ErrorKind::kRejected, "INVALID_NAME", "a lock has a name"};
}

Error not_confirmed() {
  return {ErrorKind::kOutcomeUnknown, "UNKNOWN_OUTCOME",
          "no server has said that the session is closed; it ends by itself"};
}

// `done` of one that was granted, or not.
template <class Of>
Granted into(std::move_only_function<void(std::expected<Of, Error>)> done, auto make) {
  return [once = Once<Of>(std::move(done)), make](std::expected<std::shared_ptr<HeldState>, Error> held) mutable {
    if (!held) return once(std::unexpected(std::move(held).error()));
    once(make(std::move(*held)));
  };
}

Granted into(Promise<std::shared_ptr<HeldState>> promise) {
  return [promise = std::move(promise)](std::expected<std::shared_ptr<HeldState>, Error> held) mutable {
    promise.give(std::move(held));
  };
}

}  // namespace

Session::Session(std::shared_ptr<SessionHandle> handle) : handle_(std::move(handle)) {}

Session::Session(Session&& other) noexcept = default;

Session::~Session() {
  if (!handle_) return;
  // Whether or not a server says so: there is nobody to tell.
  const std::expected<void, Error> closed = close();
  static_cast<void>(closed);
}

int64_t Session::id() const {
  return handle_->view->id;
}

State Session::state() const {
  return handle_->view->now();
}

BootClock::time_point Session::deadline() const {
  return handle_->view->deadline();
}

std::expected<void, Error> Session::wait_safe(std::chrono::milliseconds at_most) const {
  const SessionView& view = *handle_->view;
  const auto is_final = [&] { return view.now() == State::kExpired || view.now() == State::kClosed; };
  if (!handle_->io->is_own_thread()) {
    std::unique_lock lock(view.mutex);
    view.changed.wait_for(lock, bounded(at_most), [&] { return view.now() == State::kSafe || is_final(); });
  }
  if (view.now() == State::kSafe) return {};
  if (is_final()) return std::unexpected(Error{ErrorKind::kLost, "SESSION_EXPIRED", view.why()});
  return std::unexpected(Error{ErrorKind::kNotApplied, "IN_JEOPARDY",
                               "the session was not renewed in its time: whether it still stands is not known yet"});
}

std::expected<void, Error> Session::close() {
  const State now = state();
  if (now == State::kClosed && handle_->view->close_confirmed) return {};
  if (now == State::kClosed) return std::unexpected(not_confirmed());
  if (now == State::kExpired) return std::unexpected(Error{ErrorKind::kLost, "SESSION_EXPIRED", handle_->view->why()});
  const auto closing = [id = handle_->id](Io& io, std::move_only_function<void(bool)> closed) {
    io.sessions().close(id, io.request_timeout(), std::move(closed));
  };
  if (handle_->io->is_own_thread()) {
    closing(*handle_->io, [](bool) {});
    return {};
  }
  return handle_->io->ask<void>([closing](Io& io, Promise<void> promise) {
    closing(io, [promise = std::move(promise)](bool confirmed) mutable {
      if (confirmed) return promise.give({});
      promise.give(std::unexpected(not_confirmed()));
    });
  });
}

// ---- Locks ----

std::expected<Hold, Error> Session::wait_lock(std::vector<std::string> names, bool try_once, LockOptions options) {
  if (names.empty()) return std::unexpected(no_name());
  if (handle_->io->is_own_thread()) return std::unexpected(Io::on_client_thread());
  Promise<std::shared_ptr<HeldState>> promise;
  auto answer = promise.answer();
  acquire(*handle_, std::move(names), try_once, std::move(options), into(std::move(promise)));
  auto held = answer.wait();
  if (!held) return std::unexpected(std::move(held).error());
  return Hold(std::move(*held));
}

std::expected<Hold, Error> Session::lock(std::string name, LockOptions options) {
  return wait_lock({std::move(name)}, false, std::move(options));
}

std::expected<Hold, Error> Session::try_lock(std::string name, LockOptions options) {
  return wait_lock({std::move(name)}, true, std::move(options));
}

std::expected<Hold, Error> Session::lock_all(std::vector<std::string> names, LockOptions options) {
  return wait_lock(std::move(names), false, std::move(options));
}

void Session::lock(std::string name, LockOptions options,
                   std::move_only_function<void(std::expected<Hold, Error>)> done) {
  lock_all({std::move(name)}, std::move(options), std::move(done));
}

void Session::lock_all(std::vector<std::string> names, LockOptions options,
                       std::move_only_function<void(std::expected<Hold, Error>)> done) {
  if (names.empty()) return done(std::unexpected(no_name()));
  acquire(*handle_, std::move(names), false, std::move(options),
          into<Hold>(std::move(done), [](std::shared_ptr<HeldState> held) { return Hold(std::move(held)); }));
}

std::expected<HeldEnd, Error> Session::with_lock(std::string name, LockOptions options,
                                                 const std::function<void(Hold& hold)>& body) {
  auto hold = lock(std::move(name), std::move(options));
  if (!hold) return std::unexpected(std::move(hold).error());
  body(*hold);
  return hold->release();
}

// ---- Elections ----

std::expected<Term, Error> Session::campaign(std::string name, std::string value, CampaignOptions options) {
  if (handle_->io->is_own_thread()) return std::unexpected(Io::on_client_thread());
  Promise<std::shared_ptr<HeldState>> promise;
  auto answer = promise.answer();
  client::campaign(*handle_, std::move(name), std::move(value), std::move(options), into(std::move(promise)));
  auto held = answer.wait();
  if (!held) return std::unexpected(std::move(held).error());
  return Term(std::move(*held));
}

void Session::campaign(std::string name, std::string value, CampaignOptions options,
                       std::move_only_function<void(std::expected<Term, Error>)> done) {
  client::campaign(*handle_, std::move(name), std::move(value), std::move(options),
                   into<Term>(std::move(done), [](std::shared_ptr<HeldState> held) { return Term(std::move(held)); }));
}

Observation Session::observe(std::string name, std::function<void(const Leader& leader)> seen, ObserveOptions options) {
  const auto state =
      std::make_shared<Observation::State>(handle_->io, handle_->id, std::move(name), std::move(seen), options);
  handle_->io->post([id = handle_->id, weak = std::weak_ptr(state)](Io& io) { io.sessions().observe(id, weak); });
  return Observation(state);
}

}  // namespace conclave::client
